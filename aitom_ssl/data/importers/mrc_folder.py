"""A folder of MRC subtomograms, one file a particle, optionally one sub-folder a class."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from aitom_ssl.data.importers.particles import Particles
from aitom_ssl.errors import InputError
from aitom_ssl.files import sha256
from aitom_ssl.geometry import centre
from aitom_ssl.mrc import SUFFIXES, choose_voxel_size, is_mrc_name, read_header, read_mrc


def folder_particles(folder: str | Path, box_size: int | None = None, voxel_size: float | None = None) -> Particles:
    """Particles of the MRC files in `folder` (unlabelled) and in its sub-folders (each one a class).

    `box_size` crops each volume about its centre voxel n // 2; without it all must have one size. `voxel_size` (A)
    stands in for the headers'. Every header is checked before anything is written.
    Raises InputError for a folder without MRC files, a file that is none, is truncated, is no cube or is smaller than
    the box, for sizes or voxel sizes that differ, and for a voxel size of 0 or NaN.
    """
    files, labels, class_names = find_volumes(folder, "--input")
    folder = Path(folder)
    size, voxel_size = check_files(files, box_size, voxel_size)

    return Particles(
        class_names=class_names,
        labels=labels,
        voxel_size=voxel_size,
        size=size,
        read=lambda i: {
            "volume": central_crop(read_mrc(files[i])[0], size),
            "path": files[i].relative_to(folder).as_posix(),
        },
        describe=lambda i: str(files[i]),
        source={"kind": "mrc_folder", "name": folder.resolve().name, **fingerprint_files(files, folder)},
    )


def find_volumes(folder: str | Path, flag: str) -> tuple[list[Path], np.ndarray, list[str]]:
    """MRC files in `folder` and its sub-folders, labels (n,) and class names: a sub-folder is a class, -1 is none.

    InputError, naming the `flag` that gave the folder, where it is not there or has no MRC file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{flag}={folder}: no such folder.")
    children = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    classes = {child.name: sorted(p for p in child.iterdir() if is_mrc_name(p)) for child in children}
    classes = {name: files for name, files in classes.items() if files}
    loose = sorted(p for p in folder.iterdir() if p.is_file() and is_mrc_name(p))
    files = loose + [file for members in classes.values() for file in members]
    if not files:
        raise InputError(
            f"{flag}={folder}: no MRC file in it or its sub-folders; names end in {' '.join(SUFFIXES)}, or also .gz."
        )
    labels = [-1] * len(loose) + [label for label, members in enumerate(classes.values()) for _ in members]
    return files, np.array(labels, dtype=np.int64), list(classes)


def check_files(files: Sequence[Path], box_size: int | None, voxel_size: float | None) -> tuple[int, float]:
    """The one box (voxels) and voxel size (A) that `files` can share; errors as `folder_particles` says."""
    if box_size is not None and box_size < 2:
        raise InputError(f"--box_size={box_size}: expected at least 2 voxels.")
    sizes, found = Counter(), Counter()
    for file in tqdm(files, desc="checking headers", unit=" files", leave=False, disable=None, delay=5):
        header = read_header(file)
        if box_size is None and len(set(header.shape)) != 1:
            raise InputError(f"{file} is {_sides(header.shape)}: expected a cube. Cut one out of it with --box_size.")
        if box_size is not None and min(header.shape) < box_size:
            raise InputError(f"{file} is {_sides(header.shape)}, smaller than --box_size={box_size}: give less.")
        sizes[header.shape[0]] += 1
        found[choose_voxel_size(header, voxel_size, file)] += 1
    if box_size is None:
        if len(sizes) > 1:
            listed = ", ".join(f"{count} of {size}^3" for size, count in sorted(sizes.items()))
            smallest = min(sizes)
            raise InputError(
                f"The {len(files)} volumes differ in size ({listed}): give --box_size={smallest} or less to crop them."
            )
        box_size = next(iter(sizes))
    if max(found) > 1.01 * min(found):
        listed = ", ".join(f"{count} of {size:g} A" for size, count in sorted(found.items()))
        raise InputError(
            f"The {len(files)} volumes differ in voxel size ({listed}): import them apart, or give --voxel_size if the "
            f"headers are wrong."
        )
    return box_size, found.most_common(1)[0][0]


def central_crop(volume: np.ndarray, size: int) -> np.ndarray:
    """The (size, size, size) part of a (z, y, x) volume whose centre voxel is the volume's own."""
    starts = [centre(side) - centre(size) for side in volume.shape]
    return volume[tuple(slice(start, start + size) for start in starts)]


def fingerprint_files(files: Sequence[Path], folder: Path) -> dict:
    """How many files there are, and one SHA-256 over their names below `folder` and their contents."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()} {sha256(file)}\n".encode())
    return {"files": len(files), "sha256": digest.hexdigest()}


def _sides(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape[::-1])) + " voxels (x, y, z)"
