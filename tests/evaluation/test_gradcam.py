"""Class activation maps: the papers' formulas, the right place in the volume, and the particle that decides."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import layers

from aitom_ssl import models
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.gradcam import (
    central_share,
    class_activation_map,
    class_scores,
    grad_cam,
    peak,
    respond_cam,
    spatial_layer,
    upsample,
    voxel_places,
)


def maps(shape=(2, 3, 4, 5, 6)):
    rng = np.random.default_rng(1)
    return np.maximum(rng.normal(size=shape), 0), rng.normal(size=shape)


def noise(count, side=8):
    return np.random.default_rng(5).normal(size=(count, side, side, side)).astype(np.float32)


def randomised(model, seed=0):
    """No weight is 0 or 1, moving averages neither."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        deep = len(weight.shape) > 1
        scale = np.sqrt(2 / np.prod(weight.shape[:-1])) if deep else 1.0
        weight.assign(rng.normal(0, scale, weight.shape) if deep else rng.uniform(0.1, 0.5, weight.shape))
    return model


def toy(side=8, classes=3, head="flatten", activation="softmax"):
    """A network with a branch that passes `conv` by, strides, normalisation and dropout."""
    volumes = keras.Input((side, side, side, 1), name="subtomogram")
    x = layers.Conv3D(3, 3, strides=2, padding="same", name="stem")(volumes)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    y = layers.Conv3D(4, 3, padding="same", activation="relu", name="conv")(x)
    x = layers.Concatenate(name="both")([x, y])
    pooled = {"flatten": layers.Flatten, "average": layers.GlobalAveragePooling3D}[head](name="features")(x)
    scores = layers.Dense(classes, activation=activation, dtype="float32", name="classifier")
    return randomised(keras.Model(volumes, scores(layers.Dropout(0.5, name="dropout")(pooled)), name="toy"))


def with_tape(model, volumes, classes, name):
    """Activations, gradients and scores by TensorFlow's tape, the softmax taken off meanwhile."""
    tf = pytest.importorskip("tensorflow")
    both = keras.Model(model.input, [model.get_layer(name).output, model.output])
    softmax, model.layers[-1].activation = model.layers[-1].activation, None
    with tf.GradientTape() as tape:
        found, scores = both(tf.constant(volumes[..., None]), training=False)
        chosen = tf.reduce_sum(tf.gather(scores, classes, axis=1, batch_dims=1))
    model.layers[-1].activation = softmax
    return found.numpy(), tape.gradient(chosen, found).numpy(), scores.numpy()


# === Formulas ===


def test_grad_cam_is_the_papers_sum_voxel_by_voxel():
    activations, gradients = maps()
    n, z, y, x, channels = activations.shape
    expected = np.zeros((n, z, y, x))
    for i in range(n):
        for place in np.ndindex(z, y, x):
            for k in range(channels):
                weight = sum(gradients[(i, *voxel, k)] for voxel in np.ndindex(z, y, x)) / (z * y * x)
                expected[(i, *place)] += weight * activations[(i, *place, k)]
    assert (expected < 0).any() and (expected > 0).any()
    np.testing.assert_allclose(grad_cam(activations, gradients), np.maximum(expected, 0), atol=1e-12)


def test_respond_cam_is_the_papers_sum_voxel_by_voxel():
    activations, gradients = maps()
    n, z, y, x, channels = activations.shape
    expected = np.zeros((n, z, y, x))
    for i in range(n):
        for k in range(channels):
            above = below = 0.0
            for place in np.ndindex(z, y, x):
                above += activations[(i, *place, k)] * gradients[(i, *place, k)]
                below += activations[(i, *place, k)]
            expected[i] += above / below * activations[i, ..., k]
    np.testing.assert_allclose(respond_cam(activations, gradients), expected, atol=1e-12)


