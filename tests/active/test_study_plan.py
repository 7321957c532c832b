"""The cells of a study: their order, their folders, and what each changes."""

from aitom_ssl.active import NAMES
from aitom_ssl.active.pool import OPTIONS
from aitom_ssl.active.study_plan import ABLATIONS, EMA, cells_of, variants_of, with_more

RUN = {
    "distance": "kl",
    "regularization": 0.03,
    "deviation": "higher",
    "semi_supervised": False,
    "mean_init": "copy",
    "class_balanced": True,
    "epochs": 2,
}
SETTINGS = {"data": "toy", "strategies": ["margin", "random", "ema"], "ablations": [], "seeds": 2, "run": RUN}
ALL = {**SETTINGS, "ablations": list(ABLATIONS)}


def test_every_strategy_comes_once_before_a_second_seed_and_ablations_last():
    assert [str(cell) for cell in cells_of({**SETTINGS, "ablations": ["deviation"]})] == [
        *("random, seed 0", "ema, seed 0", "margin, seed 0", "random, seed 1", "ema, seed 1", "margin, seed 1"),
        *("ema, deviation lower, seed 0", "ema, deviation lower, seed 1"),
    ]


def test_an_ablation_changes_one_option_of_ema_and_what_is_ema_itself_is_not_run_again():
    changed = [variant for variant in variants_of(ALL) if variant.ablation]
    assert [variant.folder_name for variant in changed] == [
        *("ema-distance_mse", "ema-lambda_0", "ema-lambda_0.01", "ema-lambda_0.1", "ema-deviation_lower"),
        *("ema-semi_supervised_true", "ema-mean_init_independent", "ema-class_balanced_false"),
    ]
    for variant in changed:
        ((name, value),) = ((n, v) for n, v in variant.changes.items() if n != "strategy")
        assert name in OPTIONS[EMA] and value != RUN[name] and variant.changes["strategy"] == EMA
    own = {**ALL, "run": {**RUN, "regularization": 0.5, "mean_init": "independent"}}
    names = [variant.folder_name for variant in variants_of(own)]
    assert "ema-mean_init_copy" in names and sum("lambda" in name for name in names) == 4


def test_folders_differ():
    cells = cells_of({**ALL, "strategies": list(NAMES), "seeds": 3})
    assert len({cell.folder for cell in cells}) == len(cells) == 3 * (len(NAMES) + 8)
    assert cells[0].folder.as_posix() == "cells/random-seed0"


def test_more_cells_join_those_that_are_there():
    more = with_more(SETTINGS, {"strategies": ["hal", "random"], "ablations": ["lambda"], "data": "other"})
    assert more == {**SETTINGS, "strategies": ["random", "ema", "margin", "hal"], "ablations": ["lambda"]}
    assert [with_more(SETTINGS, {"seeds": seeds})["seeds"] for seeds in (1, 5)] == [2, 5]
