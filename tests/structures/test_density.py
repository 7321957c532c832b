"""The shared measures of maps: box, splatting, levels, radius."""

import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.structures import density as d
from aitom_ssl.structures.density import Density


@pytest.mark.parametrize("diameter", [1.0, 79.9, 80.0, 80.1, 133.0])
@pytest.mark.parametrize("voxel_size", [1.0, 7.84, 10.0])
def test_box_is_the_smallest_even_side_that_leaves_four_voxels(diameter, voxel_size):
    side = d.box_side(diameter, voxel_size, "it")
    assert side % 2 == 0
    assert side - 2 < diameter / voxel_size + 4 <= side


def test_absurd_voxel_size_names_the_structure():
    with pytest.raises(InputError, match=r"ribosome is 250 A across.*larger voxel size"):
        d.box_side(250.0, 0.01, "ribosome")


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_sampling_is_validated(bad):
    with pytest.raises(InputError, match="voxel_size"):
        d.check_sampling(bad, None)
    if bad != 0.0:
        with pytest.raises(InputError, match="resolution"):
            d.check_sampling(10.0, bad)


def test_resolution_defaults_to_two_voxels():
    assert d.check_sampling(7.5, None) == (7.5, 15.0)


def test_splat_on_grid_points_is_exact_and_in_zyx_order():
    grid = d.splat(np.array([[10.0, 20.0, -30.0]]), np.array([3.0]), 12, 10.0)
    assert grid[6 - 3, 6 + 2, 6 + 1] == 3.0
    assert np.count_nonzero(grid) == 1


def test_splat_keeps_weight_and_first_moment():
    rng = np.random.default_rng(0)
    points, weights = rng.uniform(-30, 30, (50, 3)), rng.uniform(1, 9, 50)
    grid = d.splat(points, weights, 12, 10.0)
    assert grid.sum() == pytest.approx(weights.sum(), rel=1e-12)
    axis = d.offsets(12, 10.0)
    moment = [np.tensordot(grid.sum(axis=tuple({0, 1, 2} - {a})), axis, 1) for a in (2, 1, 0)]
    np.testing.assert_allclose(moment, weights @ points, atol=1e-9)


def test_level_encloses_the_volume_asked_for():
    volume = np.random.default_rng(1).random((10, 10, 10))
    level = d.level_enclosing(volume, 2.0, 8.0 * 137)
    assert (volume >= level).sum() == 137
    assert d.level_enclosing(volume, 2.0, 0.0) == volume.max()


def test_radius_is_the_farthest_voxel_of_the_mask():
    volume = np.zeros((10, 10, 10))
    volume[5, 5, 5], volume[5, 8, 9], volume[0, 0, 0] = 4.0, 2.0, 0.1
    measured = d.finish(volume, 3.0)
    assert isinstance(measured, Density)
    assert measured.radius == pytest.approx(3.0 * 5.0)
    assert (measured.volume.max(), measured.threshold, measured.mass) == (1.0, 0.15, 0.0)
    assert measured.volume.dtype == np.float32
