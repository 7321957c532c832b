"""Draws are a function of the seed, whatever its form, and the generator is the published one."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.stats import kstest

from aitom_ssl.augmentation.seeding import normal, seed_key, threefry, uniform
from aitom_ssl.errors import InputError


def draw(seed, purpose="test", count=1000):
    return ops.convert_to_numpy(uniform(seed_key(seed), purpose, (count,)))


def test_an_integer_is_the_pair_with_step_zero():
    assert np.array_equal(draw(7), draw(ops.convert_to_tensor([7, 0], "int32")))
    assert np.array_equal(draw(7), draw(np.array([7, 0], np.int64)))


def test_same_tensor_same_numbers_other_step_or_stream_others():
    base = draw(ops.convert_to_tensor([3, 5], "int32"))
    assert np.array_equal(base, draw(ops.convert_to_tensor([3, 5], "int64")))
    for other in ([3, 6], [4, 5], [5, 3]):
        correlation = np.corrcoef(base, draw(ops.convert_to_tensor(other, "int32")))[0, 1]
        assert abs(correlation) < 0.12


def test_a_generator_moves_on_and_repeats_from_its_seed():
    generator, again = keras.random.SeedGenerator(11), keras.random.SeedGenerator(11)
    first, second = draw(generator), draw(generator)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, draw(again)) and np.array_equal(second, draw(again))


def test_purposes_are_independent():
    assert abs(np.corrcoef(draw(0, "noise"), draw(0, "crop"))[0, 1]) < 0.12


@pytest.mark.parametrize(
    "word, key, expected",
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers_of_threefry(word, key, expected):
    """The test vectors that its authors publish with Random123."""
    as_tensors = [tuple(ops.convert_to_tensor(w, "uint32") for w in pair) for pair in (key, word)]
    assert tuple(int(ops.convert_to_numpy(w)) for w in threefry(*as_tensors)) == expected


@pytest.mark.parametrize("shape", [(7,), (7, 3), (7, 2, 2)])
def test_a_sample_does_not_depend_on_the_size_of_its_batch(shape):
    few, many = (ops.convert_to_numpy(uniform(seed_key(1), "test", (n, *shape[1:]))) for n in (3, 7))
    assert many.shape == shape and np.array_equal(few, many[:3])
    assert len(np.unique(many)) == many.size


def test_distributions():
    key = seed_key(1)
    unit, gauss = (ops.convert_to_numpy(f(key, "test", (200, 101))) for f in (uniform, normal))
    assert unit.min() >= 0 and unit.max() < 1 and kstest(unit.ravel(), "uniform").pvalue > 1e-3
    assert np.isfinite(gauss).all() and kstest(gauss.ravel(), "norm").pvalue > 1e-3
    for values in (unit, gauss):  # neighbours in a row, in a column, and the halves of a row that share a counter
        for a, b in ((values[:, 1:], values[:, :-1]), (values[1:], values[:-1]), (values[:, :50], values[:, 51:])):
            assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.04
    assert unit.dtype == gauss.dtype == np.float32


@pytest.mark.parametrize("bad", [-1, 2**31, None, True, 1.5, "7", np.zeros(3, np.int32), np.zeros(2, np.float32)])
def test_other_seeds_are_refused(bad):
    with pytest.raises(InputError, match=r"A seed is an integer.*Received: "):
        seed_key(bad)
