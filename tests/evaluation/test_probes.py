import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aitom_ssl.errors import InputError
from aitom_ssl.evaluation import probes
from aitom_ssl.evaluation.probes import (
    extract_features,
    knn_accuracy,
    knn_predict,
    linear_probe,
    stratified_fraction,
)


class Volumes:
    """A dataset as far as feature extraction goes; remembers the largest read."""

    def __init__(self, volumes, standardized=True):
        self.array, self.standardized = volumes, standardized
        self.largest = 0

    def __len__(self):
        return len(self.array)

    def volumes(self, indices):
        self.largest = max(self.largest, len(indices))
        return self.array[indices]


def block_mean_encoder():
    inputs = keras.Input((8, 8, 8, 1))
    x = keras.layers.AveragePooling3D(4)(inputs)
    x = keras.layers.Dropout(0.5)(x)
    return keras.Model(inputs, keras.layers.Flatten()(x))


def blobs(rng, n_per_class, classes=3, dim=5, spread=0.3):
    centres = np.random.default_rng(99).normal(size=(classes, dim)) * 3
    labels = np.repeat(np.arange(classes), n_per_class)
    return centres[labels] + spread * rng.normal(size=(len(labels), dim)), labels


# === Features ===


@pytest.mark.parametrize("batch_size", [3, 7, 64])
def test_features_are_the_encoder_in_inference_mode_in_order(batch_size):
    volumes = np.random.default_rng(0).normal(size=(7, 8, 8, 8)).astype(np.float32)
    expected = volumes.reshape(7, 2, 4, 2, 4, 2, 4).mean(axis=(2, 4, 6)).reshape(7, 8)
    features = extract_features(block_mean_encoder(), volumes, batch_size)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_dataset_array_and_channel_axis_give_the_same_and_indices_pick():
    volumes = np.random.default_rng(1).normal(size=(6, 8, 8, 8)).astype(np.float32)
    encoder = block_mean_encoder()
    whole = extract_features(encoder, volumes, 4)
    np.testing.assert_array_equal(extract_features(encoder, volumes[..., None], 4), whole)
    np.testing.assert_array_equal(extract_features(encoder, Volumes(volumes), 4), whole)
    picked = extract_features(encoder, Volumes(volumes), 4, indices=[5, 0, 5])
    np.testing.assert_allclose(picked, whole[[5, 0, 5]], atol=1e-6)


def test_a_dataset_that_is_not_standardised_becomes_so_as_in_training():
    volumes = np.random.default_rng(1).normal(40, 7, size=(6, 8, 8, 8)).astype(np.float32)
    mean, std = volumes.mean(axis=(1, 2, 3), keepdims=True), volumes.std(axis=(1, 2, 3), keepdims=True)
    encoder = block_mean_encoder()
    found = extract_features(encoder, Volumes(volumes, standardized=False))
    np.testing.assert_allclose(found, extract_features(encoder, (volumes - mean) / std), atol=1e-5)


def test_volumes_are_read_a_batch_at_a_time():
    data = Volumes(np.zeros((50, 8, 8, 8), np.float32))
    extract_features(block_mean_encoder(), data, 8)
    assert data.largest == 8


def test_a_compiled_encoder_stays_as_it_was_compiled():
    encoder = block_mean_encoder()
    encoder.compile("sgd", "mse", jit_compile=True)
    optimizer = encoder.optimizer
    extract_features(encoder, np.zeros((2, 8, 8, 8), np.float32))
    assert encoder.optimizer is optimizer and encoder.loss == "mse" and encoder.jit_compile is True


def test_an_encoder_is_traced_once_for_sets_of_any_length():
    traces = []

    class Counted(keras.layers.Layer):
        def call(self, x):
            traces.append(x.shape)
            return keras.ops.mean(x, axis=(2, 3, 4))

    inputs = keras.Input((8, 8, 8, 1))
    encoder = keras.Model(inputs, Counted()(inputs))
    volumes = np.zeros((21, 8, 8, 8), np.float32)
    extract_features(encoder, volumes, 4)
    built = len(traces)
    for count in (21, 8, 6, 4):
        assert extract_features(encoder, volumes[:count], 4).shape == (count, 8)
    assert len(traces) == built


