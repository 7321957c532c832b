"""Predictions as text: CSV that can be read back, STAR files that keep every letter of what they came from."""

import io
import re

import numpy as np
import pytest
import starfile

from aitom_ssl.errors import InputError
from aitom_ssl.export.prediction_tables import (
    Prediction,
    csv_header,
    csv_text,
    extended_star,
    new_star,
    quoted,
    read_predictions,
    star_columns,
)

CLASSES = ["70S ribosome", "GroEL/ES", "GroEL-ES"]
PREDICTIONS = [
    Prediction(0, ["a"], 0, ["0.7", "0.2", "0.1"]),
    Prediction(2, ["c"], 2, ["1e-12", "0.25", "0.75"]),
]
INPUT = """# made by hand; version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnImagePixelSize #2
1 10.000000

# version 30001

data_particles

loop_
_rlnImageName #1
_rlnCoordinateX #2
_rlnVisible #3
"a b.mrc"\t 123456.123456789   [1,0,1]
b.mrc      7   [1,1,1]

c.mrc      1e-3   [0,0,1]

data_other

_key   value
"""


def written(lines, tmp_path):
    (tmp_path / "out.star").write_text("".join(lines))
    return starfile.read(tmp_path / "out.star", always_dict=True)


def test_csv_comes_back():
    header = csv_header(["name"], CLASSES)
    assert header[:4] == ["particle", "name", "class", "confidence"] and header[4] == "probability_70S ribosome"
    rows = [[p.particle, *p.about, CLASSES[p.label], p.values[p.label], *p.values] for p in PREDICTIONS]
    assert list(read_predictions(io.StringIO(csv_text([header, *rows])), CLASSES)) == PREDICTIONS


def test_columns_are_named_by_class_in_letters_that_relion_takes():
    columns = star_columns(CLASSES)
    assert columns[:3] == ["rlnClassNumber", "aitomConfidence", "aitomProbability_70S_ribosome"]
    assert len(set(columns)) == len(columns) and all(re.fullmatch(r"\w+", column) for column in columns)


def test_an_input_file_is_kept_to_the_letter(tmp_path):
    rows = [(p.particle, p) for p in PREDICTIONS]
    lines = list(extended_star(io.StringIO(INPUT), "particles", rows, CLASSES, tmp_path))
    text = "".join(lines)
    kept = text.split("\n# version 30001\n\ndata_aitom_classes")[0]
    for line in kept.splitlines():
        original = re.sub(r"( 1 0\.7 0\.7 0\.2 0\.1| 3 0\.75 1e-12 0\.25 0\.75)$", "", line)
        assert original in INPUT.splitlines() or line.startswith(("_aitom", "_rlnClassNumber")), line
    assert "b.mrc      7" not in text and '"a b.mrc"\t 123456.123456789   [1,0,1] 1 0.7' in text
    assert "_rlnClassNumber #4\n_aitomConfidence #5\n" in text


def test_starfile_reads_what_was_added(tmp_path):
    rows = [(p.particle, p) for p in PREDICTIONS]
    blocks = written(extended_star(io.StringIO(INPUT), "particles", rows, CLASSES, tmp_path), tmp_path)
    assert list(blocks) == ["optics", "particles", "other", "aitom_classes"]
    particles = blocks["particles"]
    assert list(particles.columns) == ["rlnImageName", "rlnCoordinateX", "rlnVisible", *star_columns(CLASSES)]
    assert particles["rlnClassNumber"].tolist() == [1, 3] and particles["rlnImageName"].tolist() == ["a b.mrc", "c.mrc"]
    np.testing.assert_array_equal(particles[star_columns(CLASSES)[2:]], [[0.7, 0.2, 0.1], [1e-12, 0.25, 0.75]])
    assert blocks["aitom_classes"]["aitomClassName"].tolist() == CLASSES
    assert blocks["aitom_classes"]["aitomProbabilityColumn"].tolist() == star_columns(CLASSES)[2:]


