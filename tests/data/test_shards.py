"""Writing: what is refused, what is left when it fails, and which files there are."""

import json
import os

import numpy as np
import pytest
from toy_dataset import COUNT, make, make_samples, with_halves, without

from aitom_ssl.data.dataset import Dataset
from aitom_ssl.data.shards import write_dataset
from aitom_ssl.errors import InputError

pytestmark = pytest.mark.usefixtures("small_shards")


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
