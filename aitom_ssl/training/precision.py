"""The numbers that networks compute in: one policy for a run, put back afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from aitom_ssl.errors import InputError

PRECISIONS = ("float32", "mixed_bfloat16")


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Networks built inside compute in float32, or in bfloat16 with float32 weights.

    Losses, normalisation and the softmax over the queue are float32 in either case, and bfloat16 has float32's range:
    no loss scaling.
    """
    if name not in PRECISIONS:
        raise InputError(f"precision={name!r} must be one of {', '.join(PRECISIONS)}.")
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
