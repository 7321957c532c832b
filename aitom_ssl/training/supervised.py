"""Training a classifier on labels, the same for every network: data, loop, the best on validation, what it is worth."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from aitom_ssl import models
from aitom_ssl.augmentation import SubtomogramAugmenter
from aitom_ssl.data import Dataset, steps_per_epoch
from aitom_ssl.evaluation.probes import extract_features
from aitom_ssl.evaluation.report import duration
from aitom_ssl.training.callbacks import KeepBest, best_row, say
from aitom_ssl.training.compiled import compiled_alone, networks_on_xla
from aitom_ssl.training.feature_statistics import FeatureStatistics
from aitom_ssl.training.loop import experiment, fit, numerics, restore, training_batches
from aitom_ssl.training.outcome import conclude
from aitom_ssl.training.request import Labelled, asked_labels, checked_splits
from aitom_ssl.training.run import Checkpoint, RunFolder
from aitom_ssl.training.settings import augmentation_words

# An epoch of few labels is short, and this is measured after each.
_STATISTICS_SAMPLES = 256
# Added to the seed of the labelled batches.
_UNLABELLED_STREAM = 2**30


class Start(NamedTuple):
    """What a classifier's training starts from."""

    network: keras.Model  # ends in a Dense layer with softmax, (batch, classes) in float32
    optimizer: keras.optimizers.Optimizer
    facts: Sequence[Sequence[str]] = ()  # (name, text), for the report
    results: Mapping[str, Any] = {}  # for results.json
    trained: bool = False  # classifies already, and is kept where training makes it no better
    validate_every: int = 1  # epochs between looks at the validation samples


def run_supervised(
    settings: Mapping[str, Any], output: str | None = None, resume: bool = False, command: str = ""
) -> RunFolder:
    """Train a network of the zoo from scratch; see `run_classifier`.

    settings: model, pooling ("none" or "avg"), learning_rate, decay and momentum (see `sgd`) beside those of
    `run_classifier`.
    """
    return run_classifier(settings["model"], settings, from_scratch, output, resume, command)


def from_scratch(settings: Mapping[str, Any], labelled: Labelled) -> Start:
    """The network that settings `model` and `pooling` name, untrained, with the optimizer of Xu 2017."""
    train = labelled.train
    pooling = None if settings["pooling"] == "none" else settings["pooling"]
    shape = (train.size,) * 3 + (1,)
    network = models.get(settings["model"])(input_shape=shape, classes=len(train.class_names), pooling=pooling)
    return Start(network, sgd(settings))


def run_classifier(
    method: str,
    settings: Mapping[str, Any],
    start: Callable[[Mapping[str, Any], Labelled], Start],
    output: str | None = None,
    resume: bool = False,
    command: str = "",
) -> RunFolder:
    """One experiment: prepare the data, train, keep the best network on validation, measure it on the test split.

    The run's folder gets model.keras (the network alone: loads with Keras, gives probabilities), results.json and
    report.html beside what every run has.

    Args:
        method: the folder's default name is runs/METHOD-DATA.
        settings: model (what the description calls the architecture), data, limit (or None), epochs (0: `start`'s
            network is kept and measured as it is), batch_size, class_weights ("none" or "balanced"), augmentation
            (preset of SubtomogramAugmenter), seed, precision, what `request.asked_labels` and `start` want.
        start: (settings, labelled samples) to what is trained.
        output: the run's folder, or None.
        resume: go on with the run in `output`; `settings` must be that run's, with more epochs or as many.
        command: what makes the run again, kept in its config.

    Raises:
        InputError: on data or settings that cannot be used. KeyboardInterrupt carries how to go on.
    """
    splits = checked_splits(settings, output, resume)
    labelled = asked_labels(splits, settings)
    train = labelled.train
    names = tuple(train.class_names)
    with numerics(settings["precision"], settings["seed"]):
        begun = start(settings, labelled)
        description = models.ModelDescription(settings["model"], names, train.size, train.voxel_size, train.contrast)
        with experiment(method, settings, splits, description, output, resume, command) as run:
            for note in labelled.notes:
                say(note)
            how = {"from_start": begun.trained, "validate_every": begun.validate_every}
            done = train_classifier(begun.network, begun.optimizer, labelled, run, settings, **how)
            _measure(done, labelled, run, settings, command, begun)
    return run


