"""Datasets: specifications, shards on disk, building and loading. `pipeline` (tf.data) is imported by its own name."""

from aitom_ssl.data.batches import numpy_batches, steps_per_epoch
from aitom_ssl.data.build import build, dataset_folder, load, prepare
from aitom_ssl.data.shards import Dataset, write_dataset
from aitom_ssl.data.spec import DatasetSpec, load_spec, spec_names

__all__ = [
    "Dataset",
    "DatasetSpec",
    "build",
    "dataset_folder",
    "load",
    "load_spec",
    "numpy_batches",
    "prepare",
    "spec_names",
    "steps_per_epoch",
    "write_dataset",
]
