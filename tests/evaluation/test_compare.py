import keras
import numpy as np
import pytest

from aitom_ssl.errors import InputError
from aitom_ssl.evaluation import compare
from aitom_ssl.evaluation.compare import Comparison, compare_encoders


class Blobs:
    """Two bright corners or none: three classes that the mean of each octant tells apart."""

    class_names = ("left", "right", "none")
    standardized = True

    def __init__(self, count, seed):
        rng = np.random.default_rng(seed)
        self.labels = np.arange(count) % 3
        self.array = rng.normal(size=(count, 8, 8, 8)).astype(np.float32)
        self.array[self.labels == 0, :4, :4, :4] += 2
        self.array[self.labels == 1, 4:, 4:, 4:] += 2

    def __len__(self):
        return len(self.labels)

    def volumes(self, indices):
        return self.array[indices]


def octant_encoder():
    inputs = keras.Input((8, 8, 8, 1))
    return keras.Model(inputs, keras.layers.Flatten()(keras.layers.AveragePooling3D(4)(inputs)))


def blind_encoder():
    """Sees the middle row of one face, where every class is noise."""
    inputs = keras.Input((8, 8, 8, 1))
    return keras.Model(inputs, keras.layers.Flatten()(inputs[:, :2, 6:, :2]))


@pytest.fixture(scope="module")
def result():
    return compare_encoders({"blind": blind_encoder(), "octant": octant_encoder()}, Blobs(120, 0), Blobs(90, 1))


def test_the_better_encoder_wins_by_both_measures(result):
    assert result.names == ("blind", "octant")
    assert result.probe["octant"].mean() > 0.95 and result.knn["octant"].mean() > 0.85
    assert result.probe["blind"].mean() < 0.5 and result.knn["blind"].mean() < 0.5
    assert result.probe["octant"].shape == result.knn["octant"].shape == (3,)


def test_predictions_and_confusion_belong_to_the_last_encoder(result):
    confusion = result.confusion()
    np.testing.assert_array_equal(confusion.sum(axis=1), [30, 30, 30])
    assert np.trace(confusion) / 90 == pytest.approx(result.probe["octant"][-1])
    assert result.labels_used == 30


def test_every_encoder_gets_the_same_labels(monkeypatch):
    seen = []
    real = compare.linear_probe
    monkeypatch.setattr(compare, "linear_probe", lambda a, b, *r, **k: seen.append(b.tolist()) or real(a, b, *r, **k))
    same = octant_encoder()
    twice = compare_encoders({"a": same, "b": same}, Blobs(60, 2), Blobs(30, 3), fraction=0.5, seeds=(5, 6))
    assert seen[:2] == seen[2:]
    np.testing.assert_array_equal(twice.probe["a"], twice.probe["b"])
    np.testing.assert_array_equal(twice.knn["a"], twice.knn["b"])


def test_only_features_in_use_are_extracted_and_they_are_the_right_ones(monkeypatch):
    train, asked = Blobs(60, 2), []
    real = compare.extract_features

    def spy(encoder, data, batch_size, indices=None):
        asked.append(indices)
        return real(encoder, data, batch_size, indices)

    monkeypatch.setattr(compare, "extract_features", spy)
    one = compare_encoders({"a": octant_encoder()}, train, Blobs(30, 3), fraction=0.2, seeds=(0,))
    np.testing.assert_array_equal(asked[0], compare.stratified_fraction(train.labels, 0.2, 0))
    features = octant_encoder().predict(train.array[asked[0]][..., None], verbose=0)
    queries = octant_encoder().predict(Blobs(30, 3).array[..., None], verbose=0)
    expected = compare.linear_probe(features, train.labels[asked[0]], queries, Blobs(30, 3).labels)
    assert one.probe["a"][0] == expected.accuracy


def test_an_encoder_wins_nothing_by_the_scale_of_its_features():
    inputs = keras.Input((8, 8, 8, 1))
    plain = keras.layers.Flatten()(keras.layers.AveragePooling3D(4)(inputs))
    scaled = keras.Model(inputs, plain * np.array([1e3, 1, 1, 0.1, 1, 1, 1, 1], np.float32) + 40.0)
    result = compare_encoders({"plain": octant_encoder(), "scaled": scaled}, Blobs(60, 2), Blobs(90, 3), seeds=(0, 1))
    np.testing.assert_allclose(result.knn["scaled"], result.knn["plain"], atol=0.02)
    np.testing.assert_allclose(result.probe["scaled"], result.probe["plain"], atol=0.02)


def comparison(**changes):
    values = dict(
        probe={"untrained": np.array([0.25, 0.35]), "MoCo": np.array([0.5, 0.5])},
        knn={"untrained": np.array([0.2, 0.2]), "MoCo": np.array([0.4, 0.6])},
        fraction=0.25,
        seeds=(0, 1),
        labels_used=750,
        class_names=("a", "b"),
        test_labels=np.array([0, 0, 0, 1]),
        predictions=np.array([0, 1, 1, 1]),
    )
    return Comparison(**{**values, **changes})


def test_the_table_is_aligned_text_with_mean_spread_and_chance():
    assert comparison().table().splitlines() == [
        "encoder    linear probe   kNN",
        "---------------------------------------",
        "untrained  0.300 ± 0.071  0.200 ± 0.000",
        "MoCo       0.500 ± 0.000  0.500 ± 0.141",
        "chance     0.750          0.750",
        "",
        "Test accuracy on 4 samples of 2 classes, frozen features, 25% of the training labels (750); "
        "mean ± sd over 2 label subsets (seed 0, 1).",
    ]


def test_one_seed_has_no_spread():
    single = comparison(probe={"a": np.array([0.5])}, knn={"a": np.array([0.25])}, seeds=(3,))
    assert single.rows()[1] == ["a", "0.500", "0.250"]
    assert "sd" not in single.table() and "seed 3" in single.table()


def test_confusion_has_true_classes_down():
    np.testing.assert_array_equal(comparison().confusion(), [[1, 2], [0, 1]])


def test_nothing_to_compare_is_said():
    with pytest.raises(InputError, match="no encoder"):
        compare_encoders({}, Blobs(6, 0), Blobs(6, 1))
    with pytest.raises(InputError, match="one seed or more"):
        compare_encoders({"a": octant_encoder()}, Blobs(6, 0), Blobs(6, 1), seeds=())


def test_unlabelled_data_are_refused_before_any_work():
    train = Blobs(6, 0)
    train.labels = np.full(6, -1)
    with pytest.raises(InputError, match="6 of 6 training samples have no label"):
        compare_encoders({"a": None}, train, Blobs(6, 1))
    with pytest.raises(InputError, match="6 of 6 test samples have no label"):
        compare_encoders({"a": None}, Blobs(6, 1), train)
