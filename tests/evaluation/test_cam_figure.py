"""The figure of class activation maps: which slices, under which map, and what stands above them."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.cam_figure import ModelMaps, cam_figure, scaled_map
from aitom_ssl.evaluation.figures import ACCENT, INK, WARNING

SHAPE = (6, 7, 8)


def cam(place, value=2.0, shape=SHAPE):
    found = np.zeros(shape)
    found[place] = value
    return found


def model(name, maps, predicted="a", probability=0.75, target=None):
    count = len(maps)
    return ModelMaps(name, np.stack(maps), [predicted] * count, [probability] * count, [target or predicted] * count)


@pytest.fixture
def volumes():
    return np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)


def panels(figure):
    figure.canvas.draw()
    return [axes for axes in figure.axes if axes.images]


def title(axes):
    return axes.get_title(loc="left")


def slices(volume):
    return [volume[3], volume[:, 3], volume[:, :, 4]]


def test_the_central_slices_stand_in_grey_and_under_the_map_of_every_model(volumes):
    first, second = np.abs(np.random.default_rng(1).normal(size=(2, 2, *SHAPE)))
    maps = [model("one", first), model("two", second)]
    drawn = panels(cam_figure(volumes, ["s 0", "s 1"], ["a", "b"], maps))
    assert len(drawn) == 18
    for row in range(2):
        for column, made in enumerate([None, first, second]):
            panel = drawn[9 * row + 3 * column : 9 * row + 3 * column + 3]
            for axis, axes in enumerate(panel):
                np.testing.assert_array_equal(axes.images[0].get_array(), slices(volumes[row])[axis])
                assert [*axes.get_xlim(), *axes.get_ylim()] == list(axes.images[0].get_extent())
                if made is not None:
                    expected = slices(scaled_map(made[row]))[axis]
                    np.testing.assert_array_equal(axes.images[1].get_array(), expected)
            assert [len(axes.images) for axes in panel] == [1 if made is None else 2] * 3
        assert [text.get_text() for axes in drawn[:3] for text in axes.texts] == ["z", "y", "x"]


def test_a_map_is_scaled_by_what_nearly_all_of_it_stays_below():
    ramp = np.arange(-1000.0, 1001.0).reshape(3, 23, 29)
    np.testing.assert_allclose(scaled_map(ramp), np.clip(ramp / np.percentile(np.abs(ramp), 99), -1, 1))
    spike = np.ones((10, 10, 10))
    spike[0, 0, 0] = 1e6
    assert (scaled_map(spike) == 1).all()
    np.testing.assert_array_equal(scaled_map(cam((1, 2, 3), 7.0)), cam((1, 2, 3), 1.0))
    assert not scaled_map(np.zeros(SHAPE)).any()


def test_the_line_is_at_half(volumes):
    smooth = np.exp(-sum(o**2 for o in np.ogrid[-3:3, -3:4, -4:4]) / 4)
    for panel in panels(cam_figure(volumes[:1], ["s"], ["a"], [model("one", [3 * smooth])]))[3:]:
        (contour,) = panel.collections
        assert list(contour.levels) == [0.5]
    nothing = panels(cam_figure(volumes[:1], ["s"], ["a"], [model("one", [np.zeros(SHAPE)])]))[3]
    assert not nothing.collections and title(nothing) == "a 0.75: nothing"


@pytest.mark.parametrize(
    ("label", "predicted", "target", "said", "colour"),
    [
        ("a", "a", None, "a 0.75: 0% central", ACCENT),
        ("b", "a", None, "a 0.75: 0% central", WARNING),
        (None, "a", None, "a 0.75: 0% central", INK),
        ("b", "a", "b", "a 0.75, map of b: 0% central", WARNING),
    ],
)
def test_titles_say_what_it_is_what_was_said_and_whether_that_is_right(volumes, label, predicted, target, said, colour):
    maps = model("one", [cam((0, 0, 0))], predicted, 0.75, target)
    drawn = panels(cam_figure(volumes[:1], ["sample 7"], [label], [maps]))
    assert title(drawn[0]) == ("sample 7" if label is None else f"sample 7: {label}")
    verdict = drawn[3]._left_title
    assert verdict.get_text() == said and to_rgba(verdict.get_color()) == to_rgba(colour)


def test_models_are_headed_by_their_names(volumes):
    figure = cam_figure(volumes[:1], ["s"], ["a"], [model(name, [cam((1, 1, 1))]) for name in ("moco", "random")])
    texts = {text.get_text(): text.get_position()[0] for text in figure.texts}
    assert texts["central slices"] < texts["moco"] < texts["random"]


def test_what_speaks_against_a_class_has_another_colour(volumes):
    signed = cam((3, 1, 1), 2.0) + cam((3, 2, 2), -4.0)
    panel = panels(cam_figure(volumes[:1], ["s"], ["a"], [model("one", [signed])]))[3]
    image = panel.images[1]
    assert image.get_array().min() == -1 and image.norm.vmin == -1
    red, _, blue, opaque = image.to_rgba(np.array([[1.0]]))[0, 0]
    assert red > blue and opaque == pytest.approx(0.75)
    red, _, blue, opaque = image.to_rgba(np.array([[-1.0]]))[0, 0]
    assert red < blue and opaque == pytest.approx(0.75)
    assert image.to_rgba(np.array([[0.0]]))[0, 0, 3] == 0
    unsigned = panels(cam_figure(volumes[:1], ["s"], ["a"], [model("one", [cam((1, 1, 1))])]))[3]
    assert unsigned.images[1].norm.vmin == 0


def test_one_scale_bar_where_the_voxel_size_is_known(volumes):
    maps = [model("one", [cam((1, 1, 1))] * 2)]
    bars = [
        sum(isinstance(patch, Rectangle) for axes in panels(figure) for patch in axes.patches)
        for figure in (cam_figure(volumes, ["s", "t"], ["a", "a"], maps, size) for size in (10.0, None))
    ]
    assert bars == [1, 0]


def test_nothing_overlaps_and_nothing_lies_outside(volumes):
    maps = [model("one", [cam((1, 1, 1))] * 2), model("two", [cam((2, 1, 1))] * 2)]
    figure = cam_figure(volumes, ["s", "t"], ["a", "a"], maps)
    figure.canvas.draw()
    boxes = [axes.get_position() for axes in figure.axes]
    for k, box in enumerate(boxes):
        assert min(box.min) >= 0 and max(box.max) <= 1
        assert not any(box.overlaps(other) for other in boxes[:k])


def test_shapes_that_differ_are_refused(volumes):
    maps = model("one", [cam((1, 1, 1))])
    with pytest.raises(InputError, match=r"maps of one have shape \(1, 6, 7, 8\), expected \(2, 6, 7, 8\)"):
        cam_figure(volumes, ["s", "t"], ["a", "a"], [maps])
    with pytest.raises(InputError, match="1 models and 1 labels"):
        cam_figure(volumes, ["s", "t"], ["a"], [maps])
    with pytest.raises(InputError, match="0 models"):
        cam_figure(volumes, ["s", "t"], ["a", "b"], [])
