"""The leave-one-out test: which cluster and class are looked at, and a test from simulated data to the report."""

import csv
import dataclasses

import numpy as np
import pytest

from aitom_ssl.discovery import reproduce_discovery
from aitom_ssl.discovery.clustering import Partition
from aitom_ssl.discovery.reproduce_discovery import (
    HeldOut,
    Result,
    Samples,
    enriched_class,
    enriched_cluster,
    jobs_of,
    measured_on,
    results_in,
    run_reproduction,
    table_rows,
    table_text,
    training_spec,
)
from aitom_ssl.discovery.subdivision import Features
from aitom_ssl.errors import InputError
from aitom_ssl.mrc import read_mrc

SETTINGS = {
    "preset": "cpu",
    "classes": ["ribosome_70s", "groel", "proteasome_20s"],
    "held_out": ["ribosome_70s"],
    "seeds": 1,
    "snr": 20.0,
    "tilt_max": 60.0,
    "size": 16,
    "voxel_size": 23.0,
    "model": "inception3d",
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 0.002,
    "precision": "float32",
    "train_samples": 6,
    "validation_samples": 2,
    "test_samples": 4,
    "clusters": 2,
    "average_classes": 1,
    "iterations": 1,
}


# === What is looked at ===


def partition(labels):
    labels = np.array(labels)
    return Partition(labels, np.zeros((labels.max() + 1, 2), np.float32), labels.max() + 1, False)


def test_the_cluster_with_the_greatest_share():
    labels = np.repeat([0, 1, 2], [10, 8, 6])
    hits = np.zeros(24, bool)
    hits[:5] = hits[10:15] = True  # 5 of 10, 5 of 8
    assert enriched_cluster(partition(labels), hits) == 1


def test_a_cluster_smaller_than_half_the_mean_is_not_looked_at():
    labels = np.repeat([0, 1, 2], [20, 18, 2])  # mean 13.3
    hits = np.zeros(40, bool)
    hits[:4] = hits[38:] = True
    assert enriched_cluster(partition(labels), hits) == 0
    hits[:4] = False
    with pytest.raises(InputError, match="No cluster of half the mean size"):
        enriched_cluster(partition(labels), hits)


def test_pure_clusters_and_classes_are_chosen_by_size():
    hits = np.ones(20, bool)
    labels = np.repeat([0, 1], [12, 8])
    assert enriched_cluster(partition(labels), hits) == 0 and enriched_class(labels, hits) == 0


def test_the_class_with_the_greatest_share_but_no_handful():
    labels = np.repeat([0, 1, 2], [10, 6, 2])
    hits = np.zeros(18, bool)
    hits[:4] = hits[10:14] = hits[16:] = True  # 4 of 10, 4 of 6, 2 of 2
    assert enriched_class(labels, hits) == 1
    assert enriched_class(np.array([0, 0, 1]), np.array([False, False, True])) == 0
    assert enriched_class(np.array([0, 0, 1, 1]), np.array([False, False, True, True])) == 1


def test_every_class_once_before_a_second_seed():
    settings = {**SETTINGS, "held_out": ["groel", "ribosome_70s"], "seeds": 2}
    names = ["ribosome_70s", "groel"]
    assert jobs_of(settings) == [HeldOut(name, seed) for seed in (0, 1) for name in names]
    job = HeldOut("groel", 1)
    assert job.folder.as_posix() == "held_out/groel-seed1" and job.needs == (Samples(),)


def test_training_never_sees_the_class(tmp_path):
    spec = training_spec(SETTINGS, tmp_path, "groel")
    assert spec.simulation.classes == ("ribosome_70s", "proteasome_20s")
    assert spec.splits == {"train": 12, "validation": 4}
    assert (spec.simulation.size, spec.simulation.snr, spec.simulation.snr_mode) == (16, 20.0, "projection")


# === From data to report ===


class Told:
    """In place of a network's features: the class that was held out, against the rest."""

    size, class_names = None, ()

    def __call__(self, source):
        values = np.eye(3, dtype=np.float32)[np.minimum(source.labels, 1)]
        values += 0.01 * np.random.default_rng(0).standard_normal(values.shape).astype(np.float32)
        return Features(values, np.arange(len(source)), [], "told", (), False, [])


@pytest.fixture
def untrained(monkeypatch):
    """Tests that train nothing; the folders of the runs that were asked for features."""
    asked = []
    monkeypatch.setattr(reproduce_discovery, "_train", lambda job, settings, path: 0.75)

    def features(run):
        asked.append(run)
        return Told()

    features.asked = asked
    return features


