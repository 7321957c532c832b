"""The numbers that networks compute in: one policy for a run, put back afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from aitom_ssl.errors import InputError

if TYPE_CHECKING:
    import keras

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


def with_precision(model: keras.Model, precision: str) -> keras.Model:
    """A copy of a functional `model` whose layers compute in `precision`; the last one, as built here, in float32."""
    import keras

    from aitom_ssl.models.building import thin_maps_in_float32

    last = model.layers[-1].name

    def rebuilt(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if not isinstance(layer, keras.layers.InputLayer):
            config["dtype"] = "float32" if layer.name == last else precision
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=rebuilt)
    thin_maps_in_float32(copy)
    copy.set_weights(model.get_weights())
    return copy
