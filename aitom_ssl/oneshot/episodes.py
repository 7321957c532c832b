"""Which samples make up episode number k of one-shot learning, and which classes may. NumPy only.

An episode is a function of (seed, number): a run that starts again sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aitom_ssl.errors import InputError, near


class Episode(NamedTuple):
    """Positions in the dataset; row i of both belongs to class i of `classes`."""

    classes: np.ndarray  # (way,) labels
    support: np.ndarray  # (way, shots)
    targets: np.ndarray  # (way, targets)


class Episodes:
    """`episodes(k)`: the k-th n-way-K-shot episode (Zhou 2020, section 2, "Training Strategy"; K = 1 there).

    n classes are drawn, and of each K samples for the support set and `targets` others to be matched with it: both sets
    have the same classes, and no sample is in both. Each class is as likely as any other, however many samples it has.

    Differs from the authors' code, which draws two independent batches and compares labels: their sets may have no
    class in common.

    Args:
        labels: (samples,) ints; those of samples without a label are -1, which are never drawn.
        way: n, classes of an episode, 2 or more.
        shots: K, support samples of a class, 1 or more.
        targets: target samples of a class, 1 or more.
        seed: of the draws.
        classes: the labels that may be drawn; None: all that occur.

    Raises:
        InputError: when fewer than `way` of these classes have `shots` + `targets` samples, and on numbers out of
            range.
    """

    def __init__(
        self,
        labels: np.ndarray,
        way: int,
        shots: int = 1,
        targets: int = 1,
        seed: int = 0,
        classes: Iterable[int] | None = None,
    ):
        for name, value, least in (("way", way, 2), ("shots", shots, 1), ("targets", targets, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"An episode's {name}={value!r} must be a whole number of {least} or more.")
        labels = np.asarray(labels)
        allowed = np.unique(labels[labels >= 0]) if classes is None else np.unique(np.asarray(list(classes), np.int64))
        members = {int(label): np.flatnonzero(labels == label) for label in allowed if label >= 0}
        self._members = {label: rows for label, rows in members.items() if len(rows) >= shots + targets}
        if len(self._members) < way:
            raise InputError(
                f"A {way}-way episode with {shots} support and {targets} target samples a class needs {way} classes of "
                f"{shots + targets} samples or more, and there are {len(self._members)}: ask for fewer ways or shots, "
                "or give more samples."
            )
        self.way, self.shots, self.targets, self.seed = way, shots, targets, seed

    @property
    def classes(self) -> tuple[int, ...]:
        """Labels that are drawn: those with enough samples."""
        return tuple(self._members)

    def __call__(self, number: int) -> Episode:
        rng = np.random.default_rng([self.seed, number])
        chosen = rng.choice(self.classes, self.way, replace=False)
        drawn = [rng.choice(self._members[label], self.shots + self.targets, replace=False) for label in chosen]
        both = np.stack(drawn)
        return Episode(chosen, both[:, : self.shots], both[:, self.shots :])


def class_split(splits: Mapping[str, Any], unseen: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """Names of the classes to train on, and of those kept for the test: never a class in both.

    Args:
        splits: Datasets; "train" among them.
        unseen: names of classes to keep out of training; None: those of the test split that "train" has no sample of.

    Raises:
        InputError: for a name that is no class, and where train and test have the same classes and none is named.
    """
    train = splits["train"]
    present = {split: _present(dataset) for split, dataset in splits.items()}
    if unseen is not None:
        for name in unseen:
            if name not in train.class_names:
                raise InputError(
                    f"{train.name} has no class {name!r} to keep out of training.{near(name, train.class_names)}"
                )
        kept = list(unseen)
    else:
        tested = present.get("test", [])
        kept = [name for name in tested if name not in present["train"]]
        if tested and not kept:
            raise InputError(
                f"Every class of the test split of {train.name} is in its training split too: name some to keep out of "
                f"training, for example --unseen={','.join(tested[-2:])}."
            )
    return [name for name in present["train"] if name not in kept], kept


def labels_of(dataset: Any, names: Iterable[str]) -> list[int]:
    """The labels that `dataset` has for these class names; names it does not know are left out."""
    known = {name: label for label, name in enumerate(dataset.class_names)}
    return [known[name] for name in names if name in known]


def _present(dataset: Any) -> list[str]:
    """Names of the classes with a sample, in label order."""
    return [dataset.class_names[label] for label in np.unique(dataset.labels) if label >= 0]
