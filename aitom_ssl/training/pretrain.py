"""Pretraining without labels, the same for every method: data, loop, monitors, checkpoints, and what it was worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from aitom_ssl import models
from aitom_ssl.augmentation import SubtomogramAugmenter
from aitom_ssl.data import steps_per_epoch
from aitom_ssl.evaluation.compare import Comparison, compare_encoders
from aitom_ssl.evaluation.pretraining_report import write_pretraining_report
from aitom_ssl.training.callbacks import CollapseWarning, KNNMonitor, say
from aitom_ssl.training.feature_statistics import FeatureStatistics
from aitom_ssl.training.loop import experiment, fit, numerics, restore, training_batches
from aitom_ssl.training.request import checked_splits
from aitom_ssl.training.run import Checkpoint, RunFolder
from aitom_ssl.training.settings import augmentation_words

LABEL_FRACTION = 0.25


def run_pretraining(
    method_name: str,
    settings: Mapping[str, Any],
    build: Callable[[keras.Model, Callable, Mapping[str, Any]], keras.Model],
    output: str | None = None,
    resume: bool = False,
    command: str = "",
) -> RunFolder:
    """One experiment: prepare the data, pretrain, compare with the untrained encoder, write model.keras and the report.

    Args:
        method_name: for the folder's name and for people, e.g. "moco".
        settings: data, epochs, batch_size, encoder, augmentation, views (see `pretrain`), learning_rate, weight_decay,
            dim, seed, precision, limit (or None), knn_every, and what `build` wants.
        build: (encoder, augmenter, settings) to the method, a keras.Model that trains on volumes alone, with `.encoder`
            and the metrics `loss` and `feature_std`.
        output: the run's folder; default runs/METHOD-DATA, with a number when that is taken.
        resume: go on with the run in `output`; `settings` must be that run's, with more epochs or as many.
        command: what makes the run again, kept in its config.

    Raises:
        InputError: on data or settings that cannot be used. KeyboardInterrupt carries how to go on.
    """
    splits = checked_splits(settings, output, resume)
    train = splits["train"]
    description = models.ModelDescription(settings["encoder"], (), train.size, train.voxel_size, train.contrast)
    with numerics(settings["precision"], settings["seed"]):
        # Built before the folder is: what cannot be built leaves none behind.
        shape = (train.size,) * 3 + (1,)
        encoder = models.get(settings["encoder"])(shape, include_top=False, pooling="avg", field=settings["field"])
        preset, options = augmentation_words(settings["augmentation"])
        augmenter = SubtomogramAugmenter(preset, **options)
        method = build(encoder, augmenter, settings)
        with experiment(method_name, settings, splits, description, output, resume, command) as run:
            _train_and_report(method_name, method, augmenter, settings, splits, run, command)
    return run


def _train_and_report(
    method_name: str,
    method: keras.Model,
    augmenter: Callable,
    settings: Mapping[str, Any],
    splits: Mapping[str, Any],
    run: RunFolder,
    command: str,
) -> None:
    train, validation, test = (splits.get(split) for split in ("train", "validation", "test"))
    statistics = FeatureStatistics(method.encoder, train, settings["seed"])
    statistics.measure()
    untrained = keras.models.clone_model(method.encoder)
    untrained.set_weights(method.encoder.get_weights())
    method.compile(optimizer(settings["learning_rate"], settings["weight_decay"]))

    names = ("epochs", "batch_size", "seed", "knn_every", "views")
    done = pretrain(method, train, run, validation=validation, **{name: settings[name] for name in names})
    statistics.measure()
    run.save_model(method.encoder)
    comparison = _comparison(method_name, untrained, method.encoder, train, test)
    config = {"command": command, **settings, "seconds": done.seconds}
    report = write_pretraining_report(
        run.path, method.encoder, untrained, train, validation, test, augmenter, done.history, config, comparison
    )
    print(f"\nencoder  {run.path / 'model.keras'}\nreport   {report}")


def pretrain(
    method: keras.Model,
    train: Any,
    run: RunFolder,
    epochs: int,
    batch_size: int,
    seed: int,
    validation: Any = None,
    knn_every: int = 1,
    views: str = "augmented",
) -> Checkpoint:
    """Train a compiled `method` up to epoch `epochs`, from the run's newest checkpoint if it has one (see `loop`).

    `train` and `validation` are Datasets; with labels in both, kNN accuracy is measured every `knn_every` epochs.
    `views`: "augmented", or "halves" to draw one of each half image.
    Returns what the run knows at the end: epochs, history (a dict an epoch), training time in seconds.
    """
    steps = steps_per_epoch(train, batch_size)
    start = restore(method, run)
    monitors: list[keras.callbacks.Callback] = [CollapseWarning(method.dim, say)]
    if start.epoch < epochs:
        print(
            f"{method.name} on {train.name}: {len(train):,} volumes of {train.size}^3, {steps} steps an epoch, "
            f"epochs {start.epoch + 1} to {epochs}, into {run.path}",
            flush=True,
        )
        queue_size = getattr(method, "queue_size", 0)
        if queue_size > len(train) / 2:
            say(
                f"warning: a queue of {queue_size} keys over {len(train)} volumes holds stale keys of a volume among "
                f"its negatives: --queue_size={max(1, len(train) // 2)} or less is better."
            )
        if validation is not None and (train.labels >= 0).any() and (validation.labels >= 0).any():
            monitors.append(KNNMonitor(method.encoder, train, validation, knn_every, epochs, seed))
        else:
            say("no kNN accuracy: it needs labels in the training and the validation split.")
    batches = training_batches(train, batch_size, seed, start.epoch, halves=views == "halves")
    return fit(method, batches, run, start, epochs, steps, monitors, method.dim)


def optimizer(learning_rate: float, weight_decay: float) -> keras.optimizers.Optimizer:
    """Adam with decay of the kernels only.

    Differs from SSL 2022, whose decay is added to Adam's gradient: Keras' is decoupled (AdamW), the form that keeps its
    strength whatever Adam's scaling is, and biases and normalisation are left out.
    """
    adam = keras.optimizers.Adam(learning_rate, weight_decay=weight_decay or None)
    if weight_decay:
        adam.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return adam


def _comparison(method_name: str, untrained: Any, trained: Any, train: Any, test: Any) -> Comparison | None:
    """Print and return what frozen features are worth with a quarter of the labels; None without labels."""
    if test is None or (train.labels < 0).any() or (test.labels < 0).any():
        say("no comparison with the untrained encoder: it needs labels in the training and the test split.")
        return None
    comparison = compare_encoders({"untrained": untrained, method_name: trained}, train, test, LABEL_FRACTION)
    print(f"\n{comparison.table()}")
    return comparison
