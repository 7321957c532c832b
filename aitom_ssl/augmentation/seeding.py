"""Random numbers that are a pure function of (seed, purpose, index): the same on every backend, compiled or not.

A seed becomes a key, two 32-bit integers (stream, step), so that a compiled training step can compute it and resuming
needs nothing but the step. Differs from keras.random, which this would otherwise use: its TensorFlow backend draws
other numbers under XLA than outside, and there, on the CPU, noise for one 32^3 volume takes it 14 ms (here 0.2 ms).

References: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Threefry-2x32, 20 rounds).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from aitom_ssl.errors import InputError

Tensor = Any

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA


def seed_key(seed: int | keras.random.SeedGenerator | Tensor) -> Tensor:
    """A (2,) uint32 key from any form of seed.

    `seed`: an integer in [0, 2**31), the same as the pair (seed, 0); an integer tensor of shape (2,), (stream, step),
    which draws the same numbers each time it is given; or a `keras.random.SeedGenerator`, which moves on at each call.
    Raises InputError for anything else.
    """
    if isinstance(seed, keras.random.SeedGenerator):
        return ops.cast(seed.next(), "uint32")
    if isinstance(seed, int) and not isinstance(seed, bool):
        if not 0 <= seed < 2**31:
            raise InputError(f"A seed is an integer from 0 to {2**31 - 1}. Received: seed={seed}.")
        return ops.convert_to_tensor([seed, 0], dtype="uint32")
    shape = tuple(getattr(seed, "shape", ()))
    dtype = keras.backend.standardize_dtype(seed.dtype) if hasattr(seed, "dtype") else ""
    if shape != (2,) or not dtype.startswith(("int", "uint")):
        raise InputError(
            f"A seed is an integer, a keras.random.SeedGenerator or an integer tensor (stream, step) of shape (2,). "
            f"Received: {type(seed).__name__} of shape {shape} and dtype {dtype or 'none'}."
        )
    return ops.cast(ops.convert_to_tensor(seed), "uint32")


def threefry(key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Threefry-2x32-20: two uint32 words of key and of counter (any shapes that broadcast) to two of random bits."""
    schedule = (*key, ops.bitwise_xor(ops.bitwise_xor(key[0], key[1]), np.uint32(_PARITY)))
    left, right = counter[0] + schedule[0], counter[1] + schedule[1]
    for i in range(20):
        turn = _ROTATIONS[i % 8]
        left = left + right
        right = ops.bitwise_or(ops.left_shift(right, np.uint32(turn)), ops.right_shift(right, np.uint32(32 - turn)))
        right = ops.bitwise_xor(right, left)
        if i % 4 == 3:
            j = i // 4 + 1
            left, right = left + schedule[j % 3], right + schedule[(j + 1) % 3] + np.uint32(j)
    return left, right


def uniform(key: Tensor, purpose: str, shape: Sequence[int | Tensor]) -> Tensor:
    """float32 uniform in [0, 1), multiples of 2**-23; a row does not depend on how many rows there are.

    Purposes share no random bits; only the first entry of `shape` may be a tensor.
    """
    per_row = math.prod(shape[1:])
    half = (per_row + 1) // 2
    index = ops.reshape(ops.cast(ops.arange(shape[0] * half, dtype="int32"), "uint32"), (-1, half))
    number = ops.full_like(index, zlib.crc32(purpose.encode()))
    bits = ops.concatenate(threefry((key[0], key[1]), (index, number)), axis=1)[:, :per_row]
    values = ops.cast(ops.cast(ops.right_shift(bits, np.uint32(9)), "int32"), "float32") * 2.0**-23
    return ops.reshape(values, (-1, *shape[1:]))


def normal(key: Tensor, purpose: str, shape: Sequence[int | Tensor]) -> Tensor:
    """float32 standard normal, cut at 5.3; by inversion, since XLA on the CPU computes sine and cosine slowly."""
    # The middle of each step of 2**-23, so that neither -1 nor 1, where erfinv is infinite, can occur.
    return math.sqrt(2) * ops.erfinv(2 * uniform(key, purpose, shape) + (2.0**-23 - 1))
