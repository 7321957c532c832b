"""Answers by spreadsheet: what is written to be looked at, and what of a table that comes back is understood."""

import csv
import io

import numpy as np
import pytest
from matplotlib.image import imread
from small_questions import CLASSES, make_dataset, make_query

from aitom_ssl.active.oracle import Answers
from aitom_ssl.active.oracle_files import FilesOracle, form_text, read_form, vocabulary
from aitom_ssl.errors import InputError
from aitom_ssl.files import claimed
from aitom_ssl.mrc import read_mrc

SAMPLES = (7, 2, 5, 9)


@pytest.fixture
def data(tmp_path):
    return make_dataset(tmp_path / "toy")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cycles" / "01" / "answers"


def ask(data, folder, query=None):
    return FilesOracle().ask(query or make_query(SAMPLES), data, CLASSES, folder)


def fill(folder, answers):
    """Fill the column `answer`, as an editor would."""
    form = folder / "answers.csv"
    rows = list(csv.reader(io.StringIO(form.read_text(encoding="utf-8-sig"))))
    for row in rows[1:]:
        row[1] = answers.get(int(row[0]), row[1])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    form.write_text(text.getvalue(), encoding="utf-8")
    return form


# === What is asked ===


def test_the_questions_are_volumes_sheets_a_table_and_what_to_do(data, folder):
    found = ask(data, folder)
    assert found[:3] == ({}, (), ()) and str(folder) in found.waiting and "--resume" in found.waiting
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    volumes = {f"subtomograms/sample_{index:06d}.mrc" for index in SAMPLES}
    assert names == volumes | {"answers.csv", "query.json", "contact_sheet_1.png", "HOW_TO_ANSWER.txt"}
    for index in SAMPLES:
        volume, header = read_mrc(folder / f"subtomograms/sample_{index:06d}.mrc")
        np.testing.assert_array_equal(volume, data.volumes([index])[0])
        assert header.voxel_size == pytest.approx(13.5)
    assert imread(folder / "contact_sheet_1.png").std() > 0.05
    how = (folder / "HOW_TO_ANSWER.txt").read_text()
    assert all(word in how for word in [*CLASSES, "skip", "junk"])


def test_the_table_has_a_row_a_sample_most_wanted_first(data, folder):
    query = make_query(SAMPLES, guesses=[0, -1, 2, 1], confidences=[0.5, np.nan, 0.25, 1.0])
    rows = list(csv.DictReader(io.StringIO(form_text(query, CLASSES))))
    assert [int(row["sample"]) for row in rows] == [7, 2, 5, 9]
    assert [row["guess"] for row in rows] == ["ribosome", "", "TRiC", "proteasome"]
    assert [row["confidence"] for row in rows] == ["0.500", "", "0.250", "1.000"]
    assert {row["answer"] for row in rows} == {""}
    assert rows[0]["file"] == "subtomograms/sample_000007.mrc" and float(rows[3]["score"]) == 0.5


def test_what_a_killed_process_left_is_completed(data, folder, monkeypatch):
    from aitom_ssl.active import oracle_files

    with monkeypatch.context() as patch:
        patch.setattr(oracle_files, "write_sheets", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ask(data, folder)
    assert not (folder / "answers.csv").exists()
    assert ask(data, folder).waiting and (folder / "answers.csv").exists()


# === What comes back ===


def test_answers_in_the_order_of_the_query(data, folder):
    ask(data, folder)
    fill(folder, {9: "TRiC", 2: "skip", 5: "junk", 7: "ribosome"})
    assert ask(data, folder) == Answers({7: 0, 9: 2}, (2,), (5,))
    assert list(ask(data, folder).labels) == [7, 9]


def test_rows_left_empty_are_skipped_and_an_empty_table_waits(data, folder):
    ask(data, folder)
    assert ask(data, folder).waiting
    fill(folder, {5: "proteasome"})
    assert ask(data, folder) == Answers({5: 1}, (7, 2, 9), ())


def test_the_table_is_never_written_again(data, folder):
    ask(data, folder)
    form = fill(folder, {5: "proteasom", 7: "TRiC"})
    before = form.read_bytes()
    with pytest.raises(InputError):
        ask(data, folder)
    with pytest.raises(InputError, match="another query"):
        ask(data, folder, make_query((1, 2)))
    assert form.read_bytes() == before


def test_problems_are_told_by_row_and_all_are_listed(data, folder):
    ask(data, folder)
    form = folder / "answers.csv"
    rows = ["7,ribosom", "2,TRiC", "5,virus", "8,TRiC", "2,skip", ",TRiC", "9a,TRiC", "9,junk"]
    form.write_text("sample,answer\n" + "\n".join(rows) + "\n")
    with pytest.raises(InputError) as error:
        ask(data, folder)
    message = str(error.value)
    assert "\n" not in message and "6 rows to mend (good answers: 1; nothing is lost)" in message
    assert "row 2, sample 7: 'ribosom' is no class (did you mean ribosome" in message
    listed = (folder / "problems.txt").read_text().splitlines()
    assert listed[1:] == [
        "row 4, sample 5: 'virus' is no class",
        "row 5, sample 8: is none of those asked for",
        "row 6, sample 2: row 3 is of the same sample; keep one of them",
        "row 7: has no sample",
        "row 8, sample 9a: is none of those asked for",
    ]
    form.write_text("sample,answer\n7,ribosome\n")
    assert ask(data, folder).labels == {7: 0}
    assert not (folder / "problems.txt").exists()


def encodings():
    """The same answers as different programs save them."""
    rows = [["sample", "answer", "guess"], ["7", "größe", ""], ["2", "skip", ""], ["5", "b", 'a "c", d;e']]

    def saved(delimiter=",", ends="\n"):
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter, lineterminator=ends).writerows(rows)
        return text.getvalue()

    return {
        "plain": saved().encode(),
        "Excel": saved(",", "\r\n").encode("utf-8-sig"),
        "Excel in German": saved(";", "\r\n").encode("utf-8-sig"),
        "Excel without UTF-8": saved(";", "\r\n").encode("cp1252"),
        "Excel's Unicode text": saved("\t", "\r\n").encode("utf-16"),
        "old Macs": saved(",", "\r").encode(),
        "no last line end": saved().rstrip("\n").encode(),
    }


