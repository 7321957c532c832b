"""Difference-of-Gaussians picking against closed forms and known positions."""

import numpy as np
import pytest

from aitom_ssl.discovery.picking import difference_of_gaussians, local_maxima, pick, suppress
from aitom_ssl.errors import InputError
from aitom_ssl.mrc import read_mrc


def gaussian(shape, position, deviation, height=1.0):
    """A blob at `position` (x, y, z) of a (z, y, x) volume."""
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    r2 = (x - position[0]) ** 2 + (y - position[1]) ** 2 + (z - position[2]) ** 2
    return height * np.exp(-r2 / (2 * deviation**2))


def at_centre(height, deviation, sigma, ratio):
    smoothed = [height * deviation**3 / (deviation**2 + s**2) ** 1.5 for s in (sigma, ratio * sigma)]
    return smoothed[0] - smoothed[1]


@pytest.mark.parametrize(("deviation", "sigma", "ratio"), [(2.0, 2.0, 1.1), (3.0, 3.5, 1.1), (2.5, 3.0, 1.6)])
def test_the_response_to_a_gaussian_has_its_closed_form(deviation, sigma, ratio):
    volume = gaussian((49, 49, 49), (24, 24, 24), deviation, 5.0)
    response = difference_of_gaussians(volume, sigma, ratio)
    assert response.dtype == np.float32
    assert response[24, 24, 24] == pytest.approx(at_centre(5.0, deviation, sigma, ratio), rel=1e-3)


def test_a_constant_answers_zero_and_integers_are_not_rounded():
    assert np.abs(difference_of_gaussians(np.full((20, 20, 20), 100, np.int8), 2.0)).max() < 1e-4
    volume = (gaussian((25, 25, 25), (12, 12, 12), 3.0) * 100).astype(np.int8)
    np.testing.assert_allclose(
        difference_of_gaussians(volume, 2.0), difference_of_gaussians(volume.astype(np.float64), 2.0), atol=1e-5
    )


def scene(positions, deviation=3.5, noise=0.2, shape=(40, 60, 80), seed=0):
    volume = noise * np.random.default_rng(seed).standard_normal(shape)
    for position in positions:
        volume += gaussian(shape, position, deviation)
    return volume.astype(np.float32)


POSITIONS = [(15, 14, 18), (60, 40, 20), (40, 20, 25), (20, 45, 15), (65, 15, 22)]


@pytest.mark.parametrize("dark", [False, True])
def test_particles_are_found_where_they_are_within_a_voxel(dark):
    volume = scene(POSITIONS) * (-1 if dark else 1)
    picks = pick(volume, 20.0, sigma=70.0, invert_contrast=dark, box_size=16, top=len(POSITIONS))
    assert picks.sigma == 3.5 and picks.min_distance == 7.0
    distances = np.linalg.norm(picks.positions[:, None] - np.array(POSITIONS)[None], axis=-1)
    assert np.all(distances.min(axis=0) <= 1) and sorted(distances.argmin(axis=0)) == list(range(len(POSITIONS)))
    assert np.all(np.diff(picks.scores) <= 0) and picks.opposite == 0


def test_the_wrong_contrast_finds_none_of_them():
    picks = pick(scene(POSITIONS), 20.0, invert_contrast=True, box_size=16, top=5)
    distances = np.linalg.norm(picks.positions[:, None] - np.array(POSITIONS)[None], axis=-1)
    assert distances.min() > 3.5
    assert picks.opposite >= len(POSITIONS)


def test_the_threshold_is_three_twentieths_up_from_the_least_to_the_greatest_maximum():
    volume = scene(POSITIONS)
    picks = pick(volume, 20.0, box_size=16)
    response = difference_of_gaussians(volume, 3.5) / volume.std(dtype=np.float64)
    _, values = local_maxima(response, (8, 7))
    assert picks.candidates == len(values)
    assert picks.threshold == pytest.approx(values.min() + 3 * (values.max() - values.min()) / 20, rel=1e-4)
    assert np.all(picks.scores > picks.threshold)
    distances = np.linalg.norm(picks.positions[:, None] - picks.positions[None], axis=-1)
    assert np.all(distances[~np.eye(len(distances), dtype=bool)] >= picks.min_distance)


