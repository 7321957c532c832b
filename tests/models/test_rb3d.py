"""RB3D: the published counts, a NumPy forward pass, the pooled form."""

import math

import keras
import numpy as np
import pytest

from aitom_ssl import models
from aitom_ssl.errors import InputError
from aitom_ssl.models import RB3D


@pytest.mark.parametrize(
    ("side", "classes", "count"), [(16, 10, 17_953_994), (16, 23, 17_967_319), (32, 10, 135_394_506)]
)
def test_che_2018_has_the_published_number_of_weights(side, classes, count):
    assert RB3D((side, side, side, 1), classes).count_params() == count


@pytest.fixture(scope="module")
def che():
    return RB3D((8, 8, 8, 1), 3)


def test_che_2018_layers(che):
    rates = {layer.name: layer.rate for layer in che.layers if isinstance(layer, keras.layers.Dropout)}
    blocks = {f"block{b}_dropout": 0.7 for b in (1, 2, 3, 4)}
    assert rates == {**blocks, "fc1_dropout": 0.5, "fc2_dropout": 0.5}
    assert che.get_layer("block1_expand").activation is keras.activations.linear
    assert isinstance(che.get_layer("stem").kernel_initializer, keras.initializers.GlorotUniform)
    assert che.get_layer("features").output.shape == (None, 4**3 * 32)
    assert np.allclose(np.sum(che.predict(np.ones((2, 8, 8, 8, 1)), verbose=0), axis=1), 1)


def convolve(x, layer):
    """'same' convolution of (z, y, x, c) with the layer's kernel, written out."""
    kernel, bias = (np.asarray(w, np.float64) for w in layer.get_weights())
    half = kernel.shape[0] // 2
    padded = np.pad(x, [(half, half)] * 3 + [(0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:3], axis=(0, 1, 2))
    return np.einsum("zyxcijk,ijkcf->zyxf", windows, kernel) + bias


def relu(x):
    return np.maximum(x, 0)


def adaptive_average(x, out=2):
    """torch.nn.AdaptiveAvgPool3d: window i of n voxels runs from floor(i n / out) to ceil((i + 1) n / out)."""
    n = x.shape[0]
    spans = [slice(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]
    return np.array([[[x[a, b, c].mean(axis=(0, 1, 2)) for c in spans] for b in spans] for a in spans])


@pytest.mark.parametrize("side", [8, 10])
def test_forward_pass_equals_numpy(side):
    model = RB3D((side, side, side, 1), 3, pooling="avg", classifier_activation=None)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + 0.1 * rng.standard_normal(weight.shape))
    volume = rng.standard_normal((side, side, side, 1))
    x = relu(convolve(volume, model.get_layer("stem")))
    x = x.reshape(*(n for s in x.shape[:3] for n in (s // 2, 2)), 32).max(axis=(1, 3, 5))
    for block in range(1, 5):
        get = {part: model.get_layer(f"block{block}_{part}") for part in ("shortcut", "reduce", "conv", "expand")}
        branch = relu(convolve(relu(convolve(x, get["reduce"])), get["conv"]))
        x = relu(np.concatenate([convolve(x, get["shortcut"]), convolve(branch, get["expand"])], axis=-1))
    features = adaptive_average(x).reshape(-1)
    kernel, bias = model.get_layer("classifier").get_weights()
    expected = features @ kernel + bias
    np.testing.assert_allclose(model(volume[None])[0], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("side", [24, 28, 30, 33, 64])
def test_pooled_encoder_gives_256_features_at_any_size(side):
    encoder = RB3D((side, side, side, 1), include_top=False, pooling="avg")
    assert encoder.output_shape == (None, 256)
    assert encoder.count_params() == 115_904


@pytest.mark.parametrize("n", range(4, 33))
def test_average_pool_covers_as_torch_does(n):
    x = np.random.default_rng(n).standard_normal((1, n, n, n, 1)).astype(np.float32)
    pooled = keras.layers.AveragePooling3D(math.ceil(n / 2), n // 2)(x)
    np.testing.assert_allclose(pooled[0], adaptive_average(x[0]), atol=1e-5)


def test_pooled_has_he_initialisation_and_no_dropout():
    model = RB3D((8, 8, 8, 1), 3, pooling="avg")
    assert not [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    kernels = [model.get_layer(f"block{block}_conv").get_weights()[0].ravel() for block in range(1, 5)]
    assert np.concatenate(kernels).std() == pytest.approx(math.sqrt(2 / (27 * 16)), rel=0.03)


def test_without_top_the_features_are_flattened():
    assert RB3D((8, 8, 8, 1), include_top=False).output_shape == (None, 2048)


def test_weights_round_trip(tmp_path):
    model = RB3D((8, 8, 8, 1), 3, pooling="avg")
    model.save_weights(tmp_path / "rb3d.weights.h5")
    again = RB3D((8, 8, 8, 1), 3, pooling="avg", weights=tmp_path / "rb3d.weights.h5")
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="does not hold weights of this network"):
        RB3D((8, 8, 8, 1), 4, pooling="avg", weights=tmp_path / "rb3d.weights.h5")
    with pytest.raises(InputError, match="no weights file"):
        RB3D((8, 8, 8, 1), weights=tmp_path / "typo.weights.h5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (32, 32, 32)}, "input_shape"),
        ({"input_shape": (4, 32, 32, 1)}, "8 or more"),
        ({"input_shape": (None, None, None, 1)}, "input_shape"),
        ({"pooling": "max"}, "pooling='max'"),
        ({"classes": 0}, "classes=0"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(InputError, match=message):
        RB3D(**options)


def test_get_by_name():
    assert models.get("RB3D") is RB3D
    with pytest.raises(InputError, match="Did you mean rb3d"):
        models.get("rb3")
