"""What a COS-Net is worth on validation samples, while it trains and in the end."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from aitom_ssl.data.batches import subsample
from aitom_ssl.errors import InputError
from aitom_ssl.oneshot.evaluation import Answers, Interval, Measured, answer_episodes, interval, measure
from aitom_ssl.oneshot.plan import TrainingPlan
from aitom_ssl.oneshot.trained import TrainedCOSNet

_MONITORED = 280
_MONITOR_EPISODES, _FINAL_EPISODES = 300, 1000


class Validation(NamedTuple):
    """What the network is worth on validation samples."""

    answers: tuple[Answers, ...]  # ascending ways
    dice: Interval | None
    unseen: bool  # whether their classes were kept out of training
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "validation_samples": self.samples,
            "validation_classes_unseen": self.unseen,
            "validation_accuracy": {str(a.way): a.accuracy.to_dict() for a in self.answers},
            "validation_dice": None if self.dice is None else self.dice.to_dict(),
        }

    def text(self) -> str:
        """In one line."""
        accuracies = ", ".join(f"{a.way}-way-{a.shots}-shot accuracy {a.accuracy}" for a in self.answers)
        dice = "" if self.dice is None else f", Dice {self.dice}"
        kind = "unseen classes" if self.unseen else "training classes"
        return f"validation ({self.samples:,} samples of {kind}): {accuracies}{dice}"


def validate(
    trained: TrainedCOSNet, plan: TrainingPlan, seed: int, limit: int | None = None, episodes: int = _FINAL_EPISODES
) -> Validation:
    """Measure on the plan's validation samples, or on `limit` of them."""
    data = plan.validation
    if limit is not None:
        data = data.subset(subsample(len(data), limit, seed))
    measured: Measured = measure(trained, data)
    answers = []
    for way in plan.validation_ways:
        try:
            answers.append(answer_episodes(trained, measured, way, episodes=episodes, seed=seed))
        except InputError:  # a limited set may have a class once
            break
    dice = None if measured.dice is None else interval(measured.dice)
    return Validation(tuple(answers), dice, plan.validation_unseen, len(data))


class ValidationMonitor(keras.callbacks.Callback):
    """Adds `val_accuracy` (fewest ways), `val_accuracy_Nway` (most) and `val_dice` to the logs of an epoch."""

    def __init__(self, trained: TrainedCOSNet, plan: TrainingPlan, seed: int):
        super().__init__()
        self.trained, self.plan, self.seed = trained, plan, seed

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        found = validate(self.trained, self.plan, self.seed, _MONITORED, _MONITOR_EPISODES)
        if found.answers:
            logs["val_accuracy"] = found.answers[0].accuracy.mean
        for answers in found.answers[1:]:
            logs[f"val_accuracy_{answers.way}way"] = answers.accuracy.mean
        if found.dice is not None:
            logs["val_dice"] = found.dice.mean
