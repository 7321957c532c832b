"""The search for a run's CRF: on which samples, what is kept in the run, and who uses it."""

import json
import types

import numpy as np
import pytest

from aitom_ssl.data import write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.oneshot import crf, crf_tuning
from aitom_ssl.oneshot.crf import GENTLE, PUBLISHED, choose_field, read_parameters
from aitom_ssl.oneshot.crf_tuning import in_turn, tune_crf

pytest.importorskip("pydensecrf")

SIDE = 8


def sample(k):
    rng = np.random.default_rng(k)
    mask = np.zeros((SIDE,) * 3, np.uint8)
    mask[2:6, 1:5, 2 : 5 + k % 2] = 1
    return {"volume": (mask + 0.4 * rng.normal(size=mask.shape)).astype(np.float32), "mask": mask, "label": k % 3}


@pytest.fixture
def data(tmp_path):
    samples = {"validation": (sample(k) for k in range(7))}
    return write_dataset(tmp_path / "data", "tiny", ("a", "b", "c"), 10.0, "bright", samples)


class Network:
    """Sees a voxel in the particle where it is above the mean."""

    has_masks = True
    description = types.SimpleNamespace(differences=lambda *_: [])

    def __call__(self, volumes, standardized):
        assert standardized and np.allclose(volumes.std(axis=(1, 2, 3)), 1, atol=1e-3)
        return np.zeros((len(volumes), 2)), 1 / (1 + np.exp(-2 * (volumes - 0.7)))


@pytest.fixture
def run(tmp_path, monkeypatch, data):
    (tmp_path / "run").mkdir()
    folder = types.SimpleNamespace(path=tmp_path / "run")
    monkeypatch.setattr(crf_tuning, "find_cosnet", lambda run: (folder, {"settings": {"data": str(data)}}))
    monkeypatch.setattr(crf_tuning, "load_cosnet", lambda run: Network())
    return tmp_path / "run"


def test_samples_come_in_turn_from_the_classes():
    labels = np.array([1, 1, 1, 0, -1, 2, 0])
    assert in_turn(labels, 5).tolist() == [3, 0, 5, 6, 1]
    assert sorted(in_turn(labels, 99).tolist()) == [0, 1, 2, 3, 5, 6]
    with pytest.raises(InputError, match="labelled"):
        in_turn(np.array([-1]), 2)


def test_what_is_found_is_kept_and_used(run):
    assert read_parameters(run) is None
    assert choose_field(run, None) is None and choose_field(run, True) == PUBLISHED
    found = tune_crf(run, samples=3)
    assert found.helps and found.best.dsc > found.without
    assert {path.name for path in run.iterdir()} == {"crf.json", "crf.png"}
    stored = json.loads((run / "crf.json").read_text())
    assert (stored["data"], stored["split"], stored["samples"]) == ("tiny", "validation", 3)
    assert stored["dsc"] == {"without": found.without, "published": found.published.dsc, "found": found.best.dsc}
    assert read_parameters(run) == (found.best.parameters, True)
    assert choose_field(run, None) == choose_field(run, True) == found.best.parameters
    assert choose_field(run, False) is None


def test_a_field_that_does_not_help_is_used_only_when_asked_for(tmp_path):
    values = {"parameters": GENTLE.to_dict(), "helps": False}
    (tmp_path / "crf.json").write_text(json.dumps(values))
    assert choose_field(tmp_path, None) is None and choose_field(tmp_path, True) == GENTLE


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"parameters": {}}', '{"parameters": 3, "helps": true}', '{"parameters": {}, "helps": 1}']
)
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "crf.json").write_text(text)
    with pytest.raises(InputError, match=r"crf\.json"):
        choose_field(tmp_path, None)


def test_data_that_cannot_be_searched_on_are_refused(run, tmp_path, monkeypatch):
    bare = write_dataset(
        tmp_path / "bare", "bare", ("a",), 10.0, "bright", {"validation": [{"volume": sample(0)["volume"], "label": 0}]}
    )
    with pytest.raises(InputError, match="mask"):
        tune_crf(run, str(bare))
    monkeypatch.setattr(Network, "description", types.SimpleNamespace(differences=lambda *_: ["box 8^3"]))
    with pytest.raises(InputError, match=r"tiny is not like .*box 8\^3"):
        tune_crf(run)
    monkeypatch.setattr(Network, "description", types.SimpleNamespace(differences=lambda *_: []))
    monkeypatch.setattr(Network, "has_masks", False)
    with pytest.raises(InputError, match="volume decoder"):
        tune_crf(run)
    assert not (run / "crf.json").exists()
    assert crf.STORED == "crf.json"
