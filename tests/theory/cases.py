"""Random sequences: small and large, skewed and even, with ties, and heads of all strengths."""

import numpy as np


def sequences(n, n_tokens, seed=0):
    """Activations (n, n_tokens) of many scales and shapes, with one sharpness for each."""
    rng = np.random.default_rng(seed)
    even, skewed = rng.normal(size=(n, n_tokens)), rng.exponential(size=(n, n_tokens)) - 1
    a = np.where(rng.random((n, 1)) < 0.5, even, skewed) * rng.choice([0.01, 0.3, 1, 5], (n, 1))
    a += rng.choice([0, -2, 2], (n, 1))
    tied = rng.random(n) < 0.1
    a[tied, 0] = a[tied, 1]
    return a
