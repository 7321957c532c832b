"""The flags of finetune: presets, labels, the run it starts from, one line a mistake."""

import numpy as np
import pytest

from aitom_ssl.cli import finetune, main
from aitom_ssl.cli.common import parse
from aitom_ssl.data import write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.training import RunFolder

RECIPE = finetune.RECIPE


def options(*flags):
    return parse("finetune", finetune, flags)


@pytest.fixture
def data(tmp_path):
    """Folder of a dataset of two classes of 8^3 volumes, 16 of them to train on."""
    rng = np.random.default_rng(0)
    samples = [{"volume": rng.normal(size=(8, 8, 8)).astype(np.float32), "label": n % 2} for n in range(16)]
    splits = {"train": samples, "validation": samples[:4], "test": samples[:4]}
    return write_dataset(tmp_path / "data", "toy", ["a", "b"], 10.0, "bright", splits)


@pytest.fixture
def pretrained(tmp_path):
    run = RunFolder.create(tmp_path / "moco", "moco", "toy")
    about = {"architecture": "dsrf3d", "class_names": [], "size": 8, "voxel_size": 10.0, "contrast": "bright"}
    run.write_config({"method": "moco", "settings": {}, "model": about})
    return run.path


def test_the_paper_is_the_default():
    paper = {"optimizer": "sgd", "learning_rate": 5e-4, "weight_decay": 1e-4, "batch_size": 16, "epochs": 50}
    assert RECIPE.new(options("--data=x")).items() >= {**paper, "preset": "paper", "validation_labels": "all"}.items()


def test_every_setting_is_a_flag():
    names = set(options().__dataclass_fields__)
    for preset in RECIPE.presets.values():
        assert set(preset) | set(RECIPE.common) | set(RECIPE.smoke) <= names


@pytest.mark.parametrize("flag", ["epochs=-1", "fraction=0", "fraction=1.1", "labels_per_class=0", "weight_decay=-1"])
def test_ranges(flag):
    with pytest.raises(InputError, match=f"--{flag.partition('=')[0]}=.* must be"):
        RECIPE.new(options("--data=x", f"--{flag}"))


@pytest.mark.parametrize("kind", ["none", "run"])
def test_the_library_is_called_with_the_settings(kind, data, pretrained, monkeypatch, tmp_path):
    from aitom_ssl.training import finetuning

    asked = []
    monkeypatch.setattr(finetuning, "run_finetuning", lambda *arguments: asked.append(arguments))
    start = "none" if kind == "none" else str(pretrained)
    flags = [f"--data={data}", f"--pretrained={start}", "--fraction=0.5", "--batch_size=4"]
    assert main("finetune", [*flags, f"--output={tmp_path / 'run'}"]) == 0
    of_the_start = {"model": "rb3d", "field": 1.0} if kind == "none" else {"model": "dsrf3d", "field": None}
    settings = {**RECIPE.new(options(*flags)), **of_the_start}
    assert asked == [(settings, str(tmp_path / "run"), False, RECIPE.command_line(settings))]
    again = RECIPE.new(options(*RECIPE.command_line(settings).split()[2:]))
    assert {**again, "field": settings["field"]} == settings


def test_epochs_cannot_be_changed_on_the_way(data, tmp_path, capsys):
    """The learning rate follows them."""
    settings = RECIPE.new(options(f"--data={data}", "--pretrained=none", "--epochs=3"))
    RunFolder.create(tmp_path / "run", "finetune", "toy").write_config({"settings": settings})
    assert main("finetune", ["--resume", f"--output={tmp_path / 'run'}", "--epochs=5"]) == 2
    assert "was started with --epochs=3, not --epochs=5" in capsys.readouterr().err


def test_a_mistake_is_one_line(data, pretrained, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = [f"--data={data}", "--batch_size=4"]
    for flags, words in (
        ([], "--data is missing"),
        (whole, "--pretrained is missing"),
        ([*whole, "--pretrained=runs/nothing"], "runs/nothing holds no run"),
        ([*whole, f"--pretrained={pretrained}", "--model=rb3d"], f"--pretrained={pretrained} is dsrf3d: leave"),
        ([*whole, "--pretrained=none", "--fraction=0.5", "--labels_per_class=2"], "give one of them"),
        ([*whole, "--pretrained=none", "--labels_per_class=9"], "a has 8 labelled training samples"),
        ([*whole, "--pretrained=none", "--fraction=0.01"], "--fraction=0.01 of the 8 labels of a is not one"),
        ([*whole, "--pretrained=none", "--epochs=0"], "--epochs=0 keeps the head it starts with"),
        ([f"--data={data}", "--pretrained=none", "--fraction=0.5"], "A batch of 16 needs more than the 8 samples"),
    ):
        assert main("finetune", flags) == 2, flags
        line = capsys.readouterr().err
        assert words in line and line.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_what_is_no_encoder_is_refused(data, pretrained, capsys):
    RunFolder(pretrained).write_config({"method": "rif_svm", "settings": {}, "model": {"architecture": "rif_svm"}})
    assert main("finetune", [f"--data={data}", f"--pretrained={pretrained}", "--batch_size=4"]) == 2
    assert "holds no encoder (its model is rif_svm)" in capsys.readouterr().err
