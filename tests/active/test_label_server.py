"""The label page's server: who is let in, what is sent, and that a change counts only against what stands."""

import http.client
import json

import numpy as np
import pytest
from small_questions import CLASSES, make_dataset, make_query

pytest.importorskip("flask", reason="the label page needs flask: pip install 'aitom_ssl[browser]'")
pytest.importorskip("waitress", reason="the label page needs waitress: pip install 'aitom_ssl[browser]'")

from aitom_ssl.active import label_server
from aitom_ssl.active.answer_journal import Journal
from aitom_ssl.active.contact_sheet import grey_levels, low_pass
from aitom_ssl.active.label_server import Questions, application, served
from aitom_ssl.errors import InputError

TOKEN = "s3cret-token"
HERE = "http://127.0.0.1:8000"


@pytest.fixture
def data(tmp_path):
    return make_dataset(tmp_path / "toy")


@pytest.fixture
def questions(data):
    return Questions(make_query(confidences=[0.25, np.nan, 0.5, 1.0], guesses=[2, -1, 0, 1]), data, CLASSES, 5.0)


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "answers.jsonl", [7, 2, 5, 9], CLASSES)
    yield opened
    opened.close()


@pytest.fixture
def client(questions, journal):
    return application(questions, journal, TOKEN).test_client()


def get(client, path, token=TOKEN, **headers):
    return client.get(f"/{token}/{path}", base_url=HERE, headers=headers)


def post(client, path, body, token=TOKEN, **headers):
    return client.post(f"/{token}/{path}", base_url=HERE, json=body, headers=headers)


def test_the_page_loads_nothing_but_its_own_files(client):
    page = get(client, "")
    assert page.status_code == 200 and page.mimetype == "text/html"
    for name in label_server.PAGE:
        found = get(client, name)
        assert found.status_code == 200 and found.mimetype == label_server.PAGE[name]
        text = found.get_data(as_text=True).replace("http://www.w3.org/2000/svg", "")  # the name of a language
        assert "http://" not in text and "https://" not in text and "//cdn" not in text
        assert " style=" not in text and " on" + "click=" not in text


def test_every_answer_forbids_what_the_page_does_not_need(client):
    for path in ("", "state", "nothing"):
        headers = get(client, path).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';") and "unsafe" not in policy
        assert headers["Referrer-Policy"] == "no-referrer" and headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store" and "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "%ff", "..%2f" + TOKEN, "é"])
def test_without_the_token_there_is_nothing(client, journal, token):
    for path in ("", "state", "questions", "label_page.js", "volume/0"):
        assert get(client, path, token).status_code in (404, 308)
    assert post(client, "answer", {"sample": 7, "answer": 0, "before": None}, token).status_code in (404, 405)
    assert client.get("/", base_url=HERE).status_code == 404
    assert journal.answered() == 0


