"""What are features worth with no label at all, or a handful of each class? k-means, label spreading, kNN, probe.

The code of SSL 2022's authors (Shadowalker1995/MOCO-Subtomograms) reports k-means, and label spreading with 5, 10 and
20 labels a class. Differs from it: it works on the points of a t-SNE plot, whose distances mean little, spreads with a
Gaussian kernel that is next to nothing between most neighbours there, scores clusters by the R^2 of class numbers, and
counts the samples whose label was given. Here features are compared as by kNN (standardised, then by direction), and
accuracy is over the samples whose label was hidden.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.neighbors import kneighbors_graph
from sklearn.semi_supervised import LabelSpreading
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from aitom_ssl.data.batches import subsample
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.collapse import unit_rows
from aitom_ssl.evaluation.probes import checked_labels, knn_accuracy, linear_probe, standardize_features
from aitom_ssl.evaluation.report import aligned
from aitom_ssl.evaluation.statistics import mean_and_spread

LABELS_PER_CLASS = (5, 10, 20)
METHODS = ("label spreading", "kNN", "linear probe")
NEIGHBOURS = 10
# Share that a sample takes from its neighbours in a step. scikit-learn's 0.2 fades within a few steps of a label.
ALPHA = 0.9
# Clusters are fitted to, and labels spread over, so many samples at most: distances to all others grow as the square.
LIMIT = 10_000
_RESTARTS = 10


def directions(features: np.ndarray) -> np.ndarray:
    """(n, d) `features` standardised and scaled to unit length: Euclidean distances then go by cosine, as in kNN."""
    return unit_rows(*standardize_features(np.asarray(features, np.float64)))


# === No labels: clusters ===


def kmeans(features: np.ndarray, clusters: int, seed: int = 0, limit: int = LIMIT) -> np.ndarray:
    """(n,) the cluster of each of `features` (n, d), 0 the largest; k-means on their `directions`.

    The best of ten starts drawn by `seed`. Of more than `limit` samples, a subset drawn by `seed` is standardised and
    finds the centres, and every sample goes to the nearest. InputError for more clusters than samples to find them by.
    """
    features = _finite(features)
    fitted_on = subsample(len(features), limit, seed)
    if not 1 <= clusters <= len(fitted_on):
        raise InputError(f"{clusters} clusters of {len(fitted_on):,} samples: ask for 1 to {len(fitted_on):,}.")
    bank = features[fitted_on].astype(np.float64)
    blocks = (features[start : start + limit] for start in range(0, len(features), limit))
    # One thread: see probes.linear_probe. The warning is of features that are all alike: scores say so.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(clusters, n_init=_RESTARTS, random_state=seed).fit(directions(bank))
        found = np.concatenate([fitted.predict(unit_rows(standardize_features(bank, block)[1])) for block in blocks])
    order = np.argsort(-np.bincount(found, minlength=clusters), kind="stable")
    return np.argsort(order)[found]


@dataclasses.dataclass(frozen=True)
class ClusterScores:
    """How well clusters are classes."""

    adjusted_rand: float  # 1: the same partition, about 0: no better than chance
    mutual_information: float  # shared, over the mean entropy of both; 0 to 1
    purity: float  # share of the samples that are of their cluster's most frequent class; grows with the clusters
    accuracy: float  # share that is right when clusters are named after classes, each class once, as well as can be
    counts: np.ndarray  # (clusters, classes) samples
    names: np.ndarray  # (clusters,) the class that a cluster is named after there; -1 where none is left that it holds

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        scores = ("adjusted_rand", "mutual_information", "purity", "accuracy")
        return {**{name: getattr(self, name) for name in scores}, "counts": self.counts.tolist()}


def cluster_scores(clusters: np.ndarray, labels: np.ndarray) -> ClusterScores:
    """Compare `clusters` (n,) with `labels` (n,), both from 0 on and n >= 1; no label may be missing.

    Adjusted Rand index: Hubert and Arabie 1985. Mutual information is normalised by the arithmetic mean. Clusters are
    named by the assignment problem (scipy.optimize.linear_sum_assignment).
    """
    labels = checked_labels("clustered", labels)
    counts = np.zeros((clusters.max() + 1, labels.max() + 1), np.int64)
    np.add.at(counts, (clusters, labels), 1)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    names = np.full(len(counts), -1)
    names[rows] = np.where(counts[rows, columns] > 0, columns, -1)
    return ClusterScores(
        adjusted_rand=float(adjusted_rand_score(labels, clusters)),
        mutual_information=float(normalized_mutual_info_score(labels, clusters)),
        purity=float(counts.max(axis=1).sum() / len(labels)),
        accuracy=float(counts[rows, columns].sum() / len(labels)),
        counts=counts,
        names=names,
    )


# === A few labels ===


def draw_labels(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted indices of `count` samples of every class in `labels` (n,; -1: none), drawn by `seed`: fewer are among
    more. A class of less gives all it has.
    """
    rng = np.random.default_rng(seed)
    classes = np.unique(labels[labels >= 0])
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:count] for label in classes]))


