"""The loss through the pool is its formula, and each convex step lowers it."""

from itertools import pairwise

import numpy as np
import pytest
import sklearn
from scipy.optimize import approx_fprime

from skact import TokenArray
from skact.concepts._pooled_loss import Pool, PooledLoss, minimum

POOLS = {
    "soft": Pool(3.0, 1, 1, None),
    "soft windows": Pool(3.0, 3, 1, None),
    "max": Pool(None, 1, 1, None),
    "windows": Pool(None, 3, 2, None),
    "share": Pool(None, 2, 1, 0.4),
    "mean": Pool(None, 1, 1, 1.0),
}
HARD = [name for name, pool in POOLS.items() if pool.sharpness is None]
pools = pytest.mark.parametrize("name", POOLS)


@pytest.fixture
def problem(rng):
    """Tokens, which sample holds which of two concepts, and labels of tokens for most positives."""
    present = rng.random((30, 2)) < 0.5
    lengths = rng.integers(1, 9, 30)
    samples = [rng.normal(size=(n, 4)) for n in lengths]
    labels = [row & (rng.random((n, 2)) < 0.5) for n, row in zip(lengths, present, strict=True)]
    return TokenArray.from_list(samples), present, TokenArray.from_list(labels)


def make(problem, name, *, labelled=False, benign=0.0):
    X, present, labels = problem
    settings = (np.array([0.1, 0.02]), 0.7, benign, 0.8)
    return PooledLoss(X, present, labels if labelled else None, POOLS[name], *settings)


def slow_windows(scores, window):
    m = min(window, len(scores))
    return np.array([scores[t : t + m].mean() for t in range(len(scores) - m + 1)])


def slow_pool(pool, means):
    if pool.sharpness is not None:
        return np.log(np.mean(np.exp(pool.sharpness * means))) / pool.sharpness
    k = min(pool.top, len(means))
    if pool.share is not None:
        k = max(1, round(pool.share * len(means)))
    return np.sort(means)[-k:].mean()


def slow_tails(loss, flat):
    """Softmax of the windows of each sample and concept."""
    vectors = flat[:-2].reshape(2, -1)
    found = {}
    for c in range(2):
        for i, tokens in enumerate(loss.tokens):
            power = np.exp(slow_windows(tokens @ vectors[c], loss.pool.window) / loss.temperature)
            found[i, c] = power / power.sum()
    return found


def slow_loss(loss, flat, tails=None):
    """The docstring of MaxSeparator, concept by concept and sample by sample."""
    vectors, tails = flat[:-2].reshape(2, -1), tails or slow_tails(loss, flat)
    total = 0.0
    for c in range(2):
        v, b, y = vectors[c], flat[c - 2], loss.present[:, c]
        total += loss.weight_decay[c] / 2 * (v @ v)
        known, marks = [], []
        for i, tokens in enumerate(loss.tokens):
            scores = tokens @ v
            means = slow_windows(scores, loss.pool.window)
            value = slow_pool(loss.pool, means)
            mine = np.zeros(0, bool) if loss.labels is None else loss.labels[i][:, c]
            if mine.any():
                inside = Pool(loss.pool.sharpness, 1, 1, None)
                value = slow_pool(inside, scores[mine])
            if mine.any() or not y[i]:
                known.extend(scores + b)
                marks.extend(mine if len(mine) else np.zeros(len(scores), bool))
            sign = 1 if y[i] else -1
            total += 0.5 / (y == y[i]).sum() * np.log1p(np.exp(-sign * (value + b)))
            if not y[i]:
                spread = tails[i, c] @ (means - means.mean()) ** 2
                total += loss.benign_variance * spread / (~y).sum()
        if loss.labels is not None:
            known, marks = np.array(known), np.array(marks)
            for mark, logit in zip(marks, known, strict=True):
                weight = 0.5 / (marks == mark).sum() * loss.token_weight
                total += weight * np.log1p(np.exp(-logit if mark else logit))
    return total


