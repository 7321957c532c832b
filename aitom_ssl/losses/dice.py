"""The Dice loss of segmentations."""

from __future__ import annotations

from typing import Any

from keras import ops

from aitom_ssl.errors import InputError

OVER = ("batch", "volume")


def dice_loss(y_true: Any, y_pred: Any, smooth: float = 1.0, over: str = "batch") -> Any:
    """1 - (2 sum(p g) + smooth) / (sum(p) + sum(g) + smooth), the soft Dice coefficient's complement (Zhou 2020).

    The sums run over the whole batch, as in the authors' code: masks count by their voxels, and a small particle hardly
    at all beside a large one. With `over="volume"` each has its own loss, and the mean is taken: all count alike.

    Args:
        y_true: masks g, any shape, 0 or 1 (any type); with `over="volume"` (..., z, y, x, channels).
        y_pred: probabilities p in [0, 1], of the same shape.
        smooth: > 0; keeps the loss of an empty mask finite, and 0 where nothing is predicted. The code's is 1.
        over: one of `OVER`.

    Returns:
        Scalar, float32 whatever the inputs are; in [0, 1).

    Raises:
        InputError: on a `smooth` that is not positive, another `over`, or shapes that differ.
    """
    if not smooth > 0:
        raise InputError(f"smooth={smooth!r} must be above 0 (the code of Zhou 2020 has 1).")
    if over not in OVER:
        raise InputError(f"over={over!r} must be one of {', '.join(OVER)}.")
    shapes = tuple(y_true.shape), tuple(y_pred.shape)
    if len(shapes[0]) != len(shapes[1]) or any(None not in (a, b) and a != b for a, b in zip(*shapes, strict=True)):
        raise InputError(f"dice_loss: masks {shapes[0]} and probabilities {shapes[1]} must have one shape.")
    truth, predicted = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    axes = None if over == "batch" else (-4, -3, -2, -1)
    overlap, total = ops.sum(truth * predicted, axes), ops.sum(truth, axes) + ops.sum(predicted, axes)
    return ops.mean(1 - (2 * overlap + smooth) / (total + smooth))
