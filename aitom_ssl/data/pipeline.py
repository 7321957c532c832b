"""tf.data over a dataset's shards: whole batches read by NumPy in one thread ahead of the training, in a fixed order.

One thread, because more of them wait for Python's lock: two read half as many volumes/s (benchmarks/input_pipeline.py).
For the same reason float16 becomes float32 in TensorFlow where nothing else is to be done to a volume.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from aitom_ssl.data.batches import TrainingOrder, gather, gather_halves, steps_per_epoch
from aitom_ssl.data.dataset import Dataset

__all__ = ["evaluation_batches", "steps_per_epoch", "training_batches"]

_BATCHES_AHEAD = 4


def _batches(
    numbers: tf.data.Dataset,
    dataset: Dataset,
    indices: Callable[[int], np.ndarray],
    length: int | None,
    labels: bool,
    halves: bool = False,
) -> tf.data.Dataset:
    targets = dataset.labels.astype(np.int64)
    stored = tf.as_dtype(dataset.dtype) if dataset.standardized and not halves else tf.float32

    def read(number):
        rows = indices(number)
        if halves:
            return *gather_halves(dataset, rows), targets[rows]
        volumes = dataset.stored(rows)[..., None] if dataset.standardized else gather(dataset, rows)
        return volumes, targets[rows]

    def load(number):
        *images, found = tf.numpy_function(read, [number], [stored] * (1 + halves) + [tf.int64], stateful=False)
        shape = (length, *[dataset.size] * 3, 1)
        images = tuple([tf.ensure_shape(tf.cast(image, tf.float32), shape) for image in images])
        x = images if halves else images[0]
        if labels:
            return x, tf.ensure_shape(found, (length,))
        return (x,) if halves else x

    return numbers.map(load).prefetch(_BATCHES_AHEAD)


def training_batches(
    dataset: Dataset, batch_size: int, seed: int, start_epoch: int = 0, labels: bool = False, halves: bool = False
) -> tf.data.Dataset:
    """Batches (batch_size, z, y, x, 1) float32 for ever, with their labels (batch_size,) int64 when asked for.

    With `halves`, each batch is two of that shape: the half images A and B of the same samples, each standardised by
    itself. Its structure is ((a, b),), with labels ((a, b), labels): `keras.Model.fit` takes x = (a, b) from either (of
    a bare (a, b) it would take b for the labels). InputError where the dataset has no half images.

    The order of epoch e is a function of (seed, e) only; `start_epoch` begins at the first batch of that epoch. Samples
    that do not fill a batch are left out of their epoch. Each volume is standardised.
    """
    if halves:
        dataset.require_halves()
    order = TrainingOrder(dataset, batch_size, seed)
    numbers = tf.data.Dataset.counter(start=start_epoch * order.steps)
    return _batches(numbers, dataset, order, batch_size, labels, halves)


def evaluation_batches(dataset: Dataset, batch_size: int, labels: bool = False) -> tf.data.Dataset:
    """Batches (n, z, y, x, 1) float32 in the dataset's order, once; n is batch_size but for the last."""
    steps = -(-len(dataset) // batch_size)
    rows = np.arange(len(dataset))
    numbers = tf.data.Dataset.range(steps)
    return _batches(numbers, dataset, lambda n: rows[n * batch_size : (n + 1) * batch_size], None, labels)