@pytest.mark.parametrize("benign", [0.0, 0.6])
@pytest.mark.parametrize("labelled", [False, True])
@pools
def test_loss_and_gradient_are_those_of_the_formula(problem, rng, name, labelled, benign):
    loss = make(problem, name, labelled=labelled, benign=benign)
    flat = rng.normal(size=10)
    frozen, tails = loss.freeze(flat), slow_tails(loss, flat)
    for value in (loss(flat)[0], loss(flat, frozen)[0]):
        assert value == pytest.approx(slow_loss(loss, flat), rel=1e-10)
    # Where it is frozen, the loss has the gradient of the one that is not, but for the tails.
    expected = approx_fprime(flat, lambda f: slow_loss(loss, f, tails), 1e-6)
    np.testing.assert_allclose(loss(flat, frozen)[1], expected, atol=1e-4)
    other = rng.normal(size=10)
    with sklearn.config_context(working_memory=0):
        pieces = loss(other, loss.freeze(flat))
    whole = loss(other, frozen)
    assert pieces[0] == pytest.approx(whole[0])
    np.testing.assert_allclose(pieces[1], whole[1], atol=1e-12)


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("name", HARD)
def test_a_frozen_loss_is_convex_and_lies_above_the_loss(problem, rng, name, labelled):
    loss = make(problem, name, labelled=labelled)
    at, *others = rng.normal(size=(20, 10))
    frozen = loss.freeze(at)
    values = [(loss(one)[0], loss(one, frozen)[0]) for one in others]
    assert all(above >= below - 1e-12 for below, above in values)
    assert name == "mean" or max(above - below for below, above in values) > 1e-3
    for one, two in pairwise(others):
        ends = loss(one, frozen)[0], loss(two, frozen)[0]
        assert loss((one + two) / 2, frozen)[0] <= np.mean(ends) + 1e-12


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("name", HARD)
def test_the_loss_falls_with_every_step(problem, rng, name, labelled):
    loss = make(problem, name, labelled=labelled)
    found = minimum(loss, rng.normal(size=10), 200, 1e-9)
    assert 2 <= len(found.curve) <= 7
    assert (np.diff(found.curve) <= 1e-9).all()
    assert found.curve[-1] < 0.9 * found.curve[0]
    assert found.curve[-1] == pytest.approx(slow_loss(loss, found.flat), rel=1e-9)
    # Begun at the minimum of the soft maximum, it does not end above that.
    curve = minimum(loss, None, 200, 1e-9).curve
    assert (np.diff(curve) <= 1e-9).all()


def test_a_penalty_takes_steps_that_come_to_rest(problem):
    loss = make(problem, "soft", benign=0.6)
    found = minimum(loss, None, 200, 1e-10)
    assert 2 <= len(found.curve) <= 7
    steps = abs(np.diff(found.curve))
    assert steps[-1] < 0.1 * steps[0]
    assert len(minimum(make(problem, "soft"), None, 200, 1e-9).curve) == 1


@pools
def test_pooled_scores_are_those_of_the_pool(problem, rng, name):
    X, flat = problem[0], rng.normal(size=10)
    pooled = POOLS[name].scores(X, flat, 2)
    for i, tokens in enumerate(X):
        for c, v in enumerate(flat[:8].reshape(2, 4)):
            means = slow_windows(tokens @ v, POOLS[name].window)
            assert pooled[i, c] == pytest.approx(slow_pool(POOLS[name], means) + flat[8 + c])


def test_some_samples_have_the_loss_of_these_samples(problem, rng):
    X, present, labels = problem
    rows, flat = np.array([3, 4, 9, 17, 20, 21, 28]), rng.normal(size=10)
    part = make(problem, "max", labelled=True).rows(rows)
    alone = make((X[rows].compact(), present[rows], labels[rows]), "max", labelled=True)
    assert part(flat)[0] == alone(flat)[0]
