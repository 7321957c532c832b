"""MRC volumes in and out: always (z, y, x), always with a voxel size, the user's file never opened for writing.

The header is not trusted: a file shorter than it says, a voxel size of 0 or NaN, an unusual axis order and IMOD's
unsigned bytes are each met before a voxel is used (mrcfile itself ignores the axis order and the IMOD flag).
"""

from __future__ import annotations

import gzip
import math
import os
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import mrcfile.utils
import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from aitom_ssl.errors import InputError, reason
from aitom_ssl.files import atomic_write

SUFFIXES = (".mrc", ".map", ".rec", ".ccp4")
HEADER_BYTES = 1024
IMOD_STAMP = 1146047817
LARGEST_EXTENDED = 1 << 28
GZIP_BLOCK = 1 << 24


@dataclass(frozen=True)
class MrcHeader:
    """What the header of one MRC volume says, checked against the file."""

    shape: tuple[int, int, int]  # (z, y, x)
    voxel_sizes: tuple[float, float, float]  # (z, y, x) in A as the header states them, sensible or not
    dtype: np.dtype
    axes: tuple[int, int, int]  # the file's array axes that are (z, y, x)
    offset: int  # bytes before the first voxel
    compressed: bool

    @property
    def voxel_size(self) -> float | None:
        """The one voxel size in A (sides equal to 1 %); None where the header has none that can be used."""
        sides = self.voxel_sizes
        usable = all(math.isfinite(s) and s > 0 for s in sides) and max(sides) <= 1.01 * min(sides)
        return float(f"{np.mean(sides):.7g}") if usable else None

    @property
    def voxel_size_says(self) -> str:
        """The header's own voxel size, for messages: one number, or x, y and z."""
        sides = self.voxel_sizes[::-1]
        return f"{sides[0]:g} A" if len(set(sides)) == 1 else " x ".join(f"{s:g}" for s in sides) + " A"


def is_mrc_name(path: str | os.PathLike) -> bool:
    """Whether the name of a file is that of an MRC volume; hidden files are not."""
    name = Path(path).name
    return name.lower().removesuffix(".gz").endswith(SUFFIXES) and not name.startswith(".")


def read_header(path: str | os.PathLike) -> MrcHeader:
    """Header of the volume at `path`.

    Raises InputError where there is no file, it is no MRC volume, or an uncompressed file is shorter than it says.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"No file {path}: give the path of an MRC volume.")
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if compressed else open(path, "rb") as file:
            start = file.read(HEADER_BYTES)
        extended = [int.from_bytes(start[92:96], order) for order in ("little", "big")]
        if len(start) < HEADER_BYTES or min(extended) > LARGEST_EXTENDED:
            raise ValueError("its header makes no sense")  # mrcfile would try to read that much
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            with mrcfile.open(path, mode="r", permissive=True, header_only=True) as opened:
                raw = opened.header
                dtype = mrcfile.utils.data_dtype_from_header(raw)
                stored = mrcfile.utils.data_shape_from_header(raw)
    except (ValueError, EOFError, OSError, zlib.error, ZeroDivisionError) as error:
        raise InputError(f"{path} cannot be read as an MRC volume ({reason(error)}): give a whole one.") from None
    if len(stored) != 3 or min(stored) < 1:
        raise InputError(f"{path} holds an array of {'x'.join(map(str, stored))}: expected one 3-D volume.")
    if dtype.kind == "c":
        raise InputError(f"{path} holds complex numbers (a Fourier transform): expected a real-space volume.")
    integer = np.dtype("i4").newbyteorder(raw.mode.dtype.byteorder)
    stamp, flags = np.frombuffer(raw.extra2.tobytes()[40:48], dtype=integer)
    if raw.mode == 0 and stamp == IMOD_STAMP and not flags & 1:
        dtype = np.dtype(np.uint8)  # IMOD wrote bytes unsigned until 4.2.23 and marks signed ones with bit 0
    offset = HEADER_BYTES + max(int(raw.nsymbt), 0)
    expected = offset + math.prod(stored) * dtype.itemsize
    size = path.stat().st_size
    # Files older than MRC2014 lack the word MAP; only their length can vouch for them.
    if not bytes(raw.map).startswith(b"MAP") and (compressed or size != expected):
        raise InputError(f"{path} is not an MRC file (no 'MAP' in its header): give MRC volumes.")
    if not compressed and size < expected:
        raise InputError(
            f"{path} is truncated: {size:,} bytes, its header promises {expected:,}. Copy it again from its source."
        )
    order = [int(raw.maps), int(raw.mapr), int(raw.mapc)]  # which of x=1, y=2, z=3 each array axis is
    if order == [0, 0, 0]:  # left unset by some writers; means the usual order
        order = [3, 2, 1]
    if sorted(order) != [1, 2, 3]:
        raise InputError(f"{path} has axis order mapc, mapr, maps = {order[::-1]}: expected 1, 2, 3 in some order.")
    axes = tuple(order.index(axis) for axis in (3, 2, 1))
    cells = ((raw.cella.z, raw.mz), (raw.cella.y, raw.my), (raw.cella.x, raw.mx))
    sizes = tuple(float(cell) / int(samples) if samples > 0 else 0.0 for cell, samples in cells)
    return MrcHeader(tuple(stored[a] for a in axes), sizes, dtype, axes, offset, compressed)


def read_mrc(path: str | os.PathLike) -> tuple[np.ndarray, MrcHeader]:
    """Volume (z, y, x) in the file's own type, read-only, and its header.

    An uncompressed file is memory-mapped, so that a crop costs its own bytes; a gzipped one is read whole.
    Raises InputError as `read_header` does, and where the compressed data end early or are damaged.
    """
    header = read_header(path)
    stored = [0, 0, 0]
    for axis, side in zip(header.axes, header.shape, strict=True):
        stored[axis] = side
    if header.compressed:
        data = np.empty(stored, dtype=header.dtype)
        view = memoryview(data.reshape(-1).view(np.uint8))
        try:
            with gzip.open(path, "rb") as file:
                file.seek(header.offset)
                for start in range(0, data.nbytes, GZIP_BLOCK):
                    part = view[start : start + GZIP_BLOCK]
                    if file.readinto(part) != len(part):
                        raise EOFError("its data end early")
                file.read(1)  # reaching the end is what checks the checksum
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(
                f"{path} is truncated or damaged ({reason(error)}): copy it again from its source."
            ) from None
        data.flags.writeable = False
    else:
        data = np.memmap(path, dtype=header.dtype, mode="r", offset=header.offset, shape=tuple(stored))
    return data.transpose(header.axes), header


def choose_voxel_size(header: MrcHeader, given: float | None, path: str | os.PathLike) -> float:
    """`given` if there is one, else the header's voxel size in A; InputError where neither can be used."""
    if given is not None:
        if not (math.isfinite(given) and given > 0):
            raise InputError(f"--voxel_size={given:g}: expected a positive number of angstroms.")
        return float(given)
    if header.voxel_size is None:
        raise InputError(
            f"The header of {path} has a voxel size of {header.voxel_size_says}: expected one positive size for x, y "
            f"and z. Give the true one with --voxel_size=ANGSTROMS."
        )
    return header.voxel_size


