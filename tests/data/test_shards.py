"""The on-disk format: what is written is read back, by index, and nothing damaged is read as data."""

import concurrent.futures
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from aitom_ssl.data import shards
from aitom_ssl.data.shards import Dataset, write_dataset
from aitom_ssl.errors import InputError

SIZE, COUNT = 6, 23


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of 8 samples, so that 23 samples make two whole ones and a short one."""
    monkeypatch.setattr(shards, "SHARD_SIZE", 8)


def make_samples(count=COUNT, size=SIZE, masks=False, halves=False):
    rng = np.random.default_rng(0)
    for index in range(count):
        sample = {
            "volume": rng.standard_normal((size, size, size)).astype(np.float32),
            "label": index % 3,
            "quaternion": rng.standard_normal(4),
            "index": index,
        }
        if masks:
            sample["mask"] = (sample["volume"] > 0.5).astype(np.uint8)
        if halves:
            sample["half"] = sample["volume"] + rng.standard_normal((size, size, size)).astype(np.float32)
        yield sample


def make(folder, dtype="float32", splits=None, **options):
    splits = splits or {"train": make_samples()}
    return write_dataset(folder, "toy", ["a", "b", "c"], 10.0, "bright", splits, {"answer": 42}, dtype=dtype, **options)


def test_float32_comes_back_bit_for_bit(tmp_path):
    dataset = Dataset(make(tmp_path / "d"))
    expected = list(make_samples())
    assert len(dataset) == COUNT
    for index, sample in enumerate(expected):
        found = dataset[index]
        assert found["volume"].dtype == np.float32
        np.testing.assert_array_equal(found["volume"], sample["volume"])
        np.testing.assert_array_equal(found["quaternion"], sample["quaternion"])
        assert (found["label"], found["name"], found["index"]) == (index % 3, "abc"[index % 3], index)
    assert (dataset.name, dataset.class_names, dataset.voxel_size) == ("toy", ["a", "b", "c"], 10.0)
    assert (dataset.contrast, dataset.size, dataset.metadata) == ("bright", SIZE, {"answer": 42})


def test_every_finite_float16_is_converted_exactly():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    out = shards._to_float32(every[None])[0]
    np.testing.assert_array_equal(out.view(np.uint32), every.astype(np.float32).view(np.uint32))


def test_float16_is_rounded_once(tmp_path):
    dataset = Dataset(make(tmp_path / "d", dtype="float16"))
    expected = np.stack([s["volume"] for s in make_samples()]).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(dataset.volumes(range(COUNT)), expected)


def test_any_order_repeated_and_negative(tmp_path):
    dataset = Dataset(make(tmp_path / "d"))
    everything = dataset.volumes(range(COUNT))
    order = [22, 0, 8, 7, 0, -1, 15, 16]
    np.testing.assert_array_equal(dataset.volumes(order), everything[order])
    np.testing.assert_array_equal(dataset[-1]["volume"], everything[-1])
    assert dataset.volumes([]).shape == (0, SIZE, SIZE, SIZE)
    with pytest.raises(IndexError):
        dataset[COUNT]
    with pytest.raises(InputError, match="positions"):
        dataset.volumes(dataset.labels == 1)
    assert sum(1 for _ in dataset) == COUNT


def test_subset_is_a_view_of_a_view(tmp_path):
    dataset = Dataset(make(tmp_path / "d"))
    part = dataset.subset(np.flatnonzero(dataset.labels == 1)).subset([3, 0])
    assert len(part) == 2 and list(part.columns("index")) == [10, 1] and list(part.labels) == [1, 1]
    np.testing.assert_array_equal(part[0]["volume"], dataset[10]["volume"])
    assert len(dataset) == COUNT


def test_masks_are_read_by_the_row(tmp_path):
    dataset = Dataset(make(tmp_path / "d", splits={"train": make_samples(masks=True)}))
    expected = [s["mask"] for s in make_samples(masks=True)]
    np.testing.assert_array_equal(dataset.masks([20, 3]), np.stack([expected[20], expected[3]]))
    assert dataset[9]["mask"].dtype == np.uint8
    np.testing.assert_array_equal(dataset[9]["mask"], expected[9])
    assert "mask" not in dataset.column_names
    without = Dataset(make(tmp_path / "e"))
    assert (dataset.has_masks, without.has_masks) == (True, False)
    with pytest.raises(InputError, match="no masks"):
        without.masks([0])


def with_halves(folder, count=COUNT, **options):
    return make(folder, splits={"train": make_samples(count, halves=True)}, **options)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_mean_of_the_halves_is_the_volume(tmp_path, dtype):
    dataset = Dataset(with_halves(tmp_path / "d", dtype=dtype))
    assert dataset.has_halves and "half" not in dataset.column_names
    order = [22, 0, 8, 7, 0, -1]
    a, b = dataset.halves(order)
    assert a.dtype == b.dtype == np.float32 and a.shape == b.shape == (6, SIZE, SIZE, SIZE)
    samples = list(make_samples(halves=True))
    np.testing.assert_array_equal(b, np.stack([samples[i]["half"] for i in order]).astype(dtype).astype(np.float32))
    np.testing.assert_allclose((a + b) / 2, dataset.volumes(order), atol=1e-6)
    np.testing.assert_array_equal(a, 2 * dataset.volumes(order) - b)
    np.testing.assert_array_equal(dataset[8]["half"], b[2])
    view = dataset.subset([3, 8])
    np.testing.assert_array_equal(view.halves([1])[1], b[2:3])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(view)).halves([1])[0], a[2:3])
    assert [image.shape for image in dataset.halves([])] == [(0, SIZE, SIZE, SIZE)] * 2


def test_halves_are_one_more_file_and_nothing_else_changes(tmp_path):
    folder = with_halves(tmp_path / "d")
    plain = make(tmp_path / "e", splits={"train": [without(s, "half") for s in make_samples(halves=True)]})
    for path in sorted(plain.glob("train/*")):
        assert path.read_bytes() == (folder / "train" / path.name).read_bytes()
    assert sorted({p.name for p in folder.glob("train/*")} - {p.name for p in plain.glob("train/*")}) == [
        f"halves-0000{number}.npy" for number in range(3)
    ]
    assert not Dataset(plain).has_halves and "half" not in Dataset(plain)[0]
    with pytest.raises(InputError, match=r"toy has no half images: .*`halves: noise`.*--tomogram_b"):
        Dataset(plain).halves([0])
    header = json.loads((plain / "dataset.json").read_text())
    assert [set(entry) for entry in header["splits"]["train"]["shards"]] == [{"count", "volumes", "labels"}] * 3
    # What a reader that knows no halves makes of the other.
    (folder / "dataset.json").write_text(json.dumps(header))
    np.testing.assert_array_equal(Dataset(folder).volumes([5]), Dataset(plain).volumes([5]))


def without(sample, key):
    return {name: value for name, value in sample.items() if name != key}


@pytest.mark.parametrize("strip", [[0], [3], [9], range(8, 16), range(16, 23)])
def test_all_samples_have_a_half_or_none(tmp_path, strip):
    samples = [without(s, "half") if i in strip else s for i, s in enumerate(make_samples(halves=True))]
    with pytest.raises(InputError, match=r"half image.*give"):
        make(tmp_path / "d", splits={"train": samples})
    assert os.listdir(tmp_path) == []


def test_all_splits_have_halves_or_none(tmp_path):
    splits = {"train": make_samples(9, halves=True), "test": make_samples(4)}
    with pytest.raises(InputError, match=r"Some samples of .* have a half image and some have none: give all or none"):
        make(tmp_path / "d", splits=splits)
    folder = make(tmp_path / "d", splits={"train": make_samples(9, halves=True), "test": make_samples(4, halves=True)})
    header = json.loads((folder / "dataset.json").read_text())
    del header["splits"]["test"]["shards"][0]["halves"]
    (folder / "dataset.json").write_text(json.dumps(header))
    with pytest.raises(InputError, match=r"dataset.json is damaged .*some shards have half images"):
        Dataset(folder)


@pytest.mark.parametrize(
    ("half", "said"),
    [(np.zeros((4, 4, 4)), r"has shape \(4, 4, 4\), expected a cube of 6"), (np.full((6,) * 3, np.nan), "has .* NaN")],
)
def test_bad_halves_are_refused(tmp_path, half, said):
    samples = list(make_samples(12, halves=True))
    samples[10]["half"] = half
    with pytest.raises(InputError, match=r"half image of sample 2 \(volumes-00001.npy, train\) " + said):
        make(tmp_path / "d", splits={"train": samples})
    assert os.listdir(tmp_path) == []


def test_a_changed_half_is_noticed(tmp_path):
    folder = with_halves(tmp_path / "d")
    Dataset(folder).verify()
    path = folder / "train" / "halves-00002.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"halves-00002\.npy has changed"):
        Dataset(folder).verify()
    dataset = Dataset(folder)
    dataset.halves([7])
    truncate(folder / "train" / "halves-00000.npy")
    with pytest.raises(InputError, match=r"halves-00000\.npy is truncated"):
        dataset.halves([7])


def test_unlabelled_samples(tmp_path):
    samples = [{"volume": s["volume"]} for s in make_samples(5)]
    dataset = Dataset(make(tmp_path / "d", splits={"train": samples}))
    assert list(dataset.labels) == [-1] * 5
    assert dataset[0]["label"] == -1 and dataset[0]["name"] is None


def test_splits_are_separate_and_a_missing_one_is_named(tmp_path):
    folder = make(tmp_path / "d", splits={"train": make_samples(9), "test": make_samples(4)})
    assert (len(Dataset(folder)), len(Dataset(folder, "test"))) == (9, 4)
    with pytest.raises(InputError, match=r"no split 'validation' \(it has train, test\)"):
        Dataset(folder, "validation")


def test_many_threads_with_fewer_open_files_than_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_OPEN_FILES", 2)
    dataset = Dataset(make(tmp_path / "d", splits={"train": make_samples(80)}))
    everything = dataset.volumes(range(80))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None

    def check(seed):
        order = np.random.default_rng(seed).integers(0, 80, 50)
        return np.array_equal(dataset.volumes(order), everything[order])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, range(40)))
    assert len(dataset._volumes._open) <= 2
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before


def test_a_dataset_can_be_pickled(tmp_path):
    dataset = Dataset(make(tmp_path / "d")).subset([5, 2])
    dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy.volumes([0, 1]), dataset.volumes([0, 1]))


def test_a_writer_replaces_a_dataset_only_when_it_succeeds(tmp_path):
    folder = make(tmp_path / "d")

    def failing():
        yield from make_samples(10)
        raise RuntimeError("the input broke off")

    with pytest.raises(RuntimeError):
        make(folder, splits={"train": failing()})
    assert len(Dataset(folder)) == COUNT
    make(folder, splits={"train": make_samples(4)})
    assert len(Dataset(folder)) == 4
    assert os.listdir(tmp_path) == ["d"]


def test_a_folder_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="not a dataset"):
        make(tmp_path / "d")
    assert (tmp_path / "d" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"volume": np.zeros((6, 6, 5))}, r"shape \(6, 6, 5\)"),
        ({"volume": np.zeros((4, 4, 4))}, "cube of 6"),
        ({"volume": np.full((6, 6, 6), np.nan)}, "NaN"),
        ({"volume": np.full((6, 6, 6), 1e6)}, "beyond float16"),
        ({"label": 3}, "labels that are not integers"),
        ({"label": -2}, "labels that are not integers"),
        ({"extra": 1}, "give all the same"),
        ({"quaternion": np.zeros(3)}, "different shapes"),
    ],
)
def test_bad_samples_are_refused_and_nothing_is_left(tmp_path, change, message):
    samples = list(make_samples(12))
    samples[10].update(change)
    with pytest.raises(InputError, match=message):
        make(tmp_path / "d", dtype="float16", splits={"train": samples})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [({"voxel_size": 0.0}, "voxel_size is 0"), ({"contrast": "grey"}, "'grey'"), ({"splits": {"dev": []}}, "'dev'")],
)
def test_bad_descriptions_are_refused(tmp_path, options, message):
    given = {"voxel_size": 10.0, "contrast": "bright", "splits": {"train": make_samples()}, **options}
    with pytest.raises(InputError, match=message):
        write_dataset(tmp_path / "d", "toy", ["a", "b", "c"], **given)


def truncate(path):
    os.truncate(path, path.stat().st_size - 100)


def swap_for_other_array(path):
    size = path.stat().st_size
    values = np.zeros((8, SIZE, SIZE, SIZE), "<i4")
    np.save(path, values)
    assert path.stat().st_size == size


def overwrite_with_noise(path):
    path.write_bytes(os.urandom(path.stat().st_size))


@pytest.mark.parametrize("name", ["volumes-00001.npy", "labels-00001.npz", "halves-00001.npy"])
@pytest.mark.parametrize("damage", [os.unlink, truncate, overwrite_with_noise])
def test_damaged_shards_are_named(tmp_path, name, damage):
    folder = with_halves(tmp_path / "d")
    damage(folder / "train" / name)
    with pytest.raises(InputError, match=rf"{name}.*import it again"):
        Dataset(folder)[9]


def test_a_foreign_array_is_named(tmp_path):
    folder = make(tmp_path / "d")
    swap_for_other_array(folder / "train" / "volumes-00000.npy")
    with pytest.raises(InputError, match=r"volumes-00000.npy holds int32 .*expected float32"):
        Dataset(folder).volumes([0])


def test_truncation_after_opening_is_noticed(tmp_path):
    dataset = Dataset(make(tmp_path / "d"))
    dataset.volumes([7])
    truncate(tmp_path / "d" / "train" / "volumes-00000.npy")
    with pytest.raises(InputError, match=r"volumes-00000\.npy is truncated"):
        dataset.volumes([7])


def test_verify_notices_one_changed_byte(tmp_path):
    folder = make(tmp_path / "d")
    Dataset(folder).verify()
    path = folder / "train" / "volumes-00002.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"volumes-00002\.npy has changed"):
        Dataset(folder).verify()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": "other"}', '{"format": "aitom_ssl dataset", "version": 1}'],
)
def test_a_damaged_dataset_json_is_named(tmp_path, text):
    folder = make(tmp_path / "d")
    (folder / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset.json is damaged .*Delete that file"):
        Dataset(folder)


def test_other_versions_and_no_dataset(tmp_path):
    folder = make(tmp_path / "d")
    header = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**header, "version": 2}))
    with pytest.raises(InputError, match="update aitom_ssl"):
        Dataset(folder)
    with pytest.raises(InputError, match="is not a dataset"):
        Dataset(tmp_path)


def test_leftovers_of_dead_processes_are_removed(tmp_path):
    folder = make(tmp_path / "d")
    dead = folder / "train" / ".volumes-00009.999999999-abc.partial.npy"
    alive = folder / "train" / f".volumes-00009.{os.getpid()}-abc.partial.npy"
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # over, and not yet collected
    zombie = folder / "train" / f".volumes-00009.{process.pid}-abc.partial.npy"
    for path in (dead, alive, zombie):
        path.write_bytes(b"half")
    shards.remove_leftovers(folder)
    process.wait()
    assert (dead.exists(), alive.exists(), zombie.exists()) == (False, True, False)


@pytest.mark.parametrize(
    ("key", "value"),
    [("voxel_size", 0.0), ("voxel_size", float("nan")), ("contrast", "grey"), ("dtype", "int8"), ("size", -1)],
)
def test_a_header_with_senseless_values_is_damaged(tmp_path, key, value):
    folder = make(tmp_path / "d")
    header = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**header, key: value}))
    with pytest.raises(InputError, match=rf"dataset\.json is damaged .*{key} is"):
        Dataset(folder)


def test_a_split_without_shards_is_damaged(tmp_path):
    folder = make(tmp_path / "d")
    header = json.loads((folder / "dataset.json").read_text())
    header["splits"]["train"] = {"count": 0, "shards": []}
    (folder / "dataset.json").write_text(json.dumps(header))
    with pytest.raises(InputError, match=r"dataset\.json is damaged"):
        Dataset(folder)