def test_respond_cam_sums_to_the_score_of_a_linear_head():
    activations, weights = maps()
    scores = (weights * activations).sum(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(respond_cam(activations, weights).sum(axis=(1, 2, 3)), scores, rtol=1e-12)


def test_both_are_the_class_activation_map_of_a_global_average():
    """Zhou 2016: with an average and a linear layer behind it, every voxel of a channel has the same gradient."""
    activations, _ = maps()
    weights = np.random.default_rng(2).normal(size=6)
    gradients = np.broadcast_to(weights / np.prod(activations.shape[1:4]), activations.shape)
    expected = activations @ weights / np.prod(activations.shape[1:4])
    np.testing.assert_allclose(respond_cam(activations, gradients), expected, atol=1e-12)
    np.testing.assert_allclose(grad_cam(activations, gradients), np.maximum(expected, 0), atol=1e-12)


def test_a_silent_channel_says_nothing():
    activations, gradients = maps()
    activations[..., 0], activations[1] = 0, 0
    without = respond_cam(activations[..., 1:], gradients[..., 1:])
    np.testing.assert_array_equal(respond_cam(activations, gradients), without)
    assert not without[1].any() and not grad_cam(activations, gradients)[1].any()


@pytest.mark.parametrize("function", [grad_cam, respond_cam])
def test_shapes_that_differ_are_refused(function):
    with pytest.raises(InputError, match=r"\(2, 3, 4, 5, 6\) and \(2, 3, 4, 5, 5\)"):
        function(np.ones((2, 3, 4, 5, 6)), np.ones((2, 3, 4, 5, 5)))


# === A model's maps ===


@pytest.mark.parametrize("head", ["flatten", "average"])
@pytest.mark.parametrize("name", ["stem", "relu", "conv", "both"])
def test_maps_are_those_of_tensorflows_tape(head, name):
    model = toy(head=head)
    volumes = noise(5)
    classes = np.array([0, 2, 1, 1, 0])
    activations, gradients, _ = with_tape(model, volumes, classes, name)
    places = voxel_places(model, model.get_layer(name))
    for method, function in (("grad_cam", grad_cam), ("respond_cam", respond_cam)):
        expected = [upsample(m, *places, (8, 8, 8)) for m in function(activations, gradients)]
        found = class_activation_map(model, volumes, classes, name, method, batch_size=2)
        assert found.dtype == np.float32 and found.shape == volumes.shape and np.abs(found).max() > 1e-3
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-4)


@pytest.mark.parametrize("activation", ["softmax", None])
def test_scores_are_those_before_the_softmax(activation):
    model = toy(activation=activation)
    volumes = noise(5)
    _, _, expected = with_tape(model, volumes, np.zeros(5, int), "conv")
    np.testing.assert_allclose(class_scores(model, volumes, 3), expected, rtol=1e-5, atol=1e-6)


def test_the_score_sums_up_the_map_where_the_rest_is_linear():
    model = toy(head="average")
    volumes = noise(3)
    activations, gradients, scores = with_tape(model, volumes, np.array([2, 0, 1]), "both")
    bias = keras.ops.convert_to_numpy(model.layers[-1].bias)[[2, 0, 1]]
    expected = scores[np.arange(3), [2, 0, 1]] - bias
    np.testing.assert_allclose(respond_cam(activations, gradients).sum(axis=(1, 2, 3)), expected, rtol=1e-4)


def test_the_predicted_classes_are_the_default_and_one_class_counts_for_all():
    model = toy()
    volumes = noise(4)
    predicted = np.array(model(volumes[..., None])).argmax(axis=1)
    np.testing.assert_array_equal(class_activation_map(model, volumes), class_activation_map(model, volumes, predicted))
    np.testing.assert_array_equal(
        class_activation_map(model, volumes[..., None], 1), class_activation_map(model, volumes, np.full(4, 1))
    )


def test_a_probability_of_one_hides_nothing():
    """The gradient of the softmax would be 0 in float32."""
    model = toy()
    model.layers[-1].set_weights([1e3 * w for w in model.layers[-1].get_weights()])
    volumes = noise(1)
    assert np.array(model(volumes[..., None])).max() == 1
    assert np.abs(class_activation_map(model, volumes, method="respond_cam")).max() > 1


def test_the_model_is_left_as_it_was():
    model = toy()
    before, flags = model.get_weights(), [v.trainable for v in model.weights]
    volumes = noise(2)
    answers = np.array(model(volumes[..., None]))
    class_activation_map(model, volumes, layer="conv")
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert [v.trainable for v in model.weights] == flags and not model.compiled
    np.testing.assert_array_equal(np.array(model(volumes[..., None])), answers)
    first = class_activation_map(model, volumes)
    np.testing.assert_array_equal(class_activation_map(model, volumes), first)


