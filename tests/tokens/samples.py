"""Random samples as lists of matrices, the slow replica of a TokenArray."""

import tempfile

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from skact import TokenArray

DTYPES = ["float16", "float32", "float64", "bool"]
# Zero bytes of working memory force blocks of one sample.
WORKING_MEMORY = [0, 1024]
VALUES = np.zeros((4, 2), np.float32)

quick = settings(max_examples=60, deadline=None)


def make_list(seed, n_samples, n_features, dtype):
    """Random samples whose entries are quarters, so that sums are exact in any order."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 6, n_samples)
    return [(rng.integers(-16, 17, (n, n_features)) / 4).astype(dtype) for n in lengths]


def on_disk(values):
    """Put an array into a memory-mapped file."""
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, values.dtype, mode="w+", shape=values.shape)
    mapped[:] = values
    return mapped


def make_tokens(samples, *, mapped=False):
    values = np.concatenate(samples)
    offsets = np.cumsum([0, *map(len, samples)])
    return TokenArray(on_disk(values) if mapped else values, offsets)


def assert_same(tokens, samples):
    assert len(tokens) == len(samples)
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(tokens[i], sample, strict=True)


@st.composite
def problems(draw, min_samples=1):
    samples = make_list(
        draw(st.integers(0, 2**31)),
        draw(st.integers(min_samples, 6)),
        draw(st.integers(1, 3)),
        draw(st.sampled_from(DTYPES)),
    )
    return make_tokens(samples, mapped=draw(st.booleans())), samples


def draw_key(data, n):
    """Draw a key along n samples, and the positions that it means."""
    everything = list(range(n))
    kind = data.draw(st.sampled_from(["slice", "ints", "list", "mask", "mask list", "empty"]))
    if kind == "slice":
        key = data.draw(st.slices(n))
        positions = everything[key]
    elif kind == "empty" or n == 0:
        key, positions = [], []
    elif kind.startswith("mask"):
        key = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
        positions = [i for i in everything if key[i]]
        key = key if kind == "mask list" else np.array(key)
    else:
        key = data.draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=n + 3))
        positions = [everything[k] for k in key]
        key = key if kind == "list" else np.array(key)
    wrap = data.draw(st.sampled_from([None, Ellipsis, slice(None)]))
    return (key if wrap is None else (key, wrap)), positions
