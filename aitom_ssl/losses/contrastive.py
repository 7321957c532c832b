"""Contrastive losses."""

from __future__ import annotations

from typing import Any

from keras import ops

from aitom_ssl.errors import InputError

# -inf would make NaN gradients; exp of this is 0 in float32.
_MASKED = -1e9


def info_nce(queries: Any, keys: Any, queue: Any, temperature: float, valid: Any = None) -> Any:
    """InfoNCE of MoCo (He 2020, eq. 1; SSL 2022, section 3.1.1): find the own key among the keys of other volumes.

    -log( exp(q.k / T) / (exp(q.k / T) + sum_i exp(q.queue_i / T)) ), averaged over the batch.

    Args:
        queries: (batch, dim), rows of unit length.
        keys: (batch, dim), rows of unit length; row i is the positive of query i.
        queue: (size, dim), rows of unit length; the negatives of every query.
        temperature: > 0.
        valid: (size,) bool, which rows of the queue hold keys; the others take no part. None: all.

    Returns:
        Scalar, float32 whatever the inputs are; in [0, 2 / T + ln(1 + size)]. No negatives: 0.

    Raises:
        InputError: on a temperature that is not positive.
    """
    return ops.mean(info_nce_logits_loss(info_nce_logits(queries, keys, queue, temperature, valid)))


def info_nce_logits(queries: Any, keys: Any, queue: Any, temperature: float, valid: Any = None) -> Any:
    """(batch, 1 + size) float32 similarities over temperature; column 0 is the positive. Arguments as `info_nce`."""
    if not temperature > 0:
        raise InputError(f"temperature={temperature!r} must be above 0 (the paper's is 0.2).")
    queries, keys, queue = (ops.cast(t, "float32") for t in (queries, keys, queue))
    positive = ops.sum(queries * keys, axis=-1, keepdims=True)
    negative = ops.matmul(queries, ops.transpose(queue))
    logits = ops.concatenate([positive, negative], axis=1) / temperature
    if valid is None:
        return logits
    valid = ops.concatenate([ops.ones((1,), dtype="bool"), ops.cast(valid, "bool")], axis=0)
    return ops.where(valid[None, :], logits, _MASKED)


def info_nce_logits_loss(logits: Any) -> Any:
    """(batch,) cross-entropy of the positive, column 0 of `info_nce_logits`."""
    return ops.logsumexp(logits, axis=1) - logits[:, 0]


def nt_xent(z1: Any, z2: Any, temperature: float) -> Any:
    """NT-Xent of SimCLR (Chen 2020, eq. 1): find a volume's other view among all other views of the batch.

    -log( exp(s_ij / T) / sum over k != i of exp(s_ik / T) ), s the cosine similarity, averaged over all 2 * batch views
    i, with j the other view of the same volume. A view's similarity with itself is masked, so it takes no part in the
    sum or the gradient.

    Differs from the TensorFlow code of SimCLR, which adds the averages over the two views: its value is twice this one.

    Args:
        z1: (batch, dim) embeddings of the first views; any length, only directions count.
        z2: (batch, dim) embeddings of the second views; row i is of the same volume as row i of `z1`.
        temperature: > 0.

    Returns:
        Scalar, float32 whatever the inputs are; in [0, 2 / T + ln(2 * batch - 1)]. One volume has no negatives: 0.

    Raises:
        InputError: on a temperature that is not positive.
    """
    logits = nt_xent_logits(l2_normalize(z1), l2_normalize(z2), temperature)
    return ops.mean(nt_xent_logits_loss(logits))


def nt_xent_logits(z1: Any, z2: Any, temperature: float) -> Any:
    """(2 * batch, 2 * batch) float32 similarities of unit rows over temperature, -1e9 on the diagonal.

    Rows and columns are the first views, then the second views; the positives are `nt_xent_positives`.
    """
    if not temperature > 0:
        raise InputError(f"temperature={temperature!r} must be above 0 (SimCLR's is 0.1).")
    views = ops.concatenate([ops.cast(z1, "float32"), ops.cast(z2, "float32")], axis=0)
    logits = ops.matmul(views, ops.transpose(views)) / temperature
    index = ops.arange(ops.shape(views)[0])
    return ops.where(ops.equal(index[:, None], index[None, :]), _MASKED, logits)


def nt_xent_positives(logits: Any) -> Any:
    """(2 * batch,) the column of each row's other view in `nt_xent_logits`."""
    views = ops.shape(logits)[0]
    return (ops.arange(views) + views // 2) % views


def nt_xent_logits_loss(logits: Any) -> Any:
    """(2 * batch,) cross-entropy of each view's positive in `nt_xent_logits`."""
    positive = ops.take_along_axis(logits, nt_xent_positives(logits)[:, None], axis=1)
    return ops.logsumexp(logits, axis=1) - positive[:, 0]


def l2_normalize(embeddings: Any) -> Any:
    """(batch, dim) to float32 rows of unit length; a zero row stays zero, and so does its gradient."""
    embeddings = ops.cast(embeddings, "float32")
    square = ops.sum(ops.square(embeddings), axis=-1, keepdims=True)
    return embeddings * ops.rsqrt(ops.maximum(square, 1e-24))
