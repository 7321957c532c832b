"""SwAV's small crops: cutting them, and a network for them that shares its weights with the large one."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from aitom_ssl.augmentation.seeding import seed_key, uniform
from aitom_ssl.errors import InputError
from aitom_ssl.models import STANDARDIZE_LAYER


def random_box(volumes: Any, side: int, seed: Any) -> Any:
    """(batch, side, side, side, c) boxes of whole voxels, cut from (batch, z, y, x, c) volumes each at its own place.

    The corner is uniform over all places inside, a function of `seed` (stream, step).
    """
    batch = ops.shape(volumes)[0]
    sizes, channels = volumes.shape[1:4], volumes.shape[4]
    places = ops.convert_to_tensor([float(size - side + 1) for size in sizes])
    corner = ops.cast(ops.floor(uniform(seed_key(seed), "small crop", (batch, 3)) * places), "int32")
    index = ops.arange(batch, dtype="int32")[:, None, None, None]
    for axis, size in enumerate(sizes):
        along = corner[:, axis, None] + ops.arange(side, dtype="int32")
        index = index * size + ops.reshape(along, (-1, *(side if a == axis else 1 for a in range(3))))
    return ops.take(ops.reshape(volumes, (-1, channels)), index, axis=0)


def sharing_weights(network: keras.Model, donor: keras.Model) -> keras.Model:
    """`network` with each layer that has weights replaced by the layer of that name in `donor`.

    The standardisation of the features stays its own: its statistics are of another size of volumes.

    Raises:
        InputError: when a layer is missing in `donor` or has weights of other shapes, as a layer behind a flattened
            volume has for volumes of another size.
    """
    there = {layer.name: layer for layer in donor.layers}

    def shared(layer: keras.layers.Layer) -> keras.layers.Layer:
        if not layer.weights or layer.name == STANDARDIZE_LAYER:
            return layer
        other = there.get(layer.name)
        shapes, expected = ([tuple(w.shape) for w in getattr(o, "weights", [])] for o in (layer, other))
        if shapes != expected:
            small, large = network.input_shape[1], donor.input_shape[1]
            raise InputError(
                f"Small crops need an encoder for volumes of any size: layer {layer.name} has weights {shapes} at "
                f"{small}^3 and {expected} at {large}^3. Build both with pooling='avg'."
            )
        return other

    return keras.models.clone_model(network, clone_function=shared)
