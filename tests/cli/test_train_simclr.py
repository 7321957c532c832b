"""The flags of train_simclr: presets, ranges, and what reaches the method."""

import numpy as np
import pytest

from aitom_ssl import models
from aitom_ssl.cli import main, train_simclr
from aitom_ssl.cli.common import parse
from aitom_ssl.data import write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.ssl.two_views import HEADS

RECIPE = train_simclr.RECIPE


@pytest.fixture
def noise_data(tmp_path):
    """Folder of a dataset of 12 volumes of noise, 12^3 voxels, without labels."""
    rng = np.random.default_rng(0)
    samples = [{"volume": rng.standard_normal((12, 12, 12)).astype(np.float32), "label": -1} for _ in range(12)]
    return write_dataset(tmp_path / "noise", "noise", [], 10.0, "bright", {"train": samples})


def options(*flags):
    return parse("train_simclr", train_simclr, flags)


def test_the_paper_is_the_default_with_simclrs_own_settings():
    settings = RECIPE.new(options("--data=sim_snr005"))
    paper = {"preset": "paper", "epochs": 200, "batch_size": 16, "learning_rate": 1e-4, "augmentation": "ssl2022"}
    simclr = {"temperature": 0.1, "weight_decay": 1e-6, "head": "simclr", "dim": 128}
    assert settings.items() >= {**paper, **simclr}.items()


def test_recommended_turns_its_views_and_has_batchnorm_in_the_head():
    settings = RECIPE.new(options("--data=sim_snr005", "--preset=recommended"))
    assert (settings["augmentation"], settings["head"]) == ("recommended", "simclr")


def test_every_setting_is_a_flag():
    fields = options().__dataclass_fields__
    for preset in RECIPE.presets.values():
        assert set(preset) | set(RECIPE.common) <= set(fields)
    assert set(fields["head"].metadata["choices"]) <= set(HEADS)


@pytest.mark.parametrize("flag", ["epochs=0", "batch_size=1", "temperature=0", "weight_decay=-1", "dim=0"])
def test_ranges(flag):
    with pytest.raises(InputError, match=f"--{flag.partition('=')[0]}=.* must be"):
        RECIPE.new(options("--data=x", f"--{flag}"))


def test_flags_reach_the_method(noise_data, monkeypatch):
    asked = {}
    monkeypatch.setattr("aitom_ssl.training.pretrain.run_pretraining", lambda *given: asked.update(given=given))
    flags = ["--batch_size=4", "--dim=5", "--temperature=0.3", "--head=v1", "--seed=7"]
    assert main("train_simclr", [f"--data={noise_data}", *flags]) == 0
    name, settings, build, output, resume, command = asked["given"]
    assert (name, output, resume) == ("simclr", None, False)
    assert command.startswith("aitom-ssl train_simclr --preset=paper") and "--temperature=0.3" in command
    encoder = models.get("rb3d")(input_shape=(12, 12, 12, 1), include_top=False, pooling="avg")
    method = build(encoder, lambda volumes, seed: volumes, settings)
    assert (method.dim, method.temperature, method.seed) == (5, 0.3, 7)
    assert [layer.name for layer in method.network.layers if "project" in layer.name] == ["project2"]
