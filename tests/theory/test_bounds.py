"""Bounds on 10,000 random cases each, close where theory says so, and false where they are cut."""

import numpy as np
import pytest

from skact import theory
from tests.theory.cases import sequences

A = sequences(10_000, 4, seed=1)
ROUNDING = 1 + 1e-10


def noises(e, n, seed=0):
    rng = np.random.default_rng(seed)
    # The worst noise stands at the ends.
    ends = rng.random((len(A), 1, 1)) < 0.5
    eps = rng.uniform(-e, e, (len(A), 4, 4))
    xi = rng.uniform(-n, n, A.shape)
    return np.where(ends, e * np.sign(eps), eps), np.where(ends[..., 0], n * np.sign(xi), xi)


def test_margins():
    margins = theory.pole_margins([[3.0, -1.0, 1.0], [2.0, 2.0, 0.0]])
    np.testing.assert_array_equal(margins.high, [2.0, 0.0])
    np.testing.assert_array_equal(margins.low, [2.0, 2.0])
    assert theory.pole_margins([1.0, 4.0]).low == 3


def test_the_mass_off_the_pole_is_the_rest():
    weights = np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25], [0.6, 0.3, 0.1]])
    # The pole of a positive token is the largest, of others the smallest.
    np.testing.assert_allclose(theory.off_pole_mass(weights, [3.0, -2.0, 0.0]), [0.9, 0.75, 0.7])


@pytest.mark.parametrize("kappa", [0.1, 1.0, 6.0])
@pytest.mark.parametrize("e", [0.0, 0.3, 2.0])
def test_attention_concentrates(kappa, e):
    eps, _ = noises(e, 0)
    mass = theory.off_pole_mass(theory.attention(A, kappa, logit_noise=eps), A)
    bound = theory.concentration_bound(A, kappa, logit_bound=e)
    assert (mass <= bound * ROUNDING).all()
    if kappa > 0.1:
        assert (bound < 0.5).mean() > 0.1, "it says something"
        assert (mass > bound / 2).any(), "a bound of half its size would be false"


@pytest.mark.parametrize(("kappa", "beta"), [(0.2, 0.5), (1.0, 0.1), (1.0, 2.0), (6.0, 1.0)])
def test_equalization_within_the_tail(kappa, beta):
    ratio, bounds = (
        f(A, kappa, beta) for f in (theory.equalization_ratio, theory.equalization_bounds)
    )
    moved = theory.update(A, kappa, beta)
    top, after = A.max(axis=1, keepdims=True), moved.max(axis=1, keepdims=True)
    distances, then = (top - A) / top, (after - moved) / after
    apart = (top > A) & (np.abs(after) > 1e-9)
    np.testing.assert_allclose((ratio * distances)[apart], then[apart], rtol=1e-8, atol=1e-11)
    # Where the largest is not nearly zero, and the quotient keeps its digits.
    sound = (np.minimum(np.abs(top), np.abs(after)) > 0.1 * np.abs(moved)).all(axis=1)
    assert sound.mean() > 0.8
    exact, found = then[sound], np.where(apart, ratio * distances, 0)[sound]
    assert (np.abs(found - exact) <= 1e-12 * (1 + np.abs(exact))).all()
    known = A > 0
    assert np.isnan(bounds.low[~known]).all()
    assert (bounds.low[known] <= ratio[known] * ROUNDING).all()
    assert (ratio[known] <= bounds.high[known] * ROUNDING).all()
    limits = (bounds.low == 1 / (1 + beta))[known]
    assert limits.mean() > 0.8
    assert np.isneginf(bounds.low[known][~limits]).all()


def test_the_ratio_tends_to_its_limit():
    a = np.array([0.5, 1.0, 1.5])
    for scale, error in ((1, 0.5), (4, 0.01), (8, 1e-6)):
        ratio = theory.equalization_ratio(scale * a, 2.0, 0.25)[:2]
        assert (np.abs(ratio - 1 / 1.25) < error).all()
        bounds = theory.equalization_bounds(scale * a, 2.0, 0.25)
        assert (ratio <= bounds.high[:2] * ROUNDING).all()
    np.testing.assert_allclose(bounds.high[:2], 1 / 1.25, rtol=1e-6)


def test_of_a_top_that_falls_below_zero_nothing_is_said():
    a, beta = np.array([0.1, -10.0, -10.0]), 2.0
    assert theory.update(a, 0.01, beta).max() < 0
    assert theory.equalization_ratio(a, 0.01, beta)[1] < 1 / (1 + beta)
    bounds = theory.equalization_bounds(a, 0.01, beta)
    assert (bounds.low[0], bounds.high[0]) == (-np.inf, np.inf)


@pytest.mark.parametrize("d", [0.0, 0.01, 0.5, 3.0])
def test_a_softmax_is_stable(d, rng):
    z = rng.normal(size=(10_000, 4)) * rng.choice([0.1, 1, 5], (10_000, 1))
    noise = d * np.sign(rng.normal(size=z.shape))
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (z, z + noise))
    bounds = theory.softmax_stability(d)
    moved = np.abs(p - q).sum(axis=1)
    assert (p / q <= bounds["ratio"] * ROUNDING).all()
    assert (q / p <= bounds["ratio"] * ROUNDING).all()
    assert (moved <= bounds["tight"] + 1e-12).all()
    assert bounds["tight"] <= bounds["paper"]
    two = [np.array([1.0, 1 / (1 + np.exp(s))]) for s in (d, -d)]
    assert abs(2 * abs(two[0][1] - two[1][1]) - bounds["tight"]) < 1e-12, "attained by two tokens"


