"""dataset.json: damaged, senseless or newer ones are refused by name."""

import json

import pytest
from toy_dataset import make

from aitom_ssl.data.dataset import Dataset
from aitom_ssl.errors import InputError


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
