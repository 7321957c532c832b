"""A whole study on toy data through its command; its flags, and one line a mistake."""

import csv
import shutil

import numpy as np
import pytest

from aitom_ssl.cli import main, semi_supervised_study
from aitom_ssl.cli.common import parse
from aitom_ssl.data import write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.training import RunFolder, finetuning


def options(*flags):
    return parse("semi_supervised_study", semi_supervised_study, flags)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder of a dataset of two classes of 8^3 volumes, 24 of them to train on."""
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((2, 8, 8, 8))

    def samples(count):
        for n in range(count):
            yield {"volume": (patterns[n % 2] + rng.normal(size=(8, 8, 8))).astype(np.float32), "label": n % 2}

    splits = {"train": samples(24), "validation": samples(8), "test": samples(10)}
    return write_dataset(tmp_path_factory.mktemp("study") / "toy", "toy", ["a", "b"], 10.0, "bright", splits)


@pytest.fixture(scope="module")
def study(data, tmp_path_factory):
    """A study of two encoders, one amount of labels and two seeds."""
    folder = tmp_path_factory.mktemp("runs") / "study"
    flags = ["--smoke", f"--data={data}", "--methods=random,moco", "--seeds=2", "--precision=float32"]
    flags += ["--recipe=recommended", "--finetuning_epochs=0"]  # its own tests fine-tune
    assert main("semi_supervised_study", [*flags, f"--output={folder}"]) == 0
    return folder


def rows(folder):
    with open(folder / "table.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_run_has_a_folder_and_every_cell_a_row(study):
    assert [path.name for path in (study / "pretraining").iterdir()] == ["moco-seed0"]
    cells = {f"{method}-50percent-seed{seed}" for method in ("random", "moco") for seed in (0, 1)}
    assert {path.name for path in (study / "cells").iterdir()} == cells
    assert {row["run"] for row in rows(study)} == {f"cells/{name}" for name in cells}
    assert {row["train_samples"] for row in rows(study)} == {"12"}
    page = (study / "report.html").read_text(encoding="utf-8")
    assert "Does pretraining pay on" in page and "50% of the labels" in page and "data:image" in page


def test_cells_of_a_seed_differ_in_their_encoder_alone(study):
    for seed in (0, 1):
        random, moco = (
            RunFolder(study / "cells" / f"{method}-50percent-seed{seed}").read_config()["settings"]
            for method in ("random", "moco")
        )
        assert (random.pop("pretrained"), random.pop("field")) == ("none", 1)
        assert (moco.pop("pretrained"), moco.pop("field")) == (str(study / "pretraining" / "moco-seed0"), None)
        assert random == moco and random["seed"] == seed


def test_going_on_adds_cells_and_does_nothing_twice(study, capsys):
    before = {path: path.stat().st_mtime_ns for path in study.rglob("results.json")}
    again = ["--resume", f"--output={study}", "--labels_per_class=4", "--methods=random"]
    assert main("semi_supervised_study", again) == 0
    after = {path: path.stat().st_mtime_ns for path in study.rglob("results.json")}
    assert len(before) == 4 and len(after) == 8 and before.items() <= after.items()
    out = capsys.readouterr().out
    assert out.count("finished: ") == 5 and "4 labels a class" in out and "MoCo" in out
    assert {row["labels"] for row in rows(study)} == {"50% of the labels", "4 labels a class"}
    stored = RunFolder(study).read_config()["settings"]
    assert (stored["methods"], stored["labels_per_class"]) == (["random", "moco"], [4])


def test_what_another_process_adds_is_in_the_table(study, monkeypatch):
    cell, original = study / "cells" / "random-50percent-seed1", finetuning.run_finetuning
    (cell / "results.json").unlink()

    def meanwhile(*given):
        made = original(*given)
        config = RunFolder(study).read_config()
        RunFolder(study).write_config({**config, "settings": {**config["settings"], "fractions": [0.25, 0.5]}})
        shutil.copytree(cell, study / "cells" / "random-25percent-seed1")
        return made

    monkeypatch.setattr(finetuning, "run_finetuning", meanwhile)
    assert main("semi_supervised_study", ["--resume", f"--output={study}"]) == 0
    assert "25% of the labels" in {row["labels"] for row in rows(study)}


def test_another_recipe_is_refused(study, capsys):
    assert main("semi_supervised_study", ["--resume", f"--output={study}", "--pretraining_epochs=9"]) == 2
    assert "was started with --pretraining_epochs=1, not --pretraining_epochs=9" in capsys.readouterr().err


def test_presets():
    cpu = semi_supervised_study.new_settings(options("--data=x"))
    assert cpu["seeds"] >= 5 and cpu["methods"] == ["random", "simclr"]
    paper = semi_supervised_study.new_settings(options("--data=x", "--preset=paper"))
    assert (paper["pretraining_epochs"], paper["finetuning_epochs"], paper["seeds"]) == (200, 50, 5)
    assert paper["fractions"] == [0.25, 0.5, 0.75, 1.0]
    runs = semi_supervised_study.runs_of(paper)
    assert runs["pretraining"]["moco"].items() >= {"epochs": 200, "head": "v1", "augmentation": "ssl2022"}.items()
    assert runs["finetuning"].items() >= {"epochs": 50, "optimizer": "sgd", "learning_rate": 5e-4}.items()


def test_the_command_makes_the_settings_again():
    given = ["--data=x", "--labels_per_class=none", "--finetuning_steps=0", "--fractions=1,0.5", "--smoke"]
    settings = semi_supervised_study.new_settings(options(*given))
    assert settings["labels_per_class"] == [] and settings["fractions"] == [0.5, 1.0]
    command = semi_supervised_study.the_command(settings)
    assert semi_supervised_study.new_settings(options(*command.split()[2:])) == settings


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--methods=mocco"], "Did you mean moco"),
        (["--fractions=0.25,2"], "--fractions=0.25,2: expected numbers above 0 and at most 1"),
        (["--labels_per_class=2.5"], "--labels_per_class=2.5: expected whole numbers of 1 or more"),
        (["--fractions=none", "--labels_per_class=none"], "There is no cell"),
        (["--seeds=0"], "--seeds=0 must be 1 or more"),
    ],
)
def test_ranges(flags, words):
    with pytest.raises(InputError, match=words):
        semi_supervised_study.new_settings(options("--data=x", *flags))


def test_a_mistake_is_one_line_and_leaves_nothing(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = [f"--data={data}", "--smoke"]
    for flags, words in (
        ([], "--data is missing"),
        ([f"--data={data}"], "A batch of 64 needs more than the 24 samples"),
        ([*whole, "--labels_per_class=13"], "a has 12 labelled training samples"),
        ([*whole, "--fractions=0.1"], "A batch of 8 needs more than the 2 samples"),
        (["--resume"], "There is no run"),
    ):
        assert main("semi_supervised_study", flags) == 2
        line = capsys.readouterr().err
        assert words in line and line.count("\n") == 1, line
    assert not (tmp_path / "runs").exists()
