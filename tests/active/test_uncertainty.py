"""Entropy and margin: closed forms, and formulas written out."""

import math

import numpy as np
import pytest

from aitom_ssl.active.uncertainty import entropy, margin
from aitom_ssl.errors import InputError

RANDOM = np.random.default_rng(0).dirichlet([0.3] * 5, size=(4, 6))


def test_entropy_is_0_of_certainty_and_ln_c_of_none():
    np.testing.assert_allclose(entropy(np.eye(3)), 0)
    np.testing.assert_allclose(entropy(np.full((2, 7), 1 / 7, np.float32)), math.log(7), rtol=1e-6)
    # A coin beside impossible classes is a coin.
    assert entropy([0, 0.5, 0, 0.5]) == pytest.approx(math.log(2))


def test_entropy_as_written_out():
    slow = [[-sum(p * math.log(p) for p in row if p > 0) for row in block] for block in RANDOM]
    np.testing.assert_allclose(entropy(RANDOM), slow)


def test_margin_as_written_out():
    rows = RANDOM[0]
    slow = [1 - (sorted(row)[-1] - sorted(row)[-2]) for row in rows.tolist()]
    np.testing.assert_allclose(margin(rows), slow)
    np.testing.assert_allclose(margin([[1, 0, 0], [0.5, 0, 0.5], [0.2, 0.7, 0.1]]), [0, 1, 0.5])


def test_a_margin_needs_two_classes():
    with pytest.raises(InputError, match="only one"):
        margin(np.ones((3, 1)))
