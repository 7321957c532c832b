"""tf.data gives the NumPy twin's batches, in its order, every time."""

import itertools

import keras
import numpy as np
import pytest

from aitom_ssl.data import pipeline
from aitom_ssl.data.batches import numpy_batches
from aitom_ssl.data.dataset import Dataset
from aitom_ssl.data.shards import write_dataset
from aitom_ssl.errors import InputError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    rng = np.random.default_rng(1)
    samples = ({"volume": rng.standard_normal((4, 4, 4)) + i, "label": i % 3} for i in range(26))
    folder = tmp_path_factory.mktemp("pipeline") / "d"
    return Dataset(write_dataset(folder, "toy", ["a", "b", "c"], 10.0, "bright", {"train": samples}, dtype="float16"))


@pytest.mark.parametrize("start_epoch", [0, 2])
def test_training_batches_equal_the_numpy_twin(dataset, start_epoch):
    ours = pipeline.training_batches(dataset, 4, seed=5, start_epoch=start_epoch).take(15).as_numpy_iterator()
    twin = itertools.islice(numpy_batches(dataset, 4, seed=5, start_epoch=start_epoch), 15)
    for a, b in zip(ours, twin, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    rng = np.random.default_rng(1)
    images = rng.standard_normal((26, 2, 4, 4, 4))
    samples = ({"volume": image[0], "half": image[1], "label": i % 3} for i, image in enumerate(images))
    folder = tmp_path_factory.mktemp("halved") / "d"
    options = {"dtype": "float16", "standardized": True}
    return Dataset(write_dataset(folder, "toy", ["a", "b", "c"], 10.0, "bright", {"train": samples}, **options))


@pytest.mark.parametrize("labels", [False, True])
def test_batches_of_halves_are_the_numpy_twins_and_what_keras_takes_for_x(halved, labels):
    ours = pipeline.training_batches(halved, 4, seed=5, start_epoch=1, labels=labels, halves=True)
    (first, second), *rest = ours.element_spec
    assert first.shape == second.shape == (4, 4, 4, 4, 1) and first.dtype == second.dtype == "float32"
    assert [spec.shape.as_list() for spec in rest] == ([[4]] if labels else [])
    twin = numpy_batches(halved, 4, seed=5, start_epoch=1, labels=labels, halves=True)
    for batch, expected in zip(ours.take(8), twin, strict=False):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        assert isinstance(x, tuple) and len(x) == 2 and weight is None and (y is not None) == labels
        for image, same in zip(x, expected[0], strict=True):
            np.testing.assert_array_equal(image, same)
        if labels:
            np.testing.assert_array_equal(y, expected[1])


def test_batches_of_halves_need_halves(dataset):
    with pytest.raises(InputError, match="toy has no half images"):
        pipeline.training_batches(dataset, 4, seed=0, halves=True)


def test_iterating_again_gives_the_same(dataset):
    batches = pipeline.training_batches(dataset, 8, seed=1).take(7)
    first, second = (np.stack(list(batches.as_numpy_iterator())) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_static_shapes_are_known(dataset):
    assert pipeline.training_batches(dataset, 4, seed=0).element_spec.shape == (4, 4, 4, 4, 1)
    assert pipeline.evaluation_batches(dataset, 4).element_spec.shape.as_list() == [None, 4, 4, 4, 1]


def test_evaluation_is_in_order_and_keeps_the_tail(dataset):
    volumes, labels = zip(*pipeline.evaluation_batches(dataset, 8, labels=True).as_numpy_iterator(), strict=True)
    assert [len(v) for v in volumes] == [8, 8, 8, 2]
    np.testing.assert_array_equal(np.concatenate(labels), dataset.labels)
    alone = np.concatenate(list(pipeline.evaluation_batches(dataset, 5).as_numpy_iterator()))
    np.testing.assert_array_equal(np.concatenate(volumes), alone)
    np.testing.assert_allclose(alone.std(axis=(1, 2, 3, 4)), 1, atol=1e-5)


def test_labels_travel_with_their_volumes(dataset):
    volumes, labels = next(iter(dataset.as_tf(26)))
    everything = {volume.tobytes(): label for volume, label in zip(volumes.numpy(), labels.numpy(), strict=True)}
    for volumes, labels in dataset.as_tf(4, shuffle=True, seed=3).take(6):
        for volume, label in zip(volumes.numpy(), labels.numpy(), strict=True):
            assert everything[volume.tobytes()] == label


def test_a_view_is_what_is_batched(dataset):
    view = dataset.subset([3, 1])
    found = next(iter(pipeline.evaluation_batches(view, 2, labels=True)))
    assert list(found[1].numpy()) == [0, 1]
