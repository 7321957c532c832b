"""The loop: its cycles, what stops it and how it goes on, people who answer late, and what it leaves behind."""

import csv
import json

import keras
import numpy as np
import pytest
from keras import layers

from aitom_ssl import active
from aitom_ssl.active import loop as module
from aitom_ssl.active.loop import CycleFolder, area_under_curve, cycle_seed, fitting_batch, run_active_learning
from aitom_ssl.active.oracle import Answers, Oracle, SimulatedOracle
from aitom_ssl.cli import active_learning as command
from aitom_ssl.data import write_dataset
from aitom_ssl.errors import InputError
from aitom_ssl.training import Checkpoint, RunFolder, callbacks

SIDE = 6


def tiny_encoder(input_shape, include_top, pooling, field):
    volumes = keras.Input(input_shape)
    x = layers.BatchNormalization()(layers.Conv3D(4, 3, strides=2)(volumes))
    x = layers.Dropout(0.2)(layers.Flatten()(layers.ReLU()(x)))
    return keras.Model(volumes, x)


def eager(network):
    network.run_eagerly = True  # tracing would take longer than the few calls
    return network


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(module.models, "get", lambda name: tiny_encoder)
    with_head = module.with_head
    monkeypatch.setattr(module, "with_head", lambda *parts: eager(with_head(*parts)))
    monkeypatch.setattr(module, "write_active_report", lambda path, *rest: path.write_text("written"))
    monkeypatch.setattr(module.gc, "collect", lambda: 0)  # as long as a tiny cycle


def written(folder, train=lambda i: i % 3, test=lambda i: i % 3, count=24, names=("a", "b", "c"), seed=0):
    rng = np.random.default_rng(seed)
    patterns = rng.standard_normal((3, SIDE, SIDE, SIDE))

    def samples(number, label):
        for i in range(number):
            volume = 2 * patterns[i % 3] + rng.standard_normal((SIDE,) * 3)
            yield {"volume": volume.astype(np.float32), "label": label(i)}

    splits = {"train": samples(count, train), "test": samples(9, test)}
    return write_dataset(folder, "toy", list(names), 10.0, "bright", splits)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return written(tmp_path_factory.mktemp("data") / "toy")


def settings(data, **changes):
    flags = {"strategy": "ema", "initial": 6.0, "step": 6.0, "final": 18.0, "epochs": 2, "steps": 0, "batch_size": 4}
    flags |= changes
    return command.RECIPE.new(command.Options(data=str(data), preset="recommended", augmentation="none", **flags))


@pytest.fixture
def untrained(monkeypatch):
    """Cycles without training, for what is around it."""

    def stand_in(network, optimizer, labelled, run, settings, trainer):
        trainer(network, None, None, settings["seed"])
        stand_in.calls.append((run.path.name, labelled.train.labels.tolist(), settings["batch_size"]))
        return Checkpoint(settings["epochs"], [], 1.0)

    stand_in.calls = []
    monkeypatch.setattr(module, "train_classifier", stand_in)
    return stand_in


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def asked(run):
    found = sorted((run.path / "cycles").glob("*/selected.csv"))
    return [[int(row["sample"]) for row in rows(path)] for path in found]


def without_times(run):
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows(run.path / "cycles.csv")]


# === Pure functions ===


def test_batches_that_fit():
    assert [fitting_batch(8, labels) for labels in (100, 8, 7, 6, 3, 2)] == [8, 8, 6, 6, 2, 2]


def test_area_under_the_curve():
    assert area_under_curve([10, 20, 40], [0.2, 0.4, 0.8]) == pytest.approx((10 * 0.3 + 20 * 0.6) / 30)
    assert area_under_curve([10], [0.7]) == 0.7


def test_seeds_of_cycles_differ():
    seeds = [cycle_seed(seed, cycle) for seed in range(20) for cycle in range(20)]
    assert len(set(seeds)) == 400 and min(seeds) >= 0 and max(seeds) < 2**30
    assert cycle_seed(3, 2) == cycle_seed(3, 2)


def test_checkpoints_are_a_minute_apart_but_for_the_last(tmp_path, monkeypatch):
    cycle = CycleFolder(tmp_path, 1)
    cycle.epochs = 5
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: cycle._saved + now[0])
    kept = []
    for epoch, after in ((1, 30), (2, 61), (3, 30), (5, 1)):
        now[0] = after
        cycle.save_checkpoint(Checkpoint(epoch, [], 0.0), [])
        kept.append([int(path.stem[-5:]) for path in (cycle.path / "checkpoints").glob("*")])
    assert kept == [[], [2], [2], [5]]


