"""The on-disk dataset: a folder of NumPy shards with random access by index. NumPy only.

    dataset.json                    what it is: class names, voxel size (A), contrast, parameters, checksums
    train/volumes-00000.npy         (n, z, y, x) float16 or float32, n <= 1,024
    train/labels-00000.npz          one array a column, n rows each: label, quaternion, shift, snr, index, ...
    train/halves-00000.npy          as volumes, of datasets with half images: B, where a volume is (A + B) / 2

Halves have independent noise. A reader that does not know them finds the dataset whole without them: hence one version.
Rows are read with `os.pread`, so resident memory does not grow with the dataset, and any number of threads may read.
Every file is written whole or not at all; `dataset.json` lists what is finished, so nothing partial is taken for data.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import math
import os
import shutil
import struct
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from aitom_ssl import environment
from aitom_ssl.errors import InputError
from aitom_ssl.files import atomic_write, refuse_unwritable, sha256

FORMAT, VERSION = "aitom_ssl dataset", 1
SHARD_SIZE = 1024
SPLITS = ("train", "validation", "test")
DTYPES = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
CONTRASTS = ("bright", "dark")
_OPEN_FILES = 64
# A mask is as long as its volume: it is read by the row, never all at once.
_BY_ROW = "mask"
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


def _npy_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a C-ordered .npy of format 1.0, `file` left at its first row; else ValueError."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not .npy format 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran or not shape:
        raise ValueError("not a C-ordered array of rows")
    return shape, dtype


def _seek_member(file: BinaryIO, member: str) -> None:
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
                shape, kind = _npy_header(file)
                start = file.tell()
            if shape != (count, size, size, size) or kind != DTYPES[dtype]:
                return False
            if path.stat().st_size != start + math.prod(shape) * kind.itemsize:
                return False
        with np.load(labels) as columns:
            return len(columns["label"]) == count
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False


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
        with_halves = [e["halves"]["bytes"] for e in _entries(header["splits"]) if "halves" in e]
        if len(with_halves) not in (0, len(_entries(header["splits"]))):
            raise ValueError("some shards have half images and some have none")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}). {mend}") from None
    if not known:
        raise InputError(f"{path} is of version {header['version']}, this aitom_ssl reads {VERSION}: update aitom_ssl.")
    return header


def _entries(splits: Mapping[str, Any]) -> list[dict]:
    """The shards of all splits."""
    return [entry for split in splits.values() for entry in split["shards"]]


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
                    size = _npy_header(file)[0][1]
                with np.load(labels_file(fresh, split, number)) as columns:
                    _check_labels(columns["label"], len(class_names), labels_file(folder, split, number))
            if shards:
                entries[split] = {"count": sum(shard["count"] for shard in shards), "shards": shards}
            if len({"halves" in entry for entry in _entries(entries)}) > 1:
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


def _check_labels(labels: np.ndarray, classes: int, path: Path) -> None:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < -1 or labels.max() >= classes:
        raise InputError(f"{path} has labels that are not integers from -1 (unlabelled) to {classes - 1}.")


# === Reading ===


class _File:
    """An open file of rows, checked against what it should hold; closed when the last user lets go of it."""

    def __init__(self, path: Path, member: str | None, shape: tuple[int, ...], dtype: np.dtype, mend: str):
        self.path, self.mend, self.descriptor = path, mend, -1
        try:
            with open(path, "rb") as file:
                if member is not None:
                    _seek_member(file, member)
                found = _npy_header(file)
                self.start = file.tell()
        except FileNotFoundError:
            raise InputError(f"{path} is missing: {mend}.") from None
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, struct.error) as error:
            raise InputError(f"{path} is damaged or not a shard ({error}): delete it and {mend}.") from None
        if found != (shape, dtype):
            raise InputError(f"{path} holds {found[1]} {found[0]}, expected {dtype} {shape}: delete it and {mend}.")
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self):
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def read(self, row: int, length: int) -> bytes:
        block = os.pread(self.descriptor, length, self.start + row * length)
        if len(block) != length:
            raise InputError(f"{self.path} is truncated: {self.mend}.")
        return block


class _Rows:
    """Rows (size, size, size) of one array that is spread over files."""

    def __init__(
        self, files: Sequence[Path], counts: list[int], size: int, dtype: np.dtype, member: str | None, mend: str
    ):
        self.files, self.counts, self.dtype, self.member, self.mend = files, counts, dtype, member, mend
        self.shape = (size, size, size)
        self.first = np.concatenate([[0], np.cumsum(self.counts)])
        self._reset()

    def _reset(self) -> None:
        self._lock, self._open = threading.Lock(), collections.OrderedDict()

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key not in ("_lock", "_open")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._reset()

    def _file(self, shard: int) -> _File:
        with self._lock:
            file = self._open.get(shard)
            if file is None:
                shape = (self.counts[shard], *self.shape)
                file = self._open[shard] = _File(self.files[shard], self.member, shape, self.dtype, self.mend)
                if len(self._open) > _OPEN_FILES:
                    self._open.popitem(last=False)
            self._open.move_to_end(shard)
        return file

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), size, size, size) in the dtype of the files."""
        out = np.empty((len(rows), *self.shape), self.dtype)
        length = math.prod(self.shape) * self.dtype.itemsize
        shards = np.searchsorted(self.first, rows, side="right") - 1
        for target, row, shard in zip(out, rows - self.first[shards], shards, strict=True):
            block = self._file(int(shard)).read(int(row), length)
            target[...] = np.frombuffer(block, self.dtype).reshape(self.shape)
        return out


