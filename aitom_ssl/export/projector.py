"""Files of TensorBoard's embedding projector, written without TensorBoard: `tensorboard --logdir=FOLDER` shows them.

    tensors.tsv            one row a sample, numbers with tabs between, no header
    metadata.tsv           a header, then one row a sample
    sprite.png             a small picture of each sample, row by row from the top left
    projector_config.pbtxt text of the message tensorboard.projector.ProjectorConfig, which names the others

What TensorBoard asks for: metadata has a header only where there are two columns or more; the sprite has as many rows
as columns of pictures, and 8,192 pixels a side at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imsave

from aitom_ssl.errors import InputError
from aitom_ssl.geometry import centre

# A hundred rows of them stay within the sprite's 8,192 pixels.
TILE = 48
MOST = 10_000
_SLAB = 2


def thumbnails(volumes: np.ndarray) -> np.ndarray:
    """(n, side, side) uint8 pictures (y, x) of (n, z, y, x) `volumes`, n >= 1: the five central z slices, averaged.

    Black to white is the 1st to 99th percentile of each. Of boxes wider than 48 voxels every second (third, ...) voxel
    is taken.
    """
    middle, step = centre(volumes.shape[1]), math.ceil(volumes.shape[2] / TILE)
    pictures = volumes[:, max(middle - _SLAB, 0) : middle + _SLAB + 1, ::step, ::step].mean(axis=1)
    low, high = np.percentile(pictures, (1, 99), axis=(1, 2), keepdims=True)
    return np.clip(255 * (pictures - low) / np.maximum(high - low, 1e-12), 0, 255).astype(np.uint8)


def sprite(pictures: np.ndarray) -> np.ndarray:
    """One square picture of (n, side, side) uint8 `pictures`, as many columns as rows, y upwards as in our figures."""
    count, side = len(pictures), pictures.shape[1]
    columns = math.ceil(math.sqrt(count))
    cells = np.zeros((columns * columns, side, side), np.uint8)
    cells[:count] = pictures[:, ::-1]
    return cells.reshape(columns, columns, side, side).swapaxes(1, 2).reshape(columns * side, columns * side)


def write_projector(
    folder: Path,
    features: np.ndarray,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    pictures: np.ndarray,
) -> None:
    """Write the files into a new `folder`.

    features: (n, d), d >= 2, n <= 10,000. columns: two or more names; rows: n rows of their values. pictures:
    (n, side, side) uint8, side <= 48.
    """
    count = len(features)
    if count > MOST or len(columns) < 2 or features.shape[1] < 2 or pictures.shape[1] > TILE:
        raise InputError(
            f"The projector takes up to {MOST:,} samples, 2 columns and 2 features or more, pictures of up to {TILE} "
            f"pixels. Received {count:,}, {len(columns)}, {features.shape[1]} and {pictures.shape[1]}."
        )
    folder.mkdir()
    with open(folder / "tensors.tsv", "w", encoding="utf-8") as file:
        file.writelines("\t".join(f"{value:.5g}" for value in row) + "\n" for row in features.tolist())
    with open(folder / "metadata.tsv", "w", encoding="utf-8") as file:
        file.writelines("\t".join(_cell(value) for value in row) + "\n" for row in [columns, *rows])
    imsave(folder / "sprite.png", np.repeat(sprite(pictures)[..., None], 3, axis=2))
    side = pictures.shape[1]
    config = f"""embeddings {{
  tensor_name: "features"
  tensor_path: "tensors.tsv"
  tensor_shape: [{count}, {features.shape[1]}]
  metadata_path: "metadata.tsv"
  sprite {{
    image_path: "sprite.png"
    single_image_dim: [{side}, {side}]
  }}
}}
"""
    (folder / "projector_config.pbtxt").write_text(config, encoding="utf-8")


def _cell(value: Any) -> str:
    """On one line, without tabs."""
    return " ".join(str(value).split())
