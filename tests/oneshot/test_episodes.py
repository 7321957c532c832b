"""Episodes: which samples, drawn how; and that no class is on both sides of training and test."""

import numpy as np
import pytest

from aitom_ssl.data import Dataset
from aitom_ssl.errors import InputError
from aitom_ssl.oneshot import Episodes
from aitom_ssl.oneshot.episodes import class_split, labels_of

LABELS = np.array([0, 1, 2, 3, -1] * 5 + [0] * 50 + [4])


def test_an_episode_is_what_it_says():
    episodes = Episodes(LABELS, way=3, shots=2, targets=2, seed=1)
    for number in range(50):
        episode = episodes(number)
        assert episode.support.shape == episode.targets.shape == (3, 2)
        assert len(set(episode.classes)) == 3
        np.testing.assert_array_equal(LABELS[episode.support], np.repeat(episode.classes[:, None], 2, axis=1))
        np.testing.assert_array_equal(LABELS[episode.targets], np.repeat(episode.classes[:, None], 2, axis=1))
        drawn = np.concatenate([episode.support.ravel(), episode.targets.ravel()])
        assert len(set(drawn)) == 12


def test_an_episode_is_a_function_of_seed_and_number():
    first, again, other = (Episodes(LABELS, 2, seed=seed) for seed in (3, 3, 4))
    for number in (7, 0, 7):
        for a, b in zip(first(number), again(number), strict=True):
            np.testing.assert_array_equal(a, b)
    drawn = lambda episodes: np.concatenate([episodes(n).support.ravel() for n in range(20)])  # noqa: E731
    assert (drawn(first) != drawn(other)).any()
    assert len({tuple(first(n).support.ravel()) for n in range(40)}) > 20


def test_classes_are_as_likely_however_many_samples_they_have():
    """Class 0 has eleven times the samples of the others; class 4 has one, and -1 is no class."""
    episodes = Episodes(LABELS, way=2)
    assert episodes.classes == (0, 1, 2, 3)
    counts = np.bincount(np.concatenate([episodes(n).classes for n in range(2000)]), minlength=5)
    assert counts[4] == 0
    # 1,000 expected each; standard deviation 22.
    assert np.abs(counts[:4] - 1000).max() < 110


def test_other_classes_are_never_drawn():
    episodes = Episodes(LABELS, way=2, classes=[1, 3])
    assert {label for n in range(50) for label in episodes(n).classes} == {1, 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"way": 5}, "needs 5 classes of 2 samples or more, and there are 4"),
        ({"way": 2, "shots": 30, "targets": 25}, "there are 1"),
        ({"way": 2, "classes": [4, 1]}, "there are 1"),
        ({"way": 1}, "way=1"),
        ({"way": 2, "shots": 0}, "shots=0"),
        ({"way": 2, "targets": 1.5}, "targets=1.5"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(InputError, match=message) as error:
        Episodes(LABELS, **options)
    assert "\n" not in str(error.value)


# === Which classes ===


def test_classes_of_the_test_alone_are_never_trained_on(splits):
    assert class_split(splits) == (["a", "b", "c", "d"], ["e", "f"])
    assert class_split(splits, ["b", "e"]) == (["a", "c", "d"], ["b", "e"])
    assert class_split({"train": splits["train"]}) == (["a", "b", "c", "d"], [])


def test_shared_classes_must_be_named(maskless):
    splits = {split: Dataset(maskless, split) for split in ("train", "test")}
    with pytest.raises(InputError, match=r"Every class of the test split of maskless.*--unseen=e,f"):
        class_split(splits)
    names, kept = class_split(splits, ["e", "f"])
    assert not set(names) & set(kept) and set(names) | set(kept) == set("abcdef")
    with pytest.raises(InputError, match="no class 'g' to keep out"):
        class_split(splits, ["g"])


def test_labels_of_names(splits):
    assert labels_of(splits["train"], ["c", "unheard of", "a"]) == [2, 0]
