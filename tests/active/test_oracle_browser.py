"""Answers on a web page: a person at a real browser, a process that is killed, Ctrl-C, and two processes at once."""

import contextlib
import json
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from small_questions import CLASSES, make_dataset, make_query

pytest.importorskip("flask", reason="the label page needs flask: pip install 'aitom_ssl[browser]'")
pytest.importorskip("waitress", reason="the label page needs waitress: pip install 'aitom_ssl[browser]'")

from aitom_ssl.active import label_server, oracle_browser
from aitom_ssl.active.answer_journal import Journal
from aitom_ssl.active.oracle import Answers
from aitom_ssl.active.oracle_browser import BrowserOracle
from aitom_ssl.errors import InputError
from aitom_ssl.files import claimed

SAMPLES = (7, 2, 5, 9)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
ASK = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from small_questions import CLASSES, make_query
from aitom_ssl.active.oracle_browser import BrowserOracle
from aitom_ssl.data import Dataset
print(BrowserOracle(say=lambda text: print(text, flush=True)).ask(
    make_query({samples}), Dataset({data!r}), CLASSES, Path({folder!r})))
"""


AFTERWARDS = oracle_browser._AFTERWARDS


@pytest.fixture(autouse=True)
def short_end(monkeypatch):
    """The tests wait only as long as the tab that ended it needs."""
    monkeypatch.setattr(oracle_browser, "_AFTERWARDS", 0.2)


@pytest.fixture
def data(tmp_path):
    return make_dataset(tmp_path / "toy")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "answers"


def address(text):
    return re.search(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", text)[0]


class Asking:
    """`oracle.ask` in a thread: where its page is, and what it returns."""

    def __init__(self, data, folder, samples=SAMPLES, classes=CLASSES, oracle=None, cycle=1):
        self.said, self.found = queue.Queue(), None
        self.oracle = oracle or BrowserOracle()
        self.oracle._say = self.said.put
        query = make_query(samples, cycle, guesses=[0] * len(samples))

        def ask():
            self.found = self.oracle.ask(query, data, classes, folder)

        self.thread = threading.Thread(target=ask, daemon=True)
        self.thread.start()
        self.url = address(self.said.get(timeout=20))

    def answers(self):
        self.thread.join(timeout=20)
        assert not self.thread.is_alive()
        return self.found


def post(url, path, **body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@contextlib.contextmanager
def process(data, folder):
    """Another process that asks; yields it and the address of its page."""
    where = {"tests": str(Path(__file__).parent), "data": str(data.folder), "folder": str(folder), "samples": SAMPLES}
    # What starts the tests may ignore Ctrl-C; the process must not inherit that.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + ASK.format(**where)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen([sys.executable, "-c", code], **pipes)
    try:
        lines = []
        while not any("http://" in line for line in lines):
            line = running.stdout.readline()
            assert line, running.stderr.read()
            lines.append(line)
        yield running, address("".join(lines))
    finally:
        running.kill()
        running.communicate()


# === Without a browser ===


def test_it_ends_when_all_are_answered(data, folder, monkeypatch):
    monkeypatch.setattr(label_server, "GRACE", 0.2)
    asking = Asking(data, folder)
    for sample, answer in zip(SAMPLES, (1, "skip", "junk", 0), strict=True):
        post(asking.url, "answer", sample=sample, answer=answer, before=None)
    assert asking.answers() == Answers({7: 1, 9: 0}, (2,), (5,))
    assert asking.said.get(timeout=5).startswith("2 labelled, 1 skipped, 1 junk: ")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(asking.url, timeout=5)


def test_finish_skips_the_rest_and_what_was_skipped_can_be_answered_when_asked_again(data, folder, monkeypatch):
    asking = Asking(data, folder)
    post(asking.url, "answer", sample=5, answer=2, before=None)
    assert post(asking.url, "finish")["finished"]
    assert asking.answers() == Answers({5: 2}, (7, 2, 9), ())
    asking = Asking(data, folder)
    for sample in (7, 2, 9):
        post(asking.url, "answer", sample=sample, answer="skip", before=None)
    post(asking.url, "finish")
    assert asking.answers() == Answers({5: 2}, (7, 2, 9), ())
    monkeypatch.setattr(label_server, "GRACE", 0.2)
    asking = Asking(data, folder)
    asking.thread.join(timeout=1)
    assert asking.thread.is_alive()  # all have an answer: time to change the skipped ones
    post(asking.url, "answer", sample=2, answer=1, before="skip")
    assert asking.answers() == Answers({5: 2, 2: 1}, (7, 9), ())


def test_nobody_is_asked_again_when_nothing_was_skipped(data, folder):
    folder.mkdir()
    journal = Journal(folder / "answers.jsonl", SAMPLES, CLASSES)
    for sample, answer in zip(SAMPLES, (1, "junk", 0, 0), strict=True):
        journal.answer(sample, answer, None)
    journal.close()
    silent = BrowserOracle(say=lambda text: pytest.fail("asked again"))
    assert silent.ask(make_query(SAMPLES), data, CLASSES, folder) == Answers({7: 1, 5: 0, 9: 0}, (), (2,))


def test_a_kill_and_ctrl_c_lose_nothing(data, folder):
    with process(data, folder) as (running, url):
        post(url, "answer", sample=7, answer=2, before=None)
        post(url, "answer", sample=2, answer="junk", before=None)
        running.kill()
        running.wait()
    with process(data, folder) as (running, url):
        with urllib.request.urlopen(url + "state", timeout=10) as answer:
            assert json.load(answer)["answers"] == [2, "junk", None, None]
        with pytest.raises(InputError, match="Another process asks"):  # two at once
            BrowserOracle().ask(make_query(SAMPLES), data, CLASSES, folder)
        post(url, "answer", sample=9, answer=1, before=None)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=20)
        assert f"KeyboardInterrupt: 3 of 4 answers are kept in {folder / 'answers.jsonl'}" in errors
    asking = Asking(data, folder)
    post(asking.url, "finish")
    assert asking.answers() == Answers({7: 2, 9: 1}, (5,), (2,))


def test_the_next_cycle_has_the_same_address(data, tmp_path):
    first = Asking(data, tmp_path / "1")
    post(first.url, "finish")
    first.answers()
    second = Asking(data, tmp_path / "2", oracle=first.oracle, cycle=2)
    assert second.url == first.url
    post(second.url, "finish")
    second.answers()
    assert address(f"http://127.0.0.1:1/{BrowserOracle()._token}/").split("/")[3] != first.url.split("/")[3]


def test_what_cannot_be_asked(data, folder, monkeypatch):
    with pytest.raises(InputError, match=r"port is 70000: expected 0 .* to 65535"):
        BrowserOracle(70000)
    with claimed(folder / ".answering"), pytest.raises(InputError, match="Another process asks"):
        BrowserOracle().ask(make_query(SAMPLES), data, CLASSES, folder)
    monkeypatch.setattr(oracle_browser.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs flask and waitress: pip install 'aitom_ssl\[browser\]'"):
        BrowserOracle()


# === A person at Chromium ===


@pytest.fixture(scope="module")
def chromium():
    driver = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt install chromium")
    with driver.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Opens the page of an address in a window; at the end nothing was wrong in it, and nothing came from elsewhere."""
    opened, foreign, wrong = [], [], []

    def open_(url, width=1366, height=650):
        page = chromium.new_page(viewport={"width": width, "height": height})
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        local = ("http://127.0.0.1:", "data:")
        page.on("request", lambda request: None if request.url.startswith(local) else foreign.append(request.url))
        page.goto(url)
        opened.append(page)
        seen(page)
        return page

    yield open_
    for page in opened:
        page.close()
    # Of a connection that is gone, Chromium tells; of an answer that was refused, too.
    expected = "ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "409"
    wrong = [text for text in wrong if not any(word in text for word in expected)]
    assert not foreign and not wrong


