"""A COS-Net made by hand, whose answers can be told without it: for tests of what is done with a trained one.

Features are the means of the volume over shells around the centre, which no turn changes; the mask is where a voxel is
above `LEVEL`; the similarity falls with the distance of features.
"""

import keras
import numpy as np
from keras import layers

from aitom_ssl.models import ModelDescription
from aitom_ssl.training import RunFolder

SIDE, VOXEL_SIZE = 8, 10.0
LEVEL, SHARP = 1.0, 8.0
SLOPE, BIAS = 4.0, 3.0
SHELLS = np.arange(5)


def shell_weights(side=SIDE):
    """(side^3, shells): the mean over each shell is volume.ravel() @ weights."""
    offset = np.arange(side) - side // 2
    radius = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(offset, offset, offset, indexing="ij"))).ravel()
    inside = np.round(radius)[:, None] == SHELLS
    return (inside / inside.sum(axis=0)).astype(np.float32)


def cosnet_by_hand(side=SIDE, decoder=True):
    volumes = keras.Input((side, side, side, 1), name="subtomogram")
    flat = layers.Flatten()(volumes)
    outputs = {"features": layers.Dense(len(SHELLS), use_bias=False, name="features")(flat)}
    if decoder:
        outputs["mask"] = layers.Conv3D(1, 1, activation="sigmoid", name="mask")(volumes)
    outputs["similarity"] = layers.Dense(1, name="similarity")(outputs["features"])
    network = keras.Model(volumes, outputs, name="cosnet")
    network.get_layer("features").set_weights([shell_weights(side)])
    network.get_layer("similarity").set_weights([np.full((len(SHELLS), 1), -SLOPE, np.float32), np.array([BIAS])])
    if decoder:
        network.get_layer("mask").set_weights([np.full((1, 1, 1, 1, 1), SHARP), np.array([-SHARP * LEVEL])])
    return network


def cosnet_run(path, decoder=True, contrast="bright", data="tiny"):
    """The folder at `path`, as a finished run of train_cosnet leaves it."""
    run = RunFolder.create(path, "cosnet", "tiny")
    description = ModelDescription("cosnet", (), SIDE, VOXEL_SIZE, contrast)
    settings = {"data": data, "filters": 2, "fusion": "none", "decoder": decoder}
    run.write_config(
        {"method": "cosnet", "model": description.to_dict(), "settings": settings, "classes": ["seen"]}
    )
    run.save_model(cosnet_by_hand(decoder=decoder))
    return run.path
