"""XLA where it pays: augmentation and normalisation by themselves; networks on the CPU are quicker without it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras


def compiled_alone(augmenter: Callable[..., Any]) -> Callable[..., Any]:
    """`augmenter(volumes, seed=...)`; on TensorFlow compiled with XLA by itself, within whatever graph calls it."""
    if keras.backend.backend() != "tensorflow":
        return augmenter
    import tensorflow as tf

    return tf.function(lambda volumes, seed: augmenter(volumes, seed=seed), jit_compile=True, autograph=False)


class CompiledNormalization:
    """Batch normalisation of `network` as XLA programs of their own, for calls within `with compiled():`.

    Keras composes it of some ten passes over a map, forwards and backwards; XLA makes two or three of them, in a fifth
    of the time. On backends other than TensorFlow nothing changes. What is saved, and every other call, has the layers
    as they are.
    """

    def __init__(self, network: keras.Model):
        self._programs: list[tuple[keras.layers.Layer, Callable[..., Any]]] = []
        if keras.backend.backend() == "tensorflow":
            found = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
            self._programs = [(layer, _program(layer.call)) for layer in found]

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        # In the instance, past Keras' own bookkeeping of attributes.
        for layer, program in self._programs:
            layer.__dict__["call"] = program
        try:
            yield
        finally:
            for layer, _ in self._programs:
                del layer.__dict__["call"]


def _program(call: Callable[..., Any]) -> Callable[..., Any]:
    import tensorflow as tf

    compiled = tf.function(lambda x, training: call(x, training=training), jit_compile=True, autograph=False)
    return lambda x, training=None, mask=None: compiled(x, training)


def networks_on_xla() -> bool:
    """What to give `compile(jit_compile=...)`: on TensorFlow, XLA makes 3-D convolutions several times slower."""
    return keras.backend.backend() != "tensorflow"
