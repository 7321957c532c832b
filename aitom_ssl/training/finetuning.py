"""From an encoder and a few labels to a classifier: frozen read-outs first, then fine-tuning (SSL 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from aitom_ssl import models
from aitom_ssl.data import steps_per_epoch
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.probes import extract_features, knn_accuracy, linear_probe, standardize_features
from aitom_ssl.models import building
from aitom_ssl.training.feature_statistics import FeatureStatistics
from aitom_ssl.training.precision import with_precision
from aitom_ssl.training.request import Labelled
from aitom_ssl.training.run import RunFolder
from aitom_ssl.training.supervised import Start, run_classifier

NONE = "none"
METHOD = "finetune"
# The score of a class that no training label names: its probability is next to nothing.
_NEVER = -30.0


def run_finetuning(
    settings: Mapping[str, Any], output: str | None = None, resume: bool = False, command: str = ""
) -> RunFolder:
    """A classifier on the encoder of a pretrained run, or on an untrained one; see `supervised.run_classifier`.

    results.json and the report also say what the frozen encoder is worth with the same labels: `probe_accuracy` of a
    linear probe and `knn_accuracy`, on the same samples as `accuracy`.

    settings: beside those of `run_classifier`: pretrained (a run's folder, or "none"), model (the encoder's
    architecture), fraction or labels_per_class and validation_labels (see `request.take_labels`), validate_every
    (epochs between looks at the validation samples), head ("probe": starts as the linear probe; "random"), optimizer
    ("sgd" or "adam"), learning_rate (of the first step; falls to 0 along a cosine), momentum (of sgd), weight_decay. A
    head that starts as the probe is epoch 0: kept where training makes it no better on validation samples, and with
    epochs 0 the classifier.
    """
    return run_classifier(METHOD, settings, start_finetuning, output, resume, command)


def start_finetuning(settings: Mapping[str, Any], labelled: Labelled) -> Start:
    """The encoder with a head, its optimizer, and what the encoder is worth as it is."""
    train, measured = labelled.train, labelled.measured
    untrained = settings["pretrained"] == NONE
    if untrained:
        shape = (train.size,) * 3 + (1,)
        encoder = models.get(settings["model"])(shape, include_top=False, pooling="avg", field=settings["field"])
    else:
        encoder = pretrained_encoder(settings["pretrained"], train, settings["precision"])
    encoder = models.standardized(encoder)
    FeatureStatistics(encoder, labelled.pool, settings["seed"]).measure()
    frozen = frozen_readouts(encoder, labelled, settings["seed"])
    network = with_head(encoder, frozen if settings["head"] == "probe" else None, len(train.class_names))

    told = f"linear probe {frozen.probe:.3f}, kNN {frozen.knn:.3f}"
    print(f"frozen encoder: {told}, of {len(measured):,} {labelled.measured_on} samples", flush=True)
    facts = [["started from", "random weights" if untrained else settings["pretrained"]], ["frozen encoder", told]]
    results = {"pretrained": settings["pretrained"], "probe_accuracy": frozen.probe, "knn_accuracy": frozen.knn}
    steps = settings["epochs"] * steps_per_epoch(train, settings["batch_size"])
    trained = settings["head"] == "probe"
    return Start(network, optimizer(settings, steps), facts, results, trained, settings["validate_every"])


def pretrained_encoder(folder: str, train: Any, precision: str) -> keras.Model:
    """(batch, z, y, x, 1) to (batch, features): the network of the run in `folder`, of a classifier without its head.

    Raises InputError when the run has no network, or was trained on another box, voxel size or contrast than `train`.
    """
    run = RunFolder.open(folder)
    about = models.ModelDescription.from_dict(run.read_config().get("model"), f"{folder}/config.yaml")
    differing = about.differences(train.size, train.voxel_size, train.contrast)
    if differing:
        raise InputError(
            f"The run in {folder} does not fit {train.name}: {'; '.join(differing)}. Take data like those it was "
            "trained on, or pretrain on these."
        )
    if not (run.path / "model.keras").is_file():
        raise InputError(f"{folder} has no model.keras: its training has not finished. Go on with --resume first.")
    network = run.load_model()
    if about.class_names:
        network = keras.Model(network.input, network.layers[-1].input)
    return with_precision(network, precision)


class Frozen(NamedTuple):
    """What an encoder's features are worth as they are."""

    probe: float  # accuracy of the linear probe
    knn: float  # accuracy of the nearest neighbours
    weights: np.ndarray  # (features, classes) and
    offsets: np.ndarray  # (classes,) of the probe, for a layer with softmax


def frozen_readouts(encoder: keras.Model, labelled: Labelled, seed: int) -> Frozen:
    """Linear probe and kNN from the training labels, measured on `labelled.measured`."""
    train, measured = labelled.train, labelled.measured
    bank, queries = extract_features(encoder, train), extract_features(encoder, measured)
    probe = linear_probe(bank, train.labels, queries, measured.labels, seed=seed)
    weights = np.zeros((bank.shape[1], len(train.class_names)), np.float32)
    offsets = np.full(len(train.class_names), _NEVER, np.float32)
    weights[:, probe.labels], offsets[probe.labels] = probe.weights, probe.offsets
    bank, queries = standardize_features(bank, queries)
    return Frozen(probe.accuracy, knn_accuracy(bank, train.labels, queries, measured.labels), weights, offsets)


def with_head(encoder: keras.Model, frozen: Frozen | None, classes: int) -> keras.Model:
    """The encoder and a softmax layer on its features: the probe of `frozen`, or random."""
    probabilities = building.classifier(encoder.output, classes, "softmax")
    network = keras.Model(encoder.input, probabilities, name=encoder.name)
    if frozen is not None:
        network.layers[-1].set_weights([frozen.weights, frozen.offsets])
    return network


def optimizer(settings: Mapping[str, Any], steps: int, final_rate: float = 0.0) -> keras.optimizers.Optimizer:
    """SGD or Adam; weight decay of the kernels only.

    The learning rate falls along a cosine over `steps`, to `final_rate` times what it was (0 to 1).

    Differs from SSL 2022, whose decay is added to the gradient and takes biases in too.
    """
    schedule = keras.optimizers.schedules.CosineDecay(settings["learning_rate"], max(steps, 1), alpha=final_rate)
    decay = settings["weight_decay"] or None
    if settings["optimizer"] == "adam":
        made = keras.optimizers.Adam(schedule, weight_decay=decay)
    else:
        made = keras.optimizers.SGD(schedule, momentum=settings["momentum"], weight_decay=decay)
    if decay:
        made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return made
