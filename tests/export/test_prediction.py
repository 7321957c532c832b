"""From files to files: the network's own numbers in order, the same bytes after any interruption, clear refusals."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import starfile
from small_network import NAMES, SIZE, small_network
from small_run import small_run

from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.data.batches import gather
from aitom_ssl.data.importers.particles import prepare_volume
from aitom_ssl.data.importers.tomogram import cut
from aitom_ssl.data.sources import Reading
from aitom_ssl.errors import InputError
from aitom_ssl.export import part_batches
from aitom_ssl.export.classifier import Classifier, load_classifier
from aitom_ssl.export.prediction import evaluate_classifier, match_labels, predict_files
from aitom_ssl.export.prediction_folder import PART
from aitom_ssl.files import claimed
from aitom_ssl.mrc import write_mrc

COUNT = 2 * PART + 300  # the last part and its last batch are ragged
FILES = ("predictions.csv", "predictions.star")


@pytest.fixture(scope="module")
def run(description, tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("runs") / "small", description)


@pytest.fixture(scope="module")
def dark_run(description, tmp_path_factory):
    dark = dataclasses.replace(description, contrast="dark")
    return small_run(tmp_path_factory.mktemp("runs") / "dark", dark)


def dataset(path, count=COUNT, names=NAMES, voxel_size=13.48, contrast="bright", size=SIZE):
    rng = np.random.default_rng(0)
    samples = ({"volume": rng.normal(3, 2, (size,) * 3).astype(np.float32), "label": i % 3} for i in range(count))
    return write_dataset(path, "tiny", names, voxel_size, contrast, {"test": samples})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def whole(run, data, tmp_path_factory):
    """Predictions that nothing interrupted."""
    output = tmp_path_factory.mktemp("whole") / "out"
    predict_files(run, str(data), output)
    return output


def table(output):
    with open(output / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def probabilities(output):
    names = [f"probability_{name}" for name in NAMES]
    return np.array([[np.float32(row[name]) for name in names] for row in table(output)], np.float32)


# === The numbers ===


def test_predictions_are_the_networks_to_the_last_bit_and_in_order(run, data, whole):
    expected = load_classifier(run).probabilities(gather(Dataset(data, "test"), np.arange(COUNT))[..., 0], True)
    np.testing.assert_array_equal(probabilities(whole), expected)
    for i, row in enumerate(table(whole)):
        assert (row["particle"], row["split"], row["index"]) == (str(i), "test", str(i))
        assert row["class"] == NAMES[expected[i].argmax()] and np.float32(row["confidence"]) == expected[i].max()


def test_the_star_file_says_the_same(whole, data):
    blocks = starfile.read(whole / "predictions.star", always_dict=True)
    particles, expected = blocks["particles"], probabilities(whole)
    np.testing.assert_array_equal(particles["rlnClassNumber"], expected.argmax(axis=1) + 1)
    scores = [column for column in particles.columns if column.startswith("aitomProbability_")]
    np.testing.assert_array_equal(particles[scores].to_numpy(np.float32), expected)
    np.testing.assert_array_equal(particles["aitomConfidence"].to_numpy(np.float32), expected.max(axis=1))
    assert blocks["aitom_classes"]["aitomClassName"].tolist() == list(NAMES)
    assert float(blocks["optics"]["rlnImagePixelSize"].iloc[0]) == 13.48
    assert particles["rlnTomoParticleName"].iloc[-1] == f"test/{COUNT - 1}"


def test_what_came_of_it_is_told(whole, run, data):
    outcome = predict_files(run, str(data), whole)
    assert sum(outcome.classes.values()) == COUNT and outcome.particles == 0 and outcome.left_out == []
    labels = [row["class"] for row in table(whole)]
    assert outcome.classes == {name: labels.count(name) for name in NAMES}
    assert sorted(path.name for path in whole.iterdir()) == ["predictions.csv", "predictions.json", "predictions.star"]


def test_a_saved_model_predicts_the_same(served, data, whole, tmp_path):
    predict_files(served, str(data), tmp_path / "out")
    np.testing.assert_allclose(probabilities(tmp_path / "out"), probabilities(whole), atol=1e-6)


# === Interruption ===


@pytest.mark.parametrize("after", [0, 1, 20, 36])
def test_interrupted_and_gone_on_with_is_the_same_to_the_byte(run, data, whole, tmp_path, monkeypatch, after):
    calls, answer = [0], Classifier.probabilities

    def interrupted(self, volumes, standardized=False):
        if calls[0] == after:
            raise KeyboardInterrupt
        calls[0] += 1
        return answer(self, volumes, standardized)

    monkeypatch.setattr(Classifier, "probabilities", interrupted)
    done = after * 64 // PART * PART
    with pytest.raises(KeyboardInterrupt, match=rf"{done:,} of {COUNT:,} particles .* Go on with: this"):
        predict_files(run, str(data), tmp_path / "out", command="this")
    parts = sorted((tmp_path / "out" / "parts").glob("*"))
    assert len(parts) == after * 64 // PART
    with open(whole / "predictions.csv") as file:
        lines = file.readlines()
    for number, part in enumerate(parts):
        assert part.read_text() == "".join([lines[0], *lines[1 + number * PART : 1 + (number + 1) * PART]])
    monkeypatch.setattr(Classifier, "probabilities", answer)
    outcome = predict_files(run, str(data), tmp_path / "out")
    assert outcome.particles == COUNT - done
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()


def test_killed_while_it_finishes_it_finishes_again(run, data, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("aitom_ssl.export.prediction_folder.PredictionFolder._star_lines", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict_files(run, str(data), tmp_path / "out")
    monkeypatch.undo()
    (tmp_path / "out" / "parts" / ".part-00001.999999999-0123abcd.partial.csv").write_text("half of")
    predict_files(run, str(data), tmp_path / "out")
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_another_call_into_the_folder_is_refused(run, dark_run, data, whole, tmp_path):
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    other = dataset(tmp_path / "other", count=20)
    for arguments, said in (
        ((dark_run, str(data)), "of another model"),
        ((run, str(other)), "of another data"),
        ((run, str(data), Reading(split="test")), r"of another settings \(split was None, is test\)"),
    ):
        model, given, *reading = arguments
        with pytest.raises(InputError, match=said):
            predict_files(model, given, whole, *reading)
    with pytest.raises(InputError, match="batch_size was 64, is 32"):
        predict_files(run, str(data), whole, batch_size=32)
    with pytest.raises(InputError, match="is there and is not empty"):
        predict_files(run, str(data), data)
    assert before == {path.name: path.read_bytes() for path in whole.iterdir()}


def test_a_star_file_that_cannot_be_written_back_is_refused_before_the_work(run, tmp_path, volumes):
    write_mrc(tmp_path / "a.mrc", volumes[0], 13.48)
    text = "data_particles\nloop_\n_rlnImageName #1\na.mrc  # which starfile passes over\n"
    (tmp_path / "in.star").write_text(text)
    with pytest.raises(InputError, match=r"in\.star: row 1 has \d values, its table 1 columns"):
        predict_files(run, str(tmp_path / "in.star"), tmp_path / "out")
    assert not (tmp_path / "out" / "parts").exists() and not (tmp_path / "out" / "predictions.csv").exists()


def test_two_processes_do_not_write_into_one_folder(run, data, whole, tmp_path):
    partial = shutil.copytree(whole, tmp_path / "partial")
    (partial / "predictions.star").unlink()
    with claimed(partial / ".running"), pytest.raises(InputError, match="another process is writing there"):
        predict_files(run, str(data), partial)


def test_memory_holds_a_few_batches(run, data, tmp_path, monkeypatch):
    largest, answer = [0], part_batches.ahead

    def watched(function, items, count=4):
        alive = [0]

        def make(item):
            alive[0] += len(item)
            return function(item)

        for batch in answer(make, items, count):
            largest[0] = max(largest[0], alive[0])
            yield batch
            alive[0] -= batch.asked

    monkeypatch.setattr(part_batches, "ahead", watched)
    predict_files(run, str(data), tmp_path / "out", batch_size=32)
    assert 32 <= largest[0] <= 7 * 32


# === What differs ===


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"voxel_size": 10.0}, r"voxel size 10 A \(trained on 13\.48 A\)"),
        ({"size": 10}, r"box 10\^3 \(trained on 8\^3\)"),
        ({"contrast": "dark"}, r"dark protein \(trained on bright\)"),
    ],
)
def test_what_differs_is_refused_with_both_values_and_can_be_overruled(run, tmp_path, change, said):
    data = dataset(tmp_path / "data", count=70, **change)
    with pytest.raises(InputError, match=said + ".*--ignore_mismatch"):
        predict_files(run, str(data), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    outcome = predict_files(run, str(data), tmp_path / "out", ignore_mismatch=True)
    assert sum(outcome.classes.values()) == 70 and any("taken as it is" in note for note in outcome.notes)
    volumes = Dataset(data, "test").volumes(range(70))
    if "size" in change:
        volumes = volumes[:, 1:9, 1:9, 1:9]
    np.testing.assert_array_equal(probabilities(tmp_path / "out"), load_classifier(run).probabilities(volumes))


def test_a_dataset_of_the_other_contrast_fits_when_it_is_turned(run, dark_run, tmp_path):
    dark = dataset(tmp_path / "dark", count=10, contrast="dark")
    predict_files(run, str(dark), tmp_path / "out", Reading(invert_contrast=True))
    expected = load_classifier(run).probabilities(-Dataset(dark, "test").volumes(range(10)))
    np.testing.assert_array_equal(probabilities(tmp_path / "out"), expected)
    with pytest.raises(InputError, match=r"bright protein \(trained on dark\)"):
        predict_files(dark_run, str(dark), tmp_path / "other", Reading(invert_contrast=True))


@pytest.mark.parametrize("invert", [False, True])
def test_files_reach_a_model_in_the_contrast_it_was_trained_on(run, dark_run, volumes, tmp_path, invert):
    for i, volume in enumerate(volumes):
        write_mrc(tmp_path / "mrc" / f"{i}.mrc", volume, 13.48)
    standard = np.stack([prepare_volume(volume, False, "zscore", "") for volume in volumes])
    for name, model, sign in (("bright", run, -1 if invert else 1), ("dark", dark_run, 1 if invert else -1)):
        predict_files(model, str(tmp_path / "mrc"), tmp_path / name, Reading(invert_contrast=invert))
        expected = load_classifier(model).probabilities(sign * standard, standardized=True)
        np.testing.assert_array_equal(probabilities(tmp_path / name), expected)


# === Files of the user ===


def test_a_folder_of_mrc_files(run, volumes, tmp_path):
    for i, volume in enumerate(volumes):
        write_mrc(tmp_path / "mrc" / f"p {i}.mrc", volume, 13.48)
    predict_files(run, str(tmp_path / "mrc"), tmp_path / "out")
    assert [row["path"] for row in table(tmp_path / "out")] == [f"p {i}.mrc" for i in range(5)]
    particles = starfile.read(tmp_path / "out" / "predictions.star", always_dict=True)["particles"]
    assert particles["rlnImageName"].tolist() == [str(tmp_path / "mrc" / f"p {i}.mrc") for i in range(5)]


def test_a_wrong_box_or_voxel_size_of_files_is_refused(run, volumes, tmp_path):
    write_mrc(tmp_path / "mrc" / "a.mrc", np.pad(volumes[0], 1, mode="reflect"), 10.0)
    with pytest.raises(InputError, match=r"box 10\^3 \(trained on 8\^3\); voxel size 10 A \(trained on 13\.48 A\)"):
        predict_files(run, str(tmp_path / "mrc"), tmp_path / "out")
    predict_files(run, str(tmp_path / "mrc"), tmp_path / "out", Reading(box_size=8, voxel_size=13.48))
    assert len(table(tmp_path / "out")) == 1


def test_coordinates_in_a_tomogram(run, tmp_path):
    tomogram = np.random.default_rng(2).normal(size=(20, 22, 24)).astype(np.float32)
    write_mrc(tmp_path / "t.mrc", tomogram, 13.48)
    rows = [(5.0, 6.0, 7.0), (90.0, 1.0, 1.0), (12.0, 11.0, 10.0)]
    text = "data_particles\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnCoordinateZ #3\n"
    (tmp_path / "p.star").write_text(text + "".join("{:.6f}  {:.6f} {:.6f}\n".format(*row) for row in rows))
    outcome = predict_files(run, str(tmp_path / "p.star"), tmp_path / "out", Reading(tomogram=str(tmp_path / "t.mrc")))
    boxes = np.stack([cut(tomogram, np.array(rows[k], int), SIZE) for k in (0, 2)])
    standard = np.stack([prepare_volume(box, False, "zscore", "") for box in boxes])
    np.testing.assert_array_equal(probabilities(tmp_path / "out"), load_classifier(run).probabilities(standard, True))
    assert [row["row"] for row in table(tmp_path / "out")] == ["0", "2"]
    written = (tmp_path / "out" / "predictions.star").read_text()
    assert "5.000000  6.000000 7.000000 " in written and "90.000000" not in written
    particles = starfile.read(tmp_path / "out" / "predictions.star", always_dict=True)["particles"]
    assert particles["rlnCoordinateX"].tolist() == [5, 12] and len(particles["rlnClassNumber"]) == 2
    assert any("1 of 3 particles dropped" in note for note in outcome.notes)


def test_a_damaged_volume_is_named_and_what_was_done_is_kept(run, tmp_path):
    volumes = np.random.default_rng(5).normal(size=(PART + 80, SIZE, SIZE, SIZE)).astype(np.float32)
    folder = tmp_path / "mrc"
    write_mrc(folder / "0000.mrc", volumes[0], 13.48)
    header = (folder / "0000.mrc").read_bytes()[:1024]
    volumes[PART + 70, 0, 0, 0] = np.nan
    for i, volume in enumerate(volumes):
        (folder / f"{i:04d}.mrc").write_bytes(header + volume.tobytes())
    with pytest.raises(InputError) as caught:
        predict_files(run, str(folder), tmp_path / "out")
    assert "1094.mrc has 1 voxels that are NaN" in str(caught.value) and "--skip_damaged" in str(caught.value)
    assert f"1,024 of {PART + 80:,} particles are done" in str(caught.value)
    kept = (tmp_path / "out" / "parts" / "part-00000.csv").read_text().splitlines()
    assert len(kept) == 1 + PART and kept[-1].split(",")[1] == "1023.mrc"
    outcome = predict_files(run, str(folder), tmp_path / "out", skip_damaged=True)
    assert len(outcome.left_out) == 1 and "1094.mrc" in outcome.left_out[0] and outcome.particles == 79
    assert [int(row["particle"]) for row in table(tmp_path / "out")] == [i for i in range(PART + 80) if i != PART + 70]
    assert len(starfile.read(tmp_path / "out" / "predictions.star", always_dict=True)["particles"]) == PART + 79


# === Measuring ===


@pytest.fixture
def no_report(monkeypatch):
    """Seconds of drawing that only one test needs."""
    monkeypatch.setattr("aitom_ssl.evaluation.write_classification_report", lambda *_, **__: None)


def test_classes_are_matched_by_name(run, data, tmp_path):
    order = [2, 0, 1]
    renamed = dataset(tmp_path / "renamed", count=60, names=[NAMES[k] for k in order])
    metrics, _ = evaluate_classifier(run, str(renamed), tmp_path / "out")
    volumes = gather(Dataset(renamed, "test"), np.arange(60))[..., 0]
    predicted = load_classifier(run).probabilities(volumes, True).argmax(axis=1)
    true = np.array(order)[np.arange(60) % 3]
    assert metrics.class_names == tuple(NAMES) and metrics.accuracy == (predicted == true).mean()
    for k in range(3):
        assert metrics.confusion[k].sum() == 20 and metrics.confusion[k, k] == ((predicted == k) & (true == k)).sum()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["accuracy"] == metrics.accuracy and results["measured_on"] == "test"
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_a_perfect_and_a_useless_model_are_told_apart(run, tmp_path, no_report):
    volumes = np.random.default_rng(9).normal(size=(40, SIZE, SIZE, SIZE)).astype(np.float32)
    standard = np.stack([prepare_volume(volume, False, "zscore", "") for volume in volumes])
    predicted = load_classifier(run).probabilities(standard, True).argmax(axis=1)
    for shift, accuracy in ((0, 1.0), (1, 0.0)):
        for i, volume in enumerate(volumes):
            write_mrc(tmp_path / f"d{shift}" / NAMES[(predicted[i] + shift) % 3] / f"{i}.mrc", volume, 13.48)
        metrics, _ = evaluate_classifier(run, str(tmp_path / f"d{shift}"), tmp_path / f"out{shift}")
        assert metrics.accuracy == accuracy and metrics.samples == 40


def test_a_class_that_the_model_does_not_know_is_named(run, tmp_path, no_report):
    strange = dataset(tmp_path / "data", count=30, names=[NAMES[0], "virus", NAMES[1]])
    with pytest.raises(InputError, match=r"does not know the class 'virus'.*--ignore_unknown"):
        evaluate_classifier(run, str(strange), tmp_path / "out")
    metrics, notes = evaluate_classifier(run, str(strange), tmp_path / "out", ignore_unknown=True)
    assert metrics.samples == 20 and "10 particles without a label" in notes[-1]


def test_data_without_labels_and_folders_of_others_are_refused(run, volumes, data, tmp_path):
    write_mrc(tmp_path / "mrc" / "a.mrc", volumes[0], 13.48)
    with pytest.raises(InputError, match="no labels"):
        evaluate_classifier(run, str(tmp_path / "mrc"), tmp_path / "out")
    with pytest.raises(InputError, match="no evaluation"):
        evaluate_classifier(run, str(data), data)
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "results.json").write_text("{}")
    with pytest.raises(InputError, match="is a run"):
        evaluate_classifier(run, str(data), copy)


def test_a_class_without_particles_need_not_be_known(volumes):
    from test_feed import source_of

    source = dataclasses.replace(
        source_of(volumes), class_names=["empty", "nobody", "GroEL"], labels=np.array([2, -1, 0, 2, -1])
    )
    chosen, labels = match_labels(source, NAMES, "model", False)
    assert chosen.tolist() == [0, 2, 3] and labels.tolist() == [1, 2, 1]


def test_networks_of_the_tests_tell_volumes_apart(volumes):
    answers = small_network()(volumes[..., None] / 20 - 5).numpy()
    assert np.unique(answers.round(4), axis=0).shape == (5, 3)
