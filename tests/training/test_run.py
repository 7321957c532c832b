"""The run folder: names, refusals, checkpoints whole or not at all."""

import json
import os

import keras
import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.training import Checkpoint, RunFolder
from aitom_ssl.training import run as run_module


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(run):
    run.write_config({"settings": {"epochs": 3}})
    return run


def test_default_names_count_up_and_newest_finds_the_last(here):
    for expected in ("moco-tiny", "moco-tiny-2", "moco-tiny-3"):
        assert started(RunFolder.create(None, "moco", "some/where/tiny.yaml")).path.name == expected
    os.utime(here / "runs/moco-tiny-2/config.yaml", (2e9, 2e9))
    assert RunFolder.newest("moco").path.name == "moco-tiny-2"
    assert RunFolder.newest("moco", data="tiny").path.name == "moco-tiny-2"
    with pytest.raises(InputError, match="no run runs/swav-"):
        RunFolder.newest("swav")
    started(RunFolder.create(None, "rb3d", "tiny"))
    os.utime(here / "runs/rb3d-tiny/config.yaml", (3e9, 3e9))
    assert RunFolder.newest("moco", "rb3d").path.name == "rb3d-tiny"


def test_never_overwrites(here):
    started(RunFolder.create("mine", "moco", "tiny"))
    with pytest.raises(InputError, match=r"mine already holds a run: .*--resume"):
        RunFolder.create("mine", "moco", "tiny")
    (here / "other").mkdir()
    (here / "other/thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="not empty"):
        RunFolder.create("other", "moco", "tiny")
    with pytest.raises(InputError, match="holds no run"):
        RunFolder.open("other")


@pytest.mark.parametrize("text", ["settings: [", "settings: 3", "a list"])
def test_config_that_is_none(here, text):
    (here / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml"):
        RunFolder.open(here).read_config()


def test_config_round_trip(here):
    config = {"settings": {"learning_rate": 1e-4, "limit": None, "data": "Å"}, "versions": {"keras": "3"}}
    run = RunFolder(here)
    run.write_config(config)
    assert run.read_config() == config


def test_metrics_csv_has_all_columns(here):
    RunFolder(here).write_metrics([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "knn": 0.125}])
    assert (here / "metrics.csv").read_text().splitlines() == ["epoch,loss,knn", "1,0.5,", "2,0.25,0.125"]


def test_results_are_json(here):
    path = RunFolder(here).write_results({"accuracy": 0.5, "classes": {"Å": 1}})
    assert path.name == "results.json"
    assert json.loads(path.read_text(encoding="utf-8")) == {"accuracy": 0.5, "classes": {"Å": 1}}


def variables(scale):
    values = [np.full((2, 3), 0.1 * scale, np.float32), np.array(7 * scale, np.int32), np.zeros((0,), np.float32)]
    return [keras.Variable(value, dtype=str(value.dtype)) for value in values]


def test_checkpoint_round_trip_keeps_bits_and_the_two_newest(here):
    run = RunFolder(here)
    assert run.restore_checkpoint(variables(1)) is None
    assert run.finished_epochs() == 0
    for epoch in (1, 2, 10):
        saved = Checkpoint(epoch, [{"epoch": epoch, "loss": 1 / 3}], 12.5)
        run.save_checkpoint(saved, variables(epoch))
    assert [p.name for p in sorted((here / "checkpoints").iterdir())] == ["epoch-00002.npz", "epoch-00010.npz"]
    fresh = variables(0)
    assert run.restore_checkpoint(fresh) == saved
    assert run.finished_epochs() == 10
    for a, b in zip(fresh, variables(10), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_refuses_a_damaged_or_foreign_checkpoint(here):
    run = RunFolder(here)
    run.save_checkpoint(Checkpoint(1, [], 0.0), variables(1))
    with pytest.raises(InputError, match="another model"):
        run.restore_checkpoint(variables(1)[:2])
    path = here / "checkpoints/epoch-00001.npz"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"epoch-00001\.npz is damaged"):
            run.restore_checkpoint(variables(1))
    for about in ([1], {"epoch": 1}):
        np.savez(path, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **{"00000": np.zeros(2)})
        with pytest.raises(InputError, match=r"epoch-00001\.npz is damaged"):
            run.restore_checkpoint(variables(1))


def test_a_failed_write_leaves_the_checkpoint_before(here, monkeypatch):
    run = RunFolder(here)
    run.save_checkpoint(Checkpoint(1, [], 0.0), variables(1))

    def full(file, **arrays):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module.np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        run.save_checkpoint(Checkpoint(2, [], 0.0), variables(2))
    assert [p.name for p in (here / "checkpoints").iterdir()] == ["epoch-00001.npz"]


def test_a_stray_file_is_no_checkpoint(here):
    run = RunFolder(here)
    run.save_checkpoint(Checkpoint(3, [], 0.0), variables(1))
    (here / "checkpoints" / "epoch-best.npz").write_text("mine")
    assert run.finished_epochs() == 3


def test_a_new_run_is_not_made_in_a_file(here):
    (here / "file").write_text("x")
    for output in (here / "file", here / "file" / "run"):
        with pytest.raises(InputError, match="file"):
            RunFolder.create(output, "moco", "tiny")
