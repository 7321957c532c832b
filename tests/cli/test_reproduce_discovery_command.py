"""The flags of reproduce_discovery: presets, what is refused, and adding to a study."""

import pytest

from aitom_ssl.cli import reproduce_discovery
from aitom_ssl.cli.common import parse
from aitom_ssl.data import load_spec
from aitom_ssl.errors import InputError
from aitom_ssl.structures import NAMES


def options(*flags):
    return parse("reproduce_discovery", reproduce_discovery, flags)


def test_the_paper_is_all_of_it():
    settings = reproduce_discovery.new_settings(options("--preset=paper"))
    spec = load_spec("xu2017_snr05_tilt60")
    assert tuple(settings["classes"]) == spec.simulation.classes and settings["held_out"] == settings["classes"]
    assert (settings["size"], settings["voxel_size"]) == (spec.simulation.size, spec.simulation.voxel_size)
    assert (settings["clusters"], settings["average_classes"], settings["iterations"]) == (100, 3, 5)
    assert settings["test_samples"] == 500 and settings["train_samples"] + settings["validation_samples"] == 500


def test_cpu_is_the_default_with_six_classes_in_the_paper_s_field():
    settings = reproduce_discovery.new_settings(options())
    assert settings["preset"] == "cpu" and len(settings["held_out"]) == 6
    assert set(settings["classes"]) <= set(NAMES)
    assert settings["size"] * settings["voxel_size"] == pytest.approx(40 * 9.2)
    assert (settings["snr"], settings["tilt_max"]) == (0.5, 60.0)


def test_flags_come_before_smoke_before_preset():
    settings = reproduce_discovery.new_settings(options("--smoke", "--epochs=3"))
    assert (settings["epochs"], settings["held_out"]) == (3, ["ribosome_70s"])
    settings = reproduce_discovery.new_settings(options("--smoke", "--classes=groel,p97,urease"))
    assert settings["held_out"] == ["groel", "p97", "urease"]
    settings = reproduce_discovery.new_settings(options("--held_out=rna_polymerase,groel_groes"))
    assert settings["held_out"] == ["groel_groes", "rna_polymerase"]


def test_every_setting_is_a_flag():
    names = set(options().__dataclass_fields__)
    for preset in reproduce_discovery.PRESETS.values():
        assert set(preset) <= names


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--classes=groel,p97", "expected 3 or more"),
        ("--classes=groel,p97,ribosome_7s", "Did you mean ribosome_70s"),
        ("--held_out=groel", "none of the classes"),
        ("--size=31", "an even number"),
        ("--size=8", "16 or more"),
        ("--snr=0", "must be above 0"),
        ("--tilt_max=0", "above 0 and up to 90"),
        ("--epochs=0", "1 or more"),
        ("--batch_size=100000", "smaller batch"),
        ("--clusters=1000", "fewer clusters"),
    ],
)
def test_what_makes_no_study(flag, said):
    with pytest.raises(InputError, match=flag.partition("=")[0]) as error:
        reproduce_discovery.new_settings(options(flag))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_resuming_adds_tests_and_changes_nothing():
    stored = reproduce_discovery.new_settings(options("--held_out=ribosome_70s"))
    assert reproduce_discovery.resumed_settings(options("--resume"), stored, "runs/x") == stored
    more = options("--resume", "--held_out=groel_groes", "--seeds=2", "--snr=0.5")
    settings = reproduce_discovery.resumed_settings(more, stored, "runs/x")
    assert settings == {**stored, "held_out": ["groel_groes", "ribosome_70s"], "seeds": 2}
    with pytest.raises(InputError, match=r"started with --snr=0\.5, not --snr=0\.1"):
        reproduce_discovery.resumed_settings(options("--resume", "--snr=0.1"), stored, "runs/x")
    with pytest.raises(InputError, match="no setting clusters"):
        damaged = {name: value for name, value in stored.items() if name != "clusters"}
        reproduce_discovery.resumed_settings(options("--resume"), damaged, "runs/x")
