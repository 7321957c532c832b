"""What a training is made of: only training classes in it, and validation on unseen ones where there are any."""

import numpy as np
import pytest

from aitom_ssl.data import Dataset
from aitom_ssl.errors import InputError
from aitom_ssl.oneshot.plan import training_plan


def names_in(dataset):
    return {dataset.class_names[label] for label in dataset.labels}


def test_the_test_split_is_never_in_it(splits, settings):
    plan = training_plan(splits, settings)
    assert plan.classes == ("a", "b", "c", "d") and names_in(plan.train) == set("abcd")
    assert len(plan.train) == 24 and plan.train.split == "train" and plan.validation.split == "validation"
    drawn = np.concatenate([plan.episodes(n).classes for n in range(50)])
    assert set(drawn) == {0, 1, 2, 3}
    assert (plan.validation_unseen, plan.validation_ways) == (False, (2, 4))


def test_classes_kept_out_are_what_validation_is_on(splits, settings):
    plan = training_plan(splits, {**settings, "unseen": "a,d"})
    assert names_in(plan.train) == {"b", "c"} and names_in(plan.validation) == {"a", "d"}
    assert plan.validation_unseen and plan.validation_ways == (2,)
    drawn = np.concatenate([plan.episodes(n).classes for n in range(50)])
    assert set(drawn) == {1, 2}


def test_one_class_kept_out_is_too_few_to_validate_on(splits, settings):
    plan = training_plan(splits, {**settings, "unseen": "d"})
    assert not plan.validation_unseen and names_in(plan.validation) == {"a", "b", "c"}


def test_without_a_validation_split_there_is_none(splits, settings):
    del splits["validation"]
    assert training_plan(splits, settings).validation is None


def test_masks_are_needed_for_the_decoder_alone(maskless, settings):
    splits = {split: Dataset(maskless, split) for split in ("train", "validation", "test")}
    asked = {**settings, "unseen": "e,f"}
    with pytest.raises(InputError, match=r"maskless has no masks.*--decoder=false"):
        training_plan(splits, asked)
    assert training_plan(splits, {**asked, "decoder": False}).classes == ("a", "b", "c", "d")


def test_too_few_classes(splits, settings):
    with pytest.raises(InputError, match="needs 5 classes of 2 samples or more, and there are 4"):
        training_plan(splits, {**settings, "way": 5})
