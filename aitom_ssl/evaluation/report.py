"""A report as one HTML file: text, tables and pictures inside it, no network, no script."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from aitom_ssl import environment
from aitom_ssl.errors import InputError
from aitom_ssl.files import atomic_write

_WIDE = 8  # columns beyond which a table is set closer


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text; the first row is the header unless `header` is False (then the first column is)."""

    rows: Sequence[Sequence[str]]
    caption: str = ""
    header: bool = True


@dataclasses.dataclass(frozen=True)
class Picture:
    """A matplotlib figure, embedded as PNG; the caption is also the text for readers who cannot see it."""

    figure: Figure
    caption: str


@dataclasses.dataclass(frozen=True)
class Command:
    """Text to copy into a terminal."""

    text: str


@dataclasses.dataclass(frozen=True)
class Highlights:
    """A few results in large type: (value, what it is) pairs."""

    items: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what stands under it; a plain string is a paragraph."""

    title: str
    blocks: Sequence[str | Table | Picture | Command | Highlights]


def write_report(path: str | os.PathLike, title: str, sections: Sequence[Section], subtitle: str = "") -> Path:
    """Write `sections` to `path` as one self-contained HTML file, whole or not at all. All text is escaped."""
    path = Path(path)
    lead = f'<p class="subtitle">{html.escape(subtitle)}</p>' if subtitle else ""
    body = "\n".join(_section(section) for section in sections)
    document = _PAGE.format(title=html.escape(title), style=_STYLE, lead=lead, body=body)
    with atomic_write(path) as temporary:
        temporary.write_text(document, encoding="utf-8")
    return path


def _section(section: Section) -> str:
    blocks = "\n".join(_block(block) for block in section.blocks)
    heading = f"<h2>{html.escape(section.title)}</h2>" if section.title else ""
    return f"<section>{heading}\n{blocks}\n</section>"


def _block(block: str | Table | Picture | Command | Highlights) -> str:
    if isinstance(block, str):
        return f"<p>{html.escape(block)}</p>"
    if isinstance(block, Command):
        return f"<pre>{html.escape(block.text)}</pre>"
    if isinstance(block, Highlights):
        cells = [f"<div><b>{html.escape(v)}</b><span>{html.escape(name)}</span></div>" for v, name in block.items]
        return f'<div class="highlights">{"".join(cells)}</div>'
    if isinstance(block, Picture):
        return _picture(block)
    if isinstance(block, Table):
        return _table(block)
    raise InputError(f"A report holds text, Table, Picture, Command or Highlights. Received {type(block).__name__}.")


def _picture(picture: Picture) -> str:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names in scripts that the font lacks are drawn as boxes; the tables have them.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        picture.figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    caption = html.escape(picture.caption)
    # Drawn at 150 dots an inch, shown at 100: sharp on dense screens.
    width = round(picture.figure.get_figwidth() * 100)
    image = f'<img src="data:image/png;base64,{data}" width="{width}" alt="{caption}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _table(table: Table) -> str:
    caption = f"<figcaption>{html.escape(table.caption)}</figcaption>" if table.caption else ""
    kind = ' class="facts"' if not table.header else ' class="wide"' if len(table.rows[0]) > _WIDE else ""
    rows = []
    for index, row in enumerate(table.rows):
        tags = ["th" if (table.header and index == 0) or column == 0 else "td" for column in range(len(row))]
        # A value stays on one line with its spread.
        cells = [html.escape(cell.replace(" ± ", "\u00a0±\u00a0")) for cell in row]
        rows.append("".join(f"<{tag}>{cell}</{tag}>" for tag, cell in zip(tags, cells, strict=True)))
    return f"<figure><table{kind}>" + "".join(f"<tr>{row}</tr>" for row in rows) + f"</table>{caption}</figure>"


def aligned(rows: Sequence[Sequence[str]], gap: int = 2) -> list[str]:
    """Lines of plain text: cells to the left, columns aligned, `gap` blanks between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [(gap * " ").join(map(str.ljust, row, widths)).rstrip() for row in rows]


def duration(seconds: float) -> str:
    """0.4 -> 0s, 72 -> 1m12s, 14200 -> 3h56m."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


# === Sections that every report has ===


def machine_facts() -> list[list[str]]:
    """Rows of a table of facts: this machine, and the versions that computed."""
    versions, machine = environment.versions(), environment.machine()
    return [
        ["machine", f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}"],
        ["versions", ", ".join(f"{name} {versions[name]}" for name in ("aitom_ssl", "python", "keras", "tensorflow"))],
    ]


def settings_section(config: Mapping[str, Any]) -> Section:
    """Every entry of `config`, entries of entries as `a.b`, and every version."""
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions().items())
    return Section("Settings", [Table(_flat(config), header=False), f"Versions: {versions}."])


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            rows.append((f"{prefix}{key}", shown))
    return rows


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{lead}
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f5f7f9; color: #1f2933;
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 36px 24px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 0 0 10px; }
.subtitle { color: #616e7c; margin: 0 0 20px; }
section { background: #fff; border: 1px solid #e4e7eb; border-radius: 10px; padding: 22px 26px; margin: 18px 0; }
p { max-width: 46em; margin: 8px 0; }
figure { margin: 14px 0 4px; overflow-x: auto; }
img { display: block; max-width: 100%; height: auto; }
figcaption { color: #52606d; font-size: .88rem; max-width: 60em; margin-top: 8px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { text-align: left; padding: 5px 26px 5px 0; border-bottom: 1px solid #e4e7eb; vertical-align: top; }
th { font-weight: 600; }
table.facts th { font-weight: 400; color: #616e7c; white-space: nowrap; }
table.facts td { overflow-wrap: anywhere; }
table.wide { font-size: .85rem; }
table.wide th, table.wide td { padding-right: 14px; }
pre { background: #1f2933; color: #f5f7f9; padding: 12px 14px; border-radius: 8px; overflow-x: auto;
      font: .86rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap; }
.highlights { display: flex; flex-wrap: wrap; gap: 12px; margin: 4px 0 14px; }
.highlights div { flex: 1 1 180px; background: #f0f5fb; border-radius: 8px; padding: 12px 16px; }
.highlights b { display: block; font-size: 1.45rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.highlights span { color: #52606d; font-size: .88rem; }
@media print { body { background: #fff; } section { break-inside: avoid; border: 0; padding: 0; } }
"""
