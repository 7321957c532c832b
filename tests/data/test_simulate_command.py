"""`aitom-ssl simulate`: one line and status 2 for a mistake, a dataset and status 0 otherwise."""

import subprocess
import sys
import time

import numpy as np
import pytest

from aitom_ssl.cli import main
from aitom_ssl.data.dataset import Dataset
from aitom_ssl.mrc import read_mrc

SPEC = """
description: small, for tests
simulation: {classes: [proteasome_20s, groel], size: 16, voxel_size: 20, n_sim: 16, snr: 0.5}
splits: {train: 6, test: 4}
"""


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SPEC)
    return path


def test_building_and_exporting(spec, tmp_path, capsys):
    output, exported = tmp_path / "out", tmp_path / "aitom"
    arguments = [f"--data={spec}", f"--output={output}", "--splits=train", f"--export_aitom={exported}", "--workers=1"]
    assert main("simulate", arguments) == 0
    assert len(Dataset(output)) == 6
    assert len(list((exported / "train" / "subtomogram_mrc").glob("tomotarget*.mrc"))) == 6
    assert len(list((exported / "train" / "json_label").glob("target*.json"))) == 6
    assert capsys.readouterr().out.strip().endswith(str(output))
    assert main("simulate", arguments) == 2
    assert "exists" in capsys.readouterr().err


def test_halves_are_built_and_the_whole_is_exported(spec, tmp_path):
    spec.write_text(SPEC.replace("snr: 0.5", "snr: 0.5, halves: noise"))
    output, exported = tmp_path / "out", tmp_path / "aitom"
    arguments = [f"--data={spec}", f"--output={output}", "--splits=train", f"--export_aitom={exported}", "--workers=1"]
    assert main("simulate", arguments) == 0
    dataset = Dataset(output)
    assert dataset.has_halves
    written = read_mrc(exported / "train" / "subtomogram_mrc" / "tomotarget0.mrc")[0].transpose(2, 1, 0)
    np.testing.assert_array_equal(written, dataset[0]["volume"])


def test_seed_limit_and_smoke(spec, tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder, more in zip(folders, (["--seed=5", "--limit=3"], ["--smoke"]), strict=True):
        assert main("simulate", [f"--data={spec}", f"--output={folder}", "--workers=1", *more]) == 0
    first, second = (Dataset(folder) for folder in folders)
    assert (len(first), len(second)) == (3, 6)
    assert first.metadata["simulation"]["seed"] == 5
    assert (first[0]["volume"] != second[0]["volume"]).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data is missing"),
        (["--data=sim_dmo"], "Did you mean sim_demo"),
        (["--data={spec}", "--splits=trian"], "no split 'trian': expected some of train, test"),
        (["--data={spec}", "--limit=-1"], "limit is -1"),
        (["--data={spec}", "--limit=x"], "--limit"),
    ],
)
def test_mistakes_are_one_line(spec, capsys, arguments, message):
    assert main("simulate", [a.format(spec=spec) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1


def test_a_typo_imports_no_tensorflow_and_answers_soon():
    program = "import sys; from aitom_ssl.cli import main; s = main('simulate', ['--data=sim_dmo']); "
    program += "assert 'tensorflow' not in sys.modules and 'scipy.optimize' not in sys.modules; sys.exit(s)"
    start = time.monotonic()
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert time.monotonic() - start < 20
