"""What holds for every strategy: reproducible, no repeats, inside the pool, any budget, never a look at its labels."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_pools import noise, small_network

from aitom_ssl.active import NAMES, get
from aitom_ssl.active.strategy import Known, Strategy, highest, turns
from aitom_ssl.data import Dataset, write_dataset
from aitom_ssl.data.batches import gather
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.probes import extract_features

QUICK = {
    "mc_dropout": {"passes": 4},
    "bald": {"passes": 4},
    "vaal": {"epochs": 0.3, "batch_size": 4, "width": 1, "latents": 3},
    "hal": {"parts": 2, "epochs": 1, "width": 2},
}
LABELLED, POOL = np.arange(6), np.arange(6, 29)


@pytest.fixture(scope="module", autouse=True)
def eagerly():
    """Tracing would be most of the time of a few small steps; each module's own tests do trace."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


class BlindDataset(Dataset):
    """A view whose labels cannot be read."""

    def columns(self, name):
        assert name != "label", "a strategy looked at labels"
        return super().columns(name)


def blinded(dataset, rows):
    view = dataset.subset(rows)
    view.__class__ = BlindDataset
    return view


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Two datasets of the same 29 volumes; the labels of the last 23 are shuffled in the second."""
    volumes, labels = noise(29, 7), np.arange(29) % 3
    shuffled = np.concatenate([labels[:6], np.random.default_rng(1).permutation(labels[6:])])
    assert (labels != shuffled).any()
    made = []
    for name, given in (("one", labels), ("two", shuffled)):
        samples = [{"volume": volume, "label": int(label)} for volume, label in zip(volumes, given, strict=True)]
        folder = tmp_path_factory.mktemp("twins") / name
        write_dataset(folder, name, ["a", "b", "c"], 10.0, "bright", {"train": samples})
        made.append(Dataset(folder, "train"))
    return made


def build(name):
    return get(name, **QUICK.get(name, {}))


_TRAINED = {}


def trained(name, dataset):
    """The network after a few steps with this strategy, and what trained it; once for all tests."""
    if name not in _TRAINED:
        strategy = build(name)
        network = strategy.prepare(small_network())
        trainer = strategy.trainer(network, None, None, 0, blinded(dataset, POOL))
        trainer.compile(keras.optimizers.SGD(0.05), jit_compile=False)
        for _ in range(3):
            trainer.train_on_batch(gather(dataset, LABELLED), dataset.labels[LABELLED])
        _TRAINED[name] = network, trainer
    return _TRAINED[name]


def select(name, dataset, budget, labelled=LABELLED, pool=POOL, seed=5):
    known = Known(dataset.subset(labelled), blinded(dataset, pool), *trained(name, dataset), seed)
    return build(name).select(known, budget)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_samples_whatever_their_labels(name, twins):
    one, two = (select(name, twin, 7) for twin in twins)
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_allclose(one.scores, two.scores, rtol=1e-3, atol=1e-5)
    assert one.indices.dtype == np.int64 and one.indices.shape == (7,)
    assert one.scores.dtype == np.float64 and one.scores.shape == (7,) and np.isfinite(one.scores).all()
    assert len(set(one.indices)) == 7 and one.indices.min() >= 0 and one.indices.max() < len(POOL)
    # The most wanted first; HAL's parts are scored by another discriminator each.
    assert name == "hal" or (np.diff(one.scores) <= 1e-9).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_last_samples_of_the_pool_with_nothing_labelled(name, twins):
    chosen = select(name, twins[0], 3, labelled=[], pool=POOL[:3])
    assert sorted(chosen.indices) == [0, 1, 2] and np.isfinite(chosen.scores).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", [0, -1, 24])
def test_a_budget_that_the_pool_cannot_give_is_refused(name, budget, twins):
    with pytest.raises(InputError, match=f"budget of {budget} .* the pool has 23") as error:
        select(name, twins[0], budget)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["random", "margin", "core_set"])
def test_ragged_cycles_share_out_the_pool(name, twins):
    """Budgets of 10, 10 and what is left: each sample is asked for once."""
    labelled, pool = LABELLED, POOL
    while len(pool):
        chosen = select(name, twins[0], min(10, len(pool)), labelled, pool).indices
        labelled, pool = np.concatenate([labelled, pool[chosen]]), np.delete(pool, chosen)
    assert sorted(labelled) == list(range(29))


def test_random_depends_on_the_seed_alone(twins):
    draws = [select("random", twins[0], 7, seed=seed).indices.tolist() for seed in (5, 5, 6)]
    assert draws[0] == draws[1] != draws[2]


# === What they share ===


def test_names_load_no_framework_and_all_can_be_had():
    code = "import sys; from aitom_ssl.active import NAMES; print(sorted({'keras', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert set(NAMES) == {*QUICK, "random", "ema", "entropy", "margin", "core_set", "ll4al"}
    for name in NAMES:
        assert isinstance(get(name), Strategy)
        assert get(name).name == ("mc_dropout" if name == "bald" else name)
    assert get("bald").score == "bald"


def test_a_name_or_an_option_that_there_is_not():
    with pytest.raises(InputError, match=r"No strategy 'core-set'.*Did you mean core_set"):
        get("core-set")
    with pytest.raises(InputError, match=r"vaal has no option 'epoch'.*Did you mean epochs"):
        get("vaal", epoch=3)
    with pytest.raises(InputError, match="random has no option 'seed'; it has: none"):
        get("random", seed=3)
    with pytest.raises(InputError, match="bald has no option 'score'"):
        get("bald", score="entropy")


def test_the_highest_come_first_and_equal_ones_in_a_drawn_order():
    chosen = highest(np.array([0.1, 3, -2, 0.5]), 3, 0)
    assert chosen.indices.tolist() == [1, 3, 0] and chosen.scores.tolist() == [3, 0.5, 0.1]
    orders = {tuple(highest(np.array([0, 0, 0, 1.0]), 3, seed).indices) for seed in range(60)}
    assert all(order[0] == 3 for order in orders) and len(orders) == 6
    with pytest.raises(InputError, match="1 of 2 samples got NaN"):
        highest(np.array([np.nan, 1]), 1, 0)


def test_what_is_known_is_computed_once(twins, monkeypatch):
    calls = []
    module = sys.modules["aitom_ssl.active.strategy"]
    real = extract_features
    monkeypatch.setattr(module, "extract_features", lambda model, data: calls.append(1) or real(model, data))
    network = small_network(dropout=0.5)
    known = Known(twins[0].subset(LABELLED), blinded(twins[0], POOL), network, None, 0)
    assert not calls
    for _ in range(2):
        assert known.probabilities.shape == (23, 3) and known.features.shape == (23, 6)
        assert known.labelled_features.shape == (6, 6)
    assert len(calls) == 3
    kernel, bias = network.layers[-1].get_weights()
    logits = known.features @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(known.probabilities, expected, rtol=1e-4)
    nothing = Known(twins[0].subset([]), blinded(twins[0], POOL), network, None, 0)
    assert nothing.labelled_features.shape == (0, 6)


def test_features_that_memory_cannot_hold_are_refused(twins, monkeypatch):
    known = Known(twins[0].subset(LABELLED), blinded(twins[0], POOL), small_network(), None, 0)
    monkeypatch.setattr("os.sysconf", lambda name: 30)  # 900 bytes
    with pytest.raises(InputError, match="6 features of each sample take"):
        _ = known.features


def test_groups_take_turns():
    rng = np.random.default_rng(0)
    for groups in (rng.integers(0, 4, 50), np.zeros(3, int), np.zeros(0, int), np.array([7, 2, 7, 7])):
        expected = [int((groups[:place] == group).sum()) for place, group in enumerate(groups)]
        assert turns(groups).tolist() == expected
