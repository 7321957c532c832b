"""The command explain, as a user meets it."""


import numpy as np
import pytest

from aitom_ssl.cli import explain, main, predict
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
    x = layers.Conv3D(4, 3, padding="same", activation="relu", name="conv")(volumes)
    model = keras.Model(volumes, layers.Dense(2, activation="softmax", name="classifier")(layers.Flatten()(x)))
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "tiny", "tiny", "tiny")
    description = ModelDescription("tiny", NAMES, 6, 10.0, "bright")
    folder.write_config({"method": "tiny", "settings": {"data": "tiny"}, "model": description.to_dict()})
    folder.save_model(model)
    return folder.path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(0)
    samples = ({"volume": rng.normal(size=(6, 6, 6)).astype(np.float32), "label": i % 2} for i in range(10))
    return write_dataset(tmp_path_factory.mktemp("data") / "tiny", "tiny", NAMES, 10.0, "bright", {"test": samples})


def test_maps_and_what_is_said_of_them(run, data, tmp_path, capsys):
    flags = [f"--run={run}", f"--data={data}", f"--output={tmp_path}/out", "--indices=0, 5", f"--compare={run}"]
    assert main("explain", flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["sample", "run", "label", "predicted", "probability", "target", "central_share"]
    assert [line.split()[0] for line in lines[1:5]] == ["0", "0", "5", "5"]
    assert lines[-1] == f"{tmp_path}/out/explain.png, maps.csv and 4 maps as MRC files"
    assert len(list((tmp_path / "out").glob("*_map.mrc"))) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"run": None}, "--run is missing"),
        ({"data": None}, "--data is missing"),
        ({"output": None}, "--output is missing"),
        ({"run": "nothing"}, "No run or SavedModel nothing"),
        ({"compare": "nothing"}, "No run or SavedModel nothing"),
        ({"data": "nothing"}, "No dataset 'nothing'"),
        ({"data": "WIDE"}, "box 8^3 (trained on 6^3)"),
        ({"data": "WIDE", "split": "test"}, "--split=test does not go with"),
        ({"split": "validation"}, "has no split 'validation'"),
        ({"count": 0}, "--count=0: expected 1 or more"),
        ({"seed": -1}, "--seed=-1: expected 0 or more"),
        ({"indices": "1,two"}, "--indices=1,two: 'two' is no number of a sample"),
        ({"indices": "1,,2"}, "'' is no number"),
        ({"indices": "-1"}, "'-1' is no number"),
        ({"indices": "10"}, "There is no sample 10: the data have 10"),
        ({"method": "cam"}, "grad_cam|respond_cam"),
        ({"layer": "convolution"}, "has no 'convolution'; layers that have: conv"),
        ({"target": "ab"}, "target='ab' is neither predicted nor label nor a class"),
        ({"batch_size": 0}, "--batch_size=0"),
        ({"output": "WIDE"}, "is there and is not empty"),
    ],
)
def test_mistakes_are_one_line(run, data, tmp_path, capsys, flags, said):
    write_mrc(tmp_path / "WIDE" / "a.mrc", np.random.default_rng(0).normal(size=(8, 8, 8)), 10.0)
    given = {"run": run, "data": data, "output": tmp_path / "out", **flags}
    given |= {key: tmp_path / value for key, value in given.items() if str(value) == "WIDE"}
    assert main("explain", [f"--{key}={value}" for key, value in given.items() if value is not None]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error and not (tmp_path / "out").exists()


def test_the_command_that_is_kept_is_the_one_that_was_given():
    flags = ["--run=r", "--data=d", "--output=o", "--compare=c", "--indices=0,5", "--method=respond_cam"]
    options = parse("explain", explain, flags)
    assert sorted(predict.command("explain", options).split()[2:]) == sorted(flags)


def test_a_mistake_is_answered_before_tensorflow_is_loaded(refused_early, run, data, tmp_path):
    refused_early("explain", [f"--run={run}", f"--data={data}", f"--output={tmp_path}/out", "--target=nothing"])
