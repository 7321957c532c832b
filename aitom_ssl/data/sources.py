"""Particles to classify: one view of a dataset, a folder of MRC files, and a STAR file. No framework.

    dataset    a name, a spec's YAML file or a dataset's folder: its splits one after the other
    folder     MRC subtomograms, one sub-folder a class where they are labelled; AITom's layout is recognised
    STAR       with a tomogram: boxes cut out of it at the coordinates; without: the MRC files that rlnImageName names

Voxels are read when they are asked for; memory holds names and labels, never the volumes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aitom_ssl.data.build import load, prepare
from aitom_ssl.data.dataset import Dataset
from aitom_ssl.data.header import SPLITS, read_header
from aitom_ssl.data.importers.aitom import aitom_folders, aitom_particles
from aitom_ssl.data.importers.coordinates import class_labels, numbers
from aitom_ssl.data.importers.mrc_folder import central_crop, check_files, find_volumes
from aitom_ssl.data.importers.particles import Particles, prepare_volume
from aitom_ssl.data.importers.star import (
    CENTRED,
    PIXELS,
    TOMOGRAM_NAMES,
    describe_blocks,
    join_optics,
    particle_block,
    read_blocks,
    tomogram_stem,
)
from aitom_ssl.data.importers.tomogram import tomogram_particles
from aitom_ssl.errors import InputError
from aitom_ssl.files import sha256
from aitom_ssl.geometry import centre
from aitom_ssl.mrc import read_mrc

IMAGES = ["rlnImageName"]


@dataclasses.dataclass(frozen=True)
class StarRows:
    """The rows of a STAR file that particles come from."""

    path: Path
    block: str  # name of the data block
    rows: np.ndarray  # (n,) ascending row of each particle in it, from 0


@dataclasses.dataclass(frozen=True)
class Source:
    """n particles in a fixed order.

    `read` gives the volumes at `indices` as float32 (len(indices), z, y, x), in the sign of the files; files of the
    user are checked and standardised on the way, as an import does. It raises InputError naming a particle that is
    NaN, infinite, constant or cannot be read.
    """

    size: int  # voxels a side
    voxel_size: float  # A
    contrast: str  # of the protein: what a dataset has stored, what is said of files
    stored_contrast: bool  # whether that is a dataset's own word
    standardized: bool  # whether `read` gives zero mean and unit standard deviation
    class_names: list[str]
    labels: np.ndarray  # (n,) -1 where unlabelled
    read: Callable[[np.ndarray], np.ndarray]
    describe: Callable[[int], str]  # i -> where particle i comes from, for messages
    columns: dict[str, Sequence[Any]]  # what tells a particle from the others, n values each
    star_columns: dict[str, Sequence[Any]]  # the same in RELION's words, for sources that are no STAR file themselves
    identity: dict[str, Any]  # what tells these data from others
    star: StarRows | None = None
    notes: list[str] = dataclasses.field(default_factory=list)  # what the user should know

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How data are to be read; which fields matter depends on what they are.

    split: of a dataset; None is all of them. tomogram: MRC file that a STAR file's coordinates lie in. voxel_size: A,
    in place of the headers'. box_size: voxels; crops MRC files, and is the box cut out of a tomogram. invert_contrast:
    protein is dark in files (taken as bright otherwise); of a dataset, turn its sign. tomogram_name,
    coordinate_voxel_size, centre_offset, label_column: as `data.importers` takes them.
    """

    split: str | None = None
    tomogram: str | None = None
    voxel_size: float | None = None
    box_size: int | None = None
    invert_contrast: bool = False
    tomogram_name: str | None = None
    coordinate_voxel_size: float | None = None
    centre_offset: float = -1.0
    label_column: str | None = None

    def identity(self) -> dict[str, Any]:
        """What results depend on: all but the labels."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "label_column"}


class _Each(Sequence):
    """A column made as it is asked for: of millions of particles, names would be most of the memory."""

    def __init__(self, count: int, value: Callable[[int], str]):
        self._count, self._value = count, value

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._value(index)


def open_source(data: str, reading: Reading, size: int | None = None) -> Source:
    """The particles of `data`: a STAR file, a folder of MRC files, or a dataset (its name, YAML file or folder).

    size: the box to cut out of a tomogram where `reading` gives none.
    Raises InputError for data that are not there or hold nothing, for a field of `reading` that does not go with them,
    and what the importers refuse: every header is checked here.
    """
    path = Path(data)
    if path.suffix.lower() == ".star":
        _refuse(reading, data, "a STAR file", ("split",))
        return _from_star(path, reading, size)
    if path.is_file() and path.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"--data={data} is a file: give a dataset, a folder of MRC files, or a .star file.")
    only_star = ("tomogram", "tomogram_name", "coordinate_voxel_size", "label_column")
    if is_dataset(data):
        _refuse(reading, data, "a dataset", ("voxel_size", "box_size", *only_star))
        return _from_dataset(data, reading)
    _refuse(reading, data, "a folder of MRC files", ("split", *only_star))
    return _from_aitom(path, reading) if aitom_folders(path) else _from_folder(path, reading)


def is_dataset(data: str) -> bool:
    """Whether `data` is to be taken as a dataset: no STAR file, and no folder without dataset.json."""
    path = Path(data)
    return path.suffix.lower() != ".star" and (not path.is_dir() or (path / "dataset.json").is_file())


def _refuse(reading: Reading, data: str, what: str, names: Sequence[str]) -> None:
    for name in names:
        value = getattr(reading, name)
        if value is not None:
            raise InputError(f"--{name}={value} does not go with --data={data}, which is {what}: leave it out.")


# === Datasets ===


def _from_dataset(data: str, reading: Reading) -> Source:
    wanted = None if reading.split is None else [reading.split]
    folder = prepare(data, splits=wanted)
    header = read_header(folder)
    splits = wanted or [split for split in SPLITS if split in header["splits"]]
    if not splits:
        raise InputError(f"{folder} holds no samples yet: {header['mend']}.")
    parts = [load(data, split) for split in splits]
    first = parts[0]
    starts = np.cumsum([0, *map(len, parts)])
    contrast = first.contrast
    if reading.invert_contrast:
        contrast = "bright" if contrast == "dark" else "dark"

    def read(indices: np.ndarray) -> np.ndarray:
        indices = np.asarray(indices)
        volumes = np.empty((len(indices), *[first.size] * 3), np.float32)
        which = np.searchsorted(starts, indices, side="right") - 1
        for number in np.unique(which):
            mine = which == number
            volumes[mine] = parts[number].volumes(indices[mine] - starts[number])
        for i, volume in zip(indices, volumes, strict=True):
            if not np.isfinite(volume.sum()):
                raise InputError(f"{describe(i)} has voxels that are NaN or infinite: make the dataset again.")
        return np.negative(volumes, out=volumes) if reading.invert_contrast else volumes

    def describe(i: int) -> str:
        number = int(np.searchsorted(starts, i, side="right") - 1)
        return f"Sample {i - starts[number]} of {folder}, {splits[number]},"

    indices = np.concatenate([np.arange(len(part)) for part in parts])
    names = np.repeat(splits, [len(part) for part in parts])
    columns: dict[str, Sequence[Any]] = {"split": names, "index": indices}
    shared = set(first.column_names).intersection(*(part.column_names for part in parts))
    kept = {key: np.concatenate([part.columns(key) for part in parts]) for key in ("path", "row") if key in shared}
    positions = np.concatenate([part.columns("position") for part in parts]) if "position" in shared else None
    tomogram = first.metadata.get("source", {}).get("tomogram", {}).get("name") if positions is not None else None
    return Source(
        size=first.size,
        voxel_size=first.voxel_size,
        contrast=contrast,
        stored_contrast=True,
        standardized=first.standardized,
        class_names=list(first.class_names),
        labels=np.concatenate([part.labels for part in parts]),
        read=read,
        describe=describe,
        columns={**columns, **kept},
        star_columns=_dataset_star(names, indices, kept.get("path"), tomogram, positions),
        identity={"kind": "dataset", "name": header["name"], "splits": splits, "sha256": _shards_digest(parts)},
    )


def _dataset_star(
    splits: np.ndarray, indices: np.ndarray, paths: np.ndarray | None, tomogram: str | None, positions: Any
) -> dict[str, Sequence[Any]]:
    columns: dict[str, Sequence[Any]] = {}
    if tomogram is not None:
        columns["rlnTomoName"] = np.repeat(tomogram_stem(tomogram), len(splits))
        columns |= {name: positions[:, axis] for axis, name in enumerate(PIXELS)}
    columns["rlnTomoParticleName"] = _Each(len(splits), lambda i: f"{splits[i]}/{indices[i]}")
    return columns if paths is None else {**columns, "rlnImageName": paths}


def _shards_digest(parts: Sequence[Dataset]) -> str:
    header = read_header(parts[0].folder)
    digest = hashlib.sha256()
    for part in parts:
        for shard in header["splits"][part.split]["shards"]:
            digest.update(f"{shard['volumes']['sha256']} {shard['labels']['sha256']}\n".encode())
    return digest.hexdigest()


# === Files ===


def source_of_files(
    reading: Reading, size: int, voxel_size: float, read: Callable, describe: Callable, **others: Any
) -> Source:
    """A Source of files of the user: volumes checked and standardised one by one."""

    def batch(indices: np.ndarray) -> np.ndarray:
        return np.stack([prepare_volume(read(int(i)), False, "zscore", describe(int(i))) for i in indices])

    return Source(
        size=size,
        voxel_size=voxel_size,
        contrast="dark" if reading.invert_contrast else "bright",
        stored_contrast=False,
        standardized=True,
        read=batch,
        describe=describe,
        **others,
    )


def _from_folder(folder: Path, reading: Reading) -> Source:
    files, labels, class_names = find_volumes(folder, "--data")
    size, voxel_size = check_files(files, reading.box_size, reading.voxel_size)
    return source_of_files(
        reading,
        size,
        voxel_size,
        read=lambda i: central_crop(read_mrc(files[i])[0], size),
        describe=lambda i: str(files[i]),
        class_names=class_names,
        labels=labels,
        columns={"path": _Each(len(files), lambda i: files[i].relative_to(folder).as_posix())},
        star_columns={"rlnImageName": _Each(len(files), lambda i: files[i].as_posix())},
        identity={"kind": "folder", "files": len(files), "sha256": files_digest(files, folder)},
    )


def _from_aitom(folder: Path, reading: Reading) -> Source:
    particles = aitom_particles(folder, reading.box_size, reading.voxel_size, "--data")
    files = [Path(particles.describe(i)) for i in range(len(particles))]
    return source_of_files(
        reading,
        particles.size,
        particles.voxel_size,
        read=lambda i: particles.read(i)["volume"],
        describe=particles.describe,
        class_names=particles.class_names,
        labels=particles.labels,
        columns={"path": _Each(len(files), lambda i: files[i].relative_to(folder).as_posix())},
        star_columns={"rlnImageName": _Each(len(files), lambda i: files[i].as_posix())},
        identity={"kind": "AITom", **particles.source},
    )


def files_digest(files: Sequence[Path], folder: Path) -> str:
    """Names, sizes and times of change: reading all the voxels for it would take as long as classifying them."""
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()
        digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


# === STAR files ===


def _from_star(path: Path, reading: Reading, size: int | None) -> Source:
    tables = read_blocks(path, "--data")
    if reading.tomogram is not None:
        return _from_tomogram(path, tables, reading, size)
    block = particle_block(tables, (IMAGES,))
    if block is None:
        held = particle_block(tables, (CENTRED, PIXELS))
        what = "coordinates and no rlnImageName" if held is not None else f"neither ({describe_blocks(tables)})"
        raise InputError(
            f"--data={path}: expected rlnImageName (subtomograms as MRC files), or coordinates with --tomogram=FILE; "
            f"found {what}."
        )
    _refuse(reading, str(path), "a list of subtomograms", ("tomogram_name", "coordinate_voxel_size"))
    table = join_optics(tables, block, path)
    files = _image_files(path, [str(name) for name in table["rlnImageName"]])
    voxel_size = reading.voxel_size
    if voxel_size is None and "rlnImagePixelSize" in table.columns:
        voxel_size = _one_pixel(numbers(table, ["rlnImagePixelSize"], path)[:, 0], path)
    box, voxel_size = check_files(files, reading.box_size, voxel_size)
    labels, class_names = _labels(class_labels(table, reading.label_column, path), len(table))
    return source_of_files(
        reading,
        box,
        voxel_size,
        read=lambda i: central_crop(read_mrc(files[i])[0], box),
        describe=lambda i: f"{files[i]} (row {i + 1} of {path})",
        class_names=class_names,
        labels=labels,
        columns={"row": np.arange(len(files)), "image": table["rlnImageName"].to_list()},
        star_columns={},
        star=StarRows(path, block, np.arange(len(files))),
        identity={"kind": "STAR", "star": sha256(path), "sha256": files_digest(files, path.parent)},
    )


def _from_tomogram(path: Path, tables: dict[str, Any], reading: Reading, size: int | None) -> Source:
    box = reading.box_size or size
    if box is None:
        raise InputError("--box_size is missing: give the box to cut out of --tomogram.")
    name = reading.tomogram_name or _tomogram_name(tables, reading.tomogram)
    particles: Particles = tomogram_particles(
        reading.tomogram,
        path,
        box,
        reading.voxel_size,
        edge="pad",
        tomogram_name=name,
        coordinate_voxel_size=reading.coordinate_voxel_size,
        centre_offset=reading.centre_offset,
        label_column=reading.label_column,
    )
    block = particle_block(tables, (CENTRED, PIXELS))
    notes = list(particles.notes)
    elsewhere = len(tables[block]) - particles.source["rows"]
    if elsewhere:
        notes.append(f"{elsewhere} of {len(tables[block])} rows of {path.name} are of other tomograms: left out.")
    columns = {axis: particles.positions[:, k] for k, axis in enumerate("xyz")}
    return source_of_files(
        reading,
        particles.size,
        particles.voxel_size,
        read=lambda i: particles.read(i)["volume"],
        describe=particles.describe,
        class_names=particles.class_names,
        labels=particles.labels,
        columns={"row": particles.rows, **columns},
        star_columns={},
        star=StarRows(path, block, particles.rows),
        identity={"kind": "tomogram", **particles.source},
        notes=notes,
    )


def _tomogram_name(tables: dict[str, Any], tomogram: str) -> str | None:
    """The tomogram's own file name, where the STAR file has several and that is one of them."""
    block = particle_block(tables, (CENTRED, PIXELS))
    if block is None:
        return None  # reading the coordinates says so
    table = tables[block]
    column = next((name for name in TOMOGRAM_NAMES if name in table.columns), None)
    names = set() if column is None else set(table[column].map(tomogram_stem))
    return tomogram if len(names) > 1 and tomogram_stem(tomogram) in names else None


