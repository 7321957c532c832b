import keras
import numpy as np
import pytest
from keras import layers, ops

from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.ssl import MoCo


def _wave(volumes, seed):
    stream, step = ops.cast(seed[0], "float32"), ops.cast(seed[1], "float32")
    return volumes + 0.3 * ops.sin(5 * volumes * (1 + stream) + step)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Folder of a dataset of two classes of 8^3 volumes: 22 training, 10 validation and 10 test samples."""
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((2, 8, 8, 8))

    def samples(count):
        for i in range(count):
            noise = rng.standard_normal((8, 8, 8))
            yield {"volume": (patterns[i % 2] + noise).astype(np.float32), "label": i % 2}

    splits = {"train": samples(22), "validation": samples(10), "test": samples(10)}
    return write_dataset(tmp_path_factory.mktemp("data") / "tiny", "tiny", ["a", "b"], 10.0, "bright", splits)


@pytest.fixture
def splits(tiny_data):
    return {split: Dataset(tiny_data, split) for split in ("train", "validation", "test")}


@pytest.fixture
def tiny_moco():
    """Builds compiled MoCo models that are equal for equal seeds; with dropout, so that its seed must resume too."""

    def build(seed=0, **options):
        keras.utils.set_random_seed(seed)
        volumes = keras.Input((8, 8, 8, 1))
        x = layers.Conv3D(4, 3, strides=2, activation="relu")(volumes)
        x = layers.Dropout(0.2)(layers.Flatten()(x))
        encoder = keras.Model(volumes, layers.Dense(6)(x), name="tiny")
        options = {"dim": 4, "queue_size": 7, "momentum": 0.9, "head": "v2_bn", **options}
        moco = MoCo(encoder, _wave, seed=seed, **options)
        moco.compile(keras.optimizers.Adam(1e-2, weight_decay=1e-4))
        return moco

    return build
