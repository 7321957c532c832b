"""Particles subdivided: from features, whatever they are, to clusters (Xu 2017, sections 2.3 and 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from aitom_ssl.data.sources import Source
from aitom_ssl.discovery.clustering import CLUSTERS, Partition, over_partition
from aitom_ssl.errors import InputError

NETWORK = "network"
BASELINES = ("rotation_invariant", "pose_normalized")
EACH = 20
"""Samples a cluster at least, on average, where the number of clusters is not asked for."""


class Features(NamedTuple):
    """Features of the particles that can be used.

    values: (m, d) float32. indices: (m,) of the source, ascending. left_out: why the others cannot be used. what: they
    are, in words. class_names: what the columns stand for, where they are a classifier's linear activations; else
    empty. by_direction: standardise and compare directions; else they are compared as they are. notes: for the user.
    """

    values: np.ndarray
    indices: np.ndarray
    left_out: list[str]
    what: str
    class_names: tuple[str, ...]
    by_direction: bool
    notes: list[str]


class FeatureMaker(Protocol):
    """What gives the features of a source.

    size: the box that it wants, voxels a side, or None. class_names: of the classes that it knows.
    """

    size: int | None
    class_names: Sequence[str]

    def check(self, source: Source) -> None:
        """InputError for data that it does not go with."""

    def __call__(self, source: Source) -> Features: ...


def number_of_clusters(count: int, asked: int | None = None) -> int:
    """`asked`, or the paper's 100, fewer where there are few particles: `EACH` a cluster on average."""
    if asked is None:
        return max(1, min(CLUSTERS, count // EACH))
    if asked > count:
        raise InputError(f"--clusters={asked} and {count:,} particles: ask for fewer, or give more.")
    return asked


def subdivide(features: Features, clusters: int | None = None, seed: int = 0) -> Partition:
    """`over_partition` of features, in the geometry that they are to be compared in."""
    values = features.values
    if features.by_direction:
        from aitom_ssl.evaluation.few_labels import directions

        values = directions(values)
    return over_partition(values, number_of_clusters(len(values), clusters), seed)
