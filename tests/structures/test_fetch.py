"""Downloading against a server on this machine: what is kept, what is refused, what is asked for again."""

import contextlib
import gzip
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from test_atomic import toy_cif

from aitom_ssl.errors import InputError
from aitom_ssl.structures import AtomicStructure, fetch, resolve

GOOD = gzip.compress(toy_cif().encode())
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers from the server's table: path -> (status, body, length to claim)."""

    def do_GET(self):
        self.server.asked.append(self.path)
        status, body, length = self.server.table.get(self.path, (404, b"not found", None))
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.table = {
            "/download/3DY4.cif.gz": (200, GOOD, len(GOOD)),
            "/download/1BXN.cif.gz": (200, GOOD, None),
            "/download/pdb_10003dy4.cif.gz": (200, GOOD, len(GOOD)),
            "/download/1CUT.cif.gz": (200, GOOD[:200], len(GOOD)),
            "/download/2CUT.cif.gz": (200, GOOD[:200], None),
            "/download/1WEB.cif.gz": (200, PAGE, len(PAGE)),
            "/download/2WEB.cif.gz": (200, gzip.compress(PAGE), None),
            "/download/5BAD.cif.gz": (503, b"busy", 4),
            "/download/1NIL.cif.gz": (200, b"", 0),
        }
        running.asked = []
        running.url = f"http://127.0.0.1:{running.server_port}/download"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AITOM_SSL_CACHE", str(tmp_path))
    return tmp_path / "structures"


def test_an_entry_is_fetched_recorded_and_resolved(server, cache):
    lines = []
    [path] = fetch.fetch(["3DY4"], server.url, report=lines.append)
    assert path == cache / "3dy4.cif.gz" and path.read_bytes() == GOOD
    record = json.loads((cache / "3dy4.cif.gz.json").read_text())
    assert record["id"] == "3dy4" and record["url"] == f"{server.url}/3DY4.cif.gz" and len(record["sha256"]) == 64
    structure = resolve("pdb:3dy4")
    assert isinstance(structure, AtomicStructure) and len(structure.atoms.positions) == 12
    assert resolve("PDB:pdb_00003DY4").fingerprint() == structure.fingerprint()
    assert "12 atoms" in lines[0]


def test_a_kept_entry_is_not_asked_for_again_until_it_is_damaged(server, cache):
    [path] = fetch.fetch(["3DY4", "3dy4", "pdb_00003dy4"], server.url + "/")
    fetch.fetch(["3DY4"], server.url)
    assert len(server.asked) == 1
    path.write_bytes(GOOD[:-3])
    with pytest.raises(InputError, match=r"not what was downloaded.*fetch_structures --pdb=3DY4"):
        resolve("pdb:3DY4")
    fetch.fetch(["3DY4"], server.url)
    assert path.read_bytes() == GOOD and len(server.asked) == 2
    (cache / "3dy4.cif.gz.json").write_text("{")
    fetch.fetch(["3DY4"], server.url)
    assert len(server.asked) == 3


def test_extended_ids_and_several_at_once(server, cache, tmp_path):
    folder = tmp_path / "mine"
    paths = fetch.fetch(["1bxn", "PDB_10003dy4"], server.url, cache=folder)
    assert [p.name for p in paths] == ["1bxn.cif.gz", "pdb_10003dy4.cif.gz"]
    assert not cache.exists()


@pytest.mark.parametrize(
    "identifier, message",
    [
        ("9ZZZ", r"no such entry \(404\)"),
        ("1CUT", r"stopped after 200 of \d+ bytes|cut off"),
        ("2CUT", "not a readable mmCIF"),
        ("1WEB", "not a readable mmCIF"),
        ("2WEB", "not a readable mmCIF"),
        ("1NIL", "not a readable mmCIF"),
        ("5BAD", "answered 503"),
    ],
)
def test_a_bad_answer_is_one_clear_line_and_leaves_nothing(server, cache, identifier, message):
    with pytest.raises(InputError, match=message) as caught:
        fetch.fetch([identifier], server.url)
    text = str(caught.value)
    assert identifier in text and f"{server.url}/{identifier}.cif.gz" in text and "\n" not in text
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_failure_keeps_what_came_before(server, cache):
    with pytest.raises(InputError, match="9ZZZ"):
        fetch.fetch(["3DY4", "9ZZZ"], server.url)
    assert sorted(p.name for p in cache.iterdir()) == ["3dy4.cif.gz", "3dy4.cif.gz.json"]


def test_offline_is_one_clear_line(cache):
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=rf"3DY4.*127\.0\.0\.1:{port}.*no connection \(Connection refused\)"):
        fetch.fetch(["3DY4"], f"http://127.0.0.1:{port}")


def test_a_silent_server_times_out(cache, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=r"connection broke|no connection"):
            fetch.fetch(["3DY4"], url)


@pytest.mark.parametrize("bad", ["", "3DY", "ABCD", "3DY45", "pdb_3dy4", "../a", "0ABC"])
def test_ids_are_validated_before_any_download(cache, bad):
    with pytest.raises(InputError, match="is not a PDB id"):
        fetch.fetch(["3DY4", bad], "http://127.0.0.1:1")


def test_nothing_to_fetch_and_senseless_address(cache):
    with pytest.raises(InputError, match="No PDB entries"):
        fetch.fetch([])
    with pytest.raises(InputError, match="--base_url looks like"):
        fetch.fetch(["3DY4"], "rcsb")


def test_the_command(server, cache):
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}

    def run(*flags):
        command = [sys.executable, "-m", "aitom_ssl.cli", "fetch_structures", *flags]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    done = run("--pdb=3DY4,1BXN", f"--base_url={server.url}")
    assert done.returncode == 0 and done.stdout.count("\n") == 2 and (cache / "1bxn.cif.gz").is_file()
    failed = run("--pdb=9ZZZ", f"--base_url={server.url}")
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1 and "404" in failed.stderr
