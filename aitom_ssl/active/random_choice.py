"""A strategy that knows nothing: what every other one must beat."""

from __future__ import annotations

import numpy as np

from aitom_ssl.active.strategy import Known, Strategy


class RandomChoice(Strategy):
    """Every sample of the pool is as likely as any other; the scores are the draws, uniform in [0, 1)."""

    name = "random"

    def scores(self, known: Known) -> np.ndarray:
        return np.random.default_rng([known.seed, 1]).random(len(known.unlabelled))
