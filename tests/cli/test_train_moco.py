"""The flags of train_moco: presets, ranges, resuming with the run's own settings."""


import pytest

from aitom_ssl.cli import main, train_moco
from aitom_ssl.cli.common import parse
from aitom_ssl.errors import InputError

RECIPE = train_moco.RECIPE


def options(*flags):
    return parse("train_moco", train_moco, flags)


def resumed(given, stored, where):
    return RECIPE.resumed(given, stored, where, parse)


def test_the_paper_is_the_default():
    settings = RECIPE.new(options("--data=sim_snr005"))
    paper = {
        "batch_size": 16,
        "epochs": 200,
        "learning_rate": 1e-4,
        "weight_decay": 1e-4,
        "queue_size": 128,
        "momentum": 0.999,
        "temperature": 0.2,
        "augmentation": "ssl2022",
        "head": "v1",
        "preset": "paper",
    }
    assert settings.items() >= paper.items()


def test_flags_before_smoke_before_preset():
    settings = RECIPE.new(options("--preset=recommended", "--smoke", "--epochs=5", "--weight_decay=0"))
    assert settings["data"] == "sim_demo"
    assert (settings["epochs"], settings["batch_size"], settings["momentum"]) == (5, 8, 0.99)
    assert settings["weight_decay"] == 0


def test_every_setting_is_a_flag():
    names = set(options().__dataclass_fields__)
    for preset in RECIPE.presets.values():
        assert set(preset) | set(RECIPE.common) <= names


@pytest.mark.parametrize(
    "flag", ["epochs=0", "batch_size=1", "learning_rate=0", "weight_decay=-1", "momentum=1", "temperature=0", "seed=-1"]
)
def test_ranges(flag):
    with pytest.raises(InputError, match=f"--{flag.partition('=')[0]}=.* must be"):
        RECIPE.new(options("--data=x", f"--{flag}"))


def test_resuming_keeps_the_settings_and_names_what_differs():
    stored = RECIPE.new(options("--data=x", "--seed=3", "--epochs=5"))
    more = resumed(options("--resume", "--seed=3", "--epochs=9"), stored, "runs/x")
    assert more == {**stored, "epochs": 9}
    assert resumed(options("--resume"), stored, "runs/x") == stored
    with pytest.raises(InputError, match="with --dim=128, --seed=3, not --dim=64, --seed=0") as error:
        resumed(options("--resume", "--dim=64", "--seed=0"), stored, "runs/x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"batch_size": "abc"}, "batch_size=abc"), ({"encoder": "nope"}, "encoder=nope"), ({"dim": 0}, "--dim=0 must be")],
)
def test_a_damaged_config_is_named(change, said):
    stored = RECIPE.new(options("--data=x"))
    with pytest.raises(InputError, match=rf"runs/x/config\.yaml is damaged.*{said}"):
        resumed(options("--resume"), {**stored, **change}, "runs/x")
    with pytest.raises(InputError, match=r"x/config\.yaml has no setting dim: .* older aitom_ssl"):
        resumed(options("--resume"), {n: v for n, v in stored.items() if n != "dim"}, "runs/x")


def test_a_mistake_is_one_line_and_loads_no_tensorflow(refused_early, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for flags, words in (
        ([], "--data is missing"),
        (["--data=sim_snr05"], "sim_snr005"),
        (["--resume"], "no run"),
        (["--resume", "--output=nowhere"], "nowhere holds no run"),
    ):
        assert main("train_moco", flags) == 2
        line = capsys.readouterr().err
        assert words in line
        assert line.count("\n") == 1
    refused_early("train_moco", ["--data=typo"])
