"""XLA where it pays: for the augmentation by itself, while networks on the CPU are quicker without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def compiled_alone(augmenter: Callable[..., Any]) -> Callable[..., Any]:
    """`augmenter(volumes, seed=...)`; on TensorFlow compiled with XLA by itself, within whatever graph calls it."""
    if keras.backend.backend() != "tensorflow":
        return augmenter
    import tensorflow as tf

    return tf.function(lambda volumes, seed: augmenter(volumes, seed=seed), jit_compile=True, autograph=False)


def networks_on_xla() -> bool:
    """What to give `compile(jit_compile=...)`: on TensorFlow, XLA makes 3-D convolutions several times slower."""
    return keras.backend.backend() != "tensorflow"
