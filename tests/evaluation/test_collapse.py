import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.collapse import effective_rank, embedding_std


def test_equal_rows_have_no_spread_and_no_rank():
    rows = np.tile(np.random.default_rng(0).normal(size=16), (50, 1))
    assert embedding_std(rows) < 1e-12
    assert effective_rank(rows) == 0.0


def test_parallel_rows_of_different_length_have_no_spread():
    lengths = np.linspace(1, 9, 50)[:, None]
    assert embedding_std(lengths * np.ones(16)) < 1e-12


@pytest.mark.parametrize("dim", [8, 128])
def test_isotropic_gaussian_spreads_as_one_over_root_d(dim):
    rows = np.random.default_rng(1).normal(size=(20_000, dim))
    assert embedding_std(rows) == pytest.approx(1 / np.sqrt(dim), rel=0.01)
    assert effective_rank(rows) == pytest.approx(dim, rel=0.01)


def test_two_opposite_directions_spread_as_their_components():
    # Rows +v and -v, |v| = 1: the standard deviation of component i is |v_i|.
    v = np.array([0.6, 0.8, 0.0])
    assert embedding_std(np.stack([3 * v, -5 * v])) == pytest.approx((0.6 + 0.8) / 3)


@pytest.mark.parametrize("directions", [1, 2, 5])
def test_rank_counts_equal_orthogonal_directions(directions):
    axes = np.eye(directions, 12)
    assert effective_rank(np.concatenate([axes, -axes]) + 7.0) == pytest.approx(directions, abs=1e-9)


def test_rank_of_two_unequal_directions_is_the_exponential_of_their_entropy():
    rows = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    assert effective_rank(rows) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_a_common_mean_is_no_direction():
    rows = np.random.default_rng(2).normal(size=(500, 6))
    assert effective_rank(rows + 1000.0) == pytest.approx(effective_rank(rows), rel=1e-6)


@pytest.mark.parametrize("function", [embedding_std, effective_rank])
@pytest.mark.parametrize("shape", [(1, 4), (0, 4), (5,), (2, 2, 2)])
def test_wrong_shapes_are_named(function, shape):
    with pytest.raises(InputError, match=r"Received shape"):
        function(np.zeros(shape))
