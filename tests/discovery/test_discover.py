"""Discovery from a folder of files: what is written, going on, and clusters that fail beside those that stand."""

import csv
import shutil

import numpy as np
import pytest
import starfile

from aitom_ssl import geometry
from aitom_ssl.data.importers.star import read_star
from aitom_ssl.data.sources import Reading, open_source
from aitom_ssl.discovery import discover
from aitom_ssl.discovery.discover import majority, run_discovery
from aitom_ssl.discovery.discover_report import summary_rows, summary_text
from aitom_ssl.discovery.subdivision import Features
from aitom_ssl.errors import InputError
from aitom_ssl.mrc import read_mrc, write_mrc
from aitom_ssl.simulation import SimulationSpec, Simulator

SIZE, VOXEL = 16, 20.0
CLASSES = ("groel", "ribosome_70s")
COUNT = 13
SETTINGS = {
    "clusters": 3,
    "classes": 1,
    "iterations": 1,
    "gold_standard": False,
    "tilt_max": None,
    "mask_radius": None,
    "max_shift": 60.0,
    "seed": 0,
}


class Told:
    """Features that put particles where `groups` says; a classifier's if it has class_names."""

    size = None

    def __init__(self, groups, class_names=()):
        self.groups, self.class_names, self.calls = np.asarray(groups), tuple(class_names), 0

    def check(self, source):
        if len(source) != len(self.groups):
            raise InputError("told of others")

    def __call__(self, source):
        self.calls += 1
        values = 5.0 * np.eye(3)[self.groups].astype(np.float32)
        values += 0.1 * np.random.default_rng(0).standard_normal(values.shape).astype(np.float32)
        kept = np.arange(len(source))
        return Features(values, kept, [], "3 told features", self.class_names, False, ["told, not learned."])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six subtomograms of each class in a folder a class, and one more."""
    spec = SimulationSpec(classes=CLASSES, size=SIZE, voxel_size=VOXEL, snr=2, max_shift=1.0)
    batch = Simulator(spec).batch(0, range(COUNT))
    path = tmp_path_factory.mktemp("data") / "particles"
    for i, (volume, label) in enumerate(zip(batch["volume"], batch["label"], strict=True)):
        (path / CLASSES[label]).mkdir(exist_ok=True, parents=True)
        write_mrc(path / CLASSES[label] / f"{i:02d}.mrc", volume, VOXEL)
    return path


# Files go class by class: seven of the first, six of the second. The last cluster has a single particle.
GROUPS = [0] * 6 + [2] + [1] * 6


def source(folder):
    return open_source(str(folder), Reading())


def settings(folder):
    return {"data": str(folder), **SETTINGS}


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "found"
    features, other = Told(GROUPS, (*CLASSES, "none")), Told([0, 1, 2] * 4 + [0])
    run_discovery(settings(folder), source(folder), features, {"rotation_invariant": other}, str(path), command="do it")
    return path


def rows_of(path):
    with open(path / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_an_average_and_one_a_cluster_without(done):
    rows = rows_of(done)
    assert [(row["cluster"], row["class"], row["status"]) for row in rows] == [
        ("0", "1", "averaged"),
        ("1", "1", "averaged"),
        ("2", "", "too small"),
    ]
    first, second, single = rows
    assert [row["size"] for row in rows] == ["6", "6", "1"]
    assert {first["label"], second["label"]} == set(CLASSES) and first["purity"] == second["purity"] == "1.0"
    assert single["label"] == "groel" and single["predicted"] == "none"
    for row in (first, second):
        assert row["predicted"] == row["label"] == row["nearest_known"]
        assert 40 <= float(row["resolution_0.143"]) < 200
        volume, header = read_mrc(done / row["average"])
        assert volume.shape == (SIZE,) * 3 and header.voxel_size == VOXEL


def test_the_star_file_has_cluster_class_and_pose_of_what_is_averaged(done, folder):
    blocks = starfile.read(done / "particles.star", always_dict=True)
    table = blocks["particles"]
    assert len(table) == 12 and list(blocks["optics"]["rlnImagePixelSize"]) == [VOXEL]
    names = [path.rsplit("/", 2)[1] for path in table["rlnImageName"]]
    assert sorted(set(zip(names, table["aitomCluster"], table["rlnClassNumber"], strict=True))) in (
        [("groel", 0, 1), ("ribosome_70s", 1, 2)],
        [("groel", 1, 2), ("ribosome_70s", 0, 1)],
    )
    assert sorted(set(table["rlnRandomSubset"])) == [1, 2] and set(table["aitomClass"]) == {1}
    with np.load(done / "clusters" / "000" / "poses.npz") as file:
        poses = dict(file)
    mine = table[table["aitomCluster"] == 0]
    angles = mine[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
    quaternions = geometry.relion_angles_to_quaternion(angles)
    np.testing.assert_allclose(np.abs((quaternions * poses["quaternion"]).sum(1)), 1, atol=1e-6)
    origin = mine[[f"rlnOrigin{axis}Angst" for axis in "XYZ"]].to_numpy()
    np.testing.assert_allclose(origin, -poses["shift"] * VOXEL, atol=1e-3)


def test_the_report_has_every_average_and_what_it_was_compared_with(done):
    page = (done / "report.html").read_text(encoding="utf-8")
    for words in ("told, not learned.", "rotation invariant", "Cluster 0: 6", "Cluster 1: 6", "too small", "do it"):
        assert words in page, words
    assert page.count("<img") == 2 + 2 * 2 and (done / "tsne.png").is_file()


def test_finished_clusters_are_kept_and_the_rest_is_done(done, folder, tmp_path, monkeypatch):
    shutil.copytree(done, tmp_path / "found")
    shutil.rmtree(tmp_path / "found" / "clusters" / "001")
    averaged, own = [], discover.average_cluster

    def counted(source, indices, *others):
        averaged.append(len(indices))
        return own(source, indices, *others)

    monkeypatch.setattr(discover, "average_cluster", counted)
    again = Told(GROUPS)
    run_discovery(settings(folder), source(folder), again, {}, str(tmp_path / "found"), resume=True)
    assert averaged == [6] and again.calls == 0
    # The same numbers: nothing depends on what was finished before.
    assert rows_of(tmp_path / "found") == rows_of(done)


def test_a_cluster_that_fails_is_named_and_the_others_stand_until_it_is_mended(done, folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "particles")
    shutil.copytree(done, tmp_path / "found")
    damaged = next((tmp_path / "particles" / rows_of(done)[0]["label"]).glob("*.mrc"))
    for name in ("clusters/000", "clusters/001"):
        shutil.rmtree(tmp_path / "found" / name)
    whole = damaged.read_bytes()
    volume = np.array(read_mrc(damaged)[0])
    volume[3, 3, 3] = np.inf
    write_mrc(damaged, volume, VOXEL)

    def go_on():
        data = source(tmp_path / "particles")
        run_discovery(settings(tmp_path / "particles"), data, Told(GROUPS), {}, str(tmp_path / "found"), resume=True)

    with pytest.raises(InputError, match=r"1 of 2 clusters failed \(0\).*The others stand"):
        go_on()
    assert f"failed: Cluster 0: {damaged}" in capsys.readouterr().out
    assert [row["status"] for row in rows_of(tmp_path / "found")] == ["failed", "averaged", "too small"]
    assert damaged.name in (tmp_path / "found" / "report.html").read_text(encoding="utf-8")
    damaged.write_bytes(whole)
    go_on()
    assert rows_of(tmp_path / "found") == rows_of(done)


def test_what_cannot_be_done_makes_no_folder(folder, tmp_path):
    for changes, groups, said in (
        ({"clusters": 14}, GROUPS, "--clusters=14 and 13 particles"),
        ({"mask_radius": 1.0}, GROUPS, "--mask_radius=1"),
        ({}, GROUPS[1:], "told of others"),
    ):
        with pytest.raises(InputError, match=said):
            run_discovery({**settings(folder), **changes}, source(folder), Told(groups), {}, str(tmp_path / "o"))
        assert not (tmp_path / "o").exists()


def test_other_particles_are_not_gone_on_with(done, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "particles")
    next((tmp_path / "particles" / "groel").glob("*.mrc")).unlink()
    with pytest.raises(InputError, match="holds other particles than when"):
        run_discovery(settings(folder), source(tmp_path / "particles"), Told(GROUPS[1:]), {}, str(done), resume=True)


def test_two_particles_of_one_tomogram_mean_where_they_are(tmp_path):
    # A box is cut about a whole voxel; coordinate - origin is the particle, wherever in the box it is.
    rng = np.random.default_rng(0)
    write_mrc(tmp_path / "t.mrc", rng.standard_normal((40, 40, 40)).astype(np.float32), VOXEL)
    (tmp_path / "t.star").write_text(
        "data_particles\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnCoordinateZ #3\n_rlnTomoName #4\n"
        "15.4 20 21 t\n20.6 19 20 t\n"
    )
    data = open_source(str(tmp_path / "t.star"), Reading(tomogram=str(tmp_path / "t.mrc"), box_size=16))
    columns, optics = discover._columns(data, np.array([0, 1]))
    assert optics is None and columns["rlnCoordinateX"].tolist() == [15, 21] and columns["rlnTomoName"] == ["t", "t"]
    shifts = np.array([[0.5, 0, -1], [0, 2, 0]])
    turned = np.tile([1.0, 0, 0, 0], (2, 1))
    discover.write_aligned(tmp_path / "p.star", columns, turned, shifts, VOXEL, 16, {"rlnClassNumber": [1, 1]})
    found = read_star(tmp_path / "p.star", (40, 40, 40), VOXEL)
    np.testing.assert_allclose(found.positions, np.array([[15, 20, 21], [21, 19, 20]]) + shifts, atol=1e-6)


def test_majorities():
    assert majority(np.array([1, 1, 0, -1]), ["a", "b"]) == ("b", 2 / 3)
    assert majority(np.array([-1, -1]), []) is None


def test_columns_without_a_value_are_left_out_of_the_summary():
    averaged = {"cluster": 0, "class": 1, "status": "averaged", "size": 5, "resolution_0.143": 31.25, "label": ""}
    waiting = {"cluster": 1, "class": "", "status": "failed", "size": 4, "label": ""}
    assert summary_rows([averaged, waiting]) == [
        ["cluster", "class", "size", "FSC 0.143 (Å)"],
        ["0", "1", "5", "31.2"],
        ["1", "(failed)", "4", ""],
    ]
    assert summary_text([waiting]) == "No cluster is averaged."
    assert summary_text([averaged] * 5, most=2).endswith("... and 3 more in table.csv")
