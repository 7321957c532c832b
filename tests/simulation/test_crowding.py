"""Packing a volume: whole particles, no overlap, labels that are the density's, and clear refusals."""

import numpy as np
import pytest
from scipy import ndimage

from aitom_ssl import structures
from aitom_ssl.errors import InputError
from aitom_ssl.geometry import centre
from aitom_ssl.simulation import volume
from aitom_ssl.simulation.crowding import crowd, turned
from aitom_ssl.simulation.simulator import random_stream

VOXEL = 20.0
SHAPE = (30, 44, 52)
NAMES = ("hemoglobin", "groel", "apoferritin")


@pytest.fixture(scope="module")
def classes():
    return [volume.Template.of(structures.resolve(name), VOXEL, None) for name in NAMES]


def packed(classes, labels, shape=SHAPE, **options):
    density, instances = np.zeros(shape, np.float32), np.zeros(shape, np.uint16)
    found = crowd(
        classes, np.asarray(labels), density, instances, lambda i, j: random_stream(0, int(i), j, 0), **options
    )
    return found, density, instances


@pytest.fixture(scope="module")
def crowded(classes):
    return packed(classes, np.arange(60) % 3)


def rendered(classes, particles, index):
    """One particle alone, in its pose, in a volume of its own."""
    template, position = classes[particles.labels[index]], particles.positions[index]
    nearest = np.floor(position + 0.5).astype(int)
    cube = turned(template, particles.quaternions[index], position - nearest)
    alone = np.pad(np.zeros(SHAPE, np.float32), template.box)
    start = nearest[::-1] + template.box - centre(template.box)
    alone[tuple(slice(s, s + template.box) for s in start)] = cube
    return alone[(slice(template.box, -template.box),) * 3]


def test_density_and_labels_are_the_particles_in_their_poses(classes, crowded):
    particles, density, instances = crowded
    total = np.zeros(SHAPE)
    for index in range(len(particles)):
        alone = rendered(classes, particles, index)
        mask = alone > classes[particles.labels[index]].threshold
        np.testing.assert_array_equal(instances == index + 1, mask)
        assert particles.voxels[index] == mask.sum() > 5
        total += alone
    np.testing.assert_allclose(density, total, atol=1e-5)


def test_every_particle_is_whole(classes, crowded):
    particles, _, instances = crowded
    for index in (0, 1, 2):
        # As many voxels as in a box of its own, where nothing is cut off.
        shift = particles.positions[index] - np.floor(particles.positions[index] + 0.5)
        template = classes[particles.labels[index]]
        whole = turned(template, particles.quaternions[index], shift) > template.threshold
        assert whole.sum() == particles.voxels[index] == (instances == index + 1).sum()


def test_the_composition_is_kept_and_poses_differ(crowded):
    particles, _, _ = crowded
    np.testing.assert_array_equal(particles.labels, np.arange(60) % 3)
    assert len(np.unique(particles.positions, axis=0)) == 60
    np.testing.assert_allclose(np.linalg.norm(particles.quaternions, axis=1), 1)
    assert np.abs(particles.quaternions.mean(axis=0)).max() < 0.3


@pytest.mark.parametrize("gap", [1.0, 3.0])
def test_a_gap_is_kept(classes, gap):
    particles, _, instances = packed(classes, np.arange(12) % 3, gap=gap)
    for index in range(len(particles)):
        others = (instances > 0) & (instances != index + 1)
        distance = ndimage.distance_transform_edt(~others)[instances == index + 1]
        assert distance.min() > gap


def test_nothing_is_packed_into_a_shell():
    names = ("encapsulin", "hemoglobin")
    shell, small = (volume.Template.of(structures.resolve(name), VOXEL, None) for name in names)
    particles, _, instances = packed([shell, small], [0] + [1] * 60, shape=(20, 20, 20))
    outside, _ = ndimage.label(instances != 1)
    reached = outside == outside[0, 0, 0]
    assert (~reached).sum() > (instances == 1).sum() + 20  # there is a cavity, large enough for a small one
    assert not ((instances > 1) & ~reached).any() and len(particles) == 61


def test_any_number_of_threads_gives_the_same_bits(classes, crowded):
    again = packed(classes, np.arange(60) % 3, workers=3)
    np.testing.assert_array_equal(again[1], crowded[1])
    np.testing.assert_array_equal(again[2], crowded[2])
    np.testing.assert_array_equal(again[0].positions, crowded[0].positions)


def test_a_full_volume_is_refused_with_what_was_reached(classes):
    with pytest.raises(InputError, match=r"Only \d+ of 400 particles .* ask for a lower") as error:
        packed(classes, np.full(400, 1))
    assert "groel" in str(error.value) and "\n" not in str(error.value)


def test_a_structure_larger_than_the_volume_is_refused_before_any_work(classes):
    with pytest.raises(InputError, match=r"groel is \d+ voxels across and the volume 40x40x8"):
        packed(classes, [0], shape=(8, 40, 40))
