"""Core-set (Sener and Savarese 2018, arXiv 1708.00489): samples that leave no part of the pool far from a label.

k-center greedy (algorithm 1): again and again the sample farthest from all labelled and chosen ones, by Euclidean
distance of the features that go into the last layer. Published codes differ from one another where the paper is silent;
here: features are as they are, not normalised (as in Google's code); with nothing labelled the first sample is random
and the others greedy (scikit-activeml once drew the whole first batch at random); each choice updates the distances to
the nearest centre, all pairs are never held. Differs from the paper, whose second half moves the greedy solution by
mixed integer programmes with outliers (Gurobi), which its authors and every user leave out.
"""

from __future__ import annotations

import numpy as np

from aitom_ssl.active.strategy import Known, Selection, Strategy, check_budget
from aitom_ssl.errors import InputError

# Labelled rows whose distances to the pool are held at a time.
_CHUNK = 256


def k_center_greedy(
    features: np.ndarray, labelled_features: np.ndarray, budget: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Which `budget` rows of `features` (U, F) to take, and how far each was from its nearest centre when it was.

    Centres are the rows of `labelled_features` (L, F), L >= 0, and those already taken. With no centre the first row is
    drawn from `rng`, and has for a distance that of the row farthest from it. Rows at equal distances are in an order
    that `rng` draws. Computes in float32, in U (F + 256) numbers of memory.

    Returns (budget,) int64 without repeats and (budget,) float64, which never rises. InputError on features that are
    not finite.
    """
    features, labelled_features = np.asarray(features, np.float32), np.asarray(labelled_features, np.float32)
    order = rng.permutation(len(features))
    # |a - b|^2 = |a|^2 + |b|^2 - 2ab loses what is small beside |a|^2: take out what all rows have in common.
    common = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    pool = features[order]
    pool -= common
    squares = _squares(pool)
    if not (np.isfinite(squares).all() and np.isfinite(labelled_features).all()):
        raise InputError(
            "Features hold NaN or infinity: the network diverged; train with a lower learning rate or "
            "--precision=float32."
        )
    nearest = np.full(len(pool), np.inf, np.float32)
    for start in range(0, len(labelled_features), _CHUNK):
        centres = labelled_features[start : start + _CHUNK] - common
        products = pool @ centres.T
        products *= -2
        products += _squares(centres)
        np.minimum(nearest, np.maximum(products.min(axis=1) + squares, 0), out=nearest)

    taken, distances = np.zeros(budget, np.int64), np.zeros(budget)
    for step in range(budget):
        pick = int(nearest.argmax())
        taken[step], distances[step] = pick, np.sqrt(nearest[pick])
        to_pick = pool @ pool[pick]
        to_pick *= -2
        to_pick += squares
        to_pick += squares[pick]
        if step == 0 and len(labelled_features) == 0:
            distances[0] = np.sqrt(max(to_pick.max(), 0))
        np.minimum(nearest, np.maximum(to_pick, 0, out=to_pick), out=nearest)
        # Below every distance, those of equal rows too.
        nearest[pick] = -1
    return order[taken].astype(np.int64), distances


def _squares(rows: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", rows, rows)


class CoreSet(Strategy):
    """k-center greedy; a score is the distance to the nearest labelled or chosen sample when this one was chosen."""

    name = "core_set"

    def select(self, known: Known, budget: int) -> Selection:
        check_budget(budget, known)
        rng = np.random.default_rng(known.seed)
        return Selection(*k_center_greedy(known.features, known.labelled_features, budget, rng))
