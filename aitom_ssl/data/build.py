"""Simulated datasets on disk: built in parallel, a shard at a time, resumed after any interruption.

A sample is a function of (spec, split, index), so a shard has the same bytes whoever writes it, and when. Two processes
that build one dataset at once write equal files over each other or skip what the other has finished.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from aitom_ssl.cache import cache_folder
from aitom_ssl.data import shards
from aitom_ssl.data.batches import subsample
from aitom_ssl.data.dataset import Dataset
from aitom_ssl.data.header import DTYPES, SPLITS, make_header, read_header, write_header
from aitom_ssl.data.spec import DatasetSpec, check_limit, load_spec, spec_names
from aitom_ssl.errors import InputError
from aitom_ssl.files import is_disk_full, nearest_existing, refuse_unwritable, remove_leftovers
from aitom_ssl.simulation import SimulationSpec, Simulator

# Samples drawn at a time: one class after the other, which keeps its template in the processor's cache.
_TOGETHER = 64


class _Shard(NamedTuple):
    split: str
    number: int
    start: int
    count: int


def dataset_folder(spec: DatasetSpec) -> Path:
    """Where a spec's dataset is kept unless another folder is asked for."""
    return cache_folder() / "datasets" / f"{spec.name}-{spec.fingerprint[:8]}"


def _plan(spec: DatasetSpec, splits: Iterable[str]) -> list[_Shard]:
    step = shards.SHARD_SIZE
    return [
        _Shard(split, number, start, min(step, spec.splits[split] - start))
        for split in splits
        for number, start in enumerate(range(0, spec.splits[split], step))
    ]


@functools.lru_cache(maxsize=1)
def _simulator(simulation: SimulationSpec) -> Simulator:
    return Simulator(simulation)


def _write(spec: DatasetSpec, fingerprint: str, folder: Path, shard: _Shard) -> tuple[_Shard, dict]:
    """Simulate one shard, or keep the one that is there; runs in a worker process."""
    size, halves = spec.simulation.size, spec.has_halves
    if shards.shard_is_whole(folder, shard.split, shard.number, shard.count, size, spec.dtype, fingerprint, halves):
        return shard, shards.shard_entry(folder, shard.split, shard.number, shard.count, halves)
    samples = _samples(_simulator(spec.simulation), shard)
    return shard, shards.write_shard(folder, shard.split, shard.number, samples, spec.dtype, size, fingerprint)


def _samples(simulator: Simulator, shard: _Shard) -> Iterator[dict]:
    """The samples of a shard in their order."""
    indices = range(shard.start, shard.start + shard.count)
    for start in range(0, shard.count, _TOGETHER):
        batch = simulator.batch(SPLITS.index(shard.split), indices[start : start + _TOGETHER])
        yield from ({key: column[row] for key, column in batch.items()} for row in range(len(batch["index"])))


def _results(spec: DatasetSpec, fingerprint: str, folder: Path, plan: Sequence[_Shard], workers: int) -> Iterator:
    if workers == 1:
        return (_write(spec, fingerprint, folder, shard) for shard in plan)
    tasks = (joblib.delayed(_write)(spec, fingerprint, folder, shard) for shard in plan)
    options = {
        # A shard is the unit of work, whatever joblib measures.
        "batch_size": 1,
        "pre_dispatch": "n_jobs",
        # Workers go soon after the last shard: what runs next needs the memory.
        "idle_worker_timeout": 10,
    }
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        return joblib.Parallel(n_jobs=workers, return_as="generator_unordered", **options)(tasks)


