"""Samples whose class the network is least sure of: entropy and margin of its probabilities."""

from __future__ import annotations

import numpy as np
from scipy.special import entr

from aitom_ssl.active.strategy import Known, Strategy
from aitom_ssl.errors import InputError


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Shannon's entropy -sum p ln p over the last axis of `probabilities` (..., C), in nats: 0 to ln C; 0 ln 0 is 0."""
    return entr(np.asarray(probabilities, dtype=np.float64)).sum(axis=-1)


def margin(probabilities: np.ndarray) -> np.ndarray:
    """1 minus what the likeliest class is ahead of the next, of `probabilities` (n, C), C >= 2: (n,) in [0, 1].

    "Best versus second best" of Joshi 2009, turned so that larger is less sure.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.shape[1] < 2:
        raise InputError("A margin is between two classes, and there is only one: take another strategy.")
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return 1 - (first - second)


class Entropy(Strategy):
    """Highest entropy first."""

    name = "entropy"

    def scores(self, known: Known) -> np.ndarray:
        return entropy(known.probabilities)


class Margin(Strategy):
    """Smallest margin first."""

    name = "margin"

    def scores(self, known: Known) -> np.ndarray:
        return margin(known.probabilities)
