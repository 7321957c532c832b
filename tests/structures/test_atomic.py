"""Atomic models: what is read, how it becomes a map, and what is refused."""

import gzip

import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.structures import AtomicStructure, MapStructure
from aitom_ssl.structures.atomic import rasterise, read_atoms
from aitom_ssl.structures.density import VOLUME_PER_DALTON, gaussian_sigma, offsets

FOUR_FOLD = [((1, 0, 0), (0, 1, 0)), ((0, -1, 0), (1, 0, 0)), ((-1, 0, 0), (0, -1, 0)), ((0, 1, 0), (-1, 0, 0))]
ATOMS = [("N", "N", 20.0, 0.0, -4.0), ("CA", "C", 22.0, 3.0, 0.0), ("CB", "S", 25.0, 8.0, 5.0)]


def pdb_line(serial, name, residue, element, x, y, z, record="ATOM  ", number=1, alternative=" "):
    return (
        f"{record}{serial:5d}  {name:<3s}{alternative}{residue:>3s} A{number:4d}    "
        f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00 10.00          {element:>2s}"
    )


def remark_350():
    lines = [
        "REMARK 350 COORDINATES FOR A COMPLETE MULTIMER REPRESENTING THE KNOWN",
        "REMARK 350 BIOMOLECULE: 1",
        "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A",
    ]
    for i, (first, second) in enumerate(FOUR_FOLD, 1):
        for row, values in enumerate([first, second, (0, 0, 1)], 1):
            numbers = "".join(f"{v:10.6f}" for v in values)
            lines.append(f"REMARK 350   BIOMT{row} {i:3d}{numbers}{0.0:15.5f}")
    return lines


def toy_pdb(assembly=True):
    lines = remark_350() if assembly else []
    lines += [pdb_line(i, name, "ALA", element, *xyz) for i, (name, element, *xyz) in enumerate(ATOMS, 1)]
    lines.append(pdb_line(4, "H", "ALA", "H", 20.0, 1.0, -4.0))
    lines.append("TER")
    lines.append(pdb_line(5, "O", "HOH", "O", 60.0, 60.0, 60.0, "HETATM", 2))
    return "\n".join([*lines, "END", ""])


def toy_cif():
    items = (
        "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_entity_id label_seq_id"
    )
    items += " Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv auth_seq_id auth_asym_id pdbx_PDB_model_num"
    rows = [
        f"ATOM {i} {element} {name} . ALA A 1 1 {x} {y} {z} 1.0 10.0 1 A {model}"
        for model in (1, 2)
        for i, (name, element, x, y, z) in enumerate(ATOMS, 1)
    ]
    operators = [
        f"{i} ? ? ? " + " ".join(f"{v}" for v in (*first, 0.0, *second, 0.0, 0, 0, 1, 0.0))
        for i, (first, second) in enumerate(FOUR_FOLD, 1)
    ]
    oper = "id type name symmetry_operation " + " ".join(
        f"matrix[{r}][1] matrix[{r}][2] matrix[{r}][3] vector[{r}]" for r in (1, 2, 3)
    )
    return "\n".join(
        [
            "data_toy",
            "_entry.id toy",
            "_pdbx_struct_assembly.id 1",
            "_pdbx_struct_assembly.details author_defined_assembly",
            "_pdbx_struct_assembly.method_details ?",
            "_pdbx_struct_assembly.oligomeric_details tetrameric",
            "_pdbx_struct_assembly.oligomeric_count 4",
            "_pdbx_struct_assembly_gen.assembly_id 1",
            "_pdbx_struct_assembly_gen.oper_expression 1,2,3,4",
            "_pdbx_struct_assembly_gen.asym_id_list A",
            "loop_",
            *[f"_pdbx_struct_oper_list.{i}" for i in oper.split()],
            *operators,
            "loop_",
            *[f"_atom_site.{i}" for i in items.split()],
            *rows,
            "",
        ]
    )


@pytest.fixture(params=["toy.pdb", "toy.ent.gz", "toy.cif", "toy.cif.gz"])
def toy(request, tmp_path):
    text = toy_cif() if ".cif" in request.param else toy_pdb()
    path = tmp_path / request.param
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_assembly_quadruples_the_atoms(toy):
    alone, whole = read_atoms(toy, None), read_atoms(toy)
    assert len(alone.positions) == 3  # first model, no hydrogen, no water
    assert len(whole.positions) == 12
    np.testing.assert_allclose(alone.numbers, [7, 6, 16])
    np.testing.assert_allclose(whole.positions[:, :2].mean(axis=0), 0.0, atol=1e-6)
    turned = alone.positions @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]).T
    gap = np.linalg.norm(turned[:, None] - whole.positions[None], axis=-1).min(axis=1)
    assert gap.max() < 1e-5
    assert (alone.note, whole.note) == ("", "")


