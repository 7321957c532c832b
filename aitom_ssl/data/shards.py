"""The on-disk dataset: a folder of NumPy shards, and writing it. NumPy only; `dataset.Dataset` reads it.

    dataset.json                    what it is: class names, voxel size (A), contrast, parameters, checksums
    train/volumes-00000.npy         (n, z, y, x) float16 or float32, n <= 1,024
    train/labels-00000.npz          one array a column, n rows each: label, quaternion, shift, snr, index, ...
    train/halves-00000.npy          as volumes, of datasets with half images: B, where a volume is (A + B) / 2

Halves have independent noise. A reader that does not know them finds the dataset whole without them: hence one version.
Every file is written whole or not at all; `dataset.json` lists what is finished, so nothing partial is taken for data.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
import struct
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from aitom_ssl.data.header import DTYPES, SPLITS, make_header, shard_entries, write_header
from aitom_ssl.errors import InputError
from aitom_ssl.files import atomic_write, refuse_unwritable, sha256

SHARD_SIZE = 1024
# A mask is as long as its volume: it is read by the row, never all at once.
BY_ROW = "mask"
_NOT_COLUMNS = ("volume", "half", "name", "split")


# === Names and headers ===


def volumes_file(folder: Path, split: str, number: int) -> Path:
    """`<folder>/<split>/volumes-00000.npy`."""
    return Path(folder) / split / f"volumes-{number:05d}.npy"


def labels_file(folder: Path, split: str, number: int) -> Path:
    """`<folder>/<split>/labels-00000.npz`."""
    return Path(folder) / split / f"labels-{number:05d}.npz"


def halves_file(folder: Path, split: str, number: int) -> Path:
    """`<folder>/<split>/halves-00000.npy`."""
    return Path(folder) / split / f"halves-{number:05d}.npy"


def shard_files(folder: Path, split: str, number: int, halves: bool) -> dict[str, Path]:
    """The files of a shard by their names in `dataset.json`."""
    files = {"volumes": volumes_file(folder, split, number), "labels": labels_file(folder, split, number)}
    return {**files, "halves": halves_file(folder, split, number)} if halves else files


def npy_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a C-ordered .npy of format 1.0, `file` left at its first row; else ValueError."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not .npy format 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran or not shape:
        raise ValueError("not a C-ordered array of rows")
    return shape, dtype


def seek_member(file: BinaryIO, member: str) -> None:
    """Go to the bytes of an uncompressed member of the .npz that `file` is."""
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(member)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member} is compressed")
    # The local header (30 bytes, then name and extra field) may be longer than the central directory says.
    file.seek(info.header_offset)
    name, extra = struct.unpack("<HH", file.read(30)[26:])
    file.seek(info.header_offset + 30 + name + extra)


# === Writing ===


def _row(volume: Any, size: int | None, dtype: np.dtype, what: str) -> np.ndarray:
    volume = np.asarray(volume)
    if volume.ndim != 3 or len(set(volume.shape)) != 1 or (size is not None and volume.shape[0] != size):
        expected = f"a cube of {size}" if size is not None else "a cube (z, y, x)"
        raise InputError(f"{what} has shape {volume.shape}, expected {expected} voxels a side: cut or pad it first.")
    with np.errstate(over="ignore"):
        row = np.ascontiguousarray(volume, dtype=dtype)
    if not np.isfinite(row).all():
        if np.isfinite(volume).all():
            raise InputError(f"{what} has values beyond {dtype.name}'s range: standardise it or store float32.")
        raise InputError(f"{what} has voxels that are NaN or infinite: mend or leave out that volume.")
    return row


def write_shard(
    folder: Path,
    split: str,
    number: int,
    samples: Iterable[Mapping[str, Any]],
    dtype: str = "float16",
    size: int | None = None,
    fingerprint: str = "",
) -> dict:
    """Write one shard, one volume in memory at a time, and return its entry for `dataset.json`.

    samples: at least one dict with `volume` (size, size, size) and, all of them or none, `half`: the half image B in
    the scale of the volume, which is (A + B) / 2. Every other key but `name` and `split` becomes a column and must be
    in each sample with the same shape. `fingerprint` says which build the shard belongs to.
    Volumes and halves are renamed before the labels: a shard whose labels exist is complete.
    """
    samples = iter(samples)
    first = next(samples, None)
    path = volumes_file(folder, split, number)
    if first is None:
        raise InputError(f"No samples to write to {path}.")
    halves = "half" in first
    columns: dict[str, list] = {key: [] for key in first if key not in _NOT_COLUMNS}
    count = 0
    with contextlib.ExitStack() as files:
        volumes_rows = files.enter_context(_streamed(path, dtype))
        halves_rows = files.enter_context(_streamed(halves_file(folder, split, number), dtype)) if halves else None
        for count, sample in enumerate(itertools.chain([first], samples), 1):
            what = f"Sample {count - 1} of {path.name} ({split})"
            size = volumes_rows.write(sample["volume"], size, what)
            if ("half" in sample) != halves:
                here, before = ("a", "none") if "half" in sample else ("no", "one")
                raise InputError(f"{what} has {here} half image, the first one has {before}: give it to all or none.")
            if halves:
                halves_rows.write(sample["half"], size, f"The half image of sample {count - 1} ({path.name}, {split})")
            keys = [key for key in sample if key not in _NOT_COLUMNS]
            if set(keys) != set(columns):
                raise InputError(f"{what} has {sorted(keys)}, the first one {sorted(columns)}: give all the same.")
            for key in keys:
                columns[key].append(np.asarray(sample[key]))
        stacked = {}
        for key, values in columns.items():
            if len({value.shape for value in values}) > 1:
                raise InputError(f"Column {key!r} of {path} has different shapes from sample to sample.")
            stacked[key] = np.stack(values)
        stacked.setdefault("label", np.full(count, -1))
    with atomic_write(labels_file(folder, split, number)) as temporary:
        np.savez(temporary, fingerprint=np.array(fingerprint), **stacked)
    return shard_entry(folder, split, number, count, halves)


class _Stream:
    """Cubes of one size that go into an open .npy one by one; `finish` writes the header of what has come."""

    def __init__(self, file: BinaryIO, dtype: np.dtype):
        self._file, self._dtype, self._count, self._size = file, dtype, 0, 0

    def write(self, volume: Any, size: int | None, what: str) -> int:
        """Append a cube, of `size` where that is known; returns its side."""
        row = _row(volume, size, self._dtype, what)
        if not self._count:
            self._size = row.shape[0]
            _write_header(self._file, 0, self._size, self._dtype)
        self._file.write(row.data)
        self._count += 1
        return self._size

    def finish(self) -> None:
        # numpy pads the header so that its length does not depend on the number of rows.
        self._file.seek(0)
        _write_header(self._file, self._count, self._size, self._dtype)


@contextlib.contextmanager
def _streamed(path: Path, dtype: str) -> Iterator[_Stream]:
    """A .npy of `path` that appears, whole, when the block ends well."""
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        stream = _Stream(file, DTYPES[dtype])
        yield stream
        stream.finish()


def _write_header(file: BinaryIO, count: int, size: int, dtype: np.dtype) -> None:
    header = {"descr": dtype.str, "fortran_order": False, "shape": (count, size, size, size)}
    np.lib.format.write_array_header_1_0(file, header)


def shard_entry(folder: Path, split: str, number: int, count: int, halves: bool = False) -> dict:
    """Count, byte sizes and checksums of a written shard."""
    files = shard_files(folder, split, number, halves)
    described = {key: {"bytes": path.stat().st_size, "sha256": sha256(path)} for key, path in files.items()}
    return {"count": count, **described}


def shard_fingerprint(path: Path) -> str | None:
    """The build that a shard's labels file belongs to; None when it is missing or unreadable."""
    try:
        with np.load(path) as columns:
            return str(columns["fingerprint"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def shard_is_whole(
    folder: Path, split: str, number: int, count: int, size: int, dtype: str, fingerprint: str, halves: bool = False
) -> bool:
    """Whether shard `number` is there, complete, of this shape and of this build (what a resumed build asks)."""
    files = shard_files(folder, split, number, halves)
    labels = files.pop("labels")
    if shard_fingerprint(labels) != fingerprint:
        return False
    try:
        for path in files.values():
            with open(path, "rb") as file:
                shape, kind = npy_header(file)
                start = file.tell()
            if shape != (count, size, size, size) or kind != DTYPES[dtype]:
                return False
            if path.stat().st_size != start + math.prod(shape) * kind.itemsize:
                return False
        with np.load(labels) as columns:
            return len(columns["label"]) == count
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False


def write_dataset(
    folder: str | os.PathLike,
    name: str,
    class_names: Sequence[str],
    voxel_size: float,
    contrast: str,
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    metadata: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    standardized: bool = False,
) -> Path:
    """Write a whole dataset from iterables of samples; what importers call. Returns `folder`.

    folder: new, or a dataset that is then replaced at the very end (a failure leaves it as it was).
    voxel_size: A. contrast: "bright" (protein positive) or "dark". splits: split name to samples, which are dicts with
    `volume` (z, y, x), `label` (-1: unlabelled, as when left out), `half` (z, y, x) in all or in none (see
    `write_shard`) and any further columns; each is consumed once.
    standardized: the volumes have zero mean and unit standard deviation already (readers then leave them alone).
    """
    folder = Path(folder)
    unknown = [split for split in splits if split not in SPLITS]
    if unknown:
        raise InputError(f"No split can be called {unknown[0]!r}: expected {', '.join(SPLITS)}.")
    if folder.exists() and not (folder / "dataset.json").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not a dataset: give a new folder.")
    make_header(name, class_names, voxel_size, contrast, 1, dtype, standardized)  # refuse before the long work
    refuse_unwritable(folder.parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unique = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    fresh, old = (folder.with_name(f".{folder.name}.{unique}.{what}") for what in ("partial", "old"))
    try:
        entries, size = {}, None
        for split, samples in splits.items():
            shards = []
            for number, chunk in enumerate(_chunks(samples)):
                shards.append(write_shard(fresh, split, number, chunk, dtype, size))
                with open(volumes_file(fresh, split, number), "rb") as file:
                    size = npy_header(file)[0][1]
                with np.load(labels_file(fresh, split, number)) as columns:
                    check_labels(columns["label"], len(class_names), labels_file(folder, split, number))
            if shards:
                entries[split] = {"count": sum(shard["count"] for shard in shards), "shards": shards}
            if len({"halves" in entry for entry in shard_entries(entries)}) > 1:
                raise InputError(f"Some samples of {folder} have a half image and some have none: give all or none.")
        if not entries:
            raise InputError(f"There is nothing to put into {folder}: no samples were given.")
        header = make_header(name, class_names, voxel_size, contrast, size, dtype, standardized, metadata)
        write_header(fresh, {**header, "splits": entries})
        if folder.exists():
            os.replace(folder, old)
        os.replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _chunks(samples: Iterable) -> Iterator[Iterator]:
    """Shards' worth of `samples`, lazily; each must be consumed before the next is asked for."""
    samples = iter(samples)
    for first in samples:
        yield itertools.chain([first], itertools.islice(samples, SHARD_SIZE - 1))


def check_labels(labels: np.ndarray, classes: int, path: Path) -> None:
    """InputError, which names `path`, where (n,) labels are not -1 or the number of one of the classes."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < -1 or labels.max() >= classes:
        raise InputError(f"{path} has labels that are not integers from -1 (unlabelled) to {classes - 1}.")
