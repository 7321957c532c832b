"""A made-up result of a run."""

from aitom_ssl.oneshot.evaluation import Answers, Interval
from aitom_ssl.oneshot.tables import RunResult


def result(run="r", data="d1", variant="DuSE, decoder", accuracy=0.9, dice=0.8, refined=None):
    half = Interval(accuracy, 0.01, 100)
    found = None if dice is None else {"e": Interval(dice, 0.02, 9), "f": Interval(dice + 0.1, 0.02, 9)}
    better = None if refined is None else {"e": Interval(refined, 0.02, 9), "f": Interval(refined, 0.02, 9)}
    return RunResult(
        run=run,
        data=data,
        variant=variant,
        classes=("e", "f"),
        samples=18,
        answers=(Answers(2, 1, half, {4: half, 5: half}),),
        dice=found,
        refined=better,
        mean_dice=None if dice is None else Interval(dice + 0.05, 0.01, 18),
        mean_refined=None if refined is None else Interval(refined, 0.01, 18),
    )
