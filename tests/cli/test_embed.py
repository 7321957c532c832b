"""The command embed, as a user meets it."""


import numpy as np
import pytest

from aitom_ssl.cli import embed, main
from aitom_ssl.data import write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.mrc import write_mrc


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    import keras
    from keras import layers

    from aitom_ssl.models import ModelDescription
    from aitom_ssl.training import RunFolder

    keras.utils.set_random_seed(0)
    volumes = keras.Input((6, 6, 6, 1), name="subtomogram")
    x = layers.Flatten()(layers.Conv3D(4, 3, strides=2, activation="relu")(volumes))
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "tiny", "tiny", "tiny")
    description = ModelDescription("tiny", (), 6, 10.0, "bright")
    folder.write_config({"method": "moco", "settings": {"data": "tiny"}, "model": description.to_dict()})
    folder.save_model(keras.Model(volumes, x))
    return folder.path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(0)
    samples = ({"volume": rng.normal(size=(6, 6, 6)).astype(np.float32), "label": i % 2} for i in range(30))
    folder = tmp_path_factory.mktemp("data") / "tiny"
    return write_dataset(folder, "tiny", ("a b", "c"), 10.0, "bright", {"test": samples})


def test_an_embedding_and_what_is_said_of_it(run, data, tmp_path, capsys):
    flags = [f"--run={run}", f"--data={data}", f"--output={tmp_path}/out", "--seeds=2", "--csv"]
    assert main("embed", flags) == 0
    said = capsys.readouterr().out
    for part in ("2 clusters: adjusted Rand index", "labels a class  label spreading", "30 subtomograms, 32 features"):
        assert part in said
    assert "note: not measured with 20 labels a class: a b has 15 samples." in said
    assert (tmp_path / "out" / "features.csv").is_file()
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"aitom-ssl embed {' '.join(flags)}" in page


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"run": None}, "--run is missing"),
        ({"data": None}, "--data is missing"),
        ({"output": None}, "--output is missing"),
        ({"run": "nothing"}, "No run or SavedModel nothing"),
        ({"data": "nothing"}, "No dataset 'nothing'"),
        ({"data": "EMPTY"}, "no MRC file"),
        ({"data": "WIDE"}, "box 8^3 (trained on 6^3)"),
        ({"batch_size": 0}, "--batch_size=0"),
        ({"clusters": 1}, "--clusters=1: expected 2 or more"),
        ({"clusters": 31}, "--clusters=31 and 30 particles"),
        ({"seeds": 0}, "--seeds=0: expected 1 or more"),
        ({"labels_per_class": "5,ten"}, "--labels_per_class=5,ten: expected whole numbers"),
        ({"labels_per_class": "5,15"}, "a b has 15 labelled samples: 15 labels a class"),
        ({"split": "validation"}, "has no split 'validation'"),
        ({"label_column": "rlnClassNumber"}, "--label_column=rlnClassNumber does not go with"),
        ({"output": "WIDE"}, "is there and is not empty"),
    ],
)
def test_mistakes_are_one_line(run, data, tmp_path, capsys, flags, said):
    (tmp_path / "EMPTY").mkdir()
    write_mrc(tmp_path / "WIDE" / "a.mrc", np.random.default_rng(0).normal(size=(8, 8, 8)), 10.0)
    given = {"run": run, "data": data, "output": tmp_path / "out", **flags}
    given |= {key: tmp_path / value for key, value in given.items() if str(value) in ("EMPTY", "WIDE")}
    assert main("embed", [f"--{key}={value}" for key, value in given.items() if value is not None]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error and not (tmp_path / "out").exists()


def test_labels_without_labels_are_refused(run, tmp_path, capsys):
    for i in range(3):
        write_mrc(tmp_path / "mrc" / f"{i}.mrc", np.random.default_rng(i).normal(size=(6, 6, 6)), 10.0)
    flags = [f"--run={run}", f"--data={tmp_path}/mrc", f"--output={tmp_path}/out", "--labels_per_class=1"]
    assert main("embed", flags) == 2
    assert "None of the 3 samples has a label" in capsys.readouterr().err


def test_numbers_of_labels():
    assert embed.counts("20, 5,10,5") == [5, 10, 20]
    for text in ("0", "-1", "5,", "1.5", "²"):
        with pytest.raises(InputError, match="expected whole numbers of 1 or more"):
            embed.counts(text)


@pytest.mark.parametrize("flag", ["--clusters=1", "--labels_per_class=x", "--seeds=0", "--split=none", "--run=gone"])
def test_a_mistake_is_answered_before_tensorflow_is_loaded(refused_early, tmp_path, flag):
    refused_early("embed", [f"--run={tmp_path}", "--data=x", "--output=y", flag])


def test_ctrl_c_leaves_nothing(run, data, tmp_path, capsys, monkeypatch):
    from aitom_ssl.export import embedding

    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(embedding, "answers", pressed)
    assert main("embed", [f"--run={run}", f"--data={data}", f"--output={tmp_path}/out"]) == 130
    assert f"Nothing is written to {tmp_path}/out." in capsys.readouterr().err and not list(tmp_path.iterdir())
