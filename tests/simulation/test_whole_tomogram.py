"""A tomogram: its SNR, the missing wedge, and that it shows what the simulator of single subtomograms shows."""

import dataclasses
import math

import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.geometry import centre
from aitom_ssl.simulation import Scene, SimulationSpec, Simulator, optics, volume
from aitom_ssl.simulation.tomogram import TomogramImaging, TomogramSpec, drawn_labels, pack, simulated, templates

CLASSES = ("hemoglobin", "groel", "apoferritin")
SHAPE = (52, 44, 32)


def spec(shape=SHAPE, particles=24, occupancy=None, **parameters):
    parameters = {"classes": CLASSES, "voxel_size": 20.0, "snr": math.inf, "size": 16, "defocus_um": 8.0, **parameters}
    return TomogramSpec(SimulationSpec(**parameters), shape, particles, occupancy)


@pytest.fixture(scope="module")
def clean():
    return simulated(spec())


def wedge_share(tomogram, tilt_max, margin):
    """Power inside the missing wedge, `margin` degrees from its border, over all power; borders tapered."""
    window = np.ones(1)
    for side in tomogram.shape:
        window = window[..., None] * np.hanning(side + 2)[1:-1]
    power = np.square(np.abs(np.fft.fftn((tomogram - tomogram.mean()) * window[0])))
    kz, _, kx = np.meshgrid(*(np.fft.fftfreq(n) for n in tomogram.shape), indexing="ij")
    missing = ~optics.wedge(kz, kx, tilt_max + margin) & (np.abs(kz) > 4 / tomogram.shape[0])
    return power[missing].sum() / power.sum()


@pytest.mark.parametrize("tilt_max", [40.0, 60.0])
def test_nothing_in_the_missing_wedge(tilt_max):
    tomogram, density, *_ = simulated(spec(tilt_max=tilt_max))
    assert wedge_share(tomogram, tilt_max, 10) < 2e-5
    assert wedge_share(density, tilt_max, 10) > 0.05


def test_the_tomogram_shows_what_the_simulator_of_subtomograms_shows():
    """One particle in its place, beside the one-shot simulation of the same pose: other physics, the same image."""
    one = spec(shape=(64, 60, 56), particles=1, classes=("groel",), seed=2)
    tomogram, _, _, particles, _ = simulated(one)
    nearest = np.floor(particles.positions[0] + 0.5).astype(int)
    simulator = Simulator(dataclasses.replace(one.simulation, n_sim=32))
    scene = Scene(0, 0, 0, particles.quaternions[0], particles.positions[0] - nearest, 8.0, ())
    expected = simulator.signal(scene)
    start = nearest[::-1] - centre(16)
    found = tomogram[tuple(slice(s, s + 16) for s in start)]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.995
    assert np.vdot(found, expected) / np.vdot(expected, expected) == pytest.approx(1, abs=0.03)


def test_contrast_is_bright_unless_asked_otherwise(clean):
    tomogram, _, instances, *_ = clean
    assert tomogram[instances > 0].mean() > tomogram[instances == 0].mean()
    dark, density, *_ = simulated(spec(contrast="dark"))
    np.testing.assert_allclose(dark, -tomogram, atol=1e-6)
    assert density.max() > 0.5


@pytest.mark.parametrize("snr", [0.5, 10.0])
def test_the_snr_is_of_the_tomogram(clean, snr):
    noisy, *_, measured = simulated(spec(snr=snr))
    noise = noisy - clean[0]
    assert clean[0].var() / noise.var() == pytest.approx(snr, rel=0.05)
    assert measured.signal_variance == pytest.approx(clean[0].var(), rel=1e-3)
    assert measured.noise_variance == pytest.approx(noise.var(), rel=0.05)
    # Everywhere the same: no sixteenth of the volume has more or less of it.
    blocks = noise[:32, :40, :48].reshape(2, 16, 2, 20, 4, 12).var(axis=(1, 3, 5))
    assert blocks.std() / blocks.mean() < 0.12


