"""One view of datasets, MRC folders and STAR files: same voxels, same order, and a clear word about everything else."""

import numpy as np
import pytest

from aitom_ssl.data import sources, write_dataset
from aitom_ssl.data.importers.particles import prepare_volume
from aitom_ssl.data.importers.tomogram import cut
from aitom_ssl.data.sources import Reading, fit_box, is_dataset, open_source
from aitom_ssl.errors import InputError
from aitom_ssl.mrc import write_mrc

SIZE = 6
VOLUMES = np.random.default_rng(0).normal(50, 5, (12, SIZE, SIZE, SIZE)).astype(np.float32)


@pytest.fixture
def dataset(tmp_path):
    splits = {
        "train": [{"volume": v, "label": i % 2, "path": f"p{i}.mrc"} for i, v in enumerate(VOLUMES[:7])],
        "test": [{"volume": v, "label": -1, "path": f"q{i}.mrc"} for i, v in enumerate(VOLUMES[7:])],
    }
    return write_dataset(tmp_path / "set", "set", ["a", "b"], 10.0, "dark", splits)


@pytest.fixture
def folder(tmp_path):
    for i, volume in enumerate(VOLUMES):
        write_mrc(tmp_path / "mrc" / f"{i:02d}.mrc", volume, 10.0)
    return tmp_path / "mrc"


