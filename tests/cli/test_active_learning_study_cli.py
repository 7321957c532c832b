"""A whole study on toy data through its command; its flags, and one line a mistake."""

import csv

import keras
import numpy as np
import pytest
from keras import layers

from aitom_ssl import active
from aitom_ssl.active import loop
from aitom_ssl.active import study_plan as module
from aitom_ssl.cli import active_learning_study, main
from aitom_ssl.cli.common import parse
from aitom_ssl.data import write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.training import RunFolder

SIDE = 6


def options(*flags):
    return parse("active_learning_study", active_learning_study, flags)


def tiny_network(input_shape, classes=None, pooling=None, include_top=True, field=1.0):
    volumes = keras.Input(input_shape)
    x = layers.GlobalAveragePooling3D()(layers.Conv3D(4, 3, strides=2, activation="relu")(volumes))
    return keras.Model(volumes, x)


def samples(count, labels=True):
    rng = np.random.default_rng(0)
    for n in range(count):
        volume = rng.normal(size=(SIDE,) * 3).astype(np.float32)
        yield {"volume": volume, "label": n % 2} if labels else {"volume": volume}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder of a dataset of two classes of 6^3 volumes, 24 of them to train on."""
    splits = {"train": samples(24), "test": samples(10)}
    return write_dataset(tmp_path_factory.mktemp("data") / "toy", "toy", ["a", "b"], 10.0, "bright", splits)


@pytest.fixture(scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.models, "get", lambda name: tiny_network)
        patch.setattr(loop, "write_active_report", lambda path, *rest: path.write_text("written"))
        yield


@pytest.fixture(scope="module")
def study(data, tiny, tmp_path_factory):
    """A study of two strategies and one seed, of the paper's recipe, which augments nothing."""
    folder = tmp_path_factory.mktemp("runs") / "study"
    flags = ["--smoke", "--preset=paper", f"--data={data}", "--limit=24", "--seeds=1", f"--output={folder}"]
    assert main("active_learning_study", flags) == 0
    return folder


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_cell_has_a_folder_and_a_row(study):
    cells = {"cells/random-seed0", "cells/ema-seed0"}
    assert {f"cells/{path.name}" for path in (study / "cells").iterdir()} == cells
    assert {row["run"] for row in rows(study / "table.csv")} == cells
    assert [row["labelled"] for row in rows(study / "curves.csv")] == ["6", "12"] * 2
    page = (study / "report.html").read_text(encoding="utf-8")
    assert "Does it pay to choose" in page and "area under curve" in page and "data:image" in page


def test_cells_of_a_seed_begin_with_the_same_labels(study):
    first = {
        path.parts[-4]: [row["sample"] for row in rows(path)] for path in study.glob("cells/*/cycles/01/selected.csv")
    }
    assert len(first["ema-seed0"]) == 6 and first["random-seed0"] == first["ema-seed0"]


def test_only_the_last_network_is_kept(study):
    assert not [*study.rglob("network.keras"), *study.rglob("checkpoints")]
    assert keras.models.load_model(study / "cells/ema-seed0/model.keras", compile=False).output.shape == (None, 2)


def test_going_on_adds_cells_and_does_nothing_twice(study, capsys):
    before = {path: path.stat().st_mtime_ns for path in study.rglob("cell.json")}
    again = ["--resume", f"--output={study}", "--strategies=margin", "--ablations=deviation"]
    assert main("active_learning_study", again) == 0
    after = {path: path.stat().st_mtime_ns for path in study.rglob("cell.json")}
    assert len(before) == 2 and len(after) == 4 and before.items() <= after.items()
    out = capsys.readouterr().out
    assert out.count("finished: ") == 2 and "higher (ema)" in out
    stored = RunFolder(study).read_config()["settings"]
    assert (stored["strategies"], stored["ablations"]) == (["random", "ema", "margin"], ["deviation"])
    lower = RunFolder(study / "cells/ema-deviation_lower-seed0").read_config()["settings"]
    plain = RunFolder(study / "cells/ema-seed0").read_config()["settings"]
    assert {name for name in plain if plain[name] != lower[name]} == {"deviation"}


