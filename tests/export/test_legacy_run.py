"""A run of a legacy file: its network, its axes, its classes; and the command."""

from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from small_legacy import difference, volumes

from aitom_ssl import models
from aitom_ssl.cli import main
from aitom_ssl.export.legacy import load_legacy_weights
from aitom_ssl.export.legacy_run import import_legacy, turn_axes


@pytest.mark.parametrize("architecture", ["inception3d", "dsrf3d"])
def test_a_turned_network_sees_zyx_as_it_saw_xyz(legacy_files, twins, architecture):
    model = twins(architecture)
    load_legacy_weights(model, legacy_files(architecture, 16) / "whole.h5")
    x = volumes(16)
    as_xyz, as_zyx = model.predict(x.transpose(0, 3, 2, 1, 4), verbose=0), model.predict(x, verbose=0)
    turn_axes(model)
    assert np.allclose(model.predict(x, verbose=0), as_xyz, atol=1e-5)
    assert np.abs(as_xyz - as_zyx).max() > 1e-3


def test_a_run_of_a_legacy_file(tmp_path, inception):
    run = import_legacy(inception / "only.h5", tmp_path / "run", list("abcde"), voxel_size=13.8, contrast="bright")
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    description = models.ModelDescription.from_dict(config["model"], "config.yaml")
    assert description == models.ModelDescription("inception3d", tuple("abcde"), 16, 13.8, "bright")
    assert len(config["source"]["sha256"]) == 64
    model = keras.models.load_model(run.path / "model.keras")
    model.jit_compile = False
    assert difference(model, inception) == 0


def test_the_command(tmp_path, inception, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = f"--weights={inception / 'whole.h5'}"
    (tmp_path / "names.txt").write_text("\ufeffa\nb\n\nc\nd\ne\n", encoding="utf-8")  # as Windows writes it
    assert main("import_legacy", [weights, "--class_names_file=names.txt", "--output=named"]) == 0
    assert "warning" not in capsys.readouterr().out
    assert yaml.safe_load(Path("named/config.yaml").read_text())["model"]["class_names"] == list("abcde")
    assert main("import_legacy", [weights]) == 0
    assert "class_0 to class_4" in capsys.readouterr().out
    assert Path("runs/legacy-whole/model.keras").is_file()

    (tmp_path / "text.h5").write_text("no")
    for flags, words in (
        ([], "--weights is missing"),
        (["--weights=nowhere.h5"], "nowhere.h5 is not there"),
        (["--weights=text.h5"], "not an HDF5 file"),
        ([weights, "--class_names=a,b"], "5 classes, but 2 class names"),
        ([weights, "--class_names=a,b,c,d,a"], "'a' twice"),
        ([weights, "--class_names=a,b,,d,e"], "has an empty name"),
        ([weights, "--class_names=a,b,c,d,e", "--class_names_file=names.txt"], "leave one out"),
        ([weights, "--class_names_file=nowhere.txt"], "nowhere.txt is not a file"),
        ([weights, "--size=20"], "not for 20^3"),
        ([weights, "--voxel_size=0"], "--voxel_size=0"),
        ([weights, "--output=named"], "already holds a run"),
    ):
        assert main("import_legacy", flags) == 2, flags
        line = capsys.readouterr().err
        assert words in line
        assert line.count("\n") == 1