def build(
    spec: DatasetSpec,
    folder: Path | None = None,
    splits: Sequence[str] | None = None,
    limit: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Simulate what is missing of a dataset, and return its folder; a file of the wrong size counts as missing.

    folder: default `dataset_folder(spec)`. splits: which ones (default: all). limit: at most this many samples a split,
    in a folder of its own. workers: processes (default: all cores). progress: a bar and a summary.
    Interrupted at any moment, by any means, the same call goes on after the last finished shard.
    """
    spec = spec if limit is None else spec.limited(limit)
    splits = _chosen(spec, splits)
    fingerprint = spec.fingerprint
    folder = dataset_folder(spec) if folder is None else Path(folder)
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}, expected 1 or more processes.")
    header = _header(spec, fingerprint, folder)
    plan = _plan(spec, splits)
    todo = [shard for shard in plan if not _is_finished(folder, header, shard)]
    if todo:
        _complete(spec, fingerprint, folder, header, plan, todo, workers or joblib.cpu_count(), progress)
    if progress:
        for split in splits:
            crop_snr = describe_crop_snr(Dataset(folder, split))
            halves = ", with half images" if spec.has_halves else ""
            print(f"{spec.name} {split}: {spec.splits[split]:,} samples, crop SNR {crop_snr}{halves}")
    return folder


def _complete(
    spec: DatasetSpec,
    fingerprint: str,
    folder: Path,
    header: dict,
    plan: Sequence[_Shard],
    todo: Sequence[_Shard],
    workers: int,
    progress: bool,
) -> None:
    """Write the shards `todo` of `plan`, and each split into `dataset.json` as soon as it is whole."""
    _refuse_foreign_shards(folder, fingerprint, todo)
    remove_leftovers(folder)
    _refuse_full_disk(spec, folder, todo)
    workers = min(workers, len(todo))
    done = {shard: header["splits"][shard.split]["shards"][shard.number] for shard in plan if shard not in todo}
    total = sum(shard.count for shard in todo)
    try:
        with tqdm(total=total, desc=spec.name, unit=" samples", disable=not progress) as bar:
            for shard, entry in _results(spec, fingerprint, folder, todo, workers):
                done[shard] = entry
                mine = [s for s in plan if s.split == shard.split]
                if all(s in done for s in mine):
                    _register(spec, fingerprint, folder, shard.split, [done[s] for s in mine])
                bar.update(shard.count)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Finished shards are kept: run the same command again to go on.") from None
    except TerminatedWorkerError:
        raise InputError(
            f"A process that simulated was killed, most likely for lack of memory: run the same command again with "
            f"fewer than --workers={workers} to go on."
        ) from None
    except OSError as error:
        if not is_disk_full(error):
            raise
        message = f"The disk is full: free space under {folder} and run the same command again to go on."
        raise InputError(message) from None


def _chosen(spec: DatasetSpec, splits: Sequence[str] | None) -> list[str]:
    splits = list(spec.splits) if splits is None else list(dict.fromkeys(splits))
    for split in splits:
        if split not in spec.splits:
            raise InputError(f"{spec.name} has no split {split!r}: expected some of {', '.join(spec.splits)}.")
    if not splits:
        raise InputError(f"No split was chosen: expected some of {', '.join(spec.splits)}.")
    return splits


def _header(spec: DatasetSpec, fingerprint: str, folder: Path) -> dict:
    """`dataset.json` as it is, or as it starts; InputError when the folder is another dataset's."""
    if (folder / "dataset.json").exists():
        header = read_header(folder)
        if header["fingerprint"] != fingerprint:
            raise InputError(
                f"{folder} holds another dataset ({header['name']}, {header['fingerprint'][:8] or 'imported'}), "
                f"not {spec.name} {fingerprint[:8]}: give another folder or delete that one."
            )
        return header
    refuse_unwritable(folder)
    simulation = spec.simulation
    output = "" if folder == dataset_folder(spec) else f" --output={folder}"
    return make_header(
        spec.name,
        simulation.class_names,
        simulation.voxel_size,
        simulation.contrast,
        simulation.size,
        spec.dtype,
        spec.standardize,
        {"description": spec.description, "simulation": simulation.parameters()},
        fingerprint,
        f"run `aitom-ssl simulate {spec.request}{output}` again",
    )


def _is_finished(folder: Path, header: dict, shard: _Shard) -> bool:
    """Whether `dataset.json` lists the shard and its files have the size that it gives."""
    if shard.split not in header["splits"]:
        return False
    entry = header["splits"][shard.split]["shards"][shard.number]
    files = shards.shard_files(folder, shard.split, shard.number, "halves" in entry)
    return all(path.is_file() and path.stat().st_size == entry[key]["bytes"] for key, path in files.items())


def _refuse_foreign_shards(folder: Path, fingerprint: str, todo: Sequence[_Shard]) -> None:
    """InputError when the folder has shards of an unfinished build of another dataset."""
    for shard in todo:
        path = shards.labels_file(folder, shard.split, shard.number)
        found = shards.shard_fingerprint(path)
        if found is not None and found != fingerprint:
            raise InputError(f"{path} belongs to another dataset: give another folder or delete {folder}.")


def _refuse_full_disk(spec: DatasetSpec, folder: Path, todo: Sequence[_Shard]) -> None:
    voxels = spec.simulation.size**3
    sample = voxels * (DTYPES[spec.dtype].itemsize * (1 + spec.has_halves) + spec.simulation.mask)
    needed = sum(shard.count for shard in todo if not shards.volumes_file(folder, *shard[:2]).exists()) * sample
    free = shutil.disk_usage(nearest_existing(folder)).free
    if needed > free:
        raise InputError(
            f"{spec.name} needs {needed / 1e9:.3g} GB under {folder} and {free / 1e9:.3g} GB are free: "
            "free some space, choose another place with --output or $AITOM_SSL_CACHE, or take less with --limit."
        )


def _register(spec: DatasetSpec, fingerprint: str, folder: Path, split: str, entries: list[dict]) -> None:
    """Add a finished split to `dataset.json`, read anew: another process may have added one meanwhile.

    Should two processes do so in the same instant, one entry may be lost; its shards are not, and the next build of
    that split finds them finished.
    """
    header = _header(spec, fingerprint, folder)
    header["splits"][split] = {"count": spec.splits[split], "shards": entries}
    header["splits"] = {name: header["splits"][name] for name in SPLITS if name in header["splits"]}
    write_header(folder, header)


def describe_crop_snr(dataset: Dataset) -> str:
    """The achieved SNR of the crop over the samples that hold a particle, in words: median and the 5-95% range."""
    if "crop_snr" not in dataset.column_names:
        return "not known (not simulated)"
    values = dataset.columns("crop_snr")
    values = values[values > 0]  # 0 where there is no particle
    if not np.isfinite(values).all():
        return "infinite (no noise)"
    low, median, high = np.percentile(values, [5, 50, 95])
    return f"median {median:.3g} (5-95%: {low:.3g} to {high:.3g})"


def prepare(name: str | Path, limit: int | None = None, splits: Sequence[str] | None = None, **options: Any) -> Path:
    """Folder of a dataset, which is built first where it is not there yet.

    name: of a spec, a spec's .yaml file, or a dataset's folder (returned as it is). options: of `build`.
    """
    name = str(name)
    if limit is not None:
        check_limit(limit)
    if _is_folder(name):
        read_header(name)
        return Path(name)
    spec = load_spec(name)
    limited = spec if limit is None else spec.limited(limit)
    folder, wanted = dataset_folder(limited), _chosen(limited, splits)
    if (folder / "dataset.json").exists() and set(wanted) <= set(read_header(folder)["splits"]):
        return folder
    return build(spec, limit=limit, splits=wanted, **options)


def load(name: str | Path, split: str = "train", limit: int | None = None) -> Dataset:
    """One split of a dataset, simulated on first use.

    name: as in `prepare`. limit: of a simulated dataset its first samples (only these are simulated); of a folder that
    many samples drawn without replacement, always the same ones and in order, because a folder may be sorted by class.
    """
    dataset = Dataset(prepare(name, limit, [split]), split)
    if limit is None or limit >= len(dataset):
        return dataset
    return dataset.subset(subsample(len(dataset), limit, seed=0))


def _is_folder(name: str) -> bool:
    return name not in ("", *spec_names()) and Path(name).is_dir()