def test_a_class_number_that_was_there_is_replaced_and_kept_beside(tmp_path):
    given = INPUT.replace("_rlnVisible", "_rlnClassNumber").replace("[1,0,1]", "17").replace("[0,0,1]", "18")
    rows = [(p.particle, p) for p in PREDICTIONS]
    once = "".join(extended_star(io.StringIO(given), "particles", rows, CLASSES, tmp_path))
    particles = written([once], tmp_path)["particles"]
    assert particles["rlnClassNumber"].tolist() == [1, 3]
    assert particles["aitomInputClassNumber"].tolist() == [17, 18]
    # Of a file of ours the new predictions take the place of the old ones, and nothing is doubled.
    rows = [(0, PREDICTIONS[1]), (1, PREDICTIONS[0])]
    twice = "".join(extended_star(io.StringIO(once), "particles", rows, CLASSES, tmp_path))
    again = written([twice], tmp_path)
    assert list(again["particles"].columns) == list(particles.columns)
    assert again["particles"]["rlnClassNumber"].tolist() == [3, 1]
    assert again["particles"]["aitomInputClassNumber"].tolist() == [17, 18]
    assert twice.count("data_aitom_classes") == 1 and twice.count("_rlnClassNumber #") == 2


def test_an_unnamed_block_stays_the_first(tmp_path):
    given = INPUT.split("# version 30001\n\n")[1].replace("data_particles", "data_")
    text = "".join(extended_star(io.StringIO(given), "", [(0, PREDICTIONS[0])], CLASSES, tmp_path))
    assert text.index("data_\n") < text.index("data_aitom_classes")
    assert written([text], tmp_path)[""]["rlnClassNumber"].tolist() == [1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace(" [1,0,1]", ""), "row 1 has 2 values, its table 3 columns"),
        (lambda text: "data_particles\n_rlnImageName a.mrc\n\ndata_next\n", "has no loop_"),
        (lambda text: "data_particles\n_rlnImageName a.mrc\n", "is not a table of the rows that were read"),
        (lambda text: "data_particles\nloop_\n_rlnImageName\n", "is not a table of the rows that were read"),
    ],
)
def test_what_cannot_be_extended_is_named(tmp_path, change, said):
    rows = [(0, PREDICTIONS[0])]
    with pytest.raises(InputError, match=said):
        list(extended_star(io.StringIO(change(INPUT)), "particles", rows, CLASSES, tmp_path / "in.star"))


def test_a_new_file_has_optics_particles_and_classes(tmp_path):
    columns = {"rlnTomoName": ["TS 1"] * 3, "rlnCoordinateX": [1.5, 2, 3], "rlnImageName": ["a.mrc", "b", "c#d.mrc"]}
    lines = list(new_star(PREDICTIONS, CLASSES, columns, 13.48, 32))
    # RELION takes a column's name up to two characters before the #.
    assert all(re.fullmatch(r"_\w+ #\d+\n", line) for line in lines if line.startswith("_"))
    blocks = written(lines, tmp_path)
    assert list(blocks) == ["optics", "particles", "aitom_classes"]
    expected = {"rlnImagePixelSize": 13.48, "rlnTomoTiltSeriesPixelSize": 13.48, "rlnImageSize": 32}
    assert expected.items() <= blocks["optics"].iloc[0].to_dict().items()
    assert blocks["optics"]["rlnImageDimensionality"].tolist() == [3]
    particles = blocks["particles"]
    assert particles["rlnTomoName"].tolist() == ["TS 1"] * 2 and particles["rlnCoordinateX"].tolist() == [1.5, 3]
    assert particles["rlnOpticsGroup"].tolist() == [1, 1] and particles["aitomConfidence"].tolist() == [0.7, 0.75]


@pytest.mark.parametrize(
    ("value", "token"),
    [("a", "a"), ("", '""'), ("a b", '"a b"'), ('a "b"', "'a \"b\"'"), (1.5, "1.5"), ("_a", '"_a"'), ("a\nb", '"a b"')],
)
def test_tokens(value, token):
    assert quoted(value) == token


def test_a_folder_named_like_a_block_does_not_end_the_table(tmp_path):
    columns = {"rlnImageName": ["data_set/a.mrc", "x", "loop_/b.mrc"]}
    path = tmp_path / "a.star"
    path.write_text("".join(new_star(PREDICTIONS, CLASSES, columns, 13.48, 32)))
    assert starfile.read(path)["particles"]["rlnImageName"].tolist() == ["data_set/a.mrc", "loop_/b.mrc"]
