"""Contact sheets: pages of subtomograms to judge by eye, one row a sample, written as PNG.

A row has the central z, y and x slices, as they are, and projections of the box's middle half along z, y and x,
low-passed: at a low signal-to-noise ratio a particle is seen in those alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import ndimage

from aitom_ssl.errors import InputError
from aitom_ssl.files import atomic_write
from aitom_ssl.geometry import centre

FINEST = 5.0  # voxels: what the low-passed images still show half of
COLUMNS, ROWS = 2, 9  # rows of samples on a page, and columns of them
PANELS = ("z slice", "y slice", "x slice", "z projection", "y projection", "x projection")
_SMALLEST, _GAP, _TEXT, _HEAD, _APART, _DPI = 112, 4, 260, 66, 26, 100  # pixels
_INK, _FAINT = "#1f2933", "#616e7c"


class Card(NamedTuple):
    """What stands beside the images of a sample; every field one line."""

    title: str
    lines: Sequence[str] = ()


def low_pass(volumes: np.ndarray, finest: float = FINEST) -> np.ndarray:
    """A (..., z, y, x) array convolved with the Gaussian that halves waves of `finest` voxels (> 0), as float32.

    A wave of that length is halved: sigma = finest sqrt(ln 2 / 2) / pi. Beyond the box its edge goes on.
    """
    sigma = finest * math.sqrt(math.log(2) / 2) / math.pi
    spread = (0.0,) * (volumes.ndim - 3) + (sigma,) * 3
    return ndimage.gaussian_filter(volumes, spread, output=np.float32, mode="nearest")


def panels(volume: np.ndarray) -> list[np.ndarray]:
    """The images of a (z, y, x) volume in the order of `PANELS`: (y, x), (z, x), (z, y), and those again."""
    smooth, sides = low_pass(volume), list(enumerate(volume.shape))
    slices = [volume.take(centre(side), axis) for axis, side in sides]
    return [*slices, *(smooth.take(middle_half(side), axis).mean(axis) for axis, side in sides)]


def middle_half(side: int) -> range:
    """Slices that are projected: the neighbours of a particle lie before and behind them."""
    return range(side // 4, side - side // 4)


def grey_levels(image: np.ndarray, cut: float = 1.0) -> np.ndarray:
    """uint8: 0 for the lowest `cut` per cent, 255 for the highest, linear between; all 0 where nothing varies."""
    low, high = np.percentile(image, (cut, 100 - cut))
    return np.clip((image - low) * (255 / max(high - low, 1e-12)), 0, 255).astype(np.uint8)


def sheet(volumes: np.ndarray, cards: Sequence[Card], heading: Sequence[str]) -> Figure:
    """One page: `volumes` (n, z, y, x) with their `cards`, down the first column and then the next.

    n is 1 to COLUMNS * ROWS; heading: up to two lines. The first index of an image grows upwards.
    """
    if not 1 <= len(volumes) <= COLUMNS * ROWS or len(cards) != len(volumes):
        raise InputError(
            f"A contact sheet has 1 to {COLUMNS * ROWS} volumes. Received {len(volumes)}, with {len(cards)} cards."
        )
    enlarged = max(1, math.ceil(_SMALLEST / volumes.shape[1]))
    side = volumes.shape[1] * enlarged
    columns, rows = math.ceil(len(volumes) / ROWS), min(len(volumes), ROWS)
    wide, tall = len(PANELS) * (side + _GAP) + _TEXT + _APART, side + _GAP
    width, height = columns * wide + _APART, _HEAD + rows * tall + _APART
    page = np.full((height, width), 255, np.uint8)
    places = [(_APART + (k // ROWS) * wide, _HEAD + (k % ROWS) * tall) for k in range(len(volumes))]
    for (left, top), volume in zip(places, volumes, strict=True):
        for number, image in enumerate(panels(volume)):
            shown = grey_levels(image)[::-1].repeat(enlarged, axis=0).repeat(enlarged, axis=1)
            start = left + number * (side + _GAP)
            page[top : top + side, start : start + side] = shown
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(page, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=(0, width, height, 0))
    style = {"color": _INK, "va": "top"}
    for number, line in enumerate(heading):
        weight = {"fontsize": 11, "fontweight": "bold"} if number == 0 else {"fontsize": 8.5, "color": _FAINT}
        axes.text(_APART, 10 + 20 * number, line, **{**style, **weight})
    for column in range(columns):
        for number, name in enumerate(PANELS):
            middle = _APART + column * wide + number * (side + _GAP) + side / 2
            axes.text(middle, _HEAD - 4, name, fontsize=7, color=_FAINT, ha="center", va="bottom")
    for (left, top), card in zip(places, cards, strict=True):
        start = left + len(PANELS) * (side + _GAP) + 8
        axes.text(start, top + 4, _short(card.title), fontsize=9, fontweight="bold", **style)
        for number, line in enumerate(card.lines):
            axes.text(start, top + 24 + 16 * number, _short(line), fontsize=8, **style)
    return figure


def write_sheets(
    folder: Path, volume: Callable[[int], np.ndarray], cards: Sequence[Card], heading: Sequence[str]
) -> Iterator[Path]:
    """Write `contact_sheet_1.png`, ... into `folder`, one page in memory at a time; yields each as it is there.

    volume(k): the (z, y, x) array of `cards[k]`. heading: as in `sheet`; the first line is completed by the pages.
    """
    each = COLUMNS * ROWS
    pages = math.ceil(len(cards) / each)
    digits = len(str(pages))
    for page in range(pages):
        shown = range(page * each, min((page + 1) * each, len(cards)))
        title = heading[0] if pages == 1 else f"{heading[0]}: page {page + 1} of {pages}"
        figure = sheet(np.stack([volume(k) for k in shown]), [cards[k] for k in shown], [title, *heading[1:]])
        path = folder / f"contact_sheet_{page + 1:0{digits}d}.png"
        with atomic_write(path) as temporary, warnings.catch_warnings():
            # Names in scripts that the font lacks are drawn as boxes; the table has them.
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            figure.savefig(temporary, format="png", metadata={"Software": None})
        yield path


def _short(text: str, limit: int = 30) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
