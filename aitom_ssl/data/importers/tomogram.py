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
# Of two half tomograms: boxes that are compared, the correlation from which they are one image, and below which they
# share hardly any signal, and the ratio of their deviations from which they were not reconstructed alike.
COMPARED, SAME, UNRELATED, UNEQUAL = 16, 0.9999, 0.01, 1.5


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
    tomogram_b: str | Path | None = None,
) -> Particles:
    """Particles of `tomogram` (MRC) at the coordinates of a CSV or STAR file, in boxes of `box_size` voxels.

    Positions are rounded to the nearest voxel, which becomes the box's centre voxel n // 2; what rounding left over is
    kept as `shift` (voxels, x, y, z). A box that leaves the tomogram is dropped, or with `edge="pad"` filled with the
    mean of its inside as long as the particle's centre is inside. The other arguments are those of `read_star`.
    `tomogram_b` is the other of two half tomograms, from even and odd tilts or frames: particles are then their mean,
    with the crop of `tomogram_b` as half image B. Boxes of the two are compared, and what was found is in the notes.
    An uncompressed tomogram is memory-mapped: memory does not grow with it.
    Raises InputError for a box larger than the tomogram, when no particle is left, what the readers refuse, and half
    tomograms that differ in shape or voxel size, hold the same image, or of which one is empty.
    """
    tomogram, coordinates = Path(tomogram), Path(coordinates)
    other = None if tomogram_b is None else Path(tomogram_b)
    if edge not in EDGES:
        raise InputError(f"--edge={edge}: expected one of {', '.join(EDGES)}.")
    volume, header = read_mrc(tomogram)
    given, voxel_size = voxel_size, choose_voxel_size(header, voxel_size, tomogram)
    sides = _sides(volume)
    second = None if other is None else _other_half(other, given, tomogram, volume, voxel_size)
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

    def describe(i: int) -> str:
        files = tomogram if other is None else f"{tomogram} and {other}"
        return f"The box of row {found.rows[kept[i]] + 1} of {coordinates} in {files}"

    def halves(i: int) -> tuple[np.ndarray, np.ndarray]:
        images = [cut(one, nearest[kept[i]], box_size) for one in (volume, second)]
        for path, image in zip((tomogram, other), images, strict=True):
            if image.min() == image.max():
                raise InputError(
                    f"{describe(i)}: that of {path.name} is constant ({image[0, 0, 0]:g}). Leave that row out, or "
                    "reconstruct that half again."
                )
        return images[0], images[1]

    def read(i: int) -> dict:
        particle = kept[i]
        if second is None:
            images = {"volume": cut(volume, nearest[particle], box_size)}
        else:
            a, b = halves(i)
            images = {"volume": (a + b) / 2, "half": b}
        sample = {
            **images,
            "row": int(found.rows[particle]),
            "position": found.positions[particle],
            "shift": found.positions[particle] - nearest[particle],
        }
        if found.quaternions is not None:
            sample["quaternion"] = found.quaternions[particle]
        return sample

    files = {"tomogram": _identity(tomogram, volume)}
    if second is not None:
        compared = np.unique(np.linspace(0, len(kept) - 1, COMPARED).astype(int))
        notes += _compare([halves(int(i)) for i in compared], tomogram, other)
        files["tomogram_b"] = _identity(other, second)
    return Particles(
        class_names=class_names,
        labels=labels,
        voxel_size=voxel_size,
        size=box_size,
        read=read,
        describe=describe,
        source={
            "kind": "tomogram",
            **files,
            "coordinates": {"name": coordinates.name, "sha256": sha256(coordinates), "unit": found.unit},
            "edge": edge,
            "rows": len(found.rows),
        },
        notes=notes,
        rows=found.rows[kept],
        positions=found.positions[kept],
    )


def _identity(path: Path, volume: np.ndarray) -> dict:
    return {"name": path.name, "sha256": sha256(path), "shape_zyx": list(volume.shape)}


def _sides(volume: np.ndarray) -> str:
    return "x".join(map(str, volume.shape[::-1]))


def _other_half(path: Path, given: float | None, first_path: Path, first: np.ndarray, voxel_size: float) -> np.ndarray:
    """The (z, y, x) voxels of --tomogram_b; InputError unless its grid is that of the `first` half."""
    if path.exists() and path.samefile(first_path):
        raise InputError(f"--tomogram_b={path} is --tomogram itself: give the other half tomogram.")
    second, header = read_mrc(path)
    if second.shape != first.shape:
        raise InputError(
            f"--tomogram_b={path} is {_sides(second)} voxels and --tomogram={first_path} {_sides(first)} (x, y, z): "
            "give two halves of one reconstruction."
        )
    other_size = choose_voxel_size(header, given, path)
    if max(voxel_size, other_size) > 1.01 * min(voxel_size, other_size):
        raise InputError(
            f"--tomogram_b={path} has voxels of {other_size:g} A and --tomogram={first_path} of {voxel_size:g} A: give "
            "two halves of one reconstruction, or --voxel_size if a header is wrong."
        )
    return second


def _compare(pairs: list[tuple[np.ndarray, np.ndarray]], first: Path, second: Path) -> list[str]:
    """What the user should know of boxes of two half tomograms; InputError where they are one image.

    The correlation c of two images with independent noise tells the SNR of each, c / (1 - c), and of their mean, twice
    that (Frank & Al-Ali 1975).
    """
    with np.errstate(invalid="ignore"):  # voxels that are no numbers are refused where the particles are read
        correlation = float(np.median([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]))
        ratio = float(np.median([a.std() / b.std() for a, b in pairs]))
    if correlation > SAME:
        raise InputError(
            f"--tomogram={first} and --tomogram_b={second} hold the same image (correlation {correlation:.6f}): give "
            "two halves with independent noise."
        )
    found = f"the half tomograms correlate at {correlation:.3f} in {len(pairs)} of the boxes"
    if correlation < UNRELATED:
        notes = [f"{found}: they share hardly any signal. Are they of one region, with one contrast?"]
    else:
        notes = [f"{found}: SNR {2 * correlation / (1 - correlation):.2g} in their mean."]
    if max(ratio, 1 / ratio) > UNEQUAL:
        notes.append(
            f"{first.name} has {ratio:.2g} times the deviation of {second.name}: were the halves reconstructed alike?"
        )
    return notes


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
