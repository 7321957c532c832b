"""Draws are a function of the seed, whatever its form."""

import keras
import numpy as np
import pytest
from keras import ops

from aitom_ssl.augmentation.seeding import named_key, normal, seed_key, uniform
from aitom_ssl.errors import InputError


def draw(seed, purpose="test", count=1000):
    return ops.convert_to_numpy(uniform(named_key(seed_key(seed), purpose), (count,)))


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


def test_distributions():
    key = seed_key(1)
    unit, gauss = (ops.convert_to_numpy(f(key, (20000,))) for f in (uniform, normal))
    assert unit.min() >= 0 and unit.max() < 1 and abs(unit.mean() - 0.5) < 0.01
    assert abs(gauss.mean()) < 0.03 and abs(gauss.std() - 1) < 0.03
    assert unit.dtype == gauss.dtype == np.float32


@pytest.mark.parametrize("bad", [-1, 2**31, None, True, 1.5, "7", np.zeros(3, np.int32), np.zeros(2, np.float32)])
def test_other_seeds_are_refused(bad):
    with pytest.raises(InputError, match=r"A seed is an integer.*Received: "):
        seed_key(bad)