def test_mixed_precision_gives_nearly_the_same_map():
    from aitom_ssl.training.precision import with_precision

    model = toy()
    volumes = noise(3)
    expected = class_activation_map(model, volumes, 1, method="respond_cam")
    found = class_activation_map(with_precision(model, "mixed_bfloat16"), volumes, 1, method="respond_cam")
    assert found.dtype == np.float32 and (found != expected).any()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


# === The zoo ===

DEFAULTS = {
    ("inception3d", None): "concatenate",
    ("inception3d", "avg"): "concatenate",
    ("dsrf3d", "avg"): "block2_conv2",
    ("dsrf3dv2", None): "block3_conv2",
    ("cb3d", "avg"): "block3_conv2",
    ("rb3d", None): "block4_relu",
    ("rb3d", "avg"): "block4_relu",
    ("resnet18_3d", None): "stage1_block2_relu2",
}


@pytest.mark.parametrize(("architecture", "pooling"), DEFAULTS)
def test_every_network_of_the_zoo(architecture, pooling):
    keras.utils.set_random_seed(0)
    model = models.get(architecture)((16, 16, 16, 1), classes=3, pooling=pooling)
    volumes = noise(2, 16)
    name = DEFAULTS[architecture, pooling]
    assert spatial_layer(model).name == name
    activations, gradients, _ = with_tape(model, volumes, np.array([2, 0]), name)
    coarse = respond_cam(activations, gradients)
    expected = [upsample(m, *voxel_places(model, model.get_layer(name)), (16,) * 3) for m in coarse]
    found = class_activation_map(model, volumes, [2, 0], method="respond_cam")
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(found).max() > 0


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("inception3d", "concatenate"),
        ("dsrf3d", "block2_conv2"),
        ("dsrf3dv2", "block3_conv2"),
        ("cb3d", "block4_conv2"),
        ("resnet18_3d", "stage2_block2_relu2"),
    ],
)
def test_the_defaults_at_32_are_those_of_the_docstring(architecture, expected):
    layer = spatial_layer(models.get(architecture)((32, 32, 32, 1), classes=2, pooling="avg"))
    assert layer.name == expected
    sides = layer.output.shape[1:4]
    shown = f"{sides[0]}^3" if len(set(sides)) == 1 else "x".join(map(str, sides))
    assert f"{architecture} {expected} ({shown}" in " ".join(class_activation_map.__doc__.split())


def test_a_network_that_was_saved_and_loaded_gives_the_same_map(tmp_path):
    model = models.get("rb3d")((8, 8, 8, 1), classes=2, pooling="avg")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    volumes = noise(2)
    for layer in (None, "block2_conv"):
        expected = class_activation_map(model, volumes, 0, layer)
        np.testing.assert_array_equal(class_activation_map(loaded, volumes, 0, layer), expected)


# === Where feature voxels lie ===


def odd(kind):
    """Toys whose windows are even, dilated or cut off."""
    volumes = keras.Input((13, 14, 15, 1), name="subtomogram")
    convolution = {"filters": 8, "kernel_size": 3}
    x = {
        "same, stride 2": layers.Conv3D(**convolution, strides=2, padding="same"),
        "valid, stride 3": layers.Conv3D(**convolution, strides=3),
        "dilated": layers.Conv3D(**convolution, dilation_rate=2),
        "even kernel": layers.Conv3D(8, 4, padding="same"),
        "max pool": layers.MaxPooling3D(2),
        "max pool, same": layers.MaxPooling3D(3, strides=2, padding="same"),
        "average pool": layers.AveragePooling3D((1, 2, 3), strides=(1, 2, 1)),
        "padding": layers.ZeroPadding3D(((2, 0), (0, 1), (1, 3))),
        "cropping": layers.Cropping3D(((2, 0), (0, 1), (1, 3))),
    }[kind](volumes)
    x = layers.Conv3D(8, 1, activation="relu", name="layer")(x)
    return randomised(keras.Model(volumes, layers.Dense(2, name="classifier")(layers.Flatten()(x)), name="odd"))


