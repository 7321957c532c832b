"""What a run is refused for, before anything is made and TensorFlow is loaded."""

import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.training import RunFolder
from aitom_ssl.training.request import checked_splits, identity


def settings(folder, **changes):
    return {"data": str(folder), "limit": None, "batch_size": 4, "epochs": 2, **changes}


def test_all_splits_come_back_and_nothing_is_made(tiny_data, tmp_path):
    splits = checked_splits(settings(tiny_data), str(tmp_path / "run"), False)
    assert identity(splits)["samples"] == {"train": 22, "validation": 10, "test": 10}
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_trained_is_refused(tiny_data, tmp_path):
    with pytest.raises(InputError, match="A batch of 23 needs more than the 22 samples"):
        checked_splits(settings(tiny_data, batch_size=23), None, False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file is a file"):
        checked_splits(settings(tiny_data), str(tmp_path / "file" / "run"), False)
    with pytest.raises(InputError, match="is not a dataset"):
        checked_splits(settings(tmp_path), None, False)


def test_a_run_goes_on_with_its_own_data_and_not_backwards(tiny_data, tmp_path):
    splits = checked_splits(settings(tiny_data), None, False)
    run = RunFolder.create(tmp_path / "run", "moco", "tiny")
    run.write_config({"settings": {}, "dataset": identity(splits)})
    assert list(checked_splits(settings(tiny_data), str(run.path), True)) == list(splits)
    with pytest.raises(InputError, match="The data have changed"):
        checked_splits(settings(tiny_data, limit=8), str(run.path), True)
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / "epoch-00003.npz").write_bytes(b"")
    with pytest.raises(InputError, match="has finished 3 epochs already"):
        checked_splits(settings(tiny_data), str(run.path), True)