@pytest.mark.parametrize("e", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("kappa", [0.1, 1.0])
def test_noise_moves_gaps_by_no_more(kappa, e):
    n, beta = 0.1, 0.7
    eps, xi = noises(e, n)
    after = theory.gaps(theory.update(A, kappa, beta, logit_noise=eps, noise=xi))
    spread = np.ptp(A, axis=1)
    bound = {
        form: theory.noise_term(spread, beta, logit_bound=e, noise_bound=n, form=form)
        for form in ("paper", "sharp", "noiseless")
    }
    variance = {
        "plain": theory.pair_variance(A, kappa),
        "noisy": theory.pair_variance(A, kappa, logit_noise=eps),
    }
    off, off_noisy = (
        np.abs(after - (1 + beta * kappa * v) * theory.gaps(A)).max(axis=(1, 2))
        for v in variance.values()
    )
    assert (off <= bound["noiseless"] + 1e-12).all()
    assert (off_noisy <= bound["sharp"] + 1e-12).all()
    assert (np.maximum(off, off_noisy) <= bound["paper"] + 1e-12).all()
    assert (bound["sharp"] <= bound["noiseless"]).all()
    assert (bound["noiseless"] <= bound["paper"]).all()
    assert (off > 0.4 * bound["noiseless"]).any()
    # Above the threshold gaps grow.
    pairs = ("plain", "paper"), ("plain", "noiseless"), ("noisy", "paper"), ("noisy", "sharp")
    for kind, form in pairs:
        least = theory.gap_threshold(
            *(variance[kind], spread[:, None, None], kappa, beta),
            logit_bound=e,
            noise_bound=n,
            form=form,
        )
        large = theory.gaps(A) > least
        assert (after[large] > theory.gaps(A)[large]).all()
        assert large.any() or e > 0.1
    assert (after < theory.gaps(A))[theory.gaps(A) > 0].any(), "smaller ones may shrink"


@pytest.mark.parametrize(("e", "beta"), [(0.3, 1.0), (2.0, 0.5)])
def test_the_sharp_form_is_none_around_the_growth_without_noise(e, beta):
    """Two tokens whose weights the noise turns round attain the form that is one."""
    a = np.sqrt(e / 2) * np.array([1.0, -1.0])  # logits differ by 2 e
    eps = e * np.array([[-1.0, 1.0], [1.0, -1.0]])
    after = theory.gaps(theory.update(a, 1.0, beta, logit_noise=eps))[0, 1]
    off = abs(after - (theory.growth_factor(a, 1.0, beta) * theory.gaps(a))[0, 1])
    noisy = theory.growth_factor(a, 1.0, beta, logit_noise=eps)[0, 1] * theory.gaps(a)[0, 1]
    sharp, noiseless = (
        theory.noise_term(np.ptp(a), beta, logit_bound=e, form=form)
        for form in ("sharp", "noiseless")
    )
    assert abs(off - noiseless) < 1e-12
    assert off > sharp
    assert abs(after - noisy) <= sharp


def test_forms_of_the_noise():
    e, n = 0.4, 0.1
    options = {"logit_bound": e, "noise_bound": n}
    found = [theory.noise_term(3.0, 0.5, form=f, **options) for f in ("paper", "sharp")]
    expected = [1.5 * (np.exp(4 * e) - 1) / 2 + 2 * n, 1.5 * np.tanh(e) + 2 * n]
    np.testing.assert_allclose(found, expected)
    threshold = theory.gap_threshold([0.5, 0.0], 3.0, 2.0, 0.5, form="sharp", **options)
    np.testing.assert_allclose(threshold, [expected[1] / 0.5, np.inf])


BAD = [
    (lambda: theory.pole_margins([1.0]), "activations must have two or more tokens"),
    (lambda: theory.off_pole_mass(np.ones((2, 3)), [1.0, 2]), r"attention must have shape \(2, 2"),
    (lambda: theory.concentration_bound([1.0, 2], -1), "kappa must be one number above 0"),
    (lambda: theory.concentration_bound([1.0, 2], 1, logit_bound=-1), "logit_bound must be one"),
    (
        lambda: theory.equalization_bounds([1.0, 2], 1, -0.1),
        "beta must be one number of at least 0",
    ),
    (lambda: theory.softmax_stability(-1), "logit_bound must be one number of at least 0"),
    (lambda: theory.noise_term(1.0, 1.0, form="best"), "form must be one of .* got 'best'"),
    (lambda: theory.noise_term(-1.0, 1.0), "spread must not be negative"),
    (lambda: theory.noise_term(1.0, 1.0, noise_bound=np.inf), "noise_bound must be finite"),
    (lambda: theory.gap_threshold(1.0, 1.0, 1.0, -1.0), "beta must be one number of at least 0"),
    (
        lambda: theory.gap_threshold([1.0, 2], [1.0, 2, 3], 1, 0.1),
        r"variance and spread must fit each other, got shapes \(2,\) of variance, \(3,\) of spread",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
