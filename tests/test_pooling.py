from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import config_context

from skact import TokenArray
from skact.pooling import (
    RunningLast,
    RunningMax,
    RunningMean,
    RunningWindows,
    longest_window,
    pool_windows,
    soft_maximum,
    top_windows,
    weighted_top_windows,
    window_means,
)
from skact.rows import offsets_of

RUNS = [np.array([1, 4, 7, 30, 2, 7]), None]
GRIDS = np.array([[1, 1], [3, 4], [5, 2], [6, 6], [1, 7], [4, 3]])
SAMPLES = [RUNS, [GRIDS.prod(axis=1), GRIDS]]
RULES = [(1, 1, None), (3, 1, None), (1, 3, None), (4, 2, None), (16, 8, None), (3, 1, 0.4)]


def slow_windows(sample, window, shape):
    """Means of all windows of one sample and column, one by one, and which tokens they hold."""
    rows, columns = (1, len(sample)) if shape is None else shape
    high = 1 if shape is None else min(window, rows, columns)
    wide = min(window, columns) if shape is None else high
    grid = np.arange(len(sample)).reshape(rows, columns)
    held = [
        grid[r : r + high, c : c + wide].ravel()
        for r in range(rows - high + 1)
        for c in range(columns - wide + 1)
    ]
    return [sum(sample[tokens].tolist()) / len(tokens) for tokens in held], held


def slow_pool(sample, window, top, share, shape=None):
    """The pool of one sample and column, and the weights of its tokens, from the definition."""
    means, held = slow_windows(sample, window, shape)
    k = min(top, len(means)) if share is None else max(1, round(share * len(means)))
    best = sorted(range(len(means)), key=lambda t: (-means[t], t))[:k]
    weights = np.zeros(len(sample))
    for t in best:
        weights[held[t]] += 1 / (k * len(held[t]))
    return sum(means[t] for t in best) / k, weights


@pytest.mark.parametrize(("window", "top", "share"), RULES)
@pytest.mark.parametrize(("lengths", "shapes"), SAMPLES, ids=["runs", "grids"])
def test_top_windows_are_the_definition(rng, lengths, shapes, window, top, share):
    scores, offsets = rng.normal(size=(lengths.sum(), 3)), offsets_of(lengths)
    pooled = top_windows(scores, offsets, window, top, share, shapes)
    values, weights = weighted_top_windows(scores, offsets, window, top, share, shapes)
    np.testing.assert_allclose(values, pooled, atol=1e-14)
    assert weights.shape == scores.shape
    for i, (a, b) in enumerate(pairwise(offsets)):
        for c in range(3):
            shape = None if shapes is None else shapes[i]
            value, weight = slow_pool(scores[a:b, c], window, top, share, shape)
            assert pooled[i, c] == pytest.approx(value, abs=1e-12)
            np.testing.assert_allclose(weights[a:b, c], weight, atol=1e-14)


@pytest.mark.parametrize(("window", "top", "share"), RULES)
@pytest.mark.parametrize(("lengths", "shapes"), SAMPLES, ids=["runs", "grids"])
def test_a_sample_is_pooled_alike_whatever_stands_beside_it(
    rng, lengths, shapes, window, top, share
):
    scores = rng.normal(size=(lengths.sum(), 2)).astype(np.float32)
    scores *= 10.0 ** rng.integers(-3, 12, size=(len(scores), 1))  # sums that lose bits
    offsets = offsets_of(lengths)
    together = top_windows(scores, offsets, window, top, share, shapes)
    for i, (a, b) in enumerate(pairwise(offsets)):
        shape = None if shapes is None else shapes[i : i + 1]
        alone = top_windows(scores[a:b], np.array([0, b - a]), window, top, share, shape)
        np.testing.assert_array_equal(alone[0], together[i])
    # A difference of cumulated sums, the short way, does not pass this test.
    cumulated = np.cumsum(scores[:, 0].astype(np.float64))
    assert np.any(np.diff(cumulated) != scores[1:, 0])


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 9), st.integers(1, 9))
def test_weights_are_a_gradient(lengths, window, top):
    lengths = np.array(lengths)
    scores = np.random.default_rng(window).normal(size=(lengths.sum(), 2))
    offsets = offsets_of(lengths)
    values, weights = weighted_top_windows(scores, offsets, window, top)
    np.testing.assert_allclose(np.add.reduceat(weights, offsets[:-1]), 1)
    np.testing.assert_allclose(np.add.reduceat(weights * scores, offsets[:-1]), values)
    direction = np.random.default_rng(0).normal(size=scores.shape) * 1e-7
    moved = top_windows(scores + direction, offsets, window, top)
    expected = np.add.reduceat(weights * direction, offsets[:-1])
    np.testing.assert_allclose(moved - values, expected, atol=1e-13)


GAPS = np.array([0] * 7 + [0, 0, 1, 1, 1, 2] + [4] * 9 + [5] * 3 + [0] + [1] * 5 + [2])
GAPPED = np.array([7, 6, 12, 1, 6])  # the first and the fourth sample are one run


