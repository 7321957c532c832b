"""Particle coordinates in RELION's STAR files, versions 3.0 to 5, read and written.

A position is looked for, in this order, in
- rlnCenteredCoordinateX/Y/ZAngst (RELION 5): angstroms from the tomogram's centre, which is at size / 2 - 1 unbinned
  pixels by default (programs disagree: see `centre_offset`);
- rlnCoordinateX/Y/Z: pixels counted from the centre of the first voxel. They are unbinned pixels where the file has
  rlnTomoTiltSeriesPixelSize (RELION 4), pixels of rlnDetectorPixelSize, scaled by rlnMagnification where that is given
  (RELION 3.0, Warp), else voxels of the tomogram.
The particle sits at position - origin: rlnOriginX/Y/ZAngst, else rlnOriginX/Y/Z in pixels of the particle image, turned
by rlnTomoSubtomogramRot/Tilt/Psi where the file has them. The same angles come before rlnAngleRot/Tilt/Psi in the pose
(RELION's ParticleSet::getPosition and getMatrix3x3). An optics block is joined by rlnOpticsGroup where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import starfile

from aitom_ssl.data.importers.coordinates import Coordinates, class_labels, numbers
from aitom_ssl.errors import InputError, reason
from aitom_ssl.files import atomic_write
from aitom_ssl.geometry import (
    matrix_to_quaternion,
    quaternion_to_matrix,
    quaternion_to_relion_angles,
    relion_angles_to_quaternion,
)

CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
PIXELS = [f"rlnCoordinate{axis}" for axis in "XYZ"]
ORIGIN_ANGST = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
ORIGIN_PIXELS = [f"rlnOrigin{axis}" for axis in "XYZ"]
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
SUBTOMOGRAM_ANGLES = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
TOMOGRAM_NAMES = ("rlnTomoName", "rlnMicrographName")


def read_blocks(path: str | Path, flag: str = "--coordinates") -> dict[str, pandas.DataFrame]:
    """Every block of a STAR file by its name; a block without a loop is one row.

    InputError, naming the `flag` that gave the file, where it is missing or is no STAR file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{flag}={path}: no such file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text, expected a STAR file: write it again.") from None
    names = [line.strip() for line in text.splitlines() if line.startswith("data_")]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise InputError(f"{path} has two blocks {repeated[0]}: rename one.")
    try:
        blocks = starfile.read(path, always_dict=True)
    except Exception as error:  # starfile lets the errors of whatever it meets through
        raise InputError(f"{path} cannot be read as a STAR file ({reason(error)}): write it again.") from None
    tables = {
        name: block if isinstance(block, pandas.DataFrame) else pandas.DataFrame([block or {}])
        for name, block in blocks.items()
    }
    for name, table in tables.items():
        twice = table.columns[table.columns.duplicated()]
        if len(twice):
            raise InputError(f"{path}: data_{name} has the column {twice[0]} twice: leave one out.")
    return tables


def particle_block(tables: dict[str, pandas.DataFrame], alternatives: Sequence[list[str]]) -> str | None:
    """Name of the block that holds all columns of one of the `alternatives`, "particles" before others; or None."""
    usable = [name for name, table in tables.items() if any(_has(table, columns) for columns in alternatives)]
    return None if not usable else "particles" if "particles" in usable else usable[0]


def read_table(path: str | Path) -> pandas.DataFrame:
    """The particles of a STAR file, one row each, with the columns of their optics group joined.

    Raises InputError for a missing or empty file, no coordinates (names what was found), or an unknown optics group.
    """
    tables = read_blocks(path)
    name = particle_block(tables, (CENTRED, PIXELS))
    if name is None:
        found = describe_blocks(tables)
        raise InputError(f"{path} has no coordinates: expected {_span(PIXELS)} or {_span(CENTRED)}, found {found}.")
    return join_optics(tables, name, Path(path))


def describe_blocks(tables: dict[str, pandas.DataFrame]) -> str:
    """Blocks and their columns, for messages."""
    return "; ".join(f"data_{name}: {', '.join(table.columns)}" for name, table in tables.items()) or "no table"


def join_optics(tables: dict[str, pandas.DataFrame], name: str, path: Path) -> pandas.DataFrame:
    """Block `name` with the columns of each row's optics group; InputError as `read_table` says."""
    particles = tables[name].reset_index(drop=True)
    if particles.empty:
        raise InputError(f"{path} has no particles: there is nothing to import.")
    optics = tables.get("optics")
    if optics is None:
        return particles
    extra = [column for column in optics.columns if column not in particles.columns]
    if "rlnOpticsGroup" in particles.columns and "rlnOpticsGroup" in optics.columns:
        missing = set(particles["rlnOpticsGroup"]) - set(optics["rlnOpticsGroup"])
        if missing:
            raise InputError(f"{path}: rlnOpticsGroup {min(missing)} of the particles is not in the optics block.")
        return particles.merge(optics[["rlnOpticsGroup", *extra]], on="rlnOpticsGroup", how="left", validate="m:1")
    if len(optics) == 1:
        return particles.assign(**{column: optics[column].iloc[0] for column in extra})
    raise InputError(f"{path}: the particles have no rlnOpticsGroup to tell {len(optics)} optics rows apart: add it.")


