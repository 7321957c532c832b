"""Budgets, the state of a pool and its file, and what a run is planned to do."""

import json

import numpy as np
import pytest

from aitom_ssl.active.oracle import Answers, Query
from aitom_ssl.active.pool import (
    GIVEN,
    Pool,
    amount,
    checksum,
    first_choice,
    make_plan,
    strategy_options,
    targets,
)
from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.data.importers.coordinates import read_csv
from aitom_ssl.errors import InputError

NAMES = ["a", "b", "c"]


def samples(count, label=lambda i: i % 3, seed=0):
    rng = np.random.default_rng(seed)
    return [{"volume": rng.standard_normal((4, 4, 4)).astype(np.float32), "label": label(i)} for i in range(count)]


def dataset(folder, count=12, names=NAMES, **splits):
    splits = {"train": samples(count), **splits}
    return write_dataset(folder, "toy", names, 10.0, "bright", splits)


@pytest.fixture
def train(tmp_path):
    return Dataset(dataset(tmp_path / "toy"), "train")


def query(*indices, cycle=1):
    none = np.zeros(len(indices))
    return Query(cycle, np.array(indices), none, none.astype(int), none)


# === How many ===


def test_amounts_are_shares_up_to_one_and_numbers_from_two_on():
    assert [amount("step", value, 1200) for value in (0.1, 0.05, 1, 1.0, 2, 120, 0.00042)] == [
        120, 60, 1200, 1200, 2, 120, 1,
    ]  # fmt: skip
    for value, words in ((0, "expected a share"), (-1, "expected a share"), (1.5, "expected a share")):
        with pytest.raises(InputError, match=f"--step={value:g}: {words}"):
            amount("step", value, 10)
    with pytest.raises(InputError, match=r"--final=11 asks for more, and the pool has 10"):
        amount("final", 11, 10)
    with pytest.raises(InputError, match=r"--initial=0.01 is 0 samples, and the pool has 10"):
        amount("initial", 0.01, 10)


def test_the_papers_targets():
    assert targets(24000, 0.1, 0.05, 0.4) == [2400, 3600, 4800, 6000, 7200, 8400, 9600]
    # Shares of all, so that rounding does not add up; the last step is short.
    assert targets(48, 0.1, 0.05, 0.4) == [5, 7, 10, 12, 14, 17, 19]
    assert targets(100, 10, 25, 70) == [10, 35, 60, 70]
    assert targets(100, 0.1, 25, 0.5) == [10, 35, 50]
    assert targets(9, 0.5, 0.5, 0.5) == [5]
    with pytest.raises(InputError, match=r"--final=0.2 is 20 samples, fewer than the 30 of --initial=30"):
        targets(100, 30, 0.1, 0.2)


def test_going_further_keeps_the_cycles_that_are_done():
    assert targets(1000, 0.1, 0.05, 0.6)[:7] == targets(1000, 0.1, 0.05, 0.4)


def test_the_first_labels_are_the_seeds():
    candidates = np.arange(100, 200)
    one, again, other = (first_choice(candidates, 20, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert set(one) <= set(candidates) and len(set(one)) == 20 and set(one) != set(other)
    np.testing.assert_array_equal(first_choice(candidates, 10, 3), one[:10])


# === Who ===


def test_answers_move_samples_out_of_the_pool(train):
    pool = Pool.start(train)
    assert len(pool.labelled) == 0 and len(pool.unlabelled) == 12
    after = pool.answered(query(5, 3, 7, 9), Answers({5: 2, 3: 0}, (7,), (9,)), NAMES)
    np.testing.assert_array_equal(after.labelled, [3, 5])
    np.testing.assert_array_equal(after.unlabelled, [0, 1, 2, 4, 6, 7, 8, 10, 11])
    assert after.labels[[3, 5]].tolist() == [0, 2] and after.cycles[[3, 5]].tolist() == [1, 1]
    assert len(pool.labelled) == 0  # the one before is as it was


def test_what_came_with_the_data_and_who_cannot_be_asked(train):
    given = np.full(12, -1)
    given[4] = 1
    pool = Pool.start(train, given=given)
    assert pool.labelled.tolist() == [4] and pool.cycles[4] == GIVEN and 4 not in pool.unlabelled
    pool = Pool.start(train, askable=np.arange(12) < 6)
    assert pool.unlabelled.tolist() == [0, 1, 2, 3, 4, 5]


def test_the_view_shows_the_labels_that_are_known_and_no_others(train):
    pool = Pool.start(train).answered(query(5, 3), Answers({5: 1, 3: 1}, (), ()), NAMES)
    view = pool.view(train, NAMES)
    assert view.labels.tolist() == [-1, -1, -1, 1, -1, 1] + 6 * [-1]
    assert view.subset(pool.labelled).labels.tolist() == [1, 1]
    assert set(view.subset(pool.unlabelled).labels) == {-1}
    np.testing.assert_array_equal(view.subset([5]).volumes([0]), train.volumes([5]))
    assert train.labels.tolist() == [i % 3 for i in range(12)]


def test_labels_of_a_view_of_a_view(train):
    some = train.subset([10, 2, 5]).relabelled([1, -1, 3], ["x", "y", "z", "w"])
    assert some.labels.tolist() == [1, -1, 3] and some.class_names == ["x", "y", "z", "w"]
    np.testing.assert_array_equal(some.volumes([1]), train.volumes([2]))
    assert some[0]["name"] == "y"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (Answers({5: 3}, (), ()), "called sample 5 class 3: expected 0 to 2 \\(a, b, c\\)"),
        (Answers({5: -1}, (), ()), "class -1"),
        (Answers({6: 0}, (), ()), "answered about sample 6, which cycle 1 does not ask for"),
        (Answers({}, (), (2,)), "answered about sample 2"),
        (Answers({0: 1}, (), ()), "answered about sample 0, which is labelled or out already"),
    ],
)
def test_answers_that_cannot_be(train, answers, words):
    pool = Pool.start(train).answered(query(0), Answers({0: 1}, (), ()), NAMES)
    with pytest.raises(InputError, match=words):
        pool.answered(query(5, 0), answers, NAMES)