def test_the_token_is_compared_in_constant_time(client, monkeypatch):
    compared = []
    monkeypatch.setattr(label_server.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    get(client, "state", "guess")
    assert compared == [(b"guess", TOKEN.encode())]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[", "", "0.0.0.0:8000"]
)
def test_a_name_that_only_points_here_is_refused(client, host):
    assert get(client, "state", Host=host).status_code in (400, 403)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:9999"])
def test_this_machine_is_let_in_through_any_port(client, host):
    assert get(client, "state", Host=host).status_code == 200


def test_another_sites_page_cannot_answer(client, journal):
    body = {"sample": 7, "answer": 0, "before": None}
    for origin in ("https://evil.example", "http://127.0.0.1:9999", "null"):
        assert post(client, "answer", body, Origin=origin).status_code == 403
    form = client.post(f"/{TOKEN}/answer", base_url=HERE, data=json.dumps(body), content_type="text/plain")
    assert form.status_code == 415 and journal.answered() == 0
    assert post(client, "answer", body, Origin=HERE).status_code == 200


def test_what_the_page_knows(client):
    about = get(client, "questions").json
    assert about["samples"] == [7, 2, 5, 9] and about["classes"] == CLASSES and about["cycle"] == 1
    assert about["guesses"] == [2, -1, 0, 1] and about["confidences"] == [0.25, None, 0.5, 1.0]
    assert (about["size"], about["voxel_size"], about["name"]) == (8, 13.5, "toy")


def test_volumes_are_bytes_in_the_order_of_the_query(client, data):
    for place, index in enumerate([7, 2, 5, 9]):
        volume = data.volumes([index])[0]
        raw = np.frombuffer(get(client, f"volume/{place}").data, np.uint8).reshape(8, 8, 8)
        np.testing.assert_array_equal(raw, grey_levels(volume, 0.05))
        order = np.argsort(volume, axis=None)
        assert (np.diff(raw.reshape(-1)[order].astype(int)) >= 0).all()
        smooth = np.frombuffer(get(client, f"volume/{place}?low_pass=1").data, np.uint8)
        np.testing.assert_array_equal(smooth, grey_levels(low_pass(volume), 0.05).reshape(-1))
    assert get(client, "volume/4").status_code == 404 and get(client, "volume/-1").status_code == 404


def test_answers_undo_and_finish(client, journal):
    said = post(client, "answer", {"sample": 2, "answer": 1, "before": None}).json
    assert said["answers"] == [None, 1, None, None] and said["last"] == 2 and not said["finished"]
    assert post(client, "answer", {"sample": 9, "answer": "junk", "before": None}).json["last"] == 9
    said = post(client, "undo", {"sample": 9, "before": "junk"}).json
    assert said["answers"] == [None, 1, None, None] == journal.state().answers and said["last"] == 2
    versions = [post(client, "answer", {"sample": 7, "answer": "skip", "before": None}).json["version"]]
    versions.append(post(client, "finish", {}).json["version"])
    assert versions == [4, 5] and journal.finished
    assert post(client, "answer", {"sample": 5, "answer": 0, "before": None}).status_code == 409


def test_a_second_tab_that_has_not_seen_an_answer_is_told(client, journal):
    post(client, "answer", {"sample": 2, "answer": 1, "before": None})
    said = post(client, "answer", {"sample": 2, "answer": 0, "before": None})
    assert said.status_code == 409 and "elsewhere" in said.json["error"]
    assert said.json["state"]["answers"] == [None, 1, None, None] and journal.answered() == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"sample": 7, "answer": 0},
        {"sample": 7, "answer": 3, "before": None},
        {"sample": 7, "answer": -1, "before": None},
        {"sample": 7, "answer": True, "before": None},
        {"sample": 7, "answer": None, "before": None},
        {"sample": 7, "answer": "undo", "before": None},
        {"sample": 7, "answer": [0], "before": None},
        {"sample": "7", "answer": 0, "before": None},
        {"sample": 7, "answer": 0, "before": 1.5},
        {"sample": 7, "answer": 0, "before": None, "more": 1},
    ],
)
def test_what_is_no_answer_changes_nothing(client, journal, body):
    assert post(client, "answer", body).status_code == 400
    assert journal.answered() == 0 and journal.path.stat().st_size == 0


def test_what_is_no_json_is_refused(client, journal):
    for body in (b"", b"{", b"null", b"\xff"):
        said = client.post(f"/{TOKEN}/answer", base_url=HERE, data=body, content_type="application/json")
        assert said.status_code == 400
    assert journal.answered() == 0


def test_large_bodies_are_refused(client, journal):
    assert post(client, "answer", {"sample": 7, "answer": "x" * 5000, "before": None}).status_code == 413


def test_a_full_disk_is_told_and_nothing_counts(client, journal, monkeypatch):
    monkeypatch.setattr(journal, "_write", lambda entry: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    said = post(client, "answer", {"sample": 7, "answer": 0, "before": None})
    assert said.status_code == 500 and "No space left" in said.json["error"] and journal.answered() == 0


def test_it_closes_a_while_after_the_last_answer(questions, journal, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(label_server.time, "monotonic", lambda: now[0])
    for sample in (7, 2, 5):
        journal.answer(sample, 0, None)
    assert questions.closes_in(journal) is None
    journal.answer(9, "skip", None)
    assert questions.closes_in(journal) == 5.0
    now[0] += 3
    assert questions.closes_in(journal) == 2.0
    journal.undo(9, "skip")
    assert questions.closes_in(journal) is None
    journal.answer(9, 1, None)
    now[0] += 9
    assert questions.closes_in(journal) == 0.0


def test_it_is_served_on_this_machine_only_while_the_block_runs(questions, journal):
    with served(application(questions, journal, TOKEN), [0]) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", f"/{TOKEN}/state")
        answer = connection.getresponse()
        assert answer.status == 200 and json.load(answer)["answers"] == [None] * 4
        assert answer.headers["Server"] is None
        connection.close()
        with served(application(questions, journal, TOKEN), [port, 0]) as other:
            assert other != port
        with pytest.raises(InputError, match=f"port {port} .*choose another, or 0"), served(object(), [port]):
            pass
    with pytest.raises(OSError):
        http.client.HTTPConnection("127.0.0.1", port, timeout=5).request("GET", "/")
    with served(application(questions, journal, TOKEN), [port]) as again:
        assert again == port
