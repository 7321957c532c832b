"""Masks from files to files: where and how they are written, what they measure, and what stops and goes on."""

import csv
import json
import sys

import numpy as np
import pytest
from small_cosnet import LEVEL, SHARP, SIDE, VOXEL_SIZE, cosnet_run

from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.data.batches import standardize
from aitom_ssl.data.sources import Reading, fit_box, open_source
from aitom_ssl.errors import InputError
from aitom_ssl.export import segmentation
from aitom_ssl.export.masks import Segmenter, in_box, mask_name, measure
from aitom_ssl.export.segmentation import remarks, segment_files
from aitom_ssl.files import claimed
from aitom_ssl.mrc import read_mrc, write_mrc
from aitom_ssl.oneshot.crf import CrfParameters, refine

GENTLE = CrfParameters(4, 1.0, 1.5, 1.0, 2.0, 50.0)
COUNT = 11


def particle(seed, side=SIDE):
    """A block in weak noise."""
    rng = np.random.default_rng(seed)
    volume = 0.1 * rng.normal(size=(side,) * 3)
    volume[2:5, 3:6, 2 : 4 + seed % 3] += 1.0
    return volume.astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return cosnet_run(tmp_path_factory.mktemp("runs") / "hand")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    samples = ({"volume": particle(k), "label": k % 2} for k in range(COUNT))
    return write_dataset(folder / "tiny", "tiny", ("a", "b"), VOXEL_SIZE, "bright", {"test": samples})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of MRC files, loose and of a class."""
    folder = tmp_path_factory.mktemp("files")
    write_mrc(folder / "one.mrc", particle(0), 20.0)
    write_mrc(folder / "a class" / "two.map", particle(1), 20.0)
    return folder


def expected_masks(data, rows=slice(None)):
    """By hand: sigmoid of the standardised voxels above a half."""
    volumes = standardize(Dataset(data, "test").volumes(np.arange(COUNT)[rows]).copy())
    return volumes > LEVEL


def table(output, name="volumes.csv"):
    with open(output / name, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(run, data, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out"
    return segment_files(run, str(data), output, command="this")


# === What is written ===


def test_masks_are_the_networks_above_a_half(whole, data):
    expected = expected_masks(data)
    rows = table(whole.folder)
    assert [row["mask"] for row in rows] == [f"masks/test/{k:06d}.mrc" for k in range(COUNT)]
    for row, mask in zip(rows, expected, strict=True):
        written, header = read_mrc(whole.folder / row["mask"])
        np.testing.assert_array_equal(written, mask)
        assert header.voxel_size == VOXEL_SIZE and header.dtype == np.int8
        assert int(row["voxels"]) == mask.sum() and float(row["volume_nm3"]) == pytest.approx(mask.sum())


def test_what_came_of_it_and_what_lies_there(whole, data):
    sizes = expected_masks(data).sum(axis=(1, 2, 3))
    assert (whole.particles, whole.new, whole.empty, whole.left_out) == (COUNT, COUNT, 0, [])
    assert whole.median_nm3 == pytest.approx(np.median(sizes))
    names = {path.name for path in whole.folder.iterdir()}
    assert names == {"segmentation.json", "masks", "volumes.csv", "masks.png", "volumes.png", "report.html"}
    page = (whole.folder / "report.html").read_text()
    assert f"{np.median(sizes):,.0f} nm³" in page and "this" in page and "<img" in page


def test_files_keep_their_names_and_voxel_size(run, files, tmp_path):
    outcome = segment_files(run, str(files), tmp_path / "out", probabilities=True, ignore_mismatch=True)
    assert [row["mask"] for row in table(outcome.folder)] == ["masks/one.mrc", "masks/a class/two.map.mrc"]
    assert any("20 A" in note for note in outcome.notes)
    for k, row in enumerate(table(outcome.folder)):
        mask, header = read_mrc(outcome.folder / row["mask"])
        volume = standardize(particle(k)[None].copy())[0]
        np.testing.assert_array_equal(mask, volume > LEVEL)
        assert header.voxel_size == 20.0 and float(row["volume_nm3"]) == pytest.approx(8 * mask.sum())
        written, _ = read_mrc(outcome.folder / row["mask"].replace("masks/", "probabilities/"))
        np.testing.assert_allclose(written, 1 / (1 + np.exp(-SHARP * (volume - LEVEL))), atol=1e-5)
        assert float(row["probability"]) == pytest.approx(written[mask.astype(bool)].mean(), rel=1e-5)


def test_the_field_is_that_of_the_standardised_volume(run, data, tmp_path):
    outcome = segment_files(run, str(data), tmp_path / "out", field=GENTLE)
    volume = standardize(Dataset(data, "test").volumes(np.array([3])).copy())[0]
    wanted = refine(1 / (1 + np.exp(-SHARP * (volume - LEVEL))), volume, GENTLE) > 0.5
    np.testing.assert_array_equal(read_mrc(outcome.folder / "masks/test/000003.mrc")[0], wanted)
    stored = json.loads((outcome.folder / "segmentation.json").read_text())
    assert stored["settings"]["crf"] == GENTLE.to_dict()


@pytest.mark.parametrize("side", [6, 12])
def test_another_box_gets_masks_of_its_own_box(run, side, tmp_path):
    write_mrc(tmp_path / "in" / "a.mrc", particle(0, side), VOXEL_SIZE)
    outcome = segment_files(run, str(tmp_path / "in"), tmp_path / "out", ignore_mismatch=True)
    mask, _ = read_mrc(outcome.folder / "masks" / "a.mrc")
    boxed = standardize(fit_box(standardize(particle(0, side)[None].copy()), SIDE).copy())[0] > LEVEL
    assert mask.shape == (side,) * 3 and mask.any()
    np.testing.assert_array_equal(fit_box(mask[None].astype(np.float32), SIDE)[0] > 0.5, boxed)


@pytest.mark.parametrize(("inner", "outer"), [(4, 7), (5, 8), (4, 4), (7, 5), (8, 5)])
def test_in_box_undoes_fit_box(inner, outer):
    volume = np.random.default_rng(0).random((inner,) * 3).astype(np.float32)
    box = in_box(volume, outer)
    assert box.shape == (outer,) * 3
    small = min(inner, outer)
    np.testing.assert_array_equal(fit_box(box[None], small)[0], fit_box(volume[None], small)[0])
    assert box.sum() == pytest.approx(fit_box(volume[None], small).sum())


def test_measures_of_known_masks():
    mask = np.zeros((6, 6, 6), bool)
    mask[1:3, 1:3, 1:3] = True
    mask[3, 3, 3] = True  # touches the block at a corner
    mask[0, 5, 5] = True  # on the rim, alone
    found = measure(mask, np.full(mask.shape, 0.75), 5.0)
    assert found == (10, pytest.approx(10 / 8), 2, 1, 0.75)
    empty = measure(np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4)), 5.0)
    assert empty[:4] == (0, 0.0, 0, 0) and np.isnan(empty.probability)


def test_names_of_masks(files, data, tmp_path):
    source = open_source(str(files), Reading())
    assert [mask_name(source, k) for k in range(2)] == ["one.mrc", "a class/two.map.mrc"]
    assert mask_name(open_source(str(data), Reading()), 4) == "test/000004.mrc"
    star = tmp_path / "in.star"
    rows = "".join(f"'{files}/one.mrc' {k}\n" for k in range(2))
    star.write_text(f"data_particles\n\nloop_\n_rlnImageName #1\n_rlnIndex #2\n{rows}")
    source = open_source(str(star), Reading())
    assert [mask_name(source, k) for k in range(2)] == ["row000001_one.mrc", "row000002_one.mrc"]


def test_remarks_count_what_is_unusual():
    import pandas

    table = pandas.DataFrame({"voxels": [0, 5, 5], "pieces": [0, 1, 3], "at_rim": [0, 2, 1]})
    found = remarks(table)
    assert [note.split(" of ")[0] for note in found] == ["1", "1", "2"]
    assert "empty" in found[0] and "pieces" in found[1] and "rim" in found[2]
    assert remarks(table.iloc[[1]].assign(at_rim=0)) == []


# === Interruption ===


@pytest.mark.parametrize("after", [0, 1, 2])
def test_interrupted_and_gone_on_with_is_the_same_to_the_byte(run, data, whole, tmp_path, monkeypatch, after):
    monkeypatch.setattr(segmentation, "PART", 4)
    calls, answer = [0], Segmenter.__call__

    def interrupted(self, volumes):
        if calls[0] == after:
            raise KeyboardInterrupt
        calls[0] += 1
        return answer(self, volumes)

    monkeypatch.setattr(Segmenter, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt, match=rf"{4 * after} of {COUNT} particles .* Go on with: this"):
        segment_files(run, str(data), tmp_path / "out", batch_size=4, command="this")
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert not left & {"volumes.csv", "report.html", "masks.png"}
    assert not list((tmp_path / "out").rglob("*.partial*"))
    monkeypatch.setattr(Segmenter, "__call__", answer)
    outcome = segment_files(run, str(data), tmp_path / "out", command="this")
    assert outcome.new == COUNT - 4 * after and outcome.particles == COUNT
    assert (tmp_path / "out" / "volumes.csv").read_bytes() == (whole.folder / "volumes.csv").read_bytes()
    for row in table(whole.folder):
        both = [read_mrc(folder / row["mask"])[0] for folder in (whole.folder, tmp_path / "out")]
        np.testing.assert_array_equal(*both)
    assert not (tmp_path / "out" / "parts").exists()


def test_done_already_is_said_and_nothing_is_computed(run, data, whole, monkeypatch):
    monkeypatch.setattr(segmentation, "load_cosnet", lambda *_: 1 / 0)
    again = segment_files(run, str(data), whole.folder)
    assert again.new == 0 and again[1:-1] == whole[1:-1]


def test_another_call_into_the_folder_is_refused(run, data, whole, files):
    before = {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}
    for arguments, words in (
        ({"field": GENTLE}, "settings (crf"),
        ({"probabilities": True}, "settings (probabilities"),
        ({"data": str(files), "ignore_mismatch": True}, "another data"),
    ):
        with pytest.raises(InputError) as caught:
            segment_files(run, **{"data": str(data), "output": whole.folder, **arguments})
        assert words in str(caught.value)
    assert before == {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}


def test_two_processes_do_not_write_into_one_folder(run, data, tmp_path):
    with claimed(tmp_path / "out" / ".running"), pytest.raises(InputError, match=r"not empty|another process"):
        segment_files(run, str(data), tmp_path / "out")


# === Mistakes ===


def test_damaged_particles_stop_it_or_are_left_out(run, tmp_path):
    broken = particle(1)
    broken[0, 0, 0] = np.nan
    write_mrc(tmp_path / "in" / "a.mrc", particle(0), VOXEL_SIZE)
    write_mrc(tmp_path / "in" / "b.mrc", broken, VOXEL_SIZE)
    with pytest.raises(InputError, match=r"b\.mrc has 1 voxels that are NaN.*--skip_damaged"):
        segment_files(run, str(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out" / "volumes.csv").exists()
    outcome = segment_files(run, str(tmp_path / "in"), tmp_path / "out", skip_damaged=True)
    assert outcome.particles == 1 and outcome.left_out == [str(tmp_path / "in" / "b.mrc")]
    (tmp_path / "in" / "a.mrc").unlink()
    none = segment_files(run, str(tmp_path / "in"), tmp_path / "none", skip_damaged=True)
    assert none.particles == 0 and none.median_nm3 is None


def test_other_boxes_and_voxel_sizes_are_refused(run, files, tmp_path):
    with pytest.raises(InputError, match=r"voxel size 20 A \(trained on 10 A\)"):
        segment_files(run, str(files), tmp_path / "out")
    write_mrc(tmp_path / "in" / "a.mrc", particle(0, 12), VOXEL_SIZE)
    with pytest.raises(InputError, match=r"box 12\^3 \(trained on 8\^3\)"):
        segment_files(run, str(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_that_make_no_masks_are_refused(data, tmp_path):
    with pytest.raises(InputError, match="without the volume decoder"):
        segment_files(cosnet_run(tmp_path / "bare", decoder=False), str(data), tmp_path / "out")
    with pytest.raises(InputError, match=r"no config\.yaml"):
        segment_files(tmp_path, str(data), tmp_path / "out")


def test_a_field_without_pydensecrf_is_refused_before_anything_is_read(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(InputError, match="pydensecrf2"):
        segment_files(run, "no such data", tmp_path / "out", field=GENTLE)


def test_dark_protein_is_turned_for_the_network(run, data, tmp_path):
    write_mrc(tmp_path / "in" / "a.mrc", -particle(3), VOXEL_SIZE)
    outcome = segment_files(run, str(tmp_path / "in"), tmp_path / "out", Reading(invert_contrast=True))
    np.testing.assert_array_equal(
        read_mrc(outcome.folder / "masks" / "a.mrc")[0], standardize(particle(3)[None].copy())[0] > LEVEL
    )
