"""Writing a file or a folder whole or not at all, and telling whether a file is still what it was."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from aitom_ssl.errors import InputError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to `path` when the block ends well and removed when it does not.

    The temporary name keeps the suffix, because writers such as numpy.save append one of their own. An OSError about
    it names `path` instead.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is not None and Path(error.filename) == temporary:
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def build_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, renamed to it when the block ends well, and removed when it does not.

    Everything in it is on disk before the rename: whoever looks never sees half of it. A `folder` that is there gives
    way if it is empty; else InputError, at the end.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        with contextlib.suppress(OSError):
            folder.rmdir()
        if folder.exists():
            raise InputError(f"{folder} was written by someone else meanwhile: run the same again.")
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that killed processes of this machine left in `folder` (see `atomic_write`)."""
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


@contextlib.contextmanager
def claimed(path: Path, wait: bool = False) -> Iterator[bool]:
    """Whether this process holds `path`, an empty file, for itself; it lets go at the end, or when it dies.

    wait: until no other process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            if not _is_at(path, file):
                continue  # Its holder deleted it after it was opened here: nobody would see that it is held.
            try:
                yield True
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(path: Path, file: IO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def write_json(path: str | os.PathLike, values: Mapping[str, Any]) -> Path:
    """Write `values` (numbers, texts, lists, mappings) as JSON for people to read; returns the path."""
    with atomic_write(path) as temporary:
        text = json.dumps(dict(values), indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return Path(path)


def write_csv(
    path: str | os.PathLike, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> Path:
    """Write `rows` as a table, UTF-8 with commas; returns the path.

    columns: the names in order, empty where a row has no such value; default every name in a row, by first appearance.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else columns
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return Path(path)


def nearest_existing(path: str | os.PathLike) -> Path:
    """`path`, absolute, or the nearest folder above it that is there."""
    path = Path(path).absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def refuse_unwritable(folder: str | os.PathLike) -> None:
    """InputError when `folder`, which need not be there, is or lies in a file, or in a place that cannot be written."""
    standing = nearest_existing(folder)
    if not standing.is_dir():
        raise InputError(f"{standing} is a file, expected a folder: choose another place.")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise InputError(f"{standing} cannot be written to: choose another place, or change its permissions.")


def is_disk_full(error: OSError) -> bool:
    """Whether `error` says that the disk, or the user's share of it, is full (HDF5 says so in the text alone)."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
