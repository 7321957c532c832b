"""References to structures: names, paths, cached entries, typos."""

import gzip

import numpy as np
import pytest
from test_atomic import toy_cif, toy_pdb
from test_maps import write

from aitom_ssl import structures
from aitom_ssl.errors import InputError
from aitom_ssl.structures import AtomicStructure, BuiltinStructure, MapStructure, Structure, resolve


def test_builtin_by_name():
    assert isinstance(resolve("groel"), BuiltinStructure)
    assert {resolve(name).name for name in structures.NAMES} == set(structures.NAMES)


@pytest.mark.parametrize("name", ["a.pdb", "a.ENT", "a.cif", "b.c.cif.gz", "sub/a.mmcif"])
def test_atoms_by_path_from_base(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    text = (toy_pdb() if name.lower().endswith(("pdb", "ent")) else toy_cif()).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    for structure in (resolve(name, base=tmp_path), resolve(str(path)), resolve(str(path), base="elsewhere")):
        assert isinstance(structure, AtomicStructure) and isinstance(structure, Structure)
        assert len(structure.atoms.positions) == 12


def test_maps_by_path(tmp_path):
    write(tmp_path / "m.mrc", np.pad(np.ones((3, 3, 3), np.float32), 4))
    assert isinstance(resolve("m.mrc", base=tmp_path), MapStructure)


@pytest.mark.parametrize(
    "reference, message",
    [
        ("groell", "Did you mean groel"),
        ("ribosom", "Did you mean ribosome"),
        ("qqqqqq", "No built-in structure 'qqqqqq'. There are"),
        ("missing.pdb", "no structure file"),
        ("missing.mrc.gz", "no map file"),
        ("notes.txt", "Cannot tell what structure"),
        ("folder/thing", "Cannot tell what structure"),
        ("", "built-in name, pdb:ID or a file's path"),
        (3, "Received: 3"),
        ("pdb:3DY", "not a PDB id"),
        ("pdb:3DY4", "not in the cache.*fetch_structures --pdb=3DY4"),
    ],
)
def test_mistakes_are_explained(tmp_path, monkeypatch, reference, message):
    monkeypatch.setenv("AITOM_SSL_CACHE", str(tmp_path / "none"))
    with pytest.raises(InputError, match=message) as caught:
        resolve(reference, base=tmp_path)
    assert "\n" not in str(caught.value)
