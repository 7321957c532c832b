"""Table 1 of Xu 2017: the paper's figures, which runs are made, going on, and what is written."""

import csv
import json
import re

import numpy as np
import pytest
import yaml

from aitom_ssl.data import load_spec, write_dataset
from aitom_ssl.discovery import reproduce_xu2017, rif_svm
from aitom_ssl.discovery.reproduce_xu2017 import (
    METHODS,
    PAPER,
    SNRS,
    TILTS,
    Job,
    Result,
    cell_text,
    csv_rows,
    jobs_of,
    results_in,
    run_reproduction,
    table_figure,
    table_text,
    write_table_report,
)
from aitom_ssl.errors import InputError
from aitom_ssl.training import supervised

SETTINGS = {
    "preset": "cpu",
    "snr": [1000.0, 0.1],
    "tilt": [60],
    "methods": ["inception3d", "rif_svm"],
    "seeds": 1,
    "train_samples": 92,
    "validation_samples": 46,
    "test_samples": 69,
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 0.003,
    "precision": "float32",
}


def measured(accuracy, **more):
    return {"accuracy": accuracy, "samples": 100, "train_samples": 92, "validation_accuracy": 0.5, "seconds": 3, **more}


@pytest.fixture
def fakes(monkeypatch):
    """Runs that train nothing: the calls they got, and what the next ones raise."""
    calls, raises = [], {}

    def fake(settings, output, resume=False, command=""):
        name = (settings["model"], output.rsplit("/", 2)[1])
        calls.append((settings, output, resume, command))
        folder = reproduce_xu2017.Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        if name in raises:
            if settings["model"] != "rif_svm":
                (folder / "config.yaml").write_text("settings: {}\n")
            raise raises.pop(name)
        network = {"epochs": settings["epochs"], "best_epoch": 1} if settings["model"] != "rif_svm" else {}
        (folder / "results.json").write_text(json.dumps(measured(0.75 + settings["seed"] / 10, **network)))

    monkeypatch.setattr(reproduce_xu2017, "write_table_report", lambda *_: None)  # it draws, after every run
    monkeypatch.setattr(supervised, "run_supervised", fake)
    monkeypatch.setattr(rif_svm, "run_rif_svm", lambda *given: fake(*given[:2], command=given[2]))
    fake.calls, fake.raises = calls, raises
    return fake


# === What the paper says, and which runs that makes ===


def test_the_paper_s_figures(shared_folder):
    path = shared_folder / "papers" / "xu_2017.txt"
    if not path.is_file():
        pytest.skip(f"no {path}")
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [[float(cell) for cell in row] for row in rows if len(row) == 10 and re.fullmatch(r"[\d.]+", row[0])]
    assert [row[0] for row in rows] == list(SNRS)
    for snr, *cells in rows:
        assert [PAPER[snr, tilt] for tilt in TILTS] == [tuple(cells[i : i + 3]) for i in (0, 3, 6)]


def test_every_cell_has_a_dataset_of_the_paper_s_size():
    for snr, tilt in PAPER:
        spec = load_spec(Job(snr, tilt, "dsrf3d", 0).dataset)
        assert spec.splits == {"train": 9200, "validation": 2300, "test": 11500}
        assert (spec.simulation.snr, spec.simulation.tilt_max, spec.simulation.size) == (snr, tilt, 40)


def test_jobs_go_cell_by_cell_and_the_svm_has_one_seed():
    jobs = list(jobs_of({**SETTINGS, "methods": list(METHODS), "seeds": 2}))
    assert [(job.snr, job.method, job.seed) for job in jobs] == [
        (1000.0, "rif_svm", 0), (1000.0, "dsrf3d", 0), (1000.0, "inception3d", 0),
        (0.1, "rif_svm", 0), (0.1, "dsrf3d", 0), (0.1, "inception3d", 0),
        (1000.0, "dsrf3d", 1), (1000.0, "inception3d", 1), (0.1, "dsrf3d", 1), (0.1, "inception3d", 1),
    ]  # fmt: skip
    assert str(jobs[0].folder) == "snr1000_tilt60/rif_svm-seed0"
    assert (jobs[1].paper, jobs[5].paper) == (0.990, 0.851)


# === Running ===


