"""The command writes STAR, CSV and a picture, and what it writes can be imported."""

import numpy as np
import pandas
import pytest

from aitom_ssl.cli.common import main
from aitom_ssl.data import load
from aitom_ssl.data.importers.star import read_table
from aitom_ssl.mrc import write_mrc


@pytest.fixture
def tomogram(tmp_path):
    volume = 0.1 * np.random.default_rng(0).standard_normal((32, 48, 64)).astype(np.float32)
    z, y, x = np.ogrid[:32, :48, :64]
    for px, py, pz in ((16, 16, 16), (44, 30, 15)):
        volume -= np.exp(-((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) / (2 * 3.5**2))
    write_mrc(tmp_path / "rec_t1.mrc", volume, 20.0)
    return tmp_path / "rec_t1.mrc"


def test_pick_then_import(tmp_path, tomogram, capsys):
    star = tmp_path / "picks.star"
    arguments = [f"--tomogram={tomogram}", "--invert_contrast", "--box_size=16", "--top=2", f"--output={star}"]
    assert main("pick_particles", arguments) == 0
    said = capsys.readouterr().out
    assert "2 particles of" in said and "opposite contrast gives 0" in said
    table = pandas.read_csv(tmp_path / "picks.csv")
    assert list(table.columns) == ["x", "y", "z", "score"]
    found = sorted(map(tuple, table[["x", "y", "z"]].to_numpy().tolist()))
    np.testing.assert_allclose(found, [(16, 16, 16), (44, 30, 15)], atol=1)
    assert (tmp_path / "picks.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))
    for coordinates in (star, tmp_path / "picks.csv"):
        output = tmp_path / "d"
        arguments = [f"--tomogram={tomogram}", f"--coordinates={coordinates}", "--box_size=16", "--invert_contrast"]
        assert main("import_particles", [*arguments, f"--output={output}", "--splits=train=1"]) == 0
        train = load(str(output), "train")
        assert len(train) == 2 and train.voxel_size == 20.0
        for volume in train.volumes([0, 1]):
            assert volume[7:10, 7:10, 7:10].mean() > 2


def test_a_wrong_contrast_is_said(tmp_path, tomogram, capsys):
    arguments = [f"--tomogram={tomogram}", "--box_size=16", "--top=1", f"--output={tmp_path}/p.star"]
    assert main("pick_particles", arguments) == 0
    assert "give --invert_contrast?" in capsys.readouterr().out


def test_a_template_adds_its_score_and_selects_by_it(tmp_path, tomogram, capsys):
    star = tmp_path / "picks.star"
    # Blobs of 70 A, and as a map the same.
    offset = 20.0 * (np.arange(16) - 8)
    r2 = offset[:, None, None] ** 2 + offset[:, None] ** 2 + offset**2
    write_mrc(tmp_path / "blob.mrc", np.exp(-r2 / (2 * 70.0**2)), 20.0)
    arguments = [f"--tomogram={tomogram}", "--invert_contrast", "--box_size=16", "--top=6", f"--output={star}"]
    arguments.append(f"--template={tmp_path / 'blob.mrc'}")
    assert main("pick_particles", arguments) == 0
    said = capsys.readouterr().out
    assert "blob fits them with scores from" in said
    table = pandas.read_csv(tmp_path / "picks.csv")
    assert list(table.columns) == ["x", "y", "z", "score", "template_score"] and len(table) == 6
    particles = read_table(star)
    np.testing.assert_allclose(particles["aitomTemplateScore"], table["template_score"], atol=1e-5)
    np.testing.assert_allclose(particles["rlnAutopickFigureOfMerit"], table["score"], atol=1e-5)
    # The first two picks are the particles, the others noise.
    assert table["template_score"][:2].min() > table["template_score"][2:].max() + 0.1
    between = (table["template_score"][:2].min() + table["template_score"][2:].max()) / 2
    assert main("pick_particles", [*arguments, f"--template_score={between}"]) == 0
    kept = pandas.read_csv(tmp_path / "picks.csv")
    pandas.testing.assert_frame_equal(kept, table[:2])
    assert len(read_table(star)) == 2 and not list(tmp_path.glob(".*"))
    assert main("pick_particles", [*arguments, "--template_score=1"]) == 2
    assert "No pick scores --template_score=1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tomogram={t}", "--output=a.star", "--template_score=0.3"], "--template_score is a score of --template"),
        (["--tomogram={t}", "--output=a.star", "--template=ribosome_70s", "--template_score=3"], "expected -1 to 1"),
        (["--tomogram={t}", "--output=a.star", "--template=ribosom_70s"], "Did you mean"),
        (["--tomogram={t}", "--output=a.star", "--template=ribosome_70s", "--box_size=8"], "give a larger --box_size"),
        ([], "--tomogram and --output are needed"),
        (["--tomogram={t}", "--output=a.txt"], "ends in .star"),
        (["--tomogram={t}", "--output={t}/a.star"], "is a file, expected a folder"),
        (["--tomogram={t}", "--output=a.star", "--box_size=0"], "--box_size=0: expected at least 2"),
        (["--tomogram={t}", "--output=a.star", "--voxel_size=0"], "--voxel_size=0"),
        (["--tomogram=none.mrc", "--output=a.star"], "No file none.mrc"),
        (["--tomogram={t}", "--output=a.star", "--box_size=99"], "does not fit"),
    ],
)
def test_mistakes_are_one_line(tomogram, capsys, arguments, message):
    assert main("pick_particles", [a.format(t=tomogram) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
