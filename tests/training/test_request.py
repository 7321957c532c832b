"""What a run is refused for, before anything is made and TensorFlow is loaded."""

import numpy as np
import pytest

from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.training import RunFolder
from aitom_ssl.training.request import (
    asked_labels,
    checked_splits,
    hold_out,
    identity,
    labelled_splits,
    take_labels,
)


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


# === Labels ===


@pytest.fixture
def with_labels(tmp_path):
    """Builds the splits of a dataset whose labels are given; a volume holds its number."""

    def build(names=("a", "b"), **labels):
        splits = {
            split: [{"volume": np.full((4, 4, 4), n, np.float32), "label": label} for n, label in enumerate(given)]
            for split, given in labels.items()
        }
        write_dataset(tmp_path / "data", "toy", list(names), 10.0, "bright", splits, standardized=True)
        return {split: Dataset(tmp_path / "data", split) for split in labels}

    return build


def numbers(dataset):
    return [int(volume.mean()) for volume in dataset.volumes(np.arange(len(dataset)))]


def test_labelled_splits_are_taken_as_they_are(with_labels):
    splits = with_labels(train=[0, 1] * 3, validation=[0, 1], test=[1, 0, 1])
    found = labelled_splits(splits, seed=0, batch_size=4)
    assert (len(found.train), len(found.validation), len(found.measured)) == (6, 2, 3)
    assert (found.measured_on, found.notes) == ("test", ())


def test_samples_without_a_label_are_left_out_and_counted(with_labels):
    splits = with_labels(train=[0, -1, 1, 1, -1], validation=[0, 1], test=[-1, 1])
    found = labelled_splits(splits, seed=0, batch_size=2)
    assert numbers(found.train) == [0, 2, 3] and numbers(found.measured) == [1]
    assert found.notes == (
        "2 of 5 train samples have no label: left out.", "1 of 2 test samples have no label: left out."
    )


def test_a_fifth_of_each_class_is_held_out_where_validation_has_no_labels(with_labels):
    labels = [0] * 10 + [1] * 5 + [-1]
    splits = with_labels(train=labels, validation=[-1, -1])
    found = labelled_splits(splits, seed=3, batch_size=2)
    assert sorted(np.array(labels)[numbers(found.validation)]) == [0, 0, 1]
    assert sorted(numbers(found.validation) + numbers(found.train)) == list(range(15))
    assert numbers(labelled_splits(splits, 3, 2).validation) == numbers(found.validation)
    assert found.measured is found.validation and found.measured_on == "validation"
    assert "3 training samples, a fifth a class, are held out" in found.notes[2]
    assert "no labelled test split" in found.notes[3]


def test_held_out_indices():
    labels = np.repeat([0, 1, 2], [10, 3, 1])
    held = hold_out(labels, 0.2, seed=1)
    np.testing.assert_array_equal(np.bincount(labels[held], minlength=3), [2, 1, 0])
    assert not np.array_equal(held, hold_out(labels, 0.2, seed=2))
    np.testing.assert_array_equal(np.bincount(labels[hold_out(labels, 1.0, 0)], minlength=3), [9, 2, 0])


def test_what_no_classifier_can_learn_from_is_refused(with_labels):
    with pytest.raises(InputError, match="No training sample of toy has a label"):
        labelled_splits(with_labels(train=[-1, -1], validation=[0, 1]), 0, 2)
    with pytest.raises(InputError, match="All labelled training samples of toy are b"):
        labelled_splits(with_labels(train=[1, 1, 1], validation=[0, 1]), 0, 2)
    with pytest.raises(InputError, match="2 labelled training samples: too few to hold any out"):
        labelled_splits(with_labels(train=[0, 1]), 0, 2)
    with pytest.raises(InputError, match="A batch of 4 needs more than the 3 samples"):
        labelled_splits(with_labels(train=[0, 1, 1, -1], validation=[0, 1]), 0, 4)


def test_a_class_without_training_samples_is_named(with_labels):
    splits = with_labels(names=("a", "b", "c"), train=[0, 2, 0], validation=[1], test=[1])
    assert labelled_splits(splits, 0, 2).notes == ("no training sample of b: never predicted rightly.",)


# === Few labels ===


@pytest.fixture
def labelled(with_labels):
    """Ten of a, four of b, and six unlabelled; validation four and two."""
    labels = [0] * 10 + [1] * 4 + [-1] * 6
    return labelled_splits(with_labels(train=labels, validation=[0] * 4 + [1] * 2, test=[0, 1]), 0, 2)


def per_class(dataset):
    return np.bincount(dataset.labels).tolist()


@pytest.mark.parametrize(
    ("fraction", "each", "alike", "train", "validation"),
    [
        (0.5, None, False, [5, 2], [4, 2]),
        (0.5, None, True, [5, 2], [2, 1]),
        (0.25, None, True, [3, 1], [1, 1]),
        (1.0, None, True, [10, 4], [4, 2]),
        (None, 3, True, [3, 3], [3, 2]),
        (None, 3, False, [3, 3], [4, 2]),
    ],
)
def test_few_labels_of_each_class(labelled, fraction, each, alike, train, validation):
    found = take_labels(labelled, fraction, each, alike, seed=1)
    assert (per_class(found.train), per_class(found.validation)) == (train, validation)
    assert found.measured is labelled.measured and len(found.pool) == 20
    assert f"{sum(train)} of 14 training labels are used." in found.notes


def test_which_labels_depends_on_the_seed_alone_and_fewer_are_part_of_more(labelled):
    half, again, other = (numbers(take_labels(labelled, 0.5, None, False, seed).train) for seed in (1, 1, 2))
    assert half == again != other
    assert set(numbers(take_labels(labelled, 0.25, None, False, 1).train)) < set(half)


def test_labels_that_are_not_there_are_refused_with_the_numbers(labelled):
    with pytest.raises(InputError, match="--labels_per_class=5, and b has 4 labelled training samples"):
        take_labels(labelled, None, 5, False, 0)
    with pytest.raises(InputError, match=r"--fraction=0.1 of the 4 labels of b is not one: .* must be 0.12 or more"):
        take_labels(labelled, 0.1, None, False, 0)


def test_labels_are_asked_for_by_settings(with_labels):
    splits = with_labels(train=[0, 1] * 8, validation=[0, 1] * 2, test=[0, 1])
    settings = {"seed": 0, "batch_size": 4}
    assert len(asked_labels(splits, settings).train) == 16
    few = {**settings, "fraction": 0.5, "labels_per_class": None, "validation_labels": "alike"}
    found = asked_labels(splits, few)
    assert (len(found.train), len(found.validation)) == (8, 2)
    with pytest.raises(InputError, match="A batch of 4 needs more than the 2 samples"):
        asked_labels(splits, {**few, "fraction": 0.125})
