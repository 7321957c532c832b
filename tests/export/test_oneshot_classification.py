"""Classes from one example each, from files to files: known classes are found, others are none, and nothing is lost."""

import csv
import json

import numpy as np
import pytest
import starfile
from small_cosnet import SIDE, VOXEL_SIZE, cosnet_run, shell_weights

from aitom_ssl.data import write_dataset
from aitom_ssl.data.sources import Reading
from aitom_ssl.errors import InputError
from aitom_ssl.export import oneshot_classification
from aitom_ssl.export.oneshot_classification import against_labels, classify_oneshot
from aitom_ssl.mrc import read_mrc, write_mrc
from aitom_ssl.oneshot.calibration import VIEWS
from aitom_ssl.oneshot.trained import TrainedCOSNet

SHAPES = {"ball": [1, 1, 0, 0, 0], "point": [1, 0, 0, 0, 0], "shell": [0, 0, 1, 0, 0], "large": [1, 1, 1, 1, 0]}
KNOWN, OTHER = ["ball", "point", "shell"], "large"


def particle(name, seed, noise=0.15):
    """A body of shells around the centre, in noise: no turn changes it."""
    shells = (shell_weights() > 0) @ np.array(SHAPES[name], float)
    rng = np.random.default_rng(seed)
    return (shells.reshape((SIDE,) * 3) + noise * rng.normal(size=(SIDE,) * 3)).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return cosnet_run(tmp_path_factory.mktemp("runs") / "hand")


@pytest.fixture(scope="module")
def support(tmp_path_factory):
    folder = tmp_path_factory.mktemp("support")
    for k, name in enumerate(KNOWN):
        write_mrc(folder / f"{name}.mrc", particle(name, k), VOXEL_SIZE)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    names = (*KNOWN, OTHER)
    samples = ({"volume": particle(names[k % 4], 100 + k), "label": k % 4} for k in range(40))
    folder = tmp_path_factory.mktemp("data") / "tiny"
    return write_dataset(folder, "tiny", names, VOXEL_SIZE, "bright", {"test": samples})


@pytest.fixture(scope="module")
def whole(run, support, data, tmp_path_factory):
    return classify_oneshot(run, support, str(data), tmp_path_factory.mktemp("whole") / "out", command="this")


