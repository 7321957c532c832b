"""Samples are read by index as they were written, and nothing damaged is read as data."""

import concurrent.futures
import os
import pickle

import numpy as np
import pytest
from toy_dataset import COUNT, SIZE, make, make_samples, with_halves

from aitom_ssl.data import dataset as reading
from aitom_ssl.data.dataset import Dataset
from aitom_ssl.errors import InputError

pytestmark = pytest.mark.usefixtures("small_shards")


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
    out = reading._to_float32(every[None])[0]
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


def test_a_changed_half_is_noticed(tmp_path):
    folder = with_halves(tmp_path / "d")
    Dataset(folder).verify()
    change_one_byte(folder / "train" / "halves-00002.npy")
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
    monkeypatch.setattr(reading, "_OPEN_FILES", 2)
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


def change_one_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


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
    change_one_byte(folder / "train" / "volumes-00002.npy")
    with pytest.raises(InputError, match=r"volumes-00002\.npy has changed"):
        Dataset(folder).verify()
