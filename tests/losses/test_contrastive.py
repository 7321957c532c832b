"""InfoNCE against a NumPy transcription and closed forms."""

import math

import numpy as np
import pytest
from keras import ops

from aitom_ssl.errors import InputError
from aitom_ssl.losses import info_nce
from aitom_ssl.losses.contrastive import l2_normalize


def unit(rng, *shape):
    rows = rng.standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def transcription(queries, keys, queue, temperature):
    """He 2020, eq. 1, one query at a time in float64."""
    losses = []
    for query, key in zip(queries, keys, strict=True):
        positive = math.exp(query @ key / temperature)
        negatives = sum(math.exp(query @ row / temperature) for row in queue)
        losses.append(-math.log(positive / (positive + negatives)))
    return np.mean(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_equals_the_transcription(temperature):
    rng = np.random.default_rng(0)
    queries, keys, queue = unit(rng, 5, 8), unit(rng, 5, 8), unit(rng, 11, 8)
    ours = float(info_nce(queries, keys, queue, temperature))
    assert ours == pytest.approx(transcription(queries, keys, queue, temperature), rel=1e-5)


def test_rows_that_are_not_valid_take_no_part():
    rng = np.random.default_rng(1)
    queries, keys, queue = unit(rng, 4, 6), unit(rng, 4, 6), unit(rng, 9, 6)
    valid = np.arange(9) < 3
    ours = float(info_nce(queries, keys, queue, 0.2, valid))
    assert ours == pytest.approx(transcription(queries, keys, queue[:3], 0.2), rel=1e-5)
    assert float(info_nce(queries, keys, queue, 0.2, np.zeros(9, bool))) == 0.0


@pytest.mark.parametrize("size", [1, 128])
def test_identical_embeddings_give_the_logarithm_of_one_plus_the_queue(size):
    same = np.zeros((1, 4))
    same[0, 2] = 1
    loss = info_nce(np.repeat(same, 3, 0), np.repeat(same, 3, 0), np.repeat(same, size, 0), 0.2)
    assert float(loss) == pytest.approx(math.log(1 + size), rel=1e-6)


def test_random_embeddings_start_near_the_logarithm_of_one_plus_the_queue():
    rng = np.random.default_rng(2)
    loss = info_nce(unit(rng, 256, 128), unit(rng, 256, 128), unit(rng, 128, 128), 1.0)
    assert float(loss) == pytest.approx(math.log(129), abs=0.02)


def test_orthogonal_negatives_and_a_perfect_positive():
    basis = np.eye(6)
    loss = info_nce(basis[:1], basis[:1], basis[1:], 0.2)
    assert float(loss) == pytest.approx(math.log(1 + 5 * math.exp(-5)), rel=1e-5)


def test_half_precision_inputs_are_computed_in_float32():
    rng = np.random.default_rng(3)
    queries, keys, queue = (ops.cast(unit(rng, n, 8), "bfloat16") for n in (3, 3, 20))
    loss = info_nce(queries, keys, queue, 0.01)
    assert ops.dtype(loss) == "float32"
    exact = transcription(*(np.asarray(ops.cast(t, "float64")) for t in (queries, keys, queue)), 0.01)
    assert float(loss) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_refuses_a_temperature_that_is_not_positive(temperature):
    rows = np.eye(2)
    with pytest.raises(InputError, match="temperature"):
        info_nce(rows, rows, rows, temperature)


def test_l2_normalize_gives_unit_rows_and_keeps_zero():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [1e-8, 0.0]])
    np.testing.assert_allclose(l2_normalize(rows), [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-5)
