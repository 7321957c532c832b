"""How many clusters, and in what geometry."""

import numpy as np
import pytest

from aitom_ssl.discovery.subdivision import EACH, Features, number_of_clusters, subdivide
from aitom_ssl.errors import InputError


def features(values, by_direction=False):
    return Features(np.asarray(values, np.float32), np.arange(len(values)), [], "some", (), by_direction, [])


@pytest.mark.parametrize(("count", "clusters"), [(11_500, 100), (100 * EACH, 100), (10 * EACH + 3, 10), (3, 1)])
def test_a_hundred_clusters_or_as_many_as_particles_allow(count, clusters):
    assert number_of_clusters(count) == clusters
    assert number_of_clusters(count, 2) == 2


def test_more_clusters_than_particles_are_refused():
    with pytest.raises(InputError, match="--clusters=5 and 4 particles"):
        number_of_clusters(4, 5)


def test_linear_activations_are_clustered_as_they_are_and_others_by_direction():
    # Along each of two directions from the middle, points near it and far from it.
    rng = np.random.default_rng(0)
    ways = np.array([[1.0, 0], [-0.5, 0.87], [-0.5, -0.87]])
    values = np.concatenate([way * length for way in ways for length in (2 * np.ones((20, 1)), 40 * np.ones((20, 1)))])
    values += 0.05 * rng.standard_normal(values.shape)
    near, which = np.tile(np.repeat([True, False], 20), 3), np.repeat([0, 1, 2], 40)
    by_direction = subdivide(features(values, True), 3).labels
    assert all(len(set(by_direction[which == way])) == 1 for way in range(3))
    as_they_are = subdivide(features(values), 4).labels
    assert len(set(as_they_are[near])) == 1 and len(set(as_they_are)) == 4
