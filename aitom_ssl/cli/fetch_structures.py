"""Download atomic models from the Protein Data Bank into the cache.

    fetch_structures --pdb=3DY4,1BXN

Afterwards a dataset's YAML can list them among its classes as pdb:3DY4. Files are checked before they are kept, and not
downloaded again while their checksum is right.
"""

from __future__ import annotations

from dataclasses import dataclass

from aitom_ssl.cli.common import flag


@dataclass
class Options:
    """Flags of the command."""

    pdb: list[str] = flag([], "PDB ids, separated by commas")
    output: str | None = flag(None, "folder for the files; when not given, the cache, where pdb:ID finds them")
    base_url: str = flag("https://files.rcsb.org/download", "server and folder that hold ID.cif.gz")


def run(options: Options) -> None:
    """Fetch what the flags name, one line an entry."""
    from aitom_ssl.structures import fetch

    fetch.fetch(options.pdb, base_url=options.base_url, cache=options.output, report=print)
