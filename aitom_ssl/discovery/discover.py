"""Structures that nobody labelled: features of all particles -> clusters -> averages and resolution of each (Xu 2017).

    config.yaml                     what was asked for
    features.npy  clusters.npz      (m, d), and particle, cluster, and class by a classifier (-1: none) of each row
    subdivision.json                sizes of the clusters, what was left out; written last of the subdivision
    clusters/000/                   averages, half maps and poses of the largest cluster (see `cluster_averages`)
    table.csv                       a row an average, rewritten after every cluster
    particles.star                  cluster, class and pose of every particle that is in an average
    tsne.png  report.html

Clusters are done one by one, by whichever of several processes comes first; what is finished is never lost.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aitom_ssl import environment
from aitom_ssl.data.build import prepare
from aitom_ssl.data.header import read_header
from aitom_ssl.data.importers.star import PIXELS, read_blocks, write_aligned
from aitom_ssl.data.sources import IMAGES, Source, is_dataset
from aitom_ssl.discovery.cluster_averages import AveragingSettings, average_cluster
from aitom_ssl.discovery.clustering import size_statistics
from aitom_ssl.discovery.discovery_folder import Cluster, Discovery
from aitom_ssl.discovery.known_structures import Known, known_structures
from aitom_ssl.discovery.resolution import HALF_SETS, REFERENCE
from aitom_ssl.discovery.subdivision import FeatureMaker, number_of_clusters, subdivide
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.few_labels import cluster_scores
from aitom_ssl.files import atomic_write, write_csv, write_json
from aitom_ssl.simulation import SimulationSpec
from aitom_ssl.training.jobs import run_jobs
from aitom_ssl.training.run import RunFolder

NAME = "discover"
_SCORES = ("adjusted_rand", "mutual_information", "purity")


class Subdivide(NamedTuple):
    """The job that all others need."""

    folder: Path = Path("subdivision")
    needs: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return "features and clusters"


# === Running ===


def run_discovery(
    settings: Mapping[str, Any],
    source: Source,
    features: FeatureMaker,
    baselines: Mapping[str, FeatureMaker],
    output: str | None = None,
    resume: bool = False,
    workers: int = 1,
    command: str = "",
) -> RunFolder:
    """Subdivide the particles of `source`, average every cluster, and report; returns the folder.

    Args:
        settings: data (what `source` is of), clusters (or None, see `number_of_clusters`), classes, iterations,
            gold_standard, tilt_max (degrees, or None: the simulation's, else 60), mask_radius and max_shift (A or
            None), seed.
        source: the particles.
        features: gives the features to cluster by.
        baselines: name to others, whose cluster sizes the report shows beside.
        output: folder; default runs/discover-DATA, with a number when that is taken.
        resume: go on in `output`: finished clusters are kept. Several processes may do this at once.
        workers: processes that align.
        command: what makes it again, kept in the config.

    A cluster that fails leaves the others as they are; InputError names it at the end. KeyboardInterrupt carries how to
    go on.
    """
    simulation = simulation_of(settings["data"])
    averaging = averaging_settings(settings, simulation)
    averaging.check(source.size, source.voxel_size)
    number_of_clusters(len(source), settings["clusters"])
    features.check(source)
    run = RunFolder.open(output) if resume else RunFolder.create(output, NAME, settings["data"])
    data = _digest(source)
    if resume and (before := run.read_config().get("data")) != data:
        raise InputError(
            f"{settings['data']} holds other particles than when {run.path} was started (then {before}, now {data}): "
            "start anew."
        )
    about = {"method": NAME, "command": command, "settings": dict(settings), "data": data}
    run.write_config({**about, "versions": environment.versions()})
    found = Discovery(run.path, averaging)
    names = list(dict.fromkeys([*features.class_names, *source.class_names]))
    known, notes = known_structures(names, source.size, source.voxel_size, simulation, _references(names, simulation))

    def average(job: Cluster) -> None:
        _average(job, found, source, known, workers)

    def so_far() -> None:
        if found.subdivided:
            write_table(found, source)

    try:
        failed = run_jobs(
            run.path,
            [Subdivide()],
            lambda _: _subdivide(source, features, baselines, settings, run.path),
            lambda _: found.subdivided,
            lambda: None,
        )
        if failed:
            raise InputError(f"The particles could not be subdivided: see above, then {_go_on(run)}")
        for job in found.too_small():
            print(f"{job}: left out, {averaging.needed} are needed for {averaging.classes} classes", flush=True)
        failed = run_jobs(run.path, found.jobs(), average, found.finished, so_far)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Finished clusters are kept. Go on with: {_go_on(run)}") from None
    conclude(found, source, settings, notes, command)
    if failed:
        names = ", ".join(f"{job.number}" for job in failed)
        raise InputError(
            f"{len(failed)} of {len(found.jobs())} clusters failed ({names}): see above. The others stand. "
            f"Mend that, then {_go_on(run)}"
        )
    return run


def averaging_settings(settings: Mapping[str, Any], simulation: Mapping[str, Any] | None) -> AveragingSettings:
    """Of `run_discovery`'s settings; simulation: parameters that the data were made with, where they are known."""
    tilt = largest_tilt(settings["tilt_max"], simulation)
    names = ("classes", "iterations", "gold_standard", "mask_radius", "max_shift", "seed")
    return AveragingSettings(tilt_max=tilt, **{name: settings[name] for name in names})


