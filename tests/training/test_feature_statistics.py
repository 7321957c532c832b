"""Statistics of standardised features: of volumes as they are, whatever training has seen."""

import keras
import numpy as np
import pytest
from keras import layers

from aitom_ssl import models
from aitom_ssl.data.batches import gather
from aitom_ssl.evaluation.probes import extract_features
from aitom_ssl.training import RunFolder
from aitom_ssl.training import supervised as module
from aitom_ssl.training.feature_statistics import FeatureStatistics
from aitom_ssl.training.request import labelled_splits


@pytest.fixture
def network():
    """A classifier on standardised features, and a model that gives these."""
    keras.utils.set_random_seed(0)
    volumes = keras.Input((8, 8, 8, 1))
    x = layers.Flatten()(layers.Conv3D(2, 3, strides=3, activation="relu")(volumes))
    encoder = models.standardized(keras.Model(volumes, x))
    head = layers.Dense(2, activation="softmax", dtype="float32", name="classifier")
    return keras.Model(volumes, head(encoder.output)), encoder


def test_features_of_the_data_are_standardised(network, splits):
    classifier, encoder = network
    FeatureStatistics(classifier, splits["train"], seed=0).measure()
    features = extract_features(encoder, splits["train"])
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-4)
    variance = encoder.get_layer(models.STANDARDIZE_LAYER).moving_variance.numpy()
    np.testing.assert_allclose(features.var(axis=0), variance / (variance + 1e-3), atol=1e-3)


def test_a_part_of_the_data_is_drawn_by_the_seed(network, splits):
    classifier, encoder = network
    statistics = FeatureStatistics(classifier, splits["train"], seed=5, samples=9)
    assert len(statistics.rows) == 9
    statistics.measure()
    features = extract_features(encoder, splits["train"].subset(statistics.rows))
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-4)
    other = FeatureStatistics(classifier, splits["train"], seed=6, samples=9)
    assert not np.array_equal(statistics.rows, other.rows)


def test_measured_after_the_epochs_that_are_looked_at(network, splits):
    classifier, encoder = network
    mean = encoder.get_layer(models.STANDARDIZE_LAYER).moving_mean
    for options, epochs in (({"when": lambda epoch: epoch == 1}, [1]), ({}, [0, 1, 2])):
        statistics, measured = FeatureStatistics(classifier, splits["train"], seed=0, **options), []
        for epoch in range(3):
            mean.assign(mean * 0 + 99)
            statistics.on_epoch_end(epoch)
            measured += [epoch] * (float(mean[0]) != 99)
        assert measured == epochs


def test_training_on_other_volumes_does_not_move_them(network, splits, tmp_path, monkeypatch):
    """An augmentation that shifts every feature: kept and measured is what plain volumes give."""
    classifier, encoder = network
    monkeypatch.setattr(module, "SubtomogramAugmenter", lambda preset, **options: lambda volumes, seed: volumes + 3)
    settings = {"model": "rb3d", "epochs": 2, "batch_size": 4, "class_weights": "none", "augmentation": "ssl2022"}
    labelled = labelled_splits(splits, 0, 4)
    run = RunFolder(tmp_path)
    module.train_classifier(classifier, keras.optimizers.SGD(0.01), labelled, run, {**settings, "seed": 0})
    features = encoder(gather(labelled.pool, np.arange(22)))
    np.testing.assert_allclose(np.mean(features, axis=0), 0, atol=1e-3)
    kept = run.load_model().get_layer(models.STANDARDIZE_LAYER)
    assert np.abs(kept.moving_mean.numpy()).max() < 2  # of shifted volumes it would be several
