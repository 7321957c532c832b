"""Random access by index to the samples of a folder of shards (see `shards`). NumPy only.

Rows are read with `os.pread`, so resident memory does not grow with the dataset, and any number of threads may read.
"""

from __future__ import annotations

import collections
import math
import os
import struct
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aitom_ssl.data.header import DTYPES, read_header
from aitom_ssl.data.shards import (
    BY_ROW,
    check_labels,
    halves_file,
    labels_file,
    npy_header,
    seek_member,
    shard_files,
    volumes_file,
)
from aitom_ssl.errors import InputError
from aitom_ssl.files import sha256

_OPEN_FILES = 64


class _File:
    """An open file of rows, checked against what it should hold; closed when the last user lets go of it."""

    def __init__(self, path: Path, member: str | None, shape: tuple[int, ...], dtype: np.dtype, mend: str):
        self.path, self.mend, self.descriptor = path, mend, -1
        try:
            with open(path, "rb") as file:
                if member is not None:
                    seek_member(file, member)
                found = npy_header(file)
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
        check_labels(self._columns["label"], len(self.class_names), self.folder / split)
        self._volumes = rows(volumes_file, DTYPES[header["dtype"]])
        self._halves = rows(halves_file, DTYPES[header["dtype"]]) if "halves" in self._shards[0] else None
        self._masks = rows(labels_file, np.dtype("u1"), f"{BY_ROW}.npy") if masks else None
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
                part = {key: archive[key] for key in archive.files if key in names - {BY_ROW}}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is damaged or not a shard's labels ({error}): delete it and {mend}.") from None
        lengths = {len(column) if column.ndim else 0 for column in part.values()}
        if "label" not in part or lengths != {count} or (parts and set(part) != set(parts[0])):
            raise InputError(f"{path} has not the columns of its dataset, {count} rows each: delete it and {mend}.")
        parts.append(part)
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return joined, BY_ROW in names
