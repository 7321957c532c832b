"""What a training of COS-Net is made of, checked before a framework is loaded. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from aitom_ssl.errors import InputError
from aitom_ssl.oneshot.episodes import Episodes, class_split, labels_of

# Ways of validation episodes, as far as there are classes.
_WAYS = (2, 4, 6)


class TrainingPlan(NamedTuple):
    """The samples of a training and of its validation."""

    classes: tuple[str, ...]  # names, to train on
    train: Any  # Dataset, of these classes alone
    episodes: Episodes
    validation: Any  # Dataset, or None
    validation_unseen: bool  # whether its classes are kept out of training
    validation_ways: tuple[int, ...]


def training_plan(splits: Mapping[str, Any], settings: Mapping[str, Any]) -> TrainingPlan:
    """Training samples of the classes to train on, and validation samples.

    Where the validation split has two classes or more that are kept out of training, validation is on those, as the
    test will be; else on its samples of the training classes. No sample of the test split is looked at.

    settings: unseen (names with commas, or None), way, shots, decoder, seed. Raises InputError for data without labels,
    too few classes or samples, a decoder without masks, and classes that cannot be told apart from the test's.
    """
    unseen = None if settings["unseen"] is None else settings["unseen"].split(",")
    names, _ = class_split(splits, unseen)
    train = splits["train"]
    if settings["decoder"] and not train.has_masks:
        raise InputError(
            f"{train.name} has no masks, which the volume decoder learns from: simulate with `mask: true`, or give "
            "--decoder=false."
        )
    labels = labels_of(train, names)
    train = _of_classes(train, labels)
    episodes = Episodes(train.labels, settings["way"], settings["shots"], 1, settings["seed"])
    validation, ways, held_out = splits.get("validation"), (), False
    if validation is not None:
        present = sorted(set(validation.labels.tolist()) - {-1})
        held = [label for label in present if label not in labels]
        held_out = len(held) >= 2
        kept = held if held_out else [label for label in present if label in labels]
        ways = tuple(way for way in _WAYS if way <= len(kept))
        validation = _of_classes(validation, kept) if ways else None
    return TrainingPlan(tuple(names), train, episodes, validation, held_out, ways)


def _of_classes(dataset: Any, labels: list[int]) -> Any:
    return dataset.subset(np.flatnonzero(np.isin(dataset.labels, labels)))
