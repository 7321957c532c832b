"""The report: with and without anything to measure on, and its figures."""

import numpy as np
import pytest

from aitom_ssl.active.oracle import Query
from aitom_ssl.active.report import classes_figure, curve_figure, write_active_report
from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.evaluation.classification import classification_metrics

NAMES = ["ribosome", "proteasome"]
SETTINGS = {"data": "toy", "strategy": "ema", "model": "rb3d", "start": "scratch", "oracle": "simulated", "seed": 3}


def results(measured=True):
    rows = []
    for cycle, right in enumerate((6, 8, 9)):
        labels = np.arange(10) % 2
        guess = np.where(np.arange(10) < right, labels, 1 - labels)
        metrics = classification_metrics(np.eye(2)[guess], labels, NAMES).to_dict()
        quality = {"measured_on": "test", **metrics}
        blind = {"pool_confidence": 0.7, "pool_guesses": {"ribosome": 3, "proteasome": 5}}
        rows.append(
            {
                "cycle": cycle + 1,
                "labelled": 10 + 5 * cycle,
                "asked": 5,
                "answered": 5,
                "junk": cycle,
                "labelled_classes": {"ribosome": 10 + 5 * cycle, "proteasome": 0},
                "answered_classes": {"ribosome": 5, "proteasome": 0},
                "classes_without_labels": ["proteasome"],
                "guessed_right": None if cycle == 0 else 0.4,
                "select_seconds": 2.0,
                "train_seconds": 60.0,
                **(quality if measured else blind),
            }
        )
    return rows


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    rng = np.random.default_rng(0)
    samples = [{"volume": rng.standard_normal((6, 6, 6)).astype(np.float32)} for _ in range(12)]
    folder = write_dataset(tmp_path_factory.mktemp("report") / "toy", "toy", [], 10.0, "bright", {"train": samples})
    return Dataset(folder, "train")


def test_a_report_of_measured_cycles(train, tmp_path):
    query = Query(2, np.arange(11, 1, -1), np.zeros(10), np.arange(10) % 2, np.full(10, 0.6))
    command = "aitom-ssl active_learning --data=toy"
    path = write_active_report(tmp_path / "r.html", results(), NAMES, SETTINGS, command, train, query, ["A note."])
    text = path.read_text()
    for words in (
        "0.900",
        "with 10 labels 0.600",
        "of the last answers were guessed",
        "Most wanted",
        command,
        "A note.",
    ):
        assert words in text, words
    assert "classes without a label</th><td>proteasome" in text and "training 3m00s, selecting 6s" in text
    assert text.count("<img") == 4


def test_a_report_without_anything_to_measure_on(train, tmp_path):
    text = write_active_report(tmp_path / "r.html", results(False), NAMES, SETTINGS, "", train).read_text()
    assert "accuracy cannot be measured" in text and "mean confidence on the pool" in text and "0.700" in text
    assert "Learning curve" not in text and "Most wanted" not in text and text.count("<img") == 1


def test_figures_show_what_they_are_given():
    axes = curve_figure(results()).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [10, 15, 20])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.6, 0.8, 0.9])
    values = np.array([[0.25, 0.5], [0.75, 1.0], [0.0, 0.1]])
    axes = classes_figure(values, results(), NAMES, "recall").axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), values.T)
    assert [text.get_text() for text in axes.texts] == ["0.25", "0.50", "0.75", "1.00", "0.00", "0.10"]
