"""The loop of every experiment with epochs: from the newest checkpoint to the last epoch, recorded as it goes.

Stopping at any moment and starting again gives the numbers of never stopping: the checkpoint holds every variable of
model and optimizer, dropout seeds included; data are a function of (seed, epoch), augmentation of (seed, step).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from aitom_ssl.data import numpy_batches
from aitom_ssl.errors import InputError
from aitom_ssl.files import is_disk_full
from aitom_ssl.models import ModelDescription
from aitom_ssl.training.callbacks import Progress, Record, StopWhenNotFinite
from aitom_ssl.training.precision import precision
from aitom_ssl.training.request import run_config
from aitom_ssl.training.run import Checkpoint, RunFolder


@contextlib.contextmanager
def numerics(precision_: str, seed: int) -> Iterator[None]:
    """Networks built inside start from `seed` and compute in that precision (see `training.precision`)."""
    with precision(precision_):
        keras.utils.set_random_seed(seed)
        yield


@contextlib.contextmanager
def experiment(
    method: str,
    settings: Mapping[str, Any],
    splits: Mapping[str, Any],
    description: ModelDescription,
    output: str | None,
    resume: bool,
    command: str,
) -> Iterator[RunFolder]:
    """The run's folder with its config.yaml; what interrupts the work inside says how to go on.

    Args:
        method: the folder's name is runs/METHOD-DATA where `output` is None.
        settings: data, epochs and whatever else makes the run again.
        splits: every Dataset of the run.
        description: of the network.
        output: the folder, or None.
        resume: go on with the run in `output`.
        command: what makes the run again; its first two words are the program, in what says how to go on.

    Raises:
        KeyboardInterrupt, or InputError on a full disk, saying how to go on.
    """
    run = RunFolder.open(output) if resume else RunFolder.create(output, method, settings["data"])
    run.write_config(run_config(method, command, settings, splits, description))
    try:
        yield run
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(run, settings, command)) from None
    except OSError as error:
        if not is_disk_full(error):
            raise
        how = _how_to_go_on(run, settings, command)
        raise InputError(f"The disk is full: free space under {run.path}. {how}") from None


def _how_to_go_on(run: RunFolder, settings: Mapping[str, Any], command: str) -> str:
    name = " ".join(command.split()[:2])
    flags = f"{name} --resume --output={run.path}" if name else f"resume=True, output={str(run.path)!r}"
    return f"{run.finished_epochs()} of {settings['epochs']} epochs are kept. Go on with: {flags}"


def restore(model: keras.Model, run: RunFolder) -> Checkpoint:
    """Give a compiled `model` the run's newest checkpoint; of a new run, epoch 0 and nothing to restore."""
    checkpoint = run.restore_checkpoint(_state(model))
    if checkpoint is None:
        return Checkpoint(0, [], 0.0)
    run.write_metrics(checkpoint.history)
    return checkpoint


def fit(
    model: keras.Model,
    batches: Any,
    run: RunFolder,
    start: Checkpoint,
    epochs: int,
    steps: int,
    monitors: Sequence[keras.callbacks.Callback] = (),
    dim: int | None = None,
) -> Checkpoint:
    """Train a compiled `model` from `start` (see `restore`) up to epoch `epochs`.

    Args:
        model: its metrics, `loss` among them, are what is recorded.
        batches: of the epochs after `start.epoch`, for ever; `steps` make an epoch.
        run: gets a checkpoint, metrics.csv and TensorBoard events at each epoch's end.
        start: its `history` gets a row an epoch.
        monitors: callbacks that may add to an epoch's logs before they are recorded, in this order.
        dim: length of an embedding, for the progress line of methods with one.

    Returns:
        What the run knows at the end: epochs, history, training time in seconds.
    """
    if start.epoch >= epochs:
        print(f"{run.path} has finished its {epochs} epochs.", flush=True)
        return start
    record = Record(run, _state(model), start.history, start.seconds)
    with _readable_errors():
        model.fit(
            batches,
            initial_epoch=start.epoch,
            epochs=epochs,
            steps_per_epoch=steps,
            callbacks=[StopWhenNotFinite(), *monitors, record, Progress(epochs, steps, start.epoch, dim)],
            shuffle=False,
            verbose=0,
        )
    return Checkpoint(epochs, start.history, record.seconds)


@contextlib.contextmanager
def _readable_errors() -> Iterator[None]:
    """An InputError from within tf.data, which TensorFlow wraps in an error of its own with a traceback, comes out."""
    try:
        yield
    except Exception as error:
        said = None if isinstance(error, InputError) else re.search("InputError: (.*)", str(error))
        if said is None:
            raise
        raise InputError(said.group(1)) from None


def training_batches(
    train: Any, batch_size: int, seed: int, first_epoch: int, labels: bool = False, halves: bool = False
) -> Any:
    """Tuples (volumes,), (volumes, labels) or of half images ((a, b),) for ever, the same ones on every backend."""
    if keras.backend.backend() == "tensorflow":
        from aitom_ssl.data import pipeline

        return pipeline.training_batches(train, batch_size, seed, first_epoch, labels, halves)
    batches = numpy_batches(train, batch_size, seed, first_epoch, labels, halves)
    return batches if labels or halves else ((volumes,) for volumes in batches)


def _state(model: keras.Model) -> list[Any]:
    model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]