def read_star(
    path: str | Path,
    shape: tuple[int, int, int],
    voxel_size: float,
    tomogram_name: str | None = None,
    coordinate_voxel_size: float | None = None,
    centre_offset: float = -1.0,
    label_column: str | None = None,
) -> Coordinates:
    """Coordinates of the particles that a STAR file has for one tomogram of `shape` (z, y, x) and `voxel_size` (A).

    `tomogram_name` is the name (a file's name will do) that rlnTomoName or rlnMicrographName is matched with; a file
    of a single tomogram needs none. `coordinate_voxel_size` (A) overrides the pixel that rlnCoordinateX/Y/Z are
    counted in. The origin of centred coordinates is size / 2 + `centre_offset`, in unbinned pixels where the file
    tells them, else in voxels: -1 is RELION's picker, 0 copick's centre.
    Raises InputError for missing columns, no particle of the tomogram, and for cells that are no numbers.
    """
    path = Path(path)
    table = read_table(path)
    table = _of_tomogram(table, tomogram_name, path)
    pixel, told_by = _pixel(table, voxel_size, coordinate_voxel_size, path)
    if _has(table, CENTRED):
        size = np.array(shape[::-1]) * voxel_size / pixel  # of the unbinned tomogram
        angstroms = numbers(table, CENTRED, path) + (size / 2 + centre_offset) * pixel
        unit = f"angstroms from the centre, at size/2{centre_offset:+g} pixels of {_several(pixel)} A ({told_by})"
    else:
        angstroms = numbers(table, PIXELS, path) * pixel
        unit = f"pixels of {_several(pixel)} A ({told_by}), from 0"
    subtomogram = _matrices(table, SUBTOMOGRAM_ANGLES, path)
    origin = _origin(table, pixel, path)
    if origin is not None:
        angstroms = angstroms - (origin if subtomogram is None else np.einsum("nij,nj->ni", subtomogram, origin))
    pose = _matrices(table, ANGLES, path)
    if subtomogram is not None and pose is not None:
        pose = subtomogram @ pose
    return Coordinates(
        positions=angstroms / voxel_size,
        rows=table.index.to_numpy(),
        unit=unit,
        quaternions=None if pose is None else matrix_to_quaternion(pose),
        labels=class_labels(table, label_column, path),
    )


