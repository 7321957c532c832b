"""Shaded surfaces: what is seen of balls, from where, at which level."""

import numpy as np
import pytest

from aitom_ssl.discovery.surface_figure import shaded_surface, structures_figure, surface_level, without_dust
from aitom_ssl.errors import InputError

N = 24


def ball(centre=(0, 0, 0), radius=5.0, n=N):
    """(n, n, n) that falls from the centre (x, y, z) on; `radius` - distance."""
    z, y, x = np.indices((n, n, n)) - n // 2
    return radius - np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)


def test_a_ball_is_a_disc_of_its_radius():
    picture = shaded_surface(ball(radius=6.0), 0.0, pixels=96)
    covered = (picture < 1).sum() * (N / 96) ** 2
    assert covered == pytest.approx(np.pi * 36, rel=0.06)
    assert picture.shape == (96, 96) and picture.min() >= 0 and picture.max() == 1


def test_the_light_comes_from_the_upper_left():
    picture = shaded_surface(ball(radius=8.0), 0.0, pixels=96, view=(0, 0, 0))
    assert picture[30, 30] > picture[48, 66] and picture[30, 30] > picture[66, 66] + 0.2


def test_what_is_nearer_hides_what_is_behind():
    # Looked at along z, from low z: of two balls in line the nearer, smaller one is in front of the larger.
    both = np.maximum(ball((0, 0, -6), 2.5), ball((0, 0, 5), 5.0))
    alone = shaded_surface(ball((0, 0, -6), 2.5), 0.0, view=(0, 0, 0))
    picture = shaded_surface(both, 0.0, view=(0, 0, 0))
    middle = slice(44, 52)
    np.testing.assert_allclose(picture[middle, middle], alone[middle, middle], atol=0.02)
    assert (picture < 1).sum() > 2 * (alone < 1).sum()


def test_a_turn_moves_what_is_seen():
    # +x goes to -z by a quarter turn about y, straight towards the viewer: to the middle of the picture.
    volume = ball((7, 0, 0), 3.0)
    plain, turned = (shaded_surface(volume, 0.0, view=(0, tilt, 0)) for tilt in (0, 90))
    columns = [np.argwhere(picture < 1)[:, 1].mean() for picture in (plain, turned)]
    assert columns[0] == pytest.approx(47.5 + 7 * 96 / N, abs=3) and columns[1] == pytest.approx(47.5, abs=3)


def test_nothing_at_the_level_is_an_empty_picture():
    assert (shaded_surface(ball(), 100.0) == 1).all()


def test_the_level_encloses_what_was_asked_for():
    volume = ball((0.31, 0.17, 0.07), 7.0)  # no two voxels are as far away
    assert (volume > surface_level(volume, 300)).sum() == pytest.approx(300, abs=2)
    inside = np.where(volume > 0, 1.0, 0.0)
    assert 0.2 < surface_level(inside) < 0.8  # between the two values
    with pytest.raises(InputError, match="more than 0 and not all"):
        surface_level(volume, N**3)


def test_dust_goes_and_pieces_stay():
    volume = np.maximum(np.maximum(ball((-5, 0, 0), 4.0), ball((6, 0, 0), 3.0)), ball((0, 9, 0), 1.0))
    cleaned = without_dust(volume, 0.0)
    assert cleaned[N // 2, N // 2, N // 2 - 5] > 0 and cleaned[N // 2, N // 2, N // 2 + 6] > 0
    assert cleaned[N // 2, N // 2 + 9, N // 2] == 0
    assert without_dust(ball(), 0.0) is not None and (without_dust(ball(), 0.0) == ball()).all()


def test_a_figure_has_a_column_each():
    figure = structures_figure([ball(), ball(radius=3.0)], ["one", "two"], 10.0, [400, None])
    assert len(figure.axes) == 6 and [axes.get_title() for axes in figure.axes[:2]] == ["one", "two"]
    with pytest.raises(InputError, match="give one each"):
        structures_figure([ball()], [], 10.0)


def test_no_cube_and_no_numbers_are_refused():
    with pytest.raises(InputError, match="finite cube"):
        shaded_surface(np.zeros((4, 4, 5)), 0.0)
    with pytest.raises(InputError, match="finite cube"):
        shaded_surface(np.full((4, 4, 4), np.nan), 0.0)