def train_classifier(
    network: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    labelled: Labelled,
    run: RunFolder,
    settings: Mapping[str, Any],
    trainer: Callable[..., SupervisedModel] | None = None,
    from_start: bool = False,
    validate_every: int = 1,
) -> Checkpoint:
    """Train `network` up to epoch `settings["epochs"]`, from the run's newest checkpoint if it has one (see `loop`).

    model.keras in `run` is the network of the epoch with the highest accuracy on the validation samples (ties: lower
    loss), which are looked at after every `validate_every`-th and the last; of no epochs, `network` itself. Where
    `labelled.validation` is None nothing is kept: `network` is that of the last epoch, for the caller to save. Returns
    what the run knows at the end.

    trainer: makes what is trained, called as `SupervisedModel`, which is the default. One with `unlabelled` gets
    x = (labelled volumes, unlabelled volumes) in every step.
    """
    if settings["epochs"] == 0:
        run.save_model(network)
        return Checkpoint(0, [], 0.0)
    train, epochs, batch_size = labelled.train, settings["epochs"], settings["batch_size"]
    weights = class_weights(train.labels, len(train.class_names)) if settings["class_weights"] == "balanced" else None
    preset, options = augmentation_words(settings["augmentation"])
    augmenter = SubtomogramAugmenter(preset, **options) if preset != "none" or options else None
    model = (trainer or SupervisedModel)(network, augmenter, weights, settings["seed"])
    model.compile(optimizer, jit_compile=networks_on_xla())
    start = restore(model, run)
    steps = steps_per_epoch(train, batch_size)
    if start.epoch < epochs:
        print(
            f"{settings['model']} on {train.name}: {len(train):,} labelled volumes of {train.size}^3 in "
            f"{len(np.unique(train.labels))} classes, {steps} steps an epoch, epochs {start.epoch + 1} to {epochs}, "
            f"into {run.path}",
            flush=True,
        )

    def looked_at(epoch: int) -> bool:
        """Whether the network is asked about volumes as they are after it, which takes as long as some steps."""
        return epoch + 1 == epochs or (labelled.validation is not None and (epoch + 1) % validate_every == 0)

    monitors: list[keras.callbacks.Callback] = []
    if any(layer.name == models.STANDARDIZE_LAYER for layer in network.layers):
        about = (labelled.pool, settings["seed"], _STATISTICS_SAMPLES, looked_at)
        monitors += [FeatureStatistics(answering, *about) for answering in model.networks]
    if labelled.validation is not None:
        monitors.append(KeepBest(network, labelled.validation, start.history, run, from_start, looked_at))
    batches = training_batches(train, batch_size, settings["seed"], start.epoch, labels=True)
    if model.unlabelled is not None:
        others = _unlabelled_batches(model.unlabelled, batch_size, settings["seed"], start.epoch * steps)
        batches = _side_by_side(batches, others)
    return fit(model, batches, run, start, epochs, steps, monitors)


def _unlabelled_batches(unlabelled: Dataset, batch_size: int, seed: int, first: int) -> Any:
    """Batches of volumes for ever, from number `first` on; a set smaller than a batch is a batch."""
    batch_size = min(batch_size, len(unlabelled))
    epoch, into_it = divmod(first, steps_per_epoch(unlabelled, batch_size))
    batches = training_batches(unlabelled, batch_size, (seed + _UNLABELLED_STREAM) % 2**31, epoch)
    return batches.skip(into_it) if hasattr(batches, "skip") else itertools.islice(batches, into_it, None)


def _side_by_side(batches: Any, others: Any) -> Any:
    """((x, other x), y) of batches (x, y) and (other x,); tf.data or iterators."""

    def joined(one: tuple, other: Any) -> tuple:
        return (one[0], other[0]), one[1]

    if isinstance(batches, Iterator):
        return itertools.starmap(joined, zip(batches, others, strict=False))
    return batches.zip((batches, others.map(lambda x: (x,)))).map(joined)


def _measure(
    done: Checkpoint, labelled: Labelled, run: RunFolder, settings: Mapping[str, Any], command: str, begun: Start
) -> None:
    train, samples = labelled.train, len(labelled.validation)
    facts = [
        ["trained on", f"{len(train):,} samples of {settings['data']}, {done.epoch} epochs"],
        ["network", f"{settings['model']}, {begun.network.count_params():,} weights"],
        *begun.facts,
        ["seed", f"{settings['seed']}"],
        ["training time", duration(done.seconds)],
        *([["notes", " ".join(labelled.notes)]] if labelled.notes else []),
    ]
    more = {
        "model": settings["model"],
        "data": settings["data"],
        "seed": settings["seed"],
        "train_samples": len(train),
        "epochs": done.epoch,
        "seconds": done.seconds,
        **begun.results,
    }
    epoch = None
    if done.history:
        best = best_row(done.history)
        epoch, accuracy = best["epoch"], best["val_accuracy"]
        facts.insert(1, ["kept", f"epoch {epoch}: accuracy {accuracy:.3f} on {samples:,} validation samples"])
        more |= {"validation_accuracy": accuracy, "best_epoch": epoch}
    probabilities = extract_features(run.load_model(), labelled.measured)
    measured = (probabilities, labelled.measured, labelled.measured_on)
    conclude(run, *measured, settings, command, facts, done.history, epoch, more)


