"""What the random layers draw, and that they apply what they drew."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.stats import chisquare, kstest

from aitom_ssl import geometry
from aitom_ssl.augmentation import (
    RandomAffine3D,
    RandomHalfTurn3D,
    RandomMirror3D,
    RandomResizedCrop3D,
    RandomRotation3D,
    affine_transform_3d,
)
from aitom_ssl.errors import InputError

LAYERS = [RandomResizedCrop3D, RandomAffine3D, RandomRotation3D, RandomHalfTurn3D, RandomMirror3D]
COUNT = 5000


def random_volumes(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def draw(layer, count=COUNT, size=32, seed=3):
    return {name: numpy(value) for name, value in layer.draw(count, size, seed).items()}


def is_uniform(values, low, high):
    assert values.min() >= low and values.max() <= high
    return kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-3


# === Draws ===


def test_rotations_are_uniform_on_so3():
    """cos(theta), phi and psi of the ZYZ angles are uniform, as is the cosine of any fixed axis with its image."""
    quaternion = draw(RandomRotation3D())["quaternion"]
    phi, theta, psi = geometry.quaternion_to_euler_zyz(quaternion).T
    assert is_uniform(np.cos(np.radians(theta)), -1, 1)
    assert is_uniform(phi, -180, 180) and is_uniform(psi, -180, 180)
    assert is_uniform(geometry.quaternion_to_matrix(quaternion)[:, 0, 0], -1.000001, 1.000001)
    assert abs(np.corrcoef(phi, psi)[0, 1]) < 0.05


def test_rotation_matrices_are_those_of_the_quaternions():
    drawn = draw(RandomRotation3D(), count=50)
    np.testing.assert_allclose(drawn["matrices"], geometry.pose_to_affine(drawn["quaternion"]), atol=1e-6)


def test_affine_parameters_are_uniform_in_their_ranges():
    drawn = draw(RandomAffine3D(angle=45, translation=0.1, scale=(0.9, 1.1)))
    assert is_uniform(drawn["angle"], -45, 45)
    assert is_uniform(drawn["scale"], 0.9 - 1e-6, 1.1 + 1e-6)
    assert not drawn["translation"][:, 0].any()
    assert is_uniform(drawn["translation"][:, 1], -3.2, 3.2) and is_uniform(drawn["translation"][:, 2], -3.2, 3.2)
    columns = np.column_stack([drawn["angle"], drawn["scale"], drawn["translation"][:, 1:], drawn["applied"]])
    assert np.abs(np.corrcoef(columns.T) - np.eye(5)).max() < 0.06


def test_affine_with_z_shifts_and_scales_z():
    drawn = draw(RandomAffine3D(in_plane=False, probability=1), count=200)
    assert np.abs(drawn["translation"][:, 0]).max() > 2.5
    np.testing.assert_allclose(drawn["matrices"][:, 0, 0], 1 / drawn["scale"], rtol=1e-5)
    np.testing.assert_allclose(np.linalg.det(drawn["matrices"][..., :3]), drawn["scale"] ** -3, rtol=1e-4)


def test_affine_matrix_shows_a_known_point():
    """Scale and turn about the centre, then shift: where a point goes, worked out by hand."""
    drawn = draw(RandomAffine3D(in_plane=False, probability=1), count=20)
    point = np.array([1.0, 2.0, -3.0])  # offset (z, y, x)
    columns = (drawn[name] for name in ("angle", "scale", "translation", "matrices"))
    for angle, scale, shift, matrix in zip(*columns, strict=True):
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        z, y, x = scale * point
        goes_to = np.array([z, s * x + c * y, c * x - s * y]) + shift
        np.testing.assert_allclose(matrix[:, :3] @ goes_to + matrix[:, 3], point, atol=1e-4)


@pytest.mark.parametrize("in_plane, power", [(True, 2), (False, 3)])
@pytest.mark.parametrize("size", [31, 32])
def test_crop_keeps_a_fraction_in_range_and_stays_inside(in_plane, power, size):
    drawn = draw(RandomResizedCrop3D(scale=(0.5, 1), in_plane=in_plane, probability=1), size=size)
    assert is_uniform(drawn["side"].astype(np.float64) ** power, 0.5 - 1e-6, 1 + 1e-6)
    # The outer edges of the first and last voxel show the crop's edges, which lie within the volume's.
    edges = np.array([-0.5, size - 0.5])
    matrices, centre = drawn["matrices"], size // 2
    for axis in (0, 1, 2):
        shown = matrices[:, axis, axis, None] * (edges - centre) + matrices[:, axis, 3, None] + centre
        assert shown.min() >= -0.5 - 1e-4 and shown.max() <= size - 0.5 + 1e-4
        moving = axis > 0 or not in_plane
        np.testing.assert_allclose(shown[:, 1] - shown[:, 0], (drawn["side"] if moving else 1) * size, rtol=1e-5)
        np.testing.assert_allclose(shown[:, 0] + 0.5, drawn["corner"][:, axis], atol=1e-4)
        if moving:
            free = (1 - drawn["side"]) * size
            assert is_uniform((drawn["corner"][:, axis] / free)[free > 0.1], -1e-3, 1 + 1e-3)


@pytest.mark.parametrize("layer", [kind(probability=p) for kind in LAYERS for p in (0.0, 0.5, 1.0)])
def test_applied_with_the_probability(layer):
    drawn = draw(layer)
    # 5,000 draws at 0.5 have a standard deviation of 0.007.
    assert drawn["applied"].mean() == pytest.approx(layer.probability, abs=0.03)
    unchanged = (drawn["matrices"] == np.eye(3, 4)).all(axis=(1, 2))
    assert np.array_equal(unchanged, ~drawn["applied"])


@pytest.mark.parametrize("kind", LAYERS)
def test_same_seed_same_draw(kind):
    layer = kind(probability=0.5)
    pair = ops.convert_to_tensor([5, 9], "int32")
    first, second, other = (draw(layer, 64, seed=s)["matrices"] for s in (pair, pair, ops.convert_to_tensor([5, 10])))
    assert np.array_equal(first, second) and not np.array_equal(first, other)


# === Apply ===


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("in_plane", [True, False])
def test_every_layer_equals_trilinear_with_its_matrices(kind, in_plane):
    options = {"in_plane": in_plane} if kind in (RandomResizedCrop3D, RandomAffine3D) else {}
    layer, volumes = kind(probability=0.7, **options), random_volumes(8, 10, 10, 10, 1)
    drawn = layer.draw(8, 10, 1)
    expected = numpy(affine_transform_3d(volumes, drawn["matrices"]))
    np.testing.assert_allclose(numpy(layer.apply(volumes, drawn)), expected, atol=1e-5)
    np.testing.assert_allclose(numpy(layer(volumes, seed=1)), expected, atol=1e-5)


@pytest.mark.parametrize("kind", LAYERS)
def test_probability_zero_and_not_training_change_nothing(kind):
    volumes = random_volumes(2, 6, 6, 6, 1)
    assert np.array_equal(numpy(kind(probability=0.0)(volumes, seed=1)), volumes)
    assert np.array_equal(numpy(kind(probability=1.0)(volumes, seed=1, training=False)), volumes)


def test_mirror_reverses_x():
    volumes = random_volumes(2, 7, 7, 7, 1)
    assert np.array_equal(numpy(RandomMirror3D(probability=1)(volumes, seed=1)), volumes[:, :, :, ::-1])


def test_half_turns_are_rot90_twice_and_all_alike_likely():
    layer, volumes = RandomHalfTurn3D(), random_volumes(12, 7, 7, 7, 1)
    drawn = draw(layer, count=12, size=7)
    planes = ((1, 2), (1, 3), (2, 3))  # about x, y, z; axis 0 is the batch
    turned = np.stack([np.rot90(volumes, 2, planes[axis])[k] for k, axis in enumerate(drawn["axis"])])
    expected = np.where(drawn["applied"].reshape(-1, 1, 1, 1, 1), turned, volumes)
    np.testing.assert_array_equal(numpy(layer(volumes, seed=3)), expected)
    drawn = draw(layer)
    counts = np.bincount(np.where(drawn["applied"], drawn["axis"], 3), minlength=4)
    assert chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("kind", LAYERS)
def test_own_seed_is_used_without_one_in_the_call(kind):
    volumes = random_volumes(16, 6, 6, 6, 1)
    layer, again = kind(probability=0.5, seed=4), kind(probability=0.5, seed=4)
    first, second = numpy(layer(volumes)), numpy(layer(volumes))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, numpy(again(volumes))) and np.array_equal(second, numpy(again(volumes)))


# === As Keras layers ===


@pytest.mark.parametrize(
    "layer",
    [
        RandomResizedCrop3D(scale=(0.3, 0.9), in_plane=False, probability=0.25, seed=7),
        RandomAffine3D(angle=10, translation=0.2, scale=(0.8, 1.5), in_plane=False, probability=1.0, seed=7),
        RandomRotation3D(probability=0.5, seed=7),
        RandomHalfTurn3D(probability=0.5, seed=7),
        RandomMirror3D(probability=0.1, seed=7),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_serialisation_round_trip(layer):
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(restored) is type(layer) and restored.get_config() == layer.get_config()
    volumes = random_volumes(4, 6, 6, 6, 1)
    assert np.array_equal(numpy(layer(volumes)), numpy(restored(volumes)))


def test_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = RandomAffine3D(probability=1)
        volumes = random_volumes(2, 6, 6, 6, 1)
        result = layer(volumes, seed=1)
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    assert np.array_equal(numpy(result), numpy(RandomAffine3D(probability=1)(volumes, seed=1)))


def test_in_a_functional_model():
    inputs = keras.Input((6, 6, 6, 1))
    model = keras.Model(inputs, RandomRotation3D(seed=1)(inputs))
    volumes = random_volumes(3, 6, 6, 6, 1)
    assert model.output_shape == (None, 6, 6, 6, 1)
    assert np.array_equal(model.predict(volumes, verbose=0), volumes)
    assert not np.array_equal(numpy(model(volumes, training=True)), volumes)


# === Mistakes ===


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: RandomRotation3D(probability=1.5),
            "`probability` is a probability from 0 to 1. Received: probability=1.5",
        ),
        (
            lambda: RandomResizedCrop3D(scale=(0, 1)),
            r"`scale` is a pair .* between 0.01 and 1. Received: scale=\(0, 1\)",
        ),
        (lambda: RandomResizedCrop3D(scale=0.5), "`scale` is a pair .*Received: scale=0.5"),
        (lambda: RandomAffine3D(scale=(1.1, 0.9)), r"`scale` is a pair .*Received: scale=\(1.1, 0.9\)"),
        (lambda: RandomAffine3D(angle=-1), "`angle` is a number from 0 to 180. Received: angle=-1"),
        (lambda: RandomAffine3D(translation=3), "`translation` is a number from 0 to 1. Received: translation=3"),
        (lambda: RandomAffine3D(in_plane="yes"), "`in_plane` is True or False. Received: in_plane='yes'"),
        (lambda: RandomMirror3D()(np.zeros((1, 4, 5, 4, 1))), r"cubes.*Received: \(z, y, x\) = \(4, 5, 4\)"),
    ],
)
def test_mistakes_are_quoted(make, message):
    with pytest.raises(InputError, match=message):
        make()