def test_noise_yields_about_as_many_of_either_contrast_and_particles_do_not():
    noise = pick(scene([]), 20.0, box_size=16)
    assert 0.7 < noise.opposite / len(noise.positions) < 1.4
    assert pick(scene(POSITIONS, noise=0.05), 20.0, box_size=16, top=5).opposite == 0


def test_a_blob_is_picked_before_others_at_its_own_scale():
    # Blobs whose total mass is equal: the response peaks where the blob's width matches the filter's.
    shape = (60, 60, 120)
    small = gaussian(shape, (30, 30, 30), 2.0, 2.0**-2)
    large = gaussian(shape, (90, 30, 30), 6.0, 6.0**-2)
    order = {}
    for sigma in (40.0, 160.0):
        picks = pick((small + large).astype(np.float32), 20.0, sigma=sigma, top=1)
        order[sigma] = picks.positions[0].tolist()
    assert order == {40.0: [30, 30, 30], 160.0: [90, 30, 30]}


def test_nothing_is_picked_where_the_box_leaves_the_tomogram():
    volume = scene([(5, 30, 20), (40, 30, 20), (74, 30, 20)], noise=0.01)
    near = pick(volume, 20.0, box_size=0, top=3).positions[:, 0]
    assert sorted(near) == [5, 40, 74]
    for box in (15, 16):
        positions = pick(volume, 20.0, box_size=box).positions
        starts = positions - box // 2
        assert len(positions) and np.all(starts >= 0) and np.all(starts + box <= np.array([80, 60, 40]))
        assert np.abs(positions - [5, 30, 20]).max(axis=1).min() > 2


def test_suppression_keeps_the_best_of_each_crowd():
    positions = np.array([[0, 0, 0], [0, 0, 3], [0, 0, 6], [0, 0, 20]])
    scores = np.array([1.0, 3.0, 2.0, 0.5])
    assert suppress(positions, scores, 4.0).tolist() == [1, 3]
    assert suppress(positions, scores, 3.0).tolist() == [1, 2, 0, 3]
    # One that was removed removes no other.
    assert suppress(positions[:3], np.array([3.0, 2.0, 1.0]), 4.0).tolist() == [0, 2]


def test_a_small_particle_is_filtered_at_two_voxels_at_least():
    assert pick(scene(POSITIONS), 20.0, sigma=10.0, top=1).sigma == 2.0
    assert pick(scene(POSITIONS), 20.0, min_distance=200.0, top=1).min_distance == 10.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": 0.0}, "--sigma=0"),
        ({"voxel_size": np.nan}, "--voxel_size=nan"),
        ({"ratio": 1.0}, "--ratio=1"),
        ({"ratio": np.inf}, "--ratio=inf"),
        ({"sigma": 1e9}, r"--sigma=1e\+09 .* more than the 80 of"),
        ({"top": 0}, "--top=0"),
        ({"min_distance": -1.0}, "--min_distance=-1"),
        ({"box_size": 40}, "--box_size=40 does not fit in a tomogram of 80x60x40"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        pick(scene([]), **{"voxel_size": 20.0, **arguments})


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_tomogram_without_contrast_or_with_nan_is_refused(value):
    with pytest.raises(InputError, match="constant or has NaN"):
        pick(np.full((10, 10, 10), value, np.float32), 20.0)


def test_the_real_tomogram_has_dark_particles(shared_folder):
    tomogram, header = read_mrc(next((shared_folder / "real" / "tomogram").glob("*.mrc.gz")))
    picks = pick(tomogram, header.voxel_size, invert_contrast=True, box_size=32, top=300)
    assert len(picks.positions) == 300
    # Measured: 20 picks of the opposite contrast at the same threshold.
    assert picks.opposite < 45
    crops = [tomogram[z - 8 : z + 8, y - 8 : y + 8, x - 8 : x + 8] for x, y, z in picks.positions]
    average = np.mean(crops, axis=0, dtype=np.float64)
    assert average[7:10, 7:10, 7:10].mean() < -3 * average.std()


def test_a_lone_candidate_is_picked():
    volume = np.exp(-((np.indices((17, 17, 17)) - 8) ** 2).sum(axis=0) / 18.0)
    picks = pick(volume, 10.0, sigma=30.0, box_size=16)
    assert picks.candidates == 1
    np.testing.assert_array_equal(picks.positions, [[8, 8, 8]])
