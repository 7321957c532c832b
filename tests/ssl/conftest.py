import keras
import numpy as np
import pytest
from keras import layers, ops

from aitom_ssl.ssl import MoCo, SimCLR, SwAV


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def _tiny_encoder(norm=False, dropout=0.0, side=8, any_size=False):
    """(side, side, side, 1) -> (6,), with BatchNormalization or dropout inside when asked.

    `any_size` pools before its dense layer, whose weights then fit volumes of any size.
    """
    volumes = keras.Input((side, side, side, 1))
    x = layers.Conv3D(4, 3, strides=2, padding="same", name="conv")(volumes)
    x = layers.BatchNormalization(name="norm")(x) if norm else x
    x = layers.ReLU(name="relu")(x)
    x = layers.GlobalAveragePooling3D(name="pool")(x) if any_size else layers.Flatten(name="flatten")(x)
    x = layers.Dropout(dropout, name="dropout")(x) if dropout else x
    return keras.Model(volumes, layers.Dense(6, name="dense")(x), name="tiny")


def _wave(volumes, seed):
    """An augmenter that is a plain function of volumes and seed, on any backend."""
    stream, step = ops.cast(seed[0], "float32"), ops.cast(seed[1], "float32")
    return volumes + 0.3 * ops.sin(5 * volumes * (1 + stream) + step)


@pytest.fixture(scope="session")
def tiny_encoder():
    return _tiny_encoder


@pytest.fixture(scope="session")
def wave():
    return _wave


@pytest.fixture(scope="session")
def volumes():
    return np.random.default_rng(0).standard_normal((12, 8, 8, 8, 1)).astype(np.float32)


def _moco(encoder, augmenter, **options):
    options = {"dim": 4, "queue_size": 9, "momentum": 0.9, "head": "v2_bn", "symmetric": True, **options}
    return MoCo(_tiny_encoder(**encoder), augmenter, **options)


def _simclr(encoder, augmenter, **options):
    return SimCLR(_tiny_encoder(**encoder), augmenter, **{"dim": 4, **options})


def _swav(encoder, augmenter, **options):
    queue = {"queue_size": 8, "queue_start": 1, "freeze_steps": 2}
    options = {"dim": 4, "prototypes": 5, "head": "v2_bn", "small_crops": 1, **queue, **options}
    encoder = {"any_size": True, **encoder}
    small = _tiny_encoder(**{**encoder, "side": 5})
    return SwAV(_tiny_encoder(**encoder), augmenter, small_encoder=small, **options)


@pytest.fixture(scope="module", params=[_moco, _simclr, _swav], ids=["moco", "simclr", "swav"])
def method(request):
    """Builds each method with all that it can do switched on, compiled: `method(encoder options, **options)`."""

    def build(encoder=None, augmenter=_wave, **options):
        built = request.param(encoder or {}, augmenter, **options)
        optimizer = keras.optimizers.Adam(1e-2, weight_decay=1e-2)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        built.compile(optimizer)
        optimizer.build(built.trainable_variables)
        return built

    return build
