"""Masks of particles: from a batch of volumes, what they measure, and where each is written."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from aitom_ssl.data.importers.mrc_folder import central_crop
from aitom_ssl.data.sources import Source
from aitom_ssl.errors import InputError
from aitom_ssl.export.classifier import ModelFiles, find_run
from aitom_ssl.geometry import centre
from aitom_ssl.mrc import write_mrc
from aitom_ssl.oneshot.crf import CrfParameters, pydensecrf, refine, to_mask
from aitom_ssl.oneshot.trained import TrainedCOSNet, find_cosnet

MASKS, PROBABILITIES = "masks", "probabilities"


class Measured(NamedTuple):
    """What the mask of one particle is."""

    voxels: int
    volume_nm3: float
    pieces: int  # that touch each other nowhere, not even at a corner
    at_rim: int  # voxels in the outermost layer of the box: where there are any, the particle may go on outside
    probability: float  # mean over the mask; NaN of an empty one


def measure(mask: np.ndarray, probabilities: np.ndarray, voxel_size: float) -> Measured:
    """What a (z, y, x) bool mask is; `voxel_size` in A, `probabilities` of the same shape."""
    voxels = int(mask.sum())
    pieces = ndimage.label(mask, np.ones((3, 3, 3)))[1]
    within = int(mask[1:-1, 1:-1, 1:-1].sum())
    probability = float(probabilities[mask].mean()) if voxels else float("nan")
    return Measured(voxels, voxels * (voxel_size / 10) ** 3, int(pieces), voxels - within, probability)


# === From volumes ===


def find_segmenter(run: str | os.PathLike) -> ModelFiles:
    """The files of a finished run of train_cosnet with a decoder, before it is loaded; else InputError."""
    _, config = find_cosnet(run)
    if config.get("settings", {}).get("decoder") is False:
        raise InputError(f"{run} was trained without the volume decoder, which makes the masks: give another run.")
    return find_run(run)


class Segmenter:
    """Volumes to features and masks.

    field: parameters of the CRF, or None to take the network's probabilities as they are. size: box of the data, which
    masks are given in. InputError for a CRF without pydensecrf.
    """

    def __init__(self, network: TrainedCOSNet, field: CrfParameters | None, size: int):
        if field is not None:
            pydensecrf()
        self.network, self.field, self.size = network, field, size

    def __call__(self, volumes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features (n, d), masks (n, z, y, x) bool and their probabilities, of standardised volumes (n, z, y, x).

        The probabilities are the field's where there is one, else the network's.
        """
        features, probabilities = self.network(volumes, standardized=True)
        if self.field is not None:
            pairs = zip(probabilities, volumes, strict=True)
            probabilities = np.stack([refine(p, volume, self.field) for p, volume in pairs])
        probabilities = np.stack([in_box(p, self.size) for p in probabilities])
        return features, to_mask(probabilities), probabilities


def in_box(probabilities: np.ndarray, size: int) -> np.ndarray:
    """(z, y, x) cropped about the centre, or with zeros around it, to a cube of `size`: undoes `sources.fit_box`."""
    side = len(probabilities)
    if side >= size:
        return central_crop(probabilities, size)
    box = np.zeros((size,) * 3, probabilities.dtype)
    start = centre(size) - centre(side)
    box[(slice(start, start + side),) * 3] = probabilities
    return box


# === To files ===


def mask_header(source: Source) -> list[str]:
    """Columns of the table of masks."""
    return ["particle", *source.columns, "mask", *Measured._fields]


def mask_name(source: Source, index: int) -> str:
    """Where the mask of a particle goes below masks/: the name of its file, else its split and number, else its row."""
    columns = source.columns
    if "split" in columns:
        return f"{columns['split'][index]}/{int(columns['index'][index]):06d}.mrc"
    if "path" in columns:
        name = str(columns["path"][index])
        return name if name.endswith(".mrc") else f"{name}.mrc"
    image = re.sub(r"\W+", "_", Path(str(columns["image"][index])).stem) if "image" in columns else ""
    return f"row{int(columns['row'][index]) + 1:06d}{'_' + image if image else ''}.mrc"


def write_mask(
    folder: Path, source: Source, index: int, mask: np.ndarray, probabilities: np.ndarray, keep: bool
) -> list[Any]:
    """Write the mask (z, y, x) of particle `index` below `folder`, and with `keep` its probabilities.

    Returns:
        "mask" and `Measured` of its row in the table.
    """
    name = mask_name(source, index)
    write_mrc(folder / MASKS / name, mask, source.voxel_size, np.int8)
    if keep:
        write_mrc(folder / PROBABILITIES / name, probabilities, source.voxel_size)
    return [f"{MASKS}/{name}", *measure(mask, probabilities, source.voxel_size)]
