"""Coordinates in CSV files."""

import numpy as np
import pytest

from aitom_ssl.data.importers.coordinates import read_csv, write_csv
from aitom_ssl.errors import InputError


def csv(tmp_path, text):
    (tmp_path / "c.csv").write_text(text)
    return tmp_path / "c.csv"


def test_columns_are_found_by_name_in_any_order_and_case(tmp_path):
    found = read_csv(csv(tmp_path, "score, Z,Y , x\n0.5,3,2,1\n0.25,6.5,5,4\n"), 10.0)
    np.testing.assert_array_equal(found.positions, [[1, 2, 3], [4, 5, 6.5]])
    assert found.rows.tolist() == [0, 1] and found.labels is None and found.quaternions is None


def test_coordinates_of_another_binning_are_scaled(tmp_path):
    found = read_csv(csv(tmp_path, "x,y,z\n100,200,40\n"), voxel_size=20.0, coordinate_voxel_size=5.0)
    np.testing.assert_array_equal(found.positions, [[25, 50, 10]])


def test_a_column_can_name_classes(tmp_path):
    path = csv(tmp_path, "x,y,z,kind\n1,2,3,ribosome\n4,5,6,groel\n")
    assert read_csv(path, 10.0, label_column="kind").labels == ["ribosome", "groel"]
    with pytest.raises(InputError, match=r"no column 'class'.*x, y, z, kind"):
        read_csv(path, 10.0, label_column="class")


def test_positions_and_scores_survive_a_file(tmp_path):
    positions, scores = np.array([[1, 2, 3], [40, 50, 60]]), np.array([0.123456789012345, 2.0])
    write_csv(tmp_path / "c.csv", positions, scores)
    np.testing.assert_array_equal(read_csv(tmp_path / "c.csv", 10.0).positions, positions)
    assert (tmp_path / "c.csv").read_text().splitlines()[:2] == ["x,y,z,score", "1,2,3,0.123456789012345"]
    write_csv(tmp_path / "d.csv", positions, None, {"class": ["a", "b"]})
    assert (tmp_path / "d.csv").read_text().splitlines()[:2] == ["x,y,z,class", "1,2,3,a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n4,5,6\n", "columns 1, 2, 3: expected a first line"),
        ("x,y\n1,2\n", "names x, y and z"),
        ("x,y,z\n", "no rows"),
        ("", "not a CSV"),
        ("x,y,z\n1,2,3\n1,two,3\n", "row 2 of the table has y = two"),
        ("x,y,z\n1,,3\n", "row 1 of the table has y"),
        ("x;y;z\n1;2;3\n", "separated by commas"),
        ("x,y,z\n1,inf,3\n", "row 1 of the table has y"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_csv(csv(tmp_path, text), 10.0)
    with pytest.raises(InputError, match="no such file"):
        read_csv(tmp_path / "none.csv", 10.0)
