"""The loop that experiments share: batches, the folder, and what is said when it is interrupted (resuming: see the
experiments' own tests)."""

import errno
import itertools

import keras
import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.models import ModelDescription
from aitom_ssl.training import Checkpoint, RunFolder, loop

DESCRIPTION = ModelDescription("rb3d", ("a", "b"), 8, 10.0, "bright")
SETTINGS = {"data": "tiny", "epochs": 7}


@pytest.mark.parametrize("labels", [False, True])
def test_batches_are_the_same_with_and_without_tensorflow(splits, monkeypatch, labels):
    train = splits["train"]
    with_it = loop.training_batches(train, 4, 3, first_epoch=2, labels=labels)
    monkeypatch.setattr(loop.keras.backend, "backend", lambda: "jax")
    without = loop.training_batches(train, 4, 3, first_epoch=2, labels=labels)
    for one, other in itertools.islice(zip(with_it, without, strict=False), 8):
        one = one if labels else (one,)
        assert isinstance(other, tuple) and len(one) == len(other) == 1 + labels
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(np.asarray(a), b)


def experiment(splits, folder, command="aitom-ssl train_toy --data=tiny", resume=False):
    return loop.experiment("toy", SETTINGS, splits, DESCRIPTION, str(folder), resume, command)


def test_the_folder_says_what_is_trained(splits, tmp_path):
    with experiment(splits, tmp_path / "run") as run:
        config = run.read_config()
    assert (config["method"], config["settings"]) == ("toy", SETTINGS)
    assert ModelDescription.from_dict(config["model"], "config.yaml") == DESCRIPTION
    assert config["dataset"]["samples"] == {"train": 22, "validation": 10, "test": 10}
    assert config["command"] == "aitom-ssl train_toy --data=tiny" and "keras" in config["versions"]
    with experiment(splits, tmp_path / "run", resume=True) as again:
        assert again.path == run.path


@pytest.mark.parametrize(
    ("command", "how"), [("aitom-ssl train_toy --a=1", "aitom-ssl train_toy --resume --output="), ("", "resume=True")]
)
def test_an_interrupted_run_says_how_to_go_on(splits, tmp_path, command, how):
    said = f"0 of 7 epochs are kept. Go on with: {how}"
    for error in (KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")):
        folder = tmp_path / type(error).__name__
        with pytest.raises((KeyboardInterrupt, InputError)) as caught, experiment(splits, folder, command):
            raise error
        assert said in str(caught.value) and str(folder) in str(caught.value)


def test_other_errors_pass_as_they_are(splits, tmp_path):
    with pytest.raises(PermissionError), experiment(splits, tmp_path / "run"):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_equal_seeds_start_equally():
    def weights(seed):
        with loop.numerics("float32", seed):
            return keras.layers.Dense(3)(np.ones((1, 2), np.float32)).numpy()

    np.testing.assert_array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


def test_a_finished_run_is_not_trained(tmp_path, capsys):
    done = Checkpoint(3, [{"epoch": 3}], 1.5)
    assert loop.fit(None, None, RunFolder(tmp_path), done, 3, 1) is done
    assert "has finished its 3 epochs" in capsys.readouterr().out