@pytest.mark.parametrize("program", encodings())
def test_tables_of_any_spreadsheet(program):
    found = read_form(encodings()[program], SAMPLES, ["größe", "b"])
    assert found == ({7: 0, 2: "skip", 5: 1}, [])


def test_columns_and_rows_in_any_order_and_blanks_between(data):
    text = 'Comment, ANSWER ,Sample\n\nwhy not, tric ,7.0\n,,\nx,  Unknown ,"5,00"\n,Unknown/Junk,9\n'
    assert read_form(text.encode(), SAMPLES, CLASSES) == ({7: 2, 5: "junk", 9: "junk"}, [])


def test_row_numbers_are_those_of_the_spreadsheet():
    text = 'sample,answer,note\n\n7,ribosome,"two\nlines"\n2,nothing\n'
    assert read_form(text.encode(), SAMPLES, CLASSES).problems == ["row 4, sample 2: 'nothing' is no class"]


def test_duplicates_count_for_nobody():
    found = read_form(b"sample,answer\n7,TRiC\n2,TRiC\n7,ribosome\n", SAMPLES, CLASSES)
    assert found.answers == {2: 2} and len(found.problems) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"\n \n", "it is empty"),
        (b"PK\x03\x04....", "is a workbook and not a CSV file: save it as CSV"),
        (b"sample,anwser\n7,TRiC\n", "no column 'answer', its first row is: sample, anwser. Did you mean anwser"),
        (b"7,TRiC\n", "no column 'sample'"),
        (b"sample,answer,answer\n7,TRiC,\n", "2 columns 'answer'"),
    ],
)
def test_what_is_no_table(data, folder, content, says):
    ask(data, folder)
    (folder / "answers.csv").write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        ask(data, folder)
    assert "answers.csv" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"\x00\xff\x00", b"\xff\xfe\x00", bytes(range(256)), b'"' * 7, b"sample,answer\n7," + b"x" * 200_000]
)
def test_bytes_that_mean_nothing_are_an_input_error(data, folder, content):
    ask(data, folder)
    (folder / "answers.csv").write_bytes(content)
    with pytest.raises(InputError):
        ask(data, folder)


def test_a_workbook_beside_the_table_is_pointed_at(data, folder):
    ask(data, folder)
    (folder / "answers.xlsx").write_bytes(b"PK")
    assert "answers.xlsx is not read: save it as CSV, as answers.csv" in ask(data, folder).waiting


def test_words():
    known = vocabulary(["Ribosome", "b"])
    assert (known["Ribosome"], known["ribosome"], known["b"], known["skip"], known["unknown"]) == (
        0,
        0,
        1,
        "skip",
        "junk",
    )
    both = vocabulary(["A", "a"])
    assert (both["A"], both["a"]) == (0, 1)
    taken = vocabulary(["Junk", "skip"])  # a class of that name goes first
    assert (taken["Junk"], taken["junk"], taken["skip"], taken["unknown"]) == (0, 0, 1, "junk")


def test_two_processes_do_not_ask_at_once(data, folder):
    with claimed(folder / ".answering"), pytest.raises(InputError, match="Another process"):
        ask(data, folder)


def test_class_names_in_any_script_come_back(data, folder):
    classes = ["核糖体", "größe", "c;d, e"]
    FilesOracle().ask(make_query(SAMPLES), data, classes, folder)
    fill(folder, {7: "核糖体", 2: "GRÖßE", 9: "c;d, e"})
    found = FilesOracle().ask(make_query(SAMPLES), data, classes, folder)
    assert found.labels == {7: 0, 2: 1, 9: 2}
