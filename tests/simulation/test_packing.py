"""Packing: spheres touch and never overlap; turned copies are exact."""

import numpy as np
import pytest

from aitom_ssl import geometry
from aitom_ssl.simulation import packing


def unit(rng, *shape):
    v = rng.standard_normal((*shape, 3))
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def test_contact_with_one_sphere_is_the_sum_of_the_radii():
    distance = packing.contact_distance(np.zeros(3), np.array([0, 0, 1.0]), np.zeros((1, 3)), np.array([7.5]))
    assert distance == pytest.approx(7.5)


def test_contact_touches_the_farthest_sphere_on_the_way():
    rng = np.random.default_rng(0)
    for _ in range(200):
        centres, reach = rng.uniform(-20, 20, (4, 3)), rng.uniform(3, 12, 4)
        direction = unit(rng)
        at = packing.contact_distance(np.zeros(3), direction, centres, reach) * direction
        gaps = np.linalg.norm(centres - at, axis=1) - reach
        assert gaps.min() > -1e-9
        assert gaps.min() < 1e-9 or not at.any()


@pytest.mark.parametrize("gap", [0.0, 2.5])
def test_every_pair_keeps_its_gap_and_touches_something(gap):
    rng = np.random.default_rng(1)
    for _ in range(100):
        radii, target = rng.uniform(4, 12, 5), rng.uniform(-4, 4, 3)
        centres = np.vstack([target, packing.pack(target, radii, unit(rng, 4), gap)])
        np.testing.assert_array_equal(centres[1:], np.round(centres[1:]))
        for j in range(1, 5):
            gaps = np.linalg.norm(centres[:j] - centres[j], axis=1) - radii[:j] - radii[j]
            assert gaps.min() >= gap - 1e-9
            # Whole voxels and steps of half a voxel leave at most this much air.
            assert gaps.min() <= gap + 2.5


def test_cube_views_are_the_cube_rotations():
    rng = np.random.default_rng(2)
    cube = rng.standard_normal((5, 5, 5))
    offsets = np.argwhere(np.ones((5, 5, 5))) - 2
    seen = set()
    for view, matrix in enumerate(geometry.cube_rotations()):
        turned = packing.turn(cube, view)
        # out(r) = in(R^T r), the pose convention, on (z, y, x) offsets.
        source = (offsets @ geometry.reverse_axes(matrix)).round().astype(int) + 2
        np.testing.assert_array_equal(turned.ravel(), cube[tuple(source.T)])
        seen.add(turned.tobytes())
    assert len(seen) == 24


@pytest.mark.parametrize("centre", [(0, 0, 0), (2, -3, 1), (-5, 0, 4), (5, 5, 5), (7, 0, 0)])
def test_paste_clips_at_the_borders(centre):
    cube = np.arange(27, dtype=np.float32).reshape(3, 3, 3) + 1
    box = np.ones((8, 8, 8), dtype=np.float32)
    packing.paste(box, cube, np.array(centre, dtype=float))
    large = np.zeros((40, 40, 40), dtype=np.float32)
    z, y, x = (20 + c for c in centre[::-1])
    large[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = cube
    np.testing.assert_array_equal(box, large[16:24, 16:24, 16:24] + 1)
