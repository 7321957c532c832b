"""Train COS-Net to classify and segment particles of classes it has never seen, from one example each.

    aitom-ssl train_cosnet --data=cosnet_snr05
    aitom-ssl train_cosnet --data=cosnet_snr05 --fusion=none --decoder=false
    aitom-ssl train_cosnet --data=my_particles/ --unseen=ribosome,proteasome --decoder=false --output=runs/mine
    aitom-ssl train_cosnet --resume --output=runs/mine

The data need labels, and for the volume decoder masks. Classes that only the test split has are never trained on, and
neither are those of --unseen; evaluate_oneshot measures on them. The run's folder gets config.yaml, metrics.csv,
TensorBoard events, checkpoints, model.keras (the network of the last epoch), results.json and report.html.

--preset=cpu is a narrow network with skip connections for two cores, trained in minutes on volumes in half turns, which
leave the missing wedge where it is; paper has the published width and the published code's optimizer, batches and
length, which is a GPU's work.
--fusion=none leaves out the DuSE blocks and --decoder=false the volume decoder: the paper's ablation. To choose
settings, name some training classes in --unseen: validation is then on those, and the test classes stay untouched.
"""

from __future__ import annotations

import dataclasses

from aitom_ssl.cli.common import parse
from aitom_ssl.cli.training_flags import training_flags
from aitom_ssl.training.settings import AT_LEAST_1, RANGES, Recipe

AT_LEAST_2 = (lambda v: v >= 2, "2 or more")

RECIPE = Recipe(
    command="train_cosnet",
    methods=("cosnet",),
    common={
        "unseen": None,
        "shots": 1,
        "fusion": "add",
        "decoder": True,
        "limit": None,
        "seed": 0,
    },
    presets={
        "cpu": {
            "filters": 8,
            "skips": True,
            "epochs": 15,
            "steps": 100,
            "way": 8,
            "episodes": 1,
            "readout": "sigmoid",
            "dice": "volume",
            "learning_rate": 2e-3,
            "schedule": "cosine",
            "augmentation": "none,rotation=half_turns",
            "precision": "mixed_bfloat16",
        },
        "paper": {
            "filters": 64,
            "skips": False,
            "epochs": 40,
            "steps": 1000,
            "way": 2,
            "episodes": 6,
            "readout": "softmax",
            "dice": "batch",
            "learning_rate": 1e-4,
            "schedule": "constant",
            "augmentation": "none",
            "precision": "float32",
        },
    },
    smoke={"data": "cosnet_snrinf", "filters": 2, "epochs": 2, "steps": 3, "way": 4, "episodes": 1, "limit": 56},
    ranges={
        **{name: RANGES[name] for name in ("epochs", "learning_rate", "limit", "seed")},
        "steps": AT_LEAST_1,
        "shots": AT_LEAST_1,
        "episodes": AT_LEAST_1,
        "way": AT_LEAST_2,
        "filters": AT_LEAST_2,
    },
    renewable=(),
)
_flag = training_flags(RECIPE, folder="cosnet")


@dataclasses.dataclass
class Options:
    data: str | None = _flag("data")
    output: str | None = _flag("output")
    preset: str | None = _flag("preset")
    unseen: str | None = _flag(
        "unseen",
        "Classes to keep out of training, with commas. Those that only the test split has are kept out anyway.",
    )
    filters: int | None = _flag("filters", "Width of the network.")
    fusion: str | None = _flag(
        "fusion",
        "How the DuSE blocks join their branches: add as the paper, max as its code; none leaves the blocks out.",
        ("add", "max", "none"),
    )
    decoder: bool | None = _flag("decoder", "Whether there is a volume decoder, which gives masks.")
    skips: bool | None = _flag(
        "skips",
        "Whether the decoder also sees the encoder's larger maps, which narrow networks need for fine masks; the "
        "paper's does not.",
    )
    epochs: int | None = _flag("epochs", "Of --steps steps each.")
    steps: int | None = _flag("steps", "Steps an epoch.")
    way: int | None = _flag("way", "Classes of a training episode; the network can be used with any number.")
    shots: int | None = _flag("shots", "Support samples of a class.")
    episodes: int | None = _flag("episodes", "Episodes a step.")
    readout: str | None = _flag(
        "readout",
        "What the loss takes for the probability of a match: softmax over the support classes, as the paper, or a "
        "sigmoid of each pair, as its code; only that one can say that a particle is none of these.",
        ("softmax", "sigmoid"),
    )
    dice: str | None = _flag(
        "dice",
        "What the Dice loss is taken over: the batch, as the paper's code, where large particles count most; or each "
        "volume, where all count alike.",
        ("batch", "volume"),
    )
    learning_rate: float | None = _flag("learning_rate", "Of Adam at the first step.")
    schedule: str | None = _flag(
        "schedule", "Whether the learning rate stays, or falls to 0 along a cosine.", ("constant", "cosine")
    )
    augmentation: str | None = _flag("augmentation")
    limit: int | None = _flag("limit")
    seed: int | None = _flag("seed", "Of weights, episodes and augmentation.")
    precision: str | None = _flag("precision")
    resume: bool = _flag("resume")
    smoke: bool = _flag("smoke")


def run(options: Options) -> None:
    settings, output = RECIPE.asked(options, parse)

    from aitom_ssl.oneshot.plan import training_plan
    from aitom_ssl.training.quiet import import_keras_quietly
    from aitom_ssl.training.request import checked_splits

    # A mistake is answered, and missing data are simulated, before TensorFlow is loaded.
    training_plan(checked_splits({**settings, "batch_size": 1}, output, options.resume), settings)
    import_keras_quietly()

    from aitom_ssl.oneshot.training import run_cosnet

    run_cosnet(settings, output, options.resume, RECIPE.command_line(settings))