def _image_files(star: Path, names: Sequence[str]) -> list[Path]:
    """Paths of the images, looked for from here (RELION's project folder), then from the STAR file's folder upwards."""
    stacks = [name for name in names if "@" in name or name.endswith((".mrcs", ".st"))]
    if stacks:
        raise InputError(
            f"{star}: rlnImageName {stacks[0]} is a stack of 2-D images, expected one 3-D MRC file a particle: extract "
            "subtomograms (in RELION 5 without --stack2d), or give --tomogram to cut them out of."
        )
    places = [Path(), *star.absolute().parents]
    for place in places:
        if (place / names[0]).is_file():
            return [place / name for name in names]
    raise InputError(
        f"{star}: there is no file {names[0]} (rlnImageName) here, in {star.absolute().parent} or above: run this in "
        "RELION's project folder."
    )


def _one_pixel(values: Any, path: Path) -> float:
    found = sorted({float(value) for value in values})
    if found[0] <= 0:
        raise InputError(f"{path}: rlnImagePixelSize is {found[0]:g}, expected a positive number of angstroms.")
    if found[-1] > 1.01 * found[0]:
        listed = ", ".join(f"{value:g}" for value in found)
        raise InputError(f"{path}: rlnImagePixelSize differs ({listed} A): classify the optics groups apart.")
    return found[0]


def _labels(names: list[str] | None, count: int) -> tuple[np.ndarray, list[str]]:
    if names is None:
        return np.full(count, -1, dtype=np.int64), []
    class_names, labels = np.unique(names, return_inverse=True)
    return labels.astype(np.int64), class_names.tolist()


# === Boxes ===


def fit_box(volumes: np.ndarray, size: int) -> np.ndarray:
    """(n, z, y, x) cropped about the centre voxel n // 2 or padded with each volume's mean to cubes of `size`."""
    if volumes.shape[1:] == (size,) * 3:
        return volumes
    if not len(volumes):
        return np.empty((0, *[size] * 3), np.float32)
    found = np.stack([central_crop(volume, min(size, *volume.shape)) for volume in volumes])
    side = found.shape[1]
    if side == size:
        return found
    padded = np.empty((len(found), *[size] * 3), np.float32)
    start = centre(size) - centre(side)
    for box, volume in zip(padded, found, strict=True):
        box[...] = volume.mean(dtype=np.float64)
        box[(slice(start, start + side),) * 3] = volume
    return padded
