"""The picture of a tomogram: the slices it says, the labels' colours, and a spectrum that shows the missing wedge."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from aitom_ssl.data.tomogram_figure import class_colours, tomogram_figure, wedge_spectrum

SHAPE = (12, 16, 20)


@pytest.fixture
def volumes():
    rng = np.random.default_rng(0)
    classes = np.zeros(SHAPE, np.int16)
    classes[6, 2:5, 3:9] = 2
    classes[:4, 8, :5] = 3
    classes[1, 1, 1] = 1  # in neither slice
    return rng.standard_normal(SHAPE).astype(np.float32), rng.random(SHAPE).astype(np.float32), classes


def test_slices_and_labels(volumes):
    figure = tomogram_figure(*volumes, ["a", "b", "c"], "title")
    images = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    for found, volume, cut in zip(images, [*volumes, *volumes], [np.s_[6]] * 3 + [np.s_[:, 8]] * 3, strict=False):
        np.testing.assert_array_equal(found, volume[cut])
    legend = next(axes.get_legend() for axes in figure.axes if axes.get_legend())
    assert [text.get_text() for text in legend.get_texts()] == ["b", "c"]
    colours = [to_rgb(patch.get_facecolor()) for patch in legend.get_patches()]
    np.testing.assert_allclose(colours, class_colours(3)[1:], atol=0.01)


def test_the_spectrum_shows_the_missing_wedge():
    rng = np.random.default_rng(0)
    kz, kx = np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)
    measured = np.abs(kz) <= np.abs(kx)
    slices = [np.fft.ifft2(np.fft.fft2(rng.standard_normal((64, 64))) * measured).real for _ in range(8)]
    found = wedge_spectrum(np.stack(slices, axis=1))
    assert found.shape == (64, 64) and found.max() == pytest.approx(0) and found.min() >= -6
    assert found[32, 52] > -1.5 and found[52, 32] < -4  # the origin is at 32, 32


def test_an_empty_tomogram_is_drawn_too():
    empty = np.zeros(SHAPE, np.float32)
    figure = tomogram_figure(empty, empty, np.zeros(SHAPE, np.int16), ["a"])
    figure.canvas.draw()
