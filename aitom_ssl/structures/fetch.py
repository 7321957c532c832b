"""Downloading atomic models from the Protein Data Bank into the cache, checked before they are taken for data."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

from aitom_ssl.cache import cache_folder
from aitom_ssl.errors import InputError
from aitom_ssl.files import atomic_write, refuse_unwritable, sha256
from aitom_ssl.structures.atomic import read_atoms

BASE_URL = "https://files.rcsb.org/download"
TIMEOUT = 30.0
"""Seconds that the server may stay silent."""


def structures_folder() -> Path:
    """Where downloaded structures are kept."""
    return cache_folder() / "structures"


def normalise_id(identifier: str) -> str:
    """A PDB id in lower case: four characters ("3dy4"), or the extended form ("pdb_10003dy4").

    The extended form of a four-character id, "pdb_00003dy4", is that id. Raises InputError for anything else.
    """
    lower = identifier.strip().lower()
    if re.fullmatch(r"pdb_0000[1-9][a-z0-9]{3}", lower):
        return lower[-4:]
    if re.fullmatch(r"[1-9][a-z0-9]{3}|pdb_[a-z0-9]{8}", lower):
        return lower
    raise InputError(
        f"{identifier!r} is not a PDB id: expected four characters, the first a digit, such as 3DY4, or pdb_00003dy4."
    )


def file_of(identifier: str, folder: Path | None = None) -> Path:
    """Where the entry is kept: <folder>/<id>.cif.gz, folder the cache's by default."""
    return (folder or structures_folder()) / f"{normalise_id(identifier)}.cif.gz"


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def is_intact(path: Path) -> bool:
    """Whether a downloaded file is still what was downloaded, by its recorded SHA-256."""
    try:
        recorded = json.loads(_record_of(path).read_text())["sha256"]
        return sha256(path) == recorded
    except (OSError, ValueError, KeyError, TypeError):
        return False


def cached(identifier: str) -> Path:
    """The cached file of an entry, verified; InputError says how to get it where it is missing or damaged."""
    path = file_of(identifier)
    mend = f"Run: aitom-ssl fetch_structures --pdb={normalise_id(identifier).upper()}"
    if not path.is_file():
        raise InputError(f"PDB entry {identifier} is not in the cache ({path}). {mend}")
    if not is_intact(path):
        raise InputError(f"PDB entry {identifier} in the cache ({path}) is not what was downloaded. {mend}")
    return path


def _download(identifier: str, url: str, target: Path) -> None:
    """Put what `url` answers into `target`; InputError names entry, address and remedy."""
    what = f"PDB entry {identifier.upper()} could not be downloaded from {url}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, open(target, "wb") as file:
            expected = answer.headers.get("Content-Length")
            shutil.copyfileobj(answer, file)
        received = target.stat().st_size
        if expected is not None and received != int(expected):
            raise InputError(f"{what}: it stopped after {received} of {expected} bytes. Run the same command again.")
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise InputError(
                f"{what}: the server has no such entry (404). Check the id at https://www.rcsb.org."
            ) from None
        raise InputError(f"{what}: the server answered {error.code} {error.reason}. Try again later.") from None
    except http.client.HTTPException as error:
        raise InputError(
            f"{what}: the answer was cut off ({type(error).__name__}). Run the same command again."
        ) from None
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise InputError(
            f"{what}: no connection ({reason}). Check the network, or get the file elsewhere and name it by its path."
        ) from None
    except (TimeoutError, ConnectionError) as error:
        raise InputError(
            f"{what}: the connection broke ({error or 'timed out'}). Run the same command again."
        ) from None
    except ValueError as error:
        raise InputError(f"{what}: {error}. --base_url looks like {BASE_URL}.") from None


def fetch(
    ids: Iterable[str],
    base_url: str = BASE_URL,
    cache: str | Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Download entries as <base_url>/<ID>.cif.gz, and return their files in order.

    An entry that is there already and has its recorded checksum is not downloaded again; one that was damaged is. Each
    file is parsed before it gets its name, and its SHA-256 is recorded beside it. cache: a folder, by default the
    cache's. report: called with one line an entry. Raises InputError; entries fetched before the one that failed stay.
    """
    folder = Path(cache).expanduser() if cache else structures_folder()
    identifiers = list(dict.fromkeys(normalise_id(i) for i in ids))
    if not identifiers:
        raise InputError("No PDB entries were named. Name some, as in --pdb=3DY4,1BXN.")
    refuse_unwritable(folder)
    paths = []
    for identifier in identifiers:
        path = file_of(identifier, folder)
        paths.append(path)
        if path.is_file() and is_intact(path):
            report(f"{identifier.upper()}: in {path}, checksum right")
            continue
        name = identifier if identifier.startswith("pdb_") else identifier.upper()
        url = f"{base_url.rstrip('/')}/{name}.cif.gz"
        with atomic_write(path) as temporary:
            _download(identifier, url, temporary)
            try:
                atoms = read_atoms(temporary)
            except InputError:
                raise InputError(
                    f"PDB entry {identifier.upper()}: what {url} answered is not a readable mmCIF model (a truncated "
                    "file, or a web page). Run the same command again, or check --base_url."
                ) from None
            record = {"id": identifier, "url": url, "sha256": sha256(temporary), "bytes": temporary.stat().st_size}
            # The record first: a file without its right record counts as not there.
            with atomic_write(_record_of(path)) as record_file:
                record_file.write_text(json.dumps(record, indent=1) + "\n")
        note = f" ({atoms.note})" if atoms.note else ""
        report(f"{identifier.upper()}: {len(atoms.positions)} atoms, {record['bytes']} bytes, in {path}{note}")
    return paths