def slow_runs(scores, segments, window, top, share):
    """The pool of one sample and column whose windows are those of each run by itself."""
    cuts = np.flatnonzero(np.diff(segments)) + 1
    means = [m for run in np.split(scores, cuts) for m in slow_windows(run, window, None)[0]]
    k = min(top, len(means)) if share is None else max(1, round(share * len(means)))
    return np.mean(sorted(means)[-k:])


@pytest.mark.parametrize(("window", "top", "share"), RULES)
def test_no_window_crosses_a_gap(rng, window, top, share):
    scores, offsets = rng.normal(size=(GAPPED.sum(), 3)), offsets_of(GAPPED)
    tokens = TokenArray(scores, offsets, segments=GAPS)
    pooled = pool_windows(tokens, window, top, share)
    again = top_windows(scores, offsets, window, top, share, None, GAPS)
    values, weights = weighted_top_windows(scores, offsets, window, top, share, None, GAPS)
    np.testing.assert_array_equal(pooled, again)
    np.testing.assert_allclose(values, pooled, atol=1e-14)
    for i, (a, b) in enumerate(pairwise(offsets)):
        for c in range(3):
            slow = slow_runs(scores[a:b, c], GAPS[a:b], window, top, share)
            assert pooled[i, c] == pytest.approx(slow, abs=1e-12)
    np.testing.assert_allclose(np.add.reduceat(weights * scores, offsets[:-1]), values)
    without = pool_windows(TokenArray(scores, offsets), window, top, share)
    # One run is pooled as before, to the last bit; other samples are not, if windows are longer.
    np.testing.assert_array_equal(without[[0, 3]], pooled[[0, 3]])
    assert (window == 1) == np.array_equal(without, pooled)
    with config_context(working_memory=0):
        np.testing.assert_array_equal(pool_windows(tokens[::-1], window, top, share), pooled[::-1])


def test_a_window_over_a_gap_would_find_what_is_not_there():
    # Each turn ends or begins with one loud token; only without the gap do they make a loud pair.
    scores = np.array([[0.0], [0], [1], [1], [0], [0]])
    pooled = [
        pool_windows(TokenArray(scores, [0, 6], segments=segments), window=2).item()
        for segments in (None, [0, 0, 0, 1, 1, 1])
    ]
    assert pooled == [1.0, 0.5]


@pytest.mark.parametrize("window", [2, 3])
def test_what_windows_count_stays_in_their_run(rng, window):
    scores, offsets = rng.normal(size=(GAPPED.sum(), 2)), offsets_of(GAPPED)
    means, cuts, to_tokens = window_means(scores, offsets, window, None, GAPS)
    inside = np.flatnonzero(np.diff(GAPS)) + 1
    runs = np.union1d(offsets, inside)
    alone = window_means(scores, runs, window)
    np.testing.assert_array_equal(means, alone[0])
    counted = rng.normal(size=means.shape)
    np.testing.assert_array_equal(to_tokens(counted), alone[2](counted))
    assert cuts.tolist() == alone[1][np.searchsorted(runs, offsets)].tolist()


@pytest.mark.parametrize(("window", "top", "share"), [*RULES, (16, 2, None), (5, 1, 1.0)])
def test_running_windows_do_not_cross_gaps_either(rng, window, top, share):
    scores, segments = (
        rng.normal(size=(60, 3)),
        np.repeat(np.arange(9), [3, 1, 20, 2, 4, 9, 1, 16, 4]),
    )
    pool, plain = RunningWindows(3, window, top, share), RunningWindows(3, window, top, share)
    differs = False
    for t in range(60):
        if t and segments[t] != segments[t - 1]:
            pool.gap()
        pool.add(scores[t : t + 1])
        plain.add(scores[t : t + 1])
        so_far = TokenArray(scores[: t + 1], [0, t + 1], segments=segments[: t + 1])
        expected = pool_windows(so_far, window, top, share)[0]
        np.testing.assert_allclose(pool.value(), expected, atol=1e-12)
        differs |= not np.allclose(plain.value(), expected)
    assert differs == (window > 1)


def test_its_ends_are_the_maximum_and_the_mean(rng):
    lengths = np.array([1, 4, 7])
    scores, offsets = rng.normal(size=(12, 2)).astype(np.float32), offsets_of(lengths)
    largest = top_windows(scores, offsets)
    np.testing.assert_array_equal(largest, np.maximum.reduceat(scores, offsets[:-1]))
    assert largest.dtype == np.float32
    mean = np.add.reduceat(scores, offsets[:-1]) / lengths[:, None]
    for rule in ({"share": 1.0}, {"top": 9}, {"window": 9}):
        np.testing.assert_allclose(top_windows(scores, offsets, **rule), mean, rtol=1e-5)


