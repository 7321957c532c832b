"""Training COS-Net: episodes of the training classes, a run's folder, what validation says, and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from aitom_ssl.augmentation import SubtomogramAugmenter
from aitom_ssl.data.batches import gather
from aitom_ssl.models import COSNet, ModelDescription
from aitom_ssl.oneshot.matching import OneShotModel, arranged
from aitom_ssl.oneshot.plan import TrainingPlan, training_plan
from aitom_ssl.oneshot.report import write_training_report
from aitom_ssl.oneshot.trained import METHOD, TrainedCOSNet, network_settings
from aitom_ssl.oneshot.validation import ValidationMonitor, validate
from aitom_ssl.training.compiled import networks_on_xla
from aitom_ssl.training.loop import experiment, fit, numerics, restore
from aitom_ssl.training.request import checked_splits
from aitom_ssl.training.run import RunFolder
from aitom_ssl.training.settings import augmentation_words

BETAS = 0.5, 0.999


def run_cosnet(
    settings: Mapping[str, Any], output: str | None = None, resume: bool = False, command: str = ""
) -> RunFolder:
    """One experiment: prepare the data, train, measure on validation samples, write model.keras and the report.

    The network of the last epoch is kept. Adam with the code's betas, 0.5 and 0.999.

    settings: data, limit (or None), unseen (names with commas, or None; see `episodes.class_split`), epochs, steps (of
    an epoch), way, shots, episodes (of a step), readout, dice (see `losses.dice_loss`), filters, fusion ("add", "max"
    or "none"), decoder and skips (bool), learning_rate, schedule ("constant" or "cosine", which falls to 0 at the last
    step), augmentation, seed, precision.
    output, resume, command: as for every run, see `training.loop.experiment`.

    Raises:
        InputError: on data or settings that cannot be used. KeyboardInterrupt carries how to go on.
    """
    splits = checked_splits({**settings, "batch_size": 1}, output, resume)
    plan = training_plan(splits, settings)
    train = splits["train"]
    description = ModelDescription(METHOD, (), train.size, train.voxel_size, train.contrast)
    with numerics(settings["precision"], settings["seed"]):
        # Built before the folder is: what cannot be built leaves none behind.
        network = COSNet((train.size,) * 3 + (1,), **network_settings(settings))
        model = _compiled(network, settings)
        with experiment(METHOD, settings, splits, description, output, resume, command) as run:
            run.write_config({**run.read_config(), "classes": list(plan.classes)})
            _train_and_report(model, plan, description, run, settings, command)
    return run


def _compiled(network: keras.Model, settings: Mapping[str, Any]) -> OneShotModel:
    preset, options = augmentation_words(settings["augmentation"])
    augmenter = SubtomogramAugmenter(preset, **options) if preset != "none" or options else None
    names = ("episodes", "way", "shots", "readout", "dice", "seed")
    model = OneShotModel(network, augmenter, **{name: settings[name] for name in names})
    model.compile(optimizer(settings), jit_compile=networks_on_xla())
    return model


def optimizer(settings: Mapping[str, Any]) -> keras.optimizers.Optimizer:
    """Adam with the code's betas. settings: learning_rate, schedule, epochs and steps, as for `run_cosnet`."""
    rate: Any = settings["learning_rate"]
    if settings["schedule"] == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, settings["epochs"] * settings["steps"])
    return keras.optimizers.Adam(rate, *BETAS)


def _train_and_report(
    model: OneShotModel,
    plan: TrainingPlan,
    description: ModelDescription,
    run: RunFolder,
    settings: Mapping[str, Any],
    command: str,
) -> None:
    start = restore(model, run)
    steps, epochs = settings["steps"], settings["epochs"]
    if start.epoch < epochs:
        print(
            f"COS-Net of {settings['filters']} filters on {plan.train.name}: {len(plan.classes)} classes, "
            f"{settings['episodes']} {settings['way']}-way-{settings['shots']}-shot episodes a step, {steps} steps an "
            f"epoch, epochs {start.epoch + 1} to {epochs}, into {run.path}",
            flush=True,
        )
    trained = TrainedCOSNet(run.path / "model.keras", description, model.network, plan.classes)
    monitors = [ValidationMonitor(trained, plan, settings["seed"])] if plan.validation is not None else []
    batches = episode_batches(plan, settings["episodes"], start.epoch * steps)
    done = fit(model, batches, run, start, epochs, steps, monitors)
    run.save_model(model.network)
    final = validate(trained, plan, settings["seed"]) if plan.validation is not None else None
    run.write_results(
        {
            "data": settings["data"],
            "classes": list(plan.classes),
            "seed": settings["seed"],
            "epochs": done.epoch,
            "seconds": done.seconds,
            "weights": model.network.count_params(),
            **({} if final is None else final.to_dict()),
        }
    )
    report = write_training_report(run.path / "report.html", trained, plan, done, final, settings, command)
    if final is not None:
        print(f"\n{final.text()}")
    print(f"network  {run.path / 'model.keras'}\nreport   {report}")


def episode_batches(plan: TrainingPlan, episodes: int, first: int) -> Iterator[tuple[tuple[np.ndarray, np.ndarray]]]:
    """((volumes, masks),) of training step `first` and on, for ever, as `OneShotModel` takes them.

    Step k is episodes k * `episodes` and on. Without masks in the data, for networks without a decoder, they are zeros.
    """
    step = first
    while True:
        rows = arranged([plan.episodes(step * episodes + number) for number in range(episodes)])
        volumes = gather(plan.train, rows)
        masks = plan.train.masks(rows)[..., None] if plan.train.has_masks else np.zeros(volumes.shape, np.uint8)
        yield ((volumes, masks),)
        step += 1
