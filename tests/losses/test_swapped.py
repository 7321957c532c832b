"""Sinkhorn and swapped prediction against NumPy transcriptions, their fixed point, closed forms and lightly."""

import math

import numpy as np
import pytest
from keras import ops

from aitom_ssl.errors import InputError
from aitom_ssl.losses import sinkhorn, swapped_prediction


def cosines(rng, samples, prototypes, dim=8):
    rows = [rng.standard_normal((n, dim)) for n in (samples, prototypes)]
    z, c = (r / np.linalg.norm(r, axis=1, keepdims=True) for r in rows)
    return z @ c.T


def transcription(scores, epsilon, iterations):
    """Caron 2020, the pseudo-code of appendix A, in float64."""
    q = np.exp(np.asarray(scores, np.float64) / epsilon).T
    q /= q.sum()
    prototypes, samples = q.shape
    for _ in range(iterations):
        q /= q.sum(axis=1, keepdims=True)
        q /= prototypes
        q /= q.sum(axis=0, keepdims=True)
        q /= samples
    return (q * samples).T


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("epsilon", [0.03, 0.05, 1.0])
def test_sinkhorn_equals_the_transcription(epsilon, iterations):
    scores = cosines(np.random.default_rng(0), 12, 5)
    ours = np.asarray(sinkhorn(scores, epsilon, iterations))
    np.testing.assert_allclose(ours, transcription(scores, epsilon, iterations), atol=2e-6)


def test_the_defaults_are_the_published_ones():
    scores = cosines(np.random.default_rng(1), 9, 4)
    np.testing.assert_allclose(sinkhorn(scores), transcription(scores, 0.05, 3), atol=2e-6)


