"""Monitors and messages of the training loop."""

import math

import keras
import numpy as np
import pytest

from aitom_ssl.data.batches import gather
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.probes import extract_features, knn_accuracy
from aitom_ssl.training.callbacks import (
    CollapseWarning,
    KeepBest,
    KNNMonitor,
    StopWhenNotFinite,
    best_row,
    progress_line,
)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_stops_when_the_loss_is_not_finite(loss):
    callback = StopWhenNotFinite()
    callback.on_train_batch_end(3, {"loss": 2.5})
    with pytest.raises(InputError, match=r"step 5 .*--learning_rate"):
        callback.on_train_batch_end(4, {"loss": loss})


def test_warns_of_collapse_once():
    said = []
    callback = CollapseWarning(dim=25, say=said.append)
    for std in (0.2, 0.05, 0.03, 0.03):
        callback.on_epoch_end(0, {"feature_std": std})
    assert len(said) == 1
    assert "0.0300" in said[0]
    assert "0.200" in said[0]


def test_knn_is_measured_when_due_and_after_the_last_epoch(splits, tiny_moco):
    encoder = tiny_moco().encoder
    monitor = KNNMonitor(encoder, splits["train"], splits["validation"], every=3, epochs=5, seed=0)
    logs = [{} for _ in range(5)]
    for epoch in range(5):
        monitor.on_epoch_end(epoch, logs[epoch])
    assert [bool(row) for row in logs] == [False, False, True, False, True]
    train, validation = splits["train"], splits["validation"]
    features = [extract_features(encoder, data) for data in (train, validation)]
    assert logs[2]["knn"] == knn_accuracy(features[0], train.labels, features[1], validation.labels)


def test_knn_uses_labelled_samples_only(splits, tiny_moco, monkeypatch):
    train = splits["train"]
    labels = np.where(np.arange(len(train)) % 3 == 0, -1, train.labels)
    monkeypatch.setattr(train, "_columns", {**train._columns, "label": labels})
    monitor = KNNMonitor(tiny_moco().encoder, train, splits["validation"], 1, 1, seed=0)
    assert len(monitor.bank) == (labels >= 0).sum()
    assert (monitor.bank.labels >= 0).all()


def test_progress_line():
    logs = {"loss": 2.9134, "pretext_accuracy": 0.409, "feature_std": 0.0808, "knn": 0.3114, "queue_fill": 1.0}
    line = progress_line(3, 200, logs, 72.2, 14200, dim=128)
    assert line == (
        "epoch   3/200  loss 2.913  pretext 0.41  std 0.081 of 0.088  kNN 0.311  queue 100%  1m12s an epoch, 3h56m left"
    )
    last = progress_line(4, 4, {"learning_rate": 0.5, "loss": 1.0}, 3, 0)
    assert last == "epoch 4/4  loss 1.000  learning rate 0.500  3s an epoch"


def rows(*pairs):
    return [{"epoch": n + 1, "val_accuracy": a, "val_loss": b} for n, (a, b) in enumerate(pairs)]


def test_the_best_epoch_has_the_highest_accuracy_then_the_lowest_loss_then_is_the_first():
    assert best_row(rows((0.5, 0.1), (0.7, 2), (0.7, 1), (0.7, 1), (0.6, 0)))["epoch"] == 3


class Recorder:
    """Stands in for a run's folder: remembers what is saved."""

    def __init__(self):
        self.saved = []

    def save_model(self, model):
        self.saved.append(model)


def test_the_best_network_is_kept_and_measured_without_training(splits):
    volumes = keras.Input((8, 8, 8, 1))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(volumes))
    network = keras.Model(volumes, keras.layers.Dense(2, activation="softmax")(x))
    validation, run, history = splits["validation"], Recorder(), []
    keep = KeepBest(network, validation, history, run, from_start=False)
    keep.on_train_begin()
    assert not history and not run.saved
    logs = {"loss": 1.0}
    keep.on_epoch_end(0, logs)
    labels = validation.labels
    probabilities = network.predict(gather(validation, np.arange(10)), verbose=0)
    assert logs["val_loss"] == pytest.approx(-np.log(probabilities[np.arange(10), labels]).mean(), rel=1e-5)
    assert logs["val_accuracy"] == (probabilities.argmax(axis=1) == labels).mean()
    assert run.saved == [network]
    history.append({**logs, "epoch": 1})
    keep.on_epoch_end(1, {"loss": 1.0})  # as good as the one before: the first stays
    assert len(run.saved) == 1
    history[0]["val_loss"] += 0.01
    keep.on_epoch_end(1, {"loss": 1.0})
    assert len(run.saved) == 2
    network.layers[-1].kernel.assign(np.full((512, 2), np.nan))
    with pytest.raises(InputError, match=r"nan at the end of the epoch.*--learning_rate"):
        keep.on_epoch_end(2, {"loss": 1.0})


def test_an_epoch_that_is_not_looked_at_is_no_candidate(splits):
    volumes = keras.Input((8, 8, 8, 1))
    network = keras.Model(volumes, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(volumes)))
    run, history = Recorder(), []
    keep = KeepBest(network, splits["validation"], history, run, when=lambda epoch: epoch % 2 == 1)
    for epoch in range(3):
        logs = {"loss": 1.0}
        keep.on_epoch_end(epoch, logs)
        assert ("val_accuracy" in logs) == (epoch == 1)
        history.append({"epoch": epoch + 1, **logs})
    assert run.saved == [network] and best_row(history)["epoch"] == 2


def test_a_network_that_classifies_already_is_epoch_0(splits):
    volumes = keras.Input((8, 8, 8, 1))
    dense = keras.layers.Dense(2, activation="softmax")
    network = keras.Model(volumes, dense(keras.layers.Flatten()(volumes)))
    run, history = Recorder(), []
    keep = KeepBest(network, splits["validation"], history, run, from_start=True)
    keep.on_train_begin()
    assert [row["epoch"] for row in history] == [0] and {"val_loss", "val_accuracy"} < set(history[0])
    assert len(run.saved) == 1
    history[0]["val_accuracy"] = 1.0
    dense.kernel.assign(-dense.kernel)
    dense.bias.assign([100.0, 0.0])  # one class for all: worse
    keep.on_epoch_end(0, {"loss": 1.0})
    assert len(run.saved) == 1
    keep.on_train_begin()  # of a resumed run
    assert len(history) == 1
