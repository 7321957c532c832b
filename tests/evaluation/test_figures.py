import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from aitom_ssl.errors import InputError
from aitom_ssl.evaluation import figures
from aitom_ssl.evaluation.classification import reliability_bins


def axes_with_images(figure):
    return [axes for axes in figure.axes if axes.images]


def drawn(figure):
    """Rendering is where layout and fonts fail."""
    figure.canvas.draw()
    return figure


def all_text(figure):
    figure.canvas.draw()
    return " | ".join(text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, "get_text")))


# === Volumes ===


@pytest.mark.parametrize("shape", [(4, 5, 6), (32, 32, 32)])
def test_central_slices_meet_in_the_centre_voxel(shape):
    volume = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    z, y, x = (n // 2 for n in shape)
    along_z, along_y, along_x = figures.central_slices(volume)
    assert along_z.shape == shape[1:] and along_y.shape == shape[::2] and along_x.shape == shape[:2]
    assert along_z[y, x] == along_y[z, x] == along_x[z, y] == volume[z, y, x]
    assert along_z[0, 1] == volume[z, 0, 1] and along_y[1, 0] == volume[1, y, 0] and along_x[1, 2] == volume[1, 2, x]


def test_slices_have_a_column_a_volume_and_a_row_a_direction_in_grey():
    volumes = np.random.default_rng(0).normal(size=(3, 8, 8, 8)).astype(np.float32)
    figure = drawn(figures.slices_figure(volumes, ["a", "b", "c"], 10.0))
    axes = axes_with_images(figure)
    assert len(axes) == 9
    assert [a.get_title() for a in axes[:3]] == ["a", "b", "c"]
    assert [a.get_ylabel() for a in axes[::3]] == ["central z slice", "central y slice", "central x slice"]
    assert {a.images[0].get_cmap().name for a in axes} == {"gray"}
    for column in range(3):
        for row, expected in enumerate(figures.central_slices(volumes[column])):
            np.testing.assert_array_equal(axes[3 * row + column].images[0].get_array(), expected)


@pytest.mark.parametrize(("voxel_size", "label"), [(10.0, "100 Å"), (9.2, "100 Å"), (1.7, "20 Å"), (20.0, "200 Å")])
def test_the_scale_bar_is_as_long_as_it_says(voxel_size, label):
    figure = figures.slices_figure(np.zeros((1, 32, 32, 32)), ["a"], voxel_size)
    first = axes_with_images(figure)[0]
    (bar,) = [patch for patch in first.patches if isinstance(patch, Rectangle)]
    assert [text.get_text() for text in first.texts] == [label]
    assert bar.get_width() * voxel_size == pytest.approx(float(label.split()[0]))
    assert bar.get_x() + bar.get_width() < 31.5


@pytest.mark.parametrize("voxel_size", [None, 0.0, float("nan")])
def test_no_scale_bar_where_the_voxel_size_is_unknown(voxel_size):
    figure = drawn(figures.slices_figure(np.zeros((1, 8, 8, 8)), ["a"], voxel_size))
    assert not axes_with_images(figure)[0].patches


def test_views_stand_below_their_original():
    rng = np.random.default_rng(1)
    original, first, second = rng.normal(size=(3, 2, 8, 8, 8)).astype(np.float32)
    axes = axes_with_images(drawn(figures.views_figure(original, first, second, ["a", "b"], 10.0)))
    assert [a.get_ylabel() for a in axes[::2]] == ["original", "view 1", "view 2"]
    for row, volumes in enumerate((original, first, second)):
        np.testing.assert_array_equal(axes[2 * row + 1].images[0].get_array(), volumes[1, 4])


def test_a_constant_volume_can_be_drawn():
    drawn(figures.slices_figure(np.full((1, 8, 8, 8), 3.0), ["flat"], 10.0))


def test_wrong_volumes_are_named():
    with pytest.raises(InputError, match=r"Received shape \(8, 8, 8\)"):
        figures.slices_figure(np.zeros((8, 8, 8)), ["a"])
    with pytest.raises(InputError, match="2 volumes and 1 titles"):
        figures.slices_figure(np.zeros((2, 8, 8, 8)), ["a"])


# === Curves ===

HISTORY = [
    {"epoch": 1, "loss": 5.0, "feature_std": 0.08, "pretext_accuracy": 0.1, "queue_fill": 0.5},
    {"epoch": 2, "loss": 4.0, "feature_std": 0.05, "pretext_accuracy": 0.4, "queue_fill": 1.0, "knn": 0.3},
    {"epoch": 3, "loss": float("nan"), "feature_std": 0.06, "pretext_accuracy": 0.5, "queue_fill": 1.0, "knn": ""},
]


def test_a_column_skips_what_was_not_recorded_and_reads_text():
    np.testing.assert_array_equal(figures.column(HISTORY, "knn"), [[2], [0.3]])
    np.testing.assert_array_equal(figures.column(HISTORY, "loss"), [[1, 2], [5.0, 4.0]])
    np.testing.assert_array_equal(figures.column([{"epoch": "4", "loss": "2.5"}], "loss"), [[4], [2.5]])
    assert figures.column(HISTORY, "nothing")[0].shape == (0,)


def test_curves_show_the_columns_and_the_lines_to_judge_them_by():
    figure = drawn(figures.curves_figure(HISTORY, dim=128, chance=0.1))
    loss, knn, spread, pretext = figure.axes
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [5.0, 4.0])
    np.testing.assert_array_equal(knn.lines[0].get_ydata(), [0.3])
    assert knn.lines[1].get_ydata()[0] == 0.1
    assert spread.lines[1].get_ydata()[0] == pytest.approx(1 / np.sqrt(128))
    assert spread.get_ylim()[0] == 0 and spread.get_ylim()[1] > 1 / np.sqrt(128)
    np.testing.assert_array_equal(pretext.lines[1].get_ydata(), [0.5, 1.0, 1.0])
    assert all(a.get_title(loc="left") and a.get_xlabel() == "epoch" and a.get_ylabel() for a in figure.axes)


