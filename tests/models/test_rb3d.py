"""RB3D: a NumPy forward pass, the layers of the original code, the pooled form."""

import math

import keras
import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.models import RB3D


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


@pytest.mark.parametrize("side", [8, 10])
def test_forward_pass_equals_numpy(side, oracle):
    model = RB3D((side, side, side, 1), 3, pooling="avg", classifier_activation=None)
    oracle.randomise(model)
    convolve, relu = oracle.convolve, oracle.relu
    volume = np.random.default_rng(1).standard_normal((side, side, side, 1))
    x = oracle.max_pool(relu(convolve(volume, model.get_layer("stem"))))
    for block in range(1, 5):
        get = {part: model.get_layer(f"block{block}_{part}") for part in ("shortcut", "reduce", "conv", "expand")}
        branch = relu(convolve(relu(convolve(x, get["reduce"])), get["conv"]))
        x = relu(np.concatenate([convolve(x, get["shortcut"]), convolve(branch, get["expand"])], axis=-1))
    expected = oracle.dense(oracle.adaptive_average(x).reshape(-1), model.get_layer("classifier"))
    np.testing.assert_allclose(model(volume[None])[0], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("side", [24, 28, 30, 33, 64])
def test_pooled_encoder_gives_256_features_at_any_size(side):
    encoder = RB3D((side, side, side, 1), include_top=False, pooling="avg")
    assert encoder.output_shape == (None, 256)
    assert encoder.count_params() == 115_904


def test_pooled_has_he_initialisation_and_no_dropout():
    model = RB3D((8, 8, 8, 1), 3, pooling="avg")
    assert not [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    kernels = [model.get_layer(f"block{block}_conv").get_weights()[0].ravel() for block in range(1, 5)]
    assert np.concatenate(kernels).std() == pytest.approx(math.sqrt(2 / (27 * 16)), rel=0.03)


def test_without_top_the_features_are_flattened():
    assert RB3D((8, 8, 8, 1), include_top=False).output_shape == (None, 2048)


# === GroupNormalization ===


@pytest.fixture(scope="module")
def grouped():
    return RB3D((8, 8, 8, 1), 3, pooling="avg", normalization="group")


def test_every_convolution_is_normalised_and_has_no_bias(grouped):
    convolutions = [layer for layer in grouped.layers if isinstance(layer, keras.layers.Conv3D)]
    assert len(convolutions) == 17 and not any(layer.use_bias for layer in convolutions)
    for layer in convolutions:
        norm = grouped.get_layer(f"{layer.name}_norm")
        assert norm.groups == 8 and norm.input is layer.output
    # Each norm has a scale and a centre where the convolution had a bias.
    assert grouped.count_params() == RB3D((8, 8, 8, 1), 3, pooling="avg").count_params() + 32 + 4 * (16 + 16 + 32 + 16)
    assert grouped.name == "rb3d_gn"


def test_the_scale_of_a_convolution_does_not_matter_and_neither_does_the_batch(grouped):
    volumes = np.random.default_rng(0).standard_normal((4, 8, 8, 8, 1)).astype(np.float32)
    expected = np.asarray(grouped(volumes))
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(np.asarray(grouped(volumes[2:3], training=True)), expected[2:3], atol=1e-5)
    scaled = keras.models.clone_model(grouped)
    scaled.set_weights([5 * w if w.ndim == 5 else w for w in grouped.get_weights()])
    np.testing.assert_allclose(np.asarray(scaled(volumes)), expected, atol=5e-3)


def test_other_normalisations_are_refused():
    with pytest.raises(InputError, match="normalization='batch' must be None"):
        RB3D((8, 8, 8, 1), 3, normalization="batch")
