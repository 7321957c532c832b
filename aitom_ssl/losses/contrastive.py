"""Contrastive losses."""

from __future__ import annotations

from typing import Any

from keras import ops

from aitom_ssl.errors import InputError


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
    # -inf would make NaN gradients; exp of this is 0 in float32.
    return ops.where(valid[None, :], logits, -1e9)


def info_nce_logits_loss(logits: Any) -> Any:
    """(batch,) cross-entropy of the positive, column 0 of `info_nce_logits`."""
    return ops.logsumexp(logits, axis=1) - logits[:, 0]


def l2_normalize(embeddings: Any) -> Any:
    """(batch, dim) to float32 rows of unit length; a zero row stays zero, and so does its gradient."""
    embeddings = ops.cast(embeddings, "float32")
    square = ops.sum(ops.square(embeddings), axis=-1, keepdims=True)
    return embeddings * ops.rsqrt(ops.maximum(square, 1e-24))
