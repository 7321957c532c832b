"""What every architecture shares: the windows of the pooled form, weights by name from a file."""

import math
import shutil
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from aitom_ssl.errors import InputError
from aitom_ssl.models import DSRF3D, RB3D, DSRF3Dv2, Inception3D, building, standardized
from aitom_ssl.training.precision import precision

SHAPE = (8, 8, 8, 1)


@pytest.mark.parametrize("n", range(2, 33))
def test_average_covers_as_torch_does(n, oracle):
    x = np.random.default_rng(n).standard_normal((1, n, n, n, 1)).astype(np.float32)
    volumes = keras.Input(x.shape[1:])
    pooled = keras.Model(volumes, building.average_to_2x2x2(volumes))(x)
    np.testing.assert_allclose(pooled[0], oracle.adaptive_average(x[0]), atol=1e-5)


def test_a_side_of_one_stays_one():
    assert building.average_to_2x2x2(keras.Input((1, 3, 4, 5))).shape == (None, 1, 2, 2, 5)


@pytest.mark.parametrize(("side", "field", "seen"), [(32, 0.75, 24), (33, 0.75, 25), (32, 0.7, 22), (9, 0.5, 5)])
def test_a_field_of_view_keeps_the_centre(side, field, seen):
    volumes = np.zeros((1, side, side, side, 1), np.float32)
    volumes[0, side // 2, side // 2, side // 2] = 1
    inside = np.array(building.field_of_view(volumes, field))
    assert inside.shape[1:4] == (seen,) * 3 and inside[0, seen // 2, seen // 2, seen // 2, 0] == 1
    assert building.field_of_view(volumes, 1.0) is volumes


@pytest.mark.parametrize("field", [0, 1.5, True, "all", 0.2])
def test_a_field_that_cannot_be_is_refused(field):
    with pytest.raises(InputError, match=f"field={field!r}" if field != 0.2 else "side of 4 voxels, and 8 or more"):
        RB3D((16, 16, 16, 1), 3, field=field)


def test_pooled_form_has_he_initialisation():
    kernel = DSRF3D(SHAPE, 3, pooling="avg").get_layer("block2_conv2").get_weights()[0]
    assert kernel.std() == pytest.approx(math.sqrt(2 / (27 * 64)), rel=0.03)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A pooled RB3D with 3 classes, and it in both kinds of file."""
    folder = tmp_path_factory.mktemp("weights")
    model = RB3D(SHAPE, 3, pooling="avg")
    model.compile("sgd")
    model.save_weights(folder / "rb3d.weights.h5")
    model.save(folder / "rb3d.keras")
    return model, folder


def same_weights(a, b):
    for left, right in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("file", ["rb3d.weights.h5", "rb3d.keras"])
def test_weights_round_trip(files, file):
    model, folder = files
    same_weights(RB3D(SHAPE, 3, pooling="avg", weights=folder / file), model)
    encoder = RB3D(SHAPE, include_top=False, pooling="avg", weights=str(folder / file))
    same_weights(encoder, keras.Model(model.input, model.get_layer("features").output))


def test_weights_of_a_pretrained_encoder(tmp_path):
    """What pretraining leaves is the encoder with standardised features."""
    encoder = RB3D(SHAPE, include_top=False, pooling="avg")
    standardized(encoder).save(tmp_path / "model.keras")
    same_weights(RB3D(SHAPE, include_top=False, pooling="avg", weights=tmp_path / "model.keras"), encoder)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda path: RB3D(SHAPE, 4, pooling="avg", weights=path), r"layer classifier has .*256, 3"),
        (lambda path: RB3D(SHAPE, 3, weights=path), "no layer fc1"),
        (lambda path: RB3D((*SHAPE[:3], 2), 3, pooling="avg", weights=path), "layer stem has"),
        (lambda path: Inception3D(SHAPE, 3, pooling="avg", weights=path), "layer stem has|no layer branch"),
        (lambda path: DSRF3D(SHAPE, 3, pooling="avg", weights=path), "no layer block1_conv1"),
    ],
)
def test_refuses_weights_of_another_network(files, build, message):
    with pytest.raises(InputError, match=f"does not hold weights of this network.*({message})") as error:
        build(files[1] / "rb3d.weights.h5")
    assert "\n" not in str(error.value)


def test_refuses_a_deeper_network_whose_first_layers_fit(tmp_path):
    """Keras' own load_weights fills DSRF3D from DSRF3D-v2 without a word."""
    deeper = DSRF3Dv2(SHAPE, include_top=False)
    deeper.save_weights(tmp_path / "v2.weights.h5")
    DSRF3D(SHAPE, include_top=False).load_weights(tmp_path / "v2.weights.h5")
    with pytest.raises(InputError, match="it also has a layer block3_conv1"):
        DSRF3D(SHAPE, include_top=False, weights=tmp_path / "v2.weights.h5")


def test_equal_shapes_go_by_name(tmp_path):
    """Three of Inception3D's layers have equal shapes; a file with other layers in their order is sorted out."""
    model = Inception3D(SHAPE, 3, pooling="avg")
    volumes = keras.Input(SHAPE, name="subtomogram")
    x = model.get_layer("pool")(model.get_layer("stem")(volumes))
    names = [
        [("branch_pool", None), "branch_pool_project"],
        ["branch5_reduce", "branch5"],
        ["branch3_reduce", "branch3"],
        ["branch1"],
    ]
    branches = []
    for chain in names:
        y = x
        for name in chain:
            y = model.get_layer(name if isinstance(name, str) else name[0])(y)
        branches.append(y)
    y = model.get_layer("average")(keras.layers.Concatenate(name="concatenate")(branches))
    for name in ("average_pool", "features", "classifier"):
        y = model.get_layer(name)(y)
    other = keras.Model(volumes, y)
    assert [w.path for w in other.weights] != [w.path for w in model.weights]
    other.save_weights(tmp_path / "order.weights.h5")
    same_weights(Inception3D(SHAPE, 3, pooling="avg", weights=tmp_path / "order.weights.h5"), model)


def test_refuses_what_is_not_a_weights_file(files, tmp_path):
    model, folder = files
    with pytest.raises(InputError, match="no weights file"):
        RB3D(SHAPE, weights=tmp_path / "typo.weights.h5")
    with pytest.raises(InputError, match="no weights file"):
        RB3D(SHAPE, weights=tmp_path)
    bad = tmp_path / "bad.weights.h5"
    bad.write_text("weights")
    legacy = tmp_path / "legacy.h5"
    model.save(legacy)
    cut = tmp_path / "cut.weights.h5"
    cut.write_bytes((folder / "rb3d.weights.h5").read_bytes()[:5000])
    cut_keras = tmp_path / "cut.keras"
    cut_keras.write_bytes((folder / "rb3d.keras").read_bytes()[:5000])
    empty = tmp_path / "empty.keras"
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("readme", "nothing")
    for path in (bad, legacy, cut, cut_keras, empty):
        with pytest.raises(InputError, match=r"is not a \.weights\.h5 or \.keras file") as error:
            RB3D(SHAPE, 3, pooling="avg", weights=path)
        assert str(path) in str(error.value)


def test_the_file_is_only_read(files, tmp_path):
    path = tmp_path / "rb3d.weights.h5"
    shutil.copy(files[1] / "rb3d.weights.h5", path)
    path.chmod(0o444)
    before = path.read_bytes()
    RB3D(SHAPE, 3, pooling="avg", weights=path)
    assert path.read_bytes() == before


def test_gradients_of_thin_maps_are_right_in_bfloat16():
    """TensorFlow's own are not on processors that compute in bfloat16: other numbers at each call."""
    rng = np.random.default_rng(0)
    volumes = rng.standard_normal((8, 2, 2, 2, 64)).astype(np.float32)
    weights = [rng.standard_normal((3, 3, 3, 64, 64)).astype(np.float32) / 40]

    def gradient(policy):
        with precision(policy):
            x = keras.Input(volumes.shape[1:])
            y = keras.layers.Conv3D(64, 3, padding="same", use_bias=False)(x)
            model = building.finish(x, y, "thin", None)
        model.set_weights(weights)
        with tf.GradientTape() as tape:
            loss = ops.sum(ops.square(ops.cast(model(volumes), "float32")))
        return np.array(tape.gradient(loss, model.trainable_variables)[0], np.float32)

    expected = gradient("float32")
    for _ in range(5):
        np.testing.assert_allclose(gradient("mixed_bfloat16"), expected, atol=0.02 * np.abs(expected).max())
