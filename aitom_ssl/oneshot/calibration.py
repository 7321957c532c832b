"""From a network's similarities to scores, and to "none of these": what a support set itself can tell. NumPy only.

A network answers with a logit for every pair of volumes, high where they are of one class. How high is high enough it
does not say: under the softmax of Zhou 2020 only differences between the classes of a support set are trained. The
support set is asked itself, with *views* of its examples: each turned by 180 degrees about x, y and z. That changes the
pose, takes the noise elsewhere, needs no interpolation, and leaves the missing wedge of a single tilt axis as it is.

    known     a view, against all classes; of a class with several examples, against the others of that class
    unknown   the same view, against all classes but its own: a particle of none of these

A logistic curve through the best logits of both (Platt 1999, with his targets for few cases) makes every logit a score
from 0 to 1; 0.5 is where a particle is as likely of the class as of none, were known and unknown ones equally common.

What it means, and what not. Unknown particles are taken to be as unlike the classes as these are unlike each other: one
that resembles a class more than the classes resemble each other passes for it. A view of a class's only example is that
particle again, of its size, depth and neighbours: others of the class score a little lower, so that somewhat more of
them than said are called none. With a second example of the class what is said is what was found, on simulated
particles of classes that a network had not seen. Views turned at random instead, with interpolation and a turned wedge,
score far below real particles of their class. How well unknown ones are told is measured on classes that had no part in
the curve: `Calibration.rejected`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

from aitom_ssl.errors import InputError
from aitom_ssl.geometry import centre

_TURNS = ((0, 1), (0, 2), (1, 2))  # axes that are reversed: 180 degrees about x, y and z
VIEWS = len(_TURNS)
# Score of the views of the only class there is.
_LONE = 0.95

Similarity = Callable[[np.ndarray, np.ndarray], np.ndarray]


# === Views ===


def views(volume: np.ndarray) -> np.ndarray:
    """(3, z, y, x): `volume` turned by 180 degrees about x, y and z through its centre voxel n // 2.

    Of an even side the first plane has nothing to come from: it is the one that was there, turned.
    """
    moved = [2 * centre(side) - (side - 1) for side in volume.shape]
    return np.stack([np.roll(np.flip(volume, axes), [moved[axis] for axis in axes], axes) for axes in _TURNS])


# === Scores ===


def class_logits(logits: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """(targets, classes): logits (targets, supports) averaged over the examples of each class; -inf without any."""
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    out = np.full((len(logits), classes), -np.inf)
    for label in np.unique(labels):
        out[:, label] = logits[:, labels == label].mean(axis=1)
    return out


class Curve(NamedTuple):
    """score = 1 / (1 + exp(-slope (logit - middle)))."""

    slope: float  # above 0
    middle: float

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Scores in 0..1 float32 of any logits."""
        steep = 0.5 * self.slope * (np.asarray(logits, np.float64) - self.middle)
        return (0.5 * (1 + np.tanh(steep))).astype(np.float32)


class Calibration(NamedTuple):
    """What the views of a support set came to."""

    curve: Curve
    right: float  # known views whose best class is their own
    accepted: float  # known views with a score of 0.5 or more
    rejected: float | None  # unknown views with less, by curves made without their class; None of fewer than 3 classes
    known: np.ndarray  # best logits of the views
    unknown: np.ndarray  # empty of a single class
    classes: np.ndarray  # label of the view that each is of

    def to_dict(self) -> dict[str, Any]:
        """As plain values, without the logits."""
        return {
            "slope": self.curve.slope,
            "middle": self.curve.middle,
            "views": len(self.known),
            "right": self.right,
            "accepted": self.accepted,
            "rejected": self.rejected,
        }


def calibration_words(calibration: Mapping[str, Any]) -> str:
    """What the views say of scores, in a sentence or two; `calibration` as `Calibration.to_dict` gives it."""
    words = (
        f"Of {calibration['views']} turned views of the examples {calibration['right']:.0%} are matched with their own "
        f"class, and {calibration['accepted']:.0%} score 0.5 or more."
    )
    if calibration["rejected"] is not None:
        words += (
            f" With its class taken out of the support set, and of the calibration, a view is called none in "
            f"{calibration['rejected']:.0%} of the cases."
        )
    return words