def test_features_follow_the_weights():
    inputs = keras.Input((8, 8, 8, 1))
    encoder = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(keras.layers.GlobalAveragePooling3D()(inputs)))
    volumes = np.ones((3, 8, 8, 8), np.float32)
    for weight in (2.0, 5.0):
        encoder.set_weights([np.array([[weight]])])
        np.testing.assert_allclose(extract_features(encoder, volumes), weight)


def test_an_encoder_with_maps_for_features_is_refused():
    inputs = keras.Input((8, 8, 8, 1))
    encoder = keras.Model(inputs, keras.layers.AveragePooling3D(4)(inputs))
    with pytest.raises(InputError, match="include_top=False"):
        extract_features(encoder, np.zeros((2, 8, 8, 8), np.float32))


def test_no_samples_is_said():
    with pytest.raises(InputError, match="empty"):
        extract_features(block_mean_encoder(), np.zeros((0, 8, 8, 8), np.float32))


def test_standardised_features_have_the_banks_statistics_removed():
    rng = np.random.default_rng(16)
    bank, queries = rng.normal(5, 3, size=(50, 4)), rng.normal(size=(7, 4))
    found, moved = probes.standardize_features(bank, queries)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.std(axis=0), 1)
    np.testing.assert_allclose(moved, (queries - bank.mean(axis=0)) / bank.std(axis=0))


@pytest.mark.parametrize("value", [0.0, 1e-20, 0.1, -1e6])
def test_a_feature_that_is_constant_but_for_rounding_becomes_zero(value):
    bank = np.full((9, 2), value, np.float32)
    bank[3, 0] = np.nextafter(np.float32(value), np.float32(np.inf))
    bank[:, 1] = np.arange(9)
    found, other = probes.standardize_features(bank, np.full((2, 2), 5.0))
    if value:
        np.testing.assert_array_equal(found[:, 0], 0)
    assert np.isfinite(found).all() and np.isfinite(other).all() and found[:, 1].std() == pytest.approx(1)


# === Nearest neighbours ===


def slow_knn(bank, labels, queries, k):
    mean = bank.mean(axis=0)
    answers = []
    for query in queries:
        cosine = [
            float((query - mean) @ (row - mean) / np.linalg.norm(query - mean) / np.linalg.norm(row - mean))
            for row in bank
        ]
        nearest = sorted(range(len(bank)), key=lambda i: -cosine[i])[:k]
        votes = {}
        for i in nearest:
            votes[labels[i]] = votes.get(labels[i], 0.0) + np.exp(cosine[i] / 0.1)
        answers.append(max(sorted(votes), key=votes.get))
    return np.array(answers)


@pytest.mark.parametrize("k", [1, 4, 11])
def test_knn_is_the_slow_vote(k):
    rng = np.random.default_rng(2)
    bank, labels = rng.normal(size=(40, 6)) + 5, rng.choice([2, 3, 7], 40)
    queries = rng.normal(size=(30, 6)) + 5
    np.testing.assert_array_equal(knn_predict(bank, labels, queries, k), slow_knn(bank, labels, queries, k))


def test_chunks_do_not_change_the_answer():
    rng = np.random.default_rng(3)
    bank, labels, queries = rng.normal(size=(40, 6)), rng.integers(0, 3, 40), rng.normal(size=(17, 6))
    whole = knn_predict(bank, labels, queries, 5)
    np.testing.assert_array_equal(knn_predict(bank, labels, queries, 5, chunk=4), whole)


def test_nearer_neighbours_outvote_more_numerous_far_ones():
    # One neighbour at cosine ~1 (vote e^0) against two at cosine ~0 (votes e^-10).
    bank = np.array([[1.0, 0], [0, 1], [0, 1], [-1, -2]])
    assert knn_predict(bank, np.array([0, 1, 1, 1]), np.array([[1.0, 0.0]]), 3) == 0


def test_default_k_is_the_samples_a_class_up_to_twenty(monkeypatch):
    seen = []
    real = np.argpartition
    monkeypatch.setattr(probes.np, "argpartition", lambda a, kth, axis: seen.append(kth + 1) or real(a, kth, axis))
    rng = np.random.default_rng(4)
    for per_class in (1, 6, 50):
        bank, labels = blobs(rng, per_class)
        knn_predict(bank, labels, bank[:2])
    assert seen == [1, 6, 20]


