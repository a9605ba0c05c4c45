"""Scores at two layers, of samples that hold two concepts, with labels of tokens."""

import numpy as np

from skact import LayerStack, TokenArray

NAMES = ["joy", "food"]


def case(n_samples=40, seed=0, dtype=np.float32, layers=(2, 5)):
    """A stack, y and labels. The later layer tells concepts apart better."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 9, n_samples)
    y = rng.random((n_samples, 2)) < 0.4
    y[:4] = [[1, 0], [0, 1], [0, 0], [1, 1]]
    sample = np.repeat(np.arange(n_samples), lengths)
    labels = y[sample] & (rng.random((len(sample), 2)) < 0.5)
    labels[np.r_[0, np.cumsum(lengths)[:-1]]] = y
    offsets = np.r_[0, np.cumsum(lengths)]
    stack = {}
    for place, layer in enumerate(layers):
        scores = rng.normal(size=labels.shape) + (1 + 2 * place) * labels
        stack[layer] = TokenArray(scores.astype(dtype), offsets, feature_names=NAMES)
    return LayerStack(stack), y.astype(int), TokenArray(labels, offsets, feature_names=NAMES)


def resampled(stack, y, labels, counts):
    """Write a resample out: each sample as often as it was drawn."""
    rows = np.repeat(np.arange(len(counts)), counts)
    return stack[rows], y[rows], labels[rows]
