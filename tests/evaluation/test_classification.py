"""Metrics of a classifier against scikit-learn's, closed forms, and what is no probability."""

import json

import numpy as np
import pytest
from sklearn import metrics as sk

from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.classification import (
    calibration_error,
    classification_metrics,
    confusion_matrix,
    log_loss,
    reliability_bins,
)

NAMES = ["a", "b", "c", "d"]


def predictions(count=300, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count)
    logits = rng.standard_normal((count, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, labels


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_learn(seed):
    probabilities, labels = predictions(seed=seed)
    found = classification_metrics(probabilities, labels, NAMES)
    guess = probabilities.argmax(axis=1)
    expected = sk.precision_recall_fscore_support(labels, guess)
    for ours, theirs in zip((found.precision, found.recall, found.f1, found.support), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.testing.assert_array_equal(found.confusion, sk.confusion_matrix(labels, guess))
    assert found.accuracy == pytest.approx(sk.accuracy_score(labels, guess))
    assert found.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, guess))
    assert found.macro_f1 == pytest.approx(sk.f1_score(labels, guess, average="macro"))
    assert found.log_loss == pytest.approx(sk.log_loss(labels, probabilities))
    assert found.samples == 300


def test_classes_that_do_not_occur_or_are_never_predicted():
    # "d" neither occurs nor is predicted; "c" occurs and is never predicted; "b" is predicted and never occurs.
    labels = np.array([0, 0, 0, 2])
    guess = np.array([0, 0, 1, 0])
    found = classification_metrics(0.7 * np.eye(4)[guess] + 0.075, labels, NAMES)
    options = {"zero_division": 0, "average": None, "labels": range(4)}
    np.testing.assert_allclose(found.precision, sk.precision_score(labels, guess, **options))
    np.testing.assert_allclose(found.recall, sk.recall_score(labels, guess, **options))
    np.testing.assert_allclose(found.f1, sk.f1_score(labels, guess, **options))
    assert found.macro_f1 == pytest.approx(sk.f1_score(labels, guess, average="macro", zero_division=0))
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 0) / 2)
    assert found.chance() == 0.75


def test_perfect_and_uniform_predictions():
    labels = np.repeat(np.arange(4), 5)
    perfect = classification_metrics(np.eye(4)[labels], labels, NAMES)
    assert (perfect.accuracy, perfect.macro_f1, perfect.log_loss, perfect.calibration_error) == (1, 1, 0, 0)
    uniform = classification_metrics(np.full((20, 4), 0.25), labels, NAMES)
    assert uniform.log_loss == pytest.approx(np.log(4))
    assert (uniform.accuracy, uniform.calibration_error) == (0.25, pytest.approx(0))  # the lower label, all of them
    np.testing.assert_array_equal(uniform.confusion[:, 0], [5, 5, 5, 5])


def test_a_certain_mistake_costs_a_finite_amount():
    assert log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-np.log(np.finfo(float).eps))


def test_calibration_error_in_closed_form():
    # 10 samples at 0.9, six right: off by 0.3. 30 at 0.6, eighteen right: not off.
    confidence = np.repeat([0.9, 0.6], [10, 30])
    right = np.concatenate([np.arange(10) < 6, np.arange(30) < 18])
    bins = reliability_bins(confidence, right, bins=10)
    assert calibration_error(bins) == pytest.approx(10 / 40 * 0.3)
    filled = [bin_ for bin_ in bins if bin_.count]
    assert [(bin_.count, bin_.confidence, bin_.accuracy) for bin_ in filled] == [
        (30, pytest.approx(0.6), 0.6),
        (10, pytest.approx(0.9), 0.6),
    ]


def test_bins_are_closed_above_and_hold_every_sample():
    bins = reliability_bins(np.array([0.0, 0.2, 0.2001, 1.0]), np.ones(4, bool), bins=5)
    assert [bin_.count for bin_ in bins] == [2, 1, 0, 0, 1]
    assert bins[0][:2] == (0, pytest.approx(0.2))


def test_confusion_has_truth_down():
    np.testing.assert_array_equal(confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 1]), 2), [[0, 2], [0, 1]])


def test_to_dict_is_json_and_complete():
    found = classification_metrics(*predictions(50), NAMES)
    values = json.loads(json.dumps(found.to_dict()))
    assert values["samples"] == 50
    assert values["classes"]["b"] == {
        "precision": found.precision[1], "recall": found.recall[1], "f1": found.f1[1], "support": found.support[1]
    }
    assert np.sum(values["confusion"]) == 50 and sum(row["count"] for row in values["reliability"]) == 50


def test_the_table_is_aligned_and_says_all():
    found = classification_metrics(*predictions(50), ["short", "a rather long name", "c", "d"])
    lines = found.table().splitlines()
    assert len({len(line) for line in lines[:8]}) == 1
    assert lines[3].startswith("a rather long name") and lines[3].split()[-1] == str(found.support[1])
    assert lines[7].startswith("mean of classes") and lines[7].endswith("50")
    assert f"accuracy {found.accuracy:.3f}" in lines[-1]


@pytest.mark.parametrize(
    ("probabilities", "labels", "said"),
    [
        (np.ones((2, 3)) / 3, [0, 1], r"are \(samples, 4\).* Received shape \(2, 3\)"),
        (np.ones((0, 4)), [], r"one sample or more"),
        (np.ones((2, 4)) / 4, [0], r"Expected 2 integer labels.*\(1,\)"),
        (np.ones((2, 4)) / 4, [0.0, 1.0], "integer labels"),
        (np.ones((2, 4)) / 4, [0, -1], "-1 to 0"),
        (np.ones((2, 4)) / 4, [0, 4], "0 to 4"),
        (np.full((2, 4), np.nan), [0, 1], "2 of 2 samples have NaN"),
        (np.array([[2.0, -1, 0, 0], [1, 0, 0, 0]]), [0, 1], "1 of 2 rows are no probabilities"),
        (np.ones((2, 4)), [0, 1], "not its logits"),
    ],
)
def test_what_cannot_be_measured_is_named(probabilities, labels, said):
    with pytest.raises(InputError, match=said) as error:
        classification_metrics(probabilities, np.array(labels), NAMES)
    assert "\n" not in str(error.value)
