"""Queries and the simulated oracle: the right labels, and no answer to a question that was not asked."""

import json

import numpy as np
import pytest
from small_questions import CLASSES, make_dataset, make_query

from aitom_ssl.active.oracle import Answers, SimulatedOracle, keep_query
from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.errors import InputError


@pytest.fixture
def data(tmp_path):
    return make_dataset(tmp_path / "toy")


def test_the_simulated_oracle_reads_the_labels(data, tmp_path):
    found = SimulatedOracle().ask(make_query(), data, CLASSES, tmp_path / "answers")
    assert found == Answers({7: 1, 2: 2, 5: 2, 9: 0}, (), (), "")
    assert all(type(value) is int for pair in found.labels.items() for value in pair)


def test_it_cannot_answer_without_labels(tmp_path):
    samples = [{"volume": np.zeros((4, 4, 4)), "label": label} for label in (0, -1)]
    write_dataset(tmp_path / "d", "half", ["a"], 10.0, "bright", {"train": samples})
    with pytest.raises(InputError, match=r"Sample 1 of half has no label .*--oracle=files"):
        SimulatedOracle().ask(make_query((0, 1), guesses=(-1, -1)), Dataset(tmp_path / "d"), ["a"], tmp_path)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (make_query((3, 12)), "Sample 12 is asked for, and toy has 12: expected 0 to 11"),
        (make_query((-1, 3)), "Sample -1 is asked for"),
        (make_query((3, 4, 3)), "Sample 3 is asked for twice"),
        (make_query(()), "empty"),
        (make_query((3, 4), guesses=(0, 3)), "A guess is class 3: expected -1 .none. to 2"),
        (make_query((3, 4), guesses=(0, 1, 2)), r"shapes \(2,\), \(2,\), \(3,\)"),
    ],
)
def test_a_query_that_fits_no_dataset(data, tmp_path, query, says):
    with pytest.raises(InputError, match=says):
        SimulatedOracle().ask(query, data, CLASSES, tmp_path)


def test_a_folder_is_for_one_query(data, tmp_path):
    folder = tmp_path / "answers"
    keep_query(folder, "files", make_query(), data, CLASSES)
    before = (folder / "query.json").read_bytes()
    assert json.loads(before)["indices"] == [7, 2, 5, 9]
    keep_query(folder, "files", make_query(), data, CLASSES)
    for oracle, query, classes, differing in [
        ("browser", make_query(), CLASSES, "oracle"),
        ("files", make_query((7, 2, 5, 8)), CLASSES, "indices"),
        ("files", make_query(cycle=2), CLASSES, "cycle"),
        ("files", make_query(), ["x", *CLASSES[1:]], "class_names"),
    ]:
        with pytest.raises(InputError, match=f"another query .its {differing} differ"):
            keep_query(folder, oracle, query, data, classes)
    assert (folder / "query.json").read_bytes() == before


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_query_is_named(data, tmp_path, text):
    (tmp_path / "query.json").write_text(text)
    with pytest.raises(InputError, match=r"query\.json is damaged"):
        keep_query(tmp_path, "files", make_query(), data, CLASSES)
