"""Many runs in one folder: order, what is finished, what fails, and several processes at once."""

import dataclasses
import multiprocessing
import time
from pathlib import Path

import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.training import jobs as module
from aitom_ssl.training.jobs import open_study, run_jobs, run_study_jobs


@dataclasses.dataclass(frozen=True)
class Toy:
    name: str
    needs: tuple = ()

    @property
    def folder(self):
        return Path("runs") / self.name

    def __str__(self):
        return self.name


A, B = Toy("a"), Toy("b")
AFTER_A, AFTER_B = Toy("after_a", (A,)), Toy("after_b", (B,))


def go(folder, jobs, run=None, so_far=lambda: None):
    done = []

    def write(job):
        done.append(job.name)
        if run is not None:
            run(job)
        (folder / job.folder).mkdir(parents=True)

    failed = run_jobs(folder, jobs, write, lambda job: (folder / job.folder).is_dir(), so_far)
    return done, [job.name for job in failed]


def test_each_is_done_once_and_after_what_it_needs(tmp_path, capsys):
    calls = []
    done, failed = go(tmp_path, [AFTER_A, B, A, AFTER_B], so_far=lambda: calls.append(1))
    assert (done, failed) == (["b", "a", "after_b", "after_a"], [])
    assert len(calls) == 4 and not list(tmp_path.rglob("*.running"))
    assert "[1/4] b" in capsys.readouterr().out
    assert go(tmp_path, [A, B]) == ([], [])
    assert capsys.readouterr().out == "finished: a\nfinished: b\n"


def test_what_fails_takes_with_it_what_needs_it_alone(tmp_path, capsys):
    def run(job):
        if job is A:
            raise InputError("no.")

    assert go(tmp_path, [A, AFTER_A, B, AFTER_B], run) == (["a", "b", "after_b"], ["a", "after_a"])
    assert "failed: no." in capsys.readouterr().out
    assert go(tmp_path, [A, AFTER_A]) == (["a", "after_a"], [])


def study(folder, run):
    def write(job):
        run(job)
        (folder / job.folder).mkdir(parents=True)

    def finished(job):
        return (folder / job.folder).is_dir()

    run_study_jobs("some_study", folder, [A, B], write, finished, lambda: "the table", kind="cells")


def test_a_study_ends_with_its_table_and_says_what_failed(tmp_path, capsys):
    def run(job):
        if job is A:
            raise InputError("no.")

    with pytest.raises(InputError, match=rf"^1 of 2 cells failed \(a\): .*some_study --resume --output={tmp_path}$"):
        study(tmp_path, run)
    assert capsys.readouterr().out.endswith(
        f"the table\n\ntable   {tmp_path}/table.csv\nreport  {tmp_path}/report.html\n"
    )
    study(tmp_path, lambda job: None)
    assert (tmp_path / A.folder).is_dir()


def test_a_study_that_is_interrupted_says_how_to_go_on(tmp_path):
    def run(job):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=rf"^Finished cells are kept\. .*--resume --output={tmp_path}$"):
        study(tmp_path, run)


def both(stored, more):
    time.sleep(0.02)  # Between reading the config and writing it.
    return {"data": "toy", "seeds": sorted({*stored["seeds"], *more["seeds"]})}


def add(folder, seed):
    open_study("some_study", {"data": "toy", "seeds": [seed]}, both, output=folder, resume=True)


def test_a_study_keeps_what_several_processes_add_at_once(tmp_path):
    folder, settings = tmp_path / "study", {"data": "toy", "seeds": [0]}
    run, asked = open_study("some_study", settings, both, lambda asked: f"seeds {asked['seeds']}", folder)
    assert asked == settings and run.read_config().items() >= {"method": "some_study", "command": "seeds [0]"}.items()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add, args=(folder, seed)) for seed in range(1, 6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert run.read_config()["settings"]["seeds"] == list(range(6))
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_other_errors_end_it_and_let_go(tmp_path):
    def run(job):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, [A, B], run)
    assert go(tmp_path, [A, B]) == (["a", "b"], [])


def work(folder, log):
    module.WAIT = 0.02

    def run(job):
        time.sleep(0.1)
        with open(log, "a") as file:
            file.write(f"{job.name}\n")

    go(folder, [A, AFTER_A, B, AFTER_B], run)


def test_processes_share_the_work_and_all_wait_for_the_last(tmp_path):
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    processes = [context.Process(target=work, args=(tmp_path / "all", log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
        assert len(list((tmp_path / "all" / "runs").glob("*[ab]"))) == 4
    names = log.read_text().split()
    assert sorted(names) == ["a", "after_a", "after_b", "b"] and names.index("a") < names.index("after_a")
