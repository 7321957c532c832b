"""Many runs in one folder, each done once: by whichever process comes first, in this start or an earlier one."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from aitom_ssl import environment
from aitom_ssl.errors import InputError
from aitom_ssl.files import claimed
from aitom_ssl.training.run import RunFolder

WAIT = 10.0
Settings = Mapping[str, Any]
CommandOf = Callable[[Settings], str]


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
    so_far: Callable[[], object],
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


def no_command(settings: Settings) -> str:
    """For a study that no command makes."""
    return ""


def open_study(
    name: str,
    settings: Settings,
    with_more: Callable[[Settings, Settings], dict[str, Any]],
    command: CommandOf = no_command,
    output: str | None = None,
    resume: bool = False,
) -> tuple[RunFolder, dict[str, Any]]:
    """The folder of a study, new or in `output` to go on with, and the settings that its config has from now on.

    name: of the command. with_more: the settings in the config and `settings`, to those of both; several processes may
    add to one study at once. command: settings to what makes such a study again.
    """
    study = RunFolder.open(output) if resume else RunFolder.create(output, name, settings["data"])
    with claimed(study.path / ".config", wait=True):
        asked = with_more(study.read_config()["settings"], settings) if resume else dict(settings)
        about = {"method": name, "command": command(asked), "settings": asked, "versions": environment.versions()}
        study.write_config(about)
    return study, asked


def run_study_jobs(
    name: str,
    folder: Path,
    jobs: Sequence[Job],
    run: Callable[[Job], None],
    finished: Callable[[Job], bool],
    so_far: Callable[[], str],
    kind: str = "runs",
) -> None:
    """`run_jobs` in the `folder` of a study; then print what it has found, and where its table.csv and report.html are.

    name: of the command that goes on with the study. so_far: writes those of what is finished, and returns the tables
    in words. kind: what the jobs are called. What interrupts, or has failed in the end, says how to go on:
    KeyboardInterrupt, InputError.
    """
    go_on = f"aitom-ssl {name} --resume --output={folder}"
    try:
        failed = run_jobs(folder, jobs, run, finished, so_far)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Finished {kind} are kept. Go on with: {go_on}") from None
    print(f"\n{so_far()}\n\ntable   {folder / 'table.csv'}\nreport  {folder / 'report.html'}", flush=True)
    if failed:
        names = "; ".join(map(str, failed))
        raise InputError(f"{len(failed)} of {len(jobs)} {kind} failed ({names}): see above, then {go_on}")
