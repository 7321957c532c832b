"""How good is a classifier? Accuracy, precision, recall, F1, log-loss and calibration from its probabilities; NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from aitom_ssl.errors import InputError

BINS = 15
# Rows that softmax gave in float32 sum to 1 within 1e-6; anything further off is no distribution.
_SUM_TOLERANCE = 1e-3


class ReliabilityBin(NamedTuple):
    """The samples whose confidence lies in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float  # mean confidence; 0 in an empty bin
    accuracy: float  # share that is right; 0 in an empty bin


@dataclasses.dataclass(frozen=True)
class ClassificationMetrics:
    """What predictions are worth, over the classes in label order (see `classification_metrics`)."""

    class_names: tuple[str, ...]
    accuracy: float  # share of the samples that is right
    balanced_accuracy: float  # mean recall of the classes that occur
    macro_f1: float  # mean F1 of the classes that occur or are predicted
    log_loss: float  # mean -log of the true class's probability, in nats
    calibration_error: float  # mean distance of confidence and accuracy (expected calibration error)
    precision: np.ndarray  # (classes,) share of what is called the class that is right; 0 where nothing is
    recall: np.ndarray  # (classes,) share of the class that is found; 0 where it does not occur
    f1: np.ndarray  # (classes,) harmonic mean of both; 0 where both are
    support: np.ndarray  # (classes,) samples of the class
    confusion: np.ndarray  # (classes, classes) counts: true class down, predicted across
    reliability: tuple[ReliabilityBin, ...]

    @property
    def samples(self) -> int:
        """How many samples were measured."""
        return int(self.support.sum())

    def chance(self) -> float:
        """Accuracy of always naming the most frequent class."""
        return float(self.support.max() / self.support.sum())

    def to_dict(self) -> dict[str, Any]:
        """For JSON: numbers, lists and names only."""
        columns = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {
            "samples": self.samples,
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "log_loss": self.log_loss,
            "calibration_error": self.calibration_error,
            "classes": {
                name: {**{key: float(column[i]) for key, column in columns.items()}, "support": int(self.support[i])}
                for i, name in enumerate(self.class_names)
            },
            "confusion": self.confusion.tolist(),
            "reliability": [bin_._asdict() for bin_ in self.reliability],
        }

    def rows(self) -> list[list[str]]:
        """The table's cells: a header, one row a class, the means over the classes that occur or are predicted."""
        counted = (self.support > 0) | (self.confusion.sum(axis=0) > 0)
        means = [f"{column[counted].mean():.3f}" for column in (self.precision, self.recall, self.f1)]
        body = [
            [name, f"{self.precision[i]:.3f}", f"{self.recall[i]:.3f}", f"{self.f1[i]:.3f}", f"{self.support[i]:,}"]
            for i, name in enumerate(self.class_names)
        ]
        header = ["class", "precision", "recall", "F1", "samples"]
        return [header, *body, ["mean of classes", *means, f"{self.samples:,}"]]

    def summary(self) -> str:
        """The whole in one line."""
        return (
            f"accuracy {self.accuracy:.3f} (chance {self.chance():.3f}), balanced accuracy "
            f"{self.balanced_accuracy:.3f}, macro F1 {self.macro_f1:.3f}, log-loss {self.log_loss:.3f}, "
            f"calibration error {self.calibration_error:.3f}"
        )

    def table(self) -> str:
        """Class by class as aligned plain text, and the summary."""
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], "", self.summary()])


def classification_metrics(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> ClassificationMetrics:
    """Measure `probabilities` (n, classes), n >= 1, whose rows sum to 1, against `labels` (n,) in 0..classes - 1.

    The prediction is the most probable class, the lower label where two are. Averages leave out classes that neither
    occur nor are predicted. Definitions are scikit-learn's, with 0 for what is undefined; a probability below 2e-16
    counts as that in the log-loss. Calibration error: Guo et al. 2017, arXiv 1706.04599, equation 3, with 15 bins.

    Raises InputError for other shapes, missing labels (-1), or rows that are no probabilities.
    """
    names = tuple(class_names)
    probabilities, labels = _checked(probabilities, labels, names)
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, len(names))
    right, support, called = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    counted = (support > 0) | (called > 0)
    recall = _share(right, support)
    f1 = _share(2 * right, support + called)
    bins = reliability_bins(probabilities.max(axis=1), predicted == labels)
    return ClassificationMetrics(
        class_names=names,
        accuracy=float(right.sum() / len(labels)),
        balanced_accuracy=float(recall[support > 0].mean()),
        macro_f1=float(f1[counted].mean()),
        log_loss=log_loss(probabilities, labels),
        calibration_error=calibration_error(bins),
        precision=_share(right, called),
        recall=recall,
        f1=f1,
        support=support,
        confusion=matrix,
        reliability=bins,
    )


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) counts of (n,) true `labels` (down) and `predicted` ones (across)."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean -log of the probability (n, classes) of each sample's label (n,), in nats."""
    likelihood = np.asarray(probabilities, dtype=np.float64)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(likelihood, np.finfo(np.float64).eps)).mean())


def reliability_bins(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """`bins` equal parts of [0, 1], with the samples of (n,) `confidence` that lie in each; `right` (n,) bool."""
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    means = [_share(np.bincount(place, weights=values, minlength=bins), count) for values in (confidence, right)]
    columns = (edges[:-1], edges[1:], count, *means)
    return tuple(ReliabilityBin(*(column[i].item() for column in columns)) for i in range(bins))


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Distance of confidence and accuracy, averaged over the samples of `bins`; 0 to 1."""
    distance = sum(bin_.count * abs(bin_.confidence - bin_.accuracy) for bin_ in bins)
    return float(distance / sum(bin_.count for bin_ in bins))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return part / np.maximum(whole, 1)


def _checked(probabilities: Any, labels: Any, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if probabilities.ndim != 2 or len(probabilities) == 0 or probabilities.shape[1] != len(names):
        raise InputError(
            f"Probabilities of {len(names)} classes are (samples, {len(names)}), one sample or more. "
            f"Received shape {probabilities.shape}."
        )
    if labels.shape != (len(probabilities),) or labels.dtype.kind not in "iu":
        raise InputError(
            f"Expected {len(probabilities)} integer labels, one a sample. Received shape {labels.shape} of "
            f"{labels.dtype}."
        )
    if labels.min() < 0 or labels.max() >= len(names):
        raise InputError(
            f"Labels of {len(names)} classes lie in 0..{len(names) - 1}. Received {labels.min()} to {labels.max()}: "
            "leave samples without a label (-1) out."
        )
    broken = ~np.isfinite(probabilities).all(axis=1)
    if broken.any():
        raise InputError(
            f"{broken.sum()} of {len(broken)} samples have NaN or infinity for a probability: the network diverged, "
            "or the volumes hold NaN."
        )
    off = (np.abs(probabilities.sum(axis=1) - 1) > _SUM_TOLERANCE) | (probabilities < 0).any(axis=1)
    if off.any():
        raise InputError(
            f"{off.sum()} of {len(off)} rows are no probabilities (not negative, with sum 1): give a network's "
            "softmax, not its logits."
        )
    return probabilities, labels
