"""What happens beside the training step: monitors, warnings, progress, and the run folder's record of each epoch."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from aitom_ssl.data.batches import subsample
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.classification import log_loss
from aitom_ssl.evaluation.collapse import COLLAPSED
from aitom_ssl.evaluation.probes import extract_features, knn_accuracy
from aitom_ssl.evaluation.report import duration
from aitom_ssl.training.run import Checkpoint, RunFolder

_BANK, _QUERIES = 1000, 500


class StopWhenNotFinite(keras.callbacks.Callback):
    """Ends the run with a clear message on the first loss that is NaN or infinite."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        _refuse_diverged(float(logs["loss"]), f"step {batch + 1} of the epoch")


def _refuse_diverged(loss: float, when: str) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"The loss became {loss} at {when}: start again with a smaller --learning_rate, or with "
            "--precision=float32."
        )


class KeepBest(keras.callbacks.Callback):
    """Adds `val_loss` and `val_accuracy` to the logs, and keeps the best `network` so far as the run's model.keras.

    `validation` is a Dataset with labels, measured without augmentation and dropout after the epochs (from 0) that
    `when` is true of; `history` are the epochs before this one (see `best_row`). With `from_start`, the network as it
    comes is epoch 0, a row of `history` and a candidate like the others. Stands before `Record`: a run that is killed
    in between does its epoch again, and finds the same network.
    """

    def __init__(
        self,
        network: keras.Model,
        validation: Any,
        history: list[dict[str, Any]],
        run: RunFolder,
        from_start: bool = False,
        when: Callable[[int], bool] = lambda epoch: True,
    ):
        super().__init__()
        self.network, self.validation, self.history, self.run = network, validation, history, run
        self.from_start, self.when = from_start, when

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.from_start and not self.history:
            self.history.append({"epoch": 0, **self._measured()})
            self.run.save_model(self.network)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.when(epoch):
            return
        logs.update(self._measured())
        _refuse_diverged(logs["val_loss"], "the end of the epoch")
        if best_row([*self.history, logs]) is logs:
            self.run.save_model(self.network)

    def _measured(self) -> dict[str, float]:
        probabilities, labels = extract_features(self.network, self.validation), self.validation.labels
        right = float((probabilities.argmax(axis=1) == labels).mean())
        return {"val_loss": log_loss(probabilities, labels), "val_accuracy": right}


def best_row(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The epoch with the highest `val_accuracy`; among equals the lowest `val_loss`, then the first.

    Of those that have one: not every epoch needs to be measured.
    """
    measured = [row for row in history if "val_accuracy" in row]
    return min(measured, key=lambda row: (-row["val_accuracy"], row["val_loss"]))


class KNNMonitor(keras.callbacks.Callback):
    """Adds `knn` to the logs: accuracy of `queries` by their neighbours among `bank`, on frozen features.

    Both are Datasets with labels; at most 1,000 and 500 samples are used, the same ones every time (drawn by `seed`).
    Measured after every `every`-th epoch and after the last.
    """

    def __init__(self, encoder: keras.Model, bank: Any, queries: Any, every: int, epochs: int, seed: int):
        super().__init__()
        self.encoder, self.every, self.epochs = encoder, every, epochs
        self.bank, self.queries = _sample(bank, _BANK, seed), _sample(queries, _QUERIES, seed)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs:
            bank, queries = (extract_features(self.encoder, data) for data in (self.bank, self.queries))
            logs["knn"] = knn_accuracy(bank, self.bank.labels, queries, self.queries.labels)


def _sample(dataset: Any, count: int, seed: int) -> Any:
    """Up to `count` labelled samples."""
    labelled = np.flatnonzero(dataset.labels >= 0)
    return dataset.subset(labelled[subsample(len(labelled), count, seed)])


class CollapseWarning(keras.callbacks.Callback):
    """Says once when the embeddings have become nearly the same vector."""

    def __init__(self, dim: int, say: Callable[[str], None]):
        super().__init__()
        self.limit, self.even, self.say, self.said = COLLAPSED / math.sqrt(dim), 1 / math.sqrt(dim), say, False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs["feature_std"] < self.limit and not self.said:
            self.said = True
            self.say(
                f"warning: feature_std is {logs['feature_std']:.4f}, far below {self.even:.3f}: the embedding has "
                "collapsed and will not recover by itself. --preset=recommended (BatchNorm in the head) prevents it."
            )


class Record(keras.callbacks.Callback):
    """At each epoch's end: a row of `history`, the checkpoint, metrics.csv and TensorBoard events, in this order."""

    def __init__(self, run: RunFolder, variables: Sequence[Any], history: list[dict[str, Any]], seconds: float):
        super().__init__()
        self.run, self.variables, self.history = run, variables, history
        self.started = time.monotonic() - seconds
        self.events = _EventWriter(run.path / "tensorboard") if keras.backend.backend() == "tensorflow" else None

    @property
    def seconds(self) -> float:
        """Training time of the whole run, interruptions left out."""
        return time.monotonic() - self.started

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = {"epoch": epoch + 1, "loss": logs["loss"], **logs}
        self.history.append({name: value if name == "epoch" else float(value) for name, value in row.items()})
        self.run.save_checkpoint(Checkpoint(epoch + 1, self.history, self.seconds), self.variables)
        self.run.write_metrics(self.history)
        if self.events is not None:
            self.events.write(logs, epoch + 1)


class _EventWriter:
    """TensorBoard scalars with TensorFlow alone: tf.summary.scalar would need the tensorboard package."""

    def __init__(self, folder: Path):
        import tensorflow as tf

        self.tf = tf
        self.writer = tf.summary.create_file_writer(str(folder))
        self.kind = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"), data_class="DATA_CLASS_SCALAR"
        )

    def write(self, scalars: dict[str, float], step: int) -> None:
        with self.writer.as_default():
            for name, value in scalars.items():
                self.tf.summary.write(name, self.tf.constant(value, "float32"), step, metadata=self.kind)
        self.writer.flush()


