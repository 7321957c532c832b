"""The analytic models: symmetry, handedness, exactness, and that the near-twins differ."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aitom_ssl.errors import InputError
from aitom_ssl.geometry import frequencies
from aitom_ssl.structures import builtin
from aitom_ssl.structures.builtin import NAMES, get, symmetry_rotations
from aitom_ssl.structures.density import VOLUME_PER_DALTON, Density, Structure, offsets

TWINS = [
    ("proteasome_20s", "proteasome_20s_8fold"),
    ("proteasome_20s", "proteasome_pa28"),
    ("glutamine_synthetase", "glutamine_synthetase_7fold"),
    ("rubisco", "rubisco_l8"),
    ("igm_hexamer", "igm_pentamer"),
    ("clpb_ring", "clpb_spiral"),
    ("p97", "p97_n_down"),
    ("spike_closed", "spike_one_up"),
    ("microtubule_13", "microtubule_14"),
    ("hsp90_closed", "hsp90_open"),
]
# Overlap with the mirror image, both blurred to 20 A, above which handedness could not be told.
NEARLY_ACHIRAL = 0.99


def overlap(a, b):
    """Exact normalised inner product of two sums of Gaussians."""

    def inner(s, t):
        variance = s.sigmas[:, None] ** 2 + t.sigmas[None] ** 2
        squared = ((s.positions[:, None] - t.positions[None]) ** 2).sum(-1)
        weight = s.weights[:, None] * t.weights[None]
        return (weight * (2 * np.pi * variance) ** -1.5 * np.exp(-squared / (2 * variance))).sum()

    return inner(a, b) / np.sqrt(inner(a, a) * inner(b, b))


def improper_operations(model):
    """Every reflection or rotoreflection that could map the model to itself, given its axis."""
    mirror = np.diag([1.0, 1.0, -1.0])
    if model.symmetry in "TOI":
        return [-np.eye(3), np.diag([1.0, 1.0, -1.0]), mirror @ Rotation.from_euler("z", 90, degrees=True).as_matrix()]
    if model.symmetry in ("C1", "D2"):  # a mirror plane or rotoreflection axis is then a principal axis
        centred = model.positions * np.sqrt(model.weights)[:, None]
        axes = np.linalg.eigh(centred.T @ centred)[1].T
        quarter = [Rotation.from_rotvec(np.pi / 2 * a).as_matrix() for a in axes]
        mirrors = [np.eye(3) - 2 * np.outer(a, a) for a in axes]
        return [-np.eye(3), *mirrors, *[q @ m for q, m in zip(quarter, mirrors, strict=True)]]
    period = 360.0 / int(model.symmetry[1:])
    about_z = [Rotation.from_euler("z", a, degrees=True).as_matrix() for a in np.arange(0, period, period / 24)]
    return [mirror @ r for r in about_z] + [np.diag([1.0, -1.0, 1.0]) @ r for r in about_z]


def test_there_are_enough_of_them_and_all_groups():
    assert len(NAMES) >= 50
    groups = {get(name).symmetry for name in NAMES}
    assert {"C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "D2", "D3", "D4", "D5", "D6", "D7", "D8"} <= groups
    assert {"T", "O", "I"} <= groups


@pytest.mark.parametrize("name", NAMES)
def test_density_is_invariant_under_the_stated_group(name):
    model = get(name)
    points = np.random.default_rng(0).uniform(-80, 80, (20, 3))
    expected = model.density_at(points)
    for matrix in symmetry_rotations(model.symmetry):
        np.testing.assert_allclose(model.density_at(points @ matrix.T), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_map_keeps_the_contract(name):
    model = get(name)
    density = model.density(10.0)
    assert isinstance(model, Structure) and isinstance(density, Density)
    n = density.volume.shape[0]
    assert density.volume.shape == (n, n, n) and n % 2 == 0 and density.volume.dtype == np.float32
    assert density.volume.max() == 1.0 and density.volume.min() >= 0.0
    assert n >= 2 * density.radius / 10.0 + 4
    assert density.threshold == 0.15 and density.mass == model.mass
    assert 20.0 < density.radius < 160.0
    assert model.mass == pytest.approx(1000.0 * builtin.MODELS[name].kilodaltons)
    # Protein of that mass fills about the mask: a check on the shapes, which a threshold of 15 % overfills.
    assert 0.4 < (density.volume >= 0.3).sum() * 1000.0 / (VOLUME_PER_DALTON * model.mass) < 2.5
    border = np.concatenate([np.moveaxis(density.volume, a, 0)[[0, -1]].ravel() for a in range(3)])
    assert border.max() < 0.02
    centre_of_mass = (model.weights[:, None] * model.positions).sum(axis=0) / model.mass
    np.testing.assert_allclose(centre_of_mass, 0.0, atol=1e-9)


@pytest.mark.parametrize("name", ["proteasome_20s", "hsp70", "ribosome_70s"])
@pytest.mark.parametrize("resolution", [None, 0.0, 35.0])
def test_map_is_the_exact_density_at_the_voxels(name, resolution):
    model = get(name)
    density = model.density(9.0, resolution)
    blurred = model.blurred(18.0 if resolution is None else resolution)
    n = density.volume.shape[0]
    rng = np.random.default_rng(1)
    z, y, x = rng.integers(0, n, (3, 200))
    axis = offsets(n, 9.0)
    exact = blurred.density_at(np.stack([axis[x], axis[y], axis[z]], axis=-1))
    peak = np.unravel_index(density.volume.argmax(), density.volume.shape)
    scale = blurred.density_at(axis[list(peak[::-1])])
    np.testing.assert_allclose(density.volume[z, y, x], exact / scale, atol=1e-6)


@pytest.mark.parametrize("name", ["groel", "apoferritin", "igg"])
def test_fft_of_the_map_is_the_exact_transform(name):
    model = get(name).blurred(15.0)
    density = get(name).density(5.0, 15.0)
    n = density.volume.shape[0]
    transform = np.fft.fftn(np.fft.ifftshift(density.volume.astype(np.float64)))
    kz, ky, kx = np.broadcast_arrays(*frequencies((n, n, n), 5.0))
    exact = model.fourier_at(np.stack([kx, ky, kz], axis=-1)[::3, ::3, ::3])
    transform = transform[::3, ::3, ::3] * model.mass / transform[0, 0, 0].real
    assert np.abs(transform - exact).max() < 2e-3 * model.mass
    assert exact[0, 0, 0] == pytest.approx(model.mass)


def test_rotation_turns_density_and_transform():
    model = get("f1_atpase")
    matrix = Rotation.random(random_state=3).as_matrix()
    turned = model.rotated(matrix)
    points = np.random.default_rng(2).uniform(-50, 50, (30, 3))
    np.testing.assert_allclose(turned.density_at(points @ matrix.T), model.density_at(points), rtol=1e-9)
    np.testing.assert_allclose(turned.fourier_at(points @ matrix.T / 2000), model.fourier_at(points / 2000), rtol=1e-9)


def test_blur_adds_variances():
    model = get("pcna")
    np.testing.assert_allclose(model.blurred(12.0).sigmas ** 2, model.sigmas**2 + 12.0)  # (12 / (2 sqrt 3))^2 = 12
    assert model.blurred(0.0).sigmas == pytest.approx(model.sigmas)


def test_nearly_all_models_differ_from_their_mirror_images():
    achiral = []
    for name in NAMES:
        model = get(name).blurred(20.0)
        closest = max(overlap(model, model.rotated(operation)) for operation in improper_operations(model))
        if closest > NEARLY_ACHIRAL:
            achiral.append(name)
    assert len(achiral) <= len(NAMES) // 10, achiral


@pytest.mark.parametrize("first, second", TWINS)
def test_near_twins_differ_at_20_angstrom(first, second):
    a, b = get(first).blurred(20.0), get(second).blurred(20.0)
    turns = [Rotation.from_euler("z", angle, degrees=True).as_matrix() for angle in np.arange(0, 360, 6.0)]
    flips = [np.eye(3), np.diag([1.0, -1.0, -1.0])]
    assert max(overlap(a, b.rotated(turn @ flip)) for turn in turns for flip in flips) < 0.985


def test_symmetry_twins_have_equal_mass_and_size():
    for first, second in [TWINS[0], TWINS[2]]:
        a, b = get(first), get(second)
        assert a.mass == pytest.approx(b.mass)

        def gyration(model):
            return np.sqrt((model.weights * (model.positions**2).sum(-1)).sum() / model.mass)

        assert gyration(a) == pytest.approx(gyration(b), rel=0.01)


def test_no_two_models_are_the_same():
    assert len({get(name).fingerprint() for name in NAMES}) == len(NAMES)
    # Rotation-invariant: the distribution of density over distance and its spectrum along the shells' variance.
    prints = {}
    q = np.linspace(0.002, 0.04, 12)
    directions = Rotation.random(64, random_state=0).apply([0.0, 0.0, 1.0])
    for name in NAMES:
        power = np.abs(get(name).fourier_at(q[:, None, None] * directions)) ** 2 / get(name).mass ** 2
        prints[name] = np.concatenate([power.mean(axis=1), power.std(axis=1)])
    table = np.stack(list(prints.values()))
    distance = np.linalg.norm(table[:, None] - table[None], axis=-1) + np.eye(len(NAMES))
    assert distance.min() > 1e-4


def test_fingerprint_is_stable_and_follows_the_gaussians():
    model = get("groel")
    assert model.fingerprint() == get("groel").fingerprint()
    assert model.fingerprint() != model.blurred(5.0).fingerprint()


def test_typo_gets_near_names():
    with pytest.raises(InputError, match=r"Did you mean.*groel"):
        get("grohel")
