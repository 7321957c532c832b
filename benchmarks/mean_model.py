"""What EMA's deviation says about a sample, by how low the learning rate ends and how far back the mean model reaches.

    python -m benchmarks.mean_model [--data=sim_snr005] [--labels=100] [--steps=2000] [--rates=0,0.2,1]
                                    [--alphas=0.9,0.99,0.999] [--seed=0]

A network learns from the first labels of active_learning (--preset=crowded but the paper's lambda, rb3d, bfloat16)
once for each final learning rate, a share of the first, with a mean model of each alpha beside it. Of the samples that
it has not seen:

    accuracy  of the task model, or of the mean model
    AUROC     of the score: a sample that the task model gets wrong has a higher one than a sample that it gets right
    right     share of the samples asked for, the highest scores, as many as there are labels, that it gets right
    classes   exp(entropy) of the true classes among those: how many there are, in effect
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import heading


def row(name: str, accuracy: float | None, scores: np.ndarray, guess: np.ndarray, truth: np.ndarray, count: int) -> str:
    from sklearn.metrics import roc_auc_score

    asked = np.argsort(-scores, kind="stable")[:count]
    share = np.bincount(truth[asked]) / count
    classes = np.exp(-(share[share > 0] * np.log(share[share > 0])).sum())
    area = roc_auc_score(guess != truth, scores)
    own = "" if accuracy is None else f"{accuracy:.3f}"
    return f"{name:<28}{own:>9}{area:>8.2f}{np.mean(guess[asked] == truth[asked]):>8.2f}{classes:>9.1f}"


def train(options: argparse.Namespace, rate: float, folder: Path) -> tuple[Any, Any, np.ndarray]:
    """Network, its trainer, and the samples it was not trained on; as in the first cycle of active_learning."""
    import keras

    from aitom_ssl import models
    from aitom_ssl.active.loop import cycle_seed
    from aitom_ssl.active.mean_teacher import MeanTeacher, follow, follower, ramped
    from aitom_ssl.active.pool import first_choice
    from aitom_ssl.cli import active_learning
    from aitom_ssl.data import load, steps_per_epoch
    from aitom_ssl.data.batches import epochs_with
    from aitom_ssl.training import RunFolder
    from aitom_ssl.training.feature_statistics import FeatureStatistics
    from aitom_ssl.training.finetuning import optimizer, with_head
    from aitom_ssl.training.loop import numerics
    from aitom_ssl.training.request import Labelled
    from aitom_ssl.training.supervised import train_classifier

    class WithManyMeans(MeanTeacher):
        """Beside M, which takes part in the loss, one that only follows for each alpha."""

        def __init__(self, network: keras.Model, *rest: Any):
            super().__init__(network, *rest, alpha=0.99, ramp=True, mean_init="copy")
            self.followers = {alpha: follower(network, "copy") for alpha in options.alphas}

        @property
        def networks(self) -> tuple[keras.Model, ...]:
            return (self.network, *self.followers.values())

        def update_mean(self) -> None:
            super().update_mean()
            for alpha, mean in self.followers.items():
                follow(mean, self.network, ramped(alpha, self.step.value))

    flags = {"data": options.data, "preset": "crowded", "model": "rb3d", "batch_size": 16, "final_rate": rate}
    settings = active_learning.RECIPE.new(active_learning.Options(**flags, precision="mixed_bfloat16"))
    samples = load(options.data, "train")
    chosen = first_choice(np.arange(len(samples)), options.labels, options.seed)
    labelled = samples.subset(np.sort(chosen))
    seed = cycle_seed(options.seed, 1)
    epochs = epochs_with(labelled, settings["batch_size"], settings["epochs"], options.steps)
    settings |= {"seed": seed, "epochs": epochs}
    with numerics(settings["precision"], seed):
        shape = (samples.size,) * 3 + (1,)
        encoder = models.get("rb3d")(shape, include_top=False, pooling="avg", field=settings["field"])
        encoder = models.standardized(encoder)
        FeatureStatistics(encoder, samples, seed).measure()
        network, made = with_head(encoder, None, len(samples.class_names)), []

        def trainer(*parts: Any) -> MeanTeacher:
            made.append(WithManyMeans(*parts))
            return made[0]

        descent = optimizer(settings, epochs * steps_per_epoch(labelled, settings["batch_size"]), rate)
        data = Labelled(labelled, None, labelled, "", (), samples)
        train_classifier(network, descent, data, RunFolder(folder), settings, trainer)
    return network, made[0], np.setdiff1d(np.arange(len(samples)), chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sim_snr005")
    for name, value in {"labels": 100, "steps": 2000, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, values in {"rates": "0,0.2,1", "alphas": "0.9,0.99,0.999"}.items():
        parser.add_argument(f"--{name}", type=lambda text: [float(word) for word in text.split(",")], default=values)
    options = parser.parse_args()

    from aitom_ssl.training.quiet import import_keras_quietly

    import_keras_quietly()
    from aitom_ssl.active.mean_teacher import kl_divergence
    from aitom_ssl.active.uncertainty import entropy, margin
    from aitom_ssl.data import load
    from aitom_ssl.evaluation.probes import extract_features

    lines = [f"{'score':<28}{'accuracy':>9}{'AUROC':>8}{'right':>8}{'classes':>9}"]
    for rate in options.rates:
        with tempfile.TemporaryDirectory() as folder:
            network, trainer, rest = train(options, rate, Path(folder))
        pool = load(options.data, "train").subset(rest)
        truth, found = pool.labels, extract_features(network, pool)
        guess, logs = found.argmax(axis=1), np.log(np.maximum(found, 1e-30))
        about = (guess, truth, options.labels)
        lines += ["", f"final learning rate {rate:g} of the first"]
        random = np.random.default_rng(options.seed).random(len(pool))
        lines.append(row("random", float((guess == truth).mean()), random, *about))
        lines += [row(name, None, score(found), *about) for name, score in (("margin", margin), ("entropy", entropy))]
        for alpha, mean in trainer.followers.items():
            means = extract_features(mean, pool)
            right = float((means.argmax(axis=1) == truth).mean())
            deviation = kl_divergence(logs, np.log(np.maximum(means, 1e-30)))
            lines.append(row(f"deviation, alpha {alpha:g}", right, deviation, *about))
    print(f"\n{heading('numpy', 'tensorflow', 'keras')}")
    print(f"{options.data}, {options.labels} labels, {options.steps} steps, seed {options.seed}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
