"""One cluster: what is written is what is read back, half sets, and what is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from aitom_ssl.data.sources import Reading, open_source
from aitom_ssl.discovery.cluster_averages import (
    AveragingSettings,
    average_cluster,
    bright_volumes,
    read_cluster,
    trusted,
)
from aitom_ssl.discovery.resolution import fourier_shell_correlation
from aitom_ssl.errors import InputError
from aitom_ssl.mrc import read_header, read_mrc, write_mrc
from aitom_ssl.simulation import SimulationSpec, Simulator

SIZE, VOXEL = 16, 20.0
SETTINGS = AveragingSettings(2, 1, False, 60.0, None, None, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """8 subtomograms of two structures, as MRC files in a folder a class."""
    spec = SimulationSpec(classes=("ribosome_70s", "groel"), size=SIZE, voxel_size=VOXEL, snr=2, max_shift=1.0)
    batch = Simulator(spec).batch(0, range(8))
    path = tmp_path_factory.mktemp("particles")
    for i, (volume, label) in enumerate(zip(batch["volume"], batch["label"], strict=True)):
        (path / spec.classes[label]).mkdir(exist_ok=True)
        write_mrc(path / spec.classes[label] / f"{i:02d}.mrc", volume, VOXEL)
    return path


def source(folder, **reading):
    return open_source(str(folder), Reading(**reading))


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("clusters") / "000"
    found, about = average_cluster(source(folder), np.arange(8), SETTINGS, (), path)
    return path, found, about


def test_what_is_written_is_what_is_read(done):
    path, found, about = done
    read = read_cluster(path)
    assert read.about == about and read.particles.tolist() == list(range(8))
    np.testing.assert_array_equal(read.labels, found.labels)
    np.testing.assert_allclose(read.alignment.quaternion, found.alignment.quaternion)
    for c in range(2):
        np.testing.assert_allclose(read.average(c), found.averages[c].volume, atol=1e-6)
        assert about["classes"][c]["size"] == (found.labels == c).sum()
        assert read_header(read.path(c)).voxel_size == VOXEL


def test_the_fsc_is_that_of_the_half_maps(done):
    path, _, _ = done
    read = read_cluster(path)
    halves = [read_mrc(path / f"class-1-half-{h}.mrc")[0] for h in (1, 2)]
    expected = fourier_shell_correlation(*halves, VOXEL, SETTINGS.mask(SIZE, VOXEL))
    curve = read.curve(0)
    np.testing.assert_allclose(curve.correlation, expected.correlation, atol=1e-5)
    np.testing.assert_allclose(curve.frequency, expected.frequency)
    assert read.resolution(0) == pytest.approx(expected.resolution(), rel=1e-4)
    np.testing.assert_allclose(read.shown(0), trusted(read.average(0), curve), atol=1e-6)


def test_a_class_with_an_empty_half_set_has_no_fsc(done, tmp_path):
    path, _, about = done
    shutil.copytree(path, tmp_path / "c")
    about = json.loads(json.dumps(about))
    about["classes"][1]["fsc"] = None
    (tmp_path / "c" / "cluster.json").write_text(json.dumps(about))
    read = read_cluster(tmp_path / "c")
    assert read.curve(1) is None and read.resolution(1) is None
    np.testing.assert_array_equal(read.shown(1), read.average(1))


def test_protein_is_made_bright(folder):
    plain, turned = (bright_volumes(source(folder, invert_contrast=dark), np.arange(3)) for dark in (False, True))
    np.testing.assert_allclose(turned, -plain)
    np.testing.assert_allclose(plain.std(axis=(1, 2, 3)), 1, atol=1e-5)


def test_too_few_and_identical_particles_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="3 subtomograms is too small for 2 classes"):
        average_cluster(source(folder), np.arange(3), SETTINGS, (), tmp_path / "small")
    one = SETTINGS.__class__(**{**dataclasses.asdict(SETTINGS), "classes": 1})
    with pytest.raises(InputError, match="class 1: The two half sets are identical"):
        average_cluster(source(folder), np.array([4, 4]), one, (), tmp_path / "twice")
    assert not (tmp_path / "twice").exists() and not (tmp_path / "small").exists()


def test_a_particle_that_became_unusable_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "p")
    found = source(tmp_path / "p")
    volume = np.array(read_mrc(tmp_path / "p" / "groel" / "03.mrc")[0])
    volume[0, 0, 0] = np.inf
    write_mrc(tmp_path / "p" / "groel" / "03.mrc", volume, VOXEL)
    with pytest.raises(InputError, match=r"03\.mrc"):
        average_cluster(found, np.arange(8), SETTINGS, (), tmp_path / "c")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mask_radius": 5.0}, "--mask_radius=5"),
        ({"mask_radius": 500.0}, "40 to 160 A"),
        ({"max_shift": 200.0}, "--max_shift=200: expected 0 to 160 A"),
    ],
)
def test_lengths_that_do_not_go_with_the_box(changes, said):
    with pytest.raises(InputError, match=said):
        dataclasses.replace(SETTINGS, **changes).check(SIZE, VOXEL)
    SETTINGS.check(SIZE, VOXEL)


def test_how_many_are_needed():
    assert SETTINGS.needed == 4 and dataclasses.replace(SETTINGS, gold_standard=True).needed == 8


def test_damaged_results_say_so(done, tmp_path):
    shutil.copytree(done[0], tmp_path / "c")
    (tmp_path / "c" / "cluster.json").write_text("{")
    with pytest.raises(InputError, match=r"is damaged.*delete it to average that cluster anew"):
        read_cluster(tmp_path / "c")