def until(page, ready):
    """Wait for `ready()`; the page's policy forbids playwright's own waiting, which evaluates text."""
    for _ in range(400):
        if ready():
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never came: {page.inner_text('body')}")


def seen(page):
    """Wait until the sample is drawn."""
    until(page, lambda: page.evaluate("shown !== null"))


def says(page, id_, text):
    until(page, lambda: text in page.text_content(f"#{id_}"))


def pixels(page, view):
    return page.evaluate("id => document.getElementById(id).toDataURL()", view)


def test_a_person_labels_with_the_keyboard(data, folder, open_page):
    asking = Asking(data, folder)
    page = open_page(asking.url)
    assert page.title() == "Label toy, cycle 1"
    says(page, "name", "Sample 7")
    page.keyboard.press("2")
    says(page, "message", "Sample 7: proteasome. Saved.")
    says(page, "name", "Sample 2")
    seen(page)
    page.keyboard.press("Space")
    says(page, "name", "Sample 5")
    seen(page)
    page.keyboard.press(".")
    says(page, "progress", "3 of 4 answered: 1 labelled, 1 skipped, 1 junk")
    page.keyboard.press("Backspace")
    says(page, "message", "Sample 5: junk is taken back.")
    says(page, "name", "Sample 5")
    seen(page)
    page.keyboard.press("9")  # no class has that key
    page.keyboard.press("3")
    says(page, "name", "Sample 9")
    page.reload()
    seen(page)
    says(page, "progress", "3 of 4 answered: 2 labelled, 1 skipped, 0 junk")
    says(page, "name", "Sample 9")
    page.keyboard.press("ArrowLeft")
    says(page, "given", "TRiC")
    seen(page)
    page.keyboard.press("1")  # another answer to what was answered
    says(page, "message", "Sample 5: ribosome. Saved.")
    page.click("#finish")
    says(page, "sure-text", "One sample has no answer: it stays in the pool")
    page.keyboard.press("2")  # nothing is answered behind the question
    page.click("#sure-yes")
    says(page, "over-text", "2 labelled, 1 skipped, 0 junk, 1 without an answer.")
    assert page.is_visible("#over") and not page.is_visible("main")
    assert asking.answers() == Answers({7: 1, 5: 0}, (2, 9), ())