@pytest.mark.parametrize(
    "kind",
    [
        "same, stride 2",
        "valid, stride 3",
        "dilated",
        "even kernel",
        "max pool",
        "max pool, same",
        "average pool",
        "padding",
        "cropping",
    ],
)
def test_the_centre_of_what_a_voxel_sees_is_where_it_lies(kind):
    model = odd(kind)
    check_places(model, model.get_layer("layer"), (13, 14, 15))


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("inception3d", "branch3"),
        ("rb3d", "block1_relu"),
        ("resnet18_3d", "stage1_block1_add"),
    ],
)
def test_so_it_is_in_the_zoo(architecture, name):
    model = models.get(architecture)((32, 32, 32, 1), classes=2, pooling="avg")
    check_places(model, model.get_layer(name), (32, 32, 32), axes=(2,))


def check_places(model, layer, sides, axes=(0, 1, 2)):
    start, step = voxel_places(model, layer)
    rng = np.random.default_rng(3)
    for axis in axes:
        side = sides[axis]
        volumes = np.repeat(rng.normal(size=sides).astype(np.float32)[None], side + 1, axis=0)
        for plane in range(side):
            where = (plane, *[plane if k == axis else slice(None) for k in range(3)])
            volumes[where] += 3 * rng.normal(size=volumes[where].shape)
        features = np.array(keras.Model(model.input, layer.output)(volumes[..., None], training=False))
        seen = (features[:-1] != features[-1]).any(axis=tuple(k + 1 for k in range(4) if k != axis))
        whole = 0
        for k, column in enumerate(seen.T):
            first, last = np.flatnonzero(column)[[0, -1]] if column.any() else (0, 0)  # padding sees nothing
            if first > 0 and last < side - 1:  # not cut off by the border
                assert (first + last) / 2 == pytest.approx(start[axis] + k * step[axis]), (axis, k)
                whole += 1
        assert whole >= 1


def test_branches_that_meet_count_by_their_channels():
    model = models.get("inception3d")((16, 16, 16, 1), classes=2)
    pool, start = (voxel_places(model, model.get_layer(name))[0] for name in ("branch_pool_project", "concatenate"))
    branch, step = voxel_places(model, model.get_layer("branch5"))
    np.testing.assert_allclose(branch, 2.5)  # half of the 5 of the stem, half a voxel of the pool
    np.testing.assert_allclose(pool, branch + step / 2)
    np.testing.assert_allclose(start, (128 * branch + 32 * pool) / 160)


def test_a_linear_ramp_is_interpolated_exactly_and_stays_constant_beyond_its_ends():
    start, step = np.array([2.5, 0.0, 1.0]), np.array([2.0, 4.0, 1.0])
    places = np.meshgrid(*(start[k] + step[k] * np.arange(5) for k in range(3)), indexing="ij")
    coarse = places[0] + 10 * places[1] + 100 * places[2]
    found = upsample(coarse, start, step, (16, 17, 7))
    where = [np.clip(np.arange(n), start[k], start[k] + 4 * step[k]) for k, n in enumerate((16, 17, 7))]
    z, y, x = np.meshgrid(*where, indexing="ij")
    np.testing.assert_allclose(found, z + 10 * y + 100 * x, atol=1e-9)


def test_a_layer_that_cannot_be_placed_is_refused():
    volumes = keras.Input((4, 4, 4, 1))
    x = layers.UpSampling3D(2, name="finer")(volumes)
    model = keras.Model(volumes, layers.Dense(2, name="classifier")(layers.Flatten()(x)))
    with pytest.raises(InputError, match=r"finer \(UpSampling3D\) turns maps of \(4, 4, 4\) voxels into \(8, 8, 8\)"):
        class_activation_map(model, np.zeros((1, 4, 4, 4)))


# === It points at what decides ===

BOX, SPOT = 12, np.array([(3, 3, 3), (8, 8, 8)])


def bars(labels, seed):
    """Volumes with a bar along y (class 0), along x (1) or none (2), and always one along z; their places are swapped.

    The bar along z alone speaks for class 2: what is for 0 or 1 can only be found where the other bar is.
    """
    rng = np.random.default_rng(seed)
    swapped = rng.integers(0, 2, len(labels))
    volumes = rng.normal(0, 0.1, (len(labels), BOX, BOX, BOX)).astype(np.float32)
    for volume, label, swap in zip(volumes, labels, swapped, strict=True):
        for place, axis in zip(SPOT[[swap, 1 - swap]], (label + 1, 0), strict=True):
            bar = [slice(n, n + 1) for n in place]
            if axis < 3:
                bar[axis] = slice(place[axis] - 2, place[axis] + 3)
                volume[tuple(bar)] += 3
    return volumes, SPOT[swapped], SPOT[1 - swapped]


