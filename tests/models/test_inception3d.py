"""Inception3D: a NumPy forward pass, the layers of the original code, dropout of the paper and of the code."""

import keras
import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.models import Inception3D


@pytest.mark.parametrize("side", [11, 12])
def test_forward_pass_equals_numpy(side, oracle):
    model = Inception3D((side, side, side, 1), 3)
    oracle.randomise(model)
    volume = np.random.default_rng(1).standard_normal((side, side, side, 1))

    def convolve(x, name, pad=None):
        return oracle.relu(oracle.convolve(x, model.get_layer(name), pad))

    x = oracle.max_pool(convolve(volume, "stem", pad=0), past_end=True)
    pooled = oracle.max_pool(x, stride=(1, 1, 1), past_end=True)
    branches = [
        convolve(x, "branch1"),
        convolve(convolve(x, "branch3_reduce"), "branch3"),
        convolve(convolve(x, "branch5_reduce"), "branch5"),
        convolve(pooled, "branch_pool_project"),
    ]
    x = oracle.average_pool(np.concatenate(branches, axis=-1), (2, 2, 2), (1, 1, 1))
    expected = oracle.dense(x.reshape(-1), model.get_layer("classifier"))
    linear = Inception3D((side, side, side, 1), 3, classifier_activation=None)
    linear.set_weights(model.get_weights())
    np.testing.assert_allclose(linear(volume[None])[0], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    np.testing.assert_allclose(model(volume[None])[0], oracle.softmax(expected), atol=1e-4)


def test_layers_and_their_order_are_those_of_the_original_code(weightless):
    model = Inception3D()
    kernels = [(layer.name, tuple(layer.kernel.shape)) for layer in model.layers if layer.weights]
    assert kernels == [
        ("stem", (5, 5, 5, 1, 32)),
        ("branch3_reduce", (1, 1, 1, 32, 32)),
        ("branch5_reduce", (1, 1, 1, 32, 16)),
        ("branch1", (1, 1, 1, 32, 32)),
        ("branch3", (3, 3, 3, 32, 64)),
        ("branch5", (5, 5, 5, 16, 32)),
        ("branch_pool_project", (1, 1, 1, 32, 32)),
        ("classifier", (351520, 10)),
    ]
    sides = {name: model.get_layer(name).output.shape[1] for name in ("stem", "pool", "branch_pool", "average")}
    assert sides == {"stem": 28, "pool": 14, "branch_pool": 14, "average": 13}
    assert isinstance(model.get_layer("branch5").kernel_initializer, keras.initializers.GlorotUniform)


@pytest.mark.parametrize(("options", "rate"), [({}, 0.3), ({"dropout": 0.7}, 0.7)])
def test_dropout_is_the_papers_unless_asked_otherwise(options, rate):
    model = Inception3D((8, 8, 8, 1), 3, **options)
    assert model.layers[-2].name == "dropout"
    kept = np.asarray(model.get_layer("dropout")(np.ones((1, 100_000)), training=True)) != 0
    assert kept.mean() == pytest.approx(1 - rate, abs=0.01)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 70])
def test_refuses_dropout(dropout):
    with pytest.raises(InputError, match="dropout="):
        Inception3D(dropout=dropout)
