"""A tomogram's folder: every file agrees with every other, subtomograms carry masks, and nothing partial is left."""

import json
import math

import mrcfile
import numpy as np
import pytest
from scipy import ndimage

from aitom_ssl import environment, structures
from aitom_ssl.data import load, simulated_tomogram
from aitom_ssl.data.importers import read_star, tomogram_particles
from aitom_ssl.data.importers.coordinates import read_csv
from aitom_ssl.data.simulated_tomogram import simulate_tomogram
from aitom_ssl.errors import InputError
from aitom_ssl.geometry import centre, pose_to_affine
from aitom_ssl.mrc import read_mrc
from aitom_ssl.simulation import SimulationSpec
from aitom_ssl.simulation.tomogram import TomogramSpec

CLASSES = ("hemoglobin", "groel", "apoferritin", "rubisco")
SHAPE, VOXEL, SIZE = (56, 48, 36), 20.0, 16


def spec(particles=40, **parameters):
    parameters = {"classes": CLASSES, "voxel_size": VOXEL, "size": SIZE, "snr": 5.0, "snr_mode": "crop", **parameters}
    return TomogramSpec(SimulationSpec(**parameters), SHAPE, particles)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return simulate_tomogram(
        spec(unseen_classes=CLASSES[2:]), tmp_path_factory.mktemp("t") / "tomo", extract=True, progress=False
    )


def voxels(folder, name):
    return read_mrc(folder / f"{name}.mrc")[0]


def test_files_are_valid_and_of_one_grid(folder):
    dtypes = {"tomogram": np.float32, "density": np.float32, "instances": np.uint16, "classes": np.int16}
    for name, dtype in dtypes.items():
        with mrcfile.open(folder / f"{name}.mrc") as file:
            assert file.is_volume() and file.data.dtype == dtype and file.data.shape == SHAPE[::-1]
            assert float(file.voxel_size.x) == VOXEL and file.header.rms == pytest.approx(file.data.std(), rel=1e-3)
        assert mrcfile.validate(folder / f"{name}.mrc")
    with mrcfile.open(folder / "tilt_series.mrcs") as file:
        assert file.is_image_stack() and file.data.shape == (41, *SHAPE[1::-1])
    assert (folder / "slices.png").read_bytes().startswith(b"\x89PNG")
    tilts = np.loadtxt(folder / "tilt_series.rawtlt")
    np.testing.assert_allclose(tilts, np.arange(-60, 61, 3))


def test_rendering_the_star_files_poses_gives_the_density(folder):
    """Independent of the simulator: structures rotated in real space, at order 3, where the STAR file says."""
    table = read_star(folder / "particles.star", SHAPE[::-1], VOXEL, label_column="aitomClassName")
    density, instances = voxels(folder, "density"), voxels(folder, "instances")
    assert len(table.positions) == 40
    total = np.zeros(density.shape)
    for position, quaternion, name in zip(table.positions, table.quaternions, table.labels, strict=True):
        template = structures.resolve(name).density(VOXEL).volume
        nearest = np.floor(position + 0.5).astype(int)
        matrix = pose_to_affine(quaternion, position - nearest)
        middle = np.full(3, centre(template.shape[0]))
        offset = middle + matrix[:, 3] - matrix[:, :3] @ middle
        cube = ndimage.affine_transform(template, matrix[:, :3], offset, order=3)
        start = nearest[::-1] - middle
        inside = [slice(max(s, 0), min(s + len(cube), n)) for s, n in zip(start, total.shape, strict=True)]
        part = tuple(slice(i.start - s, i.stop - s) for i, s in zip(inside, start, strict=True))
        total[tuple(inside)] += cube[part]
    assert np.corrcoef(total.ravel(), density.ravel())[0, 1] > 0.99
    filled = instances > 0
    assert density[filled].min() > density[~filled].mean() and density[~filled].max() < 0.6


def test_tables_and_label_volumes_agree(folder):
    instances, classes = voxels(folder, "instances"), voxels(folder, "classes")
    star = read_star(folder / "particles.star", SHAPE[::-1], VOXEL, label_column="rlnClassNumber")
    csv = read_csv(folder / "particles.csv", VOXEL, label_column="class")
    np.testing.assert_allclose(star.positions, csv.positions, atol=1e-5)
    assert set(csv.labels) == set(CLASSES)
    for i, (position, number, name) in enumerate(zip(star.positions, star.labels, csv.labels, strict=True)):
        mine = instances == i + 1
        assert (classes[mine] == int(number)).all() and CLASSES[int(number) - 1] == name
        assert np.linalg.norm(np.argwhere(mine).mean(axis=0)[::-1] - position) < 1
    assert ((classes > 0) == (instances > 0)).all()


