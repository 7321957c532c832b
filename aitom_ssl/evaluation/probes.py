"""How good are frozen features? Nearest neighbours and a linear classifier on what an encoder gives."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from aitom_ssl.data.batches import gather
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.collapse import unit_rows

TEMPERATURE = 0.1
REGULARISATIONS = (0.001, 0.01, 0.1, 1.0)


# === Features ===


def extract_features(
    encoder: keras.Model, data: Any, batch_size: int = 64, indices: np.ndarray | None = None
) -> np.ndarray:
    """(n, features) float32 of the samples of `data`, in order; memory does not grow with the volumes.

    `encoder` maps (batch, z, y, x, 1) to (batch, features) and is called in inference mode. `data` is a Dataset, whose
    volumes arrive standardised as in training, or an array (n, z, y, x[, 1]), taken as it is; `indices` picks samples,
    default all.
    """
    if len(data) == 0:
        raise InputError("There are no samples to extract features from: the dataset is empty. Expected one or more.")
    chosen = np.arange(len(data)) if indices is None else np.asarray(indices, dtype=np.int64)
    if not encoder.compiled and keras.backend.backend() == "tensorflow":
        # Keras would choose XLA, which makes 3-D convolutions on the CPU several times slower.
        encoder.jit_compile = False
    blocks = []
    for start in range(0, len(chosen), batch_size):
        rows = chosen[start : start + batch_size]
        volumes = _volumes(data, rows)
        if start and len(rows) < batch_size:
            # A short last batch would be traced anew: fill it up and cut the answer.
            volumes = np.concatenate([volumes, np.repeat(volumes[:1], batch_size - len(rows), axis=0)])
        features = keras.ops.convert_to_numpy(encoder.predict_on_batch(volumes)).astype(np.float32)
        if features.ndim != 2:
            raise InputError(
                f"An encoder gives (batch, features). Received an output of shape {features.shape}: "
                "build it with include_top=False."
            )
        blocks.append(features[: len(rows)])
    return np.concatenate(blocks)


def _volumes(data: Any, rows: np.ndarray) -> np.ndarray:
    if hasattr(data, "volumes"):
        return gather(data, rows)
    volumes = np.asarray(data[rows], dtype=np.float32)
    return volumes if volumes.ndim == 5 else volumes[..., None]


def standardize_features(bank: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """`bank` (m, d) and each of `others` (n, d) with the bank's mean and standard deviation taken out of every feature.

    A feature that is constant in the bank, but for rounding, becomes 0 everywhere.
    """
    mean, deviation = bank.mean(axis=0), bank.std(axis=0)
    scale = np.where(deviation > 1e-6 * np.abs(mean), deviation, np.inf)
    return tuple((features - mean) / np.where(scale > 0, scale, np.inf) for features in (bank, *others))


# === Nearest neighbours ===


def knn_predict(
    bank: np.ndarray, bank_labels: np.ndarray, queries: np.ndarray, k: int | None = None, chunk: int = 1024
) -> np.ndarray:
    """(n,) int labels of `queries` (n, d) by a vote among their `k` nearest rows of `bank` (m, d).

    Both are centred with the bank's mean first (pooled features of one encoder have a mean cosine of 0.99) and compared
    by cosine; a neighbour's vote is exp(cosine / 0.1), as in the MoCo authors' monitor. `k` defaults to
    min(20, samples a class in the bank). A tie goes to the lower label.
    """
    bank, bank_labels = _labelled("bank", bank, bank_labels)
    queries = _finite("query", queries)
    if queries.shape[1] != bank.shape[1]:
        raise InputError(f"Queries have {queries.shape[1]} features and the bank has {bank.shape[1]}: use one encoder.")
    classes, targets = np.unique(bank_labels, return_inverse=True)
    k = max(1, min(20, len(bank) // len(classes))) if k is None else k
    if not 1 <= k <= len(bank):
        raise InputError(f"k must lie in 1..{len(bank)}, the size of the bank. Received k={k}.")
    mean = bank.mean(axis=0)
    bank = unit_rows(bank - mean)
    predictions = []
    for start in range(0, len(queries), chunk):
        cosine = unit_rows(queries[start : start + chunk] - mean) @ bank.T
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        weight = np.exp((np.take_along_axis(cosine, nearest, axis=1) - 1.0) / TEMPERATURE)
        votes = np.zeros((len(cosine), len(classes)))
        np.add.at(votes, (np.arange(len(cosine))[:, None], targets[nearest]), weight)
        predictions.append(classes[votes.argmax(axis=1)])
    return np.concatenate(predictions)


def knn_accuracy(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    k: int | None = None,
) -> float:
    """Share of `queries` (n, d) whose label `knn_predict` finds; a class that the bank lacks counts as wrong."""
    queries, query_labels = _labelled("query", queries, query_labels, several=False)
    return float((knn_predict(bank, bank_labels, queries, k) == query_labels).mean())


# === Linear probe ===


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """What a linear probe found."""

    accuracy: float  # share of the test samples that are right
    predictions: np.ndarray  # (n,) label of each test sample
    c: float  # inverse strength of the L2 penalty that was used
    weights: np.ndarray  # (d, labels) and
    offsets: np.ndarray  # (labels,): softmax(features @ weights + offsets) are the probabilities of
    labels: np.ndarray  # the labels that occur in training, sorted


def linear_probe(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    c: float | None = None,
    seed: int = 0,
) -> ProbeResult:
    """Multinomial logistic regression from `train` (m, d), scored on `test` (n, d).

    Features are standardised with the training features' mean and standard deviation. `c` (inverse strength of the L2
    penalty) is chosen among 0.001, 0.01, 0.1 and 1 by up to 5-fold stratified cross-validation on the training labels
    alone (ties: the stronger penalty); with one sample in some class it is 0.1. `seed` draws the folds.
    """
    train, train_labels = _labelled("training", train, train_labels)
    test, test_labels = _labelled("test", test, test_labels, several=False)
    # On matrices this small, and a busy machine, two BLAS threads took 10 to 45 times as long as one.
    with threadpool_limits(1):
        if c is None:
            c = _chosen_regularisation(train, train_labels, seed)
        fitted = _classifier(c).fit(train, train_labels)
        predictions = fitted.predict(test)
    return ProbeResult(float((predictions == test_labels).mean()), predictions, c, *_as_softmax(*fitted))


def _as_softmax(scaler: StandardScaler, classifier: LogisticRegression) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, offsets and labels of the softmax layer on unscaled features that these two make."""
    coefficients, intercepts = classifier.coef_, classifier.intercept_
    if len(coefficients) == 1:  # of two classes scikit-learn keeps the difference
        coefficients, intercepts = np.stack([0 * coefficients[0], coefficients[0]]), np.array([0.0, intercepts[0]])
    weights = (coefficients / scaler.scale_).T
    return weights, intercepts - scaler.mean_ @ weights, classifier.classes_


