"""Features of subtomograms from any trained model, with pictures, clusters, and what a few labels make of them.

    aitom-ssl embed --run=runs/moco-sim_demo --data=sim_demo --split=test --output=embedding
    aitom-ssl embed --run=runs/moco-mine --data=folder_of_mrc/ --clusters=8 --output=embedding
    aitom-ssl embed --run=runs/moco-mine --data=picks.star --tomogram=tomogram.mrc --invert_contrast --output=embedding

--run takes an encoder (train_moco, train_simclr, train_swav), a classifier (its features are what the last layer sees),
or a SavedModel of either. --data is that of predict; in a folder of MRC files every sub-folder is a class.

The output folder gets features.npy (a row a particle), samples.csv (what each is called, and its class), tsne.png,
pca.png, clusters.csv (k-means), report.html, results.json, and files for TensorBoard's embedding projector:
tensorboard --logdir=embedding/projector. With labels, clusters are compared with classes, and label spreading, kNN and
a linear probe are measured with a few labels a class.
"""

from __future__ import annotations

import dataclasses

from aitom_ssl.cli import predict
from aitom_ssl.cli.common import flag
from aitom_ssl.errors import InputError


@dataclasses.dataclass
class Options(predict.Shared):
    split: str | None = flag(
        None, "Split of a dataset. Default: all of them.", choices=("train", "validation", "test")
    )
    label_column: str | None = flag(None, "Column of a STAR file whose values are classes.")
    clusters: int | None = flag(None, "Clusters of k-means. Default: one a class; without labels there are none.")
    labels_per_class: str | None = flag(
        None, "Labels a class to give, numbers with commas. Default: those of 5,10,20 that the smallest class allows."
    )
    seeds: int = flag(5, "Draws of these labels, from seeds 0, 1, ...")
    csv: bool = flag(False, "Write the features as text too, features.csv.")


def counts(text: str) -> list[int]:
    """'5,10' -> [5, 10]. InputError for what is no list of whole numbers of 1 or more."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise InputError(f"--labels_per_class={text}: expected whole numbers of 1 or more, as in 5,10,20.")
    return sorted({int(word) for word in words})


def run(options: Options) -> None:
    """Embed, and say what came of it."""
    predict.check(options)
    if options.clusters is not None and options.clusters < 2:
        raise InputError(f"--clusters={options.clusters}: expected 2 or more.")
    if options.seeds < 1:
        raise InputError(f"--seeds={options.seeds}: expected 1 or more.")
    labels_per_class = None if options.labels_per_class is None else counts(options.labels_per_class)

    from aitom_ssl.export.embedding import embed

    reading = predict.reading(options)
    shared = ("batch_size", "precision", "ignore_mismatch", "clusters", "seeds")
    found = embed(
        options.run,
        options.data,
        options.output,
        reading,
        labels_per_class=labels_per_class,
        as_csv=options.csv,
        command=predict.command("embed", options),
        **{name: getattr(options, name) for name in shared},
    )
    if found.scores is not None:
        scores = found.scores
        print(
            f"k-means, {len(found.cluster_sizes)} clusters: adjusted Rand index {scores.adjusted_rand:.3f}, normalised "
            f"mutual information {scores.mutual_information:.3f}, purity {scores.purity:.3f}, accuracy "
            f"{scores.accuracy:.3f}\n"
        )
    if found.few is not None:
        print(f"{found.few.table()}\n")
    for note in found.notes:
        print(f"note: {note}")
    count, width = found.features.shape
    print(f"{found.folder}/features.npy: {count:,} subtomograms, {width} features each")
    print(f"report  {found.folder}/report.html")