def test_few_labels_take_more_epochs(data, tmp_path, untrained):
    run = run_active_learning(settings(data, strategy="random", steps=6), tmp_path / "run")
    # Batches of 4 out of 6, 12 and 18 labels: 1, 3 and 4 steps an epoch, 2 epochs at least.
    assert [int(row["epochs"]) for row in rows(run.path / "cycles.csv")] == [6, 2, 2]


# === Whole runs ===


class Interrupted(SimulatedOracle):
    """Ctrl-C when it is first asked in cycle 1."""

    def __init__(self):
        self.asked = 0

    def ask(self, query, *rest):
        self.asked += query.cycle == 1
        if self.asked == 1 and query.cycle == 1:
            raise KeyboardInterrupt
        return super().ask(query, *rest)


@pytest.fixture(scope="module")
def through(data, tmp_path_factory):
    """A run of three cycles that nothing stops. Only read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.models, "get", lambda name: tiny_encoder)
        with_head = module.with_head
        patch.setattr(module, "with_head", lambda *parts: eager(with_head(*parts)))
        patch.setattr(module.gc, "collect", lambda: 0)
        return run_active_learning(settings(data), str(tmp_path_factory.mktemp("runs") / "through"), command="x y")


def test_what_a_run_leaves_behind(through):
    assert {path.name for path in through.path.iterdir()} == {
        "config.yaml", "cycles", "cycles.csv", "labels.csv", "model.keras", "results.json", "report.html",
    }  # fmt: skip
    assert [sorted(path.name for path in cycle.iterdir()) for cycle in sorted((through.path / "cycles").iterdir())] == [
        ["metrics.csv", "network.keras", "query.json", "results.json", "selected.csv", "state.json", "tensorboard"],
        ["metrics.csv", "network.keras", "query.json", "results.json", "selected.csv", "state.json", "tensorboard"],
        # The last one's checkpoint: a larger --final needs its trainer.
        ["checkpoints", "metrics.csv", "network.keras", "query.json", "results.json", "selected.csv", "state.json",
         "tensorboard"],
    ]  # fmt: skip
    table = rows(through.path / "cycles.csv")
    assert [(row["cycle"], row["labelled"], row["answered"]) for row in table] == [
        ("1", "6", "6"), ("2", "12", "6"), ("3", "18", "6"),
    ]  # fmt: skip
    assert {"recall a", "labelled b", "answered c", "accuracy", "train_seconds", "select_seconds"} <= set(table[0])
    queries = asked(through)
    assert [len(query) for query in queries] == [6, 6, 6] and len({i for query in queries for i in query}) == 18
    state = json.loads((through.path / "cycles/03/state.json").read_text())
    assert sorted(state["labelled"]) == sorted(i for query in queries for i in query)
    assert [label for label in state["classes"]] == [i % 3 for i in state["labelled"]]
    labels = rows(through.path / "labels.csv")
    assert [int(row["sample"]) for row in labels] == state["labelled"]
    assert [row["class"] for row in labels] == ["abc"[label] for label in state["classes"]]
    assert [int(row["cycle"]) for row in labels] == state["cycles"]
    results = json.loads((through.path / "results.json").read_text())
    assert results["curve"]["labelled"] == [6, 12, 18] and results["labelled"] == 18
    assert results["area_under_curve"] == pytest.approx(area_under_curve(**{
        "labels": [6, 12, 18], "accuracies": results["curve"]["accuracy"]
    }))  # fmt: skip
    for row in rows(through.path / "cycles/02/selected.csv"):
        assert row["answer"] == "abc"[int(row["sample"]) % 3] and row["guess"] in "abc" and float(row["confidence"]) > 0
    assert {row["guess"] for row in rows(through.path / "cycles/01/selected.csv")} == {""}
    network = keras.models.load_model(through.path / "model.keras")
    last = keras.models.load_model(through.path / "cycles/03/network.keras")
    for a, b in zip(network.get_weights(), last.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert RunFolder.open(through.path).read_config()["model"]["class_names"] == ["a", "b", "c"]


def test_stopped_everywhere_it_gives_the_numbers_of_never_stopping(data, through, tmp_path, monkeypatch, capsys):
    folder, oracle = str(tmp_path / "run"), Interrupted()

    def once(owner, name, when, before):
        """Ctrl-C at the first call of `owner.name` for which `when(*arguments)`."""
        real, done = getattr(owner, name), []

        def stopped(*arguments, **options):
            if not done and when(*arguments):
                done.append(1)
                if not before:
                    real(*arguments, **options)
                raise KeyboardInterrupt
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, stopped)

    def in_cycle(number):
        return lambda cycle, *_: cycle.number == number

    ema = type(active.get("ema"))
    monkeypatch.setattr(module, "_CHECKPOINT_SECONDS", 0.0)
    once(callbacks.Record, "on_epoch_end", lambda record, epoch, *_: record.run.number == 1 and epoch == 0, False)
    once(CycleFolder, "save_network", in_cycle(1), True)  # trained, not measured
    once(ema, "scores", lambda *_: True, False)  # while it selects for cycle 2
    # `oracle`: asked in cycle 2
    once(callbacks.Record, "on_epoch_end", lambda record, epoch, *_: record.run.number == 2 and epoch == 0, False)
    once(CycleFolder, "write_results", in_cycle(2), False)  # measured, no report yet
    once(CycleFolder, "write_query", in_cycle(3), False)
    stops = 0
    while True:
        try:
            run = run_active_learning(settings(data), folder, stops > 0, "x y", oracle)
            break
        except KeyboardInterrupt as error:
            stops += 1
            assert f"of 3 cycles are finished. Go on with: x y --resume --output={folder}" in str(error)
    assert stops == 7
    assert asked(run) == asked(through)
    assert without_times(run) == without_times(through)
    for number in ("01", "02", "03"):
        for name in ("state.json", "selected.csv", "metrics.csv"):
            one, two = (r.path / "cycles" / number / name for r in (run, through))
            assert one.read_text() == two.read_text(), (number, name)
        networks = [keras.models.load_model(r.path / f"cycles/{number}/network.keras") for r in (run, through)]
        for a, b in zip(*(network.get_weights() for network in networks), strict=True):
            np.testing.assert_array_equal(a, b)


def test_more_labels_go_on_from_where_it_ended(data, through, tmp_path, untrained):
    """Selecting needs the last cycle's mean model: its checkpoint is there, or it is trained again."""
    folder = str(tmp_path / "more")
    run = run_active_learning(settings(data, final=12.0), folder)
    first = asked(run)
    assert asked(run_active_learning(settings(data, final=18.0), folder, True))[:2] == first
    assert len(rows(run.path / "cycles.csv")) == 3


