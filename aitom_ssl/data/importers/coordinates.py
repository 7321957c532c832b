"""Where particles sit in a tomogram, and reading that from a CSV file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas

from aitom_ssl.errors import InputError, reason
from aitom_ssl.files import atomic_write


@dataclass(frozen=True)
class Coordinates:
    """n particles of one tomogram."""

    positions: np.ndarray  # (n, 3) x, y, z in voxels of the tomogram; 0 is the centre of its first voxel
    rows: np.ndarray  # (n,) row of each in its file, from 0
    unit: str  # how the file's numbers were read, for the user
    quaternions: np.ndarray | None = None  # (n, 4) pose: turns the reference into the particle
    labels: list[str] | None = None  # class of each


def numbers(table: pandas.DataFrame, columns: list[str], path: Path) -> np.ndarray:
    """(n, len(columns)) float64; InputError naming the first cell that is no finite number."""
    values = table[columns].apply(pandas.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        name = columns[column]
        raise InputError(
            f"{path}: row {table.index[row] + 1} of the table has {name} = {table[name].iloc[row]}, no finite number: "
            "mend or delete that row."
        )
    return values


def class_labels(table: pandas.DataFrame, column: str | None, path: Path) -> list[str] | None:
    """The values of `column` as class names; None where no column is asked for."""
    if column is None:
        return None
    if column not in table.columns:
        found = ", ".join(map(str, table.columns))
        raise InputError(f"{path} has no column {column!r} (--label_column): choose one of {found}.")
    return [str(value) for value in table[column]]


def read_csv(
    path: str | Path, voxel_size: float, coordinate_voxel_size: float | None = None, label_column: str | None = None
) -> Coordinates:
    """Coordinates of a CSV file with a header that names x, y and z, in voxels counted from 0.

    They are voxels of the tomogram (of `voxel_size` A) unless `coordinate_voxel_size` (A) says otherwise.
    Raises InputError for a missing file, header or column, and for a cell that is no number.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"--coordinates={path}: no such file.")
    try:
        table = pandas.read_csv(path, skipinitialspace=True)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is not a CSV table ({reason(error)}): expected the line x,y,z and one a particle."
        ) from None
    table.columns = [str(name).strip() for name in table.columns]
    lower = {name.lower(): name for name in reversed(table.columns)}
    if not {"x", "y", "z"} <= set(lower):
        found = ", ".join(table.columns)
        raise InputError(
            f"{path} has the columns {found}: expected a first line that names x, y and z, separated by commas."
        )
    if table.empty:
        raise InputError(f"{path} has no rows: there is nothing to import.")
    scale = 1.0 if coordinate_voxel_size is None else coordinate_voxel_size / voxel_size
    return Coordinates(
        positions=numbers(table, [lower[axis] for axis in "xyz"], path) * scale,
        rows=np.arange(len(table)),
        unit=f"voxels of {coordinate_voxel_size or voxel_size:g} A, from 0",
        labels=class_labels(table, label_column, path),
    )


def write_csv(
    path: str | Path, positions: np.ndarray, scores: np.ndarray | None, more: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write (n, 3) positions (x, y, z in voxels from 0) under x,y,z, (n,) scores if any, and `more` columns (n,)."""
    table = pandas.DataFrame(np.asarray(positions), columns=["x", "y", "z"])
    if scores is not None:
        table["score"] = np.asarray(scores)
    table = table.assign(**(more or {}))
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False)