def test_the_snr_is_of_the_projections(clean):
    one = spec(snr=0.25, snr_mode="projection")
    camera = TomogramImaging(one)
    measured = camera.expose(clean[1])
    projections = clean[1].sum(axis=0)
    assert measured.projection_variance == pytest.approx(projections.var(), rel=0.5)
    assert measured.image_noise_variance == pytest.approx(4 * measured.projection_variance)
    assert measured.signal_variance is None
    noise = np.stack(list(camera.slices())) - clean[0]
    assert measured.noise_variance == pytest.approx(noise.var(), rel=0.05)


def test_half_of_the_noise_may_arise_after_the_ctf(clean):
    noisy, *_, measured = simulated(spec(snr=1.0, noise_split=0.5, mtf="none"))
    quiet = simulated(spec(mtf="none"))[0]
    assert (noisy - quiet).var() == pytest.approx(measured.noise_variance, rel=0.05)


def test_the_untilted_image_is_the_projection_through_the_ctf(clean):
    camera = TomogramImaging(spec())
    camera.expose(clean[1])
    images = list(camera.images())
    assert len(images) == 41
    projection = clean[1].sum(axis=0, dtype=np.float64)
    padded = np.pad(projection, 32)
    f = np.hypot(np.fft.fftfreq(padded.shape[0])[:, None], np.fft.rfftfreq(padded.shape[1]))
    transfer = optics.ctf(f / 20, 0.025, defocus_um=8.0) * optics.sinc_mtf(f, 0.5) * (f < 0.5)
    expected = np.fft.irfft2(np.fft.rfft2(padded) * transfer, s=padded.shape)[32:-32, 32:-32]
    np.testing.assert_allclose(images[20], expected, atol=0.02 * np.abs(expected).max())


def test_any_number_of_threads_gives_the_same_bits():
    first, second = simulated(spec(snr=0.5), 1), simulated(spec(snr=0.5), 3)
    for a, b in zip(first[:3], second[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    assert first[4] == second[4]


def test_seeds_are_different_worlds_and_snrs_are_not(clean):
    np.testing.assert_array_equal(simulated(spec(snr=0.5))[2], clean[2])
    assert (simulated(spec(seed=1))[2] != clean[2]).any()


def test_occupancy_and_composition():
    one = spec(particles=None, occupancy=0.05)
    density, instances = np.zeros(SHAPE[::-1], np.float32), np.zeros(SHAPE[::-1], np.uint16)
    particles = pack(one, density, instances)
    assert (instances > 0).mean() == pytest.approx(0.05, rel=0.15)
    assert np.ptp(np.bincount(particles.labels)) <= 1
    assert particles.voxels.sum() == (instances > 0).sum()


def test_classes_come_in_random_order():
    labels = drawn_labels(spec(particles=30), np.ones(3))
    np.testing.assert_array_equal(np.bincount(labels), [10, 10, 10])
    assert (labels != np.arange(30) % 3).any() and (labels != np.sort(labels)).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (52, 44)}, "three sides"),
        ({"shape": (52, 44, 8)}, "shape is 8: expected sides of 16"),
        ({"shape": (52, 44, 9000)}, "4096"),
        ({"shape": (52, 44, 30.5)}, "30.5"),
        ({"particles": 0}, "particles is 0: expected 1 to 65,535"),
        ({"particles": 70000}, "70000"),
        ({"particles": None}, "give one of the two"),
        ({"occupancy": 0.1}, "give one of the two"),
        ({"particles": None, "occupancy": 1.0}, "above 0 and below 1"),
        ({"particles": None, "occupancy": math.nan}, "above 0 and below 1"),
        ({"snr_mode": "aitom_box"}, "one of crop, projection for a tomogram"),
        ({"empty_class": True}, "empty_class"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        spec(**changes)


def test_an_occupancy_of_less_than_one_particle_is_refused():
    one = spec(particles=None, occupancy=1e-6)
    with pytest.raises(InputError, match="is 0 particles of"):
        drawn_labels(one, np.array([template.mask_voxels for template in templates(one)]))


def test_the_templates_are_the_classes():
    found = templates(spec())
    assert [template.name for template in found] == list(CLASSES)
    assert all(isinstance(template, volume.Template) and template.mask_voxels > 5 for template in found)
