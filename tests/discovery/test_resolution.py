"""FSC, resolution, discrepancy and SNR against closed forms, a slow transcription and another implementation."""

import io
import math

import numpy as np
import pytest

from aitom_ssl.discovery.resolution import (
    HALF_SETS,
    RECOVERED,
    ShellCorrelation,
    fourier_shell_correlation,
    half_set_correlation,
    mask_corrected_correlation,
    signal_to_noise,
    soft_sphere,
    structural_discrepancy,
)
from aitom_ssl.discovery.resolution_figure import correlation_figure, words
from aitom_ssl.errors import InputError


def noise(seed, n=24, count=None):
    shape = (n, n, n) if count is None else (count, n, n, n)
    return np.random.default_rng(seed).standard_normal(shape)


def radius(n):
    """Fourier pixels from the origin, numpy.fft's layout."""
    k = np.fft.fftfreq(n) * n
    return np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)


def low_passed(volume, cutoff):
    """Without the frequencies beyond `cutoff` Fourier pixels."""
    return np.fft.ifftn(np.fft.fftn(volume) * (radius(len(volume)) <= cutoff)).real


def slow(a, b, half_width=0.5):
    """The definition, one frequency after the other, on full transforms."""
    n = len(a)
    fa, fb, r = np.fft.fftn(a - a.mean()), np.fft.fftn(b - b.mean()), radius(n)
    out = [1.0]
    for shell in range(1, n // 2 + 1):
        cross = power_a = power_b = 0.0
        for place in np.argwhere(np.abs(r - shell) <= half_width + 1e-12):
            p, q = fa[tuple(place)], fb[tuple(place)]
            cross += (p * q.conjugate()).real
            power_a += abs(p) ** 2
            power_b += abs(q) ** 2
        out.append(cross / math.sqrt(power_a * power_b))
    return np.array(out)


# === The curve ===


@pytest.mark.parametrize("n", [8, 9])
def test_the_curve_is_the_definition(n):
    a, b = noise(0, n), noise(0, n) + noise(1, n) + 3
    curve = fourier_shell_correlation(a, b, 10.0)
    np.testing.assert_allclose(curve.correlation, slow(a, b), atol=1e-12)
    np.testing.assert_allclose(curve.frequency, np.arange(n // 2 + 1) / (n * 10.0))
    counts = [np.sum(np.abs(radius(n) - shell) <= 0.5) for shell in range(n // 2 + 1)]
    assert curve.independent.tolist() == [math.ceil(count / 2) for count in counts]


@pytest.mark.parametrize("n", [16, 17])
def test_a_volume_agrees_with_itself_and_disagrees_with_its_negative(n):
    volume = noise(0, n)
    np.testing.assert_allclose(fourier_shell_correlation(volume, volume, 10.0).correlation, 1)
    np.testing.assert_allclose(fourier_shell_correlation(volume, 5 - volume, 10.0).correlation[1:], -1)


@pytest.mark.parametrize("n", [24, 25])
def test_independent_noise_correlates_by_one_over_the_root_of_the_frequencies(n):
    curves = [fourier_shell_correlation(noise(i, n), noise(1000 + i, n), 10.0) for i in range(150)]
    found = np.stack([curve.correlation for curve in curves])[:, 1:]
    expected = curves[0].noise_level[1:]
    assert np.all(np.abs(found.mean(axis=0)) < 4 * expected / math.sqrt(len(found)))
    # The standard deviation of 150 draws is itself uncertain by 6 %.
    np.testing.assert_allclose(found.std(axis=0), expected, rtol=0.2)


@pytest.mark.parametrize("ratio", [0.2, 1.0, 5.0])
def test_signal_and_noise_follow_snr_over_one_plus_snr(ratio):
    n, pairs = 24, 20
    found = np.zeros(n // 2 + 1)
    for i in range(pairs):
        signal = math.sqrt(ratio) * noise(3 * i, n)
        found += fourier_shell_correlation(signal + noise(3 * i + 1, n), signal + noise(3 * i + 2, n), 10.0).correlation
    np.testing.assert_allclose(found[4:] / pairs, ratio / (1 + ratio), atol=0.035)


def test_grey_scale_grey_level_and_common_shifts_and_turns_do_not_matter():
    a, b = noise(0), noise(0) + noise(1)
    expected = fourier_shell_correlation(a, b, 10.0).correlation
    np.testing.assert_allclose(fourier_shell_correlation(1e-6 * a + 2, 1e6 * b - 7, 10.0).correlation, expected)
    moved = [np.roll(volume, (3, -5, 1), axis=(0, 1, 2)) for volume in (a, b)]
    np.testing.assert_allclose(fourier_shell_correlation(*moved, 10.0).correlation, expected, atol=1e-12)
    # Turned about the origin of the Fourier transform, as the shift has shown to be of no matter.
    turned = [np.rot90(volume, axes=(0, 2)) for volume in (a, b)]
    np.testing.assert_allclose(fourier_shell_correlation(*turned, 10.0).correlation, expected, atol=1e-12)
    mask = soft_sphere(24, 8)
    masked = fourier_shell_correlation(a, b, 10.0, mask).correlation
    np.testing.assert_allclose(fourier_shell_correlation(3 * a + 50, b - 20, 10.0, mask).correlation, masked)


def test_a_mask_is_multiplication_after_the_mean_outside_it():
    a, b, mask = noise(0, 16), noise(1, 16) + noise(0, 16), soft_sphere(16, 4, 2)
    inside = [(volume - np.average(volume, weights=1 - mask)) * mask for volume in (a, b)]
    curve = fourier_shell_correlation(a, b, 10.0, mask)
    # The product's own mean, which stays, is in shell 0.
    np.testing.assert_allclose(curve.correlation, slow(*inside), atol=1e-10)
    everywhere = fourier_shell_correlation(a, b, 10.0, np.ones((16, 16, 16))).correlation
    np.testing.assert_allclose(everywhere, fourier_shell_correlation(a, b, 10.0).correlation, atol=1e-12)


def test_what_one_volume_does_not_have_does_not_correlate():
    volume = noise(0, 16)
    curve = fourier_shell_correlation(volume, low_passed(volume, 4.5).astype(np.float32), 10.0)
    np.testing.assert_allclose(curve.correlation[:5], 1, atol=1e-6)
    assert np.abs(curve.correlation[5:]).max() < 0.3 and np.isfinite(curve.signal_to_noise()[5:]).all()
    wave = np.cos(np.pi * np.arange(8) / 2) * np.ones((8, 8, 8))  # one frequency, of 2 pixels
    found = fourier_shell_correlation(wave, noise(1, 8), 10.0).correlation
    assert found[2] != 0 and found[1] == found[3] == found[4] == 0


@pytest.mark.parametrize("n", [20, 21])
def test_acryo_agrees(n):
    theirs = pytest.importorskip("acryo._utils", reason="pip install acryo to compare with its FSC")
    # Its shells start at whole frequencies, ours are centred on them. Of volumes that have every other of our shells
    # alone, each of its shells, made two pixels wide, holds one.
    kept = np.rint(radius(n)) % 2 == 1
    a, b = (np.fft.ifftn(np.fft.fftn(volume) * kept).real for volume in (noise(0, n), noise(0, n) + noise(1, n)))
    _, other = theirs.fourier_shell_correlation(a, b, dfreq=2 / n + 1e-9)
    ours = fourier_shell_correlation(a, b, 1.0).correlation[1::2]
    np.testing.assert_allclose(ours, other[: len(ours)], atol=1e-5)
    assert np.ptp(ours) > 0.05


# === Numbers read off the curve ===


def curve_of(correlation, voxel_size=10.0):
    n = 2 * (len(correlation) - 1)
    return ShellCorrelation(
        np.arange(len(correlation)) / (n * voxel_size),
        np.array(correlation),
        np.ones(len(correlation), int),
        voxel_size,
    )


def test_resolution_is_read_off_straight_lines():
    curve = curve_of([1.0, 1.0, 0.9, 0.1, 0.6, 0.0, 0.0])
    assert curve.crossing(0.5) == pytest.approx(2.5 / 120) and curve.resolution(0.5) == pytest.approx(120 / 2.5)
    assert curve.resolution(0.143) == pytest.approx(120 / (2 + 0.757 / 0.8))
    assert curve.resolution() == curve.resolution(HALF_SETS)
    assert curve_of([1.0, 0.9, 0.8, 0.7]).resolution(0.5) == 20.0
    assert curve_of([1.0, 0.4, 0.9, 0.9]).resolution(0.5) == math.inf
    assert words(curve, 0.5) == "48 Å" and words(curve_of([1.0, 0.9, 0.8]), 0.5) == "≤ 20 Å (Nyquist)"
    assert words(curve_of([1.0, 0.0, 0.0]), 0.143) == "none"


def test_a_falling_signal_has_the_resolution_of_its_closed_form():
    """Signal of power exp(-(r/r0)^2) in white noise: FSC = S / (S + 1), which is 0.5 where S = 1."""
    n, r0, top = 48, 8.0, 20.0
    fall = np.sqrt(top) * np.exp(-np.square(radius(n) / r0) / 2)
    signal = np.fft.ifftn(np.fft.fftn(noise(0, n)) * fall).real
    curve = half_set_correlation(signal + noise(1, n), signal + noise(2, n), 5.0)
    for threshold in (0.5, 0.143):
        ratio = threshold / (1 - threshold)
        expected = n * 5.0 / (r0 * math.sqrt(math.log(top / ratio)))
        assert curve.resolution(threshold) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("n", [32, 33])
@pytest.mark.parametrize("cutoff", [5, 9])
def test_the_discrepancy_of_a_low_pass_is_the_first_shell_mostly_beyond_it(n, cutoff):
    truth = noise(0, n)
    volume = low_passed(truth, cutoff) + 1e-3 * noise(1, n)
    found = structural_discrepancy(volume, truth, 10.0)
    below = np.flatnonzero(slow(volume, truth, half_width=1.0) < 0.5)
    assert found == pytest.approx(n * 10.0 / below[0])
    # Shells reach a pixel either side: that about cutoff + 1 has frequencies up to cutoff + 2, and a sliver within.
    assert below[0] == cutoff + 1
    assert structural_discrepancy(truth, truth, 10.0) == 20.0
    assert RECOVERED == 70.0  # 7 nm


def test_what_a_sharp_mask_correlates_is_taken_out():
    """Halves with a common grey gradient: cut off by a sharp mask, it is structure of every frequency in both."""
    n, trials = 32, 10
    sharp, soft = soft_sphere(n, 8, 0), soft_sphere(n, 8, 6)
    ramp = 4 * (np.arange(n) - n // 2)[:, None, None] / n * np.ones((n, n, n))
    # What the box itself cuts off is smoothed away: without a mask there are low frequencies only.
    ramp = low_passed(ramp * soft_sphere(n, 10, 5), 4)
    plain, corrected, gentle = np.zeros((3, n // 2 + 1))
    for i in range(trials):
        halves = ramp + 0.5 * noise(2 * i, n), ramp + 0.5 * noise(2 * i + 1, n)
        plain += half_set_correlation(*halves, 10.0, sharp).correlation / trials
        corrected += mask_corrected_correlation(*halves, 10.0, sharp, seed=i).correlation / trials
        gentle += half_set_correlation(*halves, 10.0, soft).correlation / trials
    assert plain[7:12].mean() > 0.3 and gentle[7:12].mean() < 0.05
    assert np.abs(corrected[6:]).max() < 0.08
    again = mask_corrected_correlation(*halves, 10.0, sharp, seed=i).correlation
    np.testing.assert_array_equal(again, mask_corrected_correlation(*halves, 10.0, sharp, seed=i).correlation)
    # Where both agree everywhere, there is nothing to correct.
    alike = ramp + noise(50, n), ramp + noise(50, n) + 0.05 * noise(51, n)
    found = mask_corrected_correlation(*alike, 10.0, sharp)
    np.testing.assert_array_equal(found.correlation, half_set_correlation(*alike, 10.0, sharp).correlation)


# === Masks ===


@pytest.mark.parametrize("n", [16, 17])
def test_a_soft_sphere_has_its_values_and_its_centre(n):
    mask = soft_sphere(n, 4.0, 3.0)
    middle = n // 2
    assert mask[middle, middle, middle] == 1 and mask[middle, middle, middle + 4] == 1
    assert mask[middle, middle, middle + 5] == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 3))
    assert mask[middle, middle, middle - 7] == 0 and mask.dtype == np.float32
    moved = soft_sphere(n, 3.0, 2.0, centre=(2, -1, 1))
    np.testing.assert_array_equal(moved, np.roll(soft_sphere(n, 3.0, 2.0), (1, -1, 2), axis=(0, 1, 2)))
    hard = soft_sphere(33, 10.0, 0.0)
    assert set(np.unique(hard)) == {0, 1} and hard.sum() == pytest.approx(4 / 3 * math.pi * 1000, rel=0.02)
    with pytest.raises(InputError, match="no voxel"):
        soft_sphere(8, 1.0, centre=(50, 0, 0))
    with pytest.raises(InputError, match="radius=0"):
        soft_sphere(8, 0.0)


# === Signal-to-noise ratio ===


@pytest.mark.parametrize("ratio", [0.05, 0.5])
def test_snr_of_pairs_is_that_of_one_volume(ratio):
    n, pairs = 20, 40
    signal = math.sqrt(ratio) * noise(0, n)
    first, second = [[signal * 3 + 3 * noise(10 + 2 * i + h, n) + 9 for i in range(pairs)] for h in (0, 1)]
    found = signal_to_noise(first, second, 10.0)
    # cc of 8,000 voxels has a deviation of about 0.011 a pair.
    assert found.overall == pytest.approx(ratio * signal.var() / ratio, abs=0.006 * (1 + ratio) ** 2)
    assert 0 < found.spread < 0.02 * (1 + ratio) ** 2 and len(found.of_pairs) == pairs
    shells = np.sum(np.abs(np.fft.fftn(signal)) ** 2 * (np.rint(radius(n)) == 8)) / (
        n**3 * 2 * found.curve.independent[8]
    )
    assert found.curve.signal_to_noise()[8] == pytest.approx(shells, rel=0.15)
    assert math.isnan(found.curve.signal_to_noise()[0])
    assert math.isnan(signal_to_noise(first[:1], second[:1], 10.0).spread)


def test_one_pair_by_hand():
    a, b = noise(0, 8), noise(1, 8) + 0.5 * noise(0, 8)
    cc = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert signal_to_noise([a], [b], 1.0).overall == pytest.approx(cc / (1 - cc))
    mask = soft_sphere(8, 2, 0) > 0
    cc = np.corrcoef(a[mask], b[mask])[0, 1]
    assert signal_to_noise([a], [b], 1.0, mask).overall == pytest.approx(cc / (1 - cc))


# === Mistakes ===


GOOD = noise(0, 8)
NAN = np.where(np.arange(512).reshape(8, 8, 8) == 9, np.nan, GOOD)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GOOD, noise(1, 10), 10.0), r"shapes \(8, 8, 8\) and \(10, 10, 10\)"),
        ((GOOD, NAN, 10.0), "second volume has voxels that are NaN"),
        ((NAN, GOOD, 10.0), "first volume has voxels that are NaN"),
        ((GOOD[:4], GOOD, 10.0), "first volume has shape"),
        ((GOOD, np.ones((8, 8, 8)), 10.0), "second volume is constant"),
        ((GOOD, GOOD + 1j, 10.0), "expected real numbers"),
        ((GOOD, GOOD, 0.0), "voxel_size is 0.0"),
        ((GOOD, GOOD, math.nan), "voxel_size is nan"),
        ((GOOD, GOOD, (10.0, 12.5)), "voxels of 10 and 12.5 A"),
        ((GOOD, GOOD, 10.0, np.zeros((8, 8, 8))), "mask is empty"),
        ((GOOD, GOOD, 10.0, np.ones((9, 9, 9))), r"mask has shape \(9, 9, 9\)"),
        ((GOOD, GOOD, 10.0, 2 * np.ones((8, 8, 8))), "expected 0 to 1"),
        ((GOOD, np.where(soft_sphere(8, 2) > 0, 1, GOOD), 10.0, soft_sphere(8, 2)), "constant inside the mask"),
    ],
)
def test_what_cannot_be_compared_is_named(arguments, message):
    with pytest.raises(InputError, match=message) as error:
        fourier_shell_correlation(*arguments)
    assert "\n" not in str(error.value)


def test_voxel_sizes_of_each_may_be_given():
    a, b = GOOD, noise(1, 8)
    both = fourier_shell_correlation(a, b, (10.0, 10.001))
    np.testing.assert_array_equal(both.frequency, fourier_shell_correlation(a, b, 10.0).frequency)


@pytest.mark.parametrize("second", [GOOD, 4 * GOOD + 1, GOOD.astype(np.float32)])
def test_identical_half_sets_are_no_resolution(second):
    with pytest.raises(InputError, match="half sets are identical"):
        half_set_correlation(GOOD, second, 10.0)
    with pytest.raises(InputError, match="Pair 1 is one subtomogram twice"):
        signal_to_noise([noise(3, 8), GOOD], [noise(4, 8), second], 10.0)


def test_snr_mistakes_name_the_pair():
    with pytest.raises(InputError, match="Received 1 and 2"):
        signal_to_noise([GOOD], [GOOD, GOOD], 10.0)
    with pytest.raises(InputError, match="Received 0 and 0"):
        signal_to_noise([], [], 10.0)
    with pytest.raises(InputError, match="Pair 1: The second volume has voxels that are NaN"):
        signal_to_noise([GOOD, GOOD], [noise(1, 8), NAN], 10.0)
    with pytest.raises(InputError, match="Pair 1 has 10 voxels a side, pair 0 has 8"):
        signal_to_noise([GOOD, noise(1, 10)], [noise(1, 8), noise(2, 10)], 10.0)
    with pytest.raises(InputError, match=r"threshold of 1\.5"):
        curve_of([1.0, 0.5]).crossing(1.5)


# === The picture ===


def test_the_figure_shows_each_curve_with_its_resolutions():
    signal = low_passed(noise(0), 6)
    curve = fourier_shell_correlation(signal + 0.3 * noise(1), signal + 0.3 * noise(2), 10.0)
    figure = correlation_figure({"halves": curve, "with the truth": fourier_shell_correlation(signal, noise(3), 10.0)})
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[1] == f"halves: {words(curve, 0.143)} at 0.143, {words(curve, 0.5)} at 0.5" and "none" in labels[2]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), curve.correlation[1:])
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=60)
    assert len(stream.getvalue()) > 5000
    with pytest.raises(InputError, match="no Fourier shell correlation"):
        correlation_figure({})
