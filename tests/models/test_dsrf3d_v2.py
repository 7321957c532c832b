"""DSRF3D-v2: a NumPy forward pass, the layers and dropout of the original code."""

import keras
import numpy as np

from aitom_ssl.models import DSRF3Dv2


def test_forward_pass_equals_numpy(oracle):
    model = DSRF3Dv2((8, 8, 8, 1), 3, classifier_activation=None)
    oracle.randomise(model)
    volume = np.random.default_rng(1).standard_normal((8, 8, 8, 1))
    x = volume
    for block in (1, 2, 3):
        for part in ("conv1", "conv2"):
            x = oracle.relu(oracle.convolve(x, model.get_layer(f"block{block}_{part}")))
        x = oracle.max_pool(x)
    x = x.reshape(-1)
    for name in ("fc1", "fc2"):
        x = oracle.relu(oracle.dense(x, model.get_layer(name)))
    expected = oracle.dense(x, model.get_layer("classifier"))
    np.testing.assert_allclose(model(volume[None])[0], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_layers_and_their_order_are_those_of_the_original_code(weightless):
    model = DSRF3Dv2()
    kernels = [(layer.name, tuple(layer.kernel.shape)) for layer in model.layers if layer.weights]
    assert kernels == [
        ("block1_conv1", (3, 3, 3, 1, 32)),
        ("block1_conv2", (3, 3, 3, 32, 32)),
        ("block2_conv1", (3, 3, 3, 32, 64)),
        ("block2_conv2", (3, 3, 3, 64, 64)),
        ("block3_conv1", (3, 3, 3, 64, 128)),
        ("block3_conv2", (3, 3, 3, 128, 128)),
        ("fc1", (8192, 1024)),
        ("fc2", (1024, 1024)),
        ("classifier", (1024, 10)),
    ]
    rates = {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}
    assert rates == {"fc1_dropout": 0.7, "fc2_dropout": 0.7}
