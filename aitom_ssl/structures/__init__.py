"""Where densities come from: analytic models, atomic models, maps. `resolve` turns a reference into one of them."""

from __future__ import annotations

from pathlib import Path

from aitom_ssl import mrc
from aitom_ssl.errors import InputError
from aitom_ssl.structures import atomic, builtin, fetch
from aitom_ssl.structures.atomic import AtomicStructure
from aitom_ssl.structures.builtin import NAMES, BuiltinStructure
from aitom_ssl.structures.density import Density, Structure
from aitom_ssl.structures.maps import MapStructure

__all__ = [
    "NAMES",
    "AtomicStructure",
    "BuiltinStructure",
    "Density",
    "MapStructure",
    "Structure",
    "resolve",
]

PDB_PREFIX = "pdb:"


def resolve(reference: str, base: str | Path | None = None) -> Structure:
    """The structure that a reference names.

    reference: a built-in model (`NAMES`); "pdb:3DY4" for an entry that `fetch_structures` put in the cache; or a path
    to .pdb, .ent, .cif, .mmcif (atoms) or .mrc, .map, .rec, .ccp4 (a map), gzipped or not. A relative path starts at
    `base`.
    Raises InputError, with near names where there are any.
    """
    if not isinstance(reference, str) or not reference.strip():
        raise InputError(f"A structure is a built-in name, pdb:ID or a file's path. Received: {reference!r}.")
    if reference.lower().startswith(PDB_PREFIX):
        return AtomicStructure(fetch.cached(reference[len(PDB_PREFIX) :]))
    if reference in builtin.NAMES:
        return builtin.get(reference)
    path = Path(reference).expanduser()
    suffixes = path.suffixes[:-1] if path.suffix.lower() == ".gz" else path.suffixes
    kind = suffixes[-1].lower() if suffixes else ""
    if base is not None:
        path = Path(base).expanduser() / path
    if kind in atomic.SUFFIXES:
        return AtomicStructure(path)
    if kind in mrc.SUFFIXES:
        return MapStructure(path)
    if kind or "/" in reference:
        endings = ", ".join([*atomic.SUFFIXES, *mrc.SUFFIXES])
        raise InputError(
            f"Cannot tell what structure {reference!r} is: a file's name ends in {endings}, or those and .gz."
        )
    return builtin.get(reference)  # raises, with near names
