"""The template against its closed form, its score against a slow search, and which particles it tells apart."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from aitom_ssl import geometry
from aitom_ssl.discovery.template_matching import RESOLUTION, ctf_template, template_scores
from aitom_ssl.errors import InputError
from aitom_ssl.simulation import optics
from aitom_ssl.structures import resolve
from aitom_ssl.structures.density import Density, finish

VOXEL = 15.0


def blob(sigma, n=24, voxel_size=VOXEL):
    offset = (np.arange(n) - geometry.centre(n)) * voxel_size
    r2 = offset[:, None, None] ** 2 + offset[:, None] ** 2 + offset**2
    return finish(np.exp(-r2 / (2 * sigma**2)), voxel_size)


def test_the_template_has_the_transfer_function_of_the_optics():
    density = blob(30.0)
    template = ctf_template(density, 48, defocus_um=3.0, amplitude_contrast=0.1)
    assert template.shape == (48, 48, 48) and template.dtype == np.float32
    q = np.fft.rfftfreq(48, VOXEL)
    # Along a line through the centre, what stands beyond the box is small.
    seen = np.fft.rfftn(np.fft.ifftshift(template))[0, 0]
    offset = (np.arange(24) - 12) * VOXEL
    line = np.exp(-np.square(offset) / (2 * 30.0**2))
    gaussian = line.sum() ** 2 * np.array([(line * np.cos(2 * np.pi * k * offset)).sum() for k in q])
    expected = gaussian * optics.ctf(q, 0.5 / VOXEL, defocus_um=3.0, amplitude_contrast=0.1)
    np.testing.assert_allclose(seen.real, expected, atol=0.02 * np.abs(expected).max())
    assert np.abs(seen.imag).max() < 0.02 * np.abs(expected).max()


def test_protein_stays_bright_in_the_middle_of_any_box():
    for box in (24, 25, 30):
        template = ctf_template(blob(30.0), box)
        assert np.unravel_index(template.argmax(), template.shape) == (box // 2,) * 3
        assert template[box // 2, box // 2, box // 2] > 0


def test_a_structure_larger_than_the_box_is_said():
    with pytest.raises(InputError, match=r"more than a box of 10 voxels of 15 A: give a larger --box_size"):
        ctf_template(Density(np.ones((24,) * 3, np.float32), VOXEL, 100.0, 0.1, 0.0), 10)


BOX = 20


@pytest.fixture(scope="module")
def templates():
    return {
        name: ctf_template(resolve(name).density(VOXEL, RESOLUTION), BOX) for name in ("proteasome_20s", "ribosome_70s")
    }


def turned(volume, quaternion, shift):
    matrix = geometry.pose_to_affine(quaternion, shift)
    middle = np.array([geometry.centre(side) for side in volume.shape])
    return ndimage.affine_transform(
        volume, matrix[:, :3], middle + matrix[:, 3] - matrix[:, :3] @ middle, order=1, mode="constant"
    )


def scene(templates, names, noise=0.0, seed=0):
    """A tomogram with a row of particles and their positions (x, y, z)."""
    rng = np.random.default_rng(seed)
    tomogram = np.zeros((BOX + 8, BOX + 8, (BOX + 6) * len(names) + 8), np.float32)
    positions = []
    for i, name in enumerate(names):
        position = np.array([(BOX + 6) * i + BOX // 2 + 6, BOX // 2 + 4, BOX // 2 + 4])
        x, y, z = position - BOX // 2
        pose = geometry.random_quaternions(rng, 1)[0], rng.uniform(-1, 1, 3)
        tomogram[z : z + BOX, y : y + BOX, x : x + BOX] += turned(templates[name], *pose)
        positions.append(position)
    scale = noise * templates["ribosome_70s"].std()
    return tomogram + scale * rng.standard_normal(tomogram.shape).astype(np.float32), np.array(positions)


def slow_score(box, template, step=20.0, smoothing=10.0):
    """The best correlation over a coarse grid of Euler angles and all whole shifts, by FFT; no missing wedge."""
    box = ndimage.gaussian_filter(box, smoothing / VOXEL)
    box = (box - box.mean()) / np.linalg.norm(box - box.mean())
    spectrum, best = np.fft.fftn(box), -1.0
    for theta in np.arange(0, 181, step):
        for phi, psi in itertools.product(np.arange(0, 360, step), np.arange(0, 360, step)):
            other = turned(template, geometry.euler_zyz_to_quaternion([phi, theta, psi]), np.zeros(3))
            other = (other - other.mean()) / np.linalg.norm(other - other.mean())
            best = max(best, np.fft.ifftn(spectrum * np.fft.fftn(other).conj()).real.max())
    return best


def test_the_score_is_as_good_as_that_of_a_slow_search(templates):
    tomogram, positions = scene(templates, ["ribosome_70s"], noise=1.0)
    found = template_scores(tomogram, positions, templates["ribosome_70s"], VOXEL, tilt_max=None)
    x, y, z = positions[0] - BOX // 2
    slow = slow_score(tomogram[z : z + BOX, y : y + BOX, x : x + BOX], templates["ribosome_70s"], step=30.0)
    # A finer search, between whole angles and voxels, finds as much or more; their sums differ in the box's corners.
    assert slow - 0.03 < found.score[0] <= 1 and found.score.shape == (1,) and found.quaternion.shape == (1, 4)


def test_each_template_prefers_its_own_particles_to_others_and_to_noise(templates):
    names = ["proteasome_20s", "ribosome_70s", "proteasome_20s", "ribosome_70s"]
    tomogram, positions = scene(templates, names, noise=0.5)
    empty = np.random.default_rng(9).standard_normal((BOX, BOX, BOX)).astype(np.float32)
    for name, template in templates.items():
        found = template_scores(tomogram, positions, template, VOXEL)
        own = np.array(names) == name
        assert found.score[own].min() > found.score[~own].max() + 0.05
        nothing = template_scores(empty, np.full((1, 3), BOX // 2), template, VOXEL)
        assert found.score[own].min() > nothing.score[0] + 0.1
        dark = template_scores(-tomogram, positions, template, VOXEL, invert_contrast=True)
        np.testing.assert_allclose(dark.score, found.score, atol=1e-5)


def test_a_pick_does_not_depend_on_the_others_and_reads_the_box_about_it(templates):
    tomogram, positions = scene(templates, ["proteasome_20s", "ribosome_70s", "ribosome_70s"], noise=0.5)
    together = template_scores(tomogram, positions, templates["ribosome_70s"], VOXEL)
    for i, position in enumerate(positions):
        alone = template_scores(tomogram, position[None], templates["ribosome_70s"], VOXEL)
        assert alone.score[0] == pytest.approx(together.score[i], abs=1e-6)
        np.testing.assert_allclose(alone.shift[0], together.shift[i], atol=1e-4)
    # A pick two voxels beside the particle finds it two voxels away.
    beside = template_scores(tomogram, positions[1:2] + [2, 0, 0], templates["ribosome_70s"], VOXEL)
    assert together.shift[1, 0] - beside.shift[0, 0] == pytest.approx(2, abs=0.5)
    assert beside.score[0] == pytest.approx(together.score[1], abs=0.08)


def test_what_lies_beyond_the_reach_of_a_small_structure_does_not_count():
    size, position = 28, np.full((1, 3), 14)
    density = resolve("hemoglobin").density(VOXEL, RESOLUTION)
    template, radius = ctf_template(density, size), density.radius / VOXEL
    noise = np.random.default_rng(0).standard_normal(template.shape).astype(np.float32)
    tomogram = template + template.max() / 8 * noise
    reach = {"max_shift": 2.0, "radius": radius}
    found = template_scores(tomogram, position, template, VOXEL, **reach)
    assert found.score[0] > template_scores(tomogram, position, template, VOXEL, max_shift=2.0).score[0] + 0.1
    assert np.linalg.norm(found.shift[0]) < 1
    beside = tomogram.copy()
    beside[:4, :4, :4] += 5 * template.max()
    other = template_scores(beside, position, template, VOXEL, **reach)
    assert other.score[0] == pytest.approx(found.score[0], abs=1e-5)
    # A particle farther away than that is another pick's.
    moved = template_scores(np.roll(tomogram, 6, axis=2), position, template, VOXEL, **reach)
    assert np.linalg.norm(moved.shift[0]) <= 2 + 1e-6 and moved.score[0] < found.score[0] - 0.2


def test_mistakes_name_the_pick(templates):
    tomogram, positions = scene(templates, ["ribosome_70s"], noise=0.5)
    template = templates["ribosome_70s"]
    with pytest.raises(InputError, match=r"about pick 1 at \(3, 14, 14\) leaves the tomogram"):
        template_scores(tomogram, np.array([positions[0], [3, 14, 14]]), template, VOXEL)
    with pytest.raises(InputError, match=r"Received shape \(0, 3\)"):
        template_scores(tomogram, np.empty((0, 3), int), template, VOXEL)
    damaged = tomogram.copy()
    damaged[14, 14, 14] = np.nan
    with pytest.raises(InputError, match="box about pick 0 is constant or has NaN"):
        template_scores(damaged, positions, template, VOXEL)
    with pytest.raises(InputError, match="box about pick 0 is constant or has NaN"):
        template_scores(np.zeros_like(tomogram), positions, template, VOXEL)