def test_saved_and_read_back(train, tmp_path):
    pool = Pool.start(train).answered(query(5, 3, 9), Answers({5: 2, 3: 0}, (), (9,)), NAMES)
    pool.save(tmp_path / "state.json")
    back = Pool.load(tmp_path / "state.json", train)
    for name in ("labels", "out"):
        np.testing.assert_array_equal(getattr(back, name), getattr(pool, name))
    np.testing.assert_array_equal(back.cycles[pool.labelled], pool.cycles[pool.labelled])
    assert back.checksum == pool.checksum


def test_labels_for_other_programs(train, tmp_path):
    given = np.full(12, -1)
    given[4] = 1
    pool = Pool.start(train, given=given).answered(query(5, 3, 9), Answers({5: 2, 3: 0}, (), (9,)), NAMES)
    pool.write_labels(tmp_path / "labels.csv", train, NAMES)
    assert (tmp_path / "labels.csv").read_text() == "sample,class,cycle\n3,a,1\n4,b,0\n5,c,1\n"
    Pool.start(train).write_labels(tmp_path / "labels.csv", train, NAMES)
    assert (tmp_path / "labels.csv").read_text() == "sample,class,cycle\n"


def test_labels_of_particles_of_a_tomogram_can_be_imported(tmp_path):
    cut = [{**sample, "row": 7 * i, "position": np.array([i, 2.5, 0.1])} for i, sample in enumerate(samples(6))]
    train = Dataset(dataset(tmp_path / "cut", train=cut), "train")
    pool = Pool.start(train).answered(query(5, 3), Answers({5: 2, 3: 0}, (), ()), NAMES)
    pool.write_labels(tmp_path / "labels.csv", train, NAMES)
    header, first, _ = (tmp_path / "labels.csv").read_text().splitlines()
    assert (header, first) == ("sample,class,cycle,row,x,y,z", "3,a,1,21,3.0,2.5,0.1")
    found = read_csv(tmp_path / "labels.csv", voxel_size=10.0, label_column="class")
    np.testing.assert_array_equal(found.positions, [[3, 2.5, 0.1], [5, 2.5, 0.1]])
    assert found.labels == ["a", "c"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"samples": 12, "labelled": [99], "classes": [0], "cycles": [0]}'])
def test_a_damaged_file_is_named(train, tmp_path, text):
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"state.json is damaged .*answers are read anew"):
        Pool.load(path, train)


def test_a_pool_that_changed_is_refused(train, tmp_path):
    path = tmp_path / "state.json"
    Pool.start(train).save(path)
    other = Dataset(
        write_dataset(tmp_path / "o", "toy", NAMES, 10.0, "bright", {"train": samples(12, seed=1)}), "train"
    )
    more = Dataset(dataset(tmp_path / "more", 13), "train")
    for changed, words in ((other, "then 12 samples, now 12"), (more, "now 13"), (train.subset(range(5)), "now 5")):
        with pytest.raises(InputError, match=f"The pool has changed since .*{words}"):
            Pool.load(path, changed)
    assert json.loads(path.read_text())["samples"] == 12
    # The same data elsewhere are the same data.
    Pool.load(path, Dataset(dataset(tmp_path / "copy"), "train"))


