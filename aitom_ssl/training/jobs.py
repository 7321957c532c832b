"""Many runs in one folder, each done once: by whichever process comes first, in this start or an earlier one."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Protocol

from aitom_ssl.errors import InputError
from aitom_ssl.files import claimed

WAIT = 10.0


class Job(Hashable, Protocol):
    """One run. `str` names it for people."""

    @property
    def folder(self) -> Path:
        """Of the run, inside the folder of them all."""

    @property
    def needs(self) -> Sequence[Job]:
        """Jobs to be finished before."""


def run_jobs(
    folder: Path,
    jobs: Sequence[Job],
    run: Callable[[Job], None],
    finished: Callable[[Job], bool],
    so_far: Callable[[], None],
) -> list[Job]:
    """Run the `jobs` that are not `finished`, in order, and return those that failed.

    Several processes may do this in one `folder`: each job is done by one of them, and each waits for the last. After
    every job `so_far` is called. A job that raises InputError, or needs one that did, leaves the others as they are;
    any other exception ends it all.
    """
    waiting, failed, said = list(jobs), [], False
    while waiting:
        before = len(waiting)
        for job in list(waiting):
            if any(other in failed for other in job.needs):
                failed.append(job)
            elif finished(job):
                print(f"finished: {job}", flush=True)
            elif not all(map(finished, job.needs)):
                continue
            else:
                with claimed(folder / job.folder.with_name(f".{job.folder.name}.running")) as mine:
                    # Another process may have done it just before.
                    if not mine or finished(job):
                        continue
                    print(f"\n[{len(jobs) - len(waiting) + 1}/{len(jobs)}] {job}", flush=True)
                    try:
                        run(job)
                    except InputError as error:
                        failed.append(job)
                        print(f"failed: {error}", flush=True)
                so_far()
                gc.collect()  # a network and its graph, before the next
            waiting.remove(job)
        if len(waiting) == before:
            if not said:
                print(f"waiting for another process: {', '.join(map(str, waiting))}", flush=True)
            said = True
            time.sleep(WAIT)
    return failed
