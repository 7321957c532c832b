"""The local web page on which a person labels subtomograms: what it is sent, what it may do, and who may ask.

Bound to 127.0.0.1. Every address has a random token in it, which is compared in constant time; a request whose Host is
not this machine (another site's name that points here) or that another site's page sent is refused. The page loads
nothing from elsewhere, and its Content-Security-Policy forbids it to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import logging
import math
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import flask
import numpy as np
from waitress.server import create_server
from waitress.wasyncore import close_all, loop

from aitom_ssl.active.answer_journal import Disagreement, Journal
from aitom_ssl.active.contact_sheet import FINEST, grey_levels, low_pass
from aitom_ssl.active.oracle import JUNK, SKIP, Query
from aitom_ssl.data import Dataset
from aitom_ssl.errors import InputError, reason

ADDRESS = "127.0.0.1"
LOCAL = (ADDRESS, "localhost")
PAGE = {"label_page.html": "text/html", "label_page.css": "text/css", "label_page.js": "text/javascript"}
GRACE = 8.0
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the address is the secret
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_CLIPPED = 0.05  # per cent of the voxels at either end that the page cannot tell apart


@dataclasses.dataclass(frozen=True)
class Questions:
    """What is asked."""

    query: Query
    dataset: Dataset
    class_names: Sequence[str]
    grace: float  # seconds in which the last answer can be taken back

    def about(self) -> dict[str, Any]:
        """What the page knows from the start."""
        sure = [float(value) if math.isfinite(value) else None for value in self.query.confidences]
        return {
            "name": self.dataset.name,
            "cycle": int(self.query.cycle),
            "samples": [int(index) for index in self.query.indices],
            "guesses": [int(guess) for guess in self.query.guesses],
            "confidences": sure,
            "classes": list(self.class_names),
            "size": self.dataset.size,
            "voxel_size": self.dataset.voxel_size,
            "finest": FINEST * self.dataset.voxel_size,
            "contrast": self.dataset.contrast,
        }

    def closes_in(self, journal: Journal) -> float | None:
        """Seconds until it is over because all is answered; None while something is not.

        None too if all was answered before: whoever is asked again may change what was skipped, as slowly as need be.
        """
        if journal.version == 0 or journal.answered() < len(self.query.indices):
            return None
        return max(0.0, self.grace - (time.monotonic() - journal.changed))


def voxels(volume: np.ndarray, smooth: bool) -> bytes:
    """A (z, y, x) volume, low-passed or not, as one byte a voxel in that order."""
    return grey_levels(low_pass(volume) if smooth else volume, _CLIPPED).tobytes()


def application(questions: Questions, journal: Journal, token: str) -> flask.Flask:
    """The WSGI application whose page is at /TOKEN/."""
    app = flask.Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 4096
    files = {name: (Path(__file__).parent / name).read_bytes() for name in PAGE}
    samples = [int(index) for index in questions.query.indices]

    @app.before_request
    def guard() -> None:
        if _host_name(flask.request.host) not in LOCAL:
            flask.abort(403)
        given = (flask.request.view_args or {}).pop("token", "")
        if not hmac.compare_digest(given.encode(errors="replace"), token.encode()):
            flask.abort(404)
        origin = flask.request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != flask.request.host:
            flask.abort(403)

    @app.after_request
    def harden(response: flask.Response) -> flask.Response:
        response.headers.update(_HEADERS)
        return response

    def state() -> dict[str, Any]:
        about = {"cycle": int(questions.query.cycle), "closes_in": questions.closes_in(journal)}
        return {**journal.state()._asdict(), **about}

    def asked(*names: str) -> list[Any]:
        """Fields of the request's body; 400 where one is not there or no answer."""
        body = flask.request.get_json()
        if not isinstance(body, dict) or set(body) != set(names):
            flask.abort(400)
        kinds = {"sample": _is_whole, "answer": is_answer, "before": lambda value: value is None or is_answer(value)}
        if not all(kinds[name](body[name]) for name in names):
            flask.abort(400)
        return [body[name] for name in names]

    def is_answer(value: Any) -> bool:
        return value in (SKIP, JUNK) or (_is_whole(value) and value < len(questions.class_names))

    @app.get("/<token>/")
    def page() -> flask.Response:
        return content("label_page.html")

    @app.get("/<token>/<name>")
    def content(name: str) -> flask.Response:
        if name not in PAGE:
            flask.abort(404)
        return flask.Response(files[name], mimetype=PAGE[name])

    @app.get("/<token>/questions")
    def get_questions() -> dict[str, Any]:
        return questions.about()

    @app.get("/<token>/state")
    def get_state() -> dict[str, Any]:
        return state()

    @app.get("/<token>/volume/<int:place>")
    def get_volume(place: int) -> flask.Response:
        if place >= len(samples):
            flask.abort(404)
        volume = questions.dataset.volumes([samples[place]])[0]
        smooth = flask.request.args.get("low_pass") == "1"
        return flask.Response(voxels(volume, smooth), mimetype="application/octet-stream")

    @app.post("/<token>/answer")
    def post_answer() -> dict[str, Any]:
        journal.answer(*asked("sample", "answer", "before"))
        return state()

    @app.post("/<token>/undo")
    def post_undo() -> dict[str, Any]:
        journal.undo(*asked("sample", "before"))
        return state()

    @app.post("/<token>/finish")
    def post_finish() -> dict[str, Any]:
        asked()
        journal.finish()
        return state()

    @app.errorhandler(Disagreement)
    def disagree(error: Disagreement) -> tuple[dict[str, Any], int]:
        return {"error": str(error), "state": state()}, 409

    @app.errorhandler(InputError)
    @app.errorhandler(OSError)
    def fail(error: Exception) -> tuple[dict[str, Any], int]:
        """A full disk, a damaged dataset: the page shows why, the answer does not count."""
        return {"error": f"{reason(error)}."}, 500

    return app


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _host_name(host: str) -> str | None:
    """The name in a Host header; its port may differ from ours, as through an ssh tunnel."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


@contextlib.contextmanager
def served(app: flask.Flask, ports: Sequence[int]) -> Iterator[int]:
    """Serve `app` on 127.0.0.1 while the block runs, at the first of `ports` that can be had (0: any free one).

    Yields the port. Raises InputError where none can be had.
    """
    # It warns whenever a browser asks for more at once than there are threads.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    listening, refused = None, []
    for port in ports:
        try:
            listening = socket.create_server((ADDRESS, port))
            break
        except OSError as error:
            refused.append(f"{port} ({error.strerror})")
    if listening is None:
        raise InputError(f"No page can be served at port {' or '.join(refused)} of {ADDRESS}: choose another, or 0.")
    sockets: dict = {}
    server = create_server(app, map=sockets, sockets=[listening], threads=8, ident=None)
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            loop(timeout=1.0, map=sockets, count=1)
        server.task_dispatcher.shutdown()
        close_all(sockets)

    thread = threading.Thread(target=run, name="label server", daemon=True)
    thread.start()
    try:
        yield int(server.effective_port)
    finally:
        over.set()
        server.pull_trigger()
        thread.join()