def test_equal_windows_count_from_the_left():
    _, weights = weighted_top_windows(np.ones((5, 1)), np.array([0, 5]), window=2)
    assert weights.ravel().tolist() == [0.5, 0.5, 0, 0, 0]


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize(("lengths", "shapes"), SAMPLES, ids=["runs", "grids"])
def test_what_windows_count_goes_to_their_tokens(rng, lengths, shapes, window):
    scores, offsets = rng.normal(size=(lengths.sum(), 2)), offsets_of(lengths)
    means, cuts, to_tokens = window_means(scores, offsets, window, shapes)
    counted = rng.normal(size=means.shape)
    expected_means, expected = [], np.zeros_like(scores)
    for i, (a, b) in enumerate(pairwise(offsets)):
        shape = None if shapes is None else shapes[i]
        held = slow_windows(scores[a:b, 0], window, shape)[1]
        assert cuts[i + 1] - cuts[i] == len(held)
        for tokens in held:
            expected[a + np.array(tokens)] += counted[len(expected_means)] / len(tokens)
            expected_means.append(scores[a + np.array(tokens)].mean(axis=0))
    np.testing.assert_allclose(means, expected_means, atol=1e-14)
    np.testing.assert_allclose(to_tokens(counted), expected, atol=1e-14)


def test_the_longest_window():
    values, segments = np.zeros((11, 1)), [0, 1, 1, 4, 4, 4, 4, 2, 2, 2, 2]
    assert longest_window(TokenArray(values, [0, 3, 11])) == 8
    assert longest_window(TokenArray(values, [0, 3, 11], segments=segments)) == 4
    grids = TokenArray(np.zeros((20, 1)), [0, 8, 20], shapes=[[2, 4], [4, 3]])
    assert longest_window(grids) == 3


@pytest.mark.parametrize("sharpness", [0.3, 4.0])
def test_soft_maximum_is_the_formula(rng, sharpness):
    offsets = offsets_of([1, 4, 7])
    scores = rng.normal(size=(12, 2))
    values, weights = soft_maximum(scores, offsets, sharpness)
    pieces = np.split(scores, offsets[1:-1])
    slow = [np.log(np.exp(sharpness * piece).mean(axis=0)) / sharpness for piece in pieces]
    np.testing.assert_allclose(values, slow)
    for i, piece in enumerate(pieces):
        assert (piece.mean(axis=0) <= values[i] + 1e-12).all()
        assert (values[i] <= piece.max(axis=0) + 1e-12).all()
    for row in (0, 3, 11):
        moved = scores.copy()
        moved[row] += 1e-6
        sample = np.searchsorted(offsets, row, side="right") - 1
        change = (soft_maximum(moved, offsets, sharpness)[0] - values) / 1e-6
        np.testing.assert_allclose(change[sample], weights[row], atol=1e-4)
        assert not np.delete(change, sample, axis=0).any()


def test_soft_maximum_goes_from_mean_to_maximum_and_does_not_overflow():
    scores = np.array([[1e4], [0.0], [-1e4]], dtype=np.float32)
    for sharpness, expected in ((1e-9, 5e3), (1e3, 1e4)):
        values, weights = soft_maximum(scores, np.array([0, 2, 3]), sharpness)
        np.testing.assert_allclose(values, [[expected], [-1e4]], rtol=5e-3)
        np.testing.assert_allclose(np.add.reduceat(weights, [0, 2]), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "window", "top", "share"),
    [
        (RunningMax, 1, 1, None),
        (RunningMean, 1, 1, 1.0),
        *((RunningWindows, m, k, None) for m in (1, 2, 5) for k in (1, 3)),
        (RunningWindows, 3, 1, 0.3),
        (RunningWindows, 1, 1, 0.5),
    ],
)
@pytest.mark.parametrize("step", [1, 7])
def test_running_pools_are_the_pools_of_every_prefix(rng, make, window, top, share, step):
    scores = rng.normal(size=(90, 4)).astype(np.float32)
    scores[30:40] = 100  # what leaves a window must leave its sum
    assert not np.allclose(*(top_windows(s, np.array([0, len(s)])) for s in (scores, scores[:30])))
    pool = make(4, window, top, share) if make is RunningWindows else make(4)
    for start in range(0, 90, step):
        pool.add(scores[start : start + step])
        n = min(start + step, 90)
        expected = top_windows(scores[:n], np.array([0, n]), window, top, share)[0]
        np.testing.assert_allclose(pool.value(), expected, rtol=1e-6, atol=1e-6)


def test_the_last_score_runs_too(rng):
    scores, pool = rng.normal(size=(5, 2)), RunningLast(2)
    pool.add(scores[:3])
    pool.add(scores[3:3])
    np.testing.assert_array_equal(pool.value(), scores[2])


def test_a_long_stream_keeps_its_digits(rng):
    pool = RunningWindows(1, 16)
    scores = np.concatenate([[[1e12]], rng.normal(size=(4000, 1))])
    pool.add(scores)
    fresh = RunningWindows(1, 16)
    fresh.add(scores[-16:])
    np.testing.assert_allclose(pool._sum, fresh._sum, rtol=1e-9, atol=1e-9)