def test_a_structure_is_recovered_and_the_study_goes_on(tmp_path, untrained, capsys):
    output = tmp_path / "study"
    run_reproduction(SETTINGS, untrained, str(output), command="do it")
    (result,) = results_in(output, SETTINGS)
    measured = result.measured
    assert result.recovered and measured["most_like"] == "ribosome_70s"
    assert measured["cluster_share"] == measured["class_share"] == measured["cluster_recall"] == 1
    assert measured["class_size"] == 4 and measured["known_accuracy"] == 0.75
    assert measured["discrepancy"] < result.next_best
    # In one pose: the average correlates with the structure voxel by voxel.
    truth, recovered = (read_mrc(output / result.job.folder / f"{name}.mrc")[0] for name in ("true", "recovered"))
    assert np.corrcoef(truth.ravel(), recovered.ravel())[0, 1] > 0.5
    page = (output / "report.html").read_text(encoding="utf-8")
    assert (output / "structures.png").is_file() and page.count("<img") == 2 and "do it" in page
    assert "1 of 1 held-out structures are recovered." in capsys.readouterr().out
    # Going on adds a test and repeats none. There is no cluster of the other class by itself.
    more = {**SETTINGS, "held_out": ["ribosome_70s", "groel"]}
    run_reproduction(more, untrained, str(output), resume=True)
    assert [run.rsplit("/", 2)[1] for run in untrained.asked] == ["ribosome_70s-seed0", "groel-seed0"]
    with open(output / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["held_out"] for row in rows] == ["ribosome_70s", "groel"]
    assert [float(row["cluster_share"]) for row in rows] == [1.0, 0.5]


def test_a_test_that_fails_leaves_the_others(tmp_path, untrained, monkeypatch):
    settings = {**SETTINGS, "held_out": ["ribosome_70s", "groel"]}

    def leave_out(job, *_):
        if job.name == "ribosome_70s":
            raise InputError("no luck")
        path = tmp_path / "study" / job.folder
        path.mkdir(parents=True)
        reproduce_discovery.write_json(path / "results.json", results(60.0, "groel"))

    monkeypatch.setattr(reproduce_discovery, "_leave_out", leave_out)
    monkeypatch.setattr(reproduce_discovery, "write_reproduction_report", lambda *_: None)
    with pytest.raises(InputError, match=r"1 of 3 runs failed .ribosome_70s held out, seed 0.*--resume"):
        run_reproduction(settings, untrained, str(tmp_path / "study"))
    assert [result.job.name for result in results_in(tmp_path / "study", settings)] == ["groel"]
    (tmp_path / "study" / "held_out" / "groel-seed0" / "results.json").write_text("{}")
    with pytest.raises(InputError, match="is damaged"):
        results_in(tmp_path / "study", settings)


# === Words ===


def results(discrepancy, name="ribosome_70s"):
    return {
        "discrepancy": discrepancy,
        "score": 0.8,
        "fsc": [1.0, 0.9],
        "independent": [1, 9],
        "filled": 100,
        "half_sets": None,
        "most_like": name,
        "matches": {name: [0.8, discrepancy], "other": [0.5, 90.0], "third": [0.6, 80.0]},
        "cluster": 3,
        "clusters": 40,
        "cluster_size": 50,
        "cluster_share": 0.5,
        "cluster_recall": 0.1,
        "class": 0,
        "class_size": 20,
        "class_share": 0.95,
        "samples": 1800,
        "of_class": 300,
        "known_accuracy": 0.9,
        "seconds": {"training": 60.0, "clusters": 1.0, "averaging": 10.0, "total": 90.0},
    }


def test_seventy_angstrom_is_recovered():
    job = HeldOut("ribosome_70s", 0)
    assert Result(job, results(70.0)).recovered and not Result(job, results(70.1)).recovered
    assert Result(job, results(70.0)).next_best == 80.0


def test_tables_say_what_they_hold():
    found = [Result(HeldOut("ribosome_70s", 0), results(46.0)), Result(HeldOut("groel", 1), results(92.0, "groel"))]
    rows = table_rows(found)
    assert rows[1][:3] == ["ribosome_70s", "46.0", "yes"] and rows[2][:3] == ["groel, seed 1", "92.0", "no"]
    assert "1 of 2 held-out structures are recovered." in table_text(found)
    words = measured_on(found, SETTINGS)
    assert "The paper: 16 of 22 with inception3d." in words and "6 samples of each other class" in words
    assert "The paper" not in measured_on(found, {**SETTINGS, "model": "rb3d"})
    assert table_text([]) == "No test is finished."


def test_how_the_cluster_is_averaged():
    averaging = reproduce_discovery.averaging_settings(SETTINGS, 5)
    assert dataclasses.asdict(averaging) == {
        "classes": 1,
        "iterations": 1,
        "gold_standard": False,
        "tilt_max": 60.0,
        "mask_radius": None,
        "max_shift": None,
        "seed": 5,
    }