def largest_tilt(asked: float | None, simulation: Mapping[str, Any] | None) -> float:
    """Degrees either way: what was asked for, else the simulation's, else 60."""
    return float((simulation or {}).get("tilt_max", 60.0)) if asked is None else asked


def simulation_of(data: str) -> dict[str, Any] | None:
    """Parameters of the simulated dataset `data`; None of any other data."""
    if not is_dataset(data):
        return None
    return read_header(prepare(data))["metadata"].get("simulation")


def _references(names: Sequence[str], simulation: Mapping[str, Any] | None) -> list[str]:
    """What `structures.resolve` takes for each class: as the simulation has it, else its name."""
    given = {}
    if simulation is not None:
        try:
            classes = tuple(simulation["classes"])
            given = dict(zip(SimulationSpec(classes=classes).class_names, classes, strict=True))
        except (InputError, KeyError, TypeError, ValueError):
            given = {}  # of files that are not here
    return [given.get(name, name) for name in names]


def _digest(source: Source) -> str:
    """What tells these particles from others, short: of files not what they hold, so that a damaged one can be mended.

    A dataset is told by the checksums of its shards.
    """
    about = [len(source), source.size, source.voxel_size, source.contrast]
    digest = hashlib.sha256(json.dumps(about).encode())
    if source.identity.get("kind") == "dataset":
        digest.update(json.dumps(source.identity, sort_keys=True, default=str).encode())
    else:
        for name, values in source.columns.items():
            digest.update(name.encode())
            for i in range(len(source)):
                digest.update(f"{values[i]}\n".encode())
    return digest.hexdigest()[:16]


def _go_on(run: RunFolder) -> str:
    return f"aitom-ssl {NAME} --resume --output={run.path}"


# === Jobs ===


def _subdivide(
    source: Source,
    features: FeatureMaker,
    baselines: Mapping[str, FeatureMaker],
    settings: Mapping[str, Any],
    folder: Path,
) -> None:
    started = time.monotonic()
    found = features(source)
    partition = subdivide(found, settings["clusters"], settings["seed"])
    labels = source.labels[found.indices]
    predicted = np.full(len(found.indices), -1)
    if found.class_names:
        predicted = found.values.argmax(axis=1)
    compared = {}
    for name, make in baselines.items():
        print(f"for comparison: {name.replace('_', ' ')} features", flush=True)
        other = make(source)
        mine = subdivide(other, settings["clusters"], settings["seed"])
        compared[name] = {"sizes": mine.sizes.tolist(), **_scores(mine.labels, source.labels[other.indices])}
    about = {
        "what": found.what,
        "minibatch": partition.minibatch,
        "asked": partition.asked,
        "sizes": partition.sizes.tolist(),
        **_scores(partition.labels, labels),
        "statistics": size_statistics(partition.sizes),
        "class_names": list(found.class_names),
        "left_out": found.left_out,
        "notes": [*source.notes, *found.notes],
        "compared": compared,
        "seconds": round(time.monotonic() - started, 1),
    }
    with atomic_write(folder / "features.npy") as temporary:
        np.save(temporary, found.values)
    with atomic_write(folder / "clusters.npz") as temporary:
        np.savez(temporary, particle=found.indices, cluster=partition.labels, predicted=predicted)
    write_json(folder / "subdivision.json", about)
    clusters = len(partition.sizes)
    print(f"{len(found.indices):,} subtomograms in {clusters} clusters by {found.what}", flush=True)