def _classifier(c: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))


def _chosen_regularisation(features: np.ndarray, labels: np.ndarray, seed: int) -> float:
    folds = min(5, np.unique(labels, return_counts=True)[1].min())
    if folds < 2:
        return 0.1
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    scores = [cross_val_score(_classifier(c), features, labels, cv=split).mean() for c in REGULARISATIONS]
    return REGULARISATIONS[int(np.argmax(scores))]


def stratified_fraction(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Sorted indices of `fraction` (0..1] of each class, at least one sample of every class, drawn by `seed`."""
    labels = checked_labels("training", labels)
    if not 0 < fraction <= 1:
        raise InputError(f"A fraction of the labels lies in (0, 1]. Received {fraction}.")
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, int(np.floor(fraction * len(members) + 0.5)))
        chosen.append(rng.choice(members, count, replace=False))
    return np.sort(np.concatenate(chosen))


# === Checks ===


def _labelled(role: str, features: np.ndarray, labels: np.ndarray, several: bool = True):
    features, labels = _finite(role, features), checked_labels(role, labels)
    if len(features) != len(labels):
        raise InputError(f"The {role} set has {len(features)} feature rows and {len(labels)} labels: give one each.")
    if several and len(np.unique(labels)) < 2:
        raise InputError(f"The {role} set holds one class only ({labels[0]}). Expected two classes or more.")
    return features, labels


def checked_labels(role: str, labels: np.ndarray) -> np.ndarray:
    """`labels` as an array (n,), n >= 1; InputError where one is missing (-1). `role` names the set in the message."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0:
        raise InputError(f"The {role} set has no labels (shape {labels.shape}). Expected one or more.")
    missing = int((labels < 0).sum())
    if missing:
        raise InputError(
            f"{missing} of {len(labels)} {role} samples have no label (-1): "
            "pass labelled samples only, e.g. dataset.subset(np.flatnonzero(dataset.labels >= 0))."
        )
    return labels


def _finite(role: str, features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) == 0:
        raise InputError(f"The {role} features are (samples, features), one or more. Received shape {features.shape}.")
    broken = int((~np.isfinite(features).all(axis=1)).sum())
    if broken:
        raise InputError(
            f"{broken} of {len(features)} {role} feature rows hold NaN or infinity: the encoder diverged; "
            "train with a lower learning rate or --precision=float32."
        )
    return features
