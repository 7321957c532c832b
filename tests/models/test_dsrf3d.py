"""DSRF3D: a NumPy forward pass, the layers of the original code."""

import numpy as np

from aitom_ssl.models import DSRF3D


def test_forward_pass_equals_numpy(oracle):
    model = DSRF3D((8, 9, 10, 1), 3, classifier_activation=None)
    oracle.randomise(model)
    volume = np.random.default_rng(1).standard_normal((8, 9, 10, 1))
    x = volume
    for block in (1, 2):
        for part in ("conv1", "conv2"):
            x = oracle.relu(oracle.convolve(x, model.get_layer(f"block{block}_{part}")))
        x = oracle.max_pool(x)
    x = x.reshape(-1)
    for name in ("fc1", "fc2"):
        x = oracle.relu(oracle.dense(x, model.get_layer(name)))
    expected = oracle.dense(x, model.get_layer("classifier"))
    np.testing.assert_allclose(model(volume[None])[0], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_layers_and_their_order_are_those_of_the_original_code(weightless):
    kernels = [(layer.name, tuple(layer.kernel.shape)) for layer in DSRF3D().layers if layer.weights]
    assert kernels == [
        ("block1_conv1", (3, 3, 3, 1, 32)),
        ("block1_conv2", (3, 3, 3, 32, 32)),
        ("block2_conv1", (3, 3, 3, 32, 64)),
        ("block2_conv2", (3, 3, 3, 64, 64)),
        ("fc1", (32768, 512)),
        ("fc2", (512, 512)),
        ("classifier", (512, 10)),
    ]