def write_slices(
    path: str | os.PathLike,
    slices: Iterable[np.ndarray],
    shape: tuple[int, int, int],
    voxel_size: float,
    dtype: type[np.number] = np.float32,
    stack: bool = False,
) -> None:
    """Write the z slices (y, x) of a volume of `shape` (z, y, x) as they come, so that it need not be in memory.

    dtype: float32, int16 or uint16. voxel_size in A. stack: they are images of their own. The file appears whole or not
    at all.
    """
    header = np.zeros((), dtype=HEADER_DTYPE.newbyteorder("<"))
    for axis, side in zip("zyx", shape, strict=True):
        header[f"n{axis}"] = header[f"m{axis}"] = side
        header["cella"][axis] = side * voxel_size
    if stack:
        header["mz"], header["cella"]["z"] = 1, voxel_size
    for angle in ("alpha", "beta", "gamma"):
        header["cellb"][angle] = 90
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["ispg"] = 0 if stack else 1  # images, or one volume
    header["nversion"], header["map"] = 20141, b"MAP "
    header["mode"] = mrcfile.utils.mode_from_dtype(np.dtype(dtype))
    header["machst"] = mrcfile.utils.machine_stamp_from_byte_order("<")
    lows, highs, sums, squares = [], [], [], []
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(header.tobytes())
        for image in slices:
            image = np.ascontiguousarray(image, dtype=np.dtype(dtype).newbyteorder("<"))
            if image.shape != shape[1:]:
                raise ValueError(f"a slice is {image.shape}, expected {shape[1:]}")
            file.write(image.data)
            lows.append(image.min())
            highs.append(image.max())
            sums.append(image.sum(dtype=np.float64))
            squares.append(np.square(image, dtype=np.float64).sum())
        if len(sums) != shape[0]:
            raise ValueError(f"{len(sums)} slices came, expected {shape[0]}")
        mean = math.fsum(sums) / math.prod(shape)
        header["dmin"], header["dmax"], header["dmean"] = min(lows), max(highs), mean
        header["rms"] = math.sqrt(max(math.fsum(squares) / math.prod(shape) - mean**2, 0))
        file.seek(0)
        file.write(header.tobytes())


def write_mrc(
    path: str | os.PathLike, volume: np.ndarray, voxel_size: float, dtype: type[np.number] = np.float32
) -> None:
    """Write a (z, y, x) volume with its voxel size in A; the file appears whole or not at all.

    dtype: float32, or int8 for masks, which take a quarter of the space.
    """
    with atomic_write(path) as temporary, mrcfile.new(temporary) as file:
        file.set_data(np.ascontiguousarray(volume, dtype=dtype))
        file.voxel_size = voxel_size

