import base64
import io
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from PIL import Image

from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.report import Command, Highlights, Picture, Section, Table, duration, write_report

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Every tag that opens closes in order; attributes are collected."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.links = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def a_figure():
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    return figure


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "report.html"
    sections = [
        Section("First <b>", ["A & B < C", Command("bin/train_moco --data='x' && echo"), Highlights([("0.5", "kNN")])]),
        Section("Second", [Table([["name", "value"], ["a<", "1"]], "of <two> rows"), Picture(a_figure(), 'A "curve"')]),
        Section("Third", [Table([["seed", "0"]], header=False)]),
    ]
    assert write_report(path, "Run <1>, Å", sections, "sub & title") == path
    return path.read_text(encoding="utf-8")


def test_it_is_well_formed_html_with_every_block(page):
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert [checker.seen.count(tag) for tag in ("section", "table", "img", "pre", "figcaption")] == [3, 2, 1, 1, 2]
    assert page.startswith("<!DOCTYPE html>") and '<meta charset="utf-8">' in page


def test_a_value_is_not_parted_from_its_spread(tmp_path):
    table = Table([["accuracy"], ["0.912 ± 0.004"]])
    text = write_report(tmp_path / "report.html", "x", [Section("", [table])]).read_text(encoding="utf-8")
    assert "0.912\u00a0±\u00a00.004" in text


def test_all_text_is_escaped(page):
    for text in ("First &lt;b&gt;", "A &amp; B &lt; C", "of &lt;two&gt; rows", "Run &lt;1&gt;, Å", "sub &amp; title"):
        assert text in page
    assert 'alt="A &quot;curve&quot;"' in page and "--data=&#x27;x&#x27; &amp;&amp; echo" in page


def test_nothing_comes_from_elsewhere(page):
    checker = Checker()
    checker.feed(page)
    assert all(link.startswith("data:") for link in checker.links)
    assert not re.search(r"https?://|url\(|@import|<script|<link", page)


def test_the_picture_inside_is_a_png_of_the_figures_size(page):
    data = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page).group(1)
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (300, 150) and 'width="200"' in page


def test_headers_of_tables(page):
    assert "<tr><th>name</th><th>value</th></tr><tr><th>a&lt;</th><td>1</td></tr>" in page
    assert "<tr><th>seed</th><td>0</td></tr>" in page


def test_a_failure_leaves_the_old_report_and_no_partial_file(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, "old", [])
    before = path.read_bytes()
    with pytest.raises(InputError, match="Received int"):
        write_report(path, "new", [Section("s", [3])])
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.6, "1m00s"), (72, "1m12s"), (3599.7, "1h00m"), (14200, "3h56m")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text