def test_what_was_not_recorded_has_no_panel():
    history = [{"epoch": 1, "loss": 1.0, "feature_std": 0.1, "pretext_accuracy": 0.5}]
    titles = [panel.get_title(loc="left") for panel in drawn(figures.curves_figure(history, chance=0.1)).axes]
    assert len([title for title in titles if title]) == 3 and "kNN on frozen features" not in titles
    assert len([p for p in drawn(figures.curves_figure([])).axes if p.get_title(loc="left")]) == 1


def test_a_classifiers_curves_are_told_apart_and_its_best_epoch_is_marked():
    history = [
        {"epoch": e, "loss": 3.0 - e, "accuracy": 0.2 * e, "val_loss": 4.0 - e, "val_accuracy": 0.1 * e} for e in (1, 2)
    ]
    figure = drawn(figures.classification_curves_figure(history, best_epoch=2, chance=0.25))
    loss, accuracy = figure.axes
    for axes, training, validation in ((loss, [2, 1], [3, 2]), (accuracy, [0.2, 0.4], [0.1, 0.2])):
        lines = {line.get_label(): line for line in axes.lines}
        np.testing.assert_allclose(lines["training"].get_ydata(), training)
        np.testing.assert_allclose(lines["validation"].get_ydata(), validation)
        assert list(lines["kept (best)"].get_xdata()) == [2, 2]
    assert any(np.ravel(line.get_ydata())[0] == 0.25 for line in accuracy.lines)
    assert "chance" in all_text(figure)


# === Embedding and confusion ===


def test_points_have_the_colour_of_their_class():
    points = np.random.default_rng(2).normal(size=(60, 2))
    labels = np.arange(60) % 3
    figure = drawn(figures.embedding_figure({"before": points, "after": -points}, labels, ["a", "b", "c"]))
    before, after = figure.axes
    assert (before.get_title(loc="left"), after.get_title(loc="left")) == ("before", "after")
    assert before.get_xlabel() == "t-SNE 1" and before.get_ylabel() == "t-SNE 2"
    shown = after.collections[0]
    palette = figures.class_colours(3)
    for place, colour in zip(shown.get_offsets(), shown.get_facecolors(), strict=True):
        label = labels[np.flatnonzero((-points == place).all(axis=1))[0]]
        np.testing.assert_allclose(colour[:3], palette[label])
    assert [text.get_text() for text in figure.legends[0].texts] == ["a", "b", "c"]