def test_checksum_depends_on_labels_and_volumes_and_not_on_the_place(train, tmp_path):
    assert checksum(train) == checksum(Dataset(dataset(tmp_path / "again"), "train"))
    other = write_dataset(tmp_path / "l", "toy", NAMES, 10.0, "bright", {"train": samples(12, lambda i: 0)})
    assert checksum(train) != checksum(Dataset(other, "train"))


# === What a run is to do ===


def plan(folder, **changes):
    settings = {"oracle": "simulated", "classes": None, "initial": 0.25, "step": 0.25, "final": 0.5, **changes}
    splits = {split: Dataset(folder, split) for split in ("train", "validation", "test") if (folder / split).is_dir()}
    return make_plan(splits, settings)


def test_a_simulated_oracle_is_asked_for_what_has_a_label(tmp_path):
    partly = samples(12, lambda i: i % 3 if i < 8 else -1)
    folder = dataset(tmp_path / "d", train=partly, test=samples(4), validation=samples(2))
    made = plan(folder)
    assert made.targets == [2, 4] and made.pool.unlabelled.tolist() == list(range(8))
    assert made.measured_on == "test" and len(made.measured) == 4
    assert "4 of 12 training samples have no label" in made.notes[0]
    with pytest.raises(InputError, match="--oracle=files or --oracle=browser"):
        plan(dataset(tmp_path / "none", train=samples(12, lambda i: -1)))
    with pytest.raises(InputError, match="--classes=a,b does not go with --oracle=simulated"):
        plan(folder, classes="a,b")


def test_a_person_begins_with_the_labels_that_are_there(tmp_path):
    partly = samples(12, lambda i: i % 3 if i < 4 else -1)
    made = plan(dataset(tmp_path / "d", train=partly), oracle="files", classes="a,b,c,junk")
    assert made.pool.labelled.tolist() == [0, 1, 2, 3] and made.targets == [3, 6]
    assert made.class_names == ("a", "b", "c", "junk") and made.measured is None
    assert "4 of 12" in made.notes[0] and "cannot be measured" in made.notes[1]


def test_a_person_is_not_asked_where_all_have_a_label(tmp_path):
    with pytest.raises(InputError, match=r"All 12 training samples of toy have a label.*train_supervised"):
        plan(dataset(tmp_path / "d"), oracle="browser")


def test_data_without_labels_and_class_names(tmp_path):
    nobody = samples(12, lambda i: -1)
    folder = dataset(tmp_path / "d", names=[], train=nobody, validation=nobody, test=nobody)
    assert plan(folder, oracle="browser", classes="ribosome, other").class_names == ("ribosome", "other")
    for classes, words in (
        (None, "toy has no classes: say which ones there are"),
        ("ribosome", "the class ribosome only"),
        ("a,,b", "expected names that differ"),
        ("a,a", "expected names that differ"),
    ):
        with pytest.raises(InputError, match=words):
            plan(folder, oracle="browser", classes=classes)


def test_classes_begin_with_those_of_the_labels(tmp_path):
    partly = samples(12, lambda i: i % 3 if i < 4 else -1)
    folder = dataset(tmp_path / "d", train=partly, test=samples(3))
    with pytest.raises(InputError, match="toy has labels of the classes a, b, c: begin with these"):
        plan(folder, oracle="files", classes="b,a,c")
    made = plan(folder, oracle="files", classes="a,b,c,d", initial=1, step=1, final=1)
    assert made.measured.class_names == ["a", "b", "c", "d"] and made.measured.labels.tolist() == [0, 1, 2]


def test_budgets_are_checked_against_the_pool(tmp_path):
    folder = dataset(tmp_path / "d", 5)
    with pytest.raises(InputError, match=r"--final=6 asks for more, and the pool has 5"):
        plan(folder, final=6)
    with pytest.raises(InputError, match=r"--initial=0.2 is one sample"):
        plan(folder, initial=0.2)


def test_options_of_the_strategy():
    settings = {"alpha": 0.5, "passes": 9, **dict.fromkeys(["regularization", "ramp", "mean_init"], 1)}
    settings |= dict.fromkeys(["semi_supervised", "distance", "deviation", "class_balanced"], 2)
    assert strategy_options({**settings, "strategy": "bald"}) == {"passes": 9}
    assert strategy_options({**settings, "strategy": "random"}) == {}
    assert strategy_options({**settings, "strategy": "ema"}).items() >= {"alpha": 0.5, "deviation": 2}.items()
