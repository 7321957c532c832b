"""The dense CRF against mean-field inference written out in NumPy, and the search for its parameters."""

import dataclasses
import sys

import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.oneshot import crf
from aitom_ssl.oneshot.crf import CrfParameters, dice, refine, refine_mask, search, to_mask

library = pytest.importorskip("pydensecrf.densecrf")

SIDE = 6
NOTHING = CrfParameters(gaussian_weight=0.0, bilateral_weight=0.0)


def sample(seed, side=SIDE):
    """Probabilities and voxel values of a block in noise."""
    rng = np.random.default_rng(seed)
    block = np.zeros((side,) * 3)
    block[1:-1, 1:-2, : side // 2] = 1
    probabilities = 0.35 + 0.3 * block + 0.3 * rng.uniform(-1, 1, block.shape)
    return probabilities, (block + 0.5 * rng.normal(size=block.shape)).astype(np.float32)


def normalized(kernel):
    sums = kernel.sum(axis=1)
    return kernel / np.sqrt(np.outer(sums, sums))


def gaussian_kernel(shape, std, volume=None, intensity_std=None):
    """(voxels, voxels) exp(-d^2 / 2) with the formulae of the module's docstring, written out."""
    places = np.array(list(np.ndindex(*shape)))
    exponent = np.square(places[:, None] - places).sum(axis=2) / (2 * std**2)
    if volume is not None:
        values = volume.reshape(-1) * (255 / (volume.max() - volume.min()))
        exponent = exponent + np.square(values[:, None] - values) / (2 * intensity_std**2)
    return np.exp(-exponent)


def mean_field(probabilities, weights, kernels, iterations):
    """Algorithm 1 of Krähenbühl 2011 with Potts compatibility, one voxel after the other."""
    q = probabilities.reshape(-1).astype(np.float64)
    unary = -np.log(np.stack([1 - q, q]))
    belief = np.exp(-unary)
    for _ in range(iterations):
        new = np.empty_like(belief)
        for i in range(belief.shape[1]):
            votes = sum(w * (kernel[i] * belief).sum(axis=1) for w, kernel in zip(weights, kernels, strict=True))
            # Differing costs, so agreeing pays: -sum over the other label = its own votes minus all of them.
            cost = unary[:, i] + (votes.sum() - votes)
            new[:, i] = np.exp(-(cost - cost.min()))
            new[:, i] /= new[:, i].sum()
        belief = new
    return belief[1].reshape(probabilities.shape)


def exact(probabilities, volume, parameters):
    shape = probabilities.shape
    kernels = [
        normalized(gaussian_kernel(shape, parameters.gaussian_std)),
        normalized(gaussian_kernel(shape, parameters.bilateral_std, volume, parameters.intensity_std)),
    ]
    weights = (parameters.gaussian_weight, parameters.bilateral_weight)
    return mean_field(probabilities, weights, kernels, parameters.iterations)


# === Against mean field written out ===


@pytest.mark.parametrize(
    ("parameters", "tolerance"),
    [
        (CrfParameters(4, 2.0, 1.5, 0.0, 1.0, 50.0), 0.06),
        (CrfParameters(4, 0.0, 1.0, 2.0, 3.0, 50.0), 0.06),
        (CrfParameters(4, 1.0, 1.5, 2.0, 4.0, 50.0), 0.06),
        (CrfParameters(4, 1.0, 10.0, 2.0, 100.0, 50.0), 0.06),
        (CrfParameters(2, 1.0, 0.8, 1.0, 2.0, 30.0), 0.1),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_mean_field_up_to_the_lattice(parameters, tolerance, seed):
    probabilities, volume = sample(seed)
    found, wanted = refine(probabilities, volume, parameters), exact(probabilities, volume, parameters)
    assert np.abs(found - wanted).max() < tolerance
    # The field must have done more than the tolerance, or the comparison would show nothing.
    assert np.abs(wanted - probabilities).max() > 0.25
    assert (to_mask(found) == to_mask(wanted))[np.abs(wanted - 0.5) > tolerance].all()


def test_a_block_with_holes_and_specks_comes_out_whole_at_the_published_parameters_of_a_clear_volume():
    truth = np.zeros((SIDE,) * 3, bool)
    truth[1:5, 1:5, 1:4] = True
    rng = np.random.default_rng(3)
    volume = truth + 0.02 * rng.normal(size=truth.shape)
    probabilities = np.where(truth ^ (rng.random(truth.shape) < 0.1), 0.8, 0.2)
    parameters = dataclasses.replace(crf.PUBLISHED, gaussian_weight=0.0)
    assert dice(to_mask(probabilities), truth) < 0.95
    assert dice(refine_mask(volume, probabilities, parameters), truth) == 1.0
    assert np.abs(refine(probabilities, volume, parameters) - exact(probabilities, volume, parameters)).max() < 0.01


def lattice_kernel(volume, parameters):
    """The normalised kernel of one term as the library applies it, column by column, from one step of inference.

    Where voxel j is certain and all others undecided, the step moves voxel i's log-odds by weight * kernel[i, j].
    """
    count = volume.size
    (weight, features), *_ = [term for term in crf._terms(volume, parameters) if term[0] > 0]
    kernel = np.empty((count, count))
    for j in range(count):
        energy = np.full((2, count), np.log(2), np.float32)
        energy[:, j] = (50.0, 0.0)
        field = library.DenseCRF(count, 2)
        field.setUnaryEnergy(energy)
        field.addPairwiseEnergy(features, compat=weight, normalization=library.NORMALIZE_SYMMETRIC)
        belief = np.array(field.inference(1), np.float64)
        kernel[:, j] = (np.log(belief[1] / belief[0]) - (energy[0] - energy[1])) / weight
    return kernel


@pytest.mark.parametrize("term", ["gaussian", "bilateral"])
def test_all_but_the_lattice_is_exact(term):
    probabilities, volume = sample(5, side=4)
    chosen = CrfParameters(4, 0.5, 1.5, 0.0, 3.0, 50.0) if term == "gaussian" else CrfParameters(
        4, 0.0, 1.5, 0.5, 3.0, 50.0
    )
    kernel = lattice_kernel(volume, chosen)
    strong = dataclasses.replace(
        chosen, gaussian_weight=4 * chosen.gaussian_weight, bilateral_weight=4 * chosen.bilateral_weight
    )
    wanted = mean_field(probabilities, (2.0,), (kernel,), iterations=4)
    np.testing.assert_allclose(refine(probabilities, volume, strong), wanted, atol=2e-4)
    asked = (chosen.gaussian_std, None, None) if term == "gaussian" else (chosen.bilateral_std, volume, 50.0)
    shape = volume.shape
    assert np.abs(kernel - normalized(gaussian_kernel(shape, *asked))).max() < 0.05


def test_wide_kernels_are_one_vote_of_all_exactly():
    probabilities, volume = sample(1)
    found = refine(probabilities, volume, CrfParameters(3, 2.0, 1e6, 0.0, 1.0, 1.0))
    # Every entry of the normalised kernel is 1 / n: log-odds move by w * (share of particle - share of background).
    odds, belief = np.log(probabilities / (1 - probabilities)), probabilities
    for _ in range(3):
        belief = 1 / (1 + np.exp(-(odds + 2.0 * (2 * belief.mean() - 1))))
    np.testing.assert_allclose(found, belief, atol=1e-5)


# === Exact properties ===


def test_without_terms_or_steps_the_probabilities_stay():
    probabilities, volume = sample(0)
    np.testing.assert_allclose(refine(probabilities, volume, NOTHING), probabilities, atol=1e-6)
    none = dataclasses.replace(crf.PUBLISHED, iterations=0)
    np.testing.assert_allclose(refine(probabilities, volume, none), probabilities, atol=1e-6)


def test_undecided_everywhere_stays_undecided():
    _, volume = sample(0)
    found = refine(np.full(volume.shape, 0.5), volume)
    np.testing.assert_allclose(found, 0.5, atol=1e-6)


def test_swapping_the_labels_swaps_the_answer():
    probabilities, volume = sample(2)
    parameters = CrfParameters(4, 1.0, 1.5, 1.0, 2.0, 50.0)
    turned = refine(1 - probabilities, volume, parameters)
    np.testing.assert_allclose(turned, 1 - refine(probabilities, volume, parameters), atol=1e-5)


def test_scale_offset_and_contrast_of_the_volume_do_not_matter():
    probabilities, volume = sample(2)
    parameters = CrfParameters(4, 0.0, 1.5, 1.0, 2.0, 50.0)
    wanted = refine(probabilities, volume, parameters)
    np.testing.assert_allclose(refine(probabilities, 3 * volume + 7, parameters), wanted, atol=1e-4)
    # Turned contrast maps I to 255 - I: exact distances, another cell of the lattice.
    assert np.abs(refine(probabilities, -volume, parameters) - wanted).max() < 0.05


def test_intensities_fill_0_to_255():
    found = crf.intensities(np.array([[[-1.0, 0.0, 3.0]]]))
    np.testing.assert_allclose(found, [[[0, 63.75, 255]]])
    assert not crf.intensities(np.full((2, 2, 2), 4.0)).any()


def test_certain_probabilities_and_any_shape_are_taken():
    probabilities = np.zeros((3, 4, 5))
    probabilities[1, 1:3, 1:4] = 1.0
    found = refine(probabilities, probabilities, CrfParameters(4, 0.5, 1.0, 0.5, 2.0, 50.0))
    assert found.dtype == np.float32 and found.shape == (3, 4, 5)
    np.testing.assert_array_equal(to_mask(found), probabilities == 1)


def test_refine_mask_is_the_thresholded_answer():
    probabilities, volume = sample(4)
    found = refine_mask(volume, probabilities)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, refine(probabilities, volume) > 0.5)


# === Mistakes ===


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"volume": np.zeros((6, 6, 5))}, "(6, 6, 5)"),
        ({"volume": np.full((6, 6, 6), np.nan)}, "NaN"),
        ({"probabilities": np.full((6, 6, 6), 1.5)}, "0 to 1"),
        ({"probabilities": np.full((6, 6, 6), np.nan)}, "0 to 1"),
        ({"probabilities": np.zeros((6, 6)), "volume": np.zeros((6, 6))}, "(z, y, x)"),
    ],
)
def test_what_cannot_be_refined_is_refused(change, words):
    probabilities, volume = sample(0)
    with pytest.raises(InputError) as caught:
        refine(**{"probabilities": probabilities, "volume": volume, **change})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("iterations", 1.5), ("iterations", -1), ("gaussian_weight", -1.0), ("gaussian_std", 0.0), ("intensity_std", "a")],
)
def test_parameters_that_make_no_sense_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        CrfParameters(**{name: value})
    with pytest.raises(InputError, match="somewhere"):
        CrfParameters.from_dict({**crf.PUBLISHED.to_dict(), name: value}, "somewhere")


