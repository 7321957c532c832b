"""A trained COS-Net in use: answers do not depend on the batch, scores from logits by hand, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from aitom_ssl.data.batches import standardize
from aitom_ssl.errors import InputError
from aitom_ssl.models import COSNet, ModelDescription
from aitom_ssl.oneshot.trained import TrainedCOSNet, class_scores, find_cosnet, load_cosnet

ROOT = Path(__file__).parents[2]
ABOUT = ModelDescription("cosnet", (), 8, 10.0, "bright")
SETTINGS = {"filters": 2, "fusion": "max", "decoder": True, "skips": False}


@pytest.fixture(scope="module")
def network():
    return COSNet((8, 8, 8, 1), filters=2, features=4, fusion="max")


@pytest.fixture(scope="module")
def trained(network):
    return TrainedCOSNet(Path("run/model.keras"), ABOUT, network, ("a", "b"), batch_size=4)


@pytest.fixture(scope="module")
def volumes():
    return np.random.default_rng(0).normal(100, 20, (6, 8, 8, 8)).astype(np.float32)


def test_volumes_are_standardised_and_batches_do_not_matter(trained, network, volumes):
    before = volumes.copy()
    features, masks = trained(volumes)
    np.testing.assert_array_equal(volumes, before)
    assert features.shape == (6, 4) and masks.shape == (6, 8, 8, 8) and trained.has_masks
    expected = network(standardize(volumes.copy())[..., None], training=False)
    np.testing.assert_allclose(features, expected["features"], atol=1e-4)
    np.testing.assert_allclose(masks, expected["mask"][..., 0], atol=1e-5)
    one, mask = trained(volumes[5:])
    np.testing.assert_array_equal(one[0], features[5])
    np.testing.assert_array_equal(mask[0], masks[5])
    again, _ = trained(standardize(volumes.copy()), standardized=True)
    np.testing.assert_array_equal(again, features)


def test_similarity_is_the_networks_own(trained, network, volumes):
    features, _ = trained(volumes)
    expected = network(standardize(volumes.copy())[..., None], training=False)["similarity"]
    found = trained.similarity(features[4:], features[:3])
    assert found.shape == (2, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected[4:, :3], atol=1e-4)


def test_without_a_decoder_there_are_no_masks(volumes):
    network = COSNet((8, 8, 8, 1), filters=2, features=4, decoder=False)
    trained = TrainedCOSNet(Path("x"), ABOUT, network, ())
    features, masks = trained(volumes[:1])
    assert masks is None and not trained.has_masks and features.shape == (1, 4)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v[:, :4], r"takes volumes \(n, 8, 8, 8\), n >= 1. Received \(6, 4, 8, 8\)"),
        (lambda v: v[:0], r"Received \(0, 8, 8, 8\)"),
        (lambda v: v[..., None], "takes volumes"),
        (lambda v: np.where(np.arange(8) == 3, np.nan, v), "NaN or infinite"),
    ],
)
def test_refuses_volumes(trained, volumes, spoil, message):
    with pytest.raises(InputError, match=message):
        trained(spoil(volumes))


# === Scores ===


def test_scores_by_hand():
    logits = np.array([[1.0, 3.0, 0.0, -2.0]])
    labels = np.array([1, 1, 0, 2])  # two shots of class 1: (1 + 3) / 2
    means = np.array([0.0, 2.0, -2.0])
    sigmoid = class_scores(logits, labels, 3, "sigmoid")
    np.testing.assert_allclose(sigmoid[0], 1 / (1 + np.exp(-means)), rtol=1e-5)
    softmax = class_scores(logits, labels, 3)
    np.testing.assert_allclose(softmax[0], np.exp(means) / np.exp(means).sum(), rtol=1e-5)
    fewer = class_scores(logits[:, :3], labels[:3], 2, "sigmoid")
    np.testing.assert_allclose(fewer[0], sigmoid[0, :2])


def test_large_logits_are_sure_and_finite():
    logits = np.array([[500.0, -500.0]])
    for readout in ("softmax", "sigmoid"):
        np.testing.assert_allclose(class_scores(logits, np.array([0, 1]), 2, readout), [[1, 0]], atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "classes", "readout", "message"),
    [
        ([0, 2], 3, "softmax", r"Support labels must be 0 to 2.*Received \[0, 2\]"),
        ([0, 3], 2, "softmax", "must be 0 to 1"),
        ([-1, 0], 1, "softmax", "must be 0 to 0"),
        ([0], 1, "softmax", "one label a support"),
        ([0.0, 1.0], 2, "softmax", "one label a support"),
        ([0, 1], 2, "max", "readout='max'"),
    ],
)
def test_refuses_support_labels(labels, classes, readout, message):
    with pytest.raises(InputError, match=message):
        class_scores(np.zeros((1, 2)), np.array(labels), classes, readout)


# === Runs ===


@pytest.fixture
def run(tmp_path, network):
    config = {"method": "cosnet", "settings": SETTINGS, "model": ABOUT.to_dict(), "classes": ["a", "b"]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    network.save(tmp_path / "model.keras")
    return tmp_path


def test_a_run_is_loaded_as_it_was_trained(run, trained, volumes):
    loaded = load_cosnet(run, batch_size=4)
    assert (loaded.description, loaded.trained_on) == (ABOUT, ("a", "b"))
    for found, expected in zip(loaded(volumes), trained(volumes), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_loading_keras_says_nothing(run):
    code = f"from aitom_ssl.oneshot.trained import load_cosnet; load_cosnet({str(run)!r})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}  # as the commands set it
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_another_precision(run, trained, volumes, monkeypatch):
    monkeypatch.setattr("aitom_ssl.models.COSNet", lambda shape, **options: COSNet(shape, features=4, **options))
    loaded = load_cosnet(run, "mixed_bfloat16", batch_size=4)
    assert loaded.network.get_layer("stem").compute_dtype == "bfloat16"
    for found, expected in zip(loaded(volumes), trained(volumes), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=0.05 * max(1, np.abs(expected).max()))
    with pytest.raises(InputError, match="precision='float16' must be one of"):
        load_cosnet(run, "float16")


def test_what_is_no_finished_run_is_refused(run):
    config = yaml.safe_load((run / "config.yaml").read_text())

    def refused(change, message):
        (run / "config.yaml").write_text(yaml.safe_dump({**config, **change}))
        with pytest.raises(InputError, match=message) as error:
            find_cosnet(run)
        assert "\n" not in str(error.value)

    refused({"method": "moco"}, "is a run of moco, expected one of train_cosnet")
    refused({"classes": "a"}, "damaged")
    refused({"model": None}, "damaged")
    (run / "model.keras").unlink()
    refused({}, "has not finished.*train_cosnet --resume")
    with pytest.raises(InputError, match="holds no run"):
        find_cosnet(run / "elsewhere")
