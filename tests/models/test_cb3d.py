"""CB3D: a NumPy forward pass, the count of its weights in closed form, the sizes on the way."""

import itertools

import keras
import numpy as np
import pytest

from aitom_ssl.models import CB3D


def test_forward_pass_equals_numpy(oracle):
    model = CB3D((16, 16, 16, 1), 3, pooling="avg", classifier_activation=None)
    oracle.randomise(model)
    volume = np.random.default_rng(1).standard_normal((16, 16, 16, 1))
    names = {1: ["conv1"], 2: ["conv1"], 3: ["conv1", "conv2"], 4: ["conv1", "conv2"], 5: ["conv1", "conv2"]}
    x = volume
    for block, parts in names.items():
        for part in parts:
            x = oracle.relu(oracle.convolve(x, model.get_layer(f"block{block}_{part}")))
        if block == 5:
            x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        x = oracle.max_pool(x, (1, 2, 2) if block == 1 else (2, 2, 2))
    assert x.shape == (1, 1, 1, 512)
    expected = oracle.dense(x.reshape(-1), model.get_layer("classifier"))
    np.testing.assert_allclose(model(volume[None])[0], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("side", "classes"), [(16, 10), (32, 10), (40, 23), (64, 10)])
def test_weights_in_closed_form(side, classes, weightless):
    filters = [1, 64, 128, 256, 256, 512, 512, 512, 512]
    convolutions = sum(27 * a * b + b for a, b in itertools.pairwise(filters))
    z, x = side // 16, (side // 16 + 2) // 2
    units = [512 * z * x * x, 4096, 4096, classes]
    connections = sum(a * b + b for a, b in itertools.pairwise(units))
    assert CB3D((side, side, side, 1), classes).count_params() == convolutions + connections


def test_sizes_and_dropout(weightless):
    model = CB3D()
    sizes = [tuple(layer.output.shape[1:]) for layer in model.layers if "pool" in layer.name or "pad" in layer.name]
    assert sizes == [
        (32, 16, 16, 64),
        (16, 8, 8, 128),
        (8, 4, 4, 256),
        (4, 2, 2, 512),
        (4, 4, 4, 512),
        (2, 2, 2, 512),
    ]
    rates = {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}
    assert rates == {"fc1_dropout": 0.5, "fc2_dropout": 0.5}
    hidden = [model.get_layer(name) for name in ("fc1", "fc2")]
    assert all(layer.activation is keras.activations.relu and layer.units == 4096 for layer in hidden)
