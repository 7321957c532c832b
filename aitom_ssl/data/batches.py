"""Which samples make up batch number k, and those samples as arrays. NumPy only; `pipeline` wraps it in tf.data.

The order is a function of (seed, epoch): a run that starts again at an epoch sees what it would have seen.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from aitom_ssl.data.dataset import Dataset
from aitom_ssl.errors import InputError


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """(count,) the order of the samples in `epoch`."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def subsample(count: int, limit: int, seed: int) -> np.ndarray:
    """Sorted indices of min(count, limit) samples out of `count`, drawn without replacement by `seed`."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Whole batches in an epoch; the samples left over differ from epoch to epoch. InputError when there is none."""
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, expected 1 or more.")
    if len(dataset) < batch_size:
        raise InputError(
            f"A batch of {batch_size} needs more than the {len(dataset)} samples of {dataset.name}, {dataset.split}: "
            "take more samples, or a smaller --batch_size where the command has it."
        )
    return len(dataset) // batch_size


def epochs_with(dataset: Dataset, batch_size: int, epochs: int, steps: int) -> int:
    """`epochs`, or more where they would make fewer than `steps` batches: few labels need many passes."""
    return max(epochs, math.ceil(steps / steps_per_epoch(dataset, batch_size)))


class TrainingOrder:
    """`order(k)`: the indices (batch_size,) of training batch k, counted from the start of epoch 0."""

    def __init__(self, dataset: Dataset, batch_size: int, seed: int):
        count = len(dataset)
        self.batch_size, self.steps = batch_size, steps_per_epoch(dataset, batch_size)
        # Neighbouring epochs only: threads that prefetch straddle a border.
        self._epoch = functools.lru_cache(maxsize=2)(lambda epoch: epoch_order(count, seed, epoch))

    def __call__(self, number: int) -> np.ndarray:
        epoch, step = divmod(int(number), self.steps)
        return self._epoch(epoch)[step * self.batch_size : (step + 1) * self.batch_size]


def standardize(volumes: np.ndarray) -> np.ndarray:
    """Each (n, z, y, x) float32 volume to zero mean and unit standard deviation, in place; a constant one to zeros.

    One with voxels that are not finite becomes NaN throughout.
    """
    for volume in volumes:
        mean = volume.mean()
        volume -= mean
        deviation = np.sqrt(np.square(volume).mean())
        if deviation > 1e-6 * abs(mean):
            volume /= deviation
        else:  # what is left of a constant is rounding
            volume[...] = 0 if np.isfinite(deviation) else np.nan
    return volumes


def gather(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    """Network input (n, z, y, x, 1) float32, standardised per volume (by the writer of the shards, or here).

    InputError for a volume with voxels that are not finite.
    """
    volumes = dataset.volumes(indices)
    return _finite(volumes if dataset.standardized else standardize(volumes), dataset, indices)[..., None]


def gather_halves(dataset: Dataset, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Network inputs (n, z, y, x, 1) float32 of the half images A and B, each standardised by itself.

    InputError where the dataset has none, or voxels are not finite.
    """
    first, second = dataset.halves(indices)
    return tuple(_finite(standardize(half), dataset, indices)[..., None] for half in (first, second))


def _finite(volumes: np.ndarray, dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    for index, volume in zip(indices, volumes, strict=True):
        if not np.isfinite(volume.sum()):
            raise InputError(
                f"Sample {index} of {dataset.folder}, {dataset.split}, has voxels that are NaN or infinite: make the "
                "dataset again."
            )
    return volumes


def numpy_batches(
    dataset: Dataset, batch_size: int, seed: int, start_epoch: int = 0, labels: bool = False, halves: bool = False
) -> Iterator[Any]:
    """The batches of `pipeline.training_batches` without TensorFlow: the same ones, in the same order, for ever.

    Arrays (batch_size, z, y, x, 1) float32; with `labels` pairs of one and its labels (batch_size,) int64. With
    `halves`, x is a pair of such arrays, the half images A and B of the same samples: ((a, b),), and ((a, b), labels).
    """
    order = TrainingOrder(dataset, batch_size, seed)
    for number in itertools.count(start_epoch * order.steps):
        rows = order(number)
        x = gather_halves(dataset, rows) if halves else gather(dataset, rows)
        if labels:
            yield x, dataset.labels[rows].astype(np.int64)
        else:
            yield (x,) if halves else x
