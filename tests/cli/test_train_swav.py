"""The flags of train_swav: presets, ranges, and what reaches the method."""

import numpy as np
import pytest

from aitom_ssl import models
from aitom_ssl.cli import main, train_swav
from aitom_ssl.cli.common import parse
from aitom_ssl.data import write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.ssl.two_views import HEADS

RECIPE = train_swav.RECIPE


@pytest.fixture
def noise_data(tmp_path):
    """Folder of a dataset of 12 volumes of noise, 18^3 voxels, without labels."""
    rng = np.random.default_rng(0)
    samples = [{"volume": rng.standard_normal((18, 18, 18)).astype(np.float32), "label": -1} for _ in range(12)]
    return write_dataset(tmp_path / "noise", "noise", [], 10.0, "bright", {"train": samples})


def options(*flags):
    return parse("train_swav", train_swav, flags)


def test_the_paper_is_the_default_with_swavs_own_settings():
    settings = RECIPE.new(options("--data=sim_snr005"))
    paper = {"preset": "paper", "epochs": 200, "batch_size": 16, "learning_rate": 1e-4, "augmentation": "ssl2022"}
    swav = {"prototypes": 3000, "epsilon": 0.05, "iterations": 3, "temperature": 0.1, "queue_size": 3840}
    swav |= {"freeze_steps": 313, "weight_decay": 1e-6, "head": "swav", "dim": 128, "small_crops": 0}
    assert settings.items() >= {**paper, **swav}.items()
    assert settings["queue_start"] == 15 * (3000 // settings["batch_size"])


def test_recommended_is_for_small_batches_and_few_classes():
    settings = RECIPE.new(options("--data=sim_snr005", "--preset=recommended"))
    assert (settings["augmentation"], settings["head"]) == ("recommended", "v2_bn")
    # Each prototype gets a few samples of the batch and the queue, and there are a few prototypes a class.
    assert settings["queue_size"] + settings["batch_size"] >= 4 * settings["prototypes"]
    assert 50 <= settings["prototypes"] <= 200


def test_smoke_goes_through_the_freeze_and_a_full_queue():
    settings = RECIPE.new(options("--smoke"))
    steps = settings["epochs"] * (settings["limit"] // settings["batch_size"])
    filled = settings["queue_start"] + settings["queue_size"] // settings["batch_size"]
    assert max(settings["freeze_steps"], filled) < steps


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--small_size=18"], "--small_size=18 must be below the 18 voxels"),
        (["--small_size=12", "--encoder=dsrf3dv2"], "--encoder=dsrf3dv2 gives 1024 features at 18^3 and 128 at 12^3"),
    ],
)
def test_small_crops_that_do_not_fit_leave_nothing_behind(noise_data, tmp_path, capsys, flags, said):
    output = f"--output={tmp_path / 'run'}"
    assert main("train_swav", [f"--data={noise_data}", "--batch_size=4", "--small_crops=2", *flags, output]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_every_setting_is_a_flag():
    fields = options().__dataclass_fields__
    for preset in RECIPE.presets.values():
        assert set(preset) | set(RECIPE.common) <= set(fields)
    assert set(fields["head"].metadata["choices"]) <= set(HEADS)


@pytest.mark.parametrize(
    "flag",
    ["prototypes=1", "epsilon=0", "iterations=0", "queue_size=-1", "queue_start=-1", "freeze_steps=-1", "small_size=7"],
)
def test_ranges(flag):
    with pytest.raises(InputError, match=f"--{flag.partition('=')[0]}=.* must be"):
        RECIPE.new(options("--data=x", f"--{flag}"))


def test_flags_reach_the_method(noise_data, monkeypatch):
    asked = {}
    monkeypatch.setattr("aitom_ssl.training.pretrain.run_pretraining", lambda *given: asked.update(given=given))
    flags = ["--batch_size=4", "--dim=5", "--temperature=0.3", "--head=v2", "--seed=7", "--prototypes=6"]
    flags += ["--epsilon=0.2", "--iterations=4", "--queue_size=9", "--queue_start=3", "--freeze_steps=2"]
    flags += ["--small_crops=2", "--small_size=16"]
    assert main("train_swav", [f"--data={noise_data}", *flags]) == 0
    name, settings, build, output, resume, command = asked["given"]
    assert (name, output, resume) == ("swav", None, False)
    assert command.startswith("aitom-ssl train_swav --preset=paper") and "--epsilon=0.2" in command
    encoder = models.get("rb3d")(input_shape=(18, 18, 18, 1), include_top=False, pooling="avg")
    method = build(encoder, lambda volumes, seed: volumes, settings)
    assert (method.dim, method.temperature, method.seed) == (5, 0.3, 7)
    assert (method.prototypes.shape, method.epsilon, method.iterations) == ((6, 5), 0.2, 4)
    assert (method.queue.size, method.queue_start, method.freeze_steps, method.small_crops) == (9, 3, 2, 2)
    assert method.small_network.input_shape == (None, 16, 16, 16, 1)
    heads = [layer.name for layer in method.network.layers if "project" in layer.name]
    assert heads == ["project1", "project1_relu", "project2"]
    settings = {**settings, "queue_size": 0, "small_crops": 0}
    assert build(encoder, lambda volumes, seed: volumes, settings).queue is None
