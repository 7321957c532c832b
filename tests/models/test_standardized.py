"""The standardised encoder."""

import keras
import numpy as np

from aitom_ssl.models import RB3D, STANDARDIZE_LAYER, standardized


def test_training_features_have_zero_mean_and_unit_deviation():
    encoder = standardized(RB3D((8, 8, 8, 1), include_top=False, pooling="avg"))
    volumes = np.random.default_rng(0).standard_normal((32, 8, 8, 8, 1))
    bare = keras.Model(encoder.input, encoder.get_layer(STANDARDIZE_LAYER).input)
    alive = np.asarray(bare(volumes)).var(axis=0) > 0.01
    features = np.asarray(encoder(volumes, training=True))
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-4)
    assert alive.any()
    assert np.all(np.abs(features.std(axis=0)[alive] - 1) < 0.06)


def test_shares_weights_adds_none_to_train_and_is_done_once():
    bare = RB3D((8, 8, 8, 1), include_top=False, pooling="avg")
    encoder = standardized(bare)
    assert encoder.get_layer("stem") is bare.get_layer("stem")
    assert len(encoder.trainable_variables) == len(bare.trainable_variables)
    assert standardized(encoder) is encoder


def test_loads_without_this_package(tmp_path):
    encoder = standardized(RB3D((8, 8, 8, 1), include_top=False, pooling="avg"))
    encoder.save(tmp_path / "model.keras")
    volumes = np.random.default_rng(0).standard_normal((2, 8, 8, 8, 1))
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects=None, safe_mode=True)
    np.testing.assert_array_equal(loaded(volumes), encoder(volumes))
    assert all(type(layer).__module__.startswith("keras.") for layer in loaded.layers)