def test_a_table_from_the_start(fakes, tmp_path, capsys):
    table = run_reproduction(SETTINGS, str(tmp_path / "t"), command="aitom-ssl reproduce_xu2017")
    assert [settings["model"] for settings, *_ in fakes.calls] == ["rif_svm", "inception3d"] * 2
    settings, output, resume, command = fakes.calls[-1]
    assert (output, resume) == (str(tmp_path / "t" / "snr01_tilt60" / "inception3d-seed0"), False)
    paper = {"decay": 1e-6, "momentum": 0.9, "augmentation": "none", "pooling": "none"}
    assert settings.items() >= {**paper, "epochs": 2, "batch_size": 16, "learning_rate": 0.003}.items()
    assert command.startswith("aitom-ssl train_supervised ") and f"--data={settings['data']}" in command
    rows = list(csv.DictReader((table.path / "table.csv").open()))
    assert [(row["snr"], row["method"], row["accuracy"], row["paper_accuracy"]) for row in rows] == [
        ("1000", "Inception3D", "0.75", "0.993"), ("1000", "RIF-SVM", "0.75", "0.992"),
        ("0.1", "Inception3D", "0.75", "0.851"), ("0.1", "RIF-SVM", "0.75", "0.762"),
    ]  # fmt: skip
    assert "0.750 (0.851)" in capsys.readouterr().out


def test_the_data_are_the_first_samples_of_the_paper_s(fakes, tmp_path):
    run_reproduction({**SETTINGS, "snr": [0.1]}, str(tmp_path / "t"))
    data = fakes.calls[0][0]["data"]
    spec, whole = load_spec(data), load_spec("xu2017_snr01_tilt60")
    assert spec.splits == {"train": 92, "validation": 46, "test": 69}
    assert spec.simulation == whole.simulation
    assert spec.name == whole.name
    full = {f"{split}_samples": count for split, count in whole.splits.items()}
    run_reproduction({**SETTINGS, **full, "snr": [0.1]}, str(tmp_path / "full"))
    assert fakes.calls[-1][0]["data"] == "xu2017_snr01_tilt60"


def test_a_failed_run_keeps_the_others_and_goes_on_next_time(fakes, tmp_path, capsys):
    fakes.raises["inception3d", "snr1000_tilt60"] = InputError("The loss became nan.")
    with pytest.raises(InputError, match=r"1 of 4 runs failed \(Inception3D, SNR 1000.*--resume --output=") as error:
        run_reproduction(SETTINGS, str(tmp_path / "t"))
    assert "\n" not in str(error.value)
    out = capsys.readouterr().out
    assert "failed: The loss became nan." in out
    assert len(results_in(tmp_path / "t")) == 3
    assert "- (0.993)" in out

    fakes.calls.clear()
    run_reproduction(SETTINGS, str(tmp_path / "t"), resume=True)
    assert [(settings["model"], resume) for settings, _, resume, _ in fakes.calls] == [("inception3d", True)]
    assert len(results_in(tmp_path / "t")) == 4


def test_an_interrupted_table_says_how_to_go_on(fakes, tmp_path):
    fakes.raises["rif_svm", "snr01_tilt60"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt, match=r"^Finished runs are kept\. Go on with: aitom-ssl reproduce"):
        run_reproduction(SETTINGS, str(tmp_path / "t"))
    assert len(list(csv.DictReader((tmp_path / "t" / "table.csv").open()))) == 2
    fakes.calls.clear()
    run_reproduction(SETTINGS, str(tmp_path / "t"), resume=True)
    # The SVM leaves nothing to go on with, and the network was not begun: both start anew.
    assert [(settings["model"], resume) for settings, _, resume, _ in fakes.calls] == [
        ("rif_svm", False), ("inception3d", False)
    ]  # fmt: skip


def test_cells_methods_and_seeds_may_be_added(fakes, tmp_path):
    run_reproduction({**SETTINGS, "snr": [0.1]}, str(tmp_path / "t"))
    run_reproduction({**SETTINGS, "snr": [0.1], "tilt": [60, 40], "seeds": 2}, str(tmp_path / "t"), resume=True)
    found = [(result.job.tilt, result.job.method, result.job.seed) for result in results_in(tmp_path / "t")]
    assert found == [
        (60, "inception3d", 0), (60, "inception3d", 1), (60, "rif_svm", 0),
        (40, "inception3d", 0), (40, "inception3d", 1), (40, "rif_svm", 0),
    ]  # fmt: skip
    assert len(fakes.calls) == 6


def test_one_table_has_one_recipe(fakes, tmp_path):
    run_reproduction(SETTINGS, str(tmp_path / "t"))
    with pytest.raises(InputError, match="started with --epochs=2, not --epochs=3"):
        run_reproduction({**SETTINGS, "epochs": 3}, str(tmp_path / "t"), resume=True)
    with pytest.raises(InputError, match="already holds a run"):
        run_reproduction(SETTINGS, str(tmp_path / "t"))
    with pytest.raises(InputError, match="holds no run"):
        run_reproduction(SETTINGS, str(tmp_path / "other"), resume=True)
    stored = yaml.safe_load((tmp_path / "t" / "config.yaml").read_text())
    assert stored["settings"] == SETTINGS