def test_slices_scroll_and_look_as_asked(data, folder, open_page):
    asking = Asking(data, folder)
    page = open_page(asking.url)
    first = {view: pixels(page, view) for view in ("z", "y", "x", "projection")}
    assert len(set(first.values())) == 4
    page.hover("#z")
    page.mouse.wheel(0, -100)
    says(page, "z-value", "5")
    assert pixels(page, "z") != first["z"]
    page.keyboard.press("ArrowDown")
    says(page, "z-value", "4")
    assert pixels(page, "z") == first["z"]
    for axis in "zyx":
        page.fill(f"#{axis}-slider", "0")
        says(page, f"{axis}-value", "0")
        page.fill(f"#{axis}-slider", "4")
    assert {view: pixels(page, view) for view in first} == first
    box = page.locator("#z").bounding_box()
    page.mouse.click(box["x"] + 0.95 * box["width"], box["y"] + 0.95 * box["height"])
    says(page, "x-value", "7")  # right is x, up is y
    says(page, "y-value", "0")
    page.fill("#contrast", "90")
    page.keyboard.press("-")
    assert page.input_value("#contrast") == "85" and pixels(page, "projection") != first["projection"]
    page.keyboard.press(",")
    seen(page)
    assert page.is_checked("#smooth") and "Low-pass (67.5 Å)" in page.inner_text("#smooth-name")
    assert page.inner_text("#guess") == ""  # shown only if wanted
    page.keyboard.press("?")
    says(page, "guess", "The model: ribosome, 40% sure")
    page.reload()
    seen(page)
    assert page.input_value("#contrast") == "85" and page.is_checked("#smooth") and page.is_checked("#show-guess")
    assert asking.thread.is_alive()
    post(asking.url, "finish")
    asking.answers()


def test_the_slices_are_those_of_the_volume(tmp_path, folder, open_page):
    """Each view is drawn with its first axis upwards: a voxel that alone is bright shows where each view has it."""
    import numpy as np

    from aitom_ssl.data import Dataset, write_dataset

    volume = np.zeros((8, 8, 8), np.float32)
    volume[4, 4, 1] = volume[4, 6, 4] = volume[7, 4, 4] = 1  # x = 1; y = 6; z = 7, on lines through the centre
    volume[0] = -1e-3  # so that something varies
    write_dataset(tmp_path / "d", "dots", CLASSES, 10.0, "bright", {"train": [{"volume": volume, "label": 0}] * 2})
    asking = Asking(Dataset(tmp_path / "d"), folder, samples=(0, 1))
    page = open_page(asking.url)
    brightness = """([id, across, up]) => {
        const canvas = document.getElementById(id), each = canvas.width / 8;
        const place = [Math.round((across + 0.3) * each), Math.round(canvas.height - (up + 0.7) * each)];
        return canvas.getContext("2d").getImageData(...place, 1, 1).data[0];
    }"""
    bright = {"z": {(1, 4), (4, 6)}, "y": {(1, 4), (4, 7)}, "x": {(6, 4), (4, 7)}}
    for view, places in bright.items():
        for across in range(1, 7):  # the lines lies on the border
            for up in (4, 6, 7):
                value = page.evaluate(brightness, [view, across, up])
                assert (value > 200) == ((across, up) in places), (view, across, up, value)
    post(asking.url, "finish")
    asking.answers()