def _to_float32(stored: np.ndarray) -> np.ndarray:
    """float16 to float32 on the bits: exact for finite values and 2.5 times as fast as numpy does it."""
    if stored.dtype != np.float16:
        return stored
    out = np.empty(stored.shape, np.float32)
    for half, single in zip(stored, out, strict=True):
        # Sign to bit 31, exponent and mantissa to bits 27-13, then the exponent's bias from 15 to 127.
        bits = half.view(np.int16).astype(np.int32)
        bits <<= 13
        bits &= np.int32(-0x70002000)
        np.multiply(bits.view(np.float32), np.float32(2.0**112), out=single)
    return out


class Dataset:
    """One split of a dataset folder, or a view of some of its samples.

    folder: with `dataset.json`. split: "train", "validation" or "test".
    Attributes: name, split, folder, class_names (list of str), voxel_size (A), contrast ("bright" or "dark"), size
    (voxels a side), standardized (the volumes already have zero mean and unit standard deviation), metadata (dict),
    labels (len,) int64, -1 where unlabelled.
    Raises InputError naming the file when a shard is missing, truncated or foreign.
    """

    def __init__(self, folder: str | os.PathLike, split: str = "train"):
        self.folder, self.split = Path(folder), split
        header = read_header(folder)
        if split not in header["splits"]:
            have = ", ".join(header["splits"]) or "none yet"
            raise InputError(f"{folder} has no split {split!r} (it has {have}): choose another or {header['mend']}.")
        self.name, self.class_names = header["name"], header["class_names"]
        self.voxel_size, self.contrast, self.size = header["voxel_size"], header["contrast"], header["size"]
        self.standardized, self.metadata = header["standardized"], header["metadata"]
        self._mend = header["mend"]
        self._shards = header["splits"][split]["shards"]
        counts = [shard["count"] for shard in self._shards]
        for path, stated in self._files():
            if not path.is_file():
                raise InputError(f"{path} is missing: {self._mend}.")
            if (found := path.stat().st_size) != stated["bytes"]:
                raise InputError(f"{path} has {found} bytes instead of {stated['bytes']}: {self._mend}.")

        def paths(name: Callable) -> list[Path]:
            return [name(self.folder, split, number) for number in range(len(counts))]

        def rows(name: Callable, dtype: np.dtype, member: str | None = None) -> _Rows:
            return _Rows(paths(name), counts, self.size, dtype, member, self._mend)

        self._columns, masks = _read_columns(paths(labels_file), counts, self._mend)
        _check_labels(self._columns["label"], len(self.class_names), self.folder / split)
        self._volumes = rows(volumes_file, DTYPES[header["dtype"]])
        self._halves = rows(halves_file, DTYPES[header["dtype"]]) if "halves" in self._shards[0] else None
        self._masks = rows(labels_file, np.dtype("u1"), f"{_BY_ROW}.npy") if masks else None
        self._rows = np.arange(sum(counts))

    def _files(self) -> Iterator[tuple[Path, dict]]:
        """Every file of the split, with its bytes and sha256 as `dataset.json` has them."""
        for number, shard in enumerate(self._shards):
            for name, path in shard_files(self.folder, self.split, number, "halves" in shard).items():
                yield path, shard[name]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dtype(self) -> np.dtype:
        """Of the volumes on disk."""
        return self._volumes.dtype

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {self.split!r}, {len(self)} x {self.size}^3, {len(self.class_names)} classes)"

    @property
    def labels(self) -> np.ndarray:
        """(len,) int64, -1 where unlabelled."""
        return self.columns("label")

    @property
    def column_names(self) -> list[str]:
        """Names that `columns` takes."""
        return list(self._columns)

    def columns(self, name: str) -> np.ndarray:
        """One column over all samples, (len, ...)."""
        if name not in self._columns:
            raise InputError(f"{self.name} has no column {name!r}: it has {', '.join(self._columns)}.")
        return self._columns[name][self._rows]

    def _take(self, indices: Any) -> np.ndarray:
        indices = np.asarray(indices if isinstance(indices, np.ndarray) else list(indices))
        if indices.dtype == bool:
            raise InputError("Indices are True/False: give positions (numpy.flatnonzero of the selection).")
        return self._rows[indices.astype(np.int64)]

    def stored(self, indices: Iterable[int]) -> np.ndarray:
        """The volumes at `indices`, (n, size, size, size) (z, y, x) in the dtype of the files: float16 or float32."""
        return self._volumes.read(self._take(indices))

    def volumes(self, indices: Iterable[int]) -> np.ndarray:
        """The same as float32."""
        return _to_float32(self.stored(indices))

    @property
    def has_masks(self) -> bool:
        """Whether there is a segmentation mask of each volume's target."""
        return self._masks is not None

    def masks(self, indices: Iterable[int]) -> np.ndarray:
        """Segmentation masks (n, size, size, size) uint8 of a dataset that was simulated with `mask: true`."""
        if not self.has_masks:
            raise InputError(f"{self.name} has no masks: simulate it with `mask: true`.")
        return self._masks.read(self._take(indices))

    @property
    def has_halves(self) -> bool:
        """Whether each volume is also there as two half images with independent noise."""
        return self._halves is not None

    def require_halves(self) -> None:
        """InputError, which says how to get them, where there are no half images."""
        if not self.has_halves:
            raise InputError(
                f"{self.name} has no half images: simulate it with `halves: noise`, as crop_snr05_halves does, or "
                "import two half tomograms with --tomogram_b."
            )

    def halves(self, indices: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """The half images A and B at `indices`, (n, size, size, size) float32 each, in the scale of the volumes.

        A volume is (A + B) / 2. Raises InputError where the dataset has none.
        """
        self.require_halves()
        rows = self._take(indices)
        second = _to_float32(self._halves.read(rows))
        first = _to_float32(self._volumes.read(rows))
        first *= 2
        first -= second
        return first, second

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample: `volume` (z, y, x) float32, `label` int, `name` (None when unlabelled), every column; `mask` and
        `half` (the half image B) where the dataset has them."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        row = self._rows[index]
        columns = {key: column[row] for key, column in self._columns.items()}
        label = int(columns.pop("label"))
        name = self.class_names[label] if label >= 0 else None
        sample = {"volume": self.volumes([index])[0], "label": label, "name": name, **columns}
        if self.has_masks:
            sample["mask"] = self.masks([index])[0]
        if self.has_halves:
            sample["half"] = _to_float32(self._halves.read(self._take([index])))[0]
        return sample

    def subset(self, indices: Iterable[int]) -> Dataset:
        """A view of the samples at `indices`, in that order; nothing is copied from disk."""
        view = object.__new__(Dataset)
        view.__dict__.update(self.__dict__)
        view._rows = self._take(indices)
        return view

    def relabelled(self, labels: np.ndarray, class_names: Sequence[str]) -> Dataset:
        """The same samples with other labels, (len,) ints from -1, and other class names; the volumes are shared."""
        other = self.subset(range(len(self)))
        stored = np.full(len(self._columns["label"]), -1, np.int64)
        stored[self._rows] = labels
        other._columns = {**self._columns, "label": stored}
        other.class_names = list(class_names)
        return other

    def as_tf(self, batch_size: int = 16, shuffle: bool = False, seed: int = 0) -> Any:
        """tf.data.Dataset of (volumes (batch, z, y, x, 1) float32 standardised, labels (batch,) int64).

        In order and once; with `shuffle` for ever, each epoch in its own order (give Keras `steps_per_epoch`).
        """
        from aitom_ssl.data import pipeline

        if shuffle:
            return pipeline.training_batches(self, batch_size, seed, labels=True)
        return pipeline.evaluation_batches(self, batch_size, labels=True)

    def verify(self) -> None:
        """Read every file of the split and compare checksums; InputError names the first that differs."""
        for path, stated in self._files():
            if sha256(path) != stated["sha256"]:
                raise InputError(f"{path} has changed since it was written: delete it and {self._mend}.")


def _read_columns(files: Sequence[Path], counts: Sequence[int], mend: str) -> tuple[dict[str, np.ndarray], bool]:
    """The small columns of all shards, joined, and whether there are masks."""
    parts: list[dict[str, np.ndarray]] = []
    names: set[str] = set()
    for path, count in zip(files, counts, strict=True):
        try:
            with np.load(path, allow_pickle=False) as archive:
                names = set(archive.files) - {"fingerprint"}
                part = {key: archive[key] for key in archive.files if key in names - {_BY_ROW}}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is damaged or not a shard's labels ({error}): delete it and {mend}.") from None
        lengths = {len(column) if column.ndim else 0 for column in part.values()}
        if "label" not in part or lengths != {count} or (parts and set(part) != set(parts[0])):
            raise InputError(f"{path} has not the columns of its dataset, {count} rows each: delete it and {mend}.")
        parts.append(part)
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return joined, _BY_ROW in names


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that killed processes of this machine left in `folder` (see `files.atomic_write`)."""
    for path in Path(folder).rglob(".*.partial.*"):
        with contextlib.suppress(ValueError):
            if not _is_running(int(path.name.split(".")[-3].split("-")[0])):
                path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # Killed and not yet collected by its parent: in a container that may take for ever.
    with contextlib.suppress(OSError):
        return not Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].strip().startswith("Z")
    return True