def write_star(
    path: str | Path,
    positions: np.ndarray,
    scores: np.ndarray | None,
    voxel_size: float,
    name: str,
    more: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write (n, 3) positions (x, y, z in voxels from 0) of tomogram `name` as a RELION 4 particles file.

    The optics block gives `voxel_size` (A) as rlnTomoTiltSeriesPixelSize, the pixel that rlnCoordinateX/Y/Z are counted
    in, so the file means the same positions whatever binning it is used with. `scores` (n,) are left out where there
    are none. `more` holds further columns, (n,) each.
    """
    optics = pandas.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnTomoTiltSeriesPixelSize": [float(voxel_size)],
            "rlnImagePixelSize": [float(voxel_size)],
        }
    )
    particles = pandas.DataFrame(np.asarray(positions, dtype=np.float64), columns=PIXELS)
    particles.insert(0, "rlnTomoName", name)
    if scores is not None:
        particles["rlnAutopickFigureOfMerit"] = np.asarray(scores, dtype=np.float64)
    particles["rlnOpticsGroup"] = 1
    particles = particles.assign(**(more or {}))
    with atomic_write(path) as temporary:
        starfile.write({"optics": optics, "particles": particles}, temporary)


def write_aligned(
    path: str | Path,
    columns: Mapping[str, Sequence[Any]],
    quaternions: np.ndarray,
    shifts: np.ndarray,
    voxel_size: float,
    size: int,
    more: Mapping[str, Sequence[Any]],
    optics: pandas.DataFrame | None = None,
) -> None:
    """Write particles and the poses of their reference as a RELION file: (n, 4) quaternions, (n, 3) shifts in voxels.

    columns: what tells the particles from each other, n values each, with rlnOpticsGroup where `optics` is given; what
    they say of angles and origins gives way. The particle sits `shift` (x, y, z) from its box's centre voxel, so that
    rlnOriginX/Y/ZAngst is -shift voxel_size; angles as `geometry.relion_angles_to_quaternion` reads them. more: further
    columns. size: voxels a side. optics: the block to write, else one group of `voxel_size` (A).
    """
    particles = pandas.DataFrame({name: list(values) for name, values in columns.items()})
    taken = [*ANGLES, *SUBTOMOGRAM_ANGLES, *ORIGIN_ANGST, *ORIGIN_PIXELS, *more]
    particles = particles.drop(columns=[name for name in taken if name in particles])
    angles = quaternion_to_relion_angles(quaternions)
    particles[ANGLES] = np.round(angles, 4)
    particles[ORIGIN_ANGST] = np.round(-np.asarray(shifts) * voxel_size, 4) + 0.0
    particles = particles.assign(**{name: list(values) for name, values in more.items()})
    if optics is None:
        particles["rlnOpticsGroup"] = 1
        optics = pandas.DataFrame(
            {
                "rlnOpticsGroup": [1],
                "rlnOpticsGroupName": ["opticsGroup1"],
                **({"rlnTomoTiltSeriesPixelSize": [float(voxel_size)]} if "rlnTomoName" in particles else {}),
                "rlnImagePixelSize": [float(voxel_size)],
                "rlnImageSize": [int(size)],
                "rlnImageDimensionality": [3],
            }
        )
    with atomic_write(path) as temporary:
        starfile.write({"optics": optics, "particles": particles}, temporary)


def tomogram_stem(name: str) -> str:
    """The name that a tomogram's file and a STAR entry share: no folder, suffixes, `rec_` before or `_Vol` behind."""
    stem = Path(str(name)).name
    stem = re.sub(r"(\.(mrc|rec|map|gz|star|tomostar|st))+$", "", stem)
    return re.sub(r"_Vol$", "", re.sub(r"^rec_", "", stem))


def _of_tomogram(table: pandas.DataFrame, wanted: str | None, path: Path) -> pandas.DataFrame:
    column = next((name for name in TOMOGRAM_NAMES if name in table.columns), None)
    if column is None and wanted is not None:
        names = " or ".join(TOMOGRAM_NAMES)
        raise InputError(f"{path} has no {names} to find {wanted!r} in: leave --tomogram_name out.")
    if column is None:
        return table
    names = table[column].map(tomogram_stem)
    present = sorted(set(names))
    if len(present) == 1 and wanted is None:
        return table
    if wanted is None or tomogram_stem(wanted) not in present:
        shown = ", ".join(present[:5]) + (", ..." if len(present) > 5 else "")
        what = f"none of them {tomogram_stem(wanted)!r}" if wanted else "one is imported at a time"
        raise InputError(
            f"{path} has the particles of {len(present)} tomogram(s) ({column}: {shown}), {what}: "
            f"choose with --tomogram_name=NAME."
        )
    return table[names == tomogram_stem(wanted)]


def _pixel(table: pandas.DataFrame, voxel_size: float, given: float | None, path: Path) -> tuple[np.ndarray, str]:
    """(n, 1) pixel in A that the coordinates are counted in, and what told it."""
    if given is not None:
        pixel, told_by = np.full((len(table), 1), float(given)), "--coordinate_voxel_size"
    elif "rlnTomoTiltSeriesPixelSize" in table.columns:
        pixel, told_by = numbers(table, ["rlnTomoTiltSeriesPixelSize"], path), "rlnTomoTiltSeriesPixelSize"
    elif "rlnDetectorPixelSize" in table.columns:
        pixel, told_by = numbers(table, ["rlnDetectorPixelSize"], path), "rlnDetectorPixelSize"
        if "rlnMagnification" in table.columns:  # the detector's pixel is then in micrometres
            pixel = pixel * 1e4 / numbers(table, ["rlnMagnification"], path)
            told_by = "rlnDetectorPixelSize / rlnMagnification"
    else:
        pixel, told_by = np.full((len(table), 1), float(voxel_size)), "the tomogram's voxel size"
    if not np.all(pixel > 0):
        raise InputError(f"{path}: {told_by} gives a pixel of {pixel.min():g} A: give it with --coordinate_voxel_size.")
    return pixel, told_by


def _origin(table: pandas.DataFrame, pixel: np.ndarray, path: Path) -> np.ndarray | None:
    if _has(table, ORIGIN_ANGST):
        return numbers(table, ORIGIN_ANGST, path)
    if _has(table, ORIGIN_PIXELS):
        image = numbers(table, ["rlnImagePixelSize"], path) if "rlnImagePixelSize" in table.columns else pixel
        return numbers(table, ORIGIN_PIXELS, path) * image
    return None


def _matrices(table: pandas.DataFrame, columns: list[str], path: Path) -> np.ndarray | None:
    if not _has(table, columns):
        return None
    return quaternion_to_matrix(relion_angles_to_quaternion(numbers(table, columns, path)))


def _has(table: pandas.DataFrame, columns: list[str]) -> bool:
    return set(columns) <= set(table.columns)


def _span(columns: list[str]) -> str:
    return columns[0].replace("X", "X/Y/Z")


def _several(pixel: np.ndarray) -> str:
    return " or ".join(f"{value:g}" for value in np.unique(pixel))