def test_two_tabs_do_not_overwrite_each_other(data, folder, open_page):
    asking = Asking(data, folder)
    one = open_page(asking.url)
    two = open_page(asking.url)
    with urllib.request.urlopen(asking.url + "state", timeout=10) as answer:
        before = json.load(answer)
    two.route("**/state", lambda route: route.fulfill(json=before))  # it has not heard yet
    one.keyboard.press("1")
    says(one, "name", "Sample 2")
    two.keyboard.press("2")
    says(two, "message", "Sample 7 was answered elsewhere in the meantime.")
    says(two, "given", "ribosome")
    two.keyboard.press("2")  # now it knows
    says(two, "message", "Sample 7: proteasome. Saved.")
    one.keyboard.press("ArrowLeft")
    says(one, "given", "proteasome")  # which the first hears by itself
    post(asking.url, "finish")
    assert asking.answers().labels == {7: 1}


def test_a_killed_program_is_noticed_and_nothing_looks_saved(data, folder, open_page):
    with process(data, folder) as (running, url):
        page = open_page(url)
        page.keyboard.press("1")
        says(page, "name", "Sample 2")
        seen(page)
        running.kill()
        running.wait()
        page.keyboard.press("1")
        says(page, "message", "Not saved.")
        says(page, "name", "Sample 2")
        says(page, "banner", "No connection to the program")
        assert page.is_visible("#banner")
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 1


def test_an_open_tab_shows_the_next_cycle(data, tmp_path, open_page, monkeypatch):
    monkeypatch.setattr(oracle_browser, "_AFTERWARDS", AFTERWARDS)
    first = Asking(data, tmp_path / "1")
    page = open_page(first.url)
    post(first.url, "finish")
    says(page, "over-text", "4 without an answer")
    first.answers()
    second = Asking(data, tmp_path / "2", samples=(1, 3), oracle=first.oracle, cycle=2)
    says(page, "title", "toy, cycle 2: 1 of 2")
    post(second.url, "finish")
    second.answers()


def test_all_answered_leaves_time_to_take_the_last_back(data, folder, open_page):
    asking = Asking(data, folder, samples=(7, 2))
    page = open_page(asking.url)
    page.keyboard.press("1")
    says(page, "name", "Sample 2")
    seen(page)
    page.keyboard.press("1")
    says(page, "message", "All are answered. This ends in")
    page.keyboard.press("Control+z")
    says(page, "message", "Sample 2: ribosome is taken back.")
    assert asking.thread.is_alive()
    post(asking.url, "finish")
    assert asking.answers() == Answers({7: 0}, (2,), ())


def test_twenty_classes_fit_a_laptop_and_more_can_be_reached(tmp_path, folder, open_page):
    classes = [f"a complex with a long name, {k}" for k in range(60)]
    data = make_dataset(tmp_path / "many", classes=classes[:20])
    asking = Asking(data, folder, classes=classes[:20])
    page = open_page(asking.url, 1280, 600)
    page.keyboard.press("?")
    sizes = "[document.documentElement, document.querySelector('#classes'), document.querySelector('#side')]"
    fits = f"{sizes}.every(e => e.scrollHeight <= e.clientHeight + 1 && e.scrollWidth <= e.clientWidth + 1)"
    assert page.evaluate(fits)
    bottoms = page.evaluate("[...document.querySelectorAll('main *')].map(e => e.getBoundingClientRect().bottom)")
    assert max(bottoms) <= 600
    page.keyboard.press("p")
    says(page, "message", f"Sample 7: {classes[19]}. Saved.")
    post(asking.url, "finish")
    assert asking.answers().labels == {7: 19}
    asking = Asking(data, tmp_path / "more", classes=classes)
    page = open_page(asking.url, 1280, 600)
    assert page.evaluate("document.documentElement.scrollHeight") <= 600
    page.keyboard.press("Shift+a")
    says(page, "message", f"Sample 7: {classes[46]}. Saved.")
    seen(page)
    page.click(f"#classes button:nth-child({60})")
    says(page, "message", f"Sample 2: {classes[59]}. Saved.")
    post(asking.url, "finish")
    assert asking.answers().labels == {7: 46, 2: 59}


def test_names_are_text_whatever_they_look_like(tmp_path, folder, open_page):
    classes = ["<img src=x onerror=alert(1)>", "<b>bold</b>", "a & b"]
    data = make_dataset(tmp_path / "odd", classes=classes)
    asking = Asking(data, folder, classes=classes)
    page = open_page(asking.url)
    assert [text.split("\n")[-1] for text in page.locator("#classes button").all_inner_texts()] == classes
    page.keyboard.press("1")
    says(page, "message", f"Sample 7: {classes[0]}. Saved.")
    assert page.locator("main img, main b").count() == 0
    post(asking.url, "finish")
    asking.answers()
