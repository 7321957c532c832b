"""The flags of discover: defaults, what goes together, and going on."""

import pytest

from aitom_ssl.cli import discover, main
from aitom_ssl.cli.common import parse
from aitom_ssl.discovery.subdivision import BASELINES, NETWORK
from aitom_ssl.errors import InputError


def options(*flags):
    return parse("discover", discover, flags)


def test_names_are_those_of_the_library():
    assert (discover.NETWORK, discover.BASELINES) == (NETWORK, BASELINES)


def test_defaults_flags_and_smoke():
    settings = discover.new_settings(options("--run=r", "--data=d", "--classes=2", "--compare=pose_normalized"))
    assert settings == {**discover.DEFAULTS, "run": "r", "data": "d", "classes": 2, "compare": ["pose_normalized"]}
    assert (settings["classes"], settings["iterations"], settings["clusters"]) == (2, 5, None)
    smoke = discover.new_settings(options("--smoke", "--clusters=4"))
    assert (smoke["data"], smoke["clusters"], smoke["features"]) == ("sim_demo", 4, "rotation_invariant")
    assert discover.new_settings(options("--smoke", "--run=r"))["features"] == "network"


def test_every_setting_is_a_flag():
    assert set(discover.DEFAULTS) < set(options().__dataclass_fields__)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--run=r"], "--data is missing"),
        (["--data=d"], "--run is missing.*--features=rotation_invariant"),
        (["--data=d", "--run=r", "--features=pose_normalized"], "leave one of them out"),
        (["--data=d", "--run=r", "--clusters=0"], "--clusters=0: expected 1 or more"),
        (["--data=d", "--run=r", "--tilt_max=91"], "--tilt_max=91"),
        (["--data=d", "--run=r", "--mask_radius=0"], "--mask_radius=0: expected a positive number"),
        (["--data=d", "--run=r", "--max_shift=-1"], "--max_shift=-1"),
        (["--data=d", "--run=r", "--compare=pose"], "Did you mean pose_normalized|expected some of"),
        (["--data=d", "--run=r", "--workers=0"], "--workers=0"),
    ],
)
def test_a_mistake_is_one_line(flags, said):
    with pytest.raises(InputError, match=said) as error:
        discover.new_settings(options(*flags))
    assert "\n" not in str(error.value)


def test_resuming_changes_nothing():
    stored = discover.new_settings(options("--run=r", "--data=d", "--gold_standard"))
    assert discover.resumed_settings(options("--resume", "--workers=3"), stored, "runs/x") == stored
    with pytest.raises(InputError, match="runs/x was started with --classes=3, not --classes=2"):
        discover.resumed_settings(options("--resume", "--classes=2"), stored, "runs/x")
    with pytest.raises(InputError, match="no setting seed"):
        discover.resumed_settings(options("--resume"), {k: v for k, v in stored.items() if k != "seed"}, "runs/x")


def test_what_is_not_there_is_said_before_anything_is_made(tmp_path, capsys):
    for flags, said in (
        ([f"--run={tmp_path / 'none'}", "--data=sim_demo"], "No run or SavedModel"),
        (["--features=pose_normalized", "--data=sim_dem"], "Did you mean sim_demo"),
        (["--resume", f"--output={tmp_path}"], "holds no run"),
    ):
        assert main("discover", [*flags, *([] if "--resume" in flags else [f"--output={tmp_path / 'o'}"])]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "o").exists()
