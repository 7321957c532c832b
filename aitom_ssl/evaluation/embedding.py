"""An embedding flattened to two dimensions, to be looked at."""

from __future__ import annotations

import numpy as np
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from aitom_ssl.data.batches import subsample
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.collapse import unit_rows
from aitom_ssl.evaluation.probes import standardize_features


def tsne(features: np.ndarray, seed: int = 0, limit: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """(m, 2) t-SNE points and the (m,) indices of the samples they show; m = min(n, `limit`), drawn by `seed`.

    `features` (n, d), n >= 4, are standardised and their rows scaled to unit length, the geometry in which encoders are
    compared by kNN, then reduced to at most 50 principal components. Perplexity min(30, (m - 1) / 3). Distances between
    far clusters mean little in t-SNE.
    """
    features = _checked(features)
    chosen = subsample(len(features), limit, seed)
    rows = unit_rows(*standardize_features(features[chosen]))
    rows, _ = pca(rows, min(50, *rows.shape))
    perplexity = min(30.0, (len(rows) - 1) / 3)
    # The "pca" start divides by the first component's spread: NaN where all features are equal.
    start = "pca" if rows.std() > 0 else "random"
    # On a busy machine threads wait for each other longer than they work: 2 took 5 to 14 times as long as 1.
    with threadpool_limits(1):
        points = TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(rows)
    return points, chosen


def pca(features: np.ndarray, components: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """(n, components) principal components of `features` (n, d) and the share of the variance that each explains."""
    features = _checked(features)
    if not 1 <= components <= min(features.shape):
        raise InputError(f"components must lie in 1..{min(features.shape)}. Received {components}.")
    left, singular, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    variance = singular**2
    share = variance / max(variance.sum(), 1e-300)
    return (left * singular)[:, :components], share[:components]


def _checked(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < 4:
        raise InputError(f"An embedding to draw is (samples, features), four or more. Received {features.shape}.")
    if not np.isfinite(features).all():
        raise InputError("The features hold NaN or infinity: the encoder diverged. Expected finite numbers.")
    return features
