"""InfoNCE and NT-Xent against NumPy transcriptions, closed forms and lightly."""

import math

import numpy as np
import pytest
from keras import ops

from aitom_ssl.errors import InputError
from aitom_ssl.losses import info_nce, nt_xent
from aitom_ssl.losses.contrastive import l2_normalize, nt_xent_logits, nt_xent_logits_loss, nt_xent_positives


def unit(rng, *shape):
    rows = rng.standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def transcription(queries, keys, queue, temperature):
    """He 2020, eq. 1, one query at a time in float64."""
    losses = []
    for query, key in zip(queries, keys, strict=True):
        positive = math.exp(query @ key / temperature)
        negatives = sum(math.exp(query @ row / temperature) for row in queue)
        losses.append(-math.log(positive / (positive + negatives)))
    return np.mean(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_equals_the_transcription(temperature):
    rng = np.random.default_rng(0)
    queries, keys, queue = unit(rng, 5, 8), unit(rng, 5, 8), unit(rng, 11, 8)
    ours = float(info_nce(queries, keys, queue, temperature))
    assert ours == pytest.approx(transcription(queries, keys, queue, temperature), rel=1e-5)


def test_rows_that_are_not_valid_take_no_part():
    rng = np.random.default_rng(1)
    queries, keys, queue = unit(rng, 4, 6), unit(rng, 4, 6), unit(rng, 9, 6)
    valid = np.arange(9) < 3
    ours = float(info_nce(queries, keys, queue, 0.2, valid))
    assert ours == pytest.approx(transcription(queries, keys, queue[:3], 0.2), rel=1e-5)
    assert float(info_nce(queries, keys, queue, 0.2, np.zeros(9, bool))) == 0.0


@pytest.mark.parametrize("size", [1, 128])
def test_identical_embeddings_give_the_logarithm_of_one_plus_the_queue(size):
    same = np.zeros((1, 4))
    same[0, 2] = 1
    loss = info_nce(np.repeat(same, 3, 0), np.repeat(same, 3, 0), np.repeat(same, size, 0), 0.2)
    assert float(loss) == pytest.approx(math.log(1 + size), rel=1e-6)


def test_random_embeddings_start_near_the_logarithm_of_one_plus_the_queue():
    rng = np.random.default_rng(2)
    loss = info_nce(unit(rng, 256, 128), unit(rng, 256, 128), unit(rng, 128, 128), 1.0)
    assert float(loss) == pytest.approx(math.log(129), abs=0.02)


def test_orthogonal_negatives_and_a_perfect_positive():
    basis = np.eye(6)
    loss = info_nce(basis[:1], basis[:1], basis[1:], 0.2)
    assert float(loss) == pytest.approx(math.log(1 + 5 * math.exp(-5)), rel=1e-5)


def test_half_precision_inputs_are_computed_in_float32():
    rng = np.random.default_rng(3)
    queries, keys, queue = (ops.cast(unit(rng, n, 8), "bfloat16") for n in (3, 3, 20))
    loss = info_nce(queries, keys, queue, 0.01)
    assert ops.dtype(loss) == "float32"
    exact = transcription(*(np.asarray(ops.cast(t, "float64")) for t in (queries, keys, queue)), 0.01)
    assert float(loss) == pytest.approx(exact, rel=1e-5)


def nt_xent_transcription(z1, z2, temperature):
    """Chen 2020, eq. 1 and algorithm 1, one pair of views at a time in float64."""
    views = [row / math.sqrt(row @ row) for pair in zip(z1, z2, strict=True) for row in pair]  # 2k-1 and 2k belong
    losses = []
    for i, view in enumerate(views):
        partner = i + 1 if i % 2 == 0 else i - 1
        others = sum(math.exp(view @ views[k] / temperature) for k in range(len(views)) if k != i)
        losses.append(-math.log(math.exp(view @ views[partner] / temperature) / others))
    return np.mean(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_nt_xent_equals_the_transcription(temperature, batch):
    rng = np.random.default_rng(4)
    z1, z2 = 3 * rng.standard_normal((batch, 5)), rng.standard_normal((batch, 5))
    ours = float(nt_xent(z1, z2, temperature))
    assert ours == pytest.approx(nt_xent_transcription(z1, z2, temperature), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("batch", [2, 16])
def test_nt_xent_of_equal_embeddings_is_the_logarithm_of_the_other_views(batch):
    same = np.ones((batch, 4))
    assert float(nt_xent(same, 7 * same, 0.1)) == pytest.approx(math.log(2 * batch - 1), rel=1e-5)


def test_nt_xent_of_orthogonal_volumes_with_equal_views():
    rows = np.eye(6)
    assert float(nt_xent(rows, rows, 0.2)) == pytest.approx(math.log(1 + 10 * math.exp(-5)), rel=1e-5)


def test_nt_xent_of_random_embeddings_starts_near_the_logarithm_of_the_other_views():
    rng = np.random.default_rng(5)
    loss = nt_xent(unit(rng, 256, 128), unit(rng, 256, 128), 5.0)
    assert float(loss) == pytest.approx(math.log(511), abs=0.02)


def test_nt_xent_does_not_depend_on_the_order_of_volumes_or_views():
    rng = np.random.default_rng(6)
    z1, z2, order = unit(rng, 8, 4), unit(rng, 8, 4), rng.permutation(8)
    loss = float(nt_xent(z1, z2, 0.3))
    assert float(nt_xent(z2, z1, 0.3)) == pytest.approx(loss, rel=1e-6)
    assert float(nt_xent(z1[order], z2[order], 0.3)) == pytest.approx(loss, rel=1e-6)
    assert abs(float(nt_xent(z1, z2[order], 0.3)) - loss) > 0.01


def test_nt_xent_has_the_gradient_of_the_transcription():
    """Central differences: a similarity with itself that only leaves the sum, not the gradient, would show here."""
    tf = pytest.importorskip("tensorflow", reason="the gradient is taken with TensorFlow")
    rng = np.random.default_rng(7)
    z1, z2 = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    variable = tf.Variable(z1, dtype="float32")
    with tf.GradientTape() as tape:
        loss = nt_xent(variable, z2, 0.5)
    gradient = tape.gradient(loss, variable).numpy()
    for index in np.ndindex(3, 4):
        step = np.zeros((3, 4))
        step[index] = 1e-5
        slope = (nt_xent_transcription(z1 + step, z2, 0.5) - nt_xent_transcription(z1 - step, z2, 0.5)) / 2e-5
        assert gradient[index] == pytest.approx(slope, abs=2e-5)


def test_nt_xent_logits_mask_only_the_view_itself():
    rng = np.random.default_rng(8)
    views = unit(rng, 8, 4)
    logits = np.asarray(nt_xent_logits(views[:4], views[4:], 0.5))
    off = ~np.eye(8, dtype=bool)
    np.testing.assert_allclose(logits[off], (views @ views.T / 0.5)[off], rtol=1e-4, atol=1e-5)
    assert (np.diag(logits) < -1e8).all()
    np.testing.assert_array_equal(nt_xent_positives(logits), [4, 5, 6, 7, 0, 1, 2, 3])
    assert nt_xent_logits_loss(logits).shape == (8,)


def test_nt_xent_of_half_precision_at_a_low_temperature_is_finite():
    rng = np.random.default_rng(9)
    z1, z2 = (ops.cast(unit(rng, 6, 8), "float16") for _ in range(2))
    loss = nt_xent(z1, z2, 0.005)
    assert ops.dtype(loss) == "float32"
    assert np.isfinite(float(loss))


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent_equals_lightly(temperature):
    torch = pytest.importorskip("torch", reason="needs the extra `parity`")
    loss = pytest.importorskip("lightly.loss", reason="needs the extra `parity`")
    rng = np.random.default_rng(10)
    z1, z2 = (rng.standard_normal((9, 16)).astype(np.float32) for _ in range(2))
    theirs = loss.NTXentLoss(temperature)(torch.from_numpy(z1), torch.from_numpy(z2))
    assert float(nt_xent(z1, z2, temperature)) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.07, 0.2])
def test_info_nce_equals_lightly(temperature):
    torch = pytest.importorskip("torch", reason="needs the extra `parity`")
    loss = pytest.importorskip("lightly.loss", reason="needs the extra `parity`")
    rng = np.random.default_rng(11)
    queries, keys, queue = (unit(rng, n, 8).astype(np.float32) for n in (4, 4, 12))
    theirs = loss.NTXentLoss(temperature, memory_bank_size=(12, 8))
    theirs.memory_bank.bank = torch.from_numpy(queue)
    expected = float(theirs(torch.from_numpy(queries), torch.from_numpy(keys)))
    assert float(info_nce(queries, keys, queue, temperature)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_refuses_a_temperature_that_is_not_positive(temperature):
    rows = np.eye(2)
    with pytest.raises(InputError, match="temperature"):
        info_nce(rows, rows, rows, temperature)
    with pytest.raises(InputError, match="temperature"):
        nt_xent(rows, rows, temperature)


def test_l2_normalize_gives_unit_rows_and_keeps_zero():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [1e-8, 0.0]])
    np.testing.assert_allclose(l2_normalize(rows), [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-5)
