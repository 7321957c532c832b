"""The command: each kind of input becomes a dataset that loads; a mistake is one line and status 2."""

import numpy as np
import pytest

from aitom_ssl.cli.common import main
from aitom_ssl.data import load
from aitom_ssl.data.importers.coordinates import write_csv
from aitom_ssl.mrc import write_mrc


def run(*arguments):
    return main("import_particles", [str(a) for a in arguments])


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("groel", "ribosome"):
        for i in range(10):
            write_mrc(tmp_path / "in" / name / f"{i}.mrc", rng.standard_normal((6, 6, 6)), 10.0)
    return tmp_path / "in"


def test_a_folder_of_classes(tmp_path, folder, capsys):
    assert run(f"--input={folder}", f"--output={tmp_path / 'd'}", "--seed=3") == 0
    said = capsys.readouterr().out
    assert "20 particles of 6^3 voxels of 10 A" in said and "train: 12 (6 groel, 6 ribosome)" in said
    train = load(str(tmp_path / "d"), "train")
    assert len(train) == 12 and train.class_names == ["groel", "ribosome"]
    assert train[0]["volume"].dtype == np.float32
    assert len(load(str(tmp_path / "d"), "test")) == 4


def test_a_tomogram_with_coordinates_inverted(tmp_path, capsys):
    volume = np.random.default_rng(0).standard_normal((12, 20, 30))
    write_mrc(tmp_path / "t.mrc", volume, 10.0)
    write_csv(tmp_path / "c.csv", np.array([[15, 10, 6], [8, 9, 5]]), np.zeros(2))
    arguments = [f"--tomogram={tmp_path / 't.mrc'}", f"--coordinates={tmp_path / 'c.csv'}", "--box_size=4"]
    arguments += [f"--output={tmp_path / 'd'}", "--invert_contrast", "--normalize=none", "--splits=train=1.0"]
    assert run(*arguments) == 0
    np.testing.assert_array_equal(load(str(tmp_path / "d"))[0]["volume"], -volume[4:8, 8:12, 13:17].astype(np.float32))
    assert load(str(tmp_path / "d")).metadata["invert_contrast"] is True


def test_two_half_tomograms(tmp_path, capsys):
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((12, 20, 30))
    halves = [(signal + rng.standard_normal(signal.shape)).astype(np.float32) for _ in range(2)]
    for name, half in zip("ab", halves, strict=True):
        write_mrc(tmp_path / f"{name}.mrc", half, 10.0)
    write_csv(tmp_path / "c.csv", np.array([[15, 10, 6], [8, 9, 6]]), np.zeros(2))
    arguments = [f"--tomogram={tmp_path / 'a.mrc'}", f"--tomogram_b={tmp_path / 'b.mrc'}", "--box_size=8"]
    arguments += [f"--coordinates={tmp_path / 'c.csv'}", f"--output={tmp_path / 'd'}", "--splits=train=1.0"]
    assert run(*arguments, "--normalize=none", "--invert_contrast") == 0
    assert "note: the half tomograms correlate at 0." in capsys.readouterr().out
    first, second = load(str(tmp_path / "d")).halves([0])
    box = (slice(2, 10), slice(6, 14), slice(11, 19))
    for half, whole in zip((first, second), halves, strict=True):
        np.testing.assert_allclose(half[0], -whole[box], atol=1e-5)
    assert run(*arguments) == 0
    dataset = load(str(tmp_path / "d"))
    assert dataset.standardized and dataset.has_halves
    first, second = dataset.halves([0, 1])
    np.testing.assert_allclose((first + second) / 2, dataset.volumes([0, 1]), atol=1e-6)
    assert set(dataset.metadata["source"]) >= {"tomogram", "tomogram_b"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output={out}", "--tomogram_b=b.mrc"], "--tomogram_b=b.mrc needs the other half as --tomogram"),
        (["--output={out}", "--input={folder}", "--tomogram_b=b.mrc"], "--tomogram_b=b.mrc needs the other half"),
        (["--output={out}", "--tomogram=a.mrc", "--tomogram_b=b.mrc"], "and --coordinates"),
        (["--input={folder}"], "--output is missing"),
        (["--output={out}"], "--tomogram and --coordinates and --box_size missing"),
        (["--output={out}", "--input={folder}", "--tomogram=x.mrc"], "--input excludes"),
        (["--output={out}", "--input={folder}/none"], "no such folder"),
        (["--output={out}", "--input={folder}", "--splits=train=0.5"], "add up to 1"),
        (["--output={out}", "--input={folder}", "--box_size=9"], "smaller than --box_size=9"),
        (["--output={folder}", "--input={folder}"], "is not a dataset"),
        (["--output={out}", "--tomogram=none.mrc", "--coordinates=c.csv", "--box_size=4"], "No file none.mrc"),
    ],
)
def test_mistakes_are_one_line(tmp_path, folder, capsys, arguments, message):
    assert run(*(a.format(folder=folder, out=tmp_path / "out") for a in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_user_s_files_are_left_as_they_were(tmp_path, folder):
    def state():
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*.mrc")}

    before = state()
    for path in before:
        path.chmod(0o444)
    assert run(f"--input={folder}", f"--output={tmp_path / 'd'}") == 0
    assert state() == before