@pytest.fixture(scope="module")
def bar_network():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((BOX, BOX, BOX, 1))
    x = layers.Conv3D(8, 5, padding="same", activation="relu", name="conv1")(inputs)
    x = layers.MaxPooling3D(2, name="pool")(x)
    x = layers.Conv3D(8, 3, padding="same", activation="relu", name="conv2")(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling3D()(x)))
    labels = np.arange(480) % 3
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(bars(labels, 0)[0][..., None], labels, batch_size=40, epochs=8, verbose=0)
    return model


@pytest.mark.parametrize("method", ["grad_cam", "respond_cam"])
@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_the_map_points_at_the_object_that_decides_the_class(bar_network, method, layer):
    labels = np.arange(40) % 2
    volumes, particle, other = bars(labels, 1)
    assert (class_scores(bar_network, volumes).argmax(axis=1) == labels).all()
    maps = class_activation_map(bar_network, volumes, layer=layer, method=method)

    def mean_about(cam, place):
        return cam[tuple(slice(n - 2, n + 3) for n in place)].mean()

    triples = zip(maps, particle, other, strict=True)
    right = [mean_about(cam, here) > 2 * max(mean_about(cam, there), 0) for cam, here, there in triples]
    assert np.mean(right) >= 0.95, right


def test_two_objects_of_known_weights():
    """A bright ball speaks for class 1, a dark one for class 0, and each has its own map."""
    volumes = np.zeros((1, 9, 9, 9), np.float32)
    volumes[0, 2, 2, 2], volumes[0, 6, 7, 5] = 2.0, -3.0
    inputs = keras.Input((9, 9, 9, 1))
    x = layers.Conv3D(2, 1, activation="relu", name="signs")(inputs)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax", name="classifier")(layers.Flatten()(x)))
    model.get_layer("signs").set_weights([np.array([1.0, -1.0]).reshape(1, 1, 1, 1, 2), np.zeros(2)])
    kernel = np.tile(np.array([[-0.5, 1.0], [1.0, -0.5]]), (9**3, 1))
    model.get_layer("classifier").set_weights([kernel, np.zeros(2)])
    bright, dark = (np.where(volumes[0] * sign > 0, np.abs(volumes[0]), 0) for sign in (1, -1))
    for target, (here, there) in enumerate([(dark, bright), (bright, dark)]):
        np.testing.assert_allclose(class_activation_map(model, volumes, target)[0], here, atol=1e-6)
        signed = class_activation_map(model, volumes, target, method="respond_cam")[0]
        np.testing.assert_allclose(signed, here - 0.5 * there, atol=1e-6)


@pytest.mark.parametrize("method", ["grad_cam", "respond_cam"])
def test_a_turned_volume_has_the_turned_map(method):
    """Exact where the network cannot tell a turn: kernels the same along every axis, a box whose parity fits."""
    rng = np.random.default_rng(4)
    inputs = keras.Input((8, 8, 8, 1))
    x = layers.Conv3D(3, 3, padding="same", activation="relu", name="conv1")(inputs)
    x = layers.MaxPooling3D(2)(x)
    x = layers.Conv3D(4, 3, padding="same", activation="relu", name="conv2")(x)
    model = randomised(keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling3D()(x))))
    distance = sum(offset**2 for offset in np.ogrid[-1:2, -1:2, -1:2])
    for layer in (model.get_layer("conv1"), model.get_layer("conv2")):
        shape = layer.kernel.shape
        layer.kernel.assign(rng.normal(size=(4, *shape[3:]))[distance])
    volume = rng.normal(size=(8, 8, 8)).astype(np.float32)
    expected = class_activation_map(model, volume[None], 0, method=method)[0]
    assert np.abs(expected).max() > 0
    for axes in ((0, 1), (0, 2), (1, 2)):
        found = class_activation_map(model, np.rot90(volume, axes=axes)[None], 0, method=method)[0]
        np.testing.assert_allclose(found, np.rot90(expected, axes=axes), atol=1e-5 * np.abs(expected).max())


