"""Contact sheets: what is low-passed, which images are drawn where, what stands beside them, and how pages are cut."""

import math

import numpy as np
import pytest
from matplotlib.image import imread
from small_questions import make_dataset

from aitom_ssl.active import contact_sheet
from aitom_ssl.active.contact_sheet import COLUMNS, ROWS, Card, grey_levels, low_pass, panels, sheet, write_sheets
from aitom_ssl.errors import InputError


def test_a_wave_of_the_finest_length_is_halved():
    z = np.arange(80)
    for finest in (4.0, 8.0):
        wave = np.cos(2 * np.pi * z / finest)[:, None, None] * np.ones((1, 4, 4))
        np.testing.assert_allclose(low_pass(wave, finest)[24:56], wave[24:56] / 2, atol=2e-3)


def test_low_pass_keeps_constants_and_treats_a_batch_one_by_one():
    np.testing.assert_allclose(low_pass(np.full((5, 5, 5), 3.0)), 3.0, rtol=1e-6)
    batch = np.random.default_rng(0).normal(size=(2, 6, 6, 6))
    np.testing.assert_allclose(low_pass(batch)[1], low_pass(batch[1]), rtol=1e-6)
    assert low_pass(batch).dtype == np.float32


def test_the_images_are_the_central_slices_and_the_smooth_projections_of_the_middle():
    volume = np.random.default_rng(0).normal(size=(7, 7, 7)).astype(np.float32)
    shown = panels(volume)
    for image, expected in zip(shown[:3], (volume[3], volume[:, 3], volume[:, :, 3]), strict=True):
        np.testing.assert_array_equal(image, expected)
    smooth = low_pass(volume)
    for image, middle in zip(shown[3:], (smooth[1:6], smooth[:, 1:6], smooth[:, :, 1:6]), strict=True):
        axis = middle.shape.index(5)
        np.testing.assert_allclose(image, middle.sum(axis=axis) / 5, rtol=1e-4, atol=1e-6)
    assert [len(contact_sheet.middle_half(n)) for n in (1, 8, 32)] == [1, 4, 16]


def test_grey_levels():
    ramp = np.arange(101.0)
    levels = grey_levels(ramp)
    assert levels.dtype == np.uint8
    np.testing.assert_array_equal(levels[[0, 1, 99, 100]], [0, 0, 255, 255])
    assert levels[50] == math.floor(255 * 49 / 98)
    np.testing.assert_array_equal(grey_levels(np.full(4, 7.0)), 0)
    assert grey_levels(ramp, 0)[1] == 2


def page_of(figure):
    (axes,) = figure.axes
    return np.asarray(axes.images[0].get_array()), axes


def test_every_image_stands_in_its_place_upright():
    volumes = np.random.default_rng(0).normal(size=(2, 8, 8, 8)).astype(np.float32)
    figure = sheet(volumes, [Card("one", ["a"]), Card("two", ["b"])], ["title", "about"])
    page, axes = page_of(figure)
    side = 8 * math.ceil(112 / 8)
    for row, volume in enumerate(volumes):
        for column, image in enumerate(panels(volume)):
            left, top = contact_sheet._APART + column * (side + 4), contact_sheet._HEAD + row * (side + 4)
            cell = page[top : top + side, left : left + side]
            np.testing.assert_array_equal(cell[:: side // 8, :: side // 8], grey_levels(image)[::-1])
    words = {text.get_text(): text.get_position() for text in axes.texts}
    assert {"title", "about", "one", "a", "two", "b", "z slice", "x projection"} <= set(words)
    assert words["one"][1] < words["a"][1] < words["two"][1]
    figure.canvas.draw()
    width, height = figure.get_size_inches() * 100
    for text in axes.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text.get_text()


def test_long_names_stay_on_the_page():
    figure = sheet(np.zeros((1, 8, 8, 8)), [Card("S1 " * 9, ["26S proteasome, " * 9])], ["title"])
    figure.canvas.draw()
    assert max(text.get_window_extent().x1 for text in figure.axes[0].texts) <= figure.get_size_inches()[0] * 100


def test_pages_are_full_in_order_and_named_to_sort(tmp_path):
    data = make_dataset(tmp_path / "toy", count=2)
    count, each = COLUMNS * ROWS * 9 + 1, COLUMNS * ROWS
    asked = []

    def volume(k):
        asked.append(k)
        return data.volumes([k % 2])[0]

    paths = []
    for path in write_sheets(tmp_path, volume, [Card(f"s{k}") for k in range(count)], ["many"]):
        paths.append(path)
        if len(paths) == 2:
            break
    assert [path.name for path in paths] == ["contact_sheet_01.png", "contact_sheet_02.png"]
    assert asked == list(range(2 * each))  # a page in memory at a time
    assert imread(paths[0]).shape == imread(paths[1]).shape


def test_one_page_has_the_same_bytes_again(tmp_path):
    data = make_dataset(tmp_path / "toy")
    written = []
    for name in ("a", "b"):
        (path,) = write_sheets(tmp_path / name, lambda k: data.volumes([k])[0], [Card("s"), Card("t")], ["title"])
        written.append(path.read_bytes())
    assert path.name == "contact_sheet_1.png" and written[0] == written[1]


def test_names_in_any_script_are_no_warning(tmp_path, recwarn):
    data = make_dataset(tmp_path / "toy")
    list(write_sheets(tmp_path, lambda k: data.volumes([k])[0], [Card("核糖体")], ["title"]))
    assert not [str(w.message) for w in recwarn if "Glyph" in str(w.message)]


def test_a_page_has_an_end():
    with pytest.raises(InputError, match=r"1 to 18 volumes\. Received 19"):
        sheet(np.zeros((19, 4, 4, 4)), [Card("s")] * 19, ["title"])
    with pytest.raises(InputError, match="Received 2, with 1 cards"):
        sheet(np.zeros((2, 4, 4, 4)), [Card("s")], ["title"])