def test_the_description_says_what_was_made(folder):
    about = json.loads((folder / "tomogram.json").read_text())
    assert about["shape_xyz"] == list(SHAPE) and about["class_names"] == list(CLASSES)
    assert about["particles"] == dict.fromkeys(CLASSES, 10)
    assert about["occupancy"] == pytest.approx((voxels(folder, "instances") > 0).mean())
    assert about["signal_variance"] / about["noise_variance"] == pytest.approx(5)
    total = voxels(folder, "tomogram").var()
    assert total == pytest.approx(about["signal_variance"] + about["noise_variance"], rel=0.05)
    assert about["simulation"]["defocus_um"] == 5.0 and "n_neighbors" not in about["simulation"]


def test_subtomograms_are_what_is_around_the_particles(folder):
    tomogram, instances = voxels(folder, "tomogram"), voxels(folder, "instances")
    seen = {split: load(folder / "subtomograms", split) for split in ("train", "validation", "test")}
    for dataset in seen.values():
        assert dataset.class_names == list(CLASSES) and dataset.has_masks and dataset.standardized
        masks = dataset.masks(range(len(dataset)))
        for i, mask in enumerate(masks):
            sample = dataset[i]
            start = np.floor(sample["position"] + 0.5).astype(int)[::-1] - centre(SIZE)
            box = tuple(slice(s, s + SIZE) for s in start)
            np.testing.assert_array_equal(mask, instances[box] == sample["instance"])
            assert mask.sum() > 0 and np.abs(sample["shift"]).max() <= 0.5
            assert np.corrcoef(sample["volume"].ravel(), tomogram[box].ravel())[0, 1] > 0.9999
    labels = {split: set(dataset.labels) for split, dataset in seen.items()}
    assert labels["train"] == {0, 1} >= labels["validation"] and labels["test"] == {2, 3}


def test_dark_tomograms_give_bright_subtomograms(tmp_path):
    dark = simulate_tomogram(spec(contrast="dark"), tmp_path / "dark", extract=True, progress=False)
    dataset = load(dark / "subtomograms", "train")
    inside = [dataset.volumes([i])[0][dataset.masks([i])[0] == 1].mean() for i in range(len(dataset))]
    assert dataset.contrast == "bright" and np.mean(inside) > 0.3
    assert set(dataset.labels) == set(range(4))
    filled = voxels(dark, "instances") > 0
    assert voxels(dark, "tomogram")[filled].mean() < voxels(dark, "tomogram")[~filled].mean()


def test_the_importer_takes_the_tomogram(folder):
    particles = tomogram_particles(
        folder / "tomogram.mrc", folder / "particles.star", SIZE, label_column="aitomClassName", edge="pad"
    )
    assert len(particles) == 40 and particles.class_names == sorted(CLASSES)


def test_any_number_of_threads_gives_the_same_files(folder, tmp_path):
    again = simulate_tomogram(spec(unseen_classes=CLASSES[2:]), tmp_path / "again", workers=1, progress=False)
    for name in ("tomogram.mrc", "density.mrc", "instances.mrc", "classes.mrc", "tilt_series.mrcs", "particles.csv"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
    assert not (again / "subtomograms").exists()


def test_without_noise(tmp_path):
    made = simulate_tomogram(spec(4, snr=math.inf), tmp_path / "clean", progress=False)
    about = json.loads((made / "tomogram.json").read_text())
    assert about["snr"] == "inf" and about["noise_variance"] == 0


@pytest.mark.parametrize("when", ["pack", "TomogramImaging", "write_star", "write_json"])
@pytest.mark.parametrize("what", [KeyboardInterrupt, OSError])
def test_nothing_partial_is_left(tmp_path, monkeypatch, when, what):
    def stop(*_, **__):
        raise what

    monkeypatch.setattr(simulated_tomogram, when, stop)
    with pytest.raises(what, match="Nothing was written" if what is KeyboardInterrupt else None):
        simulate_tomogram(spec(4), tmp_path / "tomo", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_is_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="full exists and is not empty"):
        simulate_tomogram(spec(4), tmp_path / "full")
    with pytest.raises(InputError, match=r"mine\.txt is a file"):
        simulate_tomogram(spec(4), tmp_path / "full" / "mine.txt" / "tomo")
    with pytest.raises(InputError, match="workers is 0"):
        simulate_tomogram(spec(4), tmp_path / "tomo", workers=0)
    with pytest.raises(InputError, match="40 voxels does not fit in 56 x 48 x 36"):
        simulate_tomogram(spec(4, size=40), tmp_path / "tomo", extract=True)
    monkeypatch.setattr(environment, "available_memory", lambda: 1000)
    with pytest.raises(InputError, match="GB of memory"):
        simulate_tomogram(spec(4), tmp_path / "tomo")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_box_that_fits_around_no_particle_is_refused(tmp_path):
    with pytest.raises(InputError, match="No particle has its box of 36 voxels inside"):
        simulate_tomogram(spec(1, size=36), tmp_path / "tomo", extract=True, progress=False)
    assert list(tmp_path.iterdir()) == []