def test_networks_may_start_from_a_run(data, tiny, study, tmp_path, capsys):
    flags = ["--smoke", "--preset=paper", f"--data={data}", "--limit=24", "--seeds=1", "--strategies=random"]
    start = study / "cells/random-seed0"
    assert main("active_learning_study", [*flags, f"--start={start}", f"--output={tmp_path / 'study'}"]) == 0
    run = RunFolder(tmp_path / "study/cells/random-seed0").read_config()["settings"]
    assert run["start"] == str(start) and run["model"] == "rb3d" and run["field"] is None
    assert RunFolder(tmp_path / "study").read_config()["settings"]["model"] == "rb3d"
    assert main("active_learning_study", [*flags, f"--start={start}", "--model=cb3d", "--output=no"]) == 2
    assert "is rb3d: leave --model out" in capsys.readouterr().err
    assert main("active_learning_study", [*flags, "--start=nowhere", "--output=no"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_another_recipe_is_refused(study, capsys):
    assert main("active_learning_study", ["--resume", f"--output={study}", "--epochs=9"]) == 2
    assert "was started with --epochs=1, not --epochs=9" in capsys.readouterr().err


# === Flags ===


def test_presets():
    cpu = active_learning_study.new_settings(options("--data=x"))
    assert cpu["seeds"] >= 3 and cpu["strategies"][:2] == ["random", "ema"] and cpu["ablations"] == []
    run = active_learning_study.run_settings(cpu)
    assert run.items() >= {"preset": "crowded", "model": "rb3d", "alpha": 0.99, "mean_init": "copy"}.items()
    assert "strategy" not in run and "seed" not in run and run["epochs"] == cpu["epochs"]
    paper = active_learning_study.new_settings(options("--data=x", "--preset=paper"))
    assert paper["strategies"] == list(active.NAMES) and paper["seeds"] == 3
    assert paper["ablations"] == list(module.ABLATIONS)
    run = active_learning_study.run_settings(paper)
    published = {"model": "resnet18_3d", "initial": 0.1, "step": 0.05, "final": 0.4, "alpha": 0.999, "limit": None}
    assert run.items() >= {**published, "mean_init": "independent", "optimizer": "sgd", "epochs": 100}.items()
    # What an ablation calls its own is what the recipe says.
    assert len(module.variants_of({**paper, "run": run})) == len(active.NAMES) + 8


@pytest.mark.parametrize("flags", [["--smoke"], ["--preset=paper", "--ablations=none", "--limit=50", "--step=30"]])
def test_the_command_makes_the_settings_again(flags):
    settings = active_learning_study.new_settings(options("--data=x", *flags))
    command = active_learning_study.the_command(settings)
    assert active_learning_study.new_settings(options(*command.split()[2:])) == settings


def test_without_ema_a_preset_has_no_ablations():
    settings = active_learning_study.new_settings(options("--data=x", "--preset=paper", "--strategies=random,hal"))
    assert settings["ablations"] == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--strategies=entropie"], "Did you mean entropy"),
        (["--ablations=lamda"], "Did you mean lambda"),
        (["--strategies=random", "--ablations=lambda"], "--ablations=lambda are of ema, which is not among"),
        (["--seeds=0"], "--seeds=0 must be 1 or more"),
        (["--epochs=0"], "--epochs=0 must be 1 or more"),
        (["--initial=0"], "--initial=0.0 must be above 0"),
    ],
)
def test_ranges(flags, words):
    with pytest.raises(InputError, match=words):
        active_learning_study.new_settings(options("--data=x", *flags))


def test_a_mistake_is_one_line_and_leaves_nothing(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "blind", "blind", ["a", "b"], 10.0, "bright", {"train": samples(9)})
    for flags, words in (
        ([], "--data is missing"),
        ([f"--data={data}", "--initial=5", "--step=5", "--final=30"], "--final=30 asks for more, and the pool has 24"),
        ([f"--data={data}", "--initial=5", "--step=5", "--final=5"], "there is nothing to select"),
        (["--data=blind", "--initial=2", "--step=2", "--final=6"], "a study needs some to measure on"),
        (["--resume"], "There is no run"),
    ):
        assert main("active_learning_study", flags) == 2
        line = capsys.readouterr().err
        assert words in line and line.count("\n") == 1, line
    assert not (tmp_path / "runs").exists()


def test_a_damaged_config_is_named(study, tmp_path, capsys):
    config = RunFolder(study).read_config()
    older = {name: value for name, value in config["settings"]["run"].items() if name != "class_balanced"}
    for settings, words in (
        ({}, "no setting data, preset, smoke, ...: it is"),
        ({**config["settings"], "run": None}, "no setting run.preset, "),
        ({**config["settings"], "run": "abc"}, "no setting run.preset, "),
        ({**config["settings"], "run": older}, "no setting run.class_balanced: it is"),
    ):
        broken = RunFolder(tmp_path)
        broken.write_config({**config, "settings": settings})
        assert main("active_learning_study", ["--resume", f"--output={tmp_path}"]) == 2
        line = capsys.readouterr().err
        assert "/config.yaml has " + words in line and "older aitom_ssl" in line and line.count("\n") == 1