def test_a_shared_offset_does_not_hide_the_classes():
    rng = np.random.default_rng(5)
    bank, labels = blobs(rng, 20)
    queries, truth = blobs(rng, 20)
    assert knn_accuracy(bank, labels, queries, truth) == 1.0
    assert knn_accuracy(bank + 100.0, labels, queries + 100.0, truth) == 1.0


def test_random_features_are_at_chance():
    rng = np.random.default_rng(6)
    accuracy = knn_accuracy(
        rng.normal(size=(600, 8)), rng.integers(0, 4, 600), rng.normal(size=(2000, 8)), rng.integers(0, 4, 2000)
    )
    assert accuracy == pytest.approx(0.25, abs=0.04)


def test_a_class_that_the_bank_lacks_counts_as_wrong():
    bank, labels = blobs(np.random.default_rng(7), 10)
    assert knn_accuracy(bank[labels > 0], labels[labels > 0], bank, labels) == pytest.approx(2 / 3)


# === Linear probe ===


def test_separable_classes_are_separated_and_labels_keep_their_values():
    rng = np.random.default_rng(8)
    train, labels = blobs(rng, 20)
    test, truth = blobs(rng, 30)
    result = linear_probe(train, labels * 2 + 3, test, truth * 2 + 3)
    assert result.accuracy == 1.0
    assert set(result.predictions) == {3, 5, 7}


def test_accuracy_is_the_share_of_right_predictions():
    rng = np.random.default_rng(9)
    train, labels = blobs(rng, 20, spread=4.0)
    test, truth = blobs(rng, 100, spread=4.0)
    result = linear_probe(train, labels, test, truth)
    assert 1 / 3 < result.accuracy < 1
    assert result.accuracy == np.mean(result.predictions == truth)


def test_scale_and_offset_of_single_features_do_not_matter():
    rng = np.random.default_rng(10)
    train, labels = blobs(rng, 15, spread=3.0)
    test, truth = blobs(rng, 15, spread=3.0)
    scale, offset = np.array([1e-4, 1, 1e3, 7, 0.1]), np.array([0, 50, -3e4, 1, 9])
    plain = linear_probe(train, labels, test, truth)
    moved = linear_probe(train * scale + offset, labels, test * scale + offset, truth)
    np.testing.assert_array_equal(plain.predictions, moved.predictions)


def test_standardisation_knows_only_the_training_features():
    rng = np.random.default_rng(11)
    train, labels = blobs(rng, 15, spread=2.0)
    test, truth = blobs(rng, 15, spread=2.0)
    together = linear_probe(train, labels, test, truth, c=0.1).predictions
    alone = [linear_probe(train, labels, test[i : i + 1], truth[i : i + 1], c=0.1).predictions for i in range(45)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_the_penalty_is_chosen_from_training_labels_alone():
    rng = np.random.default_rng(12)
    train, labels = blobs(rng, 12, dim=40, spread=5.0)
    test, truth = blobs(rng, 10, dim=40, spread=5.0)
    first = linear_probe(train, labels, test, truth, seed=3)
    second = linear_probe(train, labels, test, (truth + 1) % 3, seed=3)
    assert first.c == second.c and first.c in probes.REGULARISATIONS
    np.testing.assert_array_equal(first.predictions, second.predictions)


def test_the_chosen_penalty_is_the_best_of_cross_validation():
    # Signal in 3 of 60 features and 30 samples a class: a weak penalty fits the 57 others.
    rng = np.random.default_rng(13)
    labels = np.repeat([0, 1, 2], 30)
    features = rng.normal(size=(90, 60)) + 1.2 * np.eye(3, 60)[labels]
    fresh_labels = np.repeat([0, 1, 2], 1000)
    fresh = rng.normal(size=(3000, 60)) + 1.2 * np.eye(3, 60)[fresh_labels]
    chosen = linear_probe(features, labels, fresh, fresh_labels)
    weak = linear_probe(features, labels, fresh, fresh_labels, c=10.0)
    assert weak.c == 10.0 and chosen.c <= 0.1
    assert chosen.accuracy > weak.accuracy


@pytest.mark.parametrize("classes", [2, 3])
def test_weights_and_offsets_are_the_probe_as_a_softmax_layer(classes):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % classes
    train = 5 + 3 * rng.standard_normal((60, 4)) + 4 * np.eye(4)[labels]
    train[:, 3] = 2.0  # constant
    test = 5 + 3 * rng.standard_normal((40, 4))
    found = linear_probe(train, 2 * labels + 1, test, np.ones(40), c=0.1)
    assert found.labels.tolist() == [2 * label + 1 for label in range(classes)]
    scores = test @ found.weights + found.offsets
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)).fit(train, labels)
    np.testing.assert_allclose(probabilities, fitted.predict_proba(test), atol=1e-6)
    np.testing.assert_array_equal(found.labels[scores.argmax(axis=1)], found.predictions)