def table(output):
    with open(output / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


# === What is found ===


def test_known_classes_are_found_and_an_unknown_one_is_none(whole):
    assert whole.classes == {"ball": 10, "point": 10, "shell": 10, "none": 10}
    expected = {"known": 30, "right": 1.0, "closest": 1.0, "missed": 0.0, "others": 10, "rejected": 1.0}
    assert whole.measured == expected
    assert whole.calibration["rejected"] > 0.5
    for k, row in enumerate(table(whole.folder)):
        assert row["class"] == (*KNOWN, "none")[k % 4]


def test_rows_are_consistent(whole):
    for row in table(whole.folder):
        scores = {name: float(row[f"score_{name}"]) for name in KNOWN}
        closest = max(scores, key=scores.get)
        assert row["closest"] == closest and float(row["score_none"]) == 0.5
        assert row["class"] == (closest if scores[closest] > 0.5 else "none")
        assert float(row["score"]) == max(*scores.values(), 0.5)
        mask, header = read_mrc(whole.folder / row["mask"])
        assert int(row["voxels"]) == mask.sum() and header.voxel_size == VOXEL_SIZE


def test_the_star_file_says_the_same(whole):
    blocks = starfile.read(whole.folder / "predictions.star", always_dict=True)
    particles, rows = blocks["particles"], table(whole.folder)
    names = blocks["aitom_classes"]["aitomClassName"].tolist()
    assert names == [*KNOWN, "none"]
    assert [names[number - 1] for number in particles["rlnClassNumber"]] == [row["class"] for row in rows]
    np.testing.assert_allclose(particles["aitomScore"], [float(row["score"]) for row in rows], rtol=1e-6)
    assert "aitomScore_ball" in particles and "aitomScore_none" in particles
    assert blocks["aitom_classes"]["aitomScoreColumn"].tolist()[0] == "aitomScore_ball"


def test_what_lies_there(whole):
    names = {path.name for path in whole.folder.iterdir()}
    files = {f"predictions.{kind}" for kind in ("csv", "json", "star")} | {"support.png", "scores.png", "masks.png"}
    assert names == files | {"masks", "report.html"}
    page = (whole.folder / "report.html").read_text()
    assert "this" in page and "called none" in page and "100.0%" in page


def test_masks_are_those_of_segment(whole, run, data, tmp_path):
    from aitom_ssl.export.segmentation import segment_files

    segment_files(run, str(data), tmp_path / "out")
    for row in table(whole.folder)[:5]:
        both = [read_mrc(folder / row["mask"])[0] for folder in (whole.folder, tmp_path / "out")]
        np.testing.assert_array_equal(*both)


def test_a_threshold_of_one_rejects_all_and_of_zero_none(run, support, data, tmp_path):
    assert classify_oneshot(run, support, str(data), tmp_path / "1", threshold=1.0).classes["none"] == 40
    assert classify_oneshot(run, support, str(data), tmp_path / "0", threshold=0.0).classes["none"] == 0


def test_supports_are_embedded_once(run, support, data, tmp_path, monkeypatch):
    seen, answer = [], TrainedCOSNet.__call__

    def counted(self, volumes, standardized=False):
        seen.append(len(volumes))
        return answer(self, volumes, standardized)

    monkeypatch.setattr(TrainedCOSNet, "__call__", counted)
    classify_oneshot(run, support, str(data), tmp_path / "out", batch_size=8)
    assert sum(seen) == 40 + 3 + 3 * VIEWS


def test_a_star_file_and_several_examples(run, support, tmp_path):
    several = tmp_path / "support"
    for k, name in enumerate(KNOWN):
        for seed in (k, 50 + k):
            write_mrc(several / name / f"{seed}.mrc", particle(name, seed), VOXEL_SIZE)
    for k in range(4):
        write_mrc(tmp_path / "parts" / f"{k}.mrc", particle((*KNOWN, OTHER)[k], 200 + k), VOXEL_SIZE)
    rows = "".join(f"parts/{k}.mrc {k * 1.5}\n" for k in (2, 3, 0))
    (tmp_path / "in.star").write_text(f"data_\n\nloop_\n_rlnImageName #1\n_rlnCoordinateX #2\n{rows}")
    outcome = classify_oneshot(run, several, str(tmp_path / "in.star"), tmp_path / "out")
    assert [row["class"] for row in table(outcome.folder)] == ["shell", "none", "ball"]
    written = starfile.read(outcome.folder / "predictions.star", always_dict=True)[""]
    assert written["rlnCoordinateX"].tolist() == [3.0, 4.5, 0.0] and written["rlnClassNumber"].tolist() == [3, 4, 1]
    assert not any("one example" in note for note in outcome.notes)
    assert outcome.measured is None


def test_a_network_without_a_decoder_classifies_without_masks(support, data, tmp_path):
    bare = cosnet_run(tmp_path / "bare", decoder=False)
    outcome = classify_oneshot(bare, support, str(data), tmp_path / "out")
    assert outcome.measured["right"] == 1.0
    assert not (outcome.folder / "masks").exists() and "mask" not in table(outcome.folder)[0]


def test_dark_files_and_a_bright_support_set(run, support, tmp_path):
    for k, name in enumerate(KNOWN):
        write_mrc(tmp_path / "in" / f"{name}.mrc", -particle(name, 300 + k), VOXEL_SIZE)
    arguments = (run, support, str(tmp_path / "in"))
    found = classify_oneshot(*arguments, tmp_path / "out", Reading(invert_contrast=True), support_dark=False)
    assert [row["class"] for row in table(found.folder)] == KNOWN


def test_few_classes_are_told_apart_with_notes_of_what_cannot_be_known(run, support, data, tmp_path):
    for name in KNOWN[:2]:
        write_mrc(tmp_path / "two" / f"{name}.mrc", particle(name, 0), VOXEL_SIZE)
    two = classify_oneshot(run, tmp_path / "two", str(data), tmp_path / "out2")
    assert two.calibration["rejected"] is None and any("two classes" in note for note in two.notes)
    write_mrc(tmp_path / "one" / "ball.mrc", particle("ball", 0), VOXEL_SIZE)
    one = classify_oneshot(run, tmp_path / "one", str(data), tmp_path / "out1")
    assert any("one class" in note for note in one.notes)
    assert one.measured["closest"] == 1.0 and one.measured["others"] == 30 and one.measured["rejected"] > 0.9


# === Interruption ===


@pytest.mark.parametrize("after", [0, 2])
def test_interrupted_and_gone_on_with_is_the_same_to_the_byte(
    run, support, data, whole, tmp_path, monkeypatch, after
):
    monkeypatch.setattr(oneshot_classification, "PART", 8)
    calls, write = [0], oneshot_classification.PredictionFolder.write_part

    def interrupted(self, *arguments):
        if calls[0] == after:
            raise KeyboardInterrupt
        calls[0] += 1
        return write(self, *arguments)

    monkeypatch.setattr(oneshot_classification.PredictionFolder, "write_part", interrupted)
    with pytest.raises(KeyboardInterrupt, match=rf"{8 * after} of 40 particles .* Go on with: this"):
        classify_oneshot(run, support, str(data), tmp_path / "out", batch_size=8, command="this")
    assert not (tmp_path / "out" / "predictions.csv").exists()
    monkeypatch.setattr(oneshot_classification.PredictionFolder, "write_part", write)
    again = classify_oneshot(run, support, str(data), tmp_path / "out", batch_size=8, command="this")
    assert again.new == 40 - 8 * after
    for name in ("predictions.csv", "predictions.star"):
        assert (tmp_path / "out" / name).read_bytes() == (whole.folder / name).read_bytes()


def test_done_already_is_said_and_another_support_set_is_refused(run, support, data, whole, tmp_path):
    again = classify_oneshot(run, support, str(data), whole.folder)
    assert again.new == 0 and again[1:-1] == whole[1:-1]
    write_mrc(tmp_path / "ball.mrc", particle("ball", 9), VOXEL_SIZE)
    with pytest.raises(InputError, match="another support"):
        classify_oneshot(run, tmp_path, str(data), whole.folder)
    with pytest.raises(InputError, match=r"settings \(threshold was 0\.5, is 0\.7\)"):
        classify_oneshot(run, support, str(data), whole.folder, threshold=0.7)


# === Mistakes ===


def test_examples_that_do_not_fit_or_are_damaged_are_named(run, data, tmp_path):
    write_mrc(tmp_path / "voxel" / "a.mrc", particle("ball", 0), 12.0)
    with pytest.raises(InputError, match=r"examples of the support set .*voxel size 12 A \(trained on 10 A\)"):
        classify_oneshot(run, tmp_path / "voxel", str(data), tmp_path / "out")
    broken = particle("ball", 0)
    broken[0, 0, 0] = np.nan
    write_mrc(tmp_path / "nan" / "a.mrc", broken, VOXEL_SIZE)
    with pytest.raises(InputError, match=r"a\.mrc has 1 voxels that are NaN"):
        classify_oneshot(run, tmp_path / "nan", str(data), tmp_path / "out", skip_damaged=True)
    assert not (tmp_path / "out").exists()


def test_particles_that_are_damaged_are_left_out(run, support, tmp_path):
    write_mrc(tmp_path / "in" / "a.mrc", particle("ball", 7), VOXEL_SIZE)
    write_mrc(tmp_path / "in" / "b.mrc", np.zeros((SIDE,) * 3), VOXEL_SIZE)
    with pytest.raises(InputError, match=r"b\.mrc is constant.*--skip_damaged"):
        classify_oneshot(run, support, str(tmp_path / "in"), tmp_path / "out")
    outcome = classify_oneshot(run, support, str(tmp_path / "in"), tmp_path / "out", skip_damaged=True)
    assert outcome.left_out == [str(tmp_path / "in" / "b.mrc")] and outcome.classes["ball"] == 1


def test_thresholds_out_of_range_are_refused(run, support, data, tmp_path):
    with pytest.raises(InputError, match=r"--threshold=1\.5"):
        classify_oneshot(run, support, str(data), tmp_path / "out", threshold=1.5)


def test_measuring_by_hand():
    import types

    import pandas

    source = types.SimpleNamespace(labels=np.array([0, 0, 1, 2, -1]), class_names=["a", "b", "x"])
    rows = pandas.DataFrame({
        "particle": range(5), "class": ["a", "none", "a", "none", "b"], "closest": ["a", "a", "a", "b", "b"]
    })
    found = against_labels(rows, source, ["a", "b"])
    assert found == {
        "known": 3, "right": 1 / 3, "closest": 2 / 3, "missed": 1 / 3, "others": 1, "rejected": 1.0
    }
    assert against_labels(rows, source, ["q"]) is None


def test_predictions_json_keeps_the_calibration(whole):
    stored = json.loads((whole.folder / "predictions.json").read_text())
    assert stored["calibration"] == whole.calibration and stored["calibration"]["views"] == 3 * VIEWS
    assert stored["support"]["classes"] == KNOWN
