"""Has the embedding collapsed? Two numbers that see it when the loss and the pretext accuracy do not."""

from __future__ import annotations

import numpy as np

from aitom_ssl.errors import InputError

# Share of the even spread 1/sqrt(d) below which an embedding is called collapsed. Healthy runs stay above 0.5; the
# pilot's collapsed run was at 0.05.
COLLAPSED = 0.2


def embedding_std(embedding: np.ndarray) -> float:
    """Spread of L2-normalised embeddings: standard deviation over the samples, averaged over the dimensions.

    `embedding` is (n, d), n >= 2. 0 when all rows point the same way (collapse), about 1/sqrt(d) when they are spread
    evenly over the sphere (Chen and He 2021, arXiv 2011.10566, figure 2).
    """
    rows = _checked(embedding)
    return float(unit_rows(rows).std(axis=0).mean())


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """(n, d) rows scaled to unit length; a zero row stays zero."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def effective_rank(embedding: np.ndarray) -> float:
    """Number of directions that the embedding really uses: exp of the entropy of its normalised singular values.

    `embedding` is (n, d), n >= 2; the result lies in [1, min(n - 1, d)], and is 0 when all rows are equal.
    Roy and Vetterli 2007. Differs from RankMe (Garrido et al. 2023, arXiv 2210.02885), which does not centre: pooled
    features share a large mean, which would count as one dominating direction.
    """
    rows = _checked(embedding)
    centred = rows - rows.mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False)
    # Rounding of the mean leaves ~1e-16 of the rows' size: that is no direction.
    singular = singular[singular > 1e-10 * max(np.linalg.norm(rows), 1e-300)]
    if singular.size == 0:
        return 0.0
    share = singular / singular.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _checked(embedding: np.ndarray) -> np.ndarray:
    rows = np.asarray(embedding, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise InputError(f"An embedding is (samples, dimensions), two samples or more. Received shape {rows.shape}.")
    return rows