def test_one_sample_a_class_is_enough():
    train, labels = blobs(np.random.default_rng(14), 1)
    assert linear_probe(train, labels, train, labels).accuracy == 1.0


def test_a_constant_feature_does_no_harm():
    rng = np.random.default_rng(15)
    train, labels = blobs(rng, 10)
    train[:, 2] = 4.0
    assert linear_probe(train, labels, train, labels).accuracy == 1.0


# === Label subsets ===


def test_each_class_gives_its_share():
    labels = np.repeat([0, 1, 2, 3], [40, 20, 3, 14])
    chosen = stratified_fraction(labels, 0.25, seed=0)
    # 3.5 of 14 is rounded up.
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [10, 5, 1, 4])
    assert np.all(np.diff(chosen) > 0)


def test_no_class_is_left_without_a_sample_and_all_is_all():
    labels = np.repeat([0, 1, 2], [400, 2, 1])
    np.testing.assert_array_equal(np.bincount(labels[stratified_fraction(labels, 0.01, 0)]), [4, 1, 1])
    np.testing.assert_array_equal(stratified_fraction(labels, 1.0, 0), np.arange(403))


def test_a_subset_is_a_function_of_its_seed():
    labels = np.repeat([0, 1], 50)
    first, again, other = (stratified_fraction(labels, 0.2, seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5])
def test_a_fraction_outside_zero_to_one_is_quoted(fraction):
    with pytest.raises(InputError, match=f"Received {fraction}"):
        stratified_fraction(np.array([0, 1]), fraction, 0)


# === Bad input ===

GOOD, LABELS = np.eye(4), np.array([0, 0, 1, 1])


@pytest.mark.parametrize("probe", [knn_accuracy, linear_probe])
@pytest.mark.parametrize(
    ("bank", "bank_labels", "queries", "query_labels", "message"),
    [
        (np.zeros((0, 4)), np.zeros(0, int), GOOD, LABELS, "one or more"),
        (GOOD, LABELS, np.zeros((0, 4)), np.zeros(0, int), "one or more"),
        (GOOD, np.zeros(4, int), GOOD, LABELS, "one class only"),
        (GOOD, np.array([0, 1, -1, -1]), GOOD, LABELS, r"2 of 4 training|2 of 4 bank"),
        (GOOD, LABELS, GOOD, np.array([0, 1, 1, -1]), "1 of 4"),
        (GOOD, LABELS[:3], GOOD, LABELS, "4 feature rows and 3 labels"),
        (np.where(GOOD == 1, np.nan, 0), LABELS, GOOD, LABELS, "diverged"),
        (GOOD, LABELS, np.full((4, 4), np.inf), LABELS, "diverged"),
    ],
)
def test_what_cannot_be_probed_is_named_in_one_line(probe, bank, bank_labels, queries, query_labels, message):
    with pytest.raises(InputError, match=message) as caught:
        probe(bank, bank_labels, queries, query_labels)
    assert "\n" not in str(caught.value)


def test_knn_refuses_another_encoder_and_an_impossible_k():
    with pytest.raises(InputError, match="one encoder"):
        knn_predict(GOOD, LABELS, np.zeros((2, 3)))
    with pytest.raises(InputError, match="k=9"):
        knn_predict(GOOD, LABELS, GOOD, k=9)


def test_unlabelled_samples_cannot_be_stratified():
    with pytest.raises(InputError, match="subset"):
        stratified_fraction(np.array([0, -1]), 0.5, 0)
