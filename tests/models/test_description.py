"""What a trained network expects: there and back, differences from data, refusals."""

import json

import pytest
import yaml

from aitom_ssl.errors import InputError
from aitom_ssl.models import ModelDescription

DESCRIPTION = ModelDescription("rb3d", ["1bxn", "1f1b"], 32, 13.48, "bright")


def test_there_and_back():
    assert DESCRIPTION.class_names == ("1bxn", "1f1b")
    for text in (json.dumps(DESCRIPTION.to_dict()), yaml.safe_dump(DESCRIPTION.to_dict())):
        assert ModelDescription.from_dict(yaml.safe_load(text), "here") == DESCRIPTION
    unknown = ModelDescription("dsrf3d", (), 40, None, None)
    assert ModelDescription.from_dict(unknown.to_dict(), "here") == unknown


@pytest.mark.parametrize(
    ("size", "voxel_size", "contrast", "expected"),
    [
        (32, 13.48, "bright", []),
        (32, 13.5, "bright", []),
        (32, None, None, []),
        (40, 13.48, "bright", ["box 40^3 (trained on 32^3)"]),
        (32, 13.62, "bright", ["voxel size 13.62 A (trained on 13.48 A)"]),
        (32, 13.34, "bright", ["voxel size 13.34 A (trained on 13.48 A)"]),
        (32, 13.48, "dark", ["dark protein (trained on bright)"]),
    ],
)
def test_differences(size, voxel_size, contrast, expected):
    assert DESCRIPTION.differences(size, voxel_size, contrast) == expected


def test_all_differences_at_once_and_none_with_what_was_not_known():
    assert len(DESCRIPTION.differences(24, 10.0, "dark")) == 3
    assert ModelDescription("dsrf3d", (), 40, None, None).differences(40, 10.0, "dark") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": "1bxn"}, "must be a list of names"),
        ({"class_names": [1, 2]}, "must be a list of names"),
        ({"class_names": ["1bxn", ""]}, "must be a list of names"),
        ({"class_names": ["1bxn", "1bxn"]}, "names a class twice"),
        ({"size": 0}, "size=0"),
        ({"size": 32.0}, "size=32.0"),
        ({"size": True}, "size=True"),
        ({"voxel_size": -1.0}, "voxel_size=-1.0"),
        ({"voxel_size": float("nan")}, "voxel_size=nan"),
        ({"voxel_size": "13"}, "voxel_size='13'"),
        ({"contrast": "positive"}, "contrast='positive' must be one of bright, dark"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(InputError, match=message):
        ModelDescription(**{**DESCRIPTION.to_dict(), **change})
    with pytest.raises(InputError, match=f"config.yaml does not describe a model.*{message}"):
        ModelDescription.from_dict({**DESCRIPTION.to_dict(), **change}, "config.yaml")


@pytest.mark.parametrize(
    "values", [None, [], "rb3d", {}, {"architecture": "rb3d"}, {**DESCRIPTION.to_dict(), "more": 1}]
)
def test_refuses_other_things(values):
    with pytest.raises(InputError, match=r"model\.json does not describe a model: expected architecture, class_names"):
        ModelDescription.from_dict(values, "model.json")


@pytest.mark.parametrize("names", [None, 5])
def test_class_names_that_are_no_list(names):
    with pytest.raises(InputError, match=r"model\.json does not describe a model"):
        ModelDescription.from_dict({**DESCRIPTION.to_dict(), "class_names": names}, "model.json")
