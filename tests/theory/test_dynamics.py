"""The map of a layer: identities to 1e-12, against formulas written as loops and as differences."""

import numpy as np
import pytest

from skact import theory
from tests.theory.cases import sequences

A = sequences(10_000, 5)
HEADS = [(1.0, 0.3), (0.05, 1.5), (4.0, -0.2)]


def close(found, expected, tolerance=1e-12):
    np.testing.assert_array_less(np.abs(found - expected), tolerance * (1 + np.abs(expected)))


def softmax(logits):
    weights = [np.exp(z - max(logits)) for z in logits]
    return [w / sum(weights) for w in weights]


def slow_update(a, kappa, beta, eps, xi):
    moved = []
    for i, x in enumerate(a):
        weights = softmax([kappa * x * y + eps[i][j] for j, y in enumerate(a)])
        moved.append(x + beta * sum(w * y for w, y in zip(weights, a, strict=True)) + xi[i])
    return moved


def test_the_update_is_the_formula(rng):
    for a in A[:50]:
        eps, xi = rng.normal(size=(5, 5)), rng.normal(size=5)
        found = theory.update(a, 0.7, 0.4, logit_noise=eps, noise=xi)
        close(found, np.array(slow_update(a, 0.7, 0.4, eps, xi)))
    close(theory.update(A, 0.7, 0.4)[3], theory.update(A[3], 0.7, 0.4))


@pytest.mark.parametrize(("kappa", "beta"), HEADS)
def test_the_update_is_one_map_of_all_tokens(kappa, beta):
    close(theory.update(A, kappa, beta), theory.layer_map(A, A, kappa, beta))


def test_cumulants_are_the_map():
    for kappa, _ in HEADS:
        found = theory.cumulants(A, kappa * A)
        close(found.mean, theory.mean_activation(A, A, kappa))
        weights = theory.attention(A, kappa)
        apart = A[:, None, :] - found.mean[..., None]
        close(found.variance, (weights * apart**2).sum(-1))
        close(found.third, (weights * apart**3).sum(-1))
        assert (found.variance >= 0).all()


def test_cumulants_are_derivatives_of_the_first():
    a, s, h = A[:200] / np.abs(A[:200]).max(axis=1, keepdims=True), np.linspace(-3, 3, 7), 1e-4
    at = [theory.cumulants(a, s + step) for step in (-h, 0, h)]
    for lower, upper in (("value", "mean"), ("mean", "variance"), ("variance", "third")):
        slope = (getattr(at[2], lower) - getattr(at[0], lower)) / (2 * h)
        np.testing.assert_allclose(getattr(at[1], upper), slope, atol=1e-6)
    naive = np.log(np.exp(s[None, :, None] * a[:, None, :]).mean(axis=2))
    close(at[1].value, naive)


def test_derivatives_to_the_last_digit():
    """A complex step has no cancellation: f'(s) is the imaginary part of f(s + ih) over h."""
    a, s, h = A / np.abs(A).max(axis=1, keepdims=True), np.linspace(-3, 3, 7), 1e-30

    def moments(s):
        weights = np.exp(s[None, :, None] * a[:, None, :])
        value = np.log(weights.mean(axis=2))
        weights = weights / weights.sum(axis=2, keepdims=True)
        mean = (weights * a[:, None, :]).sum(axis=2)
        return value, mean, (weights * (a[:, None, :] - mean[..., None]) ** 2).sum(axis=2)

    found = theory.cumulants(a, s)
    value, mean, variance = (part.imag / h for part in moments(s + 1j * h))
    close(found.value, moments(s)[0])
    close(found.mean, value)
    close(found.variance, mean)
    close(found.third, variance)
    assert (found.variance >= 0).all(), "the softmax mean never falls"


def test_cumulants_do_not_overflow():
    found = theory.cumulants([-1e4, 0.0, 1e4], [50.0])
    assert found.value.item() == 5e5 - np.log(3)
    assert found.mean.item() == 1e4
    assert found.variance.item() == 0


@pytest.mark.parametrize(("kappa", "beta"), HEADS)
def test_gaps_grow_as_the_identity_says(kappa, beta):
    before = theory.gaps(A)
    after = theory.gaps(theory.update(A, kappa, beta))
    close(after, theory.growth_factor(A, kappa, beta) * before)
    if beta > 0:
        assert (theory.growth_factor(A, kappa, beta) >= 1).all()
        assert (np.argsort(A, kind="stable") == np.argsort(before[:, :, 0], kind="stable")).all()
        assert (np.sign(after) == np.sign(before)).all(), "order is kept"


def test_with_a_negative_write_order_is_lost():
    a = np.array([-1.0, 0.0, 1.0])
    assert (np.diff(theory.update(a, 1.0, -3.0)) < 0).any()


@pytest.mark.parametrize("gap", [0.0, 1e-14, 1e-9, 1e-5, 0.01, 0.2, 0.6, 1.0])
def test_the_variance_between_has_all_its_digits(gap):
    """Against 40 nodes in pieces; the quotient alone would lose half of them."""
    a, kappa, y = np.array([-1.0, -0.2, 0.1, 2.0]), 1.3, 0.4
    nodes, weights = np.polynomial.legendre.leggauss(40)
    at = y + gap * (nodes + 1) / 2
    exact = (weights / 2 * theory.cumulants(a, kappa * at).variance).sum()
    assert abs(theory.gap_variance(y + gap, y, a, kappa).item() / exact - 1) < 1e-13
    if 0 < gap < 1e-6:
        quotient = np.diff(theory.mean_activation([y, y + gap], a, kappa)) / (kappa * gap)
        assert abs(quotient.item() / exact - 1) > 1e-10, "the control"


