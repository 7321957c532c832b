"""Fine-tuning: which encoder it starts from, what the frozen one is worth, and the classifier that comes out."""

import csv
import json

import keras
import numpy as np
import pytest
from keras import layers, ops

from aitom_ssl import models
from aitom_ssl.data.batches import gather
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.probes import extract_features, linear_probe
from aitom_ssl.training import RunFolder
from aitom_ssl.training import finetuning as module
from aitom_ssl.training.feature_statistics import FeatureStatistics
from aitom_ssl.training.finetuning import (
    frozen_readouts,
    optimizer,
    pretrained_encoder,
    run_finetuning,
    start_finetuning,
    with_head,
)
from aitom_ssl.training.request import labelled_splits

SETTINGS = {
    "pretrained": "none",
    "model": "rb3d",
    "fraction": None,
    "labels_per_class": 4,
    "validation_labels": "alike",
    "validate_every": 1,
    "epochs": 2,
    "batch_size": 4,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "momentum": 0.9,
    "head": "probe",
    "augmentation": "none",
    "field": 1.0,
    "class_weights": "none",
    "limit": None,
    "seed": 3,
    "precision": "float32",
}


@pytest.fixture(scope="module")
def encoder():
    keras.utils.set_random_seed(0)
    volumes = keras.Input((8, 8, 8, 1))
    x = layers.Flatten()(layers.Conv3D(3, 3, strides=2, activation="relu")(volumes))
    return models.standardized(keras.Model(volumes, x, name="tiny"))


@pytest.fixture
def labelled(splits):
    return labelled_splits(splits, 0, 4)


@pytest.fixture
def pretrained(encoder, labelled, tmp_path):
    """A run of an encoder."""
    run = RunFolder(tmp_path / "pretrained")
    run.path.mkdir()
    description = models.ModelDescription("rb3d", (), 8, 10.0, "bright")
    run.write_config({"method": "moco", "settings": {}, "model": description.to_dict()})
    FeatureStatistics(encoder, labelled.pool, 0).measure()
    run.save_model(encoder)
    return run.path


def outputs(network, data):
    return np.asarray(network(gather(data, np.arange(len(data)))))


# === Where it starts ===


def test_the_encoder_of_a_run_is_taken_over(encoder, pretrained, labelled):
    found = pretrained_encoder(str(pretrained), labelled.train, "float32")
    np.testing.assert_array_equal(outputs(found, labelled.measured), outputs(encoder, labelled.measured))
    coarse = pretrained_encoder(str(pretrained), labelled.train, "mixed_bfloat16")
    assert coarse.layers[1].compute_dtype == "bfloat16" and coarse.layers[-1].compute_dtype == "float32"


def test_of_a_classifier_the_features_are_taken_over(encoder, pretrained, labelled):
    run = RunFolder(pretrained)
    run.save_model(with_head(encoder, None, 3))
    description = models.ModelDescription("rb3d", ("x", "y", "z"), 8, 10.0, "bright")
    run.write_config({"method": "finetune", "settings": {}, "model": description.to_dict()})
    found = pretrained_encoder(str(pretrained), labelled.train, "float32")
    np.testing.assert_allclose(outputs(found, labelled.measured), outputs(encoder, labelled.measured), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 16}, r"box 8\^3 \(trained on 16\^3\)"),
        ({"voxel_size": 13.5}, r"voxel size 10 A \(trained on 13.5 A\)"),
        ({"contrast": "dark"}, r"bright protein \(trained on dark\)"),
    ],
)
def test_a_run_on_other_data_is_refused_with_the_numbers(pretrained, labelled, changes, words):
    run = RunFolder(pretrained)
    config = run.read_config()
    run.write_config({**config, "model": {**config["model"], **changes}})
    with pytest.raises(InputError, match=f"does not fit tiny: {words}"):
        pretrained_encoder(str(pretrained), labelled.train, "float32")


def test_a_run_without_a_network_is_refused(pretrained, labelled):
    (pretrained / "model.keras").unlink()
    with pytest.raises(InputError, match="its training has not finished"):
        pretrained_encoder(str(pretrained), labelled.train, "float32")
    RunFolder(pretrained).write_config({"method": "moco", "settings": {}})
    with pytest.raises(InputError, match="does not describe a model"):
        pretrained_encoder(str(pretrained), labelled.train, "float32")
    with pytest.raises(InputError, match="holds no run"):
        pretrained_encoder(str(pretrained / "nothing"), labelled.train, "float32")


def test_frozen_readouts_are_the_probes(encoder, labelled):
    found = frozen_readouts(encoder, labelled, 0)
    bank, queries = (extract_features(encoder, data) for data in (labelled.train, labelled.measured))
    probe = linear_probe(bank, labelled.train.labels, queries, labelled.measured.labels)
    assert found.probe == probe.accuracy and 0 <= found.knn <= 1
    head = with_head(encoder, found, 2)
    answers = outputs(head, labelled.measured)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(answers.argmax(axis=1), probe.predictions)


