"""Steps timed in turns: every candidate is a process of its own, and none runs while another is measured."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence


def serve_steps(step: Callable[[], object], clock: Callable[[], float]) -> None:
    """A worker: for each number of steps on stdin, the seconds that a step took on stdout."""
    for _ in range(3):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        start = clock()
        for _ in range(int(line)):
            step()
        print((clock() - start) / int(line), flush=True)


def take_turns(
    module: str, names: Sequence[str], arguments: Sequence[str], threads: int, rounds: int, steps: int
) -> dict[str, list[float]]:
    """Seconds a step of each worker, `python -m MODULE --worker=NAME ARGUMENTS`, one value a round."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    workers = {}
    for name in names:
        command = [sys.executable, "-m", module, f"--worker={name}", *arguments]
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        workers[name] = subprocess.Popen(command, text=True, env=environment, **pipe)
        if workers[name].stdout.readline().strip() != "ready":
            raise SystemExit(f"The worker {name!r} did not start; run it to see why: {' '.join(command)}")
    seconds = {name: [] for name in names}
    for _ in range(rounds):
        for name, worker in workers.items():
            # The threads of the worker before stop waiting busily.
            time.sleep(0.3)
            worker.stdin.write(f"{steps}\n")
            worker.stdin.flush()
            seconds[name].append(float(worker.stdout.readline()))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return seconds
