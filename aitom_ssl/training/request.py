"""What was asked for, checked before TensorFlow is loaded: a mistake is answered at once and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aitom_ssl import environment
from aitom_ssl.data import Dataset, load, prepare, steps_per_epoch
from aitom_ssl.data.header import read_header
from aitom_ssl.errors import InputError
from aitom_ssl.training.run import RunFolder

if TYPE_CHECKING:
    from aitom_ssl.models import ModelDescription

HELD_OUT = 0.2


def checked_splits(settings: Mapping[str, Any], output: str | None, resume: bool) -> dict[str, Dataset]:
    """Every split of the data of a run that can start, or go on, in `output`; the data are simulated where needed.

    settings: data, limit (or None), batch_size, epochs. Raises InputError for an output that cannot be taken, data that
    are missing, damaged, too few for a batch or without a training split, and for a resumed run with other data or
    with fewer epochs than it has finished.
    """
    if resume:
        run = RunFolder.open(output)
        if run.finished_epochs() > settings["epochs"]:
            raise InputError(f"{run.path} has finished {run.finished_epochs()} epochs already: --epochs must be more.")
    elif output is not None:
        RunFolder.refuse(output)
    data, limit = settings["data"], settings["limit"]
    header = read_header(prepare(data, limit))
    if "train" not in header["splits"]:
        raise InputError(f"{data} has no split 'train' (it has {', '.join(header['splits'])}): training needs one.")
    splits = {split: load(data, split, limit) for split in header["splits"]}
    steps_per_epoch(splits["train"], settings["batch_size"])
    if resume and (before := run.read_config().get("dataset")) != (now := identity(splits)):
        raise InputError(
            f"The data have changed since {run.path} was started (then {before}, now {now}): start a new run."
        )
    return splits


def identity(splits: Mapping[str, Dataset]) -> dict[str, Any]:
    """What tells a run's data from others: name, fingerprint, and the number of samples in each split."""
    header = read_header(next(iter(splits.values())).folder)
    return {
        "name": header["name"],
        "fingerprint": header["fingerprint"],
        "samples": {split: len(dataset) for split, dataset in splits.items()},
    }


def run_config(
    method: str, command: str, settings: Mapping[str, Any], splits: Mapping[str, Dataset], description: ModelDescription
) -> dict[str, Any]:
    """What config.yaml of a run on `splits` says."""
    return {
        "method": method,
        "command": command,
        "settings": dict(settings),
        "dataset": identity(splits),
        "model": description.to_dict(),
        "versions": environment.versions(),
    }


# === Labels ===


class Labelled(NamedTuple):
    """The labelled samples of a run that learns from labels."""

    train: Dataset
    validation: Dataset | None  # None: no network is chosen, the last one is kept
    measured: Dataset  # what the result is measured on
    measured_on: str  # "test", or "validation" where no test sample has a label
    notes: tuple[str, ...]  # what was left out or taken instead, one sentence each
    pool: Dataset  # every training sample, labelled or not


def labelled_splits(splits: Mapping[str, Dataset], seed: int, batch_size: int) -> Labelled:
    """What to train, choose and measure a classifier on; samples without a label (-1) are left out.

    Without labelled validation samples a fifth of each class of the training samples, drawn by `seed`, is held out.
    Raises InputError when fewer than two classes, or fewer samples than a batch, are left to train on.
    """
    notes = []
    found = {}
    for split, dataset in splits.items():
        labelled = np.flatnonzero(dataset.labels >= 0)
        if len(labelled) < len(dataset):
            without = len(dataset) - len(labelled)
            notes.append(f"{without:,} of {len(dataset):,} {split} samples have no label: left out.")
        if len(labelled):
            found[split] = dataset.subset(labelled)
    if "train" not in found:
        raise InputError(f"No training sample of {splits['train'].name} has a label: a classifier learns from labels.")
    train = found["train"]
    if "validation" not in found:
        held = hold_out(train.labels, HELD_OUT, seed)
        if len(held) == 0:
            raise InputError(f"{train.name} has {len(train)} labelled training samples: too few to hold any out.")
        found["validation"] = train.subset(held)
        train = train.subset(np.setdiff1d(np.arange(len(train)), held))
        notes.append(f"no labelled validation split: {len(held):,} training samples, a fifth a class, are held out.")
    present = np.unique(train.labels)
    if len(present) < 2:
        raise InputError(
            f"All labelled training samples of {train.name} are {train.class_names[present[0]]}: "
            "a classifier needs two classes or more."
        )
    missing = [name for label, name in enumerate(train.class_names) if label not in present]
    if missing:
        notes.append(f"no training sample of {', '.join(missing)}: never predicted rightly.")
    steps_per_epoch(train, batch_size)
    measured_on = "test" if "test" in found else "validation"
    if measured_on == "validation":
        notes.append("no labelled test split: results are on the validation samples, which also chose the network.")
    return Labelled(train, found["validation"], found[measured_on], measured_on, tuple(notes), splits["train"])


