"""`export_savedmodel`, the command: from a run to a version folder, and what it says of serving it."""

import shlex
import subprocess
import sys

import keras
import numpy as np
import pytest
import yaml
from google.protobuf import text_format
from serving_stand import CppModel
from small_network import NAMES, SIZE, small_network
from tensorflow_serving.config import model_server_config_pb2

from aitom_ssl.cli import main
from aitom_ssl.data.batches import standardize
from aitom_ssl.errors import InputError
from aitom_ssl.export.classifier import find_model
from aitom_ssl.export.run_export import checked_export, docker_line, model_config

ABOUT = {"architecture": "small", "class_names": list(NAMES), "size": SIZE, "voxel_size": 13.48, "contrast": "bright"}


@pytest.fixture
def make_run(tmp_path):
    def make(model=None, name="run", **about):
        folder = tmp_path / name
        folder.mkdir()
        config = {"method": "supervised", "settings": {}, "model": {**ABOUT, **about}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        if model is not None:
            model.save(folder / "model.keras")
        return folder

    return make


def command(*flags):
    return main("export_savedmodel", [f"--{flag}" for flag in flags])


def test_from_a_run_to_a_version(make_run, classifier, volumes, capsys):
    run = make_run(classifier)
    assert command(f"run={run}") == command(f"run={run}") == 0
    assert sorted(path.name for path in (run / "savedmodel").iterdir()) == ["1", "2"]
    folder = run / "savedmodel" / "2"
    assert find_model(folder).description().to_dict() == ABOUT
    wanted = np.asarray(classifier(standardize(volumes.copy())[..., None], training=False))
    assert np.abs(CppModel(folder)("serving_default", volumes[..., None])["probabilities"] - wanted).max() < 1e-6
    shown = capsys.readouterr().out
    assert f"{folder}  small, 3 classes, 8^3, voxels of 13.48 A, bright protein, 0." in shown
    assert docker_line(run / "savedmodel", "run") in shown and model_config("run") in shown
    assert "unknown" not in shown


def test_an_encoders_run(make_run, encoder, capsys):
    run = make_run(encoder, class_names=[])
    assert command(f"run={run}", f"output={run.parent / 'served'}", "version=20") == 0
    assert set(CppModel(run.parent / "served" / "20").signatures) == {"serving_default", "features", "serving_bytes"}
    shown = capsys.readouterr().out
    assert "an encoder" in shown and 'PredictClient("localhost:8500", "served").features(volumes)' in shown


def test_what_a_run_does_not_know_can_be_said(make_run, classifier, capsys):
    run = make_run(classifier, voxel_size=None, contrast=None)
    assert command(f"run={run}") == 0
    assert "voxel size unknown, contrast unknown" in (shown := capsys.readouterr().out)
    assert "cannot be checked" in shown
    assert command(f"run={run}", "voxel_size=10", "contrast=dark") == 0
    described = find_model(run / "savedmodel").description()
    assert (described.voxel_size, described.contrast) == (10, "dark")
    with pytest.raises(InputError, match=r"was trained with voxel_size=13.48, not 10"):
        checked_export(make_run(classifier, name="known"), voxel_size=10)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run / "config.yaml").unlink(), "holds no run (no config.yaml)"),
        (lambda run: (run / "config.yaml").write_text("settings: {}"), "does not say what model it is"),
        (lambda run: (run / "model.keras").unlink(), "its training has not finished"),
        (lambda run: (run / "model.keras").write_bytes(b"PK\x03\x04 half"), "model.keras cannot be loaded"),
        (lambda run: (run / "savedmodel").write_text(""), "is a file, expected a folder"),
    ],
)
def test_what_is_no_finished_run(make_run, classifier, capsys, spoil, said):
    run = make_run(classifier)
    spoil(run)
    assert command(f"run={run}") == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
    assert not (run / "savedmodel").is_dir()


def test_a_rif_svm_is_no_savedmodel(make_run):
    run = make_run(architecture="rif_svm")
    (run / "model.joblib").write_text("")
    with pytest.raises(InputError, match="RIF-SVM, a scikit-learn model"):
        checked_export(run)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--run is missing"),
        (["run=x", "version=0"], "--version=0 must be 1 or more"),
        (["run=x", "voxel_size=-1"], "--voxel_size=-1.0 must be above 0"),
        (["run=x", "contrast=grey"], "<bright|dark>"),
        (["run=nowhere"], "nowhere holds no run"),
    ],
)
def test_a_mistake_is_one_line_and_loads_no_tensorflow(flags, said):
    code = (
        "import sys; from aitom_ssl.cli import main; code = main('export_savedmodel', sys.argv[1:]); "
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules; sys.exit(code)"
    )
    arguments = [sys.executable, "-c", code, *(f"--{flag}" for flag in flags)]
    shown = subprocess.run(arguments, capture_output=True, text=True)
    assert shown.returncode == 2 and said in shown.stderr and len(shown.stderr.splitlines()) == 1


def test_a_version_that_is_there(make_run, served):
    with pytest.raises(InputError, match="has a version 1 already"):
        checked_export(make_run(small_network()), served.parent, 1)


def test_the_model_config_is_the_servers(tmp_path):
    config = text_format.Parse(model_config("my-model_2.1"), model_server_config_pb2.ModelServerConfig())
    (entry,) = config.model_config_list.config
    assert (entry.name, entry.base_path, entry.model_platform) == ("my-model_2.1", "/models/my-model_2.1", "tensorflow")


def test_the_docker_line_is_one_commands(tmp_path):
    folder = tmp_path / "with space"
    words = shlex.split(docker_line(folder, "m"))
    assert words[:3] == ["docker", "run", "--rm"] and words[-1] == "tensorflow/serving"
    assert f"{folder}:/models/m" in words and "MODEL_NAME=m" in words


def test_a_model_is_named_after_its_run_or_its_folder(make_run):
    run = make_run(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), name="inception3d-snr 0.05")
    assert checked_export(run).name == "inception3d-snr_0.05"
    assert checked_export(run, run.parent / "ribosomes").name == "ribosomes"