def test_semi_supervised_training_sees_unlabelled_volumes_and_resumes(data, tmp_path, monkeypatch):
    from aitom_ssl.active import mean_teacher

    monkeypatch.setattr(module, "_CHECKPOINT_SECONDS", 0.0)
    seen = []
    real = mean_teacher.MeanTeacher.call

    def watched(self, x, training=False):
        seen.append([part.shape[0] for part in x] if isinstance(x, tuple) else None)
        return real(self, x, training)

    monkeypatch.setattr(mean_teacher.MeanTeacher, "call", watched)
    asked_ = settings(data, final=6.0, epochs=4, semi_supervised=True)
    through = run_active_learning(asked_, str(tmp_path / "through"))
    assert seen[0] == [4, 4]
    real_end = callbacks.Record.on_epoch_end

    def stopped(self, epoch, logs=None):
        real_end(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(callbacks.Record, "on_epoch_end", stopped)
        run_active_learning(asked_, str(tmp_path / "parts"))
    parts = run_active_learning(asked_, str(tmp_path / "parts"), True)
    one, two = ((r.path / "cycles/01/metrics.csv").read_text() for r in (through, parts))
    assert one == two


# === Strategies, pools, starts ===


@pytest.mark.parametrize("strategy", ["random", "mc_dropout"])
def test_every_strategy_begins_with_the_same_labels(strategy, data, through, tmp_path, untrained):
    run = run_active_learning(settings(data, strategy=strategy, final=12.0), str(tmp_path / "run"))
    assert asked(run)[0] == asked(through)[0]
    assert len(set(asked(run)[0]) | set(asked(run)[1])) == 12


def test_a_class_without_a_label_is_reported(tmp_path, untrained, capsys):
    """An imbalanced pool: one sample of c, which the first labels miss."""
    folder = written(tmp_path / "rare", train=lambda i: 2 if i == 20 else i % 2)
    run = run_active_learning(settings(folder, strategy="random", final=6.0, seed=1), str(tmp_path / "run"))
    results = json.loads((run.path / "results.json").read_text())
    assert results["classes_without_labels"] == ["c"] and results["labelled_classes"]["c"] == 0
    assert "no labelled sample of c so far" in capsys.readouterr().err


def test_a_mean_model_that_is_the_task_model_deviates_from_it_nowhere(data, tmp_path):
    """Statistics of standardised features included."""
    run = run_active_learning(settings(data, alpha=0.0, final=12.0), str(tmp_path / "run"))
    scores = [float(row["score"]) for row in rows(run.path / "cycles/02/selected.csv")]
    assert len(scores) == 6 and max(scores) < 1e-9


def test_a_warm_start_has_the_weights_of_the_cycle_before(data, tmp_path, untrained):
    run = run_active_learning(settings(data, strategy="random", start="warm"), str(tmp_path / "warm"))
    networks = [keras.models.load_model(run.path / f"cycles/{n:02d}/network.keras").get_weights() for n in (1, 2, 3)]
    for a, b, c in zip(*networks, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    scratch = run_active_learning(settings(data, strategy="random", final=12.0), str(tmp_path / "scratch"))
    networks = [keras.models.load_model(scratch.path / f"cycles/{n:02d}/network.keras").get_weights() for n in (1, 2)]
    assert np.abs(networks[0][0] - networks[1][0]).max() > 0.01


def test_the_network_starts_from_a_run_of_ours(data, through, tmp_path, untrained):
    asked_ = settings(data, final=6.0, start=str(through.path))
    run = run_active_learning(asked_, str(tmp_path / "run"))
    mine, theirs = (keras.models.load_model(r.path / "model.keras") for r in (run, through))
    np.testing.assert_array_equal(mine.layers[1].get_weights()[0], theirs.layers[1].get_weights()[0])
    assert mine.layers[-2].name == module.models.STANDARDIZE_LAYER


def test_small_labels_make_small_batches(data, tmp_path, untrained):
    run_active_learning(settings(data, strategy="random", batch_size=16, initial=7.0), str(tmp_path / "run"))
    assert [batch for _, _, batch in untrained.calls] == [6, 12, 16]


# === People ===


class Person(Oracle):
    """Answers what it was told to: a word for each cycle, or a function of the query."""

    def __init__(self, *words):
        self.words = list(words)

    def ask(self, query, dataset, class_names, folder):
        assert folder.name == "answers" and folder.parent.name == f"{query.cycle:02d}"
        word = self.words.pop(0)
        if isinstance(word, str):
            return Answers({}, (), (), waiting=word)
        return word([int(i) for i in query.indices])


def label(indices):
    return Answers({i: i % 2 for i in indices}, (), ())


@pytest.fixture
def unlabelled(tmp_path):
    """Real data: no labels, no class names, nothing to test on."""
    return written(tmp_path / "real", train=lambda i: -1, test=lambda i: -1, names=())


def people(data, **changes):
    return settings(data, oracle="files", classes="ribosome,other", **{"final": 12.0, **changes})


def test_waiting_for_a_person_ends_the_run_and_keeps_the_question(unlabelled, tmp_path, untrained, capsys):
    folder = str(tmp_path / "run")
    run = run_active_learning(people(unlabelled), folder, False, "x y", Person("fill in the table"))
    assert "fill in the table\n\n0 of 2 cycles are finished. Go on with: x y --resume" in capsys.readouterr().out
    question = (run.path / "cycles/01/query.json").read_text()
    run_active_learning(people(unlabelled), folder, True, "x y", Person(label, "again"))
    assert (run.path / "cycles/01/query.json").read_text() == question
    assert "1 of 2 cycles are finished" in capsys.readouterr().out
    assert (run.path / "report.html").is_file()
    run_active_learning(people(unlabelled), folder, True, "x y", Person(label))
    table = rows(run.path / "cycles.csv")
    assert [row["labelled"] for row in table] == ["6", "12"]
    # What can be measured without a labelled test sample.
    assert "accuracy" not in table[0] and float(table[1]["pool_confidence"]) > 0.4
    assert 0 <= float(table[1]["guessed_right"]) <= 1
    results = json.loads((run.path / "results.json").read_text())
    assert sum(results["pool_guesses"].values()) == 12
    assert RunFolder.open(run.path).read_config()["model"]["class_names"] == ["ribosome", "other"]


def test_skipped_samples_stay_junk_leaves_and_the_next_cycle_makes_up_for_them(unlabelled, tmp_path, untrained):
    def partly(indices):
        return Answers({i: 0 for i in indices[:4]}, (indices[4],), (indices[5],))

    run = run_active_learning(people(unlabelled), str(tmp_path / "run"), oracle=Person(partly, label))
    first, second = asked(run)
    assert len(second) == 8 and first[5] not in second
    assert [row["answer"] for row in rows(run.path / "cycles/01/selected.csv")] == 4 * ["ribosome"] + ["skip", "junk"]
    assert [(row["labelled"], row["junk"]) for row in rows(run.path / "cycles.csv")] == [("4", "1"), ("12", "0")]


def test_an_answer_outside_the_classes_changes_nothing(unlabelled, tmp_path, untrained):
    folder = str(tmp_path / "run")
    with pytest.raises(InputError, match="class 7: expected 0 to 1 \\(ribosome, other\\)"):
        run_active_learning(people(unlabelled), folder, oracle=Person(lambda indices: Answers({indices[0]: 7}, (), ())))
    run = run_active_learning(people(unlabelled), folder, True, oracle=Person(label, label))
    assert len(asked(run)) == 2


def test_without_a_label_there_is_nothing_to_train_on(unlabelled, tmp_path, untrained):
    folder = str(tmp_path / "run")
    with pytest.raises(InputError, match=r"After cycle 1 0 samples have a label, .*answers"):
        run_active_learning(people(unlabelled), folder, oracle=Person(lambda found: Answers({}, tuple(found), ())))
    assert not (tmp_path / "run/cycles/01/state.json").exists()
    run_active_learning(people(unlabelled), folder, True, oracle=Person(label, label))


def test_labels_that_are_there_are_not_asked_for(tmp_path, untrained):
    folder = written(tmp_path / "some", train=lambda i: i % 3 if i < 8 else -1)
    run = run_active_learning(settings(folder, oracle="files", final=12.0), str(tmp_path / "run"), oracle=Person(label))
    table = rows(run.path / "cycles.csv")
    assert [(row["labelled"], row["asked"]) for row in table] == [("8", "0"), ("12", "4")]
    assert min(asked(run)[0]) >= 8


def test_a_pool_that_runs_out(unlabelled, tmp_path, untrained, capsys):
    junk = Person(label, lambda indices: Answers({}, (), tuple(indices)), label)
    run = run_active_learning(people(unlabelled, final=24.0, step=18.0), str(tmp_path / "run"), oracle=junk)
    assert [row["labelled"] for row in rows(run.path / "cycles.csv")] == ["6", "6"]


# === Refused ===


def test_data_that_changed_are_refused_and_the_state_is_kept(tmp_path, untrained):
    data = written(tmp_path / "toy")
    folder = str(tmp_path / "run")
    run = run_active_learning(settings(data, final=6.0), folder)
    state = (run.path / "cycles/01/state.json").read_text()
    written(data, seed=5)
    with pytest.raises(InputError, match="The pool has changed since"):
        run_active_learning(settings(data), folder, True)
    written(data, count=25)
    with pytest.raises(InputError, match="The data have changed since"):
        run_active_learning(settings(data), folder, True)
    assert (run.path / "cycles/01/state.json").read_text() == state


def test_two_processes_do_not_share_a_run(data, tmp_path, untrained):
    folder = str(tmp_path / "run")
    run = run_active_learning(settings(data, final=6.0), folder)
    with module.claimed(run.path / ".running"), pytest.raises(InputError, match="another process is at work there"):
        run_active_learning(settings(data), folder, True)


def test_damaged_files_are_named(data, tmp_path, untrained):
    folder, asked_ = str(tmp_path / "run"), settings(data, final=6.0, strategy="random")
    run = run_active_learning(asked_, folder)
    for name in ("state.json", "query.json", "results.json"):
        path = run.path / "cycles/01" / name
        before = path.read_text()
        path.write_text(before[: len(before) // 2])
        with pytest.raises(InputError, match=f"{name} is damaged .*delete it") as error:
            run_active_learning(asked_, folder, True)
        assert "\n" not in str(error.value)
        path.unlink()  # as it says
        run_active_learning(asked_, folder, True)
    assert [row["labelled"] for row in rows(run.path / "cycles.csv")] == ["6"]
