"""The loop of active learning: select, ask, label, train, measure, until there are labels enough.

    config.yaml  labels.csv  cycles.csv  results.json  model.keras  report.html
    cycles/01/
        query.json     which samples this cycle asks for, written before anybody is asked
        answers/       the oracle's own folder
        state.json     who is labelled once the answers are in (see `pool.Pool`)
        selected.csv   the samples that were asked for, and the answers
        metrics.csv  tensorboard/  checkpoints/
        network.keras  results.json

Each file is written once what stands above it is there: whatever stops the loop, it goes on after the last of them, and
everything random is a function of (seed, cycle), so the numbers are those of never stopping. Cycle 1 asks for samples
drawn by the seed alone, the others for those that the strategy selects with the network of the cycle before.

A network is kept as it is after a cycle's last epoch: choosing an epoch would take validation labels, which no count of
labels here would own to.
"""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from aitom_ssl import active, models
from aitom_ssl.active.oracle import JUNK, SKIP, Answers, Oracle, Query, SimulatedOracle
from aitom_ssl.active.pool import Plan, Pool, first_choice, make_plan, strategy_options
from aitom_ssl.active.report import write_active_report
from aitom_ssl.active.strategy import Known, Strategy
from aitom_ssl.data import Dataset, steps_per_epoch
from aitom_ssl.data.batches import epochs_with
from aitom_ssl.errors import InputError, reason
from aitom_ssl.evaluation.classification import classification_metrics
from aitom_ssl.evaluation.probes import extract_features
from aitom_ssl.evaluation.report import duration
from aitom_ssl.files import atomic_write, claimed, is_disk_full, write_csv, write_json
from aitom_ssl.training.callbacks import say
from aitom_ssl.training.feature_statistics import FeatureStatistics
from aitom_ssl.training.finetuning import optimizer, pretrained_encoder, with_head
from aitom_ssl.training.loop import numerics
from aitom_ssl.training.request import Labelled, checked_splits, run_config
from aitom_ssl.training.run import Checkpoint, RunFolder
from aitom_ssl.training.supervised import train_classifier

METHOD = "active_learning"
SCRATCH, WARM = "scratch", "warm"
# A checkpoint of 33 million weights, their mean and their momentum takes as long as an epoch of few labels.
_CHECKPOINT_SECONDS = 60.0


# === Pure functions ===


def cycle_seed(seed: int, cycle: int) -> int:
    """Of everything random in a cycle but the initial labels: the same whatever the strategy."""
    return int(np.random.SeedSequence([seed, cycle]).generate_state(1)[0] % 2**30)


def fitting_batch(batch_size: int, labels: int) -> int:
    """`batch_size`, or with fewer labels the largest even number of them, 2 at least."""
    return batch_size if labels >= batch_size else max(2, labels - labels % 2)


def area_under_curve(labels: Sequence[int], accuracies: Sequence[float]) -> float:
    """Mean height of the learning curve between its first and its last number of labels, by trapezoids; 0 to 1."""
    if len(labels) == 1 or labels[-1] == labels[0]:
        return float(accuracies[-1])
    x, y = np.asarray(labels, float), np.asarray(accuracies, float)
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2 / (x[-1] - x[0]))


# === A cycle's folder ===


