"""What a training command comes to: presets, ranges, resuming; the commands' own tests have more of it."""

import dataclasses

import pytest

from aitom_ssl import models
from aitom_ssl.augmentation.augmenter import PRESETS, SubtomogramAugmenter
from aitom_ssl.cli.common import flag, parse
from aitom_ssl.errors import InputError
from aitom_ssl.training import RunFolder
from aitom_ssl.training.settings import (
    ARCHITECTURES,
    AUGMENTATION_OPTIONS,
    AUGMENTATIONS,
    Recipe,
    augmentation_words,
)

RECIPE = Recipe(
    command="train_toy",
    methods=("toy", "doll"),
    common={"epochs": 10, "limit": None},
    presets={"plain": {"batch_size": 4}, "fast": {"batch_size": 8}},
    smoke={"data": "small", "epochs": 1},
)


@dataclasses.dataclass
class Options:
    """A command's flags; `parse` finds them in this module."""

    data: str | None = flag(None, "which")
    output: str | None = flag(None, "where")
    preset: str | None = flag(None, "defaults", choices=("plain", "fast"))
    epochs: int | None = flag(None, "how often")
    limit: int | None = flag(None, "how many")
    batch_size: int | None = flag(None, "how many at once")
    resume: bool = flag(False, "go on")
    smoke: bool = flag(False, "quickly")


def test_names_known_without_keras_are_those_with_it():
    assert ARCHITECTURES == models.NAMES
    assert set(AUGMENTATIONS) == set(PRESETS)
    assert set(AUGMENTATION_OPTIONS) == set(PRESETS["none"])


def test_an_augmentation_in_words():
    assert augmentation_words("ssl2022") == ("ssl2022", {})
    options = {"noise": (0.0, 1.0), "wedge": 60.0, "rotation": "z", "surroundings": None, "in_plane": True}
    words = "recommended,noise=0:1,wedge=60,rotation=z,surroundings=none,in_plane=true"
    assert augmentation_words(words) == ("recommended", options)
    SubtomogramAugmenter("recommended", **options)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("recomended", "Did you mean recommended"),
        ("", "expected one of"),
        ("wedge=60", "expected one of"),
        ("none,wegde=60", "Did you mean wedge"),
        ("none,wedge", "expected option=value, received 'wedge'"),
        ("none,wedge=", "expected option=value"),
    ],
)
def test_an_augmentation_that_is_not_known(words, said):
    with pytest.raises(InputError, match=said):
        augmentation_words(words)


def test_defaults_in_words():
    assert RECIPE.default("batch_size") == "Default: 4 (plain), 8 (fast)."
    assert RECIPE.default("epochs") == "Default: 10."


def test_flags_over_smoke_over_preset():
    assert RECIPE.new(Options(data="x")) == {
        "preset": "plain", "epochs": 10, "limit": None, "batch_size": 4, "data": "x"
    }
    smoke = RECIPE.new(Options(smoke=True, preset="fast", epochs=3))
    assert smoke == {"preset": "fast", "epochs": 3, "limit": None, "batch_size": 8, "data": "small"}
    with pytest.raises(InputError, match="--data is missing"):
        RECIPE.new(Options())
    with pytest.raises(InputError, match="--batch_size=1 must be 2 or more"):
        RECIPE.new(Options(data="x", batch_size=1))


def test_the_command_line_makes_the_settings_again():
    settings = RECIPE.new(Options(data="a b"))
    line = RECIPE.command_line(settings)
    assert line == "aitom-ssl train_toy --preset=plain --epochs=10 --batch_size=4 '--data=a b'"


def test_what_is_asked_for_is_a_new_run_or_the_newest_of_its_methods(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def parse_here(name, module, arguments):
        assert name == "train_toy" and module.Options is Options
        return parse(name, module, arguments)

    assert RECIPE.asked(Options(data="x", output="here"), parse_here) == (RECIPE.new(Options(data="x")), "here")
    stored = RECIPE.new(Options(data="x", epochs=2))
    RunFolder.create(None, "doll", "x").write_config({"settings": stored})
    asked = RECIPE.asked(Options(resume=True, epochs=5), parse_here)
    assert asked == ({**stored, "epochs": 5}, "runs/doll-x")
    assert RECIPE.asked(Options(resume=True, output="runs/doll-x"), parse_here) == (stored, "runs/doll-x")
    RunFolder.open("runs/doll-x").write_config({"method": "moco", "settings": stored})
    with pytest.raises(InputError, match="runs/doll-x is a run of moco, expected toy or doll"):
        RECIPE.asked(Options(resume=True, output="runs/doll-x"), parse_here)
    with pytest.raises(InputError, match=r"no run runs/toy-y\* or runs/doll-y\* to resume"):
        RECIPE.asked(Options(resume=True, data="y"), parse_here)