def _scores(clusters: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How well clusters are classes, where labels are known."""
    labelled = labels >= 0
    if not labelled.any():
        return {}
    scores = cluster_scores(clusters[labelled], labels[labelled])
    return {name: getattr(scores, name) for name in _SCORES}


def _average(job: Cluster, found: Discovery, source: Source, known: Sequence[Known], workers: int) -> None:
    clusters = found.clusters()
    members = clusters["particle"][clusters["cluster"] == job.number]
    failed = found.path / job.folder / "failed.txt"
    try:
        _, about = average_cluster(source, members, found.averaging, known, found.path / job.folder, workers)
    except InputError as error:
        with atomic_write(failed) as temporary:
            temporary.write_text(f"{error}", encoding="utf-8")
        raise InputError(f"Cluster {job.number}: {error}") from None
    failed.unlink(missing_ok=True)
    sizes = ", ".join(f"{row['size']}" for row in about["classes"])
    print(f"classes of {sizes} subtomograms, {about['seconds']:.0f} s", flush=True)


# === Tables ===


def majority(labels: np.ndarray, names: Sequence[str]) -> tuple[str, float] | None:
    """The most frequent of `labels` (-1: unknown, not counted) by name, and its share; None where none is known."""
    labels = labels[labels >= 0]
    if not len(labels):
        return None
    counts = np.bincount(labels)
    return names[int(counts.argmax())], float(counts.max() / len(labels))


def table_rows(found: Discovery, source: Source) -> list[dict[str, Any]]:
    """One row an average, and one a cluster that has none, by cluster."""
    clusters, about = found.clusters(), found.subdivision()
    predicted = np.full(len(source), -1)
    predicted[clusters["particle"]] = clusters["predicted"]
    results = found.results()
    rows = []
    for job in sorted([*found.jobs(), *found.too_small()]):
        base = {"cluster": job.number, "cluster_size": job.size}
        if job not in results:
            failure = found.failure(job)
            small = job.size < found.averaging.needed
            status = "too small" if small else "failed" if failure else "waiting"
            members = clusters["particle"][clusters["cluster"] == job.number]
            named = _named(members, source, predicted, about["class_names"])
            rows.append({**base, "class": "", "status": status, "size": job.size, **named})
            continue
        result = results[job]
        for c, row in enumerate(result.about["classes"]):
            members = result.particles[result.labels == c]
            nearest = row["known"][0] if row["known"] else None
            rows.append(
                {
                    **base,
                    "class": c + 1,
                    "status": "averaged",
                    "size": row["size"],
                    "score": round(row["score"], 4),
                    "resolution_0.143": _number(result.resolution(c, HALF_SETS)),
                    "resolution_0.5": _number(result.resolution(c, REFERENCE)),
                    **_named(members, source, predicted, about["class_names"]),
                    "nearest_known": nearest["name"] if nearest else "",
                    "nearest_score": round(nearest["score"], 4) if nearest else "",
                    "nearest_discrepancy": _number(nearest["discrepancy"]) if nearest else "",
                    "average": result.path(c).relative_to(found.path).as_posix(),
                }
            )
    return rows


COLUMNS = (
    "cluster",
    "class",
    "status",
    "size",
    "cluster_size",
    "score",
    "resolution_0.143",
    "resolution_0.5",
    "label",
    "purity",
    "predicted",
    "predicted_share",
    "nearest_known",
    "nearest_score",
    "nearest_discrepancy",
    "average",
)


def _named(members: np.ndarray, source: Source, predicted: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """What the labels and the classifier say of some particles, where there are any."""
    label, guess = majority(source.labels[members], source.class_names), majority(predicted[members], names)
    return {
        "label": label[0] if label else "",
        "purity": round(label[1], 4) if label else "",
        "predicted": guess[0] if guess else "",
        "predicted_share": round(guess[1], 4) if guess else "",
    }


def _number(value: float | None) -> float | str:
    return "" if value is None else round(value, 2)


def write_table(found: Discovery, source: Source) -> list[dict[str, Any]]:
    """table.csv of what is finished; returns its rows."""
    rows = table_rows(found, source)
    write_csv(found.path / "table.csv", rows, COLUMNS)
    return rows


def write_particles(found: Discovery, source: Source) -> Path | None:
    """particles.star; None where no cluster is averaged.

    rlnClassNumber counts the averages of all clusters, aitomClass those of one from 1; aitomCluster is the cluster.
    """
    results = found.results()
    if not results:
        return None
    classes = found.averaging.classes
    place = np.concatenate([result.particles for result in results.values()])
    order = np.argsort(place, kind="stable")
    place = place[order]

    def joined(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(values)[order]

    label = joined([result.labels for result in results.values()])
    cluster = joined([np.full(len(result.labels), job.number) for job, result in results.items()])
    more = {
        "rlnClassNumber": cluster * classes + label + 1,
        "rlnRandomSubset": joined([result.halves for result in results.values()]) + 1,
        "aitomCluster": cluster,
        "aitomClass": label + 1,
        "aitomScore": np.round(joined([result.alignment.score for result in results.values()]), 5),
    }
    columns, optics = _columns(source, place)
    write_aligned(
        found.path / "particles.star",
        columns,
        joined([result.alignment.quaternion for result in results.values()]),
        joined([result.alignment.shift for result in results.values()]),
        source.voxel_size,
        source.size,
        more,
        optics,
    )
    return found.path / "particles.star"


def _columns(source: Source, place: np.ndarray) -> tuple[dict[str, Sequence[Any]], Any]:
    """What tells the particles at `place` from each other, in RELION's words, and the optics block that goes along."""
    if source.star is None:
        columns = {name: [values[int(i)] for i in place] for name, values in source.star_columns.items()}
        return {name: _whole(values) if name in PIXELS else values for name, values in columns.items()}, None
    tables = read_blocks(source.star.path, "--data")
    table = tables[source.star.block].iloc[source.star.rows[place]]
    if IMAGES[0] in table and "rlnOpticsGroup" in table and "optics" in tables:
        return {name: table[name].tolist() for name in table}, tables["optics"]
    if IMAGES[0] in table:
        return {name: table[name].tolist() for name in table if name != "rlnOpticsGroup"}, None
    names = {name: _whole(np.asarray(source.columns[axis])[place]) for name, axis in zip(PIXELS, "xyz", strict=True)}
    tomogram = next((table[name].tolist() for name in ("rlnTomoName", "rlnMicrographName") if name in table), None)
    return {**({} if tomogram is None else {"rlnTomoName": tomogram}), **names}, None


def _whole(positions: Sequence[float]) -> np.ndarray:
    """Where boxes of a tomogram are cut: at whole voxels, of which the poses are."""
    return np.floor(np.asarray(positions, np.float64) + 0.5)


# === The end ===


def conclude(
    found: Discovery, source: Source, settings: Mapping[str, Any], notes: Sequence[str], command: str
) -> None:
    """table.csv, particles.star, tsne.png and report.html of what is finished, and a summary on the screen."""
    from aitom_ssl.discovery.discover_report import summary_text, write_discovery_report

    rows = write_table(found, source)
    star = write_particles(found, source)
    report = write_discovery_report(found, source, rows, settings, notes, command)
    print(f"\n{summary_text(rows)}\n", flush=True)
    for note in [*found.subdivision()["notes"], *notes]:
        print(f"note: {note}", flush=True)
    if star is not None:
        print(f"poses   {star}", flush=True)
    print(f"table   {found.path / 'table.csv'}\nreport  {report}", flush=True)
