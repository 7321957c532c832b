"""`dataset.json`: what a dataset's folder holds: class names, voxel size (A), contrast, shards, checksums."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aitom_ssl import environment
from aitom_ssl.errors import InputError
from aitom_ssl.files import atomic_write

FORMAT, VERSION = "aitom_ssl dataset", 1
SPLITS = ("train", "validation", "test")
DTYPES = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
CONTRASTS = ("bright", "dark")


def make_header(
    name: str,
    class_names: Sequence[str],
    voxel_size: float,
    contrast: str,
    size: int,
    dtype: str,
    standardized: bool,
    metadata: Mapping[str, Any] | None = None,
    fingerprint: str = "",
    mend: str = "import it again",
) -> dict:
    """The contents of `dataset.json` before any split is finished.

    mend: what to do about a damaged file, as the end of a sentence.
    """
    if not (math.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size is {voxel_size}: give the voxel size in angstrom, a number above 0.")
    if contrast not in CONTRASTS:
        raise InputError(f"contrast is {contrast!r}, expected one of {', '.join(CONTRASTS)}.")
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}.")
    if size < 1:
        raise InputError(f"size is {size}, expected 1 voxel a side or more.")
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "class_names": list(class_names),
        "voxel_size": float(voxel_size),
        "contrast": contrast,
        "size": int(size),
        "dtype": dtype,
        "standardized": bool(standardized),
        "fingerprint": fingerprint,
        "mend": mend,
        "versions": environment.versions("numpy", "scipy"),  # what its bits may depend on
        "metadata": dict(metadata or {}),
        "splits": {},
    }


def _plain(value: Any) -> Any:
    """`value` as JSON has it: tuples and arrays as lists, infinities as the strings "inf" and "-inf"."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def write_header(folder: Path, header: Mapping[str, Any]) -> None:
    """Write `dataset.json` atomically."""
    with atomic_write(Path(folder) / "dataset.json") as temporary:
        temporary.write_text(json.dumps(_plain(header), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_header(folder: str | os.PathLike) -> dict:
    """`dataset.json` of `folder`, checked; InputError names the file when it is missing, damaged or newer."""
    path = Path(folder) / "dataset.json"
    if not path.is_file():
        raise InputError(f"{folder} is not a dataset (it has no dataset.json): give a dataset's name or its folder.")
    mend = "Delete that file and make the dataset again with the command that made it; finished shards are kept."
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        if header["format"] != FORMAT:
            raise ValueError(f"format is {header['format']!r}")
        known = header["version"] == VERSION
        blank = make_header("", [], 1.0, "bright", 1, "float16", True)
        wrong = [key for key, value in blank.items() if not isinstance(header[key], type(value))]
        if known and wrong:
            raise ValueError(f"{wrong[0]} is {header[wrong[0]]!r}")
        if known:
            stated = ("class_names", "voxel_size", "contrast", "size", "dtype")
            make_header(header["name"], *(header[key] for key in stated), True)
        for entry in header["splits"].values():
            sizes = [(e["count"], e["volumes"]["bytes"], e["labels"]["bytes"]) for e in entry["shards"]]
            if not sizes or entry["count"] != sum(n for n, _, _ in sizes):
                raise ValueError("counts do not add up")
        with_halves = [e["halves"]["bytes"] for e in shard_entries(header["splits"]) if "halves" in e]
        if len(with_halves) not in (0, len(shard_entries(header["splits"]))):
            raise ValueError("some shards have half images and some have none")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}). {mend}") from None
    if not known:
        raise InputError(f"{path} is of version {header['version']}, this aitom_ssl reads {VERSION}: update aitom_ssl.")
    return header


def shard_entries(splits: Mapping[str, Any]) -> list[dict]:
    """The shards of all splits."""
    return [entry for split in splits.values() for entry in split["shards"]]
