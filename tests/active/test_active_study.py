"""The study's cells (with runs that are made up), its tables and its figures."""

import csv
import json

import pytest

from aitom_ssl.active import loop, study
from aitom_ssl.active.study import (
    Result,
    ablation_rows,
    by_labels,
    curve,
    curves_figure,
    drop_networks,
    measured_on,
    results_in,
    run_study,
    strategy_rows,
    tables_text,
)
from aitom_ssl.active.study_plan import ABLATIONS, EMA, RANDOM, Cell, Variant, cells_of, with_more
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.statistics import t_test
from aitom_ssl.files import write_json
from aitom_ssl.training import jobs
from aitom_ssl.training.run import RunFolder

RUN = {
    "distance": "kl",
    "regularization": 0.03,
    "deviation": "higher",
    "semi_supervised": False,
    "mean_init": "copy",
    "class_balanced": True,
    "epochs": 2,
}
SETTINGS = {"data": "toy", "strategies": ["margin", "random", "ema"], "ablations": [], "seeds": 2, "run": RUN}
ALL = {**SETTINGS, "ablations": list(ABLATIONS)}
LOWER = Variant(EMA, "deviation", "lower")


def result(variant, seed, *accuracies, seconds=2.0):
    variant = Variant(variant) if isinstance(variant, str) else variant
    cycles = [
        {
            "labelled": 10 * (n + 1),
            "accuracy": accuracy,
            "balanced_accuracy": accuracy / 2,
            "select_seconds": seconds * n,
            "train_seconds": 30.0,
        }
        for n, accuracy in enumerate(accuracies)
    ]
    area = loop.area_under_curve([cycle["labelled"] for cycle in cycles], accuracies)
    measured = {"samples": 100, "measured_on": "test", "area_under_curve": area, "cycles": cycles}
    return Result(Cell(variant, seed), measured)


# === Running ===


@pytest.fixture
def made_up(monkeypatch):
    """Runs that need no training. A run of what is in `made_up.broken` fails."""

    def run(asked, output, resume, command):
        run.calls.append((asked["strategy"], asked["deviation"], asked["seed"], resume, command))
        folder = RunFolder.open(output) if resume else RunFolder.create(output, "active_learning", "toy")
        folder.write_config({"settings": asked})
        if asked["strategy"] in run.broken:
            raise InputError("the network diverged")
        for n in range(2):
            cycle = folder.path / "cycles" / f"{n + 1:02d}"
            (cycle / "checkpoints").mkdir(parents=True, exist_ok=True)
            (cycle / "network.keras").write_text("large")
            (cycle / "checkpoints" / "epoch-00002.npz").write_text("large")
            measured = {"labelled": 10 + 10 * n, "accuracy": 0.5 + n / 4, "balanced_accuracy": 0.5}
            about = {**measured, "select_seconds": 1.5 * n, "train_seconds": 9.0, "samples": 80, "measured_on": "test"}
            write_json(cycle / "results.json", about)
        (folder.path / "model.keras").write_text("kept")
        folder.write_results({"cycles": 2})
        return folder

    run.calls, run.broken = [], set()
    monkeypatch.setattr(loop, "run_active_learning", run)
    monkeypatch.setattr(study, "write_study_report", lambda path, *rest: path.write_text("written"))
    monkeypatch.setattr(jobs.gc, "collect", lambda: 0)  # longer than all the rest
    return run


def test_cells_are_run_once_and_their_networks_dropped(made_up, tmp_path, capsys):
    folder = tmp_path / "study"
    settings = {**SETTINGS, "ablations": ["deviation"]}
    run_study(settings, str(folder))
    assert [call[:4] for call in made_up.calls[-3:]] == [
        ("margin", "higher", 1, False), ("ema", "lower", 0, False), ("ema", "lower", 1, False)
    ]  # fmt: skip
    assert len(made_up.calls) == 8 and "--strategy=ema" in made_up.calls[-1][4] and "--seed=1" in made_up.calls[-1][4]
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert left == {
        "config.yaml", "results.json", "model.keras", "cell.json", "table.csv", "curves.csv", "report.html"
    }  # fmt: skip
    assert not [*folder.rglob("checkpoints")]
    cell = json.loads((folder / "cells" / "ema-seed0" / "cell.json").read_text())
    assert cell["area_under_curve"] == pytest.approx(0.625) and cell["cycles"][1]["select_seconds"] == 1.5
    with open(folder / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["strategy"], row["ablation"], row["value"]) for row in rows[-3:]] == [
        ("margin", "", ""), ("ema", "deviation", "lower"), ("ema", "deviation", "lower")
    ]  # fmt: skip
    assert (rows[0]["accuracy"], rows[0]["train_seconds"], rows[0]["run"]) == ("0.75", "18.0", "cells/random-seed0")
    with open(folder / "curves.csv", newline="") as file:
        assert [row["labelled"] for row in csv.DictReader(file)][:4] == ["10", "20", "10", "20"]
    capsys.readouterr()
    run_study({**settings, "seeds": 3}, str(folder), resume=True)
    assert len(made_up.calls) == 12 and capsys.readouterr().out.count("finished: ") == 8


