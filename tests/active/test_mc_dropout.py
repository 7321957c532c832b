"""MC-dropout: its moments beside all masks enumerated, the trunk computed once, BatchNorm left alone."""

import itertools
import math

import keras
import numpy as np
import pytest
from keras import layers
from small_pools import blind, known, noise, small_network

from aitom_ssl import models
from aitom_ssl.active import mc_dropout as module
from aitom_ssl.active.mc_dropout import MCDropout, bald, cut_at_dropout, dropout_moments, passes_in_a_call
from aitom_ssl.active.uncertainty import entropy
from aitom_ssl.errors import InputError


def test_bald_is_0_where_passes_agree_and_ln_2_where_they_contradict():
    agreed = np.array([[0.7, 0.3]])
    np.testing.assert_allclose(bald(agreed, entropy(agreed)), 0, atol=1e-12)
    # Half the passes are sure of one class, half of the other.
    np.testing.assert_allclose(bald(np.array([[0.5, 0.5]]), np.array([0.0])), math.log(2))


@pytest.mark.parametrize(("passes", "numbers", "limit", "expected"), [
    (50, 10, 500, 50), (50, 10, 499, 25), (50, 10, 20, 2), (50, 10, 3, 1), (7, 1, 6, 1), (2, 1, 2, 2),
])  # fmt: skip
def test_passes_in_a_call(passes, numbers, limit, expected):
    assert passes_in_a_call(passes, numbers, limit) == expected


def test_moments_beside_every_mask():
    """6 features dropped at 0.4 have 64 masks of known probability."""
    network, pool = small_network(dropout=0.4), blind(3)
    kernel, bias = network.layers[-1].get_weights()
    # Sharper, so that the masks matter.
    kernel *= 8
    network.layers[-1].set_weights([kernel, bias])
    bare = keras.Model(network.input, network.layers[-1].input)
    features = bare.predict_on_batch(pool.volumes(range(3))[..., None])
    mean, disorder = np.zeros((3, 3)), np.zeros(3)
    for mask in itertools.product([0, 1], repeat=6):
        logits = features * mask / 0.6 @ kernel + bias
        answers = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        weight = 0.6 ** sum(mask) * 0.4 ** (6 - sum(mask))
        mean += weight * answers
        disorder += weight * entropy(answers)
    found, found_disorder = dropout_moments(network, pool, 20000, seed=1)
    np.testing.assert_allclose(found, mean, atol=0.01)
    np.testing.assert_allclose(found_disorder, disorder, atol=0.01)
    assert (bald(mean, disorder) > 0.01).all()  # it is not all one thing


def branched(rate):
    """Dropout in one of two branches, as in RB3D, and BatchNorm behind it."""
    keras.utils.set_random_seed(0)
    volumes = keras.Input((8, 8, 8, 1))
    x = layers.Conv3D(4, 3, strides=4, padding="same")(volumes)
    left, right = layers.Conv3D(3, 1, name="left")(x), layers.Conv3D(3, 1, name="right")(x)
    x = layers.Concatenate()([left, layers.SpatialDropout3D(rate)(right)])
    x = layers.BatchNormalization(name="after")(x)
    x = layers.Dropout(rate)(layers.Flatten()(x))
    network = keras.Model(volumes, layers.Dense(3, activation="softmax")(x))
    network.get_layer("after").moving_mean.assign([1, 2, 3, 4, 5, 6])
    return network


def test_a_cut_through_two_branches_leaves_batch_norm_in_inference():
    network = branched(1e-9)  # active, and drops nothing
    trunk, head = cut_at_dropout(network, 0)
    assert {layer.name for layer in trunk.layers} >= {"left", "right"} and len(trunk.outputs) == 2
    volumes = noise(5)[..., None]
    weights = [weight.copy() for weight in network.get_weights()]
    np.testing.assert_allclose(
        head.predict_on_batch(trunk.predict_on_batch(volumes)), network.predict_on_batch(volumes), rtol=1e-5
    )
    for before, after in zip(weights, network.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)

    _, head = cut_at_dropout(branched(0.5), 0)
    parts = trunk.predict_on_batch(volumes)
    assert np.abs(head.predict_on_batch(parts) - head.predict_on_batch(parts)).max() > 0.01


