"""SwAV's loss: balanced soft cluster assignments of one view, predicted from the other views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from aitom_ssl.errors import InputError

# exp of this is 0 in float32, where -inf could make NaN.
_ABSENT = -1e30


def sinkhorn(scores: Any, epsilon: float = 0.05, iterations: int = 3, valid: Any = None) -> Any:
    """Codes of SwAV (Caron 2020, eq. 3 to 5): soft assignments to prototypes that share the samples equally.

    Q = diag(u) exp(scores / epsilon) diag(v), by Sinkhorn-Knopp (Cuturi 2013): in turn every prototype is given the
    same total, and every sample a total of 1. Computed in the log domain: exp(1 / 0.05) does not fit into half
    precision, and subtracting each row's own maximum, unlike this, changes the result of a few iterations.

    Args:
        scores: (samples, prototypes) similarities, usually cosines.
        epsilon: > 0, the weight of entropy: small gives codes near to one prototype each, large gives even codes.
        iterations: >= 1; after 3, as published, prototypes share only roughly equally.
        valid: (samples,) bool, which samples there are; the others take no part. None: all.

    Returns:
        (samples, prototypes) float32 whatever `scores` is, rows sum to 1 (rows that are not valid: 0); no gradient
        flows into it.

    Raises:
        InputError: on a value out of range.
    """
    if not epsilon > 0:
        raise InputError(f"epsilon={epsilon!r} must be above 0 (SwAV's is 0.05).")
    if not isinstance(iterations, int) or iterations < 1:
        raise InputError(f"iterations={iterations!r} must be an integer of 1 or more (SwAV's is 3).")
    log_kernel = ops.stop_gradient(ops.cast(scores, "float32")) / epsilon
    valid = ops.ones_like(log_kernel[:, :1], dtype="bool") if valid is None else ops.cast(valid, "bool")[:, None]
    log_u, log_v = 0.0, 0.0
    for _ in range(iterations):
        # A common factor of u, or of v, changes nothing: the totals need no division by the numbers of either.
        log_u = -ops.logsumexp(ops.where(valid, log_kernel + log_v, _ABSENT), axis=0, keepdims=True)
        log_v = -ops.logsumexp(log_kernel + log_u, axis=1, keepdims=True)
    return ops.where(valid, ops.softmax(log_kernel + log_u, axis=1), 0.0)


def swapped_prediction(scores: Sequence[Any], codes: Sequence[Any], temperature: float = 0.1) -> Any:
    """SwAV's loss (Caron 2020, eq. 2, and its multi-crop form): each view's code, predicted from every other view.

    The mean over the views i that have a code, and over the views j != i, of the cross-entropy of code i and
    softmax(scores j / T), averaged over the batch.

    Args:
        scores: one (batch, prototypes) a view, two views or more: similarities to the prototypes.
        codes: one (batch, prototypes) for each of the first views, at least one; rows sum to 1. Constants here.
        temperature: > 0.

    Returns:
        Scalar, float32 whatever the inputs are; ln(prototypes) where scores say nothing.

    Raises:
        InputError: on a temperature that is not positive, or numbers of views and codes that do not fit.
    """
    if not temperature > 0:
        raise InputError(f"temperature={temperature!r} must be above 0 (SwAV's is 0.1).")
    if len(scores) < 2 or not 1 <= len(codes) <= len(scores):
        raise InputError(
            f"swapped_prediction: {len(scores)} views with {len(codes)} codes: give the scores of 2 views or more, and "
            "the codes of the first of them, 1 or more."
        )
    predicted = [ops.log_softmax(ops.cast(s, "float32") / temperature, axis=-1) for s in scores]
    losses = []
    for i, code in enumerate(codes):
        code = ops.stop_gradient(ops.cast(code, "float32"))
        losses += [-ops.mean(ops.sum(code * p, axis=-1)) for j, p in enumerate(predicted) if j != i]
    return sum(losses) / len(losses)