class SupervisedModel(keras.Model):
    """Trains `network` with cross-entropy on augmented volumes; for the loop, never saved.

    Metrics: `loss`, weighted by class where asked for, and `accuracy`, both of the training batches as the network saw
    them: augmented, with dropout.

    Args:
        network: (batch, z, y, x, c) to probabilities (batch, classes), float32, by a Dense layer with softmax at its
            end; trained in place.
        augmenter: callable as `augmenter(volumes, seed=(stream, step))`, or None. What it draws in a step is a function
            of `seed` and the step, which is a Keras weight: a resumed run draws the same.
        weights: (classes,) weight of a sample of each class, or None.
        seed: of the augmentation.
    """

    # A Dataset in subclasses that learn from unlabelled volumes too (see `train_classifier`).
    unlabelled: Dataset | None = None

    def __init__(
        self, network: keras.Model, augmenter: Callable[..., Any] | None, weights: np.ndarray | None, seed: int
    ):
        # float32: the augmentation must see the volumes as they are; the network casts for itself.
        super().__init__(name="supervised", dtype="float32")
        self.network = network
        self.class_weights = weights
        self.seed = seed
        self.step = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="step")
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self._augment = None if augmenter is None else compiled_alone(augmenter)
        self.built = True

    @property
    def networks(self) -> tuple[keras.Model, ...]:
        """What is asked about volumes as they are once training has ended (see `FeatureStatistics`)."""
        return (self.network,)

    def call(self, x: Any, training: bool = False) -> Any:
        """(batch, classes) logits; of augmented volumes when training."""
        return logits(self.network, self.augmented(x) if training else x, training)

    def augmented(self, x: Any) -> Any:
        """Volumes (batch, z, y, x, c) as this step augments them."""
        if self._augment is None:
            return x
        return self._augment(x, seed=ops.stack([ops.full((), self.seed, dtype="int32"), self.step.value]))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Mean cross-entropy of a batch; moves the step when training."""
        if training:
            self.step.assign(self.step + 1)
        y = ops.cast(y, "int32")
        right = ops.equal(ops.cast(ops.argmax(y_pred, axis=1), "int32"), y)
        self.accuracy.update_state(ops.cast(right, "float32"))
        losses = keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)
        if self.class_weights is not None:
            losses = losses * ops.take(ops.convert_to_tensor(self.class_weights, "float32"), y)
        return ops.mean(losses)


def logits(network: keras.Model, x: Any, training: bool = False) -> Any:
    """(batch, classes) float32, what the softmax at the end of `network` is taken of.

    A loss of logits has a gradient where that of probabilities has underflowed. The network itself, which is what is
    saved, keeps its softmax: it is set aside only while this call is traced.
    """
    classifier = network.layers[-1]
    softmax, classifier.activation = classifier.activation, None
    try:
        return network(x, training=training)
    finally:
        classifier.activation = softmax


# === Pure functions ===


def sgd(settings: Mapping[str, Any]) -> keras.optimizers.Optimizer:
    """SGD of Xu 2017, section 3.2: Nesterov momentum, and the learning rate of step t is learning_rate / (1 + decay t).

    The `decay` of Keras 1, which Keras 3 ignores; as an InverseTimeDecay over single steps it gives the same weights.
    """
    schedule = keras.optimizers.schedules.InverseTimeDecay(settings["learning_rate"], 1, settings["decay"])
    return keras.optimizers.SGD(schedule, momentum=float(settings["momentum"]), nesterov=True)


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """(classes,) weights that give every class that occurs in `labels` (n,) the same say, with a mean of 1 a sample."""
    counts = np.bincount(labels, minlength=classes)
    weights = len(labels) / ((counts > 0).sum() * np.maximum(counts, 1))
    return np.where(counts > 0, weights, 0.0).astype(np.float32)
