"""A tiny dataset with a blob a class, and a query about some of it."""

import numpy as np

from aitom_ssl.active.oracle import Query
from aitom_ssl.data import Dataset, write_dataset

CLASSES = ["ribosome", "proteasome", "TRiC"]


def make_dataset(folder, count=12, size=8, classes=CLASSES, voxel_size=13.5, noise=0.2):
    """Samples of class i % classes: a ball whose radius and place tell the class."""
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:size, :size, :size] - size // 2

    def samples():
        for i in range(count):
            label = i % len(classes)
            ball = (z - label) ** 2 + y**2 + (x + label) ** 2 <= (size / 4 + label % 3) ** 2
            volume = ball + noise * rng.standard_normal((size, size, size))
            yield {"volume": volume.astype(np.float32), "label": label}

    write_dataset(folder, "toy", classes, voxel_size, "bright", {"train": samples()})
    return Dataset(folder)


def make_query(indices=(7, 2, 5, 9), cycle=1, guesses=None, confidences=None):
    count = len(indices)
    guesses = np.array([k % 2 for k in range(count)] if guesses is None else guesses)
    confidences = np.linspace(0.4, 0.9, count) if confidences is None else np.array(confidences)
    return Query(cycle, np.array(indices), np.linspace(1, 0.5, count), guesses, confidences)