def test_file_without_assemblies_is_taken_as_it_is_and_says_so(tmp_path):
    path = tmp_path / "plain.pdb"
    path.write_text(toy_pdb(assembly=False))
    structure = AtomicStructure(path)
    assert len(structure.atoms.positions) == 3
    assert "no assembly" in structure.note


def test_unknown_assembly_lists_those_there_are(tmp_path):
    path = tmp_path / "toy.pdb"
    path.write_text(toy_pdb())
    with pytest.raises(InputError, match="no assembly '7'; it has 1"):
        read_atoms(path, "7")


def test_assembly_without_operators_is_refused(tmp_path):
    path = tmp_path / "toy.cif"
    path.write_text(toy_cif().replace("_pdbx_struct_oper_list.matrix", "_pdbx_struct_oper_list.other"))
    with pytest.raises(InputError, match="assembly '1' cannot be built"):
        read_atoms(path)
    assert len(read_atoms(path, None).positions) == 3


def test_one_of_the_alternative_positions_is_kept(tmp_path):
    path = tmp_path / "alternative.pdb"
    lines = [
        pdb_line(1, "N", "ALA", "N", 0, 0, 0),
        pdb_line(2, "CA", "ALA", "C", 1, 0, 0, alternative="A"),
        pdb_line(3, "CA", "ALA", "C", 1, 1, 0, alternative="B"),
    ]
    path.write_text("\n".join([*lines, "END", ""]))
    assert len(read_atoms(path).positions) == 2


@pytest.mark.parametrize("voxel_size, resolution", [(10.0, 20.0), (4.0, 8.0), (7.0, 40.0)])
def test_map_holds_the_total_weight(voxel_size, resolution):
    rng = np.random.default_rng(0)
    positions, weights = rng.uniform(-30, 30, (300, 3)), rng.uniform(6, 16, 300)
    volume = rasterise(positions, weights, 28, voxel_size, resolution)
    assert volume.sum() == pytest.approx(weights.sum(), rel=1e-5)


def test_one_atom_becomes_the_gaussian():
    position, resolution = np.array([[3.0, -7.0, 11.0]]), 40.0
    volume = rasterise(position, np.array([6.0]), 20, 10.0, resolution)
    sigma, axis = gaussian_sigma(resolution), offsets(20, 10.0)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    squared = (x - 3.0) ** 2 + (y + 7.0) ** 2 + (z - 11.0) ** 2
    exact = 6.0 * 1000.0 * (2 * np.pi * sigma**2) ** -1.5 * np.exp(-squared / (2 * sigma**2))
    assert np.abs(volume - exact).max() < 0.02 * exact.max()


def test_weights_and_symmetry_reach_the_map(tmp_path):
    path = tmp_path / "toy.pdb"
    path.write_text(toy_pdb())
    maps = {weight: AtomicStructure(path, weight=weight).density(5.0).volume for weight in ("Z", "mass", "number")}
    assert not np.allclose(maps["Z"], maps["number"], atol=1e-3)
    for volume in maps.values():
        assert volume.max() == 1.0
        core = volume[1:, 1:, 1:]  # voxel n/2 is the centre: without plane 0 the cube is odd and turns about it
        np.testing.assert_allclose(np.rot90(core, axes=(1, 2)), core, atol=1e-4)


def test_situs_kernel_skips_the_blur_only_where_pdb2vol_does(tmp_path):
    path = tmp_path / "toy.pdb"
    path.write_text(toy_pdb())
    blurred, situs = AtomicStructure(path), AtomicStructure(path, kernel="situs")
    sharp = situs.density(10.0, 10.0).volume
    assert np.count_nonzero(sharp) <= 8 * 12  # nothing but the trilinear splat of twelve atoms
    assert sharp.min() == 0.0
    assert np.count_nonzero(blurred.density(10.0, 10.0).volume) > 8 * 12
    np.testing.assert_array_equal(situs.density(10.0, 40.0).volume, blurred.density(10.0, 40.0).volume)


