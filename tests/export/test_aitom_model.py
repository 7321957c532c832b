"""AITom's calling convention: its containers, its axes, a label order that stays."""

import numpy as np
import pytest
from small_network import NAMES

from aitom_ssl.data.batches import standardize
from aitom_ssl.errors import InputError
from aitom_ssl.export import aitom_model


@pytest.fixture(scope="module")
def model(served):
    return aitom_model(served.parent)


@pytest.fixture(scope="module")
def dj(volumes):
    """AITom's list: volumes (x, y, z)."""
    return [{"v": volume.transpose(2, 1, 0), "pdb_id": NAMES[i % 3]} for i, volume in enumerate(volumes)]


@pytest.fixture(scope="module")
def wanted(classifier, volumes):
    return np.asarray(classifier(standardize(volumes.copy())[..., None], training=False))


class Subdivide:
    """What AITom's subdivide.py does around a model, after its description: stack `v`, predict, take the largest."""

    @staticmethod
    def list_to_data(dj):
        stack = np.zeros((len(dj), *[dj[0]["v"].shape[0]] * 3, 1), np.float32)
        for row, entry in zip(stack, dj, strict=True):
            row[..., 0] = entry["v"]
        return {"data": stack}

    @classmethod
    def predict(cls, model, dj):
        """The newer form, which hands over the dict."""
        return model.predict(cls.list_to_data(dj)).argmax(axis=-1)

    @classmethod
    def predict_2017(cls, model, dj):
        probabilities = model.predict(cls.list_to_data(dj)["data"])
        return probabilities.argmax(axis=-1), probabilities


def test_in_the_place_of_subdivides_network(model, dj, wanted):
    labels = Subdivide.predict(model, dj)
    assert np.array_equal(labels, wanted.argmax(axis=-1))
    again, probabilities = Subdivide.predict_2017(model, dj)
    assert np.array_equal(again, labels)
    assert np.abs(probabilities - wanted).max() < 1e-5
    # Known classes and predicted ones count alike.
    assert np.mean([model.label_map[entry["pdb_id"]] for entry in dj] == labels) == np.mean(
        [entry["pdb_id"] == model.class_names[label] for entry, label in zip(dj, labels, strict=True)]
    )


def test_every_container_gives_the_same(model, dj, wanted):
    stack = np.stack([entry["v"] for entry in dj])
    for data in (dj, stack, stack[..., None], {"data": stack[..., None]}, tuple(dj), stack.astype(np.float64)):
        found = model.predict(data)
        assert found.dtype == np.float32 and np.abs(found - wanted).max() < 1e-5
    assert model.predict([]).shape == model.predict(stack[:0]).shape == (0, len(NAMES))


def test_the_axes_are_turned_and_no_other_way_fits(model, volumes, wanted):
    """The volumes have no symmetry: each of the six orders of axes is answered differently."""
    for axes in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)):
        other = model.predict([{"v": volume.transpose(axes)} for volume in volumes])
        assert np.abs(other - wanted).max() > 1e-3


def test_the_order_of_labels_is_the_one_of_training(model):
    assert model.class_names == NAMES
    assert model.label_map == {"ribosome": 0, "GroEL": 1, "empty": 2}


def test_the_callers_arrays_are_left_alone(model, volumes):
    before = volumes.copy()
    model.predict(volumes)
    model.predict([{"v": volume} for volume in volumes])
    assert np.array_equal(before, volumes)


def test_more_volumes_than_go_through_at_once(model, dj, wanted):
    found = model.predict(dj * 60)
    assert found.shape == (300, 3) and np.abs(found - np.tile(wanted, (60, 1))).max() < 1e-5


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (np.zeros((8, 8, 8)), r"shape \(8, 8, 8\) is no batch"),
        (np.zeros((1, 8, 8, 8, 2)), "is no batch"),
        (np.zeros((1, 9, 9, 9)), r"takes volumes \(n, 8, 8, 8\). Received \(1, 9, 9, 9\)"),
        ([{"v": np.zeros((8, 8, 8))}, {"pdb_id": "x"}], "Entry 1 has no volume"),
        ([{"v": np.zeros((8, 8))}], "Entry 0 has no volume"),
        ([np.zeros((8, 8, 8))], "Entry 0 has no volume"),
        ([{"v": np.zeros((8, 8, 8))}, {"v": np.zeros((9, 9, 9))}], "one box for all"),
        ([{"v": np.full((8, 8, 8), np.nan)}], "NaN or infinite"),
        ("subtomograms.pickle", "A str holds no subtomograms"),
        (None, "A NoneType holds no subtomograms"),
    ],
)
def test_what_is_no_subtomogram(model, data, said):
    with pytest.raises(InputError, match=said) as error:
        model.predict(data)
    assert "\n" not in str(error.value)


def test_what_is_no_classifier(served_encoder, tmp_path):
    with pytest.raises(InputError, match="is an encoder"):
        aitom_model(served_encoder)
    with pytest.raises(InputError, match="No run or SavedModel"):
        aitom_model(tmp_path / "nowhere")
