import contextlib

import keras
import numpy as np
import pytest

from aitom_ssl.data import Dataset, write_dataset

NAMES = ["a", "b", "c", "d", "e", "f"]
SIDE = 8


def blob(rng, label):
    """A noisy volume of 8^3 with the class's own block in it, and the block's mask."""
    mask = np.zeros((SIDE,) * 3, np.uint8)
    sides = [(4, 4, 2), (2, 4, 4), (4, 2, 4), (2, 2, 6), (6, 2, 2), (4, 4, 4)][label]
    low = [(SIDE - side) // 2 for side in sides]
    mask[tuple(slice(start, start + side) for start, side in zip(low, sides, strict=True))] = 1
    volume = 2 * mask + 0.3 * rng.standard_normal(mask.shape)
    volume = (volume - volume.mean()) / volume.std()
    return {"volume": volume.astype(np.float32), "label": label, "mask": mask}


def samples(count, labels, masks=True):
    rng = np.random.default_rng(count)
    for number in range(count):
        sample = blob(rng, labels[number % len(labels)])
        yield sample if masks else {key: value for key, value in sample.items() if key != "mask"}


@pytest.fixture(scope="session")
def blobs(tmp_path_factory):
    """Folder of a dataset with masks: classes a to d in training and validation, e and f in the test split alone."""
    splits = {"train": samples(24, range(4)), "validation": samples(16, range(4)), "test": samples(12, (4, 5))}
    folder = tmp_path_factory.mktemp("oneshot") / "blobs"
    return write_dataset(folder, "blobs", NAMES, 10.0, "bright", splits, standardized=True)


@pytest.fixture(scope="session")
def maskless(tmp_path_factory):
    """The same without masks, and with every class in every split."""
    splits = {split: samples(24, range(6), masks=False) for split in ("train", "validation", "test")}
    folder = tmp_path_factory.mktemp("oneshot") / "maskless"
    return write_dataset(folder, "maskless", NAMES, 10.0, "bright", splits, standardized=True)


@pytest.fixture
def splits(blobs):
    return {split: Dataset(blobs, split) for split in ("train", "validation", "test")}


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def uncompiled(monkeypatch):
    """Without XLA programs, whose making takes longer than a few steps."""

    class Composed:
        def __init__(self, network):
            pass

        __call__ = contextlib.nullcontext

    monkeypatch.setattr("aitom_ssl.oneshot.matching.CompiledNormalization", Composed)


@pytest.fixture(scope="session")
def settings():
    """Of a training in seconds."""
    return {
        "preset": "cpu",
        "data": None,
        "unseen": None,
        "shots": 1,
        "fusion": "add",
        "decoder": True,
        "skips": True,
        "limit": None,
        "seed": 0,
        "filters": 2,
        "epochs": 2,
        "steps": 2,
        "way": 2,
        "episodes": 2,
        "readout": "sigmoid",
        "dice": "volume",
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "augmentation": "recommended",
        "precision": "float32",
    }
