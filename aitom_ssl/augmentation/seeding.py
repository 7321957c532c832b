"""Random numbers that are a pure function of a seed, on every backend.

Keras takes an integer or a `SeedGenerator` as a seed. Exact resuming needs a third form: a pair (stream, step) that a
compiled training step computes, so that nothing about the draw lives outside the step counter. All three become a key,
two 32-bit integers; each use of a key names its purpose, so that no two purposes share random bits.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from aitom_ssl.errors import InputError

Tensor = Any


class _FixedSeed(keras.random.SeedGenerator):
    """Hands a given key to keras.random; it has no state, hence no variable (the parent's constructor makes one)."""

    def __init__(self, key: Tensor):
        self._key = key

    def next(self, ordered: bool = True) -> Tensor:
        return self._key


def seed_key(seed: int | keras.random.SeedGenerator | Tensor) -> Tensor:
    """A (2,) int32 key from any form of seed.

    `seed`: an integer in [0, 2**31), the same as the pair (seed, 0); an integer tensor of shape (2,), (stream, step),
    which draws the same numbers each time it is given; or a `keras.random.SeedGenerator`, which moves on at each call.
    Raises InputError for anything else.
    """
    if isinstance(seed, keras.random.SeedGenerator):
        return ops.cast(seed.next(), "int32")
    if isinstance(seed, int) and not isinstance(seed, bool):
        if not 0 <= seed < 2**31:
            raise InputError(f"A seed is an integer from 0 to {2**31 - 1}. Received: seed={seed}.")
        return ops.convert_to_tensor([seed, 0], dtype="int32")
    shape = tuple(getattr(seed, "shape", ()))
    dtype = keras.backend.standardize_dtype(seed.dtype) if hasattr(seed, "dtype") else ""
    if shape != (2,) or not dtype.startswith(("int", "uint")):
        raise InputError(
            f"A seed is an integer, a keras.random.SeedGenerator or an integer tensor (stream, step) of shape (2,). "
            f"Received: {type(seed).__name__} of shape {shape} and dtype {dtype or 'none'}."
        )
    return ops.cast(ops.convert_to_tensor(seed), "int32")


def named_key(key: Tensor, purpose: str) -> Tensor:
    """The key of one purpose: (stream XOR a fixed number made from the name, step)."""
    number = zlib.crc32(purpose.encode()) & 0x7FFFFFFF
    return ops.bitwise_xor(key, ops.convert_to_tensor([number, 0], dtype="int32"))


def _generator(key: Tensor) -> _FixedSeed:
    return _FixedSeed(ops.cast(key, "uint32") if keras.backend.backend() == "jax" else key)


def uniform(key: Tensor, shape: Sequence[Any]) -> Tensor:
    """float32 uniform in [0, 1)."""
    return keras.random.uniform(shape, dtype="float32", seed=_generator(key))


def normal(key: Tensor, shape: Sequence[Any]) -> Tensor:
    """float32 standard normal."""
    return keras.random.normal(shape, dtype="float32", seed=_generator(key))
