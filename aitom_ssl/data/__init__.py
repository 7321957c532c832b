"""Datasets: specifications, shards on disk, building and loading.

`build` and `pipeline` (tf.data, the only one that imports TensorFlow) are modules, imported by their own names.
"""

from aitom_ssl.data.batches import numpy_batches, steps_per_epoch
from aitom_ssl.data.build import load, prepare
from aitom_ssl.data.dataset import Dataset
from aitom_ssl.data.shards import write_dataset
from aitom_ssl.data.spec import DatasetSpec, load_spec, spec_names

__all__ = [
    "Dataset",
    "DatasetSpec",
    "load",
    "load_spec",
    "numpy_batches",
    "prepare",
    "spec_names",
    "steps_per_epoch",
    "write_dataset",
]