def test_the_variance_between_under_noise(rng):
    eps = rng.uniform(-1, 1, (len(A), 5, 5))
    pairs = theory.pair_variance(A, 1.0, logit_noise=eps)
    m = theory.mean_activation
    mean_i = m(A, A, 1.0, logit_noise=eps)[:, :, None]
    # Row i's noise, at the activation of j.
    mean_j = np.stack([m(A, A, 1.0, logit_noise=eps[:, i : i + 1]) for i in range(5)], axis=1)
    close(pairs * theory.gaps(A), mean_i - mean_j)
    close(np.diagonal(theory.pair_variance(A, 1.0), axis1=1, axis2=2), cumulant_variance(A))


def cumulant_variance(a):
    return theory.cumulants(a, a).variance


def test_curvature_is_the_second_derivative(rng):
    a, noise = sequences(300, 5, seed=2), rng.normal(size=(300, 5))
    a /= np.abs(a).max(axis=1, keepdims=True)
    kappa, beta, h, eps = 1.7, 0.4, 1e-4, rng.normal(size=(300, 5, 5))

    def moved(x, n):
        weights = theory.attention(a, kappa)  # for its shape
        logits = kappa * x[..., None] * a[:, None, :] + eps
        weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        return x + (weights * (beta * a + n)[:, None, :]).sum(-1)

    for n in (np.zeros_like(noise), noise):
        second = (moved(a + h, n) - 2 * moved(a, n) + moved(a - h, n)) / h**2
        found = theory.curvature(a, a, kappa, beta, logit_noise=eps, value_noise=n)
        np.testing.assert_allclose(found, second, atol=1e-6)
    logits = kappa * a[..., None] * a[:, None, :] + eps
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    apart = a[:, None, :] - (weights * a[:, None, :]).sum(-1, keepdims=True)
    noisy = noise[:, None, :] - (weights * noise[:, None, :]).sum(-1, keepdims=True)
    close(found, kappa**2 * (weights * (beta * apart**3 + apart**2 * noisy)).sum(-1))
    plain = theory.curvature(a, a, kappa, beta)
    close(plain, beta * kappa**2 * theory.cumulants(a, kappa * a).third)


def test_a_causal_token_attends_backwards():
    weights = theory.attention(A[:5], 1.0, causal=True)
    assert (np.triu(weights, 1) == 0).all()
    close(weights.sum(-1), np.ones((5, 5)))
    close(theory.update(A[:5], 1.0, 0.5, causal=True)[:, 0], 1.5 * A[:5, 0])
    close(theory.update(A[:5], 1.0, 0.5, causal=True)[:, -1], theory.update(A[:5], 1, 0.5)[:, -1])


BAD = [
    (lambda: theory.update([], 1, 1), "activations must have 1 or more axes and one or more"),
    (lambda: theory.update(3.0, 1, 1), "activations must have 1 or more axes"),
    (lambda: theory.update(["a"], 1, 1), "activations must hold real numbers"),
    (lambda: theory.update([1j], 1, 1), "activations must hold real numbers"),
    (lambda: theory.update([[1], [1, 2]], 1, 1), "activations must hold real numbers"),
    (lambda: theory.update([np.nan], 1, 1), "activations must be finite"),
    (lambda: theory.update([1.0], 0, 1), "kappa must be one number above 0, got 0"),
    (lambda: theory.update([1.0], [1, 2], 1), "kappa must be one number above 0"),
    (lambda: theory.update([1.0], None, 1), "kappa must hold real numbers"),
    (lambda: theory.update([1.0], 1, [1, 2]), "beta must be one number"),
    (lambda: theory.update([1.0, 2], 1, 1, logit_noise=[1, 2, 3]), r"logit_noise .* \(2, 2\)"),
    (
        lambda: theory.update([1.0, 2], 1, 0.1, noise=[1.0, 2, 3]),
        r"activations and noise must fit .* \(2,\) of activations, \(3,\) of noise",
    ),
    (
        lambda: theory.gap_variance([1.0, 2], [1.0, 2, 3], [1.0, 2], 1.0),
        r"x and y must fit each other, got shapes \(2,\) of x, \(3,\) of y",
    ),
    (
        lambda: theory.mean_activation([[1.0], [2], [3]], [[1.0, 2], [2, 3]], 1.0),
        r"x and activations must be of the same sequences, got shapes \(3, 1\) and \(2, 2\)",
    ),
    (
        lambda: theory.gap_variance([1.0], [[1.0], [2], [3]], [[1.0, 2], [2, 3]], 1.0),
        r"y and activations must be of the same sequences",
    ),
    (lambda: theory.cumulants([[1.0, 2], [2, 3]], np.ones((3, 1))), "s and activations must be"),
    (lambda: theory.update(np.array([1.0, -2]) * 1e200, 1.4, 0.3), "activations are too large"),
    (lambda: theory.update([1e300, 0.0], 1e-300, 1e10), "no longer finite after the layer"),
    (lambda: theory.pair_variance([1.0, 2], 1, logit_noise=[1, 2, 3]), "logit_noise must have one"),
    (lambda: theory.curvature([1.0], [1.0, 2], 1, 1, value_noise=[1, 2, 3]), "value_noise must"),
    (lambda: theory.cumulants([1.0], "a"), "s must hold real numbers"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message), np.errstate(over="raise", invalid="raise"):
        call()
