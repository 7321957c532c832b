"""The commands that use a trained COS-Net, as a user meets them."""

import sys
from pathlib import Path

import numpy as np
import pytest

from aitom_ssl.cli import main
from aitom_ssl.data import write_dataset
from aitom_ssl.mrc import write_mrc

sys.path.append(str(Path(__file__).parents[1] / "export"))
from small_cosnet import SIDE, VOXEL_SIZE, cosnet_run


def volume(seed, side=SIDE):
    found = 0.2 * np.random.default_rng(seed).normal(size=(side,) * 3)
    found[3:5, 3:5, 2:6] += 1 + seed % 2
    return found.astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return cosnet_run(tmp_path_factory.mktemp("runs") / "hand")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    masked = ({"volume": volume(k), "mask": (volume(k) > 0.5).astype(np.uint8), "label": k % 2} for k in range(6))
    return write_dataset(folder / "tiny", "tiny", ("a", "b"), VOXEL_SIZE, "bright", {"validation": masked})


@pytest.fixture(scope="module")
def support(tmp_path_factory):
    folder = tmp_path_factory.mktemp("support")
    write_mrc(folder / "a.mrc", volume(10), VOXEL_SIZE)
    write_mrc(folder / "b.mrc", volume(11), VOXEL_SIZE)
    return folder


def test_segmenting_says_what_it_did(run, data, tmp_path, capsys):
    arguments = [f"--run={run}", f"--data={data}", f"--output={tmp_path}/out", "--probabilities"]
    assert main("segment", arguments) == 0
    said = capsys.readouterr().out
    assert "6 subtomograms in" in said and "median volume" in said and "report" in said
    assert len(list((tmp_path / "out" / "masks").rglob("*.mrc"))) == 6
    assert len(list((tmp_path / "out" / "probabilities").rglob("*.mrc"))) == 6
    assert main("segment", arguments) == 0
    assert "finished already" in capsys.readouterr().out
    assert main("segment", [*arguments, "--crf"]) == 2
    assert "settings (crf" in capsys.readouterr().err


def test_classifying_says_what_it_did(run, support, data, tmp_path, capsys):
    arguments = [f"--run={run}", f"--support={support}", f"--data={data}", f"--output={tmp_path}/out", "--nocrf"]
    assert main("classify_oneshot", arguments) == 0
    said = capsys.readouterr().out
    assert "none" in said and "turned views" in said and "of 6 labelled" in said and "two classes" in said
    assert (tmp_path / "out" / "predictions.star").is_file()


def test_tuning_says_what_it_found(data, tmp_path, capsys):
    pytest.importorskip("pydensecrf")
    run = cosnet_run(tmp_path / "run", data=str(data))
    assert main("tune_crf", [f"--run={run}", "--samples=2"]) == 0
    said = capsys.readouterr().out
    assert "without the CRF" in said and "gaussian_weight" in said and (run / "crf.json").is_file()


@pytest.mark.parametrize(
    ("command", "flags", "said"),
    [
        ("segment", {"run": None}, "--run is missing"),
        ("segment", {"run": "nothing"}, "nothing holds no run"),
        ("segment", {"data": "nothing"}, "No dataset 'nothing'"),
        ("segment", {"data": "EMPTY"}, "no MRC file"),
        ("segment", {"data": "BAD"}, "cannot be read as an MRC volume"),
        ("segment", {"data": "WIDE"}, "box 12^3 (trained on 8^3)"),
        ("segment", {"output": "BAD"}, "is there and is not empty"),
        ("segment", {"batch_size": 0}, "--batch_size=0"),
        ("segment", {"support": "x"}, "support"),
        ("classify_oneshot", {"support": None}, "--support is missing"),
        ("classify_oneshot", {"support": "nothing"}, "no such folder"),
        ("classify_oneshot", {"support": "EMPTY"}, "no MRC file"),
        ("classify_oneshot", {"support": "TWICE"}, "'a' is twice"),
        ("classify_oneshot", {"support": "WIDE"}, "box 12^3 (trained on 8^3)"),
        ("classify_oneshot", {"support": "BAD"}, "cannot be read as an MRC volume"),
        ("classify_oneshot", {"threshold": 2}, "--threshold=2"),
        ("tune_crf", {"data": None, "support": None, "output": None, "run": None}, "--run is missing"),
        ("tune_crf", {"support": None, "output": None, "samples": 0}, "--samples=0"),
        ("tune_crf", {"support": None, "output": None, "split": "test"}, "has no split 'test'"),
    ],
)
def test_mistakes_are_one_line(run, support, data, tmp_path, capsys, command, flags, said):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "BAD").mkdir()
    (tmp_path / "BAD" / "a.mrc").write_text("nothing")
    write_mrc(tmp_path / "WIDE" / "a.mrc", volume(0, 12), VOXEL_SIZE)
    write_mrc(tmp_path / "TWICE" / "a.mrc", volume(0), VOXEL_SIZE)
    write_mrc(tmp_path / "TWICE" / "a" / "b.mrc", volume(1), VOXEL_SIZE)
    given = {"run": run, "data": data, "output": tmp_path / "out", **flags}
    if command == "classify_oneshot":
        given = {"support": support, **given}
    places = ("EMPTY", "BAD", "WIDE", "TWICE")
    given |= {key: tmp_path / value for key, value in given.items() if str(value) in places}
    assert main(command, [f"--{key}={value}" for key, value in given.items() if value is not None]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error and not (tmp_path / "out").exists()


def test_without_pydensecrf_it_is_said_at_once(run, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    arguments = [f"--run={run}", f"--data={data}", f"--output={tmp_path}/out"]
    assert main("segment", [*arguments, "--crf"]) == 2
    assert "pydensecrf2" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main("tune_crf", [f"--run={run}"]) == 2
    assert "pydensecrf2" in capsys.readouterr().err
    assert main("segment", arguments) == 0


@pytest.mark.parametrize("command", ["segment", "classify_oneshot"])
def test_a_mistake_is_answered_before_tensorflow_is_loaded(refused_early, run, data, tmp_path, command):
    wrong = "--support" if command == "classify_oneshot" else "--data"
    flags = [f"--run={run}", f"--data={data}", f"--output={tmp_path}/out", f"{wrong}={tmp_path}/nowhere"]
    assert f"{tmp_path}/nowhere" in refused_early(command, flags)