def test_codes_sum_to_one_and_in_the_limit_prototypes_share_equally():
    scores = cosines(np.random.default_rng(2), 40, 8)
    few, many = (np.asarray(sinkhorn(scores, 0.1, n)) for n in (3, 200))
    np.testing.assert_allclose(few.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(many.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(many.sum(axis=0), 40 / 8, rtol=1e-4)
    # At the fixed point the kernel is scaled by rows and by columns only: every 2 x 2 cross-ratio is kept.
    kernel = np.exp(scores / 0.1)
    ratio = [m[:-1, :-1] * m[1:, 1:] / (m[1:, :-1] * m[:-1, 1:]) for m in (kernel, many.astype(np.float64))]
    np.testing.assert_allclose(ratio[1], ratio[0], rtol=1e-3)


@pytest.mark.parametrize(("samples", "prototypes"), [(6, 4), (3, 10), (1, 5)])
def test_identical_rows_give_uniform_codes(samples, prototypes):
    row = np.linspace(-1, 1, prototypes)
    codes = sinkhorn(np.repeat(row[None], samples, axis=0))
    np.testing.assert_allclose(codes, 1 / prototypes, rtol=1e-4)


def test_well_separated_samples_get_one_prototype_each():
    np.testing.assert_allclose(sinkhorn(np.repeat(np.eye(4), 3, axis=0)), np.repeat(np.eye(4), 3, axis=0), atol=1e-6)


def test_half_precision_and_a_small_epsilon_do_not_overflow():
    scores = cosines(np.random.default_rng(3), 10, 6)
    half = ops.cast(scores, "float16")
    codes = sinkhorn(half, 0.002)
    assert ops.dtype(codes) == "float32"
    exact = np.asarray(ops.cast(half, "float64"))
    kernel = exact / 0.002
    log_v = np.zeros((10, 1))
    for _ in range(3):
        log_u = -np.logaddexp.reduce(kernel + log_v, axis=0, keepdims=True)
        log_v = -np.logaddexp.reduce(kernel + log_u, axis=1, keepdims=True)
    np.testing.assert_allclose(codes, np.exp(kernel + log_u + log_v), atol=1e-3)


def test_samples_that_are_not_valid_take_no_part():
    scores = cosines(np.random.default_rng(4), 14, 5)
    valid = np.arange(14) % 3 > 0
    codes = np.asarray(sinkhorn(scores, valid=valid))
    np.testing.assert_allclose(codes[valid], transcription(scores[valid], 0.05, 3), atol=2e-6)
    np.testing.assert_array_equal(codes[~valid], 0)
    assert np.isfinite(np.asarray(sinkhorn(scores, valid=np.zeros(14, bool)))).all()


@pytest.mark.parametrize("options", [{"epsilon": 0.0}, {"epsilon": float("nan")}, {"iterations": 0}])
def test_sinkhorn_refuses(options):
    (name,) = options
    with pytest.raises(InputError, match=name):
        sinkhorn(np.eye(3), **options)


def swapped_transcription(scores, codes, temperature):
    """Caron 2020, eq. 2: crop by crop, sample by sample."""
    total = 0.0
    for i, code in enumerate(codes):
        others = [j for j in range(len(scores)) if j != i]
        for j in others:
            for q, s in zip(code, scores[j], strict=True):
                p = np.exp(s / temperature) / np.exp(s / temperature).sum()
                total -= (q * np.log(p)).sum() / len(code) / len(others) / len(codes)
    return total


@pytest.mark.parametrize(("views", "assigned"), [(2, 2), (2, 1), (5, 2)])
def test_swapped_prediction_equals_the_transcription(views, assigned):
    rng = np.random.default_rng(5)
    scores = [cosines(rng, 6, 4) for _ in range(views)]
    codes = [rng.dirichlet(np.ones(4), 6) for _ in range(assigned)]
    ours = float(swapped_prediction(scores, codes, 0.2))
    assert ours == pytest.approx(swapped_transcription(scores, codes, 0.2), rel=1e-5)


def test_scores_that_say_nothing_give_the_logarithm_of_the_prototypes():
    codes = [np.random.default_rng(6).dirichlet(np.ones(7), 5)] * 2
    assert float(swapped_prediction([np.full((5, 7), 0.3)] * 2, codes)) == pytest.approx(math.log(7), rel=1e-6)


def test_no_gradient_flows_through_the_codes():
    tf = pytest.importorskip("tensorflow", reason="the gradient is taken with TensorFlow")
    first, second = (tf.Variable(cosines(np.random.default_rng(seed), 6, 4), dtype="float32") for seed in (7, 8))
    with tf.GradientTape() as tape:
        loss = swapped_prediction([first, second], [sinkhorn(first)], 0.1)
    gradients = tape.gradient(loss, [first, second])
    assert gradients[0] is None
    expected = (tf.nn.softmax(second / 0.1) - sinkhorn(first)) / 0.1 / 6
    np.testing.assert_allclose(gradients[1], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("views", "assigned", "temperature", "said"),
    [(1, 1, 0.1, "1 views"), (2, 0, 0.1, "0 codes"), (2, 3, 0.1, "3 codes"), (2, 2, 0.0, "temperature")],
)
def test_swapped_prediction_refuses(views, assigned, temperature, said):
    with pytest.raises(InputError, match=said):
        swapped_prediction([np.eye(3)] * views, [np.eye(3)] * assigned, temperature)


def test_equal_to_lightly():
    torch = pytest.importorskip("torch", reason="needs the extra `parity`")
    theirs = pytest.importorskip("lightly.loss.swav_loss", reason="needs the extra `parity`")
    rng = np.random.default_rng(9)
    large, small, queue = ([cosines(rng, n, 10) for _ in range(2)] for n in (8, 8, 20))
    large, small, queue = ([a.astype(np.float32) for a in arrays] for arrays in (large, small, queue))
    tensors = [[torch.from_numpy(a) for a in arrays] for arrays in (large, small, queue)]
    np.testing.assert_allclose(sinkhorn(large[0]), theirs.sinkhorn(tensors[0][0]).numpy(), atol=2e-6)
    codes = [sinkhorn(np.concatenate([q, s]))[20:] for q, s in zip(queue, large, strict=True)]
    ours = float(swapped_prediction([*large, *small], codes, 0.1))
    assert ours == pytest.approx(float(theirs.SwaVLoss()(*tensors)), rel=1e-5)
