"""The report of a classifier: what stands in it, and which mistakes it draws."""

import re

import numpy as np
import pytest

from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation import Section, classification_metrics, figures, write_classification_report
from aitom_ssl.evaluation.classification_report import worst_mistakes

NAMES = ["proteasome", "groel", "ribo<some>"]
HISTORY = [{"epoch": e, "loss": 1 / e, "accuracy": 0.5, "val_loss": 2 / e, "val_accuracy": 0.4} for e in (1, 2)]


def predictions():
    """Nine samples; numbers 1, 4 and 8 are wrong, 4 the surest."""
    labels = np.arange(9) % 3
    probabilities = 0.7 * np.eye(3)[labels] + 0.1
    for index, wrong, share in ((1, 0, 0.6), (4, 2, 0.98), (8, 0, 0.7)):
        probabilities[index] = (1 - share) / 2
        probabilities[index, wrong] = share
    return probabilities, labels


@pytest.fixture
def measured(tmp_path):
    rng = np.random.default_rng(0)
    samples = [{"volume": rng.normal(size=(8, 8, 8)).astype(np.float32), "label": i % 3} for i in range(9)]
    write_dataset(tmp_path / "data", "toy", NAMES, 10.0, "bright", {"test": samples})
    return Dataset(tmp_path / "data", "test")


def test_the_surest_mistakes_come_first():
    probabilities, labels = predictions()
    np.testing.assert_array_equal(worst_mistakes(probabilities, labels, 9), [4, 8, 1])
    np.testing.assert_array_equal(worst_mistakes(probabilities, labels, 2), [4, 8])
    assert len(worst_mistakes(np.eye(3), np.arange(3), 9)) == 0


def test_a_whole_report(measured, tmp_path, monkeypatch):
    probabilities, labels = predictions()
    metrics = classification_metrics(probabilities, labels, NAMES)
    drawn = []
    slices = figures.slices_figure
    monkeypatch.setattr(figures, "slices_figure", lambda volumes, *a: drawn.append(volumes) or slices(volumes, *a))
    path = write_classification_report(
        tmp_path / "report.html",
        "rb3d on toy",
        metrics,
        measured_on="test",
        facts=[["kept", "epoch 2"]],
        settings={"momentum": 0.9},
        command="aitom-ssl train_supervised --data=toy",
        history=HISTORY,
        best_epoch=2,
        data=measured,
        probabilities=probabilities,
        sections=[Section("Mine", ["more"])],
    )
    page = path.read_text(encoding="utf-8")
    assert page.count("<img") == 4
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [
        "Summary", "Class by class", "Calibration", "Training", "Worst mistakes", "Mine", "Settings"
    ]
    assert "<pre>aitom-ssl train_supervised --data=toy</pre>" in page
    assert "9 test samples, 3 classes" in page and "<td>epoch 2</td>" in page
    assert "ribo&lt;some&gt;" in page and "ribo<some>" not in page
    for row in metrics.rows()[1:]:
        assert all(cell.replace("<some>", "&lt;some&gt;") in page for cell in row)
    np.testing.assert_array_equal(drawn[0], measured.volumes([4, 8, 1]))


def test_without_history_data_and_settings(tmp_path):
    metrics = classification_metrics(*predictions(), NAMES)
    path = write_classification_report(tmp_path / "r.html", "t", metrics, measured_on="my")
    page = path.read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == ["Summary", "Class by class", "Calibration"]
    assert "9 my samples" in page


def test_no_mistakes_are_said_to_be_none(measured, tmp_path):
    labels = measured.labels
    metrics = classification_metrics(np.eye(3)[labels], labels, NAMES)
    path = tmp_path / "r.html"
    write_classification_report(path, "t", metrics, data=measured, probabilities=np.eye(3)[labels])
    assert "every sample is right" in path.read_text(encoding="utf-8")
    with pytest.raises(InputError, match="give both or neither"):
        write_classification_report(tmp_path / "r.html", "t", metrics, data=measured)
