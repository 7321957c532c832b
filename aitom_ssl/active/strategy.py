"""What every strategy is given at the end of a cycle, and what it answers: which samples to label next."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from aitom_ssl.data.dataset import Dataset
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.probes import extract_features
from aitom_ssl.training.supervised import SupervisedModel


class Selection(NamedTuple):
    """What to label next."""

    indices: np.ndarray  # (k,) int64 positions in `known.unlabelled`, most wanted first, no repeats
    scores: np.ndarray  # (k,) float64 of those; larger is more wanted


class Known:
    """What a strategy may look at at the end of a cycle; arrays over samples are computed once, when first asked for.

    Args:
        labelled: L samples with their labels; may be empty.
        unlabelled: the pool, U samples, whose labels nobody looks at.
        network: the task's: volumes to probabilities (batch, C), float32, by a Dense layer with softmax at its end.
        trainer: what trained it (see `Strategy.trainer`), for strategies that learn while it trains.
        seed: of this cycle, >= 0.
    """

    def __init__(
        self, labelled: Dataset, unlabelled: Dataset, network: keras.Model, trainer: keras.Model | None, seed: int
    ):
        self.labelled, self.unlabelled = labelled, unlabelled
        self.network, self.trainer, self.seed = network, trainer, seed

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """(U, C) float32, of the pool."""
        return extract_features(self.network, self.unlabelled)

    @functools.cached_property
    def features(self) -> np.ndarray:
        """(U, F) float32, of the pool: what goes into the last layer."""
        return extract_features(self._bare, self.unlabelled)

    @functools.cached_property
    def labelled_features(self) -> np.ndarray:
        """(L, F) float32, the same of the labelled samples."""
        if len(self.labelled) == 0:
            return np.zeros((0, self._bare.output.shape[-1]), np.float32)
        return extract_features(self._bare, self.labelled)

    @functools.cached_property
    def _bare(self) -> keras.Model:
        bare = keras.Model(self.network.input, self.network.layers[-1].input)
        needed = 4 * bare.output.shape[-1] * (len(self.labelled) + len(self.unlabelled))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        # With the copies that work on them takes; the system would kill the process without a word.
        if 2 * needed > memory:
            raise InputError(
                f"{bare.output.shape[-1]:,} features of each sample take {needed / 2**30:.0f} GiB, more than half of "
                f"this machine's {memory / 2**30:.0f} GiB: take a network with fewer (--pooling=avg) or another "
                "strategy."
            )
        return bare


class Strategy:
    """Base of the strategies. One gives `scores`, or has a `select` of its own; options are constructor arguments."""

    name = ""

    def prepare(self, network: keras.Model) -> keras.Model:
        """What is trained in place of `network`, an untrained one of the zoo; shares its weights."""
        return network

    def trainer(
        self,
        network: keras.Model,
        augmenter: Callable[..., Any] | None,
        weights: np.ndarray | None,
        seed: int,
        unlabelled: Dataset,
    ) -> keras.Model:
        """What trains `network` in this cycle, to be compiled with the task's optimizer: see `SupervisedModel`.

        `unlabelled` is the pool as it is while training, for strategies that learn from it.
        """
        return SupervisedModel(network, augmenter, weights, seed)

    def scores(self, known: Known) -> np.ndarray:
        """(U,) of the pool; larger is more wanted."""
        raise NotImplementedError(f"{type(self).__name__} gives neither scores nor a selection of its own.")

    def groups(self, known: Known) -> np.ndarray | None:
        """(U,) of the pool, groups that take turns; None: whatever scores highest."""
        return None

    def select(self, known: Known, budget: int) -> Selection:
        """The `budget` samples with the highest scores; InputError unless budget is 1..len(known.unlabelled)."""
        check_budget(budget, known)
        return highest(self.scores(known), budget, known.seed, self.groups(known))


# === Pure functions ===


def check_budget(budget: int, known: Known) -> None:
    """InputError unless `budget` samples can be taken from the pool."""
    pool = len(known.unlabelled)
    if not 1 <= budget <= pool:
        raise InputError(
            f"A budget of {budget} samples was asked for and the pool has {pool}: expected from 1 to {pool}."
        )


def turns(groups: np.ndarray) -> np.ndarray:
    """How many of the same of `groups` (n,) stand before each: sorted by that, the groups take turns."""
    order = np.argsort(groups, kind="stable")
    _, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    before = np.empty(len(groups), np.int64)
    before[order] = np.arange(len(groups)) - np.repeat(first, sizes)
    return before


def highest(scores: np.ndarray, budget: int, seed: int, groups: np.ndarray | None = None) -> Selection:
    """The `budget` highest of `scores` (U,), highest first; with `groups` (U,) of each group in turn.

    Equal scores come in an order drawn by `seed`: a network that is certain of everything would else choose by place
    in the pool, which often means by class. InputError where a score is NaN.
    """
    scores = np.asarray(scores, dtype=np.float64)
    broken = int(np.isnan(scores).sum())
    if broken:
        raise InputError(
            f"{broken} of {len(scores)} samples got NaN for a score: the network diverged; train with a lower learning "
            "rate or --precision=float32."
        )
    order = np.lexsort((np.random.default_rng(seed).random(len(scores)), -scores))
    if groups is not None:
        order = order[np.argsort(turns(groups[order]), kind="stable")]
    order = order[:budget]
    return Selection(order.astype(np.int64), scores[order])


def feature_maps(network: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a functional `network` that give maps (batch, z, y, x, channels), from input to output.

    Those before the first layer with weights, which only cut or pad the volume, are none.
    """
    learning = itertools.dropwhile(lambda layer: not layer.weights, network.layers)
    return [layer for layer in learning if len(layer.output.shape) == 5]


def checked_option(name: str, option: str, value: Any, fits: bool, range_: str) -> Any:
    """`value`, or InputError that says what `option` of the strategy `name` must be."""
    if isinstance(value, bool) or not fits:
        raise InputError(f"{name}: {option}={value!r} must be {range_}.")
    return value


def whole(name: str, option: str, value: Any, least: int = 1) -> int:
    """The same of an integer of `least` or more."""
    fits = isinstance(value, (int, np.integer)) and value >= least
    return checked_option(name, option, value, fits, f"an integer of {least} or more")


def number(name: str, option: str, value: Any, fits: Callable[[float], bool], range_: str) -> float:
    """The same of a finite number that `fits`."""
    right = isinstance(value, (int, float, np.number)) and bool(np.isfinite(value)) and fits(value)
    return checked_option(name, option, value, right, range_)


def yes_or_no(name: str, option: str, value: Any) -> bool:
    """The same of a bool."""
    if not isinstance(value, bool):
        raise InputError(f"{name}: {option}={value!r} must be True or False.")
    return value