class Progress(keras.callbacks.Callback):
    """One line an epoch on stdout, with the time left; a bar within the epoch where stderr is a terminal."""

    def __init__(self, epochs: int, steps: int, first_epoch: int = 0, dim: int | None = None):
        super().__init__()
        self.epochs, self.steps, self.dim, self.first = epochs, steps, dim, first_epoch
        self.started, self.bar = time.monotonic(), None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.bar = tqdm(total=self.steps, desc=f"epoch {epoch + 1}/{self.epochs}", leave=False, disable=None)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}", refresh=False)
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.bar.close()
        done, left = epoch + 1 - self.first, self.epochs - epoch - 1
        seconds = (time.monotonic() - self.started) / done
        print(progress_line(epoch + 1, self.epochs, logs, seconds, left * seconds, self.dim), flush=True)


# What stands in a progress line, in this order; other metrics follow under their own names.
_SHOWN = {
    "loss": "loss {:.3f}",
    "accuracy": "accuracy {:.3f}",
    "val_loss": "validation loss {:.3f}",
    "val_accuracy": "accuracy {:.3f}",
    "pretext_accuracy": "pretext {:.2f}",
    "feature_std": "std {:.3f}",
    "knn": "kNN {:.3f}",
    "queue_fill": "queue {:.0%}",
}


def progress_line(
    epoch: int, epochs: int, logs: Mapping[str, float], each: float, left: float, dim: int | None = None
) -> str:
    """`epoch  3/200  loss 2.913  pretext 0.41  std 0.081 of 0.088  kNN 0.31  queue 100%  1m an epoch, 3h left`.

    `each` and `left`: seconds an epoch, and until the end. `dim`: length of an embedding, for the spread to hope for.
    """
    shown = _SHOWN | ({"feature_std": f"std {{:.3f}} of {1 / math.sqrt(dim):.3f}"} if dim else {})
    others = {name: f"{name.replace('_', ' ')} {{:.3f}}" for name in logs if name not in shown}
    parts = [text.format(float(logs[name])) for name, text in {**shown, **others}.items() if name in logs]
    time_left = f", {duration(left)} left" if left else ""
    return "  ".join([f"epoch {epoch:>{len(str(epochs))}}/{epochs}", *parts, f"{duration(each)} an epoch{time_left}"])


def say(message: str) -> None:
    """One line on stderr, clear of a progress bar."""
    tqdm.write(message, file=sys.stderr)