def test_stored_parameters_come_back_and_foreign_ones_do_not():
    parameters = CrfParameters(2, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert CrfParameters.from_dict(parameters.to_dict(), "x") == parameters
    for foreign in (None, [], {"iterations": 4}, {**parameters.to_dict(), "more": 1}):
        with pytest.raises(InputError, match=r"crf\.json"):
            CrfParameters.from_dict(foreign, "crf.json")


def test_without_the_library_it_says_so_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(InputError, match=r"pydensecrf2.*3\.13.*--nocrf") as caught:
        refine(*sample(0))
    assert "\n" not in str(caught.value)


# === Dice and search ===


def test_dice_of_known_masks():
    first, second = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    assert dice(first, second) == 1.0
    first[0] = second[:, 0] = True
    assert dice(first, second) == 2 * 1 / (4 + 2)
    assert dice(first, first) == 1.0 and dice(first, ~first) == 0.0
    with pytest.raises(InputError, match=r"\(2, 4\)"):
        dice(first, second[0])


@pytest.fixture(scope="module")
def searched():
    rng = np.random.default_rng(0)
    truth = np.zeros((2, 8, 8, 8), bool)
    truth[0, 2:6, 2:6, 1:5] = truth[1, 1:4, 2:7, 2:6] = True
    volumes = truth + 0.3 * rng.normal(size=truth.shape)
    probabilities = np.where(truth ^ (rng.random(truth.shape) < 0.15), 0.7, 0.3)
    told = []
    found = search(probabilities, volumes, truth, rounds=1, tell=lambda number, trial: told.append((number, trial)))
    return found, told, (probabilities, volumes, truth)


def test_a_search_finds_what_is_better_than_none_and_the_published(searched):
    found, _, (probabilities, volumes, truth) = searched
    assert found.helps and found.best.dsc > max(found.without, found.published.dsc) and found.best.dsc > 0.9
    best = [refine_mask(volume, p, found.best.parameters) for volume, p in zip(volumes, probabilities, strict=True)]
    for dsc, masks in ((found.best.dsc, best), (found.without, probabilities > 0.5)):
        assert dsc == pytest.approx(np.mean([dice(mask, one) for mask, one in zip(masks, truth, strict=True)]))


def test_a_search_tries_nothing_twice_and_tells_all(searched):
    found, told, _ = searched
    assert found.trials == [trial for _, trial in told]
    assert [number for number, _ in told] == list(range(1, len(told) + 1))
    assert len({trial.parameters for trial in found.trials}) == len(found.trials)
    assert found.best.dsc == max(trial.dsc for trial in found.trials)
    stored = found.to_dict()
    assert CrfParameters.from_dict(stored["parameters"], "x") == found.best.parameters
    assert len(stored["trials"]) == len(found.trials)


def test_where_masks_are_right_already_no_field_is_said_to_help():
    truth = np.zeros((1, 4, 4, 4), bool)
    truth[0, 1:3, 1:3, 1:3] = True
    found = search(np.where(truth, 0.9, 0.1), truth.astype(float), truth, rounds=1)
    assert found.without == 1.0 and not found.helps


def test_a_gain_within_its_error_is_no_help():
    for gains, helps in (((0.01, 0.011, 0.009), True), ((0.1, -0.08, 0.0), False), ((0.0, 0.0), False), ((0.1,), True)):
        bare = (0.8,) * len(gains)
        best = crf.Trial(crf.GENTLE, tuple(np.add(bare, gains)))
        assert crf.Search(best, best, bare, [best]).helps is helps


def test_a_search_needs_as_many_of_each():
    with pytest.raises(InputError, match="1, 1 and 0"):
        search([np.zeros((2, 2, 2))], [np.zeros((2, 2, 2))], [])
