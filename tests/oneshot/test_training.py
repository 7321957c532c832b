"""A run of train_cosnet: its folder, batches by number, stopping and going on."""

import numpy as np
import pytest
import yaml

from aitom_ssl.data import Dataset
from aitom_ssl.errors import InputError
from aitom_ssl.oneshot import training, validation
from aitom_ssl.oneshot.plan import training_plan
from aitom_ssl.oneshot.trained import load_cosnet
from aitom_ssl.training import callbacks


@pytest.fixture(autouse=True)
def quick(monkeypatch, uncompiled):
    """A few steps are quicker eagerly than a graph is made, and a report is not what is tested here."""
    compile_ = training.OneShotModel.compile
    monkeypatch.setattr(
        training.OneShotModel, "compile", lambda self, *a, **o: compile_(self, *a, run_eagerly=True, **o)
    )
    monkeypatch.setattr(validation, "_FINAL_EPISODES", 20)
    monkeypatch.setattr(validation, "_MONITOR_EPISODES", 20)


def test_batches_are_those_of_their_numbers(splits, settings):
    plan = training_plan(splits, settings)
    through = training.episode_batches(plan, 2, first=0)
    resumed = training.episode_batches(plan, 2, first=2)
    all_of_them = [next(through) for _ in range(4)]
    for expected in all_of_them[2:]:
        ((volumes, masks),) = next(resumed)
        np.testing.assert_array_equal(volumes, expected[0][0])
        np.testing.assert_array_equal(masks, expected[0][1])
    assert volumes.shape == masks.shape == (8, 8, 8, 8, 1) and volumes.dtype == np.float32
    episode = plan.episodes(6)  # the first of step 3
    np.testing.assert_array_equal(volumes[:2, ..., 0], plan.train.volumes(episode.support.ravel()))
    np.testing.assert_array_equal(masks[2:4, ..., 0], plan.train.masks(episode.targets.ravel()))


def _interrupt(*_):
    raise KeyboardInterrupt


def test_a_run_stopped_and_gone_on_with_equals_one_that_never_stopped(blobs, settings, tmp_path, monkeypatch, capsys):
    asked = {**settings, "data": str(blobs), "augmentation": "none,noise=0:0.5", "steps": 1}
    through = training.run_cosnet(asked, str(tmp_path / "through"), command="aitom-ssl train_cosnet --data=x")

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match=r"1 of 2 epochs are kept.*--resume"):
        patch.setattr(callbacks.Progress, "on_epoch_end", _interrupt)
        training.run_cosnet(asked, str(tmp_path / "stopped"), command="aitom-ssl train_cosnet --data=x")
    with pytest.raises(InputError, match="already holds a run"):
        training.run_cosnet(asked, str(tmp_path / "stopped"))
    resumed = training.run_cosnet(asked, str(tmp_path / "stopped"), resume=True)
    for a, b in zip(through.load_model().get_weights(), resumed.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (through.path / "metrics.csv").read_text() == (resumed.path / "metrics.csv").read_text()

    present = {path.name for path in through.path.iterdir()}
    files = {"config.yaml", "metrics.csv", "tensorboard", "checkpoints", "model.keras", "results.json", "report.html"}
    assert present == files
    header = (through.path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert set(header) == {"epoch", "loss", "episode_accuracy", "dice", "val_accuracy", "val_accuracy_4way", "val_dice"}
    config = yaml.safe_load((through.path / "config.yaml").read_text())
    assert config["method"] == "cosnet" and config["classes"] == ["a", "b", "c", "d"]
    trained = load_cosnet(through.path)
    assert trained.trained_on == ("a", "b", "c", "d") and trained.description.size == 8
    assert "2-way-1-shot accuracy" in capsys.readouterr().out


def test_the_learning_rate_ends_at_0_or_stays(settings):
    for schedule, last in (("cosine", 0.0), ("constant", 1e-3)):
        optimizer = training.optimizer({**settings, "schedule": schedule})
        optimizer.iterations.assign(4)
        assert float(optimizer.learning_rate) == pytest.approx(last, abs=1e-9)
        assert (optimizer.beta_1, optimizer.beta_2) == (0.5, 0.999)


def test_data_without_masks_train_without_a_decoder(maskless, settings, tmp_path):
    asked = {**settings, "data": str(maskless), "unseen": "e,f", "augmentation": "none", "epochs": 1, "steps": 1}
    with pytest.raises(InputError, match="has no masks"):
        training.run_cosnet(asked, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    run = training.run_cosnet({**asked, "decoder": False, "fusion": "none"}, str(tmp_path / "run"))
    trained = load_cosnet(run.path)
    assert not trained.has_masks
    assert trained(Dataset(maskless, "test").volumes([0]))[1] is None