def test_a_class_without_labels_has_next_to_no_probability(encoder, labelled):
    frozen = frozen_readouts(encoder, labelled, 0)
    weights = np.zeros((len(frozen.weights), 3), np.float32)
    weights[:, [0, 2]] = frozen.weights
    labelled.train.class_names = labelled.measured.class_names = ["a", "absent", "b"]
    labelled.train._columns = {"label": 2 * labelled.train._columns["label"]}
    labelled.measured._columns = {"label": 2 * labelled.measured._columns["label"]}
    found = frozen_readouts(encoder, labelled, 0)
    np.testing.assert_allclose(found.weights, weights, atol=1e-5)
    assert outputs(with_head(encoder, found, 3), labelled.measured)[:, 1].max() < 1e-6


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_the_learning_rate_falls_along_a_cosine(kind):
    made = optimizer({**SETTINGS, "optimizer": kind}, steps=10)
    rates = [float(ops.convert_to_numpy(made._learning_rate(step))) for step in (0, 5, 10)]
    np.testing.assert_allclose(rates, [1e-3, 5e-4, 0], atol=1e-9)
    fifth = optimizer({**SETTINGS, "optimizer": kind}, steps=10, final_rate=0.2)._learning_rate
    rates = [float(ops.convert_to_numpy(fifth(step))) for step in (0, 5, 10)]
    np.testing.assert_allclose(rates, [1e-3, 6e-4, 2e-4], atol=1e-9)
    assert made.weight_decay == 1e-4
    kernel, bias = keras.Variable(np.ones(2, np.float32)), keras.Variable(np.ones(2, np.float32), name="bias")
    made.apply([ops.zeros(2), ops.zeros(2)], [kernel, bias])
    np.testing.assert_allclose(ops.convert_to_numpy(kernel), 1 - 1e-3 * 1e-4, rtol=1e-7)
    np.testing.assert_array_equal(ops.convert_to_numpy(bias), 1)


def test_random_weights_have_standardised_features_from_the_pool(labelled):
    begun = start_finetuning(SETTINGS, labelled._replace(train=labelled.train.subset(range(8))))
    features = extract_features(keras.Model(begun.network.input, begun.network.layers[-1].input), labelled.pool)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=0.02)
    layer = begun.network.get_layer(models.STANDARDIZE_LAYER)
    variance = ops.convert_to_numpy(layer.moving_variance)
    np.testing.assert_allclose(features.var(axis=0), variance / (variance + layer.epsilon), atol=0.02)
    assert begun.facts[0] == ["started from", "random weights"]


# === A run ===


def test_a_run_from_a_pretrained_encoder(pretrained, tiny_data, splits, tmp_path, capsys):
    settings = {**SETTINGS, "data": str(tiny_data), "pretrained": str(pretrained)}
    run = run_finetuning(settings, str(tmp_path / "run"), command="aitom-ssl finetune --data=tiny")
    results = json.loads((run.path / "results.json").read_text())
    assert (results["train_samples"], results["samples"], results["epochs"]) == (8, 10, 2)
    assert results["pretrained"] == str(pretrained)
    assert {"probe_accuracy", "knn_accuracy", "accuracy", "validation_accuracy"} <= set(results)
    out = capsys.readouterr().out
    assert f"frozen encoder: linear probe {results['probe_accuracy']:.3f}, kNN" in out
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "started from" in page and "8 of 22 training labels are used." in page
    assert run.read_config()["model"]["class_names"] == ["a", "b"]
    network = run.load_model()
    assert network.layers[-1].name == "classifier" and network.output_shape == (None, 2)
    before = pretrained_encoder(str(pretrained), splits["train"], "float32").get_weights()[0]
    assert not np.array_equal(network.get_weights()[0], before)  # the encoder was trained, its run was not
    np.testing.assert_array_equal(RunFolder(pretrained).load_model().get_weights()[0], before)


def test_no_epochs_keep_the_probe(pretrained, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "optimizer", lambda settings, steps: keras.optimizers.SGD(0.1))
    settings = {**SETTINGS, "data": str(tiny_data), "pretrained": str(pretrained), "epochs": 0}
    run = run_finetuning(settings, str(tmp_path / "run"))
    results = json.loads((run.path / "results.json").read_text())
    assert results["accuracy"] == results["probe_accuracy"] and results["epochs"] == 0
    assert "validation_accuracy" not in results and not (run.path / "checkpoints").exists()


def test_the_last_epoch_is_looked_at_whatever_the_interval(pretrained, tiny_data, tmp_path):
    settings = {**SETTINGS, "data": str(tiny_data), "pretrained": str(pretrained), "epochs": 3, "validate_every": 2}
    run = run_finetuning({**settings, "seed": 0}, str(tmp_path / "run"))
    with open(run.path / "metrics.csv", newline="") as file:
        assert [(row["epoch"], row["val_accuracy"] != "") for row in csv.DictReader(file)] == [
            ("0", True), ("1", False), ("2", True), ("3", True),
        ]  # fmt: skip


def test_training_that_makes_it_worse_keeps_the_probe(pretrained, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "optimizer", lambda settings, steps: keras.optimizers.SGD(-1.0))  # uphill
    settings = {**SETTINGS, "data": str(tiny_data), "pretrained": str(pretrained)}
    run = run_finetuning(settings, str(tmp_path / "run"))
    results = json.loads((run.path / "results.json").read_text())
    assert results["best_epoch"] == 0 and results["epochs"] == 2
    assert results["accuracy"] == results["probe_accuracy"]
    assert (run.path / "metrics.csv").read_text().splitlines()[1].startswith("0,")
    assert "The network of epoch 0" in (run.path / "report.html").read_text(encoding="utf-8")