@pytest.mark.parametrize("content", ["", "[]", '{"accuracy": "high"}'])
def test_damaged_results_are_named(fakes, tmp_path, content):
    run_reproduction({**SETTINGS, "snr": [0.1]}, str(tmp_path / "t"))
    path = tmp_path / "t" / "snr01_tilt60" / "rif_svm-seed0" / "results.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"rif_svm-seed0/results\.json is damaged.*delete the folder"):
        results_in(tmp_path / "t")


def test_a_real_run(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((3, 7, 7, 7)).cumsum(axis=3)

    def samples(count):
        for i in range(count):
            yield {"volume": patterns[i % 3] + rng.standard_normal((7, 7, 7)), "label": i % 3}

    splits = {"train": samples(30), "validation": samples(12), "test": samples(15)}
    data = write_dataset(tmp_path / "tiny", "tiny", ["a", "b", "c"], 9.2, "bright", splits)
    monkeypatch.setattr(reproduce_xu2017, "_data", lambda *_: str(data))
    table = run_reproduction({**SETTINGS, "methods": ["rif_svm"], "snr": [1000.0]}, str(tmp_path / "t"))
    (result,) = results_in(table.path)
    assert (result.measured["samples"], result.measured["train_samples"]) == (15, 30)
    assert result.measured["accuracy"] > 0.6
    again = run_reproduction({**SETTINGS, "methods": ["rif_svm"], "snr": [1000.0]}, str(table.path), resume=True)
    assert results_in(again.path) == [result]


# === The table ===


def test_a_cell():
    job = Job(0.1, 60, "dsrf3d", 0)
    one, two = Result(job, measured(0.9)), Result(job._replace(seed=1), measured(0.8))
    assert cell_text([], 0.891) == "- (0.891)"
    assert cell_text([one], 0.891) == "0.900 (0.891)"
    assert cell_text([one, two], 0.891) == "0.850±0.071 (0.891)"


def test_the_table_as_text():
    results = [
        Result(Job(1000.0, 60, "inception3d", 0), measured(0.995, epochs=4)),
        Result(Job(1000.0, 60, "rif_svm", 0), measured(0.8)),
        Result(Job(0.1, 60, "inception3d", 0), measured(0.5, epochs=4)),
        Result(Job(0.1, 40, "inception3d", 0), measured(0.4, epochs=4)),
    ]
    assert table_text(results, SETTINGS).splitlines() == [
        "Accuracy on simulated subtomograms, ours (Xu 2017, Table 1)",
        "",
        "tilt range ±60°",
        "SNR    Inception3D     DSRF3D      RIF-SVM",
        "1000   0.995 (0.993)   - (0.990)   0.800 (0.992)",
        "0.1    0.500 (0.851)   - (0.891)   - (0.762)",
        "",
        "tilt range ±40°",
        "SNR   Inception3D     DSRF3D      RIF-SVM",
        "0.1   0.400 (0.809)   - (0.866)   - (0.649)",
        "",
        "Trained on 92 samples a cell (the paper: 11,500), the networks for 2 epochs (20) in batches of 16 (64) at a "
        "learning rate of 0.003 (0.01). Measured on 100 test samples (11,500), seed 0. Standard error from the number "
        "of test samples: at most 0.050.",
    ]
    assert table_text([], SETTINGS) == "No run is finished."
    rows = csv_rows(results, SETTINGS)
    assert [(row["batch_size"], row["epochs"]) for row in rows[:2]] == [(16, 4), ("", "")]


def test_the_report(tmp_path):
    results = [Result(Job(0.1, tilt, "rif_svm", 0), measured(0.8)) for tilt in (60, 50)]
    path = write_table_report(tmp_path / "report.html", results, SETTINGS, "aitom-ssl reproduce_xu2017 --epochs=2")
    report = path.read_text(encoding="utf-8")
    for words in ("0.800 (0.762)", "0.800 (0.633)", "data:image/png", "--epochs=2", "1000, 0.1", "Differs from"):
        assert words in report


def test_the_figure_has_a_panel_a_tilt_range():
    jobs = [Job(0.1, tilt, "dsrf3d", seed) for tilt in (60, 40) for seed in (0, 1)]
    results = [Result(job, measured(0.5 + job.seed / 10)) for job in jobs]
    figure = table_figure(results)
    assert [axis.get_title() for axis in figure.axes] == ["tilt range ±60°", "tilt range ±40°"]
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert list(lines["DSRF3D"].get_ydata()) == [pytest.approx(0.55)]
    dashed = [list(line.get_ydata()) for line in figure.axes[0].get_lines() if line.get_linestyle() == "--"]
    assert [0.990, 0.972, 0.891, 0.767, 0.658] in dashed
