import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.embedding import pca, tsne


def three_groups(count=40, dim=20):
    rng = np.random.default_rng(0)
    labels = np.arange(3 * count) % 3
    return 8 * np.eye(3, dim)[labels] + 100 + 0.3 * rng.normal(size=(3 * count, dim)), labels


def test_groups_far_apart_stay_together_in_tsne():
    features, labels = three_groups()
    points, chosen = tsne(features, seed=0)
    assert points.shape == (120, 2) and np.isfinite(points).all()
    np.testing.assert_array_equal(chosen, np.arange(120))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(120)
    np.testing.assert_array_equal(labels[distance.argmin(axis=1)], labels)


def test_tsne_is_a_function_of_its_seed_and_thins_out_large_sets():
    features, _ = three_groups()
    first, chosen = tsne(features, seed=1, limit=60)
    again, chosen_again = tsne(features, seed=1, limit=60)
    assert len(first) == len(chosen) == len(set(chosen)) == 60
    np.testing.assert_array_equal(chosen, chosen_again)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("features", [np.eye(4), np.ones((12, 5)), np.random.default_rng(0).normal(size=(5, 300))])
def test_few_or_equal_samples_still_give_finite_points(features):
    points, _ = tsne(features)
    assert points.shape == (len(features), 2) and np.isfinite(points).all()


def test_pca_finds_the_axes_and_their_shares():
    # Independent columns of variance 9, 4 and 1, rotated: the components are the columns back, up to sign.
    rng = np.random.default_rng(1)
    columns = rng.normal(size=(500, 3))
    columns -= columns.mean(axis=0)
    columns = np.linalg.qr(columns)[0] * [3.0, 2.0, 1.0]
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    points, share = pca(columns @ turn + 50, components=3)
    np.testing.assert_allclose(share, np.array([9, 4, 1]) / 14, atol=1e-12)
    np.testing.assert_allclose(np.abs(points), np.abs(columns), atol=1e-10)


def test_bad_features_are_named():
    with pytest.raises(InputError, match=r"Received \(3, 5\)"):
        tsne(np.zeros((3, 5)))
    with pytest.raises(InputError, match="diverged"):
        pca(np.full((9, 5), np.nan))
    with pytest.raises(InputError, match="Received 6"):
        pca(np.eye(9, 5), components=6)
