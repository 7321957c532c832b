"""The flags of train_supervised: presets, ranges, which library call they come to."""


import numpy as np
import pytest

from aitom_ssl.cli import main, train_supervised
from aitom_ssl.cli.common import parse
from aitom_ssl.data import write_dataset
from aitom_ssl.errors import InputError

RECIPE = train_supervised.RECIPE


def options(*flags):
    return parse("train_supervised", train_supervised, flags)


@pytest.fixture
def data(tmp_path):
    """Folder of a dataset of two classes of 8^3 volumes."""
    rng = np.random.default_rng(0)
    volumes = [rng.normal(size=(8, 8, 8)).astype(np.float32) for _ in range(8)]
    samples = [{"volume": volume, "label": n % 2} for n, volume in enumerate(volumes)]
    splits = {"train": samples, "validation": samples[:2], "test": samples[:4]}
    return write_dataset(tmp_path / "data", "toy", ["a", "b"], 10.0, "bright", splits)


def test_presets_are_the_papers():
    xu = {"learning_rate": 0.01, "decay": 1e-6, "momentum": 0.9, "batch_size": 64, "epochs": 20}
    plain = {"class_weights": "none", "augmentation": "none", "pooling": "none", "model": "inception3d"}
    assert RECIPE.new(options("--data=x")).items() >= {**xu, **plain, "preset": "xu2017"}.items()
    che = RECIPE.new(options("--data=x", "--preset=che2018"))
    assert che.items() >= {**xu, "learning_rate": 0.005, "decay": 1e-7}.items()


def test_every_setting_is_a_flag():
    names = set(options().__dataclass_fields__)
    for preset in RECIPE.presets.values():
        assert set(preset) | set(RECIPE.common) | set(RECIPE.smoke) <= names


@pytest.mark.parametrize("flag", ["epochs=0", "batch_size=1", "learning_rate=0", "decay=-1", "momentum=1", "limit=0"])
def test_ranges(flag):
    with pytest.raises(InputError, match=f"--{flag.partition('=')[0]}=.* must be"):
        RECIPE.new(options("--data=x", f"--{flag}"))


def test_a_network_is_trained_with_the_settings(data, monkeypatch, tmp_path):
    from aitom_ssl.training import supervised

    asked = []
    monkeypatch.setattr(supervised, "run_supervised", lambda *arguments: asked.append(arguments))
    flags = [f"--data={data}", "--model=rb3d", "--batch_size=4", f"--output={tmp_path / 'run'}"]
    assert main("train_supervised", flags) == 0
    settings = RECIPE.new(options(*flags[:3]))
    assert asked == [(settings, str(tmp_path / "run"), False, RECIPE.command_line(settings))]


def test_the_baseline_is_another_call_and_has_nothing_to_resume(data, monkeypatch, tmp_path, capsys):
    from aitom_ssl.discovery import rif_svm

    asked = []
    monkeypatch.setattr(rif_svm, "run_rif_svm", lambda *arguments: asked.append(arguments))
    flags = [f"--data={data}", "--model=rif_svm", "--batch_size=4", f"--output={tmp_path / 'run'}"]
    assert main("train_supervised", flags) == 0
    settings = RECIPE.new(options(*flags[:3]))
    assert asked == [(settings, str(tmp_path / "run"), RECIPE.command_line(settings))]

    from aitom_ssl.training import RunFolder

    RunFolder.create(tmp_path / "run", "rif_svm", "toy").write_config({"settings": settings})
    assert main("train_supervised", ["--resume", f"--output={tmp_path / 'run'}"]) == 2
    assert "rif_svm has no epochs to go on with" in capsys.readouterr().err


def test_a_mistake_is_one_line_and_loads_no_tensorflow(refused_early, data, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for flags, words in (
        ([], "--data is missing"),
        (["--data=sim_snr05"], "sim_snr005"),
        (["--data=x", "--model=inception"], "inception3d"),
        (["--resume"], "no run"),
        ([f"--data={data}"], "A batch of 64 needs more than the 8 samples"),
    ):
        assert main("train_supervised", flags) == 2
        line = capsys.readouterr().err
        assert words in line and line.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    refused_early("train_supervised", [f"--data={data}"])
