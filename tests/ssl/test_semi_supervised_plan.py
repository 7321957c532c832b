"""The runs of a study: their order, their folders, and those that join it later."""

from aitom_ssl.ssl.semi_supervised_plan import Cell, Pretraining, jobs_of, labels_name, with_more

SETTINGS = {
    "data": "toy",
    "methods": ["random", "moco", "swav"],
    "fractions": [0.25],
    "labels_per_class": [5],
    "seeds": 3,
    "pretraining_seeds": 2,
    "pretraining": {"moco": {"epochs": 2}, "swav": {"epochs": 2}},
}


def test_the_plan():
    jobs = jobs_of(SETTINGS)
    assert [job for job in jobs if isinstance(job, Pretraining)] == [
        Pretraining("moco", 0), Pretraining("swav", 0), Pretraining("moco", 1), Pretraining("swav", 1)
    ]  # fmt: skip
    assert len(jobs) == 4 + 3 * 3 * 2 == len({job.folder for job in jobs})
    done = set()
    for job in jobs:
        assert set(job.needs) <= done
        done.add(job)
    last = jobs[-1]
    assert last == Cell("swav", 5, 2, Pretraining("swav", 0)) and last.folder.name == "swav-5each-seed2"
    assert str(jobs[0]) == "random weights, 25% of the labels, seed 0"
    assert jobs[0].folder.name == "random-25percent-seed0" and not jobs[0].needs


def test_a_share_and_a_number_are_not_the_same():
    assert (labels_name(1.0), labels_name(1)) == ("100% of the labels", "1 labels a class")
    assert Cell("moco", 1.0, 0, None).folder != Cell("moco", 1, 0, None).folder


def test_more_runs_join_those_that_are_there():
    newer = {"simclr": {"epochs": 9}, "moco": {"epochs": 9}}
    more = with_more(SETTINGS, {"methods": ["simclr", "random"], "fractions": [0.1, 0.25], "pretraining": newer})
    assert (more["methods"], more["fractions"]) == (["random", "moco", "simclr", "swav"], [0.1, 0.25])
    assert more["pretraining"] == {**SETTINGS["pretraining"], "simclr": {"epochs": 9}}
    assert [with_more(SETTINGS, {"seeds": seeds})["seeds"] for seeds in (1, 5)] == [3, 5]
    assert with_more(SETTINGS, {"data": "other"}) == SETTINGS == with_more(SETTINGS, SETTINGS)
