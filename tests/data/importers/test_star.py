"""STAR files of every RELION version: units, centres, origins, poses, tomograms."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aitom_ssl.data.importers.star import read_blocks, read_star, read_table, tomogram_stem, write_aligned, write_star
from aitom_ssl.errors import InputError
from aitom_ssl.geometry import quaternion_to_matrix

SHAPE = (100, 200, 300)  # z, y, x


def block(name, **columns):
    """A loop block of text: column name to its values."""
    head = "".join(f"_{column} #{k}\n" for k, column in enumerate(columns, 1))
    rows = "".join(" ".join(map(str, row)) + "\n" for row in zip(*columns.values(), strict=True))
    return f"\ndata_{name}\n\nloop_\n{head}{rows}\n"


def star(tmp_path, *blocks):
    (tmp_path / "c.star").write_text("# version 50001\n" + "".join(blocks))
    return tmp_path / "c.star"


def xyz(prefix, values, suffix=""):
    return {f"rln{prefix}{axis}{suffix}": column for axis, column in zip("XYZ", np.transpose(values), strict=True)}


OPTICS = block("optics", rlnOpticsGroup=[1], rlnOpticsGroupName=["g"], rlnTomoTiltSeriesPixelSize=[2.0])


def test_a_bare_file_is_in_voxels_of_the_tomogram(tmp_path):
    found = read_star(star(tmp_path, block("", **xyz("Coordinate", [[10, 20.5, 30]]))), SHAPE, 10.0)
    np.testing.assert_allclose(found.positions, [[10, 20.5, 30]])
    assert "pixels of 10 A (the tomogram's voxel size)" in found.unit and found.quaternions is None


def test_relion_3_0_counts_in_detector_pixels_over_magnification(tmp_path):
    columns = xyz("Coordinate", [[100, 200, 40]])
    # 14 um at 70,000 x is 2 A; Warp writes the pixel itself and 10,000 x.
    plain = block("", **columns, rlnMagnification=[70000], rlnDetectorPixelSize=[14.0])
    np.testing.assert_allclose(read_star(star(tmp_path, plain), SHAPE, 10.0).positions, [[20, 40, 8]])
    warp = block("", **columns, rlnMagnification=[10000], rlnDetectorPixelSize=[2.0])
    np.testing.assert_allclose(read_star(star(tmp_path, warp), SHAPE, 10.0).positions, [[20, 40, 8]])
    pytom = block("", **columns, rlnDetectorPixelSize=[10.0])
    np.testing.assert_allclose(read_star(star(tmp_path, pytom), SHAPE, 10.0).positions, [[100, 200, 40]])


@pytest.mark.parametrize("first", ["optics", "particles"])
def test_relion_4_counts_in_the_tilt_series_pixels_of_the_optics_group(tmp_path, first):
    optics = block("optics", rlnOpticsGroup=[2, 1], rlnTomoTiltSeriesPixelSize=[5.0, 2.0])
    particles = block("particles", **xyz("Coordinate", [[100, 200, 40]] * 3), rlnOpticsGroup=[1, 2, 1])
    blocks = (optics, particles) if first == "optics" else (particles, optics)
    positions = read_star(star(tmp_path, *blocks), SHAPE, 10.0).positions
    np.testing.assert_allclose(positions, [[20, 40, 8], [50, 100, 20], [20, 40, 8]])


def test_one_optics_row_serves_particles_without_a_group_and_the_flag_wins(tmp_path):
    path = star(tmp_path, OPTICS, block("particles", **xyz("Coordinate", [[100, 200, 40]])))
    np.testing.assert_allclose(read_star(path, SHAPE, 10.0).positions, [[20, 40, 8]])
    found = read_star(path, SHAPE, 10.0, coordinate_voxel_size=1.0)
    np.testing.assert_allclose(found.positions, [[10, 20, 4]])
    assert "--coordinate_voxel_size" in found.unit


def test_relion_5_counts_angstroms_from_half_the_unbinned_size_minus_one(tmp_path):
    # Unbinned the tomogram is 1500 x 1000 x 500 pixels of 2 A, so its centre is at pixel 749, 499, 249.
    columns = xyz("CenteredCoordinate", [[0, 0, 0], [-1498, 2, 40]], "Angst")
    path = star(tmp_path, OPTICS, block("particles", **columns, rlnOpticsGroup=[1, 1]))
    np.testing.assert_allclose(
        read_star(path, SHAPE, 10.0).positions, [[149.8, 99.8, 49.8], [0, 100.0, 53.8]], atol=1e-9
    )
    np.testing.assert_allclose(read_star(path, SHAPE, 10.0, centre_offset=0.0).positions[0], [150, 100, 50])


def test_centred_and_pixel_coordinates_of_one_particle_agree(tmp_path):
    rng = np.random.default_rng(0)
    unbinned = rng.uniform(0, 1, (6, 3)) * [1500, 1000, 500]
    centred = (unbinned - (np.array([1500, 1000, 500]) / 2 - 1)) * 2.0
    group = {"rlnOpticsGroup": [1] * 6}
    pixels = read_star(star(tmp_path, OPTICS, block("particles", **xyz("Coordinate", unbinned), **group)), SHAPE, 10.0)
    angstroms = read_star(
        star(tmp_path, OPTICS, block("particles", **xyz("CenteredCoordinate", centred, "Angst"), **group)), SHAPE, 10.0
    )
    np.testing.assert_allclose(angstroms.positions, pixels.positions, atol=1e-6)
    np.testing.assert_allclose(pixels.positions, unbinned * 2 / 10, atol=1e-6)


def test_origins_are_taken_off(tmp_path):
    columns = {**xyz("Coordinate", [[100, 200, 40]]), "rlnOpticsGroup": [1]}
    path = star(tmp_path, OPTICS, block("particles", **columns, **xyz("Origin", [[10, -20, 30]], "Angst")))
    np.testing.assert_allclose(read_star(path, SHAPE, 10.0).positions, [[19, 42, 5]])
    # In pixels of the particle image: 4 A, whatever the coordinates are counted in.
    columns = {**xyz("Coordinate", [[100, 200, 40]]), "rlnDetectorPixelSize": [2.0], "rlnImagePixelSize": [4.0]}
    path = star(tmp_path, block("", **columns, **xyz("Origin", [[2.5, -5, 7.5]])))
    np.testing.assert_allclose(read_star(path, SHAPE, 10.0).positions, [[19, 42, 5]])


def angles(prefix, values):
    names = (f"rln{prefix}{name}" for name in ("Rot", "Tilt", "Psi"))
    return dict(zip(names, np.transpose(values), strict=True))


def test_angles_become_the_pose_that_turns_the_reference_into_the_particle(tmp_path):
    # RELION turns the coordinate system: rot = 90 takes a reference feature on +y to the particle's +x.
    path = star(tmp_path, block("", **xyz("Coordinate", [[1, 2, 3]] * 2), **angles("Angle", [[90, 0, 0], [0, 90, 0]])))
    pose = quaternion_to_matrix(read_star(path, SHAPE, 10.0).quaternions)
    np.testing.assert_allclose(pose[0] @ [0, 1, 0], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(pose[1] @ [0, 0, 1], [-1, 0, 0], atol=1e-12)


def test_subtomogram_angles_turn_pose_and_origin(tmp_path):
    columns = {
        **xyz("Coordinate", [[100, 100, 50]]),
        **angles("Angle", [[20, 40, 60]]),
        **angles("TomoSubtomogram", [[90, 0, 0]]),
        **xyz("Origin", [[0, 30, 0]], "Angst"),
    }
    found = read_star(star(tmp_path, block("particles", **columns)), SHAPE, 10.0)
    # The subtomogram's frame is turned as above: its +y is the tomogram's +x.
    np.testing.assert_allclose(found.positions, [[97, 100, 50]], atol=1e-9)
    subtomogram = Rotation.from_euler("ZYZ", [90, 0, 0], degrees=True).inv()
    particle = Rotation.from_euler("ZYZ", [20, 40, 60], degrees=True).inv()
    np.testing.assert_allclose(
        quaternion_to_matrix(found.quaternions[0]), (subtomogram * particle).as_matrix(), atol=1e-12
    )


def test_particles_of_one_tomogram_are_chosen_by_name(tmp_path):
    names = ["tomo_1", "rec_tomo_2.mrc", "tomo_1"]
    columns = xyz("Coordinate", [[1, 1, 1], [2, 2, 2], [3, 3, 3]])
    path = star(tmp_path, block("particles", **columns, rlnTomoName=names, rlnClassNumber=[1, 2, 3]))
    found = read_star(path, SHAPE, 10.0, tomogram_name="/data/rec_tomo_1_Vol.mrc.gz", label_column="rlnClassNumber")
    np.testing.assert_allclose(found.positions, [[1, 1, 1], [3, 3, 3]])
    assert found.rows.tolist() == [0, 2] and found.labels == ["1", "3"]
    assert read_star(path, SHAPE, 10.0, tomogram_name="tomo_2").rows.tolist() == [1]
    with pytest.raises(InputError, match=r"2 tomogram\(s\) \(rlnTomoName: tomo_1, tomo_2\).*--tomogram_name"):
        read_star(path, SHAPE, 10.0)
    with pytest.raises(InputError, match="none of them 'tomo_3'"):
        read_star(path, SHAPE, 10.0, tomogram_name="tomo_3")


def test_stems():
    names = ("tomo_7", "a/rec_tomo_7.mrc", "tomo_7.mrc.gz", "tomo_7_Vol.rec", "tomo_7.tomostar")
    assert {tomogram_stem(name) for name in names} == {"tomo_7"}
    assert tomogram_stem("TS_01.5_8.00Apx") == "TS_01.5_8.00Apx"


def test_a_written_file_means_the_same_positions_at_any_binning(tmp_path):
    positions, scores = np.array([[12, 34, 56], [78, 9, 10.0]]), np.array([0.5, 0.25])
    write_star(tmp_path / "p.star", positions, scores, 20.0, "tomo_7")
    np.testing.assert_array_equal(read_star(tmp_path / "p.star", SHAPE, 20.0, "tomo_7").positions, positions)
    np.testing.assert_allclose(read_star(tmp_path / "p.star", SHAPE, 10.0).positions, positions * 2)
    table = read_table(tmp_path / "p.star")
    np.testing.assert_allclose(table["rlnAutopickFigureOfMerit"], scores)
    write_star(tmp_path / "q.star", positions, None, 20.0, "tomo_7", {"rlnClassNumber": [2, 1]})
    table = read_table(tmp_path / "q.star")
    assert "rlnAutopickFigureOfMerit" not in table and list(table["rlnClassNumber"]) == [2, 1]


def test_aligned_particles_are_read_back_where_and_how_they_lie(tmp_path):
    rng = np.random.default_rng(1)
    cut, shifts = rng.integers(10, 40, (5, 3)).astype(float), rng.uniform(-3, 3, (5, 3))
    poses = Rotation.random(5, rng).as_quat(canonical=True, scalar_first=True)
    columns = {"rlnTomoName": ["t"] * 5, **xyz("Coordinate", cut)}
    columns |= {"rlnOriginX": [9.0] * 5, "rlnTomoSubtomogramRot": [1.0] * 5}
    write_aligned(tmp_path / "a.star", columns, poses, shifts, 10.0, 32, {"rlnClassNumber": [3, 1, 2, 1, 1]})
    found = read_star(tmp_path / "a.star", SHAPE, 10.0, label_column="rlnClassNumber")
    np.testing.assert_allclose(found.positions, cut + shifts, atol=1e-4)
    np.testing.assert_allclose(np.abs((found.quaternions * poses).sum(1)), 1, atol=1e-9)
    assert found.labels == ["3", "1", "2", "1", "1"]
    # What was said before of angles and origins is gone: it would be added once more.
    blocks = read_blocks(tmp_path / "a.star")
    assert not {"rlnOriginX", "rlnTomoSubtomogramRot"} & set(blocks["particles"])
    assert blocks["optics"]["rlnImageSize"].tolist() == [32]


def test_the_optics_of_a_file_are_kept_with_its_particles(tmp_path):
    path = star(tmp_path, OPTICS, block("particles", rlnImageName=["a.mrc"], rlnOpticsGroup=[1]))
    blocks = read_blocks(path)
    columns = {name: values.tolist() for name, values in blocks["particles"].items()}
    pose = np.array([[1.0, 0, 0, 0]]), np.zeros((1, 3))
    write_aligned(tmp_path / "b.star", columns, *pose, 10.0, 32, {}, blocks["optics"])
    again = read_blocks(tmp_path / "b.star")
    assert again["optics"].equals(blocks["optics"]) and list(again["particles"]["rlnImageName"]) == ["a.mrc"]
    assert again["particles"]["rlnOriginXAngst"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hello\n", "no coordinates: expected rlnCoordinateX/Y/Z .*found no table"),
        (block("particles", rlnImageName=["a"]), "found data_particles: rlnImageName"),
        (block("", rlnCoordinateX=[1], rlnCoordinateY=[2]), "found data_: rlnCoordinateX, rlnCoordinateY"),
        (block("", **xyz("Coordinate", [["1", "nan", "3"]])), "row 1 of the table has rlnCoordinateY"),
        (OPTICS + block("particles", **xyz("Coordinate", [[1, 2, 3]]), rlnOpticsGroup=[7]), "rlnOpticsGroup 7"),
        (
            block("optics", rlnOpticsGroup=[1, 2]) + block("particles", **xyz("Coordinate", [[1, 2, 3]])),
            "no rlnOpticsGroup to tell 2",
        ),
        (block("", **xyz("Coordinate", [[1, 2, 3]]), rlnDetectorPixelSize=[0.0]), "gives a pixel of 0 A"),
        (2 * block("particles", **xyz("Coordinate", [[1, 2, 3]])), "two blocks data_particles"),
        ("data_\n\nloop_\n_a #1\n_a #2\n1 2\n", "data_ has the column a twice"),
    ],
)
def test_files_that_lack_something_say_what(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read_star(star(tmp_path, content), SHAPE, 10.0)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_star(tmp_path / "none.star", SHAPE, 10.0)


def test_a_file_in_another_encoding_is_refused(tmp_path):
    for text in ("data_\n_Angstr\u00f6m 1\n".encode("latin-1"), "data_\n".encode("utf-16")):
        (tmp_path / "x.star").write_bytes(text)
        with pytest.raises(InputError, match=r"x\.star is not UTF-8 text"):
            read_star(tmp_path / "x.star", SHAPE, 10.0)


def test_a_name_that_cannot_be_looked_up_is_refused(tmp_path):
    path = star(tmp_path, block("", **xyz("Coordinate", [[1, 2, 3]])))
    with pytest.raises(InputError, match="no rlnTomoName or rlnMicrographName to find 'tomo_7' in"):
        read_star(path, SHAPE, 10.0, "tomo_7")


def test_real_star_files(shared_folder):
    path = shared_folder / "real" / "averages" / "chlamy_hsp60.star"
    found = read_star(path, SHAPE, 7.84, coordinate_voxel_size=1.96)
    assert len(found.positions) == 27 and found.quaternions.shape == (27, 4)
    np.testing.assert_allclose(found.positions[0] * 4, [1142.0204, 3235.5812, 1015.192])
    assert len(read_table(shared_folder / "real" / "averages" / "chlamy_atpase.star")) == 933