def neighbour_graph(rows: np.ndarray, neighbours: int = NEIGHBOURS) -> Any:
    """(n, n) sparse 0 and 1: whether one of two `rows` (n, d) is among the other's nearest."""
    graph = kneighbors_graph(rows, min(neighbours, len(rows) - 1), include_self=False)
    return graph.maximum(graph.T)


def spread_labels(graph: Any, labels: np.ndarray) -> np.ndarray:
    """(n,) a label for every node of a symmetric `graph` (n, n), from those given in `labels` (n,; -1: none).

    Zhou et al. 2004, "Learning with local and global consistency", with alpha 0.9 (scikit-learn's LabelSpreading). A
    node that no path connects with a label gets -1.
    """
    model = LabelSpreading(kernel=lambda *_: graph, alpha=ALPHA, max_iter=1000)
    # It reads nothing of the samples but the graph.
    model.fit(np.zeros((len(labels), 1)), labels)
    return np.where(model.label_distributions_.sum(axis=1) > 0, model.transduction_, -1)


@dataclasses.dataclass(frozen=True)
class FewLabels:
    """Accuracies with a few labels a class."""

    labels_per_class: tuple[int, ...]
    seeds: tuple[int, ...]  # one draw of the labels each
    accuracy: dict[str, np.ndarray]  # of METHODS -> (labels_per_class, seeds)
    measured: tuple[int, ...]  # samples whose label was hidden, and is measured on, for each of labels_per_class
    samples: int  # that labels are spread over, those without a label of their own among them
    left_out: int  # samples beyond the limit
    classes: int
    chance: float  # accuracy of always naming the most frequent class

    def rows(self) -> list[list[str]]:
        """The table's cells: a header, a row for each number of labels, the chance level."""
        body = [
            [f"{count}", *(mean_and_spread(self.accuracy[name][i]) for name in METHODS), f"{self.measured[i]:,}"]
            for i, count in enumerate(self.labels_per_class)
        ]
        chance = ["chance", *[f"{self.chance:.3f}"] * len(METHODS), ""]
        return [["labels a class", *METHODS, "measured on"], *body, chance]

    def caption(self) -> str:
        """What the table shows."""
        several = len(self.seeds) > 1
        draws = f"mean ± sd over {len(self.seeds)} draws of the labels" if several else "one draw of the labels"
        limited = f" {self.left_out:,} samples, drawn at random, were left out." if self.left_out else ""
        return (
            f"Accuracy on the samples whose label was hidden, {self.classes} classes, frozen features; {draws} (seed "
            f"{', '.join(map(str, self.seeds))}). Labels are spread over {self.samples:,} samples.{limited}"
        )

    def table(self) -> str:
        """The table as aligned plain text."""
        lines = aligned(self.rows())
        return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], "", self.caption()])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**dataclasses.asdict(self), "accuracy": {name: found.tolist() for name, found in self.accuracy.items()}}


