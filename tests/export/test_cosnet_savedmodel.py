"""COS-Net as a SavedModel: the answers of the Python network, support features kept, what is refused, the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml

from aitom_ssl.cli import main
from aitom_ssl.export.cosnet import export_cosnet
from aitom_ssl.models import COSNet, ModelDescription
from aitom_ssl.oneshot.trained import TrainedCOSNet, class_scores

SIZE = 8
ABOUT = ModelDescription("cosnet", (), SIZE, 10.0, "bright")
LABELS = np.array([1, 0, 1], np.int32)  # two shots of class 1


@pytest.fixture(scope="module")
def network():
    return COSNet((SIZE,) * 3 + (1,), filters=2, features=4)


@pytest.fixture(scope="module")
def trained(network):
    return TrainedCOSNet(Path("x"), ABOUT, network, ("a", "b"), batch_size=5)


@pytest.fixture(scope="module")
def served(trained, tmp_path_factory):
    return tf.saved_model.load(str(export_cosnet(trained, tmp_path_factory.mktemp("models") / "cosnet")))


@pytest.fixture(scope="module")
def volumes():
    return np.random.default_rng(7).normal(100, 20, (5, SIZE, SIZE, SIZE)).astype(np.float32)


def ask(served, name, **inputs):
    return {key: value.numpy() for key, value in served.signatures[name](**inputs).items()}


def test_a_support_set_and_targets(served, trained, volumes):
    support, targets = volumes[:3], volumes[3:]
    found = ask(
        served, "serving_default", support=support[..., None], support_label=LABELS, subtomogram=targets[..., None]
    )
    assert set(found) == {"probabilities", "match", "mask"}
    features, masks = trained(volumes)
    logits = trained.similarity(features[3:], features[:3])
    np.testing.assert_allclose(found["probabilities"], class_scores(logits, LABELS, 2), atol=1e-4)
    np.testing.assert_allclose(found["match"], class_scores(logits, LABELS, 2, "sigmoid"), atol=1e-4)
    np.testing.assert_allclose(found["mask"][..., 0], masks[3:], atol=1e-4)


def test_features_of_a_support_set_may_be_kept(served, trained, volumes):
    features = ask(served, "features", subtomogram=volumes[..., None])["features"]
    np.testing.assert_allclose(features, trained(volumes)[0], atol=1e-3)
    kept = ask(served, "match", support_features=features[:3], support_label=LABELS, features=features[3:])
    whole = ask(
        served,
        "serving_default",
        support=volumes[:3, ..., None],
        support_label=LABELS,
        subtomogram=volumes[3:, ..., None],
    )
    for name in ("probabilities", "match"):
        np.testing.assert_allclose(kept[name], whole[name], atol=1e-4)
    mask = ask(served, "segment", subtomogram=volumes[3:, ..., None])["mask"]
    np.testing.assert_allclose(mask, whole["mask"], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"support_label": np.array([0, 2, 2], np.int32)}, "support_label must be one a support"),
        ({"support_label": np.array([0, 1], np.int32)}, "support_label must be one a support"),
        ({"support_label": np.array([0, -1, 1], np.int32)}, "support_label must be one a support"),
        ({"support": np.full((3, SIZE, SIZE, SIZE, 1), np.nan, np.float32)}, "support has voxels that are NaN"),
        ({"subtomogram": np.zeros((0, SIZE, SIZE, SIZE, 1), np.float32)}, "subtomogram must be"),
    ],
)
def test_refuses(served, volumes, change, message):
    asked = {"support": volumes[:3, ..., None], "support_label": LABELS, "subtomogram": volumes[3:, ..., None]}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        ask(served, "serving_default", **{**asked, **change})


def test_the_command_takes_a_run(network, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    settings = {"filters": 2, "fusion": "add", "decoder": True}
    config = {"method": "cosnet", "settings": settings, "model": ABOUT.to_dict(), "classes": ["a", "b"]}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    network.save(run / "model.keras")
    assert main("export_savedmodel", [f"--run={run}"]) == 0
    folder = run / "savedmodel" / "1"
    assert json.loads((folder / "assets" / "model.json").read_text()) == ABOUT.to_dict()
    assert set(tf.saved_model.load(str(folder)).signatures) == {"serving_default", "features", "segment", "match"}
    assert "cosnet" in capsys.readouterr().out


def test_without_a_decoder_there_is_nothing_to_segment(tmp_path, volumes):
    network = COSNet((SIZE,) * 3 + (1,), filters=2, features=4, decoder=False)
    folder = export_cosnet(TrainedCOSNet(Path("x"), ABOUT, network, ()), tmp_path / "models", version=3)
    assert folder.name == "3"
    served = tf.saved_model.load(str(folder))
    assert set(served.signatures) == {"serving_default", "features", "match"}
    found = ask(
        served,
        "serving_default",
        support=volumes[:2, ..., None],
        support_label=np.array([0, 1], np.int32),
        subtomogram=volumes[2:, ..., None],
    )
    assert set(found) == {"probabilities", "match"}
