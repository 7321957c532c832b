"""The order of the data is a function of (seed, epoch), and each volume comes standardised."""

import itertools

import numpy as np
import pytest

from aitom_ssl.data.batches import (
    TrainingOrder,
    epoch_order,
    epochs_with,
    gather,
    gather_halves,
    numpy_batches,
    standardize,
    steps_per_epoch,
    subsample,
)
from aitom_ssl.data.dataset import Dataset
from aitom_ssl.data.shards import write_dataset
from aitom_ssl.errors import InputError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    rng = np.random.default_rng(1)
    samples = ({"volume": 5 + (i + 1) * rng.standard_normal((4, 4, 4)), "label": i % 2} for i in range(11))
    folder = tmp_path_factory.mktemp("batches") / "d"
    return Dataset(write_dataset(folder, "toy", ["a", "b"], 10.0, "bright", {"train": samples}))


def test_an_epoch_is_a_permutation_of_its_own():
    orders = [epoch_order(50, seed, epoch) for seed, epoch in itertools.product((0, 1), (0, 1))]
    for order in orders:
        assert sorted(order) == list(range(50))
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(orders[3], epoch_order(50, 1, 1))


def test_a_subsample_is_sorted_and_keeps_small_sets_whole():
    np.testing.assert_array_equal(subsample(5, 10, seed=0), np.arange(5))
    drawn = subsample(1000, 10, seed=0)
    assert len(set(drawn)) == 10 and np.all(np.diff(drawn) > 0) and drawn.max() < 1000
    assert not np.array_equal(drawn, subsample(1000, 10, seed=1))


def test_an_epoch_of_batches_repeats_no_sample_and_follows_the_order(dataset):
    order = TrainingOrder(dataset, 3, seed=7)
    assert order.steps == steps_per_epoch(dataset, 3) == 3
    for epoch in range(3):
        rows = np.concatenate([order(epoch * 3 + step) for step in range(3)])
        np.testing.assert_array_equal(rows, epoch_order(11, 7, epoch)[:9])


def test_starting_at_an_epoch_continues_the_run(dataset):
    straight = list(itertools.islice(numpy_batches(dataset, 4, seed=3), 6))
    resumed = list(itertools.islice(numpy_batches(dataset, 4, seed=3, start_epoch=2), 2))
    np.testing.assert_array_equal(np.stack(straight[4:]), np.stack(resumed))


def test_volumes_are_standardised_one_by_one(dataset):
    batch = next(numpy_batches(dataset, 8, seed=0))
    assert batch.shape == (8, 4, 4, 4, 1) and batch.dtype == np.float32
    np.testing.assert_allclose(batch.mean(axis=(1, 2, 3, 4)), 0, atol=1e-6)
    np.testing.assert_allclose(batch.std(axis=(1, 2, 3, 4)), 1, atol=1e-5)


def test_a_constant_volume_becomes_zeros():
    for value in (0.0, 3.25, 0.1, -1e-20, 1e6 + 0.1):
        np.testing.assert_array_equal(standardize(np.full((1, 5, 5, 5), value, np.float32)), 0)


def spoil(folder, sample):
    """Makes a voxel of a written float32 dataset NaN, as bit rot may."""
    path = folder / "train/volumes-00000.npy"
    volumes = np.load(path)
    volumes[sample, 1, 2, 3] = np.nan
    np.save(path, volumes)


def test_voxels_that_are_not_finite_are_named_and_never_made_zeros(tmp_path):
    assert np.isnan(standardize(np.full((1, 2, 2, 2), np.nan, np.float32))).all()
    samples = [{"volume": np.random.default_rng(i).random((4, 4, 4), np.float32)} for i in range(6)]
    folder = write_dataset(tmp_path / "d", "toy", [], 10.0, "bright", {"train": samples}, dtype="float32")
    spoil(folder, 4)
    assert np.isfinite(gather(Dataset(folder), np.arange(4))).all()
    with pytest.raises(InputError, match=r"Sample 4 of .*train, has voxels that are NaN or infinite"):
        gather(Dataset(folder), np.arange(6))


def test_volumes_that_were_standardised_are_left_alone(dataset, tmp_path):
    samples = [{"volume": dataset[i]["volume"]} for i in range(3)]
    folder = write_dataset(tmp_path / "d", "toy", [], 10.0, "bright", {"train": samples}, standardized=True)
    same = Dataset(folder)
    np.testing.assert_array_equal(gather(same, np.arange(3))[..., 0], dataset.volumes(range(3)))


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((11, 4, 4, 4))
    samples = (
        {"volume": 5 + 3 * rng.standard_normal((4, 4, 4)), "half": 7 + noise[i], "label": i % 2} for i in range(11)
    )
    folder = tmp_path_factory.mktemp("halves") / "d"
    return Dataset(write_dataset(folder, "halved", ["a", "b"], 10.0, "bright", {"train": samples}, standardized=True))


def test_each_half_is_standardised_by_itself(halved):
    inputs = gather_halves(halved, np.array([3, 1]))
    for image, raw in zip(inputs, halved.halves([3, 1]), strict=True):
        assert image.shape == (2, 4, 4, 4, 1) and image.dtype == np.float32
        for one, other in zip(image[..., 0], raw, strict=True):
            np.testing.assert_allclose(one, (other - other.mean()) / other.std(), atol=1e-5)
    np.testing.assert_array_equal(halved.halves([3])[1], halved.halves([3, 1])[1][:1])


def test_batches_of_halves_are_x_pairs_in_the_order_of_the_volumes(halved):
    order = TrainingOrder(halved, 4, seed=3)
    pairs = itertools.islice(numpy_batches(halved, 4, seed=3, start_epoch=1, halves=True), 3)
    labelled = itertools.islice(numpy_batches(halved, 4, seed=3, start_epoch=1, labels=True, halves=True), 3)
    for number, ((x,), (again, labels)) in enumerate(zip(pairs, labelled, strict=True), start=order.steps):
        rows = order(number)
        for image, same, expected in zip(x, again, gather_halves(halved, rows), strict=True):
            np.testing.assert_array_equal(image, expected)
            np.testing.assert_array_equal(same, expected)
        np.testing.assert_array_equal(labels, halved.labels[rows])


def test_epochs_that_make_enough_steps(dataset):
    assert [epochs_with(dataset, 3, 4, steps) for steps in (0, 12, 13, 30)] == [4, 4, 5, 10]


def test_batches_of_halves_need_halves(dataset):
    with pytest.raises(InputError, match="toy has no half images"):
        next(numpy_batches(dataset, 2, seed=0, halves=True))


def test_impossible_batches(dataset):
    with pytest.raises(InputError, match=r"batch of 12 needs more than the 11 samples of toy"):
        steps_per_epoch(dataset, 12)
    with pytest.raises(InputError, match="batch_size is 0"):
        next(numpy_batches(dataset, 0, seed=0))