def few_labels(
    features: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    labels_per_class: Sequence[int] = LABELS_PER_CLASS,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    limit: int = LIMIT,
) -> FewLabels:
    """Give so many labels a class, hide the others, and measure how many of those are found.

    Spreading uses all samples; kNN and the probe (see `probes`) learn from the given ones alone. Its graph joins each
    sample with its 10 nearest by direction; neither that nor its other parameters were chosen by any label. Memory is
    n times 10, time n squared: of more than `limit` samples a random subset is used, with samples enough of each class.

    Args:
        features: (n, d), n >= 2, standardised here with the statistics of all.
        labels: (n,) from 0 on; -1 where none is known: such samples take part in spreading and are not measured on.
        class_names: in label order.
        labels_per_class, seeds: numbers of labels, and a draw of them for each seed.

    Raises:
        InputError: as `check_few_labels`, and for features that are not finite.
    """
    features, labels = _finite(features), np.asarray(labels)
    check_few_labels(labels, class_names, labels_per_class)
    if not seeds:
        raise InputError("There are no labels to draw. Expected one seed or more.")
    kept = _limited(labels, max(labels_per_class) + 1, limit)
    left_out = len(labels) - len(kept)
    (features,), labels = standardize_features(features[kept].astype(np.float64)), labels[kept]
    with threadpool_limits(1):
        graph = neighbour_graph(unit_rows(features))
    accuracy = {name: np.empty((len(labels_per_class), len(seeds))) for name in METHODS}
    known = np.flatnonzero(labels >= 0)
    cells = [(i, j) for i in range(len(labels_per_class)) for j in range(len(seeds))]
    for i, j in tqdm(cells, desc="a few labels", unit=" draws", leave=False, disable=None):
        given = draw_labels(labels, labels_per_class[i], seeds[j])
        hidden = np.setdiff1d(known, given)
        start = np.full(len(labels), -1)
        start[given] = labels[given]
        pair = features[given], labels[given], features[hidden], labels[hidden]
        accuracy["label spreading"][i, j] = (spread_labels(graph, start)[hidden] == labels[hidden]).mean()
        accuracy["kNN"][i, j] = knn_accuracy(*pair)
        accuracy["linear probe"][i, j] = linear_probe(*pair, seed=seeds[j]).accuracy
    sizes = np.bincount(labels[known])
    return FewLabels(
        labels_per_class=tuple(labels_per_class),
        seeds=tuple(seeds),
        accuracy=accuracy,
        measured=tuple(len(known) - count * int((sizes > 0).sum()) for count in labels_per_class),
        samples=len(labels),
        left_out=left_out,
        classes=int((sizes > 0).sum()),
        chance=float(sizes.max() / len(known)),
    )


def check_few_labels(labels: np.ndarray, class_names: Sequence[str], labels_per_class: Sequence[int]) -> None:
    """InputError where `few_labels` cannot be measured: fewer than two classes, or too few samples of one."""
    known = labels[labels >= 0]
    if not len(known):
        raise InputError(f"None of the {len(labels):,} samples has a label: give labelled data.")
    present, sizes = np.unique(known, return_counts=True)
    if len(present) < 2:
        name = class_names[present[0]]
        raise InputError(f"All {len(known):,} labelled samples are {name}: expected 2 classes or more.")
    if not labels_per_class or min(labels_per_class) < 1:
        raise InputError(f"Received labels a class {list(labels_per_class)}: expected numbers of 1 or more.")
    least, most = int(sizes.min()), max(labels_per_class)
    if most >= least:
        mend = f"ask for {least - 1} or fewer" if least > 1 else "label more of it"
        name, plural = class_names[present[sizes.argmin()]], "s" if least > 1 else ""
        raise InputError(
            f"{name} has {least} labelled sample{plural}: {most} labels a class leave none to measure on, {mend}."
        )


def _limited(labels: np.ndarray, least: int, limit: int) -> np.ndarray:
    """Sorted indices of min(n, `limit`) samples, or so many more that `least` of every class are among them."""
    if len(labels) <= limit:
        return np.arange(len(labels))
    needed = draw_labels(labels, least, seed=0)
    others = np.random.default_rng(0).permutation(np.setdiff1d(np.arange(len(labels)), needed))
    return np.sort(np.concatenate([needed, others[: max(limit - len(needed), 0)]]))


def _finite(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features)
    if features.ndim != 2 or len(features) < 2 or not np.isfinite(features).all():
        raise InputError(
            f"Expected finite features (samples, features), two samples or more. Received shape {features.shape}"
            f"{' with NaN or infinity: the encoder diverged' if not np.isfinite(features).all() else ''}."
        )
    return features
