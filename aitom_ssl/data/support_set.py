"""A support set: a folder with one MRC example, or a few, of each class to tell apart. No framework.

    SUPPORT/ribosome.mrc  SUPPORT/proteasome.mrc        one example a class, the file's name is the class
    SUPPORT/ribosome/a.mrc  SUPPORT/ribosome/b.mrc      a few, the sub-folder's name is the class

Both may stand side by side, for different classes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from aitom_ssl.data.importers.mrc_folder import central_crop, check_files
from aitom_ssl.data.sources import Reading, Source, files_digest, source_of_files
from aitom_ssl.errors import InputError
from aitom_ssl.mrc import SUFFIXES, is_mrc_name, read_mrc

NONE = "none"  # what a particle of no class of the support set is called


def open_support(folder: str | Path, reading: Reading) -> Source:
    """The examples in `folder`, labelled, class by class, in the order of their names.

    reading: voxel_size, box_size and invert_contrast are heeded.
    Raises InputError for a folder that is not there or has no MRC file, a class that is there twice (as a file and a
    folder, or as two files) or has no example, one called "none", the same volume twice, and volumes that differ in
    box or voxel size.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"--support={folder}: no such folder.")
    found: dict[str, list[Path]] = {}
    for path in sorted(p for p in folder.iterdir() if not p.name.startswith(".")):
        if path.is_dir():
            members = sorted(p for p in path.iterdir() if is_mrc_name(p))
            if not members:
                raise InputError(f"{path} is an empty class: put its example into it (an MRC file), or delete it.")
            name = path.name
        elif is_mrc_name(path):
            name, members = _stem(path), [path]
        else:
            continue
        if name in found:
            raise InputError(
                f"The class {name!r} is twice in {folder} ({found[name][0].relative_to(folder)} and "
                f"{members[0].relative_to(folder)}): put all examples of a class into one sub-folder."
            )
        found[name] = members
    if not found:
        raise InputError(
            f"--support={folder}: no MRC file in it or its sub-folders; expected CLASS{SUFFIXES[0]}, or a sub-folder a "
            "class."
        )
    if NONE in found:
        raise InputError(f"{found[NONE][0]}: {NONE!r} is what particles of no class are called: rename this class.")
    names = sorted(found)
    files = [file for name in names for file in found[name]]
    labels = np.repeat(np.arange(len(names)), [len(found[name]) for name in names])
    size, voxel_size = check_files(files, reading.box_size, reading.voxel_size)
    _refuse_copies(files, size)
    return source_of_files(
        dataclasses.replace(reading, split=None),
        size,
        voxel_size,
        read=lambda i: central_crop(read_mrc(files[i])[0], size),
        describe=lambda i: str(files[i]),
        class_names=names,
        labels=labels.astype(np.int64),
        columns={"path": [file.relative_to(folder).as_posix() for file in files]},
        star_columns={},
        identity={"kind": "support", "files": len(files), "sha256": files_digest(files, folder)},
    )


def _stem(path: Path) -> str:
    name = path.name
    if name.lower().endswith(".gz"):
        name = name[: -len(".gz")]
    return Path(name).stem


def _refuse_copies(files: list[Path], size: int) -> None:
    """InputError for two files with the same voxels: one example cannot be of two classes, nor count twice."""
    seen: dict[bytes, Path] = {}
    for file in files:
        voxels = np.ascontiguousarray(central_crop(read_mrc(file)[0], size)).tobytes()
        if voxels in seen:
            raise InputError(f"{seen[voxels]} and {file} are the same volume: leave one of them out.")
        seen[voxels] = file
