"""Views as a function of (seed, step), heads, the collapse monitor."""

import math

import keras
import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.ssl import MoCo
from aitom_ssl.ssl.two_views import feature_std, projection_head


def test_views_are_a_function_of_seed_and_step(tiny_encoder, wave, volumes):
    first, again, other = (MoCo(tiny_encoder(), wave, dim=4, seed=seed) for seed in (3, 3, 4))
    query, key = first.views(volumes)
    np.testing.assert_allclose(query, wave(volumes, np.array([6, 0])), atol=1e-5)
    np.testing.assert_allclose(key, wave(volumes, np.array([7, 0])), atol=1e-5)
    np.testing.assert_array_equal(query, again.views(volumes)[0])
    assert np.abs(query - other.views(volumes)[0]).max() > 0.1
    first.step.assign(1)
    assert np.abs(query - first.views(volumes)[0]).max() > 0.1


def test_step_counts_training_steps_only(tiny_encoder, wave, volumes):
    moco = MoCo(tiny_encoder(), wave, dim=4)
    moco.compile(keras.optimizers.SGD(0.1))
    moco.fit(volumes, batch_size=5, epochs=2, verbose=0)
    moco.evaluate(volumes, batch_size=4, verbose=0)
    moco.predict(volumes, verbose=0)
    assert int(moco.step.value) == 6


def test_networks_are_not_compiled_with_xla_on_tensorflow(tiny_encoder, wave):
    moco = MoCo(tiny_encoder(), wave)
    moco.compile("adam")
    assert moco.jit_compile is False
    moco.compile("adam", jit_compile=True)
    assert moco.jit_compile is True


@pytest.mark.parametrize(("kind", "weights"), [("v1", 2), ("v2", 4), ("v2_bn", 7), ("simclr", 9), ("swav", 7)])
def test_heads(kind, weights):
    features = keras.Input((6,))
    head = keras.Model(features, projection_head(features, 5, kind, seed=1))
    assert head.output_shape == (None, 5)
    assert len(head.weights) == weights
    same = keras.Model(features, projection_head(features, 5, kind, seed=1))
    np.testing.assert_array_equal(head.weights[0], same.weights[0])
    wide = {"v1": 5, "swav": 2048}.get(kind, 6)
    assert head.weights[0].shape == (6, wide)


def test_the_published_heads():
    """SimCLR (two layers): no biases, BatchNorm after both, the last without centre. SwAV: 2,048 wide, last linear."""
    features = keras.Input((6,))
    simclr = keras.Model(features, projection_head(features, 5, "simclr", seed=0))
    kinds = [type(layer).__name__ for layer in simclr.layers[1:]]
    assert kinds == ["Dense", "BatchNormalization", "ReLU", "Dense", "BatchNormalization"]
    assert [layer.use_bias for layer in simclr.layers if hasattr(layer, "use_bias")] == [False, False]
    assert (simclr.layers[2].center, simclr.layers[5].center, simclr.layers[5].scale) == (True, False, True)
    swav = keras.Model(features, projection_head(features, 5, "swav", seed=0))
    assert [type(layer).__name__ for layer in swav.layers[1:]] == ["Dense", "BatchNormalization", "ReLU", "Dense"]
    assert swav.layers[-1].use_bias


def test_feature_std_is_one_over_root_d_on_the_sphere_and_zero_when_collapsed():
    rows = np.random.default_rng(0).standard_normal((4000, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert float(feature_std(rows)) == pytest.approx(1 / math.sqrt(64), rel=0.01)
    assert float(feature_std(np.repeat(rows[:1], 9, axis=0))) == pytest.approx(0, abs=1e-7)


def test_refuses(tiny_encoder, wave):
    encoder = tiny_encoder()
    with pytest.raises(InputError, match="include_top=False"):
        MoCo(keras.Model(encoder.input, encoder.layers[1].output), wave)
    with pytest.raises(InputError, match="augmenter=None"):
        MoCo(encoder, None)
    with pytest.raises(InputError, match="seed=-1"):
        MoCo(encoder, wave, seed=-1)
    with pytest.raises(InputError, match="head='v3'"):
        MoCo(encoder, wave, head="v3")