def calibrate(
    volumes: np.ndarray,
    labels: np.ndarray,
    supports: np.ndarray,
    features: Callable[[np.ndarray], np.ndarray],
    similarity: Similarity,
) -> Calibration:
    """The score of a support set: see the top of this module.

    Args:
        volumes: (n, z, y, x) examples.
        labels: (n,) 0..classes - 1, each at least once.
        supports: (n, d) features of the examples.
        features: (m, z, y, x) volumes to (m, d).
        similarity: (targets, d), (supports, d) to (targets, supports) logits.
    """
    labels = np.asarray(labels)
    classes = int(labels.max()) + 1 if len(labels) else 0
    if not classes or not np.bincount(labels, minlength=classes).all():
        raise InputError(f"A support set needs an example of each class. Received labels {labels}.")
    rows = []
    for number, (volume, label) in enumerate(zip(volumes, labels, strict=True)):
        logits = similarity(features(views(volume)), supports)
        # With other examples of its class a view is compared with them: its own is too much like it.
        mates = (labels == label) & (np.arange(len(labels)) != number)
        use = (labels != label) | (mates if mates.any() else labels == label)
        rows.append(class_logits(logits[:, use], labels[use], classes))
    same = float(np.mean(similarity(supports[:1], supports[:1])))
    return summarize(np.concatenate(rows), np.repeat(labels, VIEWS), same)


def summarize(logits: np.ndarray, of: np.ndarray, same: float) -> Calibration:
    """The calibration by the logits (views, classes) of views whose classes are `of` (views,).

    same: logit of a volume and itself; what a single class is judged by.
    """
    classes = logits.shape[1]
    known, unknown = _known_and_unknown(logits, of)
    curve = fit_curve(known, unknown, of) if classes > 1 else lone_curve(known, same)
    rejected = None
    if classes > 2:
        shares = []
        for label in range(classes):
            # As if this class were not there at all: neither its views, nor others' similarity to it.
            others = of != label
            fewer, of_them = np.delete(logits, label, axis=1)[others], of[others] - (of[others] > label)
            apart = fit_curve(*_known_and_unknown(fewer, of_them), of_them)
            shares.append((apart(unknown[~others]) < 0.5).mean())
        rejected = float(np.mean(shares))
    right = _mean_over_classes(logits.argmax(axis=1) == of, of)
    return Calibration(curve, right, _mean_over_classes(curve(known) >= 0.5, of), rejected, known, unknown, of)


def _known_and_unknown(logits: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best logits of each view with its class among the others, and without it (empty where there is no other)."""
    if logits.shape[1] == 1:
        return logits[:, 0], np.empty(0)
    without = np.where(np.arange(logits.shape[1]) == of[:, None], -np.inf, logits)
    return logits.max(axis=1), without.max(axis=1)


def _mean_over_classes(values: np.ndarray, of: np.ndarray) -> float:
    return float(np.mean([values[of == label].mean() for label in np.unique(of)]))


def fit_curve(known: np.ndarray, unknown: np.ndarray, of: np.ndarray) -> Curve:
    """The curve through the best logits (n,) of known views and of the same views as unknown ones (n,).

    `of` (n,): their classes. Every class counts alike, and known as much as unknown. Targets are (c + 1) / (c + 2) and
    1 / (c + 2) of c classes: views of a class are no independent cases.
    """
    known, unknown = np.asarray(known, float), np.asarray(unknown, float)
    classes, counts = np.unique(of, return_counts=True)
    weights = 1 / (len(classes) * counts[np.searchsorted(classes, of)])
    logits = np.concatenate([known, unknown])
    weights = np.concatenate([weights, weights])
    high = (len(classes) + 1) / (len(classes) + 2)
    targets = np.concatenate([np.full(len(known), high), np.full(len(unknown), 1 - high)])
    spread = max(float(logits.std()), 1e-6)
    scaled = (logits - logits.mean()) / spread

    def loss(parameters: np.ndarray) -> float:
        z = np.exp(parameters[0]) * (scaled - parameters[1])
        return float((weights * (np.logaddexp(0, z) - targets * z)).sum())

    # The slope as a power of e: it stays above 0, also where known and unknown views are mixed up.
    found = optimize.minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-7, 7), (-10, 10)]).x
    return Curve(float(np.exp(found[0]) / spread), float(logits.mean() + spread * found[1]))


def lone_curve(known: np.ndarray, same: float) -> Curve:
    """The curve of a single class, with nothing to be told from: 0.95 at the median of its known views.

    It is 0.5 where a particle is twice as far from the examples as these views, counted from `same`, the logit of a
    volume and itself.
    """
    median = float(np.median(known))
    away = max(same - median, 1e-3)
    return Curve(float(np.log(_LONE / (1 - _LONE))) / away, median - away)
