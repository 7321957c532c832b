"""How fast subtomograms come off the disk, and what reading a large dataset costs in memory.

    python -m benchmarks.input_pipeline [--samples=100000] [--side=32] [--batch_size=16]

The dataset is one shard of random volumes, linked under many names: it takes the disk space of one shard and is read
through the same code, file by file, as a real one. Everything is in the page cache, so the figures are of the reader
and not of the disk. For scale, the same volumes as TFRecord and as one MRC file each. Peak memory is of the process,
after reading the whole dataset and after training on it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import mrcfile
import numpy as np

from aitom_ssl.data import shards
from aitom_ssl.data.batches import numpy_batches
from aitom_ssl.data.dataset import Dataset
from aitom_ssl.data.header import make_header, write_header
from benchmarks import heading

SECONDS = 4.0
STEPS = 30
PEERS = 1024


def synthetic_dataset(folder: Path, samples: int, side: int) -> Dataset:
    """A dataset of `samples` volumes, rounded up to whole shards, in the disk space of one shard."""
    rng = np.random.default_rng(0)
    shard = ({"volume": rng.standard_normal([side] * 3, np.float32), "label": i % 10} for i in range(shards.SHARD_SIZE))
    entry = shards.write_shard(folder, "train", 0, shard)
    count = -(-samples // shards.SHARD_SIZE)
    for number in range(1, count):
        for name in (shards.volumes_file, shards.labels_file):
            os.link(name(folder, "train", 0), name(folder, "train", number))
    header = make_header("synthetic", list("abcdefghij"), 10.0, "bright", side, "float16", True)
    header["splits"] = {"train": {"count": count * shards.SHARD_SIZE, "shards": [entry] * count}}
    write_header(folder, header)
    return Dataset(folder)


def rate(batches: Iterator, batch_size: int) -> float:
    """Volumes per second over about SECONDS, after ten batches of warming up."""
    for _ in itertools.islice(batches, 10):
        pass
    start, count = time.perf_counter(), 0
    for _ in batches:
        count += batch_size
        if (passed := time.perf_counter() - start) > SECONDS:
            break
    return count / passed


def tfrecord_batches(folder: Path, dataset: Dataset, batch_size: int) -> Iterator:
    import tensorflow as tf

    path, shape = str(folder / "volumes.tfrecord"), (dataset.size,) * 3
    with tf.io.TFRecordWriter(path) as writer:
        for i in range(PEERS):
            data = tf.train.BytesList(value=[dataset[i]["volume"].astype(np.float16).tobytes()])
            feature = {"volume": tf.train.Feature(bytes_list=data)}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())

    def parse(record):
        example = tf.io.parse_single_example(record, {"volume": tf.io.FixedLenFeature([], tf.string)})
        return tf.cast(tf.reshape(tf.io.decode_raw(example["volume"], tf.float16), shape), tf.float32)

    records = tf.data.TFRecordDataset(path).repeat().shuffle(256, seed=0)
    return iter(records.map(parse, num_parallel_calls=2).batch(batch_size).prefetch(4))


def mrc_batches(folder: Path, dataset: Dataset, batch_size: int) -> Iterator:
    paths = [folder / f"{i}.mrc" for i in range(PEERS)]
    for i, path in enumerate(paths):
        mrcfile.write(path, dataset[i]["volume"], voxel_size=dataset.voxel_size)
    rng = np.random.default_rng(0)
    while True:
        yield np.stack([mrcfile.read(paths[i]) for i in rng.integers(0, PEERS, batch_size)])


def peak_memory() -> float:
    """GB resident at most so far in this process."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9


def train(dataset: Dataset, batch_size: int) -> None:
    """MoCo steps of RB3D on the dataset, for what they add to the memory; the loop is train_moco's."""
    from aitom_ssl.augmentation import SubtomogramAugmenter
    from aitom_ssl.data.pipeline import training_batches
    from aitom_ssl.models import RB3D
    from aitom_ssl.ssl import MoCo

    encoder = RB3D((dataset.size,) * 3 + (1,), include_top=False, pooling="avg")
    method = MoCo(encoder, SubtomogramAugmenter("recommended"))
    method.compile(optimizer="adam")
    method.fit(training_batches(dataset, batch_size, 0), steps_per_epoch=STEPS, verbose=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=16)
    options = parser.parse_args()

    from aitom_ssl.data.pipeline import evaluation_batches, training_batches

    folder = Path(tempfile.mkdtemp(prefix="aitom_ssl_input_"))
    try:
        dataset, size = synthetic_dataset(folder / "dataset", options.samples, options.side), options.batch_size
        before = peak_memory()
        start = time.perf_counter()
        for _ in evaluation_batches(dataset, 256):
            pass
        whole = len(dataset) / (time.perf_counter() - start)
        rows = [
            ("tf.data, shuffled (training_batches)", rate(iter(training_batches(dataset, size, 0)), size)),
            ("NumPy, shuffled (numpy_batches), one thread", rate(numpy_batches(dataset, size, 0), size)),
            (f"tf.data, in order, batches of 256, all {len(dataset):,}", whole),
        ]
        after = peak_memory()
        train(dataset, size)
        trained = peak_memory()
        peers = [
            ("peer: TFRecord through tf.data, shuffle buffer of 256", tfrecord_batches(folder, dataset, size)),
            ("peer: one MRC file each, mrcfile, one thread", mrc_batches(folder, dataset, size)),
        ]
        rows += [(name, rate(batches, size)) for name, batches in peers]
    finally:
        shutil.rmtree(folder)
    ours = rows[0][1]
    print(heading("numpy", "tensorflow", "mrcfile"))
    print(f"{len(dataset):,} float16 volumes of {options.side}^3, batches of {size}\n")
    print("| reader | volumes/s | training_batches is |\n|---|---:|---:|")
    for name, value in rows:
        print(f"| {name} | {value:,.0f} | {ours / value:.1f} x |")
    data = len(dataset) * options.side**3 * 2 / 1e9
    print(f"\nPeak resident memory: {before:.2f} GB at the start, {after:.2f} GB after reading {data:.1f} GB of data,")
    print(f"{trained:.2f} GB after {STEPS} MoCo steps on them (RB3D, float32, batches of {size}).")


if __name__ == "__main__":
    main()
