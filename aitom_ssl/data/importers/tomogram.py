"""Subtomograms cut out of a tomogram at given coordinates."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from aitom_ssl.data.importers.coordinates import Coordinates, read_csv
from aitom_ssl.data.importers.particles import Particles
from aitom_ssl.data.importers.star import read_star
from aitom_ssl.errors import InputError
from aitom_ssl.files import sha256
from aitom_ssl.geometry import centre
from aitom_ssl.mrc import choose_voxel_size, read_mrc

EDGES = ("drop", "pad")


def tomogram_particles(
    tomogram: str | Path,
    coordinates: str | Path,
    box_size: int,
    voxel_size: float | None = None,
    edge: str = "drop",
    tomogram_name: str | None = None,
    coordinate_voxel_size: float | None = None,
    centre_offset: float = -1.0,
    label_column: str | None = None,
) -> Particles:
    """Particles of `tomogram` (MRC) at the coordinates of a CSV or STAR file, in boxes of `box_size` voxels.

    Positions are rounded to the nearest voxel, which becomes the box's centre voxel n // 2; what rounding left over is
    kept as `shift` (voxels, x, y, z). A box that leaves the tomogram is dropped, or with `edge="pad"` filled with the
    mean of its inside as long as the particle's centre is inside. The other arguments are those of `read_star`.
    An uncompressed tomogram is memory-mapped: memory does not grow with it.
    Raises InputError for a box larger than the tomogram, when no particle is left, and what the readers refuse.
    """
    tomogram, coordinates = Path(tomogram), Path(coordinates)
    if edge not in EDGES:
        raise InputError(f"--edge={edge}: expected one of {', '.join(EDGES)}.")
    volume, header = read_mrc(tomogram)
    voxel_size = choose_voxel_size(header, voxel_size, tomogram)
    sides = "x".join(map(str, volume.shape[::-1]))
    if box_size < 2 or box_size > min(volume.shape):
        raise InputError(
            f"--box_size={box_size} does not fit in {tomogram} ({sides} voxels, x, y, z): expected 2 to "
            f"{min(volume.shape)}."
        )
    found = _read_coordinates(
        coordinates, volume.shape, voxel_size, tomogram_name, coordinate_voxel_size, centre_offset, label_column
    )
    # However far outside a position is, it fits an integer.
    nearest = np.floor(np.clip(found.positions, -(2.0**31), 2.0**31) + 0.5).astype(np.int64)
    limits = np.array(volume.shape[::-1])
    within = np.all((nearest >= 0) & (nearest < limits), axis=1)
    starts = nearest - centre(box_size)
    whole = np.all((starts >= 0) & (starts + box_size <= limits), axis=1)
    kept = np.flatnonzero(within if edge == "pad" else whole)
    notes = [f"coordinates are {found.unit}; the tomogram is {sides} voxels of {voxel_size:g} A."]
    if not len(kept):
        raise InputError(_nothing_left(found, tomogram, sides, coordinates, box_size, bool(within.any())))
    notes += _dropped(found, within, kept, box_size, coordinates)
    notes += _coverage(found, limits)
    class_names = sorted(set(found.labels)) if found.labels else []
    labels = np.full(len(kept), -1, dtype=np.int64)
    if found.labels:
        labels = np.array([class_names.index(found.labels[i]) for i in kept], dtype=np.int64)

    def read(i: int) -> dict:
        particle = kept[i]
        sample = {
            "volume": cut(volume, nearest[particle], box_size),
            "row": int(found.rows[particle]),
            "position": found.positions[particle],
            "shift": found.positions[particle] - nearest[particle],
        }
        if found.quaternions is not None:
            sample["quaternion"] = found.quaternions[particle]
        return sample

    return Particles(
        class_names=class_names,
        labels=labels,
        voxel_size=voxel_size,
        size=box_size,
        read=read,
        describe=lambda i: f"The box of row {found.rows[kept[i]] + 1} of {coordinates} in {tomogram}",
        source={
            "kind": "tomogram",
            "tomogram": {"name": tomogram.name, "sha256": sha256(tomogram), "shape_zyx": list(volume.shape)},
            "coordinates": {"name": coordinates.name, "sha256": sha256(coordinates), "unit": found.unit},
            "edge": edge,
            "rows": len(found.rows),
        },
        notes=notes,
        rows=found.rows[kept],
        positions=found.positions[kept],
    )


def cut(volume: np.ndarray, position: np.ndarray, size: int) -> np.ndarray:
    """The float32 box of `size` voxels whose centre voxel is at `position` (x, y, z, integers) of a (z, y, x) volume.

    Voxels outside the volume take the mean of those inside; at least one must be inside.
    """
    starts = [int(p) - centre(size) for p in position[::-1]]
    inside = tuple(slice(max(s, 0), min(s + size, n)) for s, n in zip(starts, volume.shape, strict=True))
    part = np.asarray(volume[inside], dtype=np.float32)
    if part.shape == (size,) * 3:
        return part
    box = np.full((size,) * 3, part.mean(dtype=np.float64), dtype=np.float32)
    box[tuple(slice(i.start - s, i.stop - s) for i, s in zip(inside, starts, strict=True))] = part
    return box


def _read_coordinates(
    path: Path,
    shape: tuple[int, int, int],
    voxel_size: float,
    tomogram_name: str | None,
    coordinate_voxel_size: float | None,
    centre_offset: float,
    label_column: str | None,
) -> Coordinates:
    if coordinate_voxel_size is not None and not 0 < coordinate_voxel_size < math.inf:
        raise InputError(f"--coordinate_voxel_size={coordinate_voxel_size:g}: expected a positive number of angstroms.")
    if path.suffix.lower() == ".csv":
        return read_csv(path, voxel_size, coordinate_voxel_size, label_column)
    if path.suffix.lower() == ".star":
        return read_star(
            path, shape, voxel_size, tomogram_name, coordinate_voxel_size, centre_offset, label_column
        )
    raise InputError(f"--coordinates={path}: expected a name that ends in .csv or .star.")


def _nothing_left(
    found: Coordinates, tomogram: Path, sides: str, coordinates: Path, box_size: int, any_within: bool
) -> str:
    reach = "x".join(f"{value:g}" for value in found.positions.max(axis=0))
    lead = f"None of the {len(found.rows)} particles of {coordinates} has its box of {box_size} inside {tomogram}"
    if any_within:
        return f"{lead} ({sides} voxels): choose a smaller --box_size, or fill what is missing with --edge=pad."
    return (
        f"{lead}: read as {found.unit}, they reach {reach}, the tomogram is {sides} voxels. Were they picked at "
        f"another binning? Give the pixel they are counted in with --coordinate_voxel_size=ANGSTROMS."
    )


def _dropped(
    found: Coordinates, within: np.ndarray, kept: np.ndarray, box_size: int, coordinates: Path
) -> list[str]:
    dropped = np.setdiff1d(np.arange(len(found.rows)), kept)
    if not len(dropped):
        return []
    rows = ", ".join(str(row + 1) for row in found.rows[dropped[:10]]) + (", ..." if len(dropped) > 10 else "")
    outside = int(np.sum(~within))
    return [
        f"{len(dropped)} of {len(found.rows)} particles dropped: {outside} lie outside the tomogram, of the others the "
        f"box of {box_size} leaves it (rows {rows} of {coordinates.name})."
    ]


def _coverage(found: Coordinates, limits: np.ndarray) -> list[str]:
    """A hint where many coordinates all lie in the low corner in x and y: picked at a coarser binning, most likely."""
    reach = found.positions[:, :2].max(axis=0) / limits[:2]
    if len(found.rows) < 20 or reach.max() > 0.6:
        return []
    return [
        f"the coordinates cover only {reach[0]:.0%} of x and {reach[1]:.0%} of y: if they were picked at another "
        f"binning, give --coordinate_voxel_size."
    ]
