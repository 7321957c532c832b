"""The folder of a served model: numbered version folders, each whole or not there. No framework.

    runs/mine/savedmodel/1/    saved_model.pb  variables/  assets/model.json  assets.extra/
    runs/mine/savedmodel/2/

TensorFlow Serving polls such a folder and serves the highest number; names that are not numbers it passes over.
"""

from __future__ import annotations

import os
from pathlib import Path

from aitom_ssl.errors import InputError
from aitom_ssl.files import refuse_unwritable

GRAPH = "saved_model.pb"
DESCRIPTION = "model.json"  # among the assets


def versions(path: str | os.PathLike) -> list[int]:
    """Numbers of the version folders in `path`, ascending; empty where there is no such folder."""
    path = Path(path)
    numbers = [int(child.name) for child in path.iterdir() if _is_version(child)] if path.is_dir() else []
    return sorted(numbers)


def _is_version(child: Path) -> bool:
    return child.name.isascii() and child.name.isdigit() and child.is_dir()


def new_version(path: str | os.PathLike, version: int | None = None) -> Path:
    """The folder that a new version goes to: `version`, or one more than the highest there is. Nothing is created.

    InputError for a version that is there or is not a number from 1 on, a `path` that is a SavedModel itself, or one
    that cannot be written to.
    """
    path = Path(path)
    refuse_unwritable(path)
    if (path / GRAPH).is_file():
        raise InputError(f"{path} is a SavedModel itself, expected the folder that its versions are in: {path.parent}.")
    found = versions(path)
    free = max(found, default=0) + 1
    if version is None:
        return path / str(free)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise InputError(f"version={version!r} must be a whole number, 1 or more.")
    if version in found:
        raise InputError(f"{path} has a version {version} already: the next free one is {free}.")
    return path / str(version)


def newest_version(path: str | os.PathLike) -> Path:
    """The SavedModel at `path`: the folder itself, or its highest numbered version. InputError when there is none."""
    path = Path(path)
    if (path / GRAPH).is_file():
        return path
    found = versions(path)
    if not found:
        raise InputError(f"{path} holds no SavedModel (no {GRAPH}, no numbered folder): give one made by export.")
    # "7" and "007" are the same number.
    newest = next(child for child in path.iterdir() if _is_version(child) and int(child.name) == found[-1])
    if not (newest / GRAPH).is_file():
        raise InputError(f"{newest} holds no SavedModel (no {GRAPH}): put it back, or remove the folder.")
    return newest
