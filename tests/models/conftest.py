"""Layers written out in NumPy for one volume (z, y, x, c), and networks without memory for their weights."""

import itertools
import types

import keras
import numpy as np
import pytest


def convolve(x, layer, pad=None, stride=1):
    """Convolution with the layer's kernel and bias, `pad` zeros on either side (default: half the kernel)."""
    weights = [np.asarray(w, np.float64) for w in layer.get_weights()]
    kernel = weights[0]
    half = kernel.shape[0] // 2 if pad is None else pad
    padded = np.pad(x, [(half, half)] * 3 + [(0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:3], axis=(0, 1, 2))
    result = np.einsum("zyxcijk,ijkcf->zyxf", windows[::stride, ::stride, ::stride], kernel, optimize=True)
    return result + weights[1] if len(weights) > 1 else result


def relu(x):
    return np.maximum(x, 0)


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def windows_of(x, reduce, window, stride, past_end):
    """`reduce` over every window; one that runs over the end is cut there, or left out."""
    starts = []
    for n, w, s in zip(x.shape[:3], window, stride, strict=True):
        starts.append(range(0, n if past_end else n - w + 1, s))
    out = np.empty([len(s) for s in starts] + [x.shape[3]])
    for at in itertools.product(*(range(len(s)) for s in starts)):
        corner = [s[i] for s, i in zip(starts, at, strict=True)]
        part = x[tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))]
        out[at] = reduce(part, axis=(0, 1, 2))
    return out


def max_pool(x, window=(2, 2, 2), stride=None, past_end=False):
    return windows_of(x, np.max, window, stride or window, past_end)


def average_pool(x, window, stride):
    return windows_of(x, np.mean, window, stride, False)


def adaptive_average(x, out=2):
    """torch.nn.AdaptiveAvgPool3d: window i of n voxels runs from floor(i n / out) to ceil((i + 1) n / out)."""
    n = x.shape[0]
    spans = [slice(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]
    return np.array([[[x[a, b, c].mean(axis=(0, 1, 2)) for c in spans] for b in spans] for a in spans])


def dense(x, layer):
    kernel, bias = layer.get_weights()
    return x @ kernel + bias


def normalise(x, layer):
    """Batch normalisation with the moving statistics."""
    gamma, beta, mean, variance = layer.get_weights()
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def randomise(model):
    """Weights that a forward pass feels everywhere: every bias and statistic away from its start."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "moving_variance" in weight.path:
            weight.assign(rng.uniform(0.5, 2, weight.shape))
        else:
            weight.assign(weight + 0.1 * rng.standard_normal(weight.shape))


@pytest.fixture(scope="session")
def oracle():
    functions = [convolve, relu, softmax, max_pool, average_pool, adaptive_average, dense, normalise, randomise]
    return types.SimpleNamespace(**{function.__name__: function for function in functions})


@pytest.fixture
def weightless():
    """While this lasts, networks are built with shapes and no values."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    # Keras would give them values as soon as another such scope ends.
    keras.utils.clear_session()