def test_networks_are_dropped_even_when_the_process_died_before(made_up, tmp_path):
    folder = tmp_path / "study"
    run_study(SETTINGS, str(folder))
    network = folder / "cells" / "ema-seed0" / "cycles" / "01" / "network.keras"
    network.write_text("large")
    run_study(SETTINGS, str(folder), resume=True)
    assert not network.exists()


def test_a_cell_that_fails_leaves_the_others_and_goes_on_later(made_up, tmp_path, capsys):
    folder = tmp_path / "study"
    made_up.broken = {"ema"}
    with pytest.raises(
        InputError, match=r"2 of 6 cells failed \(ema, seed 0; ema, seed 1\): see above, then aitom-ssl"
    ):
        run_study(SETTINGS, str(folder))
    assert "failed: the network diverged" in capsys.readouterr().out
    assert len(results_in(folder, cells_of(SETTINGS))) == 4
    made_up.broken = set()
    run_study(SETTINGS, str(folder), resume=True)
    assert [call[3] for call in made_up.calls[-2:]] == [True, True]
    assert len(results_in(folder, cells_of(SETTINGS))) == 6


def test_what_another_process_adds_is_in_the_tables(made_up, tmp_path, monkeypatch):
    folder, few = tmp_path / "study", {**SETTINGS, "strategies": ["random"], "seeds": 1}
    run_study(few, str(folder))
    run_study({**few, "strategies": ["ema"]}, str(folder), resume=True)
    config = RunFolder(folder).read_config()
    assert config["settings"]["strategies"] == ["random", "ema"] and config["settings"]["run"] == RUN

    def meanwhile(asked, *rest):
        more = with_more(config["settings"], {"strategies": ["hal"]})
        RunFolder(folder).write_config({**config, "settings": more})
        write_json(folder / "cells/hal-seed0/cell.json", result("hal", 0, 0.1, 0.2).measured)
        return made_up(asked, *rest)

    monkeypatch.setattr(loop, "run_active_learning", meanwhile)
    run_study({**few, "strategies": ["margin"]}, str(folder), resume=True)
    with open(folder / "table.csv", newline="") as file:
        assert "hal" in {row["strategy"] for row in csv.DictReader(file)}


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt("0 of 2 cycles are finished.")

    monkeypatch.setattr(loop, "run_active_learning", stopped)
    with pytest.raises(KeyboardInterrupt, match=f"aitom-ssl active_learning_study --resume --output={tmp_path}/study"):
        run_study(SETTINGS, str(tmp_path / "study"))


def test_dropping_keeps_the_rest(tmp_path):
    for name in ("cycles/01/network.keras", "cycles/01/checkpoints/a.npz", "cycles/01/state.json", "model.keras"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    drop_networks(tmp_path)
    drop_networks(tmp_path)
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()} == {
        "cycles/01/state.json", "model.keras"
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"area_under_curve": 0.5, "samples": 9, "measured_on": "test", "cycles": []}']
)
def test_a_damaged_cell_is_named(made_up, tmp_path, text):
    run_study(SETTINGS, str(tmp_path / "study"))
    (tmp_path / "study/cells/ema-seed1/cell.json").write_text(text)
    with pytest.raises(InputError, match=r"ema-seed1/cell.json is damaged \(.*\): delete .*ema-seed1 to run it anew"):
        run_study(SETTINGS, str(tmp_path / "study"), resume=True)


# === Tables ===

RESULTS = [
    *(result(RANDOM, seed, 0.2, 0.4, last) for seed, last in enumerate((0.5, 0.52, 0.54))),
    *(result(EMA, seed, 0.2, 0.5, last, seconds=4.0) for seed, last in enumerate((0.6, 0.62, 0.67))),
]
LOWERED = [result(LOWER, seed, 0.2, 0.3, last) for seed, last in enumerate((0.4, 0.41))]