class CycleFolder(RunFolder):
    """cycles/NN of a run, from 01 on. Checkpoints are a minute apart at least; that of the last of `epochs` stays."""

    def __init__(self, run: Path, number: int):
        super().__init__(run / "cycles" / f"{number:02d}")
        self.number, self._saved = number, time.monotonic()
        self.epochs: int | None = None  # once its labels are known

    def save_checkpoint(self, checkpoint: Checkpoint, variables: Sequence[Any]) -> None:
        if checkpoint.epoch != self.epochs and time.monotonic() - self._saved < _CHECKPOINT_SECONDS:
            return
        super().save_checkpoint(checkpoint, variables)
        self._saved = time.monotonic()
        if checkpoint.epoch == self.epochs:
            for before in self._checkpoints()[:-1]:
                before.unlink()

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    @property
    def network(self) -> Path:
        return self.path / "network.keras"

    def finished(self) -> bool:
        return self.state.is_file() and (self.path / "results.json").is_file()

    def results(self) -> dict[str, Any]:
        """results.json."""
        return self._read("results.json")

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise ValueError("not a JSON object")
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is damaged ({reason(error)}): delete it to make it again.") from None
        return found

    def write_query(self, query: Query, seconds: float) -> None:
        """query.json, with the time that selecting took."""
        arrays = {name: values.tolist() for name, values in query._asdict().items() if name != "cycle"}
        arrays["confidences"] = [None if np.isnan(value) else float(value) for value in query.confidences]
        write_json(self.path / "query.json", {"cycle": query.cycle, **arrays, "seconds": seconds})

    def query(self) -> tuple[Query, float] | None:
        """What `write_query` wrote, or None."""
        if not (self.path / "query.json").is_file():
            return None
        found = self._read("query.json")
        try:
            sure = [np.nan if value is None else value for value in found["confidences"]]
            indices, guesses = (np.asarray(found[name], np.int64) for name in ("indices", "guesses"))
            scores = np.asarray(found["scores"], np.float64)
            return Query(int(found["cycle"]), indices, scores, guesses, np.asarray(sure, np.float64)), found["seconds"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.path / 'query.json'} is damaged ({reason(error)}): delete it to make it again."
            ) from None

    def write_selected(self, query: Query, said: Sequence[str], class_names: Sequence[str]) -> None:
        """selected.csv: a row for each sample of the query, in its order; `said`: what the oracle did."""
        rows = [
            {
                "sample": int(index),
                "score": float(score),
                "guess": class_names[guess] if guess >= 0 else "",
                "confidence": "" if np.isnan(confidence) else float(confidence),
                "answer": answer,
            }
            for (index, score, guess, confidence), answer in zip(zip(*query[1:], strict=True), said, strict=True)
        ]
        write_csv(self.path / "selected.csv", rows)

    def save_network(self, network: keras.Model) -> None:
        with atomic_write(self.network) as temporary:
            network.save(temporary)

    def drop_checkpoints(self) -> None:
        """They are large, and nothing needs them once the next query is written."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)


class Trained(NamedTuple):
    """What a cycle ends with."""

    network: keras.Model
    trainer: keras.Model
    done: Checkpoint


# === The run ===


def run_active_learning(
    settings: Mapping[str, Any],
    output: str | None = None,
    resume: bool = False,
    command: str = "",
    oracle: Oracle | None = None,
) -> RunFolder:
    """Train, ask for labels, train again, ...; returns the run's folder.

    Where the oracle waits for a person, it says for what and returns: `resume` goes on when it has been done.

    Args:
        settings: data, limit (or None), strategy (of `active.NAMES`) with its `pool.OPTIONS`, oracle with its port (see
            `make_oracle`), classes, initial, step and final (see `pool.make_plan`), model, pooled, with its field,
            start ("scratch"; "warm": with the weights of the cycle before; or a run of ours, whose encoder each cycle
            begins with), epochs a cycle, steps (of a cycle at least, by more epochs), batch_size, optimizer,
            learning_rate, final_rate, momentum and weight_decay (see `finetuning.optimizer`), class_weights,
            augmentation, seed, precision.
        output: the run's folder, or None for runs/active_learning-DATA.
        resume: go on with the run in `output`; `settings` must be that run's, but for a larger `final`.
        command: what makes the run again, kept in its config.
        oracle: in place of the one that the settings name.

    Raises:
        InputError: on data, settings or answers that cannot be used; what is finished is kept. KeyboardInterrupt
            carries how to go on.
    """
    # A batch that is larger than the pool is made to fit (see `fitting_batch`).
    splits = checked_splits({**settings, "batch_size": 1}, output, resume)
    plan = make_plan(splits, settings)
    strategy = active.get(settings["strategy"], **strategy_options(settings))
    oracle = make_oracle(settings) if oracle is None else oracle
    train = splits["train"]
    about = models.ModelDescription(settings["model"], plan.class_names, train.size, train.voxel_size, train.contrast)
    run = RunFolder.open(output) if resume else RunFolder.create(output, METHOD, settings["data"])
    with claimed(run.path / ".running") as mine:
        if not mine:
            raise InputError(f"{run.path}: another process is at work there: let it end, or give another --output.")
        run.write_config(run_config(METHOD, command, settings, splits, about))
        loop = _Loop(run, plan, train, strategy, oracle, settings, command)
        try:
            loop.go()
        except KeyboardInterrupt as error:
            said = f"{error} " if str(error) else ""
            raise KeyboardInterrupt(f"{said}{loop.how_to_go_on()}") from None
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise InputError(f"The disk is full: free space under {run.path}. {loop.how_to_go_on()}") from None
    return run


def make_oracle(settings: Mapping[str, Any]) -> Oracle:
    """Who answers: `oracle` of the settings is simulated, files or browser (of which `port` is that of its page)."""
    if settings["oracle"] == "files":
        from aitom_ssl.active.oracle_files import FilesOracle

        return FilesOracle()
    if settings["oracle"] == "browser":
        from aitom_ssl.active.oracle_browser import BrowserOracle

        return BrowserOracle(settings["port"])
    return SimulatedOracle()


class _Loop:
    def __init__(
        self,
        run: RunFolder,
        plan: Plan,
        train: Dataset,
        strategy: Strategy,
        oracle: Oracle,
        settings: Mapping[str, Any],
        command: str,
    ):
        self.run, self.plan, self.train, self.strategy, self.oracle = run, plan, train, strategy, oracle
        self.settings, self.command, self.names = settings, command, plan.class_names
        self.cycles = [CycleFolder(run.path, number) for number in range(1, len(plan.targets) + 1)]

    def done(self) -> int:
        """Cycles that are finished."""
        return next((n for n, cycle in enumerate(self.cycles) if not cycle.finished()), len(self.cycles))

    def _before(self, cycle: CycleFolder) -> list[CycleFolder]:
        return self.cycles[: cycle.number - 1]

    def how_to_go_on(self) -> str:
        name = " ".join(self.command.split()[:2])
        path = self.run.path
        flags = f"{name} --resume --output={path}" if name else f"resume=True, output={str(path)!r}"
        return f"{self.done()} of {len(self.cycles)} cycles are finished. Go on with: {flags}"

    def go(self) -> None:
        for note in self.plan.notes:
            say(note)
        done = self.done()
        pool = self._pool_after(done)
        if done == len(self.cycles):
            print(f"{self.run.path} has finished its {done} cycle{'s' if done > 1 else ''}.", flush=True)
            self._write_labels(pool)
            self._write_so_far()
        else:
            targets = ", ".join(f"{target:,}" for target in self.plan.targets)
            print(
                f"{self.settings['strategy']} on {self.train.name}: {len(pool.labels):,} training samples, "
                f"{len(self.names)} classes, labels {targets}, into {self.run.path}",
                flush=True,
            )
        trained = None
        for cycle in self.cycles[done:]:
            print(f"\ncycle {cycle.number} of {len(self.cycles)}", flush=True)
            if cycle.state.is_file():
                pool = Pool.load(cycle.state, self.train)
            else:
                asked = self._asked(cycle, pool, trained)
                trained = None  # before the next one takes its memory
                gc.collect()
                pool, waiting = self._answered(cycle, pool, asked)
                if waiting:
                    print(f"\n{waiting}\n\n{self.how_to_go_on()}", flush=True)
                    return
            self._write_labels(pool)
            trained = self._trained(cycle, pool)
            self._measure(cycle, pool, trained)
            self._write_so_far()
        path = self.run.path
        print(f"\nlabels  {path}/labels.csv\nresults {path}/cycles.csv\nreport  {path}/report.html", flush=True)

    def _pool_after(self, done: int) -> Pool:
        """As `done` finished cycles left it; InputError where the data are not those it was saved of."""
        return Pool.load(self.cycles[done - 1].state, self.train) if done else self.plan.pool

    # --- Select ---

    def _asked(self, cycle: CycleFolder, pool: Pool, trained: Trained | None) -> tuple[Query, float] | None:
        """The query of `cycle` and how long selecting took; None where there are labels enough, or nobody is left."""
        asked = cycle.query()
        if asked is None:
            budget = min(self.plan.targets[cycle.number - 1] - len(pool.labelled), len(pool.unlabelled))
            if budget <= 0:
                if not len(pool.unlabelled):
                    say("the pool is empty: there is nothing left to ask for.")
                return None
            started = time.monotonic()
            if cycle.number == 1:
                chosen = first_choice(pool.unlabelled, budget, self.settings["seed"])
                none = np.full(budget, np.nan)
                query = Query(1, chosen, np.zeros(budget), np.full(budget, -1, np.int64), none)
            else:
                trained = trained or self._trained(self._before(cycle)[-1], pool)
                started = time.monotonic()
                query = self._select(cycle, pool, trained, budget)
            asked = query, time.monotonic() - started
            cycle.write_query(*asked)
        for before in self._before(cycle):
            before.drop_checkpoints()
        return asked

    def _select(self, cycle: CycleFolder, pool: Pool, trained: Trained, budget: int) -> Query:
        view, unlabelled = pool.view(self.train, self.names), pool.unlabelled
        rest = view.subset(unlabelled)
        seed = cycle_seed(self.settings["seed"], cycle.number)
        with numerics(self.settings["precision"], seed):
            known = Known(view.subset(pool.labelled), rest, trained.network, trained.trainer, seed)
            selection = self.strategy.select(known, budget)
            probabilities = extract_features(trained.network, rest, indices=selection.indices)
        guesses = probabilities.argmax(axis=1).astype(np.int64)
        sure = probabilities.max(axis=1).astype(np.float64)
        return Query(cycle.number, unlabelled[selection.indices], selection.scores, guesses, sure)

    # --- Ask and label ---

    def _answered(self, cycle: CycleFolder, pool: Pool, asked: tuple[Query, float] | None) -> tuple[Pool, str]:
        """The pool with the answers, which is saved; or what the oracle waits for."""
        if asked is not None:
            query, _ = asked
            answers = self.oracle.ask(query, self.train, self.names, cycle.path / "answers")
            if answers.waiting:
                return pool, answers.waiting
            pool = pool.answered(query, answers, self.names)
            cycle.write_selected(query, [self._word(answers, int(index)) for index in query.indices], self.names)
        if len(pool.labelled) < 2:
            raise InputError(
                f"After cycle {cycle.number} {len(pool.labelled)} samples have a label, and a network needs two or "
                f"more: answer for some that were skipped, in {cycle.path / 'answers'}, and go on with --resume."
            )
        pool.save(cycle.state)
        return pool, ""

    def _word(self, answers: Answers, index: int) -> str:
        if index in answers.labels:
            return self.names[answers.labels[index]]
        return JUNK if index in answers.junk else SKIP

    # --- Train ---

    def _trained(self, cycle: CycleFolder, pool: Pool) -> Trained:
        """The network of `cycle`; if its training has been finished, as its checkpoint has it."""
        view = pool.view(self.train, self.names)
        labelled, unlabelled = view.subset(pool.labelled), view.subset(pool.unlabelled)
        seed = cycle_seed(self.settings["seed"], cycle.number)
        batch_size = fitting_batch(self.settings["batch_size"], len(labelled))
        cycle.epochs = epochs_with(labelled, batch_size, self.settings["epochs"], self.settings["steps"])
        settings = {**self.settings, "seed": seed, "batch_size": batch_size, "epochs": cycle.epochs}
        made = []

        def trainer(*parts: Any) -> keras.Model:
            made.append(self.strategy.trainer(*parts, unlabelled))
            return made[0]

        with numerics(settings["precision"], seed):
            network = self.strategy.prepare(self._untrained(cycle, view, seed))
            steps = cycle.epochs * steps_per_epoch(labelled, batch_size)
            data = Labelled(labelled, None, labelled, "", (), view)
            descent = optimizer(settings, steps, settings["final_rate"])
            done = train_classifier(network, descent, data, cycle, settings, trainer)
        return Trained(network, made[0], done)

    def _untrained(self, cycle: CycleFolder, view: Dataset, seed: int) -> keras.Model:
        start = self.settings["start"]
        if start in (SCRATCH, WARM):
            build, shape = models.get(self.settings["model"]), (view.size,) * 3 + (1,)
            encoder = build(shape, include_top=False, pooling="avg", field=self.settings["field"])
        else:
            encoder = pretrained_encoder(start, view, self.settings["precision"])
        encoder = models.standardized(encoder)
        FeatureStatistics(encoder, view, seed).measure()
        network = with_head(encoder, None, len(self.names))
        if start == WARM and self._before(cycle):
            before = keras.models.load_model(self._before(cycle)[-1].network, compile=False)
            network.set_weights(before.get_weights())
        return network

    # --- Measure ---

    def _measure(self, cycle: CycleFolder, pool: Pool, trained: Trained) -> None:
        """network.keras and results.json of `cycle`."""
        cycle.save_network(trained.network)
        started = time.monotonic()
        measured = self._quality(pool, trained.network)
        asked, here = cycle.query(), pool.labelled[pool.cycles[pool.labelled] == cycle.number]
        query, selecting = asked if asked is not None else (None, 0.0)
        labels = pool.labels[pool.labelled]
        counts = self._counts(labels)
        right = None
        if query is not None and (query.guesses >= 0).all():
            answered = pool.cycles[query.indices] == cycle.number
            answered &= pool.labels[query.indices] >= 0
            if answered.any():
                right = float((query.guesses == pool.labels[query.indices])[answered].mean())
        without = [name for name, count in counts.items() if count == 0]
        if without:
            say(f"no labelled sample of {', '.join(without)} so far: never predicted rightly.")
        about = {
            "cycle": cycle.number,
            "labelled": len(labels),
            "asked": 0 if query is None else len(query.indices),
            "answered": len(here),
            "junk": 0 if query is None else int(pool.out[query.indices].sum()),
            "labelled_classes": counts,
            "answered_classes": self._counts(pool.labels[here]),
            "classes_without_labels": without,
            "guessed_right": right,
            "epochs": trained.done.epoch,
            **measured,
            "select_seconds": selecting,
            "train_seconds": trained.done.seconds,
            "measure_seconds": time.monotonic() - started,
        }
        cycle.write_results(about)
        print(_line(about), flush=True)

    def _quality(self, pool: Pool, network: keras.Model) -> dict[str, Any]:
        """Of the labelled samples that are never trained on; without any, how the network sees the pool."""
        if self.plan.measured is not None:
            probabilities = extract_features(network, self.plan.measured)
            metrics = classification_metrics(probabilities, self.plan.measured.labels, self.names)
            return {"measured_on": self.plan.measured_on, **metrics.to_dict()}
        if not len(pool.unlabelled):
            return {}
        probabilities = extract_features(network, self.train, indices=pool.unlabelled)
        guessed = self._counts(probabilities.argmax(axis=1))
        return {"pool_confidence": float(probabilities.max(axis=1).mean()), "pool_guesses": guessed}

    def _counts(self, labels: np.ndarray) -> dict[str, int]:
        counts = np.bincount(labels, minlength=len(self.names))
        return {name: int(count) for name, count in zip(self.names, counts, strict=True)}

    # --- What is there so far ---

    def _write_labels(self, pool: Pool) -> None:
        pool.write_labels(self.run.path / "labels.csv", self.train, self.names)

    def _write_so_far(self) -> None:
        """model.keras, cycles.csv, results.json and report.html of the cycles that are finished."""
        finished = self.cycles[: self.done()]
        results = [cycle.results() for cycle in finished]
        last = finished[-1]
        # A study drops the networks of what is finished.
        if last.network.is_file():
            with atomic_write(self.run.path / "model.keras") as temporary:
                shutil.copyfile(last.network, temporary)
        write_csv(self.run.path / "cycles.csv", [table_row(result, self.names) for result in results])
        curve = {}
        if "accuracy" in results[-1]:
            labels, accuracies = ([result[name] for result in results] for name in ("labelled", "accuracy"))
            curve = {"curve": {"labelled": labels, "accuracy": accuracies}}
            curve["area_under_curve"] = area_under_curve(labels, accuracies)
        shared = {name: self.settings[name] for name in ("strategy", "model", "data", "seed")}
        self.run.write_results({**shared, "cycles": len(results), **results[-1], **curve})
        asked = last.query()
        hardest = None if asked is None or last.number == 1 else asked[0]
        write_active_report(
            self.run.path / "report.html",
            results,
            self.names,
            self.settings,
            self.command,
            self.train,
            hardest,
            self.plan.notes,
        )


def table_row(result: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    """A cycle's row of cycles.csv, from its results.json."""
    plain = ("cycle", "labelled", "asked", "answered", "junk", "accuracy", "balanced_accuracy", "macro_f1", "log_loss")
    more = ("guessed_right", "pool_confidence", "epochs", "select_seconds", "train_seconds", "measure_seconds")
    row = {name: result[name] for name in (*plain, *more) if result.get(name) is not None}
    for name in class_names:
        if "classes" in result:
            row[f"recall {name}"] = result["classes"][name]["recall"]
        row[f"labelled {name}"] = result["labelled_classes"][name]
        row[f"answered {name}"] = result["answered_classes"][name]
    return row


def _line(about: Mapping[str, Any]) -> str:
    parts = [f"{about['labelled']:,} labels"]
    if "accuracy" in about:
        parts.append(f"accuracy {about['accuracy']:.3f}, balanced {about['balanced_accuracy']:.3f}")
    if "pool_confidence" in about:
        parts.append(f"mean confidence on the pool {about['pool_confidence']:.3f}")
    if about["guessed_right"] is not None:
        parts.append(f"{about['guessed_right']:.0%} of the new ones were guessed rightly")
    parts.append(f"selected in {duration(about['select_seconds'])}, trained in {duration(about['train_seconds'])}")
    return "; ".join(parts)
