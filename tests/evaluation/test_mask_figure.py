"""Outlines along voxel edges, and figures of masks and scores that show what they are given."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.mask_figure import mask_figure, outline, volumes_figure
from aitom_ssl.evaluation.score_figure import scores_figure


def edges(mask):
    axes = Figure().subplots()
    outline(axes, mask, "red")
    (lines,) = (c for c in axes.collections if isinstance(c, LineCollection))
    return {tuple(map(tuple, line)) for line in lines.get_segments()}


def test_the_outline_of_one_voxel_is_its_four_sides():
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True
    corners = {(1.5, 0.5), (2.5, 0.5), (1.5, 1.5), (2.5, 1.5)}
    found = edges(mask)
    assert len(found) == 4 and {point for line in found for point in line} == corners


def test_outlines_have_the_length_of_the_perimeter():
    mask = np.zeros((5, 6), bool)
    mask[0:2, 0:3] = True  # in the corner: the rim is an edge too
    assert len(edges(mask)) == 2 * (2 + 3)
    mask[4, 5] = True
    assert len(edges(mask)) == 10 + 4
    assert edges(np.zeros((3, 3), bool)) == set()


def test_a_figure_has_three_slices_a_particle_and_both_outlines():
    volumes = np.random.default_rng(0).normal(size=(4, 6, 6, 6))
    masks = volumes > 1
    assert len(mask_figure(volumes, masks, list("abcd"), 10.0).axes) == 12
    both = mask_figure(volumes, masks, list("abcd"), truth=~masks, columns=2)
    assert all(len(axes.collections) == 2 for axes in both.axes)
    assert {text.get_text() for text in both.texts} == {"predicted", "true"}
    with pytest.raises(InputError, match="Masks have shape"):
        mask_figure(volumes, masks[:, 1:], list("abcd"))


def test_volumes_of_one_class_and_of_several():
    one = volumes_figure({"all": np.array([3.0, 4.0, 9.0])}).axes[0]
    assert sum(patch.get_height() for patch in one.patches) == 3 and one.get_xlim()[0] == 0
    several = volumes_figure({"a": np.array([3.0]), "b": np.array([5.0, 6.0])}).axes[0]
    assert [label.get_text() for label in several.get_yticklabels()] == ["a", "b"]
    assert [len(points.get_offsets()) for points in several.collections] == [1, 2]
    with pytest.raises(InputError, match="no volumes"):
        volumes_figure({})


def test_scores_stand_against_the_threshold():
    figure = scores_figure({"known": np.array([0.9, 0.8]), "unknown": np.empty(0)}, np.array([0.1, 0.9, 0.95]), 0.4)
    upper, lower = figure.axes
    assert sum(p.get_height() for p in upper.patches) == pytest.approx(1.0)
    assert sum(p.get_height() for p in lower.patches) == 3
    assert all(axes.lines[0].get_xdata()[0] == 0.4 for axes in figure.axes)
    assert [text.get_text() for text in upper.get_legend().get_texts()] == ["known"]
