"""Is a structure found that no training class holds? The leave-one-out test of Xu 2017 (section 3.3).

For each class C: train without C -> project test samples of all classes -> k-means -> the cluster in which C is most
enriched -> reference-free classification and averaging -> the class in which C is most enriched -> its average beside
the true structure. C counts as recovered where the two differ by 70 A or less (FSC 0.5).

    config.yaml                          what was asked for
    data/test/                           test samples of all classes
    held_out/ribosome_70s-seed0/run      the network that never saw C (see training.supervised); its data are deleted
    held_out/.../features.npy            what it makes of the test samples
    held_out/.../cluster/                classes, averages and poses of the cluster (see `cluster_averages`)
    held_out/.../true.mrc recovered.mrc  in one pose
    held_out/.../results.json            written last
    table.csv  structures.png report.html   of what is finished

As in the paper, labels choose the cluster and the class: it is a test of whether the structure can be found, not of
whether somebody without labels would know that it is new. Differs from the paper: analytic models stand for its PDB
entries and our simulator for its own; clusters smaller than half the mean size, and classes of fewer than 5, are not
looked at, since a few particles of one kind are "enriched" by chance.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from aitom_ssl import environment
from aitom_ssl.data.build import build
from aitom_ssl.data.header import read_header
from aitom_ssl.data.sources import Reading, open_source
from aitom_ssl.data.spec import DatasetSpec, load_spec
from aitom_ssl.discovery.cluster_averages import AveragingSettings, average_cluster, read_cluster, trusted
from aitom_ssl.discovery.clustering import Partition
from aitom_ssl.discovery.known_structures import best_matches, known_structures
from aitom_ssl.discovery.resolution import RECOVERED, REFERENCE, ShellCorrelation, fourier_shell_correlation
from aitom_ssl.discovery.subdivision import FeatureMaker, subdivide
from aitom_ssl.errors import InputError, reason
from aitom_ssl.files import atomic_write, write_csv, write_json
from aitom_ssl.mrc import read_mrc, write_mrc
from aitom_ssl.training.jobs import run_study_jobs
from aitom_ssl.training.run import RunFolder
from aitom_ssl.training.settings import command_line

NAME = "reproduce_discovery"
# Section 3.3: recovered structures of 22.
PAPER = {"inception3d": 16, "dsrf3d": 18}
PAPER_CLASSES = 22
# Section 3.2.1.
RECIPE = {
    "preset": "xu2017",
    "limit": None,
    "decay": 1e-6,
    "momentum": 0.9,
    "class_weights": "none",
    "augmentation": "none",
    "pooling": "none",
}
_TRAINED_WITH = ("model", "epochs", "batch_size", "learning_rate", "precision")
_LEAST_IN_CLASS = 5
_TOGETHER = 3  # structures in one picture, so that their names fit


class Samples(NamedTuple):
    """The job that all others need: test samples."""

    folder: Path = Path("data/test")
    needs: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return "test samples"


class HeldOut(NamedTuple):
    """The job of one class and seed."""

    name: str
    seed: int

    @property
    def folder(self) -> Path:
        return Path("held_out") / f"{self.name}-seed{self.seed}"

    @property
    def needs(self) -> tuple[Any, ...]:
        return (Samples(),)

    def __str__(self) -> str:
        return f"{self.name} held out, seed {self.seed}"


class Result(NamedTuple):
    """A finished job and its results.json."""

    job: HeldOut
    measured: dict[str, Any]

    @property
    def recovered(self) -> bool:
        return self.measured["discrepancy"] <= RECOVERED

    @property
    def next_best(self) -> float:
        """A, the least discrepancy between the average and the structure of any other class."""
        return min(differs for name, (_, differs) in self.measured["matches"].items() if name != self.job.name)


# === Running ===


def run_reproduction(
    settings: Mapping[str, Any],
    network_features: Callable[[str], FeatureMaker],
    output: str | None = None,
    resume: bool = False,
    workers: int = 1,
    command: str = "",
) -> RunFolder:
    """Leave out every class asked for, then print the table; returns the folder.

    Args:
        settings: classes (structures), held_out (some of them), seeds (how many: 0, 1, ...), snr, tilt_max (degrees),
            size, voxel_size (A), model, epochs, batch_size, learning_rate, precision, train_samples,
            validation_samples and test_samples (of each class), clusters, average_classes, iterations, and preset (a
            name, kept).
        network_features: a run's folder to what gives its features.
        output: folder; default runs/reproduce_discovery-PRESET, with a number when that is taken.
        resume: go on in `output`; finished tests are kept. Several processes may do this at once.
        workers: processes that align.
        command: what makes it again, kept in the config.

    A test that fails leaves the others as they are; InputError says so at the end. KeyboardInterrupt carries how to go
    on.
    """
    study = RunFolder.open(output) if resume else RunFolder.create(output, NAME, settings["preset"])
    about = {"method": NAME, "command": command, "settings": dict(settings), "versions": environment.versions()}
    study.write_config(about)
    jobs = jobs_of(settings)

    def run(job: Samples | HeldOut) -> None:
        if isinstance(job, Samples):
            build(spec_of_all(settings, study.path), folder=study.path / job.folder)
        else:
            _leave_out(job, settings, network_features, study.path, workers)

    def finished(job: Samples | HeldOut) -> bool:
        if isinstance(job, Samples):
            path = study.path / job.folder
            return (path / "dataset.json").is_file() and "test" in read_header(path)["splits"]
        return (study.path / job.folder / "results.json").is_file()

    def so_far() -> str:
        results = write_table(study.path, settings, command)
        return f"{table_text(results)}\n\n{measured_on(results, settings)}"

    run_study_jobs(NAME, study.path, [Samples(), *jobs], run, finished, so_far)
    return study


def jobs_of(settings: Mapping[str, Any]) -> list[HeldOut]:
    """The tests asked for, every class once before a second seed."""
    names = [name for name in settings["classes"] if name in settings["held_out"]]
    return [HeldOut(name, seed) for seed in range(settings["seeds"]) for name in names]


# === Data ===


def _spec(
    settings: Mapping[str, Any], path: Path, classes: Sequence[str], splits: Mapping[str, int], what: str
) -> DatasetSpec:
    simulation = {
        "classes": list(classes),
        **{name: settings[name] for name in ("snr", "tilt_max", "size", "voxel_size")},
    }
    spec = {"description": what, "preset": "xu2017", "simulation": simulation, "splits": dict(splits)}
    with atomic_write(path) as temporary:
        temporary.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return load_spec(path)


def spec_of_all(settings: Mapping[str, Any], folder: Path) -> DatasetSpec:
    """Test samples of all classes."""
    classes = settings["classes"]
    counts = {"test": settings["test_samples"] * len(classes)}
    return _spec(settings, folder / "data" / "test.yaml", classes, counts, "Test samples of all classes.")


def training_spec(settings: Mapping[str, Any], folder: Path, held_out: str) -> DatasetSpec:
    """Training and validation samples of all classes but one."""
    classes = [name for name in settings["classes"] if name != held_out]
    counts = {split: settings[f"{split}_samples"] * len(classes) for split in ("train", "validation")}
    return _spec(settings, folder / "data.yaml", classes, counts, f"All classes but {held_out}.")


# === One test ===


def enriched_cluster(partition: Partition, hits: np.ndarray) -> int:
    """The cluster with the greatest share of `hits` (n,) bool, of those of half the mean size or more; ties: largest.

    InputError where no such cluster has one.
    """
    sizes = partition.sizes
    counted = np.bincount(partition.labels, weights=hits, minlength=len(sizes))
    shares = np.where(sizes >= sizes.mean() / 2, counted / sizes, 0.0)
    if not shares.any():
        raise InputError("No cluster of half the mean size or more has a sample of the class that was held out.")
    return int(shares.argmax())  # clusters fall in size: the first is the largest


def enriched_class(labels: np.ndarray, hits: np.ndarray) -> int:
    """The class (of `labels`, (n,) from 0, falling in size) with the greatest share of `hits`; ties: the largest.

    Classes of fewer than 5 are passed over, unless all are.
    """
    sizes = np.bincount(labels)
    shares = np.bincount(labels, weights=hits) / np.maximum(sizes, 1)
    counted = sizes >= min(_LEAST_IN_CLASS, sizes.max())
    return int(np.where(counted, shares, -1.0).argmax())


def _leave_out(
    job: HeldOut,
    settings: Mapping[str, Any],
    network_features: Callable[[str], FeatureMaker],
    folder: Path,
    workers: int,
) -> None:
    started = time.monotonic()
    path = folder / job.folder
    accuracy = _train(job, settings, path)
    trained = time.monotonic()
    source = open_source(str(folder / Samples().folder), Reading(split="test"))
    features = network_features(str(path / "run"))(source)
    with atomic_write(path / "features.npy") as temporary:
        np.save(temporary, features.values)
    partition = subdivide(features, settings["clusters"], job.seed)
    hits = source.labels == source.class_names.index(job.name)
    cluster = enriched_cluster(partition, hits)
    members = partition.members(cluster)
    clustered = time.monotonic()
    averaging = averaging_settings(settings, job.seed)
    simulation = spec_of_all(settings, folder).simulation.parameters()
    known, _ = known_structures(source.class_names, source.size, source.voxel_size, simulation, settings["classes"])
    found, about = average_cluster(source, members, averaging, (), path / "cluster", workers)
    chosen = enriched_class(found.labels, hits[members])
    mask = averaging.mask(source.size, source.voxel_size)
    matches = best_matches(found.averages[chosen], known, source.voxel_size, mask, workers)
    match = next((match for match in matches if match.name == job.name), None)
    if match is None:
        raise InputError(f"{job.name} does not fit into a box of {source.size} voxels: give a larger --size.")
    truth = next(one for one in known if one.name == job.name)
    curve = fourier_shell_correlation(match.posed, truth.template, source.voxel_size)
    write_mrc(path / "true.mrc", truth.template, source.voxel_size)
    write_mrc(path / "recovered.mrc", match.posed, source.voxel_size)
    inside, here = hits[members], found.labels == chosen
    half = read_cluster(path / "cluster").resolution(chosen)
    ended = time.monotonic()
    results = {
        "discrepancy": match.discrepancy,
        "score": match.score,
        "fsc": curve.correlation.tolist(),
        "independent": curve.independent.tolist(),
        "filled": truth.voxels,
        "half_sets": half,
        "most_like": matches[0].name,
        "matches": {other.name: [other.score, other.discrepancy] for other in matches},
        "cluster": cluster,
        "clusters": len(partition.sizes),
        "cluster_size": len(members),
        "cluster_share": float(inside.mean()),
        "cluster_recall": float(inside.sum() / hits.sum()),
        "class": chosen,
        "class_size": int(here.sum()),
        "class_share": float(inside[here].mean()),
        "samples": len(source),
        "of_class": int(hits.sum()),
        "known_accuracy": accuracy,
        "seconds": {
            "training": round(trained - started, 1),
            "clusters": round(clustered - trained, 1),
            "averaging": about["seconds"],
            "total": round(ended - started, 1),
        },
    }
    write_json(path / "results.json", results)
    print(result_text(Result(job, results)), flush=True)


def averaging_settings(settings: Mapping[str, Any], seed: int) -> AveragingSettings:
    """How the enriched cluster is averaged."""
    return AveragingSettings(
        classes=settings["average_classes"],
        iterations=settings["iterations"],
        gold_standard=False,
        tilt_max=settings["tilt_max"],
        mask_radius=None,
        max_shift=None,
        seed=seed,
    )


def _train(job: HeldOut, settings: Mapping[str, Any], path: Path) -> float:
    """Train the network in `path`/run, where that is not done; its accuracy on validation samples of what it knows."""
    run = path / "run"
    if not (run / "results.json").is_file():
        from aitom_ssl.training.supervised import run_supervised

        data = build(training_spec(settings, path, job.name), folder=path / "data")
        own = {name: settings[name] for name in _TRAINED_WITH}
        asked = {**RECIPE, **own, "data": str(data), "seed": job.seed}
        run_supervised(asked, str(run), (run / "config.yaml").is_file(), command_line("train_supervised", asked))
    shutil.rmtree(path / "data", ignore_errors=True)
    return float(json.loads((run / "results.json").read_text(encoding="utf-8"))["accuracy"])


# === The table ===


def results_in(folder: Path, settings: Mapping[str, Any]) -> list[Result]:
    """Every finished test, in the order of the classes."""
    found = []
    for job in jobs_of(settings):
        path = folder / job.folder / "results.json"
        if not path.is_file():
            continue
        try:
            measured = json.loads(path.read_text(encoding="utf-8"))
            for name in ("discrepancy", "score", "cluster_share", "cluster_size", "class_share", "known_accuracy"):
                float(measured[name])
            list(measured["fsc"]), dict(measured["matches"]), str(measured["most_like"])
            float(measured["seconds"]["total"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged ({reason(error)}): delete it to run that test anew.") from None
        found.append(Result(job, measured))
    return found


def result_text(result: Result) -> str:
    """One sentence: recovered or not, from what."""
    m = result.measured
    return (
        f"{'recovered' if result.recovered else 'not recovered'}: differs from the true structure by "
        f"{m['discrepancy']:.1f} A (at most {RECOVERED:g}); {m['class_size']} subtomograms, {m['class_share']:.0%} "
        f"{result.job.name}, of a cluster of {m['cluster_size']}, {m['cluster_share']:.0%}"
    )


def table_rows(results: Sequence[Result]) -> list[list[str]]:
    """A header and a row a test."""
    heads = ["held out", "differs by (Å)", "recovered", "class", "of it", "cluster", "of it", "most like"]
    rows = [[*heads, "others (Å)", "half sets (Å)", "known accuracy", "minutes"]]
    for result in results:
        m = result.measured
        rows.append(
            [
                result.job.name + (f", seed {result.job.seed}" if result.job.seed else ""),
                f"{m['discrepancy']:.1f}",
                "yes" if result.recovered else "no",
                f"{m['class_size']}",
                f"{m['class_share']:.0%}",
                f"{m['cluster_size']}",
                f"{m['cluster_share']:.0%}",
                m["most_like"],
                f"{result.next_best:.1f}",
                "-" if m["half_sets"] is None else f"{m['half_sets']:.1f}",
                f"{m['known_accuracy']:.3f}",
                f"{m['seconds']['total'] / 60:.1f}",
            ]
        )
    return rows


def recovered_text(results: Sequence[Result]) -> str:
    """`5 of 6 held-out structures are recovered`."""
    return f"{sum(r.recovered for r in results)} of {len(results)} held-out structures are recovered"


def table_text(results: Sequence[Result]) -> str:
    """The table as aligned plain text."""
    from aitom_ssl.evaluation.report import aligned

    if not results:
        return "No test is finished."
    return "\n".join([*aligned(table_rows(results), gap=3), "", f"{recovered_text(results)}."])


def measured_on(results: Sequence[Result], settings: Mapping[str, Any]) -> str:
    """What the numbers are, in words."""
    if not results:
        return ""
    paper = PAPER.get(settings["model"])
    theirs = f" The paper: {paper} of {PAPER_CLASSES} with {settings['model']}." if paper else ""
    return (
        f"{settings['model']} trained without the class on {settings['train_samples']} samples of each other class "
        f"(epochs: {settings['epochs']}); {settings['test_samples']} test samples of each of "
        f"{len(settings['classes'])} classes, SNR {settings['snr']:g}, tilts of ±{settings['tilt_max']:g}°, "
        f"{settings['size']} voxels of {settings['voxel_size']:g} Å; {settings['clusters']} clusters, of which that "
        f"with the greatest share of the class is averaged (classes: {settings['average_classes']}, iterations: "
        f"{settings['iterations']}). Recovered: FSC with the true structure falls below 0.5 at {RECOVERED:g} Å or "
        "less. Known accuracy: of the network, on validation samples of the classes that it was trained on."
        f"{theirs}"
    )


def write_table(folder: Path, settings: Mapping[str, Any], command: str) -> list[Result]:
    """table.csv and report.html of what is finished, which is returned."""
    results = results_in(folder, settings)
    if not results:
        return results
    names = ("discrepancy", "score", "half_sets", "most_like", "class_size", "class_share", "cluster_size")
    names += ("cluster_share", "cluster_recall", "clusters", "samples", "of_class", "known_accuracy")
    rows = [
        {
            "held_out": job.name,
            "seed": job.seed,
            "recovered": "yes" if Result(job, measured).recovered else "no",
            "others_discrepancy": Result(job, measured).next_best,
            **{name: "" if measured[name] is None else measured[name] for name in names},
            **{f"{name}_seconds": value for name, value in measured["seconds"].items()},
            "folder": job.folder.as_posix(),
        }
        for job, measured in results
    ]
    write_csv(folder / "table.csv", rows)
    write_reproduction_report(folder, results, settings, command)
    return results


# === The report ===


_EXPLAINED = (
    "Of it: the share that is of the class held out. Most like: of all classes, the one whose true structure the "
    "average correlates with best. Others: the least by which the average differs from the structure of any other "
    "class; where that is as little, the test does not tell the two apart. Half sets: resolution, FSC at 0.143."
)
_CURVES_EXPLAINED = (
    "Where it is below 0.5 the two differ. By shells one Fourier pixel thick; those of the table overlap, as in AITom."
)


def write_reproduction_report(
    folder: Path, results: Sequence[Result], settings: Mapping[str, Any], command: str
) -> Path:
    """report.html and structures.png: true and recovered structures side by side, the table, FSC curves."""
    from aitom_ssl.discovery.resolution_figure import correlation_figure
    from aitom_ssl.evaluation.report import (
        Command,
        Highlights,
        Picture,
        Section,
        Table,
        machine_facts,
        settings_section,
        write_report,
    )

    groups = [results[start : start + _TOGETHER] for start in range(0, len(results), _TOGETHER)]
    pictures = [structure_pairs_figure(folder, group) for group in groups]
    for number, picture in enumerate(pictures):
        name = "structures.png" if number == 0 else f"structures-{number + 1}.png"
        with atomic_write(folder / name) as temporary:
            picture.savefig(temporary, dpi=150, facecolor="white")
    caption = (
        "The true structure as the microscope shows it, and beside it what was recovered, in the same pose, with each "
        "shell weighted by the FSC of the half sets. Surfaces enclose as much as the structure fills."
    )
    curves = {str(result.job).removesuffix(", seed 0"): _curve(result, settings) for result in results}
    best = max(results, key=lambda result: result.measured["cluster_share"]).measured
    sections = [
        Section(
            "Recovered",
            [
                Highlights(
                    [
                        (f"{sum(r.recovered for r in results)} of {len(results)}", "recovered"),
                        (f"{np.median([r.measured['discrepancy'] for r in results]):.1f} Å", "median discrepancy"),
                        (f"{best['cluster_share']:.0%}", "greatest share of a held-out class in its cluster"),
                    ]
                ),
                measured_on(results, settings),
                Table(table_rows(results), _EXPLAINED),
                *[Picture(picture, caption) for picture in pictures],
            ],
        ),
        Section(
            "Fourier shell correlation with the true structure",
            [Picture(correlation_figure(curves, (REFERENCE,)), _CURVES_EXPLAINED)],
        ),
        Section("Machine", [Table(machine_facts(), header=False)]),
        *([Section("Command", [Command(command)])] if command else []),
        settings_section(settings),
    ]
    title = "Structures that no training class holds"
    return write_report(folder / "report.html", title, sections, "The leave-one-out test of Xu 2017, section 3.3")


def _curve(result: Result, settings: Mapping[str, Any]) -> ShellCorrelation:
    correlation, independent = (np.array(result.measured[name]) for name in ("fsc", "independent"))
    frequency = np.arange(len(correlation)) / (settings["size"] * settings["voxel_size"])
    return ShellCorrelation(frequency, correlation, independent, settings["voxel_size"])


def structure_pairs_figure(folder: Path, results: Sequence[Result]) -> Any:
    """True and recovered structures of some tests, a pair of columns each."""
    from aitom_ssl.discovery.surface_figure import structures_figure

    volumes, titles, voxels = [], [], []
    voxel_size = math.nan
    for result in results:
        path = folder / result.job.folder
        truth, header = read_mrc(path / "true.mrc")
        recovered = np.array(read_mrc(path / "recovered.mrc")[0], np.float32)
        voxel_size = header.voxel_size
        half = read_cluster(path / "cluster").curve(result.measured["class"])
        volumes += [np.array(truth, np.float32), recovered if half is None else trusted(recovered, half)]
        words = "recovered" if result.recovered else "not recovered"
        titles += [result.job.name, f"{words}, {result.measured['discrepancy']:.0f} Å"]
        voxels += [float(result.measured["filled"])] * 2
    return structures_figure(volumes, titles, voxel_size, voxels)
