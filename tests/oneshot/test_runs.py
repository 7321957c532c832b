"""From trained runs to tables: files that are whole, and what is refused."""

import json

import numpy as np
import pytest
import yaml
from run_results import result

from aitom_ssl.errors import InputError
from aitom_ssl.models import COSNet, ModelDescription
from aitom_ssl.oneshot.runs import checked_runs, evaluate_runs, write_tables


def test_files(tmp_path):
    write_tables(
        tmp_path, [result(), result("s", variant="plain", dice=None)], (2,), 1, 0, "aitom-ssl evaluate_oneshot"
    )
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["results"][0]["accuracy"]["2"] == {"mean": 0.9, "half_width": 0.01, "count": 100}
    assert stored["results"][1]["dice"] is None
    page = (tmp_path / "report.html").read_text()
    assert "0.900 ± 0.010" in page and "aitom-ssl evaluate_oneshot" in page and "data:image/png" in page


@pytest.fixture(scope="module")
def run(tmp_path_factory, blobs):
    folder = tmp_path_factory.mktemp("runs") / "mine"
    folder.mkdir()
    about = ModelDescription("cosnet", (), 8, 10.0, "bright").to_dict()
    settings = {"filters": 2, "fusion": "add", "decoder": True, "skips": False, "data": str(blobs)}
    config = {"method": "cosnet", "settings": settings, "model": about, "classes": ["a", "b", "c", "d"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    COSNet((8, 8, 8, 1), filters=2, features=4).save(folder / "model.keras")
    return folder


def test_from_a_run_to_tables(run, blobs, tmp_path):
    (request,) = checked_runs([str(run)], None, tmp_path / "out")
    assert request[:2] == (str(run), str(blobs)) and set(request.samples.labels) == {4, 5}
    refine = lambda run: lambda volume, probability: np.ones(volume.shape, np.uint8)  # noqa: E731
    (found,) = evaluate_runs([request], tmp_path / "out", (2, 4), episodes=20, refine=refine)
    assert found.classes == ("e", "f") and [a.way for a in found.answers] == [2] and found.samples == 12
    assert found.refined["e"].mean > 0 and (tmp_path / "out" / "report.html").is_file()
    # An evaluation may be replaced, a folder of something else may not.
    assert len(checked_runs([str(run)], None, tmp_path / "out")) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_text("")
    with pytest.raises(InputError, match="holds no evaluation"):
        checked_runs([str(run)], None, tmp_path / "other")
    with pytest.raises(InputError, match="names a run twice"):
        checked_runs([str(run), str(run)], None, tmp_path / "out")


def test_other_data_are_refused(run, blobs, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no split 'nowhere'"):
        checked_runs([str(run)], None, out, "nowhere")
    with pytest.raises(InputError, match="too few classes that the network was not trained on"):
        checked_runs([str(run)], str(blobs), out, "train")
    with pytest.raises(InputError, match="No dataset 'sim_nothing'"):
        checked_runs([str(run)], "sim_nothing", out)
    with pytest.raises(InputError, match="2 classes to measure on: --ways must have one of 2 to 2"):
        evaluate_runs(checked_runs([str(run)], None, out), out, (4,))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["voxel_size"] = 20.0
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    (other / "model.keras").write_bytes((run / "model.keras").read_bytes())
    with pytest.raises(InputError, match=r"is unlike what .* was trained on: voxel size 10 A"):
        evaluate_runs(checked_runs([str(other)], None, out), out, (2,))
    (found,) = evaluate_runs(checked_runs([str(other)], None, out), out, (2,), episodes=5, ignore_mismatch=True)
    assert found.samples == 12
