"""The commands predict and evaluate, as a user meets them."""

import time

import numpy as np
import pytest

from aitom_ssl.cli import evaluate, main, predict
from aitom_ssl.cli.common import parse
from aitom_ssl.data import write_dataset
from aitom_ssl.mrc import write_mrc

NAMES = ("a b", "c")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    import keras
    from keras import layers

    from aitom_ssl.models import ModelDescription
    from aitom_ssl.training import RunFolder

    keras.utils.set_random_seed(0)
    volumes = keras.Input((6, 6, 6, 1), name="subtomogram")
    x = layers.Flatten()(layers.Conv3D(4, 3, strides=2, activation="relu")(volumes))
    model = keras.Model(volumes, layers.Dense(2, activation="softmax", name="classifier")(x))
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "tiny", "tiny", "tiny")
    description = ModelDescription("tiny", NAMES, 6, 10.0, "bright")
    folder.write_config({"method": "tiny", "settings": {"data": "tiny"}, "model": description.to_dict()})
    folder.save_model(model)
    return folder.path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(0)
    samples = ({"volume": rng.normal(size=(6, 6, 6)).astype(np.float32), "label": i % 2} for i in range(30))
    return write_dataset(tmp_path_factory.mktemp("data") / "tiny", "tiny", NAMES, 10.0, "bright", {"test": samples})


def test_predictions_and_what_is_said_of_them(run, data, tmp_path, capsys):
    arguments = [f"--run={run}", f"--data={data}", f"--output={tmp_path}/out"]
    assert main("predict", arguments) == 0
    said = capsys.readouterr().out
    assert "a b" in said and "30 subtomograms in" in said and "30 particles" in said
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 31
    assert main("predict", arguments) == 0
    assert "finished already" in capsys.readouterr().out


def test_an_evaluation_and_its_table(run, data, tmp_path, capsys):
    assert main("evaluate", [f"--run={run}", f"--data={data}", f"--output={tmp_path}/out"]) == 0
    said = capsys.readouterr().out
    assert "a b" in said and "accuracy" in said and "report.html" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.json", "report.html"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"run": None}, "--run is missing"),
        ({"data": None}, "--data is missing"),
        ({"output": None}, "--output is missing"),
        ({"run": "nothing"}, "No run or SavedModel nothing"),
        ({"data": "nothing"}, "No dataset 'nothing'"),
        ({"data": "EMPTY"}, "no MRC file"),
        ({"data": "BAD"}, "cannot be read as an MRC volume"),
        ({"data": "WIDE"}, "box 8^3 (trained on 6^3)"),
        ({"data": "gone.star"}, "--data=gone.star: no such file"),
        ({"batch_size": 0}, "--batch_size=0"),
        ({"voxel_size": -1}, "--voxel_size=-1"),
        ({"box_size": 1}, "--box_size=1"),
        ({"split": "validation"}, "has no split 'validation'"),
        ({"precision": "half"}, "half"),
        ({"output": "BAD"}, "is there and is not empty"),
    ],
)
def test_mistakes_are_one_line(run, data, tmp_path, capsys, flags, said):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "BAD").mkdir()
    (tmp_path / "BAD" / "a.mrc").write_text("nothing")
    write_mrc(tmp_path / "WIDE" / "a.mrc", np.random.default_rng(0).normal(size=(8, 8, 8)), 10.0)
    given = {"run": run, "data": data, "output": tmp_path / "out", **flags}
    given |= {key: tmp_path / value for key, value in given.items() if str(value) in ("EMPTY", "BAD", "WIDE")}
    assert main("predict", [f"--{key}={value}" for key, value in given.items() if value is not None]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error and not (tmp_path / "out").exists()


def test_the_command_in_messages_is_the_one_that_was_given():
    flags = ["--run=runs/a b", "--data=d", "--output=o", "--invert_contrast", "--batch_size=32"]
    options = parse("predict", predict, flags)
    expected = "aitom-ssl predict '--run=runs/a b' --data=d --output=o --invert_contrast --batch_size=32"
    assert predict.command("predict", options) == expected
    options = parse("evaluate", evaluate, ["--run=r", "--data=d", "--output=o", "--label_column=k"])
    assert predict.command("evaluate", options) == "aitom-ssl evaluate --run=r --data=d --output=o --label_column=k"


def test_a_mistake_is_answered_before_tensorflow_is_loaded(refused_early, tmp_path):
    refused_early("predict", [f"--run={tmp_path}", "--data=x", "--output=y"])


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(run, data, tmp_path, capsys, monkeypatch):
    from aitom_ssl.export.classifier import Classifier

    def pressed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "probabilities", pressed)
    flags = [f"--run={run}", f"--data={data}", f"--output={tmp_path}/out"]
    started = time.monotonic()
    assert main("predict", flags) == 130
    assert time.monotonic() - started < 30
    error = capsys.readouterr().err
    assert "0 of 30 particles are done" in error and f"Go on with: aitom-ssl predict {' '.join(flags)}" in error
