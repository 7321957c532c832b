"""What stands in a classifier's folder at the end."""

import json

import numpy as np

from aitom_ssl.evaluation import classification_metrics
from aitom_ssl.training import RunFolder
from aitom_ssl.training.outcome import conclude


def test_results_table_and_report_are_of_the_same_numbers(splits, tmp_path, capsys):
    test = splits["test"]
    probabilities = np.full((10, 2), 0.5)
    probabilities[:, 1] += 0.1 * np.where(np.arange(10) < 8, 1, -1)
    probabilities[:, 0] = 1 - probabilities[:, 1]
    settings = {"model": "rif_svm", "seed": 3}
    found = conclude(
        RunFolder(tmp_path), probabilities, test, "validation", settings, "aitom-ssl x", more={"seconds": 2.5}
    )
    expected = classification_metrics(probabilities, test.labels, ["a", "b"])
    assert found.accuracy == expected.accuracy
    results = json.loads((tmp_path / "results.json").read_text())
    assert results == {"measured_on": "validation", "seconds": 2.5, **expected.to_dict()}
    out = capsys.readouterr().out
    assert expected.table() in out and "measured on 10 validation samples" in out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "rif_svm on tiny" in page and "10 validation samples" in page and "Worst mistakes" in page
