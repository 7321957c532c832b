"""How the steps of discovery grow with the number of subtomograms: features, k-means, and the memory that they take.

    python -m benchmarks.discovery [--samples=1000000] [--features=22] [--clusters=100] [--volumes=8192] [--size=32]
                                   [--model=inception3d] [--average=256]

k-means: `over_partition` of clustered features in a memory-mapped file, an eighth, a quarter, a half and all of
--samples, once in memory and once as mini-batches (as beyond 2 GB), one thread. features: linear activations of an
untrained network for up to --volumes subtomograms that are made as they are asked for, so no disk is measured.
averages: `classify_and_average` (3 classes, 5 iterations, one process) of up to --average subtomograms of 24^3. Each
line is a process of its own, and MB the most that it held, Python and libraries included. "grows as" is the exponent of
a power law through the lines: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks import heading

SHARES = (8, 4, 2, 1)
_POOL = 64  # different volumes
_FEWEST = 6  # subtomograms for three classes


def kmeans(count: int, options: argparse.Namespace, minibatch: bool) -> dict[str, float]:
    """Seconds of `over_partition`, and the purity of its clusters with respect to what the features were drawn from."""
    from aitom_ssl.discovery.clustering import MEMORY, over_partition

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        features = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, options.features))
        rng = np.random.default_rng(0)
        # As linear activations of a classifier of 22 classes: one is high, the others spread.
        label = rng.integers(options.features, size=count)
        for start in range(0, count, 65_536):
            rows = slice(start, start + 65_536)
            block = rng.standard_normal((len(label[rows]), options.features), dtype=np.float32)
            block[np.arange(len(block)), label[rows]] += 6
            features[rows] = block
        features.flush()
        stored = np.load(path, mmap_mode="r")
        started = time.perf_counter()
        memory = min(MEMORY, count * options.features * 2) if minibatch else MEMORY
        partition = over_partition(stored, min(options.clusters, count), memory=memory)
        seconds = time.perf_counter() - started
    counts = np.zeros((len(partition.sizes), options.features), np.int64)
    np.add.at(counts, (partition.labels, label), 1)
    return {"seconds": seconds, "purity": float(counts.max(axis=1).sum() / count)}


def features(count: int, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of the linear activations of `count` subtomograms."""
    from aitom_ssl.data.sources import Source
    from aitom_ssl.export.classifier import BATCH_SIZE, LINEAR, find_network, load_network
    from aitom_ssl.export.features import NetworkFeatures
    from aitom_ssl.models import ModelDescription, get
    from aitom_ssl.training.run import RunFolder

    size = options.size
    pool = np.random.default_rng(0).standard_normal((_POOL, size, size, size), dtype=np.float32)
    names = tuple(f"class{i}" for i in range(options.features))
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", options.model, "made")
        described = ModelDescription(options.model, names, size, 10.0, "bright")
        run.write_config({"method": options.model, "settings": {"data": "made"}, "model": described.to_dict()})
        run.save_model(get(options.model)(input_shape=(size,) * 3 + (1,), classes=len(names)))
        load_network(find_network(run.path), LINEAR)(pool[:BATCH_SIZE])  # what is loaded and traced once
        source = Source(
            size=size,
            voxel_size=10.0,
            contrast="bright",
            stored_contrast=True,
            standardized=True,
            class_names=[],
            labels=np.full(count, -1),
            read=lambda indices: pool[indices % _POOL],
            describe=str,
            columns={},
            star_columns={},
            identity={},
        )
        started = time.perf_counter()
        found = NetworkFeatures(run.path)(source)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "width": found.values.shape[1]}


def averages(count: int) -> dict[str, float]:
    """Seconds of `classify_and_average` of `count` subtomograms of 24^3."""
    from aitom_ssl.discovery.averaging import classify_and_average
    from aitom_ssl.simulation import SimulationSpec, Simulator

    spec = SimulationSpec(classes=("ribosome_70s", "groel_groes", "rna_polymerase"), size=24, voxel_size=15.0, snr=0.5)
    volumes = list(Simulator(spec).batch(0, range(count))["volume"])
    started = time.perf_counter()
    classify_and_average(volumes, 60.0)
    return {"seconds": time.perf_counter() - started}


STEPS: dict[str, Callable[[int, argparse.Namespace], dict[str, float]]] = {
    "k-means": lambda count, options: kmeans(count, options, minibatch=False),
    "k-means, mini-batch": lambda count, options: kmeans(count, options, minibatch=True),
    "features": features,
    "averages": lambda count, options: averages(count),
}


def measured_apart(step: str, count: int, arguments: Sequence[str]) -> dict[str, float]:
    """What the step measures in a process of its own, and `megabytes`."""
    command = [sys.executable, "-m", "benchmarks.discovery", *arguments, f"--step={step}", f"--count={count}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def exponent(counts: Sequence[int], seconds: Sequence[float]) -> float:
    """Of the power law through the points, by least squares of logarithms."""
    return float(np.polyfit(np.log(counts), np.log(seconds), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000, help="for k-means")
    parser.add_argument("--features", type=int, default=22)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--volumes", type=int, default=8192, help="for features")
    parser.add_argument("--size", type=int, default=32, help="of these volumes")
    parser.add_argument("--model", default="inception3d")
    parser.add_argument("--average", type=int, default=256, help="for averages")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        found = STEPS[options.step](options.count, options)
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**found, "megabytes": megabytes}))
        return
    print(heading("numpy", "scikit-learn", "tensorflow", "keras"))
    print(f"{'step':22s}{'count':>10s}{'seconds':>10s}{'per s':>10s}{'MB':>8s}{'purity':>8s}{'grows as':>10s}")
    totals = {"features": options.volumes, "averages": options.average}
    for step in STEPS:
        counts = [max(_FEWEST, math.ceil(totals.get(step, options.samples) / share)) for share in SHARES]
        rows = [measured_apart(step, count, sys.argv[1:]) for count in counts]
        for i, (count, row) in enumerate(zip(counts, rows, strict=True)):
            purity = f"{row['purity']:.3f}" if "purity" in row else ""
            law = f"{exponent(counts, [r['seconds'] for r in rows]):.2f}" if i == len(rows) - 1 else ""
            print(
                f"{step:22s}{count:10,d}{row['seconds']:10.2f}{count / row['seconds']:10,.0f}{row['megabytes']:8.0f}"
                f"{purity:>8s}{law:>10s}",
                flush=True,
            )


if __name__ == "__main__":
    main()