def test_weights_are_shared_and_cutting_again_and_again_does_no_harm(tmp_path):
    network = branched(1e-9)
    for _ in range(3):
        trunk, head = cut_at_dropout(network, 0)
    network.layers[-1].bias.assign([3.0, 0, 0])
    volumes = noise(2)[..., None]
    expected = network.predict_on_batch(volumes)
    np.testing.assert_allclose(head.predict_on_batch(trunk.predict_on_batch(volumes)), expected, rtol=1e-5)
    network.save(tmp_path / "n.keras")
    loaded = keras.models.load_model(tmp_path / "n.keras")
    np.testing.assert_allclose(loaded.predict_on_batch(volumes), expected, rtol=1e-5)
    trunk, head = cut_at_dropout(loaded, 0)
    np.testing.assert_allclose(head.predict_on_batch(trunk.predict_on_batch(volumes)), expected, rtol=1e-5)


class Counted:
    """A part of the network that counts its calls."""

    def __init__(self, part):
        self.part, self.outputs, self.shapes = part, part.outputs, []

    def predict_on_batch(self, x):
        self.shapes.append(keras.tree.flatten(x)[0].shape)
        return self.part.predict_on_batch(x)


def test_the_trunk_is_computed_once_and_every_call_has_the_same_shape(monkeypatch):
    parts = []
    real = cut_at_dropout
    monkeypatch.setattr(module, "cut_at_dropout", lambda *given: parts.extend(map(Counted, real(*given))) or parts)
    monkeypatch.setattr(module, "_BATCH", 4)
    monkeypatch.setattr(module, "_NUMBERS", 4 * 6 * 3)  # three passes of a batch of 4 with 6 features
    means, disorders = dropout_moments(small_network(dropout=0.5), blind(10), 6, seed=0)
    trunk, head = parts
    assert trunk.shapes == [(4, 8, 8, 8, 1)] * 3
    assert head.shapes == [(12, 6)] * 6
    assert means.shape == (10, 3) and disorders.shape == (10,)
    np.testing.assert_allclose(means.sum(axis=1), 1, rtol=1e-5)


def test_the_head_is_traced_once():
    traced = []

    class Spy(layers.Layer):
        def call(self, x):
            traced.append(1)
            return x

    volumes = keras.Input((8, 8, 8, 1))
    x = Spy()(layers.Dropout(0.5)(layers.Flatten()(volumes)))
    network = keras.Model(volumes, layers.Dense(2, activation="softmax")(x))
    counts = []
    for samples, passes in ((64, 2), (200, 10)):
        traced.clear()
        dropout_moments(network, blind(samples), passes, seed=0)
        counts.append(len(traced))
    assert counts[0] == counts[1]


def test_prepare_puts_dropout_before_the_last_layer_of_a_network_without():
    network = small_network()
    prepared = MCDropout(rate=0.25).prepare(network)
    assert [layer.rate for layer in prepared.layers if isinstance(layer, layers.Dropout)] == [0.25]
    assert prepared.layers[-1].name == "classifier" and prepared.layers[-1] is not network.layers[-1]
    volumes = noise(3)[..., None]
    np.testing.assert_allclose(prepared.predict_on_batch(volumes), network.predict_on_batch(volumes), rtol=1e-6)
    assert prepared.layers[1] is network.layers[1]
    again = MCDropout().prepare(prepared)
    assert again is prepared
    trunk, _ = cut_at_dropout(prepared, 0)
    assert trunk.outputs[0].shape == (None, 6)


def test_the_zoo_is_cut_where_its_dropout_begins():
    published = models.RB3D((8, 8, 8, 1), classes=3)
    trunk, _ = cut_at_dropout(published, 0)
    assert {layer.name for layer in trunk.layers} >= {"block1_expand", "block1_shortcut"}
    assert "block2_shortcut" not in {layer.name for layer in trunk.layers}
    with pytest.raises(InputError, match="no dropout"):
        cut_at_dropout(models.RB3D((8, 8, 8, 1), classes=3, pooling="avg"), 0)


@pytest.mark.parametrize("score", ["entropy", "bald"])
def test_the_score_is_of_the_moments(score, monkeypatch):
    mean, disorder = np.random.default_rng(0).dirichlet([1, 1], size=5), np.linspace(0, 0.1, 5)
    monkeypatch.setattr(module, "dropout_moments", lambda *given: (mean, disorder))
    expected = entropy(mean) - (disorder if score == "bald" else 0)
    np.testing.assert_allclose(MCDropout(score=score).scores(known(None, [], range(5))), expected)


@pytest.mark.parametrize("options", [
    {"passes": 1}, {"passes": 2.5}, {"passes": True}, {"score": "variance"}, {"rate": 0}, {"rate": 1}, {"rate": "0.5"},
])  # fmt: skip
def test_options_are_checked(options):
    ((name, value),) = options.items()
    with pytest.raises(InputError, match=f"mc_dropout: {name}={value!r}"):
        MCDropout(**options)
