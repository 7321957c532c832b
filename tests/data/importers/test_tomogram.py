"""Boxes cut from a tomogram: where, how many, and what is left out."""

import re
import warnings

import numpy as np
import pytest

from aitom_ssl.data.importers.coordinates import write_csv
from aitom_ssl.data.importers.star import write_star
from aitom_ssl.data.importers.tomogram import cut, tomogram_particles
from aitom_ssl.errors import InputError
from aitom_ssl.files import sha256
from aitom_ssl.mrc import write_mrc


@pytest.fixture
def volume():
    return np.random.default_rng(0).standard_normal((12, 20, 30)).astype(np.float32)


@pytest.fixture
def tomogram(tmp_path, volume):
    write_mrc(tmp_path / "tomo.mrc", volume, 10.0)
    return tmp_path / "tomo.mrc"


def csv(tmp_path, positions):
    write_csv(tmp_path / "c.csv", np.array(positions, dtype=float), np.zeros(len(positions)))
    return tmp_path / "c.csv"


@pytest.mark.parametrize("size", [4, 5])
def test_the_particle_is_at_the_centre_voxel_and_the_rest_is_its_shift(tmp_path, tomogram, volume, size):
    found = tomogram_particles(tomogram, csv(tmp_path, [[15, 10, 6], [7.75, 8.5, 5.2]]), size)
    for i, (x, y, z) in enumerate([(15, 10, 6), (8, 9, 5)]):
        sample = found.read(i)
        half = size // 2
        expected = volume[z - half : z - half + size, y - half : y - half + size, x - half : x - half + size]
        np.testing.assert_array_equal(sample["volume"], expected)
        assert sample["volume"][half, half, half] == volume[z, y, x]
    np.testing.assert_allclose(found.read(0)["shift"], 0)
    np.testing.assert_allclose(found.read(1)["shift"], [-0.25, -0.5, 0.2])
    assert np.all(np.abs(found.read(1)["shift"]) <= 0.5)


def test_boxes_that_leave_the_tomogram_are_dropped_and_counted(tmp_path, tomogram):
    # x: 2 is the first whole box of 4, 28 the last; 29 and 1 leave it.
    positions = [[2, 10, 6], [28, 10, 6], [1, 10, 6], [29, 10, 6], [200, 10, 6], [-1, 10, 6]]
    found = tomogram_particles(tomogram, csv(tmp_path, positions), 4)
    assert [found.read(i)["row"] for i in range(len(found))] == [0, 1]
    dropped = found.notes[1]
    assert dropped.startswith("4 of 6 particles dropped: 2 lie outside") and "rows 3, 4, 5, 6 of c.csv" in dropped
    padded = tomogram_particles(tomogram, csv(tmp_path, positions), 4, edge="pad")
    assert [padded.read(i)["row"] for i in range(len(padded))] == [0, 1, 2, 3]


def test_padding_is_the_mean_of_the_inside(volume):
    box = cut(volume, np.array([0, 10, 6]), 4)
    np.testing.assert_array_equal(box[:, :, 2:], volume[4:8, 8:12, 0:2])
    np.testing.assert_allclose(box[:, :, :2], volume[4:8, 8:12, 0:2].mean(), rtol=1e-6)
    box = cut(volume, np.array([29, 19, 11]), 5)
    np.testing.assert_array_equal(box[:3, :3, :3], volume[9:12, 17:20, 27:30])
    assert box[4, 0, 0] == box[0, 4, 4] != 0


def test_nothing_inside_names_the_likely_cause(tmp_path, tomogram):
    far = csv(tmp_path, [[150, 90, 50], [60, 40, 24]])
    with pytest.raises(InputError, match=r"reach 150x90x50, the tomogram is 30x20x12.*--coordinate_voxel_size"):
        tomogram_particles(tomogram, far, 4)
    found = tomogram_particles(tomogram, far, 4, coordinate_voxel_size=2.0)
    assert [found.read(i)["row"] for i in range(len(found))] == [1]
    np.testing.assert_allclose(found.read(0)["position"], [12, 8, 4.8])
    with pytest.raises(InputError, match="--edge=pad"):
        tomogram_particles(tomogram, csv(tmp_path, [[0, 0, 0]]), 4)


