"""The flags of reproduce_xu2017: presets, what the table has, and adding to a table."""


import pytest

from aitom_ssl.cli import main, reproduce_xu2017
from aitom_ssl.cli.common import parse
from aitom_ssl.data import load_spec
from aitom_ssl.discovery.reproduce_xu2017 import METHODS, SHARED, SNRS, TILTS
from aitom_ssl.errors import InputError


def options(*flags):
    return parse("reproduce_xu2017", reproduce_xu2017, flags)


def test_the_paper_is_all_of_it():
    settings = reproduce_xu2017.new_settings(options("--preset=paper"))
    assert (settings["snr"], settings["tilt"], settings["methods"]) == (list(SNRS), list(TILTS), list(METHODS))
    assert (settings["epochs"], settings["batch_size"], settings["learning_rate"]) == (20, 64, 0.01)
    splits = {name.removesuffix("_samples"): value for name, value in settings.items() if name.endswith("_samples")}
    assert splits == load_spec("xu2017_snr01_tilt60").splits


def test_cpu_is_the_default_and_flags_come_before_smoke_before_preset():
    assert reproduce_xu2017.new_settings(options())["preset"] == "cpu"
    settings = reproduce_xu2017.new_settings(options("--smoke", "--epochs=3", "--snr=0.05,1000", "--tilt=40, 60"))
    assert (settings["snr"], settings["tilt"]) == ([1000.0, 0.05], [60, 40])
    assert (settings["epochs"], settings["train_samples"]) == (3, 92)


def test_every_setting_is_a_flag():
    names = set(options().__dataclass_fields__)
    for preset in reproduce_xu2017.PRESETS.values():
        assert set(preset) <= names
        assert set(preset) == {*SHARED, *reproduce_xu2017.ADDED}


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--snr=0.2", "0.2: the table has 1000, 0.5, 0.1, 0.05, 0.03"),
        ("--snr=loud", "loud: the table has"),
        ("--tilt=60,45", "45: the table has 60, 50, 40"),
        ("--methods=drsf3d", "Did you mean dsrf3d?"),
        ("--seeds=0", "must be 1 or more"),
        ("--epochs=0", "must be 1 or more"),
        ("--batch_size=1", "must be 2 or more"),
        ("--learning_rate=0", "must be above 0"),
        ("--train_samples=45", "must be from 46"),
        ("--test_samples=11501", "to 11500"),
        ("--batch_size=9000", "smaller batch"),
    ],
)
def test_what_the_table_has_not(flag, said):
    with pytest.raises(InputError, match=flag.partition("=")[0]) as error:
        reproduce_xu2017.new_settings(options(flag))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_resuming_adds_and_changes_nothing():
    stored = reproduce_xu2017.new_settings(options("--snr=0.1", "--methods=rif_svm", "--seeds=2", "--epochs=5"))
    resumed = reproduce_xu2017.resumed_settings(options("--resume"), stored, "runs/x")
    assert resumed == stored
    more = options("--resume", "--snr=0.5", "--tilt=40", "--methods=dsrf3d", "--seeds=1", "--epochs=5")
    resumed = reproduce_xu2017.resumed_settings(more, stored, "runs/x")
    added = {"snr": [0.5, 0.1], "tilt": [*dict.fromkeys([*stored["tilt"], 40])], "methods": ["dsrf3d", "rif_svm"]}
    assert resumed == {**stored, **added, "tilt": sorted(added["tilt"], reverse=True)}
    with pytest.raises(InputError, match="runs/x was started with --epochs=5, not --epochs=6"):
        reproduce_xu2017.resumed_settings(options("--resume", "--epochs=6"), stored, "runs/x")
    with pytest.raises(InputError, match=r"config\.yaml has no setting epochs"):
        less = {name: value for name, value in stored.items() if name != "epochs"}
        reproduce_xu2017.resumed_settings(options("--resume"), less, "runs/x")


def test_a_mistake_is_one_line_and_loads_no_tensorflow(refused_early, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    for flags, words in (
        (["--resume"], "no run"),
        (["--resume", "--output=nowhere"], "nowhere holds no run"),
        (["--output=taken"], "taken is there and is not empty"),
        (["--snr=1"], "the table has"),
    ):
        assert main("reproduce_xu2017", flags) == 2
        line = capsys.readouterr().err
        assert words in line
        assert line.count("\n") == 1
    refused_early("reproduce_xu2017", ["--output=taken"], heavy=("scipy", "sklearn"))