def asked_labels(splits: Mapping[str, Dataset], settings: Mapping[str, Any]) -> Labelled:
    """`labelled_splits`, with the share of the labels that the settings ask for.

    settings: seed, batch_size, and if given `fraction` or `labels_per_class` with `validation_labels` (see
    `take_labels`).
    """
    labelled = labelled_splits(splits, settings["seed"], settings["batch_size"])
    fraction, per_class = settings.get("fraction"), settings.get("labels_per_class")
    if fraction is None and per_class is None:
        return labelled
    alike = settings["validation_labels"] == "alike"
    few = take_labels(labelled, fraction, per_class, alike, settings["seed"])
    steps_per_epoch(few.train, settings["batch_size"])
    return few


def take_labels(
    labelled: Labelled, fraction: float | None, per_class: int | None, alike: bool, seed: int
) -> Labelled:
    """The same with some of the labels: `fraction` (0..1] of each class, rounded, or `per_class` of each.

    Which ones is drawn by `seed`. The training labels, and where `alike` as many of the validation labels; else those
    stay whole, as in SSL 2022. Raises InputError with the numbers where a class has too few.
    """

    def count(name: str, members: int) -> int:
        if per_class is not None:
            if per_class > members:
                raise InputError(
                    f"--labels_per_class={per_class}, and {name} has {members} labelled training samples: ask for "
                    "fewer, or label more."
                )
            return per_class
        chosen = int(fraction * members + 0.5)
        if chosen < 1:
            raise InputError(
                f"--fraction={fraction:g} of the {members} labels of {name} is not one: with these data it must be "
                f"{0.5 / members:.2g} or more."
            )
        return chosen

    names, labels = labelled.train.class_names, labelled.train.labels
    wanted = {label: count(names[label], int((labels == label).sum())) for label in np.unique(labels)}
    found = labelled._replace(train=_drawn(labelled.train, wanted, seed))
    notes = [f"{len(found.train):,} of {len(labelled.train):,} training labels are used."]
    if alike:
        have = labelled.validation.labels
        share = len(found.train) / len(labelled.train)
        each = {
            label: min(n, per_class if per_class is not None else max(1, int(share * n + 0.5)))
            for label, n in zip(*np.unique(have, return_counts=True), strict=True)
        }
        found = found._replace(validation=_drawn(labelled.validation, each, seed))
        notes.append(f"{len(found.validation):,} of {len(have):,} validation labels choose the network.")
    return found._replace(notes=(*labelled.notes, *notes))


def _drawn(dataset: Dataset, wanted: Mapping[int, int], seed: int) -> Dataset:
    """`wanted[label]` samples of each label. Of one seed, fewer are part of more."""
    rng = np.random.default_rng(seed)
    labels = dataset.labels
    chosen = [rng.permutation(np.flatnonzero(labels == label))[: wanted.get(label, 0)] for label in np.unique(labels)]
    return dataset.subset(np.sort(np.concatenate(chosen)))


def hold_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Sorted indices of `share` of each class of `labels` (n,), rounded, never a class's last sample."""
    rng = np.random.default_rng(seed)
    held = [np.zeros(0, np.int64)]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        held.append(rng.permutation(members)[: min(int(share * len(members) + 0.5), len(members) - 1)])
    return np.sort(np.concatenate(held))