def test_coordinates_in_one_corner_raise_a_hint(tmp_path, tomogram):
    positions = np.random.default_rng(0).uniform([4, 4, 4], [14, 9, 6], (30, 3))
    found = tomogram_particles(tomogram, csv(tmp_path, positions), 4)
    assert "cover only" in found.notes[-1] and "binning" in found.notes[-1]
    whole = np.vstack([positions, [[27, 17, 6]]])
    assert not any("cover only" in note for note in tomogram_particles(tomogram, csv(tmp_path, whole), 4).notes)


@pytest.mark.parametrize("box", [13, 1, 0, -4])
def test_a_box_that_does_not_fit_is_refused(tmp_path, tomogram, box):
    with pytest.raises(InputError, match=rf"--box_size={box} does not fit in .*30x20x12"):
        tomogram_particles(tomogram, csv(tmp_path, [[15, 10, 6]]), box)


def test_voxel_size_edge_and_file_kind_are_checked(tmp_path, tomogram, volume):
    write_mrc(tmp_path / "zero.mrc", volume, 0.0)
    with pytest.raises(InputError, match="--voxel_size"):
        tomogram_particles(tmp_path / "zero.mrc", csv(tmp_path, [[15, 10, 6]]), 4)
    assert tomogram_particles(tmp_path / "zero.mrc", csv(tmp_path, [[15, 10, 6]]), 4, voxel_size=7.0).voxel_size == 7.0
    with pytest.raises(InputError, match="--edge=wrap"):
        tomogram_particles(tomogram, csv(tmp_path, [[15, 10, 6]]), 4, edge="wrap")
    with pytest.raises(InputError, match=r"\.csv or \.star"):
        tomogram_particles(tomogram, tmp_path / "c.txt", 4)
    for pixel in (0.0, np.nan, np.inf):
        with pytest.raises(InputError, match=f"--coordinate_voxel_size={pixel:g}"):
            tomogram_particles(tomogram, csv(tmp_path, [[15, 10, 6]]), 4, coordinate_voxel_size=pixel)


def test_positions_beyond_any_integer_lie_outside(tmp_path, tomogram):
    with pytest.raises(InputError, match=r"they reach 1e\+300x"), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        tomogram_particles(tomogram, csv(tmp_path, [[1e300, 1e300, -1e300]]), 4)


def test_a_star_file_and_a_csv_file_cut_the_same_boxes(tmp_path, tomogram):
    positions = np.array([[15.0, 10, 6], [8, 9, 5]])
    write_star(tmp_path / "c.star", positions, np.zeros(2), 10.0, "tomo")
    from_star = tomogram_particles(tomogram, tmp_path / "c.star", 4)
    from_csv = tomogram_particles(tomogram, csv(tmp_path, positions), 4)
    for i in range(2):
        np.testing.assert_array_equal(from_star.read(i)["volume"], from_csv.read(i)["volume"])
    assert from_star.source["coordinates"]["name"] == "c.star"
    assert from_star.source["tomogram"]["sha256"] == from_csv.source["tomogram"]["sha256"]


POSITIONS = [[15, 10, 6], [7.75, 8.5, 5.2], [0, 10, 6]]


@pytest.fixture
def pair(tmp_path):
    """Two half tomograms: one signal, noise of its own in each, and grey values far from zero."""
    rng = np.random.default_rng(1)
    signal = rng.standard_normal((12, 20, 30))
    halves = [(50 + signal + 0.5 * rng.standard_normal(signal.shape)).astype(np.float32) for _ in range(2)]
    for name, half in zip(("even", "odd"), halves, strict=True):
        write_mrc(tmp_path / f"{name}.mrc", half, 10.0)
    return tmp_path / "even.mrc", tmp_path / "odd.mrc", halves


