"""Random labels and decisions for the same tokens."""

import numpy as np

from skact import TokenArray


def make_marks(rng, n_samples=10, n_concepts=3, shares=(0.3, 0.5)):
    lengths = rng.integers(1, 5, n_samples)
    offsets = np.cumsum([0, *lengths])
    return [TokenArray(rng.random((offsets[-1], n_concepts)) < p, offsets) for p in shares]
