"""The flags of active_learning: presets, budgets, options of strategies, one line a mistake."""

import dataclasses

import numpy as np
import pytest

from aitom_ssl import active
from aitom_ssl.active.pool import OPTIONS
from aitom_ssl.cli import active_learning, main
from aitom_ssl.cli.common import parse
from aitom_ssl.data import write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.training import RunFolder

RECIPE = active_learning.RECIPE


def options(*flags):
    return parse("active_learning", active_learning, flags)


@pytest.fixture
def data(tmp_path):
    """Folder of a dataset of two classes of 8^3 volumes, 16 of them to train on."""
    rng = np.random.default_rng(0)
    samples = [{"volume": rng.normal(size=(8, 8, 8)).astype(np.float32), "label": n % 2} for n in range(16)]
    return write_dataset(tmp_path / "data", "toy", ["a", "b"], 10.0, "bright", {"train": samples, "test": samples[:4]})


@pytest.fixture
def unlabelled(tmp_path):
    rng = np.random.default_rng(0)
    samples = [{"volume": rng.normal(size=(8, 8, 8)).astype(np.float32)} for _ in range(16)]
    return write_dataset(tmp_path / "real", "real", [], 10.0, "bright", {"train": samples})


def test_the_paper_is_the_default():
    paper = {"strategy": "ema", "model": "resnet18_3d", "initial": 0.1, "step": 0.05, "final": 0.4, "alpha": 0.999}
    paper |= {"regularization": 0.03, "mean_init": "independent", "ramp": False, "semi_supervised": False}
    paper |= {"distance": "kl", "deviation": "higher", "preset": "paper", "oracle": "simulated", "start": "scratch"}
    paper |= {"class_balanced": False}
    assert RECIPE.new(options("--data=x")).items() >= paper.items()


def test_every_setting_is_a_flag():
    names = set(options().__dataclass_fields__)
    for preset in RECIPE.presets.values():
        assert set(preset) | set(RECIPE.common) | set(RECIPE.smoke) <= names


def test_every_option_is_a_flag_and_one_of_its_strategy():
    settings = RECIPE.new(options("--data=x"))
    for name in active.NAMES:
        active.get(name, **{option: settings[option] for option in OPTIONS.get(name, ())})
    assert set(OPTIONS) <= set(active.NAMES)


@pytest.mark.parametrize("preset", RECIPE.presets)
def test_the_command_makes_the_settings_again(preset):
    flags = ["--data=x", f"--preset={preset}", "--ramp=true", "--classes=a,b", "--oracle=files"]
    settings = RECIPE.new(options(*flags))
    assert settings["ramp"] is True and settings["classes"] == "a,b"
    assert RECIPE.new(options(*RECIPE.command_line(settings).split()[2:])) == settings


def test_the_library_is_called_with_the_settings(data, monkeypatch, tmp_path):
    from aitom_ssl.active import loop

    asked = []
    monkeypatch.setattr(loop, "run_active_learning", lambda *arguments: asked.append(arguments))
    flags = [f"--data={data}", "--strategy=core_set", "--seed=4"]
    assert main("active_learning", [*flags, f"--output={tmp_path / 'run'}"]) == 0
    settings = RECIPE.new(options(*flags))
    assert asked == [(settings, str(tmp_path / "run"), False, RECIPE.command_line(settings))]


def test_a_run_may_go_further(data, tmp_path, monkeypatch, capsys):
    from aitom_ssl.active import loop
    from aitom_ssl.training.request import checked_splits, identity

    settings = RECIPE.new(options(f"--data={data}"))
    dataset = identity(checked_splits({**settings, "batch_size": 1}, None, False))
    config = {"method": "active_learning", "settings": settings, "dataset": dataset}
    RunFolder.create(tmp_path / "run", "active_learning", "toy").write_config(config)
    asked = []
    monkeypatch.setattr(loop, "run_active_learning", lambda *arguments: asked.append(arguments))
    resume = ["--resume", f"--output={tmp_path / 'run'}"]
    assert main("active_learning", [*resume, "--final=0.6"]) == 0
    assert asked[0][0] == {**settings, "final": 0.6} and asked[0][2] is True
    assert main("active_learning", [*resume, "--strategy=random"]) == 2
    assert "was started with --strategy=ema, not --strategy=random" in capsys.readouterr().err


def test_the_architecture_is_that_of_the_run_it_starts_from(data, tmp_path, monkeypatch):
    from aitom_ssl.active import loop

    run = RunFolder.create(tmp_path / "moco", "moco", "toy")
    about = {"architecture": "dsrf3d", "class_names": [], "size": 8, "voxel_size": 10.0, "contrast": "bright"}
    run.write_config({"method": "moco", "settings": {}, "model": about})
    asked = []
    monkeypatch.setattr(loop, "run_active_learning", lambda *arguments: asked.append(arguments))
    assert main("active_learning", [f"--data={data}", f"--start={run.path}", f"--output={tmp_path / 'run'}"]) == 0
    assert (asked[0][0]["model"], asked[0][0]["start"]) == ("dsrf3d", str(run.path))


@pytest.mark.parametrize("flag", ["initial=0", "step=-1", "alpha=1", "regularization=-1", "passes=1", "port=70000"])
def test_ranges(flag):
    with pytest.raises(InputError, match=f"--{flag.partition('=')[0]}=.* must be"):
        RECIPE.new(options("--data=x", f"--{flag}"))


def test_a_mistake_is_one_line(data, unlabelled, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = [f"--data={data}"]
    real = [f"--data={unlabelled}"]
    for flags, words in (
        ([], "--data is missing"),
        ([*whole, "--strategy=emma"], "emma"),
        (
            [*whole, "--strategy=random", "--alpha=0.9"],
            "--alpha is an option of --strategy=ema, and this",
        ),
        ([*whole, "--passes=9"], "--passes is an option of --strategy=mc_dropout or bald"),
        ([*whole, "--final=17"], "--final=17 asks for more, and the pool has 16"),
        ([*whole, "--step=1.5"], "--step=1.5: expected a share"),
        ([*whole, "--start=runs/nothing"], "runs/nothing holds no run"),
        ([*whole, "--classes=x,y"], "--classes=x,y does not go with --oracle=simulated"),
        (real, "real has no classes: say which ones there are, for example --classes=ribosome,other."),
        ([*real, "--classes=a,b"], "does not go with --oracle=simulated"),
        ([*real, "--classes=a,b", "--oracle=files", "--initial=40"], "--initial=40 asks for more, and the pool has 16"),
    ):
        assert main("active_learning", flags) == 2, flags
        line = capsys.readouterr().err
        assert words in line and line.count("\n") == 1, line
    assert not (tmp_path / "runs").exists()


def test_help_says_what_each_preset_does(capsys):
    assert main("active_learning", ["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Default: 0.999 (paper), 0.99 (recommended), 0.99 (crowded)." in shown
    assert {field.name for field in dataclasses.fields(active_learning.Options)} >= {"resume", "smoke", "port"}
