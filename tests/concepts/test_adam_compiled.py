"""The compiled loop takes the steps that numpy takes."""

import importlib
import sys

import numpy as np
import pytest

from skact import LinearSeparator, compiling
from skact.concepts import _adam
from skact.concepts._adam import Adam, AdamRecipe, fit_adam

numba = pytest.importorskip("numba")

COMPILED = "skact.concepts._adam_compiled"
compiled = importlib.import_module(COMPILED)

PAPER = AdamRecipe(
    shuffle=True,
    batch_size=32,
    learning_rate=0.05,
    weight_decay=1e-2,
    max_epochs=6,
    lr_step=2,
    lr_decay=0.5,
    patience=15,
    tol=3.0,
    stop_f1=None,
)


@pytest.fixture
def problem(rng):
    """Tokens of 40 features and three concepts on rows of their own, 7 to 250 of them."""
    values = rng.normal(size=(300, 40)).astype(np.float32)
    rows = [np.sort(rng.choice(300, n, replace=False)) for n in (100, 250, 7)]
    hidden = rng.normal(size=(3, 40))
    targets = [(values[r] @ v > 0).astype(np.float32) for r, v in zip(rows, hidden, strict=True)]
    weights = [rng.uniform(0.5, 2, size=len(r)) for r in rows]
    return values, rows, targets, weights, rng.normal(size=(3, 40)) / 6


def fit(problem, worth, monkeypatch, recipe=PAPER, report=None):
    monkeypatch.setattr(compiling, "_WORTH_COMPILING", worth)
    return fit_adam(*problem, recipe, seed=0, report=report)


def never_stop(vectors):
    return False


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"shuffle": False, "batch_size": 33},
        {"batch_size": 1000, "weight_decay": 0.0},
        {"max_epochs": 40, "patience": 2, "tol": 1e-3},
        {"max_epochs": 40, "stop_f1": 0.9},
    ],
)
@pytest.mark.parametrize("report", [None, never_stop])
def test_both_reach_the_same(problem, monkeypatch, changes, report):
    recipe = AdamRecipe(**(vars(PAPER) | changes))
    slow, fast = (fit(problem, worth, monkeypatch, recipe, report) for worth in (np.inf, 0))
    np.testing.assert_allclose(fast.vectors, slow.vectors, atol=1e-5)
    assert np.abs(slow.vectors - problem[-1]).max() > 0.1
    for name in ("loss_curves", "f1_curves"):
        for got, expected in zip(getattr(fast, name), getattr(slow, name), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_loop_itself_takes_numpys_steps(problem):
    values, rows, targets, weights, init = problem
    order = [1, 0, 2]
    group = _adam._Group(*([part[c] for c in order] for part in (rows, targets, weights)))
    batches = group.minibatches(np.arange(3), 32, None)
    states = [Adam(init[order], 0.01) for _ in range(3)]
    rates = states[0].rates(0.05, len(batches.rows))
    before = states[0].vectors.copy()
    slow = _adam.walk(values, batches, before, states[0], rates, _adam.Lock())
    fast = compiled.walk(values, batches, before, states[1], rates)
    plain = np.zeros_like(slow)
    arrays = (batches.rows, batches.targets, batches.weights, batches.n_steps, before)
    moving = (states[2].vectors, states[2].moments, compiled._BETAS, states[2].weight_decay)
    compiled.take_steps(values, *arrays, *moving, rates, plain)
    for scores, state in ((fast, states[1]), (plain, states[2])):
        np.testing.assert_allclose(scores[batches.real], slow[batches.real], atol=1e-5)
        np.testing.assert_allclose(state.vectors, states[0].vectors, atol=1e-5)
        np.testing.assert_allclose(state.moments, states[0].moments, atol=1e-4)
    assert np.abs(states[0].vectors - before).max() > 0.1


@pytest.mark.parametrize("worth", [np.inf, 0])
def test_a_report_sees_all_after_the_same_epoch_and_stops_all(problem, monkeypatch, worth):
    seen = []

    def stop_after_two(vectors):
        seen.append(vectors().copy())
        return len(seen) == 2

    stopped = fit(problem, worth, monkeypatch, report=stop_after_two)
    assert [len(curve) for curve in stopped.loss_curves] == [2, 2, 2]
    np.testing.assert_array_equal(stopped.vectors, seen[1])
    for n_epochs, vectors in enumerate(seen, start=1):
        short = AdamRecipe(**(vars(PAPER) | {"max_epochs": n_epochs}))
        np.testing.assert_array_equal(fit(problem, worth, monkeypatch, short).vectors, vectors)
    whole = fit(problem, worth, monkeypatch)
    watched = fit(problem, worth, monkeypatch, report=never_stop)
    np.testing.assert_array_equal(watched.vectors, whole.vectors)
    assert not np.allclose(whole.vectors, seen[1], atol=1e-2)


def test_rows_are_read_where_they_are_if_they_are_many(problem, monkeypatch):
    held = fit(problem, 0, monkeypatch).vectors
    monkeypatch.setattr(_adam, "_BLOCK", 0)
    problem[0].flags.writeable = False
    np.testing.assert_array_equal(fit(problem, 0, monkeypatch).vectors, held)


def test_without_numba_numpy_does_it(problem, monkeypatch):
    expected = fit(problem, np.inf, monkeypatch).vectors
    assert (fit(problem, 0, monkeypatch).vectors != expected).any()
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, COMPILED)
    monkeypatch.setattr(compiling, "_imported", compiling._imported.__wrapped__)
    np.testing.assert_array_equal(fit(problem, 0, monkeypatch).vectors, expected)


@pytest.mark.parametrize(("max_epochs", "n_calls"), [(100, 17), (15, 0)])
def test_only_what_is_worth_it_is_compiled(rng, monkeypatch, max_epochs, n_calls):
    X, called, walk = rng.normal(size=(50, 8)), [], compiled.walk
    monkeypatch.setattr(compiled, "walk", lambda *args: called.append(args) or walk(*args))
    # With the paper's tolerance a run ends after 16 epochs.
    monkeypatch.setattr(compiling, "_WORTH_COMPILING", 16 * X.size)
    LinearSeparator("adam", balance=None, max_epochs=max_epochs).fit(X, X[:, 0] > 0)
    assert len(called) == n_calls
