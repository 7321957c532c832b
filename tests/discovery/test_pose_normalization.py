"""Principal axes against closed forms and exact turns, and the baseline's partition."""

import numpy as np
import pytest

from aitom_ssl import geometry
from aitom_ssl.discovery.alignment import turned_back
from aitom_ssl.discovery.pose_normalization import (
    pose_normalized_features,
    pose_normalized_partition,
    principal_pose,
    two_means_level,
)
from aitom_ssl.errors import InputError

N = 25
# (x, y, z, height): long along one line, skewed along two, in no symmetric way.
BALLS = [(-6, 0, 0, 1.0), (0, 0, 0, 1.0), (5, 0, 0, 1.4), (3, 4, 0, 1.0), (3, -2, 0, 1.0), (1, 1, 2, 0.9)]


def particle(quaternion=(1, 0, 0, 0), shift=(0, 0, 0), balls=BALLS, n=N, width=1.6):
    offset = np.arange(n) - geometry.centre(n)
    z, y, x = np.meshgrid(offset, offset, offset, indexing="ij")
    turned = geometry.quaternion_to_matrix(np.array(quaternion, float))
    volume = np.zeros((n, n, n))
    for *place, height in balls:
        px, py, pz = turned @ np.array(place, float) + shift
        volume += height * np.exp(-((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) / (2 * width**2))
    return volume


def normalized(volume, pose):
    return turned_back(volume, pose.quaternion, pose.shift)


def same(first, second):
    return np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]


def test_an_ellipsoid_comes_out_along_x_y_z():
    offset = np.arange(33) - 16
    z, y, x = np.meshgrid(offset, offset, offset, indexing="ij")
    quaternion = geometry.random_quaternions(np.random.default_rng(0), 1)[0]
    matrix, centre = geometry.quaternion_to_matrix(quaternion), np.array([1.5, -2.0, 0.5])
    inside = np.einsum("ji,jzyx->izyx", matrix, np.stack([x, y, z]) - centre[:, None, None, None])
    radii = np.array([10.0, 6.0, 3.5])
    volume = (np.square(inside / radii[:, None, None, None]).sum(axis=0) < 1).astype(float)
    pose = principal_pose(volume, sigma=0.7)
    np.testing.assert_allclose(pose.shift, centre, atol=0.1)
    found = geometry.quaternion_to_matrix(pose.quaternion)
    np.testing.assert_allclose(np.abs(np.sum(found * matrix, axis=0)), 1, atol=2e-3)
    assert np.linalg.det(found) == pytest.approx(1) and not pose.displaced
    extent = [np.flatnonzero(normalized(volume, pose).max(axis=axes) > 0.3).size for axes in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(extent, 2 * radii, atol=1.5)


def test_the_level_is_halfway_between_both_means():
    values = np.concatenate([np.zeros(90), np.full(10, 5.0)])
    assert two_means_level(values - values.mean()) == pytest.approx(2.5 - 0.5)
    volume = particle()
    level = two_means_level(volume - volume.mean()) + volume.mean()
    assert level == pytest.approx((volume[volume > level].mean() + volume[volume <= level].mean()) / 2, rel=1e-6)


def test_all_turns_of_the_cube_give_the_same_volume():
    volume = particle()
    first = normalized(volume, principal_pose(volume))
    for matrix in geometry.cube_rotations():
        quaternion = geometry.matrix_to_quaternion(matrix)
        turned = particle(quaternion)
        pose = principal_pose(turned)
        assert same(normalized(turned, pose), first) > 0.99999
        found = geometry.quaternion_to_matrix(pose.quaternion)
        np.testing.assert_allclose(
            found, matrix @ geometry.quaternion_to_matrix(principal_pose(volume).quaternion), atol=1e-6
        )


def test_any_turn_and_shift_gives_nearly_the_same_volume_and_a_mirror_does_not():
    volume = particle()
    first = normalized(volume, principal_pose(volume))
    rng = np.random.default_rng(1)
    for quaternion in geometry.random_quaternions(rng, 8):
        moved = particle(quaternion, rng.uniform(-2, 2, 3))
        assert same(normalized(moved, principal_pose(moved)), first) > 0.98
    mirrored = volume[::-1]
    assert same(normalized(mirrored, principal_pose(mirrored)), first) < 0.98


def test_the_pose_is_where_the_normalised_particle_lies():
    volume = particle(geometry.random_quaternions(np.random.default_rng(2), 1)[0], (1, 2, -1))
    pose = principal_pose(volume)
    template = normalized(volume, pose)
    matrix = geometry.pose_to_affine(pose.quaternion, pose.shift)
    middle = geometry.centre(N)
    offset = middle + matrix[:, 3] - matrix[:, :3] @ np.full(3, middle)
    from scipy import ndimage

    back = ndimage.affine_transform(template, matrix[:, :3], offset, order=1)
    assert same(back, volume) > 0.97


def test_a_centre_far_off_is_not_used():
    pose = principal_pose(particle(shift=(9, 0, 0), balls=[(0, 0, 0, 1.0), (2, 0, 0, 1.0)]))
    assert pose.displaced and not pose.shift.any()
    assert not principal_pose(particle(shift=(9, 0, 0), balls=[(0, 0, 0, 1.0)]), displaced=0.5).displaced


def test_the_partition_separates_what_looks_different():
    rng = np.random.default_rng(3)
    other = [(-3, 0, 0, 1.0), (3, 0, 0, 1.0), (0, 3, 0, 1.0)]
    truth = np.arange(40) % 2
    volumes = [
        particle(quaternion, balls=(BALLS, other)[label]) + 0.02 * rng.standard_normal((N, N, N))
        for quaternion, label in zip(geometry.random_quaternions(rng, 40), truth, strict=True)
    ]
    found = pose_normalized_partition(volumes, 2)
    assert len(set(zip(found.labels.tolist(), truth.tolist(), strict=True))) == 2
    features, displaced = pose_normalized_features(volumes)
    assert features.shape == (40, len(features[0])) and features.dtype == np.float32 and not displaced.any()
    out = np.empty_like(features)
    assert pose_normalized_features(volumes, out=out)[0] is out and np.array_equal(out, features)


@pytest.mark.parametrize(
    ("volumes", "message"),
    [
        ([], "no volumes"),
        ([particle(), particle()[:20]], r"Volume 1 has shape \(20, 25, 25\)"),
        ([particle(), np.full((N, N, N), 3.0)], "Volume 1: A volume is constant"),
        ([np.where(particle() > 1, np.nan, 0)], "Volume 0: A volume has voxels that are NaN"),
        ([np.zeros(8)], "Volume 0"),
    ],
)
def test_mistakes_name_the_volume(volumes, message):
    with pytest.raises(InputError, match=message):
        pose_normalized_features(volumes)


def test_a_wrong_out_is_said():
    with pytest.raises(InputError, match=r"out has shape \(2, 2\)"):
        pose_normalized_features([particle()], out=np.empty((2, 2), np.float32))
