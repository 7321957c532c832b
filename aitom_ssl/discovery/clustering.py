"""Many small groups of like subtomograms: k-means over-partition in feature space (Xu 2017, sections 2.3.2 and 3.3).

k, 100 in the paper, is to exceed the number of structures several times: a structure may fall into many clusters, and
each cluster is then classified by itself. How even the sizes are tells how well a feature space separates structures:
of the pose-normalised volumes of 11,500 subtomograms 84 of 100 clusters held 10 or fewer, and 4 held 6,089.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from aitom_ssl.errors import InputError

CLUSTERS = 100
MEMORY = 2 << 30
"""Bytes of float32 features up to which all are kept in memory at once."""
TINY = 10
"""The size up to which the paper counts a cluster as very small."""
_BATCH = 8192  # samples: several times the clusters, as mini-batch k-means needs
_PASSES = 10  # over the features, of mini-batch k-means
_BLOCK = 65_536  # rows looked at together


@dataclasses.dataclass(frozen=True, eq=False)
class Partition:
    """Clusters from the largest to the smallest; none is empty.

    labels: (n,) int, the cluster of each sample. centres: (clusters, d) float32. asked: how many clusters were asked
    for; there are fewer where features repeat. minibatch: whether the features were more than `memory`.
    """

    labels: np.ndarray
    centres: np.ndarray
    asked: int
    minibatch: bool

    @property
    def sizes(self) -> np.ndarray:
        """(clusters,) samples of each, falling."""
        return np.bincount(self.labels, minlength=len(self.centres))

    def members(self, cluster: int) -> np.ndarray:
        """Sorted indices of a cluster's samples; InputError for one that is not there."""
        if not 0 <= cluster < len(self.centres):
            raise InputError(f"There is no cluster {cluster}: expected 0 to {len(self.centres) - 1}.")
        return np.flatnonzero(self.labels == cluster)

    def at_least(self, size: int) -> int:
        """How many clusters have `size` samples or more: clusters 0, 1, ... up to that number."""
        return int((self.sizes >= size).sum())


def over_partition(features: np.ndarray, clusters: int = CLUSTERS, seed: int = 0, memory: int = MEMORY) -> Partition:
    """k-means of (n, d) `features`, n >= `clusters`, by Euclidean distance as they are: scale them before, if at all.

    The paper clusters the linear activations of a classifier unscaled; features of an encoder are best standardised
    (`evaluation.few_labels.directions`). One start by k-means++ drawn by `seed`: of so many clusters another start
    finds others that are as good. Features of more than `memory` bytes as float32, which may lie in a memory-mapped
    file, are read in blocks: mini-batch k-means finds the centres (ten passes, in an order drawn by `seed`), and memory
    stays below `memory`. The same seed gives the same clusters. Raises InputError for features that are not (n, d) or
    not finite (names the first such row), and for more clusters than samples.
    """
    features = np.asanyarray(features)
    if features.ndim != 2 or not features.size:
        raise InputError(f"Features are (samples, features), one of each at least. Received shape {features.shape}.")
    count = len(features)
    if not 1 <= clusters <= count:
        raise InputError(f"{clusters} clusters of {count:,} samples: ask for 1 to {count:,}.")
    for start in range(0, count, _BLOCK):
        wrong = np.flatnonzero(~np.isfinite(features[start : start + _BLOCK]).all(axis=1))
        if len(wrong):
            raise InputError(f"The features of sample {start + wrong[0]} are NaN or infinite: leave that sample out.")
    minibatch = features.shape[0] * features.shape[1] * 4 > memory
    # One thread: the order in which several add up decides the last digits, and those decide clusters.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct samples than clusters: `asked` says so
        if minibatch:
            fitted = _minibatch(features, clusters, seed, memory)
            blocks = range(0, count, _rows(features, memory))
            step = blocks.step
            labels = np.concatenate([fitted.predict(_float32(features[start : start + step])) for start in blocks])
        else:
            fitted = KMeans(clusters, n_init=1, random_state=seed).fit(_float32(features))
            labels = fitted.labels_
    sizes = np.bincount(labels, minlength=clusters)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    rank = np.empty(clusters, np.int64)
    rank[order] = np.arange(len(order))
    return Partition(rank[labels], np.asarray(fitted.cluster_centers_[order], np.float32), clusters, minibatch)


def _float32(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows, np.float32)


def _rows(features: np.ndarray, memory: int) -> int:
    """How many samples to hold together: a quarter of `memory`, so that copies fit."""
    return int(np.clip(memory // (16 * features.shape[1]), 1, _BATCH))


def _minibatch(features: np.ndarray, clusters: int, seed: int, memory: int) -> MiniBatchKMeans:
    count, rng = len(features), np.random.default_rng(seed)
    # The first batch chooses the first centres, and must have enough samples for that.
    batch = min(max(_rows(features, memory), 10 * clusters), count)
    fitted = MiniBatchKMeans(clusters, n_init=3, random_state=seed, batch_size=batch)
    for _ in range(_PASSES):
        order = rng.permutation(count)
        for start in range(0, count - batch + 1, batch):
            # In the order of the file, which is read once.
            fitted.partial_fit(_float32(features[np.sort(order[start : start + batch])]))
    return fitted


def size_statistics(sizes: np.ndarray) -> dict[str, Any]:
    """What a histogram of cluster sizes (clusters,), each 1 or more, comes to, for tables and JSON.

    tiny, in_tiny: clusters of `TINY` samples or fewer, and their samples. large, in_large: clusters above twice the
    mean size, and their samples. effective: exp of the entropy of the shares, the number of equal clusters that would
    be as uneven; evenness: that over the number of clusters, 1 where all are equal.
    """
    sizes = np.asarray(sizes)
    if sizes.ndim != 1 or not len(sizes) or sizes.min() < 1:
        raise InputError("Cluster sizes are one number of 1 or more each, of one cluster at least.")
    shares = sizes / sizes.sum()
    effective = math.exp(-float(np.sum(shares * np.log(shares))))
    tiny, large = sizes <= TINY, sizes > 2 * sizes.mean()
    return {
        "clusters": len(sizes),
        "samples": int(sizes.sum()),
        "largest": int(sizes.max()),
        "median": float(np.median(sizes)),
        "smallest": int(sizes.min()),
        "tiny": int(tiny.sum()),
        "in_tiny": int(sizes[tiny].sum()),
        "large": int(large.sum()),
        "in_large": int(sizes[large].sum()),
        "effective": effective,
        "evenness": effective / len(sizes),
    }
