"""How well a known structure fits what was picked: the score by which candidates are chosen (Xu 2017, section 3.1.2).

    structure at 40 A  * contrast transfer function  ->  template
    box about each pick, smoothed with a Gaussian of 10 A, aligned to the template in every orientation  ->  score

The score is that of `discovery.alignment`: the constrained cross-correlation at the best rotation and shift, at most 1.
It falls with noise, so a threshold holds for one tomogram: sort by it, look at both ends, and choose.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from scipy import ndimage

from aitom_ssl import geometry
from aitom_ssl.discovery.alignment import Alignment, align_many, best_reference
from aitom_ssl.discovery.resolution import soft_sphere
from aitom_ssl.errors import InputError
from aitom_ssl.simulation import optics
from aitom_ssl.simulation.volume import crop
from aitom_ssl.structures import Density

RESOLUTION = 40.0
SMOOTHING = 10.0
_TOGETHER = 512  # picks cut out at a time


def ctf_template(
    density: Density,
    box_size: int,
    voltage_kv: float = 300.0,
    defocus_um: float = 5.0,
    cs_mm: float = 2.0,
    amplitude_contrast: float = 0.0,
) -> np.ndarray:
    """(box_size,) * 3 float32: a density as the microscope shows it, convolved with the CTF; protein stays bright.

    density: `structure.density(voxel_size, RESOLUTION)`. Without amplitude contrast the mean is 0. The rings that the
    CTF makes are cut off by the box. InputError for a structure that is larger than the box.
    """
    across = 2 * density.radius / density.voxel_size
    if box_size < math.ceil(across):
        raise InputError(
            f"The template is {across * density.voxel_size:.0f} A across, more than a box of {box_size} voxels of "
            f"{density.voxel_size:g} A: give a larger --box_size."
        )
    # Room for the rings, which would come in again at the other end.
    side = 2 * max(box_size, density.volume.shape[0])
    padded = np.zeros((side,) * 3, np.float32)
    start = geometry.centre(side) - geometry.centre(density.volume.shape[0])
    inside = slice(start, start + density.volume.shape[0])
    padded[inside, inside, inside] = density.volume
    kz, ky, kx = geometry.frequencies(padded.shape, density.voxel_size, half_axis=2)
    transfer = optics.ctf(
        np.sqrt(kx**2 + ky**2 + kz**2),
        0.5 / density.voxel_size,
        voltage_kv,
        defocus_um,
        cs_mm,
        amplitude_contrast,
    )
    seen = scipy.fft.irfftn(scipy.fft.rfftn(padded) * transfer.astype(np.float32), s=padded.shape)
    return np.ascontiguousarray(crop(seen, box_size))


def template_scores(
    tomogram: np.ndarray,
    positions: np.ndarray,
    template: np.ndarray,
    voxel_size: float,
    invert_contrast: bool = False,
    tilt_max: float | None = 60.0,
    smoothing: float = SMOOTHING,
    max_shift: float | None = None,
    radius: float | None = None,
    workers: int = 1,
) -> Alignment:
    """Pose of `template` about each of `positions` and its score: arrays (count, 4), (count, 3) and (count,).

    tomogram: (z, y, x). positions: (count, 3) whole voxels x, y, z, each at least half a box from the faces. template:
    a cube as large as the boxes that are cut, protein bright. voxel_size: A. invert_contrast: particles are dark.
    tilt_max: degrees about y, None for no missing wedge. smoothing: A, deviation of the Gaussian. max_shift: voxels, a
    quarter of the box by default; with more than half the distance of two picks, one finds the other's particle.
    radius: voxels, of the structure; boxes are looked at in a soft sphere that holds it at any such shift, so that the
    noise and the neighbours around a small structure do not count; None looks at all of a box. workers: processes,
    which do not change the answer.
    Raises InputError for a box that leaves the tomogram, and for one that is constant or has NaN voxels.
    """
    positions = np.asarray(positions)
    size = template.shape[0]
    if positions.ndim != 2 or positions.shape[1] != 3 or not len(positions):
        raise InputError(f"Positions are (count, 3), one at least. Received shape {positions.shape}.")
    low = positions[:, ::-1] - geometry.centre(size)
    out = np.flatnonzero(((low < 0) | (low + size > np.array(tomogram.shape))).any(axis=1))
    if len(out):
        where = ", ".join(f"{value:g}" for value in positions[out[0]])
        raise InputError(f"A box of {size} voxels about pick {out[0]} at ({where}) leaves the tomogram: leave it out.")
    shift = size / 4 if max_shift is None else max_shift
    mask = np.ones(template.shape, np.float32) if radius is None else soft_sphere(size, radius + shift)
    found = []
    for start in range(0, len(positions), _TOGETHER):
        boxes = []
        for i, corner in enumerate(low[start : start + _TOGETHER], start):
            box = tomogram[tuple(slice(first, first + size) for first in corner)].astype(np.float32)
            if not np.isfinite(box).all() or box.min() == box.max():
                raise InputError(f"The box about pick {i} is constant or has NaN voxels: pick elsewhere (--box_size).")
            box = ndimage.gaussian_filter(-box if invert_contrast else box, smoothing / voxel_size)
            boxes.append((box - np.average(box, weights=mask)) * mask)
        aligned = align_many(boxes, [template], tilt_max, max_shift=shift, workers=workers)
        found.append(best_reference(aligned)[1])
    return Alignment(*(np.concatenate(field) for field in zip(*found, strict=True)))
