"""ResNet-18 in 3-D: a NumPy forward pass, the count of its weights in closed form, its stems."""

import math

import keras
import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.models import ResNet18_3D, resnet18_3d


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 17), ("imagenet", 16), ("small", 7), ("small", 8)])
def test_forward_pass_equals_numpy(stem, side, oracle, monkeypatch):
    monkeypatch.setattr(resnet18_3d, "_STAGES", (64, 8, 12, 16))
    model = ResNet18_3D((side, side, side, 1), 3, classifier_activation=None, stem=stem)
    oracle.randomise(model)
    volume = np.random.default_rng(1).standard_normal((side, side, side, 1))

    def convolve(x, name, stride=1):
        return oracle.normalise(oracle.convolve(x, model.get_layer(name), stride=stride), model.get_layer(f"{name}_bn"))

    if stem == "imagenet":
        x = oracle.relu(convolve(volume, "stem_conv", 2))
        x = np.pad(x, [(1, 1)] * 3 + [(0, 0)], constant_values=-np.inf)
        x = oracle.max_pool(x, (3, 3, 3), (2, 2, 2))
    else:
        x = oracle.relu(convolve(volume, "stem_conv"))
    for stage in (1, 2, 3, 4):
        for block in (1, 2):
            prefix, stride = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
            y = oracle.relu(convolve(x, f"{prefix}_conv1", stride))
            y = convolve(y, f"{prefix}_conv2")
            x = oracle.relu(y + (convolve(x, f"{prefix}_shortcut", 2) if stride == 2 else x))
    expected = oracle.dense(x.mean(axis=(0, 1, 2)), model.get_layer("classifier"))
    np.testing.assert_allclose(model(volume[None])[0], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def weights_that_train(dimensions, channels, kernel, classes):
    count = kernel**dimensions * channels * 64 + 2 * 64
    before = 64
    for filters in (64, 128, 256, 512):
        count += 3**dimensions * (before * filters + 3 * filters * filters) + 4 * 2 * filters
        if filters != before:
            count += before * filters + 2 * filters
        before = filters
    return count + 512 * classes + classes


@pytest.mark.parametrize(("stem", "kernel"), [("imagenet", 7), ("small", 3)])
@pytest.mark.parametrize("classes", [10, 1000])
def test_weights_in_closed_form(stem, kernel, classes, weightless):
    # In two dimensions the formula gives torchvision's resnet18.
    assert weights_that_train(2, 3, 7, 1000) == 11_689_512
    model = ResNet18_3D(classes=classes, stem=stem)
    count = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    assert count == weights_that_train(3, 1, kernel, classes)


@pytest.mark.parametrize(("stem", "sides"), [("imagenet", [8, 4, 2, 1]), ("small", [32, 16, 8, 4])])
def test_sides_of_the_stages(stem, sides, weightless):
    model = ResNet18_3D(stem=stem)
    assert [model.get_layer(f"stage{stage}_block2_relu2").output.shape[1] for stage in (1, 2, 3, 4)] == sides


def test_every_convolution_is_normalised_and_has_he_initialisation(weightless):
    model = ResNet18_3D()
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv3D):
            assert not layer.use_bias
            assert isinstance(layer.kernel_initializer, keras.initializers.HeNormal)
            normalisation = model.get_layer(f"{layer.name}_bn")
            assert (normalisation.epsilon, normalisation.momentum) == (1e-5, 0.9)


def test_refuses_another_stem():
    with pytest.raises(InputError, match="stem='large' must be one of imagenet, small"):
        ResNet18_3D(stem="large")