def test_fingerprint_follows_bytes_and_options_but_not_the_path(tmp_path):
    first, second = tmp_path / "a.pdb", tmp_path / "sub" / "b.pdb"
    second.parent.mkdir()
    for path in (first, second):
        path.write_text(toy_pdb())
    assert AtomicStructure(first).fingerprint() == AtomicStructure(second).fingerprint()
    assert AtomicStructure(first).fingerprint() != AtomicStructure(first, assembly=None).fingerprint()
    second.write_text(toy_pdb(assembly=False))
    assert AtomicStructure(first).fingerprint() != AtomicStructure(second).fingerprint()
    assert (AtomicStructure(first).name, AtomicStructure(second).name) == ("a", "b")


@pytest.mark.parametrize(
    "name, content",
    [
        ("empty.pdb", b""),
        ("page.cif", b"<!DOCTYPE html><html><body>Not found</body></html>"),
        ("noise.pdb.gz", b"\x1f\x8bnot really gzip"),
        ("cut.cif.gz", gzip.compress(toy_cif().encode())[:150]),
        ("water.pdb", (pdb_line(1, "O", "HOH", "O", 1, 2, 3, "HETATM") + "\nEND\n").encode()),
        ("nan.pdb", (pdb_line(1, "N", "ALA", "N", float("nan"), 2, 3) + "\nEND\n").encode()),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        AtomicStructure(path).density(10.0)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_options_are_validated(tmp_path):
    path = tmp_path / "toy.pdb"
    with pytest.raises(InputError, match="no structure file"):
        AtomicStructure(path)
    path.write_text(toy_pdb())
    with pytest.raises(InputError, match="weight must be one of Z, mass, number"):
        AtomicStructure(path, weight="charge")
    with pytest.raises(InputError, match="kernel must be one of"):
        AtomicStructure(path, kernel="box")


# === Real files ===

REAL_COUNTS = {"1bxn": (18144, 36288), "1w6t": (6594, 26376), "3hhb": (4558, 4558), "3qm1": (2028, 4056)}


def test_every_real_model_loads(shared_folder):
    files = sorted((shared_folder / "structures" / "atomic").iterdir())
    assert len(files) == 24
    for file in files:
        structure = AtomicStructure(file)
        density = structure.density(10.0)
        assert density.volume.max() == 1.0 and 20 < density.radius < 160, file.name
        assert 30_000 < density.mass < 4_000_000, file.name
        n = density.volume.shape[0]
        assert n % 2 == 0 and n >= 2 * density.radius / 10 + 4
        enclosed = (density.volume >= density.threshold).sum() * 1000.0
        assert enclosed == pytest.approx(VOLUME_PER_DALTON * density.mass, rel=0.05, abs=2000), file.name


@pytest.mark.parametrize("name", REAL_COUNTS)
def test_assemblies_of_real_models(shared_folder, name):
    file = next((shared_folder / "structures" / "atomic").glob(f"{name}.*"))
    alone, whole = REAL_COUNTS[name]
    assert len(read_atoms(file, None).positions) == alone
    assert len(read_atoms(file).positions) == whole


@pytest.mark.parametrize("name", ["1bxn", "1qvr", "3j9i"])
def test_agrees_with_the_published_map_of_the_same_entry(shared_folder, name):
    """The published maps are of the coordinates as deposited: assembly 1 of 1bxn and 1qvr is twice that."""
    folder = shared_folder / "structures"
    published = MapStructure(folder / "density_10A" / f"{name}.mrc.gz").density(10.0)
    file = folder / "atomic" / f"{name}.pdb.gz"
    deposited = best_correlation(AtomicStructure(file, assembly=None).density(10.0).volume, published.volume)
    assembly = best_correlation(AtomicStructure(file).density(10.0).volume, published.volume)
    assert deposited > 0.94
    if name != "3j9i":
        assert assembly < 0.85


def best_correlation(a, b):
    """Largest normalised inner product over shifts."""
    n = max(len(a), len(b)) + 8
    a, b = (np.pad(v, [((n - len(v)) // 2,) * 2] * 3) for v in (a, b))
    product = np.fft.irfftn(np.fft.rfftn(a).conj() * np.fft.rfftn(b), s=a.shape, axes=(0, 1, 2))
    return product.max() / np.linalg.norm(a) / np.linalg.norm(b)
