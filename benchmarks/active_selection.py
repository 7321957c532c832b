"""What selecting costs: core-set beside scikit-activeml, EMA in forward passes, MC-dropout beside T full passes.

    python -m benchmarks.active_selection [--parts=core_set,passes] [--peer_python=PATH]
                                          [--count=24000] [--features=512] [--labelled=2400] [--budget=2400]
                                          [--model=resnet18_3d] [--precision=float32] [--pool=2048] [--classes=10]
                                          [--side=32] [--passes=50] [--rounds=3] [--strategies=ema,entropy,...]

core_set: `budget` picks out of `count` random features with `labelled` centres at the start, each row a process of its
own: seconds, peak memory beyond that of the loaded features, and how many of the picks are the same. The peer runs
where scikit-activeml is installed, or with an interpreter named by --peer_python that has it.

passes: strategies on a pool of `pool` random volumes and an untrained network, in units of one forward pass over the
pool (`extract_features`, traced before, while selecting traces), medians over rounds in which all take turns. "full
passes" is MC-dropout that computes the whole network `passes` times.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import heading

OURS, PEER = "aitom_ssl", "scikit-activeml"
GOAL_SECONDS, GOAL_PASSES = 60, 2.1
FORWARD, FULL = "one forward pass", "mc_dropout, full passes"


# === Core-set ===


def random_features(count: int, features: int, labelled: int) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative, as behind a ReLU and an average: the pool's and those of the labelled samples."""
    rng = np.random.default_rng(0)
    # Two factors make it a cloud with near and far ends instead of a ball.
    factors = rng.random((count + labelled, 8), np.float32) @ rng.random((8, features), np.float32)
    rows = factors + 0.2 * rng.random((count + labelled, features), np.float32)
    return rows[:count], rows[count:]


def ours(pool: np.ndarray, labelled: np.ndarray, budget: int) -> np.ndarray:
    from aitom_ssl.active.core_set import k_center_greedy

    return k_center_greedy(pool, labelled, budget, np.random.default_rng(0))[0]


def peer(pool: np.ndarray, labelled: np.ndarray, budget: int) -> np.ndarray:
    from skactiveml.pool import CoreSet

    rows = np.concatenate([labelled, pool])
    answers = np.full(len(rows), np.nan)
    answers[: len(labelled)] = 0
    return CoreSet(random_state=0).query(rows, answers, batch_size=budget) - len(labelled)


def serve(name: str, options: argparse.Namespace) -> None:
    """A row's process: seconds, bytes and picks as JSON on stdout."""
    pick: Callable[..., np.ndarray] = ours if name == OURS else peer
    # Imports and BLAS's own memory are no part of it.
    pick(*random_features(50, 8, 10), 5)
    pool, labelled = random_features(options.count, options.features, options.labelled)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    picks = pick(pool, labelled, options.budget)
    seconds = time.perf_counter() - start
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(json.dumps({"seconds": seconds, "bytes": grown, "picks": picks.tolist()}))


def core_set(options: argparse.Namespace) -> None:
    sizes = [f"--{name}={getattr(options, name)}" for name in ("count", "features", "labelled", "budget")]
    given = 4 * options.features * (options.count + options.labelled)
    print(
        f"\n{options.budget:,} picks out of {options.count:,} x {options.features} features, {options.labelled:,} "
        f"labelled; the features take {given / 2**20:.0f} MiB\n{'core-set':<20}{'s':>8}{'MiB':>8}{'same':>8}"
    )
    first: list[int] = []
    for name, python in ((OURS, sys.executable), (PEER, options.peer_python)):
        if name == PEER and subprocess.run([python, "-c", "import skactiveml"], capture_output=True).returncode:
            print(f"{PEER:<20} is not installed: pip install scikit-activeml, or --peer_python=PATH")
            continue
        command = [python, "-m", "benchmarks.active_selection", f"--worker={name}", *sizes]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        first = first or row["picks"]
        same = len(set(first) & set(row["picks"])) / len(first)
        print(f"{name:<20}{row['seconds']:>8.1f}{row['bytes'] / 2**20:>8.0f}{same:>8.1%}", flush=True)
        if name == OURS:
            met = "met" if row["seconds"] < GOAL_SECONDS else "missed"
            print(f"{'':<20} goal: under {GOAL_SECONDS} s, {met}")