def test_strategies_are_tested_against_random():
    header, random, ema = strategy_rows(RESULTS, SETTINGS)
    assert header[:4] == ["strategy", "seeds", "final accuracy", "p"]
    assert random == ["random", "3", "0.520 ± 0.020", "", "0.380 ± 0.005", "", "3"]
    final = t_test([0.6, 0.62, 0.67], [0.5, 0.52, 0.54])
    # Trapezoids over equal steps: (0.2 + 2 * middle + last) / 4.
    area = t_test([(1.2 + v) / 4 for v in (0.6, 0.62, 0.67)], [(1.0 + v) / 4 for v in (0.5, 0.52, 0.54)])
    assert ema[2:4] == ["0.630 ± 0.036", f"{final.welch:.2g}, {final.student:.2g}"]
    assert ema[5:] == [f"{area.welch:.2g}, {area.student:.2g}", "6"]


def test_ablations_are_tested_against_ema_as_it_is():
    header, own, lower = ablation_rows([*RESULTS, *LOWERED], ALL, "deviation")
    assert header[:4] == ["deviation", "seeds", "final accuracy", "p"]
    assert own[:4] == ["higher (ema)", "3", "0.630 ± 0.036", ""] and lower[:2] == ["lower", "2"]
    test = t_test([0.4, 0.41], [0.6, 0.62, 0.67])
    assert lower[3] == f"{test.welch:.2g}, {test.student:.2g}"


def test_without_anything_to_test_against_there_is_no_test():
    assert strategy_rows([result(EMA, 0, 0.2, 0.3)], SETTINGS)[1] == ["ema", "1", "0.300", "", "0.250", "", "2"]


def test_by_labels():
    rows = by_labels([*RESULTS, *LOWERED], ALL, "accuracy")
    assert rows[0] == ["labels", "10", "20", "30"] and [row[0] for row in rows[1:]] == [
        *("random", "ema", "ema, deviation lower")
    ]
    assert rows[2] == ["ema", "0.200 ± 0.000", "0.500 ± 0.000", "0.630 ± 0.036"]
    seconds = by_labels(RESULTS, ALL, "select_seconds")
    assert seconds == [["labels", "20", "30"], ["random", "2", "4"], ["ema", "4", "8"]]


def test_the_text_has_every_table_that_has_results():
    text = tables_text([*RESULTS, *LOWERED], ALL)
    assert [block.split()[0] for block in text.split("\n\n")] == ["labels", "strategy", "deviation"]
    assert tables_text([], ALL) == "No cell is finished." and measured_on([], ALL) == ""
    assert "100 test samples of toy" in measured_on(RESULTS, ALL) and "seeds 0, 1, 2" in measured_on(RESULTS, ALL)


# === Figures ===


def test_lines_are_means_and_bands_are_spreads():
    assert curve(RESULTS, Variant(EMA)) == {10: [0.2] * 3, 20: [0.5] * 3, 30: [0.6, 0.62, 0.67]}
    (axes,) = curves_figure(RESULTS, {"": [Variant(name) for name in ("random", "ema", "margin")]}).axes
    assert [line.get_label() for line in axes.lines] == ["random", "ema"]
    assert axes.lines[1].get_xdata() == pytest.approx([10, 20, 30])
    assert axes.lines[1].get_ydata() == pytest.approx([0.2, 0.5, 0.63])
    corners = axes.collections[1].get_paths()[0].vertices
    assert corners[:, 1].max() == pytest.approx(0.63 + 0.0361, abs=1e-4)


def test_gains_are_of_the_same_seed():
    some = [
        result(RANDOM, 1, 0.1, 0.5),
        result(RANDOM, 0, 0.3, 0.4),
        result(EMA, 0, 0.3, 0.6),
        result(EMA, 2, 0.9, 0.9),
    ]
    ten, twenty = curve(some, Variant(EMA), above=Variant(RANDOM)).items()
    assert ten == (10, [0.0]) and twenty == (20, [pytest.approx(0.2)])
    (axes,) = curves_figure(some, {"": [Variant(EMA)]}, above=Variant(RANDOM)).axes
    assert axes.get_ylabel() == "accuracy above random, test samples"


def test_every_ablation_has_a_panel(tmp_path):
    names = list(ABLATIONS)[:5]
    figure = curves_figure([*RESULTS, *LOWERED], {name: [Variant(EMA), LOWER] for name in names})
    assert [axes.get_title() for axes in figure.axes[:5]] == names and len(figure.axes) == 6
    assert not figure.axes[5].axison
    page = study.write_study_report(tmp_path / "report.html", [*RESULTS, *LOWERED], ALL, "the command")
    text = page.read_text(encoding="utf-8")
    assert text.count("<img") == 3 and "Ablations of EMA" in text and "the command" in text
