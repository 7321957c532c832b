"""The study's table, from made-up results."""

import math

import pytest

from aitom_ssl.evaluation.statistics import t_test
from aitom_ssl.ssl.semi_supervised import (
    Result,
    measured_on,
    schedule,
    study_figure,
    table_rows,
    table_text,
    values,
)
from aitom_ssl.ssl.semi_supervised_plan import Cell

SETTINGS = {"data": "toy", "pretraining_seeds": 2}


def result(method, labels, seed, accuracy, epochs=3):
    measured = {"probe_accuracy": accuracy, "knn_accuracy": 0.5, "accuracy": accuracy + 0.1, "epochs": epochs}
    return Result(Cell(method, labels, seed, None), {**measured, "train_samples": 40, "samples": 100})


def test_the_table_has_means_spreads_and_tests_against_random_weights():
    random, moco = [0.5, 0.52, 0.54], [0.6, 0.62, 0.67]
    results = [result("random", 0.25, seed, value) for seed, value in enumerate(random)]
    results += [result("moco", 0.25, seed, value) for seed, value in enumerate(moco)]
    (labels, rows), = table_rows(results)
    test = t_test(moco, random)
    assert labels == 0.25 and [row[0] for row in rows] == ["encoder", "random weights", "MoCo"]
    assert rows[1][1:3] == ["0.520 ± 0.020", ""]
    assert rows[2][1:3] == ["0.630 ± 0.036", f"{test.welch:.2g}, {test.student:.2g}"]
    assert rows[2][4] == "" and rows[2][5].startswith("0.730")  # kNN has no spread, hence no test
    text = table_text(results)
    assert text.startswith("25% of the labels\nencoder") and len(text.splitlines()) == 4
    assert "100 test samples of toy" in measured_on(results, SETTINGS)
    assert "seeds 0, 1, 2" in measured_on(results, SETTINGS)


def test_without_fine_tuning_there_is_no_such_column_of_numbers():
    results = [result("random", 5, 0, 0.5, epochs=0), result("swav", 5, 0, 0.6, epochs=0)]
    assert values(results, "swav", 5, "accuracy") == [] and values(results, "swav", 5, "probe_accuracy") == [0.6]
    assert [len(row) for row in table_rows(results)[0][1]] == [5, 5, 5]
    both = [*results, result("random", 10, 0, 0.5, epochs=1)]
    assert [row[5] for row in table_rows(both)[0][1]] == ["fine-tuned", "-", "-"]
    assert len(study_figure(results).axes) == 2


def test_nothing_finished_is_said():
    assert table_text([]) == "No cell is finished." and measured_on([], SETTINGS) == ""


def test_the_curves_have_a_point_for_each_amount_of_labels():
    results = [result("moco", labels, seed, 0.1 * seed) for labels in (5, 0.25) for seed in (1, 2)]
    for some in results[:2]:
        some.measured["train_samples"] = 10
    axes = study_figure(results).axes
    assert [axis.get_title() for axis in axes] == ["linear probe", "kNN", "fine-tuned"]
    line = axes[0].containers[0].lines[0]
    assert line.get_xdata() == pytest.approx([10, 40], rel=0.05) and line.get_ydata() == pytest.approx([0.15, 0.15])


def test_few_labels_take_more_epochs(tmp_path, monkeypatch):
    from aitom_ssl.ssl import semi_supervised as module

    class Few:
        train = range(50)

    monkeypatch.setattr(module, "checked_splits", lambda *given: None)
    monkeypatch.setattr(module, "asked_labels", lambda *given: Few)
    asked = {"epochs": 8, "batch_size": 16}
    assert schedule(asked, 0) == {"epochs": 8, "validate_every": 10}
    assert schedule(asked, 200) == {"epochs": math.ceil(200 / 3), "validate_every": 10}
    assert schedule({**asked, "epochs": 0}, 200) == {"epochs": 0, "validate_every": 1}
