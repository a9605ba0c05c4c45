"""Distances of two sets are those of their formulas, and chance is what random deals give."""

import warnings

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import wasserstein_distance

from skact import LayerStack, Source, TokenArray, activation_drift
from skact.algebra._drift import frechet


def some(rng, n, shift=0.0, width=4, **more):
    """Samples of which each has a mean of its own."""
    lengths = rng.integers(1, 6, size=n)
    own = np.repeat(rng.normal(size=(n, width)), lengths, axis=0)
    values = own + 0.3 * rng.normal(size=(lengths.sum(), width)) + shift
    return TokenArray(values, np.r_[0, np.cumsum(lengths)], **more)


def test_wasserstein_is_that_of_scipy(rng):
    X, Y = some(rng, 20), some(rng, 15, 0.4)
    result = activation_drift(X, Y, n_permutations=9, random_state=0)
    slow = [wasserstein_distance(X.flat()[:, j], Y.flat()[:, j]) for j in range(4)]
    np.testing.assert_allclose(result.by_feature, [slow], rtol=1e-9)
    np.testing.assert_allclose(result.distance, [np.mean(slow)], rtol=1e-9)


def test_frechet_is_that_of_the_formula(rng):
    X, Y = some(rng, 40), some(rng, 30, 0.4)
    result = activation_drift(X, Y, metric="frechet", n_permutations=3, random_state=0)
    (m1, s1), (m2, s2) = (
        (v.mean(axis=0), np.cov(v.T, bias=True)) for v in (one.flat() for one in (X, Y))
    )
    slow = ((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * np.real(sqrtm(s1 @ s2)))
    np.testing.assert_allclose(result.distance, [slow], rtol=1e-7)
    assert result.by_feature is None
    # Of normal distributions along one line it is the sum of squares of what differs.
    assert frechet(np.zeros(1), np.array([[4.0]]), np.ones(1), np.array([[9.0]])) == pytest.approx(
        2
    )


@pytest.mark.parametrize("metric", ["wasserstein", "frechet"])
def test_random_deals_are_of_samples(metric, rng):
    X, Y = some(rng, 12), some(rng, 9, 0.4)
    result = activation_drift(X, Y, metric=metric, n_permutations=5, random_state=3)
    draw, both = np.random.RandomState(3), TokenArray.concatenate([X, Y])
    for null in result.null[0]:
        first = np.sort(draw.permutation(21)[:12])
        rest = np.setdiff1d(np.arange(21), first)
        again = activation_drift(both[first], both[rest], metric=metric, n_permutations=1)
        np.testing.assert_allclose(again.distance, [null], rtol=1e-6)
    share = (1 + (result.null >= result.distance[:, None]).sum(axis=1)) / 6
    np.testing.assert_allclose(result.p_value, share)


@pytest.mark.parametrize("metric", ["wasserstein", "frechet"])
def test_chance_is_uniform_without_drift_and_small_with_it(metric, rng):
    settings = {"metric": metric, "n_permutations": 39, "random_state": 0}
    chances = [
        activation_drift(some(rng, 15), some(rng, 15), **settings).p_value[0] for _ in range(60)
    ]
    assert np.mean(np.array(chances) <= 0.1) < 0.25
    assert 0.35 < np.mean(chances) < 0.65
    moved = activation_drift(some(rng, 30), some(rng, 30, 1.5), **settings)
    assert moved.p_value[0] == pytest.approx(1 / 40)
    # Dealing tokens as if they were independent would find drift where there is none.
    wrong = [
        activation_drift(some(rng, 15).flat(), some(rng, 15).flat(), **settings).p_value[0]
        for _ in range(30)
    ]
    assert np.mean(np.array(wrong) <= 0.1) > 0.4


def test_a_shift_is_its_length(rng):
    X = some(rng, 20)
    by = np.array([1.0, -2.0, 0.0, 3.0])
    moved = X.with_values(X.values + by)
    result = activation_drift(X, moved, n_permutations=1)
    np.testing.assert_allclose(result.by_feature[0], np.abs(by), atol=1e-9)
    result = activation_drift(X, moved, metric="frechet", n_permutations=1)
    np.testing.assert_allclose(result.distance, [14.0], rtol=1e-6)


def test_layers_share_their_deals(rng):
    X, Y = some(rng, 20), some(rng, 15, 0.4)
    stacks = [LayerStack({1: one, 4: one}) for one in (X, Y)]
    result = activation_drift(*stacks, n_permutations=7, random_state=0)
    alone = activation_drift(X, Y, n_permutations=7, random_state=0)
    assert result.layers == [1, 4]
    assert alone.layers == [None]
    np.testing.assert_allclose(result.null, np.repeat(alone.null, 2, axis=0))


def test_another_model_is_warned_of(rng):
    X, Y = (some(rng, 9, source=Source(name, block=1)) for name in "ab")
    with pytest.warns(UserWarning, match="differs between the models"):
        assert activation_drift(X, Y, n_permutations=1).layers == [1]


def bad(rng):
    X, stack = some(rng, 9), LayerStack({0: some(rng, 9)})
    at = [some(rng, 9, source=Source("a", block=block)) for block in (1, 2)]
    return [
        ((X, some(rng, 9, width=3)), "equally wide, got 4 and 3"),
        ((X, stack), "stacks of the same layers, got no layers"),
        ((LayerStack({1: X}), LayerStack({0: X})), r"got \[1\] and \[0\]"),
        (at, "another block"),
        ((X, ["a"]), "Y must be tokens"),
        (([[np.nan]], X), "X must be tokens.*NaN"),
    ]


@pytest.mark.parametrize("case", range(6))
def test_what_cannot_be_compared(case, rng):
    pair, message = bad(rng)[case]
    with pytest.raises((ValueError, TypeError), match=message):
        activation_drift(*pair)


def test_deals_that_can_tell_nothing_are_said(rng):
    with pytest.warns(UserWarning, match=r"1 and 1 samples can be dealt in 1 way that differs"):
        result = activation_drift(rng.normal(size=(1, 3)), rng.normal(size=(1, 3)), random_state=0)
    assert result.p_value == 1
    with pytest.warns(UserWarning, match=r"2 and 3 samples can be dealt in 10 ways .* about 0.10"):
        activation_drift(rng.normal(size=(2, 3)), rng.normal(size=(3, 3)), random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        activation_drift(rng.normal(size=(3, 3)), rng.normal(size=(4, 3)), random_state=0)


def test_errors_name_the_set_and_the_function(rng):
    with pytest.raises(ValueError, match=r"Y must be tokens: Y contains NaN"):
        activation_drift(rng.normal(size=(4, 3)), np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match=r"Y must be tokens: Y has no samples"):
        activation_drift(rng.normal(size=(4, 3)), [])