# === In forward passes ===


def passes(options: argparse.Namespace) -> None:
    from aitom_ssl.training.quiet import import_keras_quietly

    import_keras_quietly()
    import keras

    from aitom_ssl import active, models
    from aitom_ssl.active.mc_dropout import cut_at_dropout
    from aitom_ssl.active.strategy import Known
    from aitom_ssl.data import Dataset, write_dataset
    from aitom_ssl.evaluation.probes import extract_features
    from aitom_ssl.training.loop import numerics

    with tempfile.TemporaryDirectory() as folder, numerics(options.precision, 0):
        rng = np.random.default_rng(0)
        side, classes = options.side, options.classes
        samples = (
            {"volume": rng.standard_normal((side,) * 3).astype(np.float32), "label": i % classes}
            for i in range(options.pool)
        )
        names = [f"class{i}" for i in range(classes)]
        write_dataset(Path(folder) / "data", "random", names, 10.0, "bright", {"train": samples}, None, "float16", True)
        pool = Dataset(Path(folder) / "data")
        labelled = pool.subset(range(min(64, len(pool))))

        network = models.get(options.model)((side, side, side, 1), classes=classes)

        def selecting(name: str, **given: Any) -> Callable[[], object]:
            strategy = active.get(name, **given)
            prepared = strategy.prepare(network)
            trainer = strategy.trainer(prepared, None, None, 0, pool)
            # Nothing is kept from one round to the next.
            return lambda: strategy.select(Known(labelled, pool, prepared, trainer, 0), max(1, len(pool) // 10))

        dropout = active.get("mc_dropout").prepare(network)
        trunk, head = cut_at_dropout(dropout, 0)
        whole = keras.Model(dropout.input, head(trunk(dropout.input)))

        rows = {
            FORWARD: lambda: extract_features(network, pool),
            **{name: selecting(name) for name in ("ema", "entropy", "margin", "core_set", "ll4al")},
            "mc_dropout": selecting("mc_dropout", passes=options.passes),
            FULL: lambda: [extract_features(whole, pool) for _ in range(options.passes)],
        }
        asked = (FORWARD, *options.strategies) if options.strategies else rows
        rows = {name: work for name, work in rows.items() if name in asked}
        rows[FORWARD]()  # traced
        seconds: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(options.rounds):
            for name, work in rows.items():
                start = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - start)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    one = middle[FORWARD]
    print(
        f"\n{options.model}, {options.precision}, pool of {options.pool:,} of {side}^3, {options.passes} passes of "
        f"MC-dropout, rounds: {options.rounds}\n{'selection':<28}{'s':>10}{'forward passes':>18}"
    )
    for name, value in middle.items():
        print(f"{name:<28}{value:>10.2f}{value / one:>18.2f}")
    if "ema" in middle:
        met = "met" if middle["ema"] <= GOAL_PASSES * one else "missed"
        print(f"goal: ema in {GOAL_PASSES} passes or less, {met}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="core_set,passes")
    parser.add_argument("--peer_python", default=sys.executable)
    for name, value in {"count": 24000, "features": 512, "labelled": 2400, "budget": 2400}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--model", default="resnet18_3d")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--strategies", type=lambda words: words.split(","), help="Of `passes`. Default: all.")
    for name, value in {"pool": 2048, "classes": 10, "side": 32, "passes": 50, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return serve(options.worker, options)
    parts = {"core_set": core_set, "passes": passes}
    asked = options.parts.split(",")
    if not set(asked) <= set(parts):
        parser.error(f"--parts={options.parts} must be some of: {', '.join(parts)}")
    print(heading("numpy", "tensorflow", "keras", "scikit-activeml"), flush=True)
    for part in asked:
        parts[part](options)


if __name__ == "__main__":
    main()