def test_two_half_tomograms_are_their_mean_and_the_second(tmp_path, pair):
    even, odd, (a, b) = pair
    found = tomogram_particles(even, csv(tmp_path, POSITIONS), 4, edge="pad", tomogram_b=odd)
    assert len(found) == 3
    for i, (x, y, z) in enumerate([(15, 10, 6), (8, 9, 5), (0, 10, 6)]):
        sample = found.read(i)
        np.testing.assert_array_equal(sample["half"], cut(b, np.array([x, y, z]), 4))
        np.testing.assert_allclose(2 * sample["volume"] - sample["half"], cut(a, np.array([x, y, z]), 4), atol=2e-5)
    assert found.source["tomogram"]["name"] == "even.mrc" and found.source["tomogram_b"]["name"] == "odd.mrc"
    assert found.source["tomogram_b"]["sha256"] == sha256(odd) != found.source["tomogram"]["sha256"]
    assert "in " + str(even) + " and " + str(odd) in found.describe(0)
    alone = tomogram_particles(even, csv(tmp_path, POSITIONS), 4, edge="pad")
    assert "tomogram_b" not in alone.source and "half" not in alone.read(0)
    np.testing.assert_array_equal(found.read(1)["shift"], alone.read(1)["shift"])


def test_the_correlation_of_the_halves_tells_the_snr_of_their_mean(tmp_path, pair):
    """Signal of variance 1, noise of variance 1/4 in each half: c = 0.8, SNR 8 in the mean."""
    even, odd, _ = pair
    positions = np.random.default_rng(0).uniform([6, 6, 6], [24, 14, 6], (20, 3))
    note = tomogram_particles(even, csv(tmp_path, positions), 12, tomogram_b=odd).notes[-1]
    found = re.search(r"at ([\d.]+) in 16 of the boxes: SNR ([\d.]+) in", note)
    assert float(found[1]) == pytest.approx(0.8, abs=0.02) and float(found[2]) == pytest.approx(8, rel=0.15)


def test_halves_that_do_not_belong_together_are_refused(tmp_path, pair):
    even, _, (a, b) = pair
    where = csv(tmp_path, POSITIONS)

    def refused(said, **changed):
        with pytest.raises(InputError, match=said) as error:
            tomogram_particles(even, where, 4, tomogram_b=tmp_path / "other.mrc", **changed)
        assert "\n" not in str(error.value)

    refused(r"No file .*other\.mrc")
    write_mrc(tmp_path / "other.mrc", b[:, :, :28], 10.0)
    refused(r"--tomogram_b=.*other\.mrc is 28x20x12 voxels and --tomogram=.*even\.mrc 30x20x12")
    write_mrc(tmp_path / "other.mrc", b, 20.0)
    refused(r"has voxels of 20 A and --tomogram=.*even\.mrc of 10 A")
    assert tomogram_particles(even, where, 4, voxel_size=12.0, tomogram_b=tmp_path / "other.mrc").voxel_size == 12.0
    write_mrc(tmp_path / "other.mrc", b, 0.0)
    refused(r"other\.mrc has a voxel size of 0 A.*--voxel_size")
    for same in (a, 3 * a - 100):
        write_mrc(tmp_path / "other.mrc", same, 10.0)
        refused(r"hold the same image \(correlation 1\.0+\)")
    write_mrc(tmp_path / "other.mrc", np.zeros_like(b), 10.0)
    refused(r"row 1 of .*: that of other\.mrc is constant \(0\)")
    with pytest.raises(InputError, match="is --tomogram itself"):
        tomogram_particles(even, where, 4, tomogram_b=tmp_path / "." / "even.mrc")


def test_halves_without_common_signal_or_of_unlike_scale_are_told(tmp_path, pair):
    even, _, (_, b) = pair
    where = csv(tmp_path, [[15, 10, 6]])
    for image, said in ((-b, "share hardly any signal"), (4 * b, "0.2[0-9]* times the deviation of other.mrc")):
        write_mrc(tmp_path / "other.mrc", image, 10.0)
        notes = tomogram_particles(even, where, 12, tomogram_b=tmp_path / "other.mrc").notes
        assert any(re.search(said, note) for note in notes), notes


def test_a_column_makes_classes(tmp_path, tomogram):
    (tmp_path / "c.csv").write_text("x,y,z,kind\n15,10,6,b\n8,9,5,a\n100,9,5,c\n")
    found = tomogram_particles(tomogram, tmp_path / "c.csv", 4, label_column="kind")
    assert found.class_names == ["a", "b", "c"] and found.labels.tolist() == [1, 0]
