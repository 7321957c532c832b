"""COS-Net: counts by hand, a NumPy forward pass, the head on all pairs, the variants of the ablation."""

import keras
import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.models import COSNet
from aitom_ssl.models.cosnet import pairs
from aitom_ssl.training.precision import precision

SHAPE = (8, 8, 8, 1)


def tiny(**options):
    return COSNet(SHAPE, **{"filters": 4, "features": 3, **options})


def counted(filters, features, side, duse=True, decoder=True):
    """Weights, layer by layer (kernel and bias, or the four of a normalisation)."""
    conv = 27 * filters**2 + filters
    block = 2 * (conv + 4 * filters)
    if duse:
        half = filters // 2
        block += (filters * half + half) + (half * filters + filters) + (filters + 1)
    total = 27 * filters + filters + 3 * block
    total += ((side // 4) ** 3 * filters * features + features) + (features**2 + features)
    if decoder:
        total += 2 * (8 * filters**2 + filters + block) + filters + 1
    return total + features + 1


def test_number_of_weights(weightless):
    assert COSNet().count_params() == counted(64, 512, 32) == 18_238_823
    for duse in (True, False):
        for decoder in (True, False):
            network = COSNet((16, 16, 16, 1), 8, 20, "max" if duse else None, decoder)
            assert network.count_params() == counted(8, 20, 16, duse, decoder)
    assert COSNet(skips=True).count_params() == counted(64, 512, 32)
    assert COSNet(include_top=False).count_params() == counted(64, 512, 32, decoder=False) - 513


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def transposed(x, layer):
    """Each voxel becomes a cube of 2^3: Keras' kernel is (z, y, x, out, in)."""
    kernel, bias = layer.get_weights()
    z, y, x_, _ = x.shape
    out = np.einsum("zyxi,abcoi->zaybxco", x, kernel).reshape(2 * z, 2 * y, 2 * x_, -1)
    return np.maximum(out + bias, 0)


@pytest.mark.parametrize(("fusion", "skips"), [("add", False), ("max", False), (None, False), ("add", True)])
def test_forward_pass_equals_numpy(fusion, skips, oracle):
    keras.utils.set_random_seed(0)
    network = tiny(fusion=fusion, skips=skips)
    oracle.randomise(network)
    get = network.get_layer

    def duse(x, prefix):
        squeezed = oracle.relu(oracle.dense(x.mean(axis=(0, 1, 2)), get(f"{prefix}_squeeze")))
        by_channel = x * sigmoid(oracle.dense(squeezed, get(f"{prefix}_excite")))
        by_voxel = x * sigmoid(oracle.convolve(x, get(f"{prefix}_voxels")))
        return by_channel + by_voxel if fusion == "add" else np.maximum(by_channel, by_voxel)

    def level(x, prefix):
        for number in (1, 2):
            x = oracle.relu(oracle.convolve(x, get(f"{prefix}_conv{number}")))
            x = oracle.normalise(x, get(f"{prefix}_norm{number}"))
        return x if fusion is None else duse(x, f"{prefix}_duse")

    def forward(volume):
        x = oracle.relu(oracle.convolve(volume, get("stem")))
        first = level(x, "encoder1")
        second = level(oracle.max_pool(first), "encoder2")
        encoded = level(oracle.max_pool(second), "encoder3")
        features = oracle.dense(oracle.dense(encoded.reshape(-1), get("feature_encoder1")), get("features"))
        x = level(transposed(encoded, get("decoder1_up")) + skips * second, "decoder1")
        x = level(transposed(x, get("decoder2_up")) + skips * first, "decoder2")
        return features, sigmoid(oracle.convolve(x, get("mask")))

    volumes = np.random.default_rng(1).standard_normal((3, *SHAPE))
    features, masks = (np.stack(column) for column in zip(*map(forward, volumes), strict=True))
    found = network(volumes.astype(np.float32))
    np.testing.assert_allclose(found["features"], features, rtol=1e-3, atol=1e-3 * np.abs(features).max())
    np.testing.assert_allclose(found["mask"], masks, atol=1e-3)
    assert np.ptp(masks) > 0.03 and np.ptp(features, axis=0).min() > 1e-3

    (weight, bias) = get("similarity").get_weights()
    expected = [[np.abs(a - b) @ weight[:, 0] + bias[0] for b in features] for a in features]
    np.testing.assert_allclose(found["similarity"], expected, rtol=1e-3, atol=1e-3)


def test_pairs_of_several_episodes():
    """Leading axes are episodes; targets are rows and supports columns."""
    network = tiny(decoder=False)
    rng = np.random.default_rng(0)
    targets, supports = (rng.standard_normal((2, n, 3)).astype(np.float32) for n in (4, 5))
    found = np.asarray(pairs(network.get_layer("similarity"), targets, supports))
    assert found.shape == (2, 4, 5)
    weight, bias = network.get_layer("similarity").get_weights()
    expected = np.abs(targets[1, 3] - supports[1, 2]) @ weight[:, 0] + bias[0]
    assert found[1, 3, 2] == pytest.approx(expected, abs=1e-5)


def test_variants_give_what_they_have():
    assert set(tiny().output) == {"features", "mask", "similarity"}
    assert set(tiny(decoder=False).output) == {"features", "similarity"}
    assert tiny(include_top=False).output_shape == (None, 3)
    assert not [layer.name for layer in tiny(fusion=None).layers if "duse" in layer.name]
    network = COSNet((8, 12, 16, 1), 2, 3)
    assert network.output["mask"].shape == (None, 8, 12, 16, 1)
    assert {tensor.dtype for tensor in network.output.values()} == {"float32"}


def test_every_level_has_its_own_duse_weights():
    """The authors' code uses those of level 1 in level 2 too."""
    names = {layer.name for layer in tiny().layers if layer.name.endswith("_voxels")}
    assert names == {
        f"{part}{n}_duse_voxels" for part, levels in (("encoder", 3), ("decoder", 2)) for n in range(1, levels + 1)
    }


def test_a_mask_knows_where_a_voxel_is():
    """The decoder has the encoder's map alone to go by, and that turns with the volume: pools and steps are aligned."""
    network = tiny()
    volume = np.zeros((1, *SHAPE), np.float32)
    volume[0, 5, 2, 6] = 10
    changed = np.abs(np.asarray(network(volume)["mask"]) - np.asarray(network(0 * volume)["mask"]))[0, ..., 0]
    assert changed[5, 2, 6] > 0


def test_weights_round_trip(tmp_path):
    network = tiny()
    network.save_weights(tmp_path / "cosnet.weights.h5")
    network.save(tmp_path / "cosnet.keras")
    volumes = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    for path in (tmp_path / "cosnet.weights.h5", tmp_path / "cosnet.keras"):
        for name, expected in network(volumes).items():
            np.testing.assert_array_equal(tiny(weights=path)(volumes)[name], expected)
    loaded = keras.models.load_model(tmp_path / "cosnet.keras")
    np.testing.assert_array_equal(loaded(volumes)["similarity"], network(volumes)["similarity"])
    with pytest.raises(InputError, match=r"it has no layer encoder1_duse_squeeze|also has a layer"):
        tiny(fusion=None, weights=tmp_path / "cosnet.keras")


def test_bfloat16():
    exact = tiny()
    with precision("mixed_bfloat16"):
        network = tiny()
    network.set_weights(exact.get_weights())
    volumes = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    assert network.get_layer("stem").compute_dtype == "bfloat16"
    for name, found in network(volumes).items():
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        expected = np.asarray(exact(volumes)[name])
        np.testing.assert_allclose(found, expected, atol=0.05 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (8, 8, 10, 1)}, "sides that are multiples of 4"),
        ({"input_shape": (2, 8, 8, 1)}, "sides of 4 or more"),
        ({"filters": 1}, "filters=1 must be an integer of 2"),
        ({"filters": 8.0}, "filters=8.0"),
        ({"features": 0}, "features=0"),
        ({"fusion": "mean"}, "fusion='mean' must be add or max"),
        ({"decoder": "yes"}, "decoder='yes'"),
        ({"skips": 1}, "skips=1 must be True or False"),
        ({"include_top": None}, "include_top=None"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(InputError, match=message) as error:
        COSNet(**{"input_shape": SHAPE, **options})
    assert "\n" not in str(error.value)