def star(path, name, columns, rows, optics=""):
    head = "".join(f"_{column} #{i}\n" for i, column in enumerate(columns, 1))
    body = "".join(" ".join(map(str, row)) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# version 30001\n{optics}\ndata_{name}\n\nloop_\n{head}{body}\n")
    return path


def standardised(volumes):
    return np.stack([prepare_volume(volume, False, "zscore", "it") for volume in volumes])


# === Datasets ===


def test_the_splits_of_a_dataset_stand_one_after_the_other(dataset):
    source = open_source(str(dataset), Reading())
    assert (len(source), source.size, source.voxel_size, source.contrast) == (12, SIZE, 10.0, "dark")
    assert source.stored_contrast and not source.standardized
    order = np.array([11, 0, 6, 7, 3])
    np.testing.assert_array_equal(source.read(order), VOLUMES[order])
    assert list(source.columns["split"]) == ["train"] * 7 + ["test"] * 5
    assert list(source.columns["index"]) == [*range(7), *range(5)]
    assert source.columns["path"][8] == "q1.mrc" and source.star_columns["rlnImageName"][0] == "p0.mrc"
    assert source.labels.tolist() == [0, 1, 0, 1, 0, 1, 0] + [-1] * 5
    assert "Sample 1 of" in source.describe(8) and "test" in source.describe(8)


def test_one_split_is_other_data(dataset):
    whole, part = open_source(str(dataset), Reading()), open_source(str(dataset), Reading(split="test"))
    assert len(part) == 5 and whole.identity != part.identity
    np.testing.assert_array_equal(part.read(np.arange(5)), VOLUMES[7:])


def test_a_dataset_turned_round_says_so(dataset):
    source = open_source(str(dataset), Reading(invert_contrast=True))
    assert source.contrast == "bright"
    np.testing.assert_array_equal(source.read(np.arange(12)), -VOLUMES)


# === Folders ===


def test_files_are_read_as_an_import_would(folder):
    source = open_source(str(folder), Reading())
    assert (len(source), source.size, source.voxel_size) == (12, SIZE, 10.0)
    assert source.standardized and not source.stored_contrast and source.contrast == "bright"
    np.testing.assert_array_equal(source.read(np.array([3, 1])), standardised(VOLUMES[[3, 1]]))
    assert source.columns["path"][3] == "03.mrc" and source.star_columns["rlnImageName"][3].endswith("mrc/03.mrc")
    assert open_source(str(folder), Reading(invert_contrast=True)).contrast == "dark"


def test_only_the_volumes_asked_for_are_read(folder, monkeypatch):
    source, opened = open_source(str(folder), Reading()), []
    read = sources.read_mrc
    monkeypatch.setattr(sources, "read_mrc", lambda path: opened.append(path.name) or read(path))
    source.read(np.array([2, 9]))
    assert opened == ["02.mrc", "09.mrc"]


def test_boxes_are_cropped_and_headers_overruled(folder):
    source = open_source(str(folder), Reading(box_size=4, voxel_size=7.5))
    assert (source.size, source.voxel_size) == (4, 7.5)
    np.testing.assert_array_equal(source.read(np.array([5])), standardised(VOLUMES[5:6, 1:5, 1:5, 1:5]))


def test_sub_folders_are_classes(tmp_path):
    for name in ("b/1.mrc", "a/1.mrc", "a/2.mrc"):
        write_mrc(tmp_path / name, VOLUMES[0], 10.0)
    source = open_source(str(tmp_path), Reading())
    assert source.class_names == ["a", "b"] and source.labels.tolist() == [0, 0, 1]


def test_aitoms_layout_is_turned_the_right_way(tmp_path):
    write_mrc(tmp_path / "subtomogram_mrc" / "tomotarget0.mrc", VOLUMES[0].transpose(2, 1, 0), 10.0)
    (tmp_path / "json_label").mkdir()
    (tmp_path / "json_label" / "target0.json").write_text('{"name": "1bxn"}')
    source = open_source(str(tmp_path), Reading())
    np.testing.assert_array_equal(source.read(np.array([0])), standardised(VOLUMES[:1]))
    assert source.class_names == ["1bxn"] and list(source.columns["path"]) == ["subtomogram_mrc/tomotarget0.mrc"]


def test_a_changed_file_makes_other_data(folder):
    before = open_source(str(folder), Reading()).identity
    assert open_source(str(folder), Reading()).identity == before
    write_mrc(folder / "03.mrc", VOLUMES[4], 10.0)
    assert open_source(str(folder), Reading()).identity != before


def test_damaged_volumes_are_named(folder):
    damaged = VOLUMES[2].copy()
    damaged[0, 0, 0] = np.nan
    write_mrc(folder / "02.mrc", damaged, 10.0)
    write_mrc(folder / "04.mrc", np.full((SIZE,) * 3, 3.0), 10.0)
    source = open_source(str(folder), Reading())
    with pytest.raises(InputError, match=r"02\.mrc has 1 voxels that are NaN"):
        source.read(np.arange(4))
    with pytest.raises(InputError, match=r"04\.mrc is constant"):
        source.read(np.array([4]))


@pytest.mark.parametrize(
    ("make", "reading", "said"),
    [
        (lambda p: p.mkdir(), {}, "no MRC file"),
        (lambda p: (p.mkdir(), (p / "a.txt").write_text("")), {}, "no MRC file"),
        (lambda p: (p.mkdir(), (p / "a.mrc").write_text("no")), {}, "cannot be read as an MRC volume"),
        (lambda p: write_mrc(p / "a.mrc", VOLUMES[0], 0.0), {}, "--voxel_size"),
        (lambda p: write_mrc(p / "a.mrc", VOLUMES[0], 10.0), {"box_size": 7}, "smaller than --box_size=7"),
        (lambda p: write_mrc(p / "a.mrc", VOLUMES[0], 10.0), {"split": "test"}, "--split=test does not go with"),
        (lambda p: write_mrc(p / "a.mrc", VOLUMES[0], 10.0), {"tomogram": "t.mrc"}, "--tomogram=t.mrc does not go"),
        (lambda p: p.write_text("x,y,z"), {}, "is a file"),
        (lambda p: None, {}, "No folder"),
    ],
)
def test_what_holds_nothing_is_refused(tmp_path, make, reading, said):
    make(tmp_path / "data")
    with pytest.raises(InputError, match=said):
        open_source(str(tmp_path / "data"), Reading(**reading))


def test_what_is_a_dataset(dataset, folder):
    assert is_dataset(str(dataset)) and is_dataset("sim_demo") and is_dataset("mine.yaml")
    assert not is_dataset(str(folder)) and not is_dataset("particles.star")


# === STAR files of subtomograms ===

OPTICS = "\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n1 4.5\n"


def test_images_are_found_from_the_folder_of_the_project(folder, tmp_path):
    names = [(f"mrc/{i:02d}.mrc", 1, "ab"[i % 2]) for i in (4, 2, 7)]
    path = tmp_path / "Extract" / "job012" / "particles.star"
    star(path, "particles", ["rlnImageName", "rlnOpticsGroup", "kind"], names, OPTICS)
    source = open_source(str(path), Reading(label_column="kind"))
    np.testing.assert_array_equal(source.read(np.array([0, 2])), standardised(VOLUMES[[4, 7]]))
    assert source.voxel_size == 4.5 and source.class_names == ["a", "b"] and source.labels.tolist() == [0, 0, 1]
    assert source.star.block == "particles" and source.star.rows.tolist() == [0, 1, 2]
    assert list(source.columns["image"]) == ["mrc/04.mrc", "mrc/02.mrc", "mrc/07.mrc"]
    assert "row 3 of" in source.describe(2)


@pytest.mark.parametrize(
    ("names", "said"),
    [(["1@mrc/00.mrcs"], "stack of 2-D images"), (["gone/00.mrc"], "there is no file gone/00.mrc")],
)
def test_images_that_are_none_are_named(folder, tmp_path, names, said):
    path = star(tmp_path / "p.star", "particles", ["rlnImageName"], [(name,) for name in names])
    with pytest.raises(InputError, match=said):
        open_source(str(path), Reading())


def test_a_star_file_without_either_says_what_it_has(tmp_path):
    path = star(tmp_path / "p.star", "particles", ["rlnAngleRot"], [(1,)])
    with pytest.raises(InputError, match=r"expected rlnImageName .* found neither .*rlnAngleRot"):
        open_source(str(path), Reading())
    path = star(tmp_path / "c.star", "particles", [f"rlnCoordinate{axis}" for axis in "XYZ"], [(1, 1, 1)])
    with pytest.raises(InputError, match="--tomogram=FILE; found coordinates"):
        open_source(str(path), Reading())


# === STAR files of coordinates ===


def test_boxes_come_out_of_the_tomogram_of_that_name(tmp_path):
    tomogram = np.random.default_rng(1).normal(size=(20, 24, 28)).astype(np.float32)
    write_mrc(tmp_path / "rec_TS_02.mrc", tomogram, 10.0)
    rows = [("TS_01", 9, 9, 9), ("TS_02", 10, 11, 12), ("TS_02", 1, 11, 12), ("TS_02", 90, 1, 1)]
    columns = ["rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
    path = star(tmp_path / "p.star", "particles", columns, rows)
    source = open_source(str(path), Reading(tomogram=str(tmp_path / "rec_TS_02.mrc")), size=SIZE)
    assert len(source) == 2 and source.star.rows.tolist() == [1, 2] and source.size == SIZE
    boxes = [cut(tomogram, np.array(position), SIZE) for position in ((10, 11, 12), (1, 11, 12))]
    np.testing.assert_array_equal(source.read(np.array([0, 1])), standardised(boxes))
    assert list(source.columns) == ["row", "x", "y", "z"] and source.columns["x"].tolist() == [10, 1]
    assert any("1 of 4 rows of p.star are of other tomograms" in note for note in source.notes)
    assert any("1 of 3 particles dropped" in note for note in source.notes)


# === Boxes ===


@pytest.mark.parametrize("size", [2, 3, 5, 6, 7, 8, 11])
@pytest.mark.parametrize("side", [5, 6])
def test_the_centre_voxel_stays_the_centre_voxel(side, size):
    volume = np.zeros((1, side, side, side), np.float32)
    volume[0, side // 2, side // 2, side // 2] = 1
    fitted = fit_box(volume, size)
    assert fitted.shape == (1, size, size, size)
    assert np.unravel_index(fitted[0].argmax(), fitted[0].shape) == (size // 2,) * 3


def test_no_volumes_fit_any_box():
    assert fit_box(VOLUMES[:0], SIZE + 3).shape == (0, *[SIZE + 3] * 3)


def test_padding_is_each_volumes_mean():
    padded = fit_box(VOLUMES[:2], SIZE + 3)
    for box, volume in zip(padded, VOLUMES, strict=False):
        assert box[0, 0, 0] == np.float32(volume.mean(dtype=np.float64))
        np.testing.assert_array_equal(fit_box(box[None], SIZE)[0], volume)