# === What a map says ===


def test_the_peak_is_the_largest_value_above_0():
    cam = np.zeros((4, 5, 6))
    assert peak(cam) is None and peak(cam - 1) is None and central_share(cam - 1) is None
    cam[1, 4, 2], cam[2, 2, 3] = 2.0, 1.0
    assert peak(cam) == (1, 4, 2)


def test_the_central_share_counts_voxels_within_a_third_of_the_box():
    flat = central_share(np.ones((32, 32, 32)))
    assert flat == pytest.approx(4 / 3 * np.pi / 27, rel=0.02)
    cam = np.zeros((9, 9, 9))
    cam[4, 4, 7], cam[4, 4, 0] = 3.0, 1.0  # 3 and 4 voxels from the centre
    assert central_share(cam) == 0.75
    cam[0, 0, 0] = -5
    assert central_share(cam) == 0.75


# === Refusals ===


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer": "convv"}, r"toy has no 'convv'; layers that have: stem, norm, relu, conv, both\. Did you mean conv"),
        ({"layer": "features"}, r"'features' of toy has no spatial maps; layers that have: stem"),
        ({"layer": "subtomogram"}, r"'subtomogram' of toy has no spatial maps"),
        ({"method": "gradcam"}, "method='gradcam' must be one of grad_cam, respond_cam"),
        ({"classes": 3}, "no class 3: the model's classes are 0 to 2"),
        ({"classes": [0, -1]}, "no class -1"),
        ({"classes": [0]}, "one for each of 2 volumes"),
        ({"classes": 0.5}, "whole number"),
        ({"volumes": np.zeros((2, 8, 8, 7))}, r"takes volumes \(n, 8, 8, 8\), n >= 1. Received .*\(2, 8, 8, 7, 1\)"),
        ({"volumes": np.zeros((8, 8, 8))}, r"Received shape \(8, 8, 8\)"),
        ({"volumes": np.zeros((0, 8, 8, 8))}, "n >= 1"),
    ],
)
def test_what_cannot_be_used_is_said(options, said):
    with pytest.raises(InputError, match=said):
        class_activation_map(toy(), **{"volumes": np.zeros((2, 8, 8, 8)), **options})


def test_other_models_are_refused():
    volumes = np.zeros((1, 8, 8, 8))
    encoder = models.get("rb3d")((8, 8, 8, 1), include_top=False, pooling="avg")
    with pytest.raises(InputError, match=r"rb3d ends in features \(Flatten\), expected a Dense layer"):
        class_activation_map(encoder, volumes)
    flat = keras.Input((8, 8, 8, 1))
    with pytest.raises(InputError, match="no layer with spatial maps"):
        class_activation_map(keras.Model(flat, layers.Dense(2)(layers.Flatten()(flat))), volumes)

    class Subclassed(keras.Model):
        pass

    with pytest.raises(InputError, match=r"functional keras.Model. Received Subclassed"):
        class_activation_map(Subclassed(), volumes)
    two = keras.Input((8, 8, 8, 2))
    with pytest.raises(InputError, match=r"expected one \(batch, z, y, x, 1\)"):
        class_activation_map(keras.Model(two, layers.Dense(2)(layers.Flatten()(two))), volumes)


def test_a_network_that_diverged_is_said():
    model = toy()
    model.layers[-1].bias.assign([np.nan, 0, 0])
    with pytest.raises(InputError, match="toy answers with NaN"):
        class_activation_map(model, np.zeros((1, 8, 8, 8)))


# === JAX ===


def test_jax_gives_the_same_maps(tmp_path):
    pytest.importorskip("jax", reason="needs the extra `jax`")
    model = toy()
    volumes = noise(3)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "volumes.npy", volumes)
    script = """
        import sys
        import keras, numpy as np
        from aitom_ssl.evaluation.gradcam import class_activation_map
        assert keras.backend.backend() == "jax"
        model = keras.models.load_model(sys.argv[1] + "/model.keras")
        volumes = np.load(sys.argv[1] + "/volumes.npy")
        np.save(sys.argv[1] + "/found.npy", class_activation_map(model, volumes, 1, "conv", "respond_cam", 2))
    """
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = class_activation_map(model, volumes, 1, "conv", "respond_cam")
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-4 * np.abs(expected).max())
