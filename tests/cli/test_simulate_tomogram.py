"""`aitom-ssl simulate_tomogram`: a folder and status 0, or one line and status 2."""

import json

import pytest

from aitom_ssl.cli import main
from aitom_ssl.data import load
from aitom_ssl.mrc import read_mrc

SMALL = ["--classes=groel,apoferritin", "--voxel_size=20", "--shape=48,40,32", "--particles=12", "--workers=1"]


def test_a_run_from_end_to_end(tmp_path, capsys):
    output = tmp_path / "tomo"
    more = ["--extract", "--box_size=12", "--snr=2", "--contrast=dark", "--tilt_max=50", "--tilt_step=2", "--seed=3"]
    assert main("simulate_tomogram", [f"--output={output}", *SMALL, *more]) == 0
    assert "slices.png" in capsys.readouterr().out and (output / "slices.png").is_file()
    about = json.loads((output / "tomogram.json").read_text())
    assert about["particles"] == {"groel": 6, "apoferritin": 6} and about["snr"] == 2
    simulation = about["simulation"]
    assert (simulation["contrast"], simulation["tilt_max"], simulation["seed"]) == ("dark", 50, 3)
    assert read_mrc(output / "tilt_series.mrcs")[0].shape == (51, 40, 48)
    assert load(output / "subtomograms").size == 12


def test_smoke(tmp_path):
    assert main("simulate_tomogram", [f"--output={tmp_path / 's'}", "--smoke", "--snr=inf"]) == 0
    about = json.loads((tmp_path / "s" / "tomogram.json").read_text())
    assert about["shape_xyz"] == [64, 64, 40] and len(about["class_names"]) == 22 and about["snr"] == "inf"
    assert not (tmp_path / "s" / "subtomograms").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output="], "empty"),
        ([], "--output is missing"),
        (["--data=cosnet_snr5"], "Did you mean cosnet_snr05"),
        (["--classes=groell"], "groel"),
        (["--classes=groel,groel"], "more than one structure named 'groel'"),
        (["--shape=48,40"], "three sides"),
        (["--shape=a,b,c"], "--shape=a,b,c: expected three whole numbers"),
        (["--shape=8,8,8"], "sides of 16 to 4096"),
        (["--shape=24,24,24", "--classes=ribosome_80s", "--particles=1"], "ribosome_80s is 31 voxels across"),
        (["--particles=5", "--occupancy=0.1"], "exclude each other"),
        (["--particles=0"], "particles is 0"),
        (["--occupancy=1.5"], "occupancy is 1.5"),
        (["--occupancy=0.7", "--shape=40,40,40", "--classes=groel"], "ask for a lower occupancy"),
        (["--snr=-1"], "snr is -1"),
        (["--snr=loud"], "snr is 'loud'"),
        (["--data=sim_snr005"], "snr_mode is 'aitom_box': expected one of crop, projection"),
        (["--box_size=16"], "--extract"),
        (["--box_size=15", "--extract"], "size is 15"),
        (["--workers=0"], "workers is 0"),
        (["--min_gap=-1"], "min_gap"),
        (["--tilt_step=80"], "tilt_step"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, arguments, message):
    output = [] if not arguments or arguments[0].startswith("--output") else [f"--output={tmp_path / 'tomo'}"]
    assert main("simulate_tomogram", [*output, *arguments]) == 2
    error = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert message in error and error.startswith("aitom-ssl simulate_tomogram: ")
    assert list(tmp_path.iterdir()) == []
