"""The loss of one-shot classification: which class of the support set is a target's?"""

from __future__ import annotations

from typing import Any

from keras import ops

from aitom_ssl.errors import InputError

READOUTS = ("softmax", "sigmoid")
# exp of this is 0 in float32, where -inf could make NaN.
_ABSENT = -1e9


def matching_loss(logits: Any, labels: Any, readout: str = "softmax") -> Any:
    """Binary cross-entropy of match or no match between targets and support classes, averaged over all pairs.

    Zhou 2020, section 2: the truth is 1 where the classes are the same and 0 elsewhere. The probability of a match is,
    by `readout`, the "softmax" of a target's logits over the support classes (the paper), or the "sigmoid" of each
    logit by itself (the authors' code). With "softmax" a constant added to all logits changes nothing: only "sigmoid"
    teaches what does not depend on the other classes at hand.

    Args:
        logits: (..., targets, classes).
        labels: (..., targets) ints, the class of each target.
        readout: one of `READOUTS`.

    Returns:
        Scalar, float32 whatever `logits` is; finite for any finite logits.

    Raises:
        InputError: on another `readout`.
    """
    if readout not in READOUTS:
        raise InputError(f"readout={readout!r} must be one of {', '.join(READOUTS)}.")
    logits = ops.cast(logits, "float32")
    classes = logits.shape[-1]
    match = ops.one_hot(labels, classes, dtype="float32")
    if readout == "sigmoid":
        yes, no = ops.log_sigmoid(logits), ops.log_sigmoid(-logits)
    else:
        yes = ops.log_softmax(logits, axis=-1)
        # log(1 - p) is the share of the others, which stays exact where p is nearly 1.
        others = ops.where(ops.eye(classes, dtype="bool"), _ABSENT, logits[..., None, :])
        no = ops.logsumexp(others, axis=-1) - ops.logsumexp(logits, axis=-1, keepdims=True)
    return -ops.mean(match * yes + (1 - match) * no)