def test_an_unlabelled_embedding_has_one_colour_and_no_legend():
    points = np.random.default_rng(3).normal(size=(20, 2))
    figure = drawn(figures.embedding_figure({"all": points}))
    assert not figure.legends
    np.testing.assert_allclose(figure.axes[0].collections[0].get_facecolors()[:, :3], [to_rgb(figures.ACCENT)])


def test_samples_without_a_label_are_grey_beside_the_others():
    points, labels = np.random.default_rng(4).normal(size=(20, 2)), np.repeat([-1, 0], 10)
    figure = drawn(figures.embedding_figure({"all": points}, labels, ["a"]))
    grey = figure.axes[0].collections[0]
    assert len(grey.get_offsets()) == 10
    np.testing.assert_allclose(grey.get_facecolors()[:, :3], [to_rgb(figures.FAINT)])


@pytest.mark.parametrize("count", [1, 10, 20, 50])
def test_colours_are_all_different(count):
    assert len({tuple(np.round(c, 6)) for c in figures.class_colours(count)}) == count


def test_the_gallery_draws_one_sample_a_square_where_the_embedding_puts_it():
    points = np.array([[0.0, 0.0], [0.1, 0.1], [10.0, 0.0], [10.0, 10.0]])
    images = np.arange(4)[:, None, None] + np.eye(4)
    axes = drawn(figures.gallery_figure(points, images, cells=10)).axes[0]
    drawn_at = {tuple(np.floor(image.get_extent())[[0, 2]].astype(int)): image.get_array() for image in axes.images}
    assert set(drawn_at) == {(0, 0), (9, 0), (9, 9)}
    np.testing.assert_array_equal(drawn_at[0, 0], images[1])  # nearer the middle of the square than sample 0
    np.testing.assert_array_equal(drawn_at[9, 0], images[2])
    with pytest.raises(InputError, match=r"\(3, 2\)"):
        figures.gallery_figure(points[:3], images)


def test_confusion_is_coloured_by_the_share_of_the_true_class_and_counts_are_written():
    figure = figures.confusion_figure([[3, 1], [0, 0]], ["proteasome", "groel"])
    axes = axes_with_images(figure)[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0, 0]])
    text = all_text(figure)
    assert "proteasome" in text and "groel" in text and "predicted class" in text and "true class" in text
    assert sorted(t.get_text() for t in axes.texts) == ["1", "3"]


def test_fifty_classes_fit():
    names = [f"a_rather_long_structure_name_{i}" for i in range(50)]
    drawn(figures.confusion_figure(np.eye(50, dtype=int), names))
    figure = drawn(figures.embedding_figure({"x": np.random.default_rng(5).normal(size=(50, 2))}, np.arange(50), names))
    box = figure.legends[0].get_window_extent()
    assert box.y0 >= 0 and box.y1 <= figure.bbox.y1 and box.x1 <= figure.bbox.x1


def test_a_confusion_matrix_of_another_size_is_named():
    with pytest.raises(InputError, match=r"2 x 2. Received shape \(3, 3\)"):
        figures.confusion_figure(np.eye(3), ["a", "b"])


# === Calibration ===


def test_reliability_has_a_bar_a_filled_bin():
    bins = reliability_bins(np.array([0.15, 0.55, 0.55, 0.95]), np.array([False, True, False, True]), bins=10)
    figure = drawn(figures.reliability_figure(bins, 0.125))
    upper, lower = figure.axes
    bars = [(p.get_x() + p.get_width() / 2, p.get_height()) for p in upper.patches]
    assert bars == [(pytest.approx(0.15), 0), (pytest.approx(0.55), 0.5), (pytest.approx(0.95), 1)]
    assert [p.get_height() for p in lower.patches] == [1, 2, 1]
    assert "Calibration error 0.125" in all_text(figure)


def test_pyplot_is_never_used():
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
