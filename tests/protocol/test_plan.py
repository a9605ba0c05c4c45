"""The arithmetic of a run, against a store that was written and against the formula, slowly."""

import numpy as np
import pytest

from skact.protocol import plan


def slowly(samples, tokens, layers, width, n_bytes):
    """Equal samples: files of 256 first, then of 2048, or of as many as 256 MiB hold."""
    of_sample = 8 + 32 + 4
    total = 0
    for rows, grid in ((tokens, 16), (1, 0)):  # tokens of images, and vectors
        left, n_files = samples, 0
        for window in [256] + [4 * 2048] * samples:
            here = min(left, window)
            at_most = min(2048, 2**28 // (rows * width * n_bytes))
            n_files += -(-here // at_most)
            left -= here
        assert left == 0
        total += samples * (rows * width * n_bytes + of_sample + grid) + n_files * 4096
    return layers * total


@pytest.mark.parametrize(("samples", "tokens", "width"), [(9, 5, 8), (3000, 7, 4), (900, 900, 512)])
def test_bytes_of_equal_samples(samples, tokens, width):
    for dtype, n_bytes in (("float32", 4), ("bfloat16", 2)):
        made = plan(samples, tokens, 3, width, dtype, 10.0, grids=True)
        assert made.n_bytes == slowly(samples, tokens, 3, width, n_bytes)
        assert made == plan(samples, [tokens] * samples, 3, width, dtype, 10.0, grids=True)


def test_passes_and_hours():
    one = plan(3600, 10, 2, 4, "float32", 2.0)
    assert (one.passes, one.hours) == (7200, 1.0)
    assert plan(3600, 10, 2, 4, "float32", 2.0, 8).hours == 1 / 8
    assert plan(3600, 10, 9, 4, "float32", 2.0).passes == one.passes  # all layers from one pass
    without = plan(3600, 10, 2, 4, "float32", 2.0, class_token=False)
    assert (without.passes, without.hours) == (3600, 0.5)
    vectors = plan(3600, 1, 2, 4, "float32", 2.0, class_token=False)  # one token: a vector
    assert one.n_bytes - without.n_bytes == vectors.n_bytes


def test_a_mean_stands_for_as_many_tokens():
    lengths = np.random.default_rng(0).integers(1, 30, 500)
    exact = plan(500, lengths, 2, 16, "float16", 1.0)
    about = plan(500, lengths.mean(), 2, 16, "float16", 1.0)
    assert about.n_bytes == exact.n_bytes
    assert plan(500, lengths.mean() + 1, 2, 16, "float16", 1.0).n_bytes > exact.n_bytes


@pytest.mark.parametrize(("name", "value"), [
    ("samples", 0),
    ("tokens", 0.5),
    ("tokens", [1, 2]),
    ("layers", 1.5),
    ("dtype", "int8"),
    ("passes_per_second", 0),
    ("devices", 0),
    ("grids", 2),
    ("class_token", 2),
])  # fmt: skip
def test_bad_figures_are_named(name, value):
    right = {"samples": 3, "tokens": 4, "layers": 1, "width": 2, "dtype": "float32"}
    right |= {"passes_per_second": 1.0, "devices": 1}
    plan(**right)
    with pytest.raises(ValueError, match=name):
        plan(**right | {name: value})
