"""A dataset of 23 little volumes, in shards of 8."""

import numpy as np

from aitom_ssl.data.shards import write_dataset

SIZE, COUNT = 6, 23


def make_samples(count=COUNT, size=SIZE, masks=False, halves=False):
    rng = np.random.default_rng(0)
    for index in range(count):
        sample = {
            "volume": rng.standard_normal((size, size, size)).astype(np.float32),
            "label": index % 3,
            "quaternion": rng.standard_normal(4),
            "index": index,
        }
        if masks:
            sample["mask"] = (sample["volume"] > 0.5).astype(np.uint8)
        if halves:
            sample["half"] = sample["volume"] + rng.standard_normal((size, size, size)).astype(np.float32)
        yield sample


def make(folder, dtype="float32", splits=None, **options):
    splits = splits or {"train": make_samples()}
    return write_dataset(folder, "toy", ["a", "b", "c"], 10.0, "bright", splits, {"answer": 42}, dtype=dtype, **options)


def with_halves(folder, count=COUNT, **options):
    return make(folder, splits={"train": make_samples(count, halves=True)}, **options)


def without(sample, key):
    return {name: value for name, value in sample.items() if name != key}
