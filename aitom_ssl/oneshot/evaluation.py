"""What a COS-Net is worth on classes that it has never seen: accuracy of n-way-K-shot episodes, and Dice of its masks.

Every volume goes through the network once. Episodes are then drawn on features alone: a support set is not passed
through the network again for each of its targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from aitom_ssl.data.batches import gather
from aitom_ssl.errors import InputError
from aitom_ssl.oneshot.crf import dice
from aitom_ssl.oneshot.episodes import Episodes, labels_of
from aitom_ssl.oneshot.trained import TrainedCOSNet, class_scores

_Z95 = 1.959964

# (volume (z, y, x), probability (z, y, x)) to a mask (z, y, x) of zeros and ones.
Refine = Callable[[np.ndarray, np.ndarray], np.ndarray]
# (target, support, mask of the support or None), (z, y, x) each, to the target as the support lies.
Align = Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]


class Interval(NamedTuple):
    """A mean and the half width of its 95% confidence interval; the width is NaN of fewer than two values."""

    mean: float
    half_width: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if math.isnan(self.half_width) else f"{self.mean:.3f} ± {self.half_width:.3f}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON, where NaN is null."""
        return {**self._asdict(), "half_width": None if math.isnan(self.half_width) else self.half_width}


def interval(values: Sequence[float]) -> Interval:
    """Mean of `values`, one or more, with 1.96 standard errors to either side."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return Interval(float(values.mean()), math.nan, len(values))
    return Interval(float(values.mean()), float(_Z95 * values.std(ddof=1) / math.sqrt(len(values))), len(values))


class Measured(NamedTuple):
    """The samples of the measured classes, after one pass through the network."""

    data: Any  # Dataset of the samples, in order
    features: np.ndarray  # (n, d)
    dice: np.ndarray | None  # (n,) of the predicted masks; None without a decoder, or without masks in the data
    refined: np.ndarray | None  # (n,) of the refined masks


def measured_classes(dataset: Any, trained_on: Sequence[str], seen: bool = False) -> list[int]:
    """Labels that `dataset` has samples of and that the network was not trained on (`seen`: that it was).

    Classes are told apart by name. This is what keeps training classes out of the result: InputError where fewer than
    two are left.
    """
    trained = set(labels_of(dataset, trained_on))
    present = [int(label) for label in np.unique(dataset.labels) if label >= 0]
    found = [label for label in present if (label in trained) == seen]
    if len(found) < 2:
        kind = "classes that the network was trained on" if seen else "classes that the network was not trained on"
        names = ", ".join(dataset.class_names[label] for label in found) or "none"
        raise InputError(
            f"{dataset.name}, {dataset.split}, has samples of too few {kind} ({names}): episodes need two or more."
        )
    return found


def measure(trained: TrainedCOSNet, data: Any, refine: Refine | None = None, say: Callable | None = None) -> Measured:
    """Pass every sample of `data` through the network; memory does not grow with the masks.

    refine: also compare what it makes of each predicted mask (a CRF). say: called with the number of samples done.
    """
    features, scores, refined = [], [], []
    with_masks = trained.has_masks and data.has_masks
    for rows in batches(len(data), trained.batch_size):
        volumes = gather(data, rows)[..., 0]
        found, probabilities = trained(volumes, standardized=True)
        features.append(found)
        if with_masks:
            for volume, probability, truth in zip(volumes, probabilities, data.masks(rows), strict=True):
                scores.append(dice(probability > 0.5, truth))
                if refine is not None:
                    refined.append(dice(refine(volume, probability), truth))
        if say is not None:
            say(len(rows))
    return Measured(
        data,
        np.concatenate(features),
        np.array(scores) if with_masks else None,
        np.array(refined) if with_masks and refine is not None else None,
    )


def batches(count: int, size: int) -> Iterator[np.ndarray]:
    """Positions 0..count - 1 in blocks of up to `size`."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


class Answers(NamedTuple):
    """What came of a number of episodes of one kind."""

    way: int
    shots: int
    accuracy: Interval  # over episodes
    by_class: dict[int, Interval]  # label to the share of its targets that was found, over the episodes it was in


def answer_episodes(
    trained: TrainedCOSNet,
    measured: Measured,
    way: int,
    shots: int = 1,
    targets: int = 1,
    episodes: int = 1000,
    seed: int = 0,
    classes: Sequence[int] | None = None,
    align: Align | None = None,
) -> Answers:
    """Accuracy in `episodes` n-way-K-shot episodes with `targets` targets of each class.

    A target is given the class of highest score; by either read-out that is the same one. Intervals are over episodes,
    and so do not include what another test set or another training would change. With `align` each target goes through
    the network anew for each support, turned to lie as it does: what Zhou 2020 names as future work. Raises InputError
    where the data have too few classes or samples for such episodes.
    """
    plan = Episodes(measured.data.labels, way, shots, targets, seed, classes)
    labels = np.repeat(np.arange(way), shots)
    right, by_class = [], {label: [] for label in plan.classes}
    for number in range(episodes):
        episode = plan(number)
        rows = episode.targets.ravel(), episode.support.ravel()
        if align is None:
            logits = trained.similarity(*(measured.features[row] for row in rows))
        else:
            logits = aligned_logits(trained, *(gather(measured.data, row)[..., 0] for row in rows), align)
        found = class_scores(logits, labels, way).argmax(axis=1).reshape(way, targets) == np.arange(way)[:, None]
        right.append(found.mean())
        for label, hits in zip(episode.classes, found.mean(axis=1), strict=True):
            by_class[int(label)].append(hits)
    return Answers(way, shots, interval(right), {label: interval(hits) for label, hits in by_class.items() if hits})


def aligned_logits(trained: TrainedCOSNet, targets: np.ndarray, supports: np.ndarray, align: Align) -> np.ndarray:
    """(targets, supports) logits of standardised volumes (n, z, y, x), each target as `align` turns it to the support.

    The support's mask is the network's own, where it has a decoder.
    """
    features, masks = trained(supports, standardized=True)
    masks = [None] * len(supports) if masks is None else masks
    pairs = zip(supports, masks, strict=True)
    turned = np.stack([align(target, support, mask) for support, mask in pairs for target in targets])
    found = trained(turned)[0].reshape(len(supports), len(targets), -1)
    logits = [trained.similarity(one, support[None]) for one, support in zip(found, features, strict=True)]
    return np.concatenate(logits, axis=1)


def dice_by_class(measured: Measured, values: np.ndarray) -> dict[int, Interval]:
    """Label to the mean of `values` (n,) over the samples of its class; intervals are over samples."""
    labels = measured.data.labels
    return {int(label): interval(values[labels == label]) for label in np.unique(labels) if label >= 0}
