"""What a classifier is given: its box, its contrast, standardised, in order, some of it ahead."""

import threading

import numpy as np
import pytest

from aitom_ssl.data.batches import standardize
from aitom_ssl.data.sources import Source, fit_box
from aitom_ssl.errors import InputError
from aitom_ssl.export.feed import Feed, ahead

RAW = np.random.default_rng(3).normal(5, 2, (6, 8, 8, 8)).astype(np.float32)


def source_of(volumes, contrast="bright", stored_contrast=False, standardized=False, damaged=()):
    def read(indices):
        for i in indices:
            if i in damaged:
                raise InputError(f"particle {i} is damaged.")
        return volumes[indices].copy()

    return Source(
        size=volumes.shape[1],
        voxel_size=10.0,
        contrast=contrast,
        stored_contrast=stored_contrast,
        standardized=standardized,
        class_names=[],
        labels=np.full(len(volumes), -1),
        read=read,
        describe=str,
        columns={},
        star_columns={},
        identity={},
    )


ALL = np.arange(6)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    ("files", "model", "turned"),
    [
        ("bright", "bright", False),
        ("dark", "bright", True),
        ("bright", "dark", True),
        ("dark", "dark", False),
        ("bright", None, False),
        ("dark", None, True),
    ],
)
def test_files_take_the_contrast_of_the_model_and_datasets_keep_theirs(files, model, turned, stored):
    batch = Feed(source_of(RAW, files, stored), 8, model, False).batch(ALL)
    sign = -1 if turned and not stored else 1
    np.testing.assert_array_equal(batch.volumes, standardize(sign * RAW))


def test_standardised_volumes_are_left_alone_unless_their_box_changes():
    given = standardize(RAW.copy())
    source = source_of(given, standardized=True)
    np.testing.assert_array_equal(Feed(source, 8, "bright", False).batch(ALL).volumes, given)
    for size in (6, 10):
        found = Feed(source, size, "bright", False).batch(ALL).volumes
        np.testing.assert_array_equal(found, standardize(fit_box(given, size).copy()))


def test_damaged_particles_stop_it_or_are_left_out():
    source = source_of(RAW, damaged=(1, 4))
    with pytest.raises(InputError, match="particle 1 is damaged"):
        Feed(source, 8, "bright", False).batch(ALL)
    batch = Feed(source, 8, "bright", True).batch(ALL)
    assert batch.asked == 6 and batch.indices.tolist() == [0, 2, 3, 5]
    np.testing.assert_array_equal(batch.volumes, standardize(RAW[[0, 2, 3, 5]]))
    assert batch.left_out == ["particle 1 is damaged.", "particle 4 is damaged."]
    assert len(Feed(source, 8, "bright", True).batch(np.array([1])).volumes) == 0


@pytest.mark.parametrize("model", ["bright", "dark"])
@pytest.mark.parametrize(("said", "mend"), [("bright", "give --invert_contrast"), ("dark", "leave --invert_contrast")])
def test_a_contrast_that_the_volumes_contradict_is_noted(model, said, mend):
    blob = np.zeros((8, 8, 8))
    blob[2:6, 2:6, 2:6] = 1 if said == "dark" else -1  # the opposite of what is said
    noisy = (blob + 0.1 * np.random.default_rng(0).normal(size=(20, 8, 8, 8))).astype(np.float32)
    feed, right = Feed(source_of(noisy, said), 8, model, False), Feed(source_of(-noisy, said), 8, model, False)
    for one in (feed, right):
        one.batch(np.arange(20))
    assert mend in feed.notes()[0] and right.notes() == []


def test_ahead_keeps_order_and_bounds_what_it_holds():
    made, largest, lock = [0], [0], threading.Lock()

    def make(item):
        with lock:
            made[0] += 1
        return item * item

    for taken, value in enumerate(ahead(make, iter(range(50)), 3)):
        assert value == taken * taken
        largest[0] = max(largest[0], made[0] - taken)
    assert made[0] == 50 and largest[0] <= 5


def test_ahead_raises_in_its_place_and_stops_reading():
    def fail(item):
        if item == 5:
            raise InputError("five")
        return item

    taken = []
    with pytest.raises(InputError, match="five"):
        for value in ahead(fail, iter(range(100))):
            taken.append(value)
    assert taken == [0, 1, 2, 3, 4]
    before = threading.active_count()
    stream = ahead(lambda item: item, iter(range(100)))
    next(stream)
    stream.close()
    assert threading.active_count() == before
