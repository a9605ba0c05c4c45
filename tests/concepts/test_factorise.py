"""Factorisations as functions; what the estimators make of them is tested beside them."""

import numpy as np
import pytest
import sklearn
from scipy.optimize import nnls
from sklearn.decomposition import MiniBatchNMF

from skact import TokenArray
from skact.concepts import _factorise
from skact.concepts._factorise import (
    activations,
    first_parts,
    nmf_in_blocks,
    reconstruction_error,
    semi_nmf,
    train_nmf,
)


@pytest.fixture
def tokens(rng):
    """Samples of three tokens that are sums of two parts."""
    return TokenArray(rng.random((60, 2)) @ rng.random((2, 5)), np.arange(0, 61, 3))


@pytest.mark.parametrize("n_parts", [1, 3, 7])
def test_activations_solve_non_negative_least_squares(rng, n_parts):
    X, parts = rng.normal(size=(60, 8)), rng.normal(size=(n_parts, 8))
    expected = [nnls(parts.T, z)[0] for z in X]
    found = activations(X, parts)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    # Clipping the least-squares solution is another thing.
    clipped = np.maximum(X @ np.linalg.pinv(parts), 0)
    assert n_parts == 1 or not np.allclose(found, clipped, atol=1e-2)


def test_activations_of_more_parts_than_features_fit_as_well(rng):
    X, parts = rng.normal(size=(40, 3)), rng.normal(size=(8, 3))
    found = activations(X, parts)
    assert found.min() >= 0

    # The conditions of Karush, Kuhn and Tucker: not all releases of scipy solve this case rightly.
    def breach(weights):
        slopes = (X - weights @ parts) @ parts.T
        return max(slopes.max(), np.abs(weights * slopes).max())

    assert breach(found) < 1e-6
    assert breach(np.maximum(X @ np.linalg.pinv(parts), 0)) > 0.1


def test_activations_without_an_end_to_the_exchanges_are_solved_one_by_one(rng, monkeypatch):
    X, parts = rng.normal(size=(60, 8)), rng.normal(size=(7, 8))
    expected = [nnls(parts.T, z)[0] for z in X]
    monkeypatch.setattr(_factorise, "_EXCHANGES", 1)
    np.testing.assert_allclose(activations(X, parts), expected, atol=1e-12)
    # Control: one exchange is not enough.
    monkeypatch.setattr(_factorise, "nnls", lambda parts, z, maxiter: (0, 0))
    assert not np.allclose(activations(X, parts), expected, atol=1e-2)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e30])
def test_activations_of_alike_and_dependent_parts_are_the_minimum(rng, scale):
    X = (rng.normal(size=(60, 8)) * scale).astype(np.float32)
    alike = 1 + 0.01 * rng.normal(size=(6, 8))
    np.testing.assert_allclose(
        activations(X, alike) / scale, [nnls(alike.T, z / scale)[0] for z in X], atol=1e-6
    )
    twins = np.concatenate([alike, alike[:2], alike[:1] + alike[1:2]])
    found = activations(X, twins)
    assert found.min() >= 0
    residual = np.linalg.norm((X - found @ twins) / scale, axis=1)
    np.testing.assert_allclose(residual, [nnls(twins.T, z / scale)[1] for z in X], atol=1e-6)


def test_activations_of_a_token_do_not_depend_on_others(rng, monkeypatch):
    X, parts = rng.normal(size=(50, 6)), rng.normal(size=(5, 6))
    together = activations(X, parts)
    alone = np.concatenate([activations(z[None], parts) for z in X])
    np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-15)
    monkeypatch.setattr(_factorise, "_ENTRIES", 7 * 25)
    np.testing.assert_allclose(activations(X, parts), together, rtol=1e-12, atol=1e-15)


def test_activations_of_any_scale_are_exact(rng):
    X, parts = rng.normal(size=(20, 6)), rng.normal(size=(4, 6)) * [[1e-4], [1], [1e4], [0]]
    expected = activations(X, parts)
    assert (expected[:, 3] == 0).all()
    scaled = activations(1e-6 * X, parts)
    np.testing.assert_allclose(scaled, 1e-6 * expected, rtol=1e-6, atol=1e-15)
    three = [nnls(parts[:3].T, z)[0] for z in X]
    np.testing.assert_allclose(expected[:, :3] * [1e-4, 1, 1e4], three * np.array([1e-4, 1, 1e4]))
    np.testing.assert_array_equal(activations(np.zeros((2, 6)), parts), np.zeros((2, 4)))


@pytest.mark.parametrize("working_memory", [1024, 0])
def test_the_error_is_that_of_the_best_activations(tokens, rng, working_memory):
    parts = rng.random((2, 5))
    expected = np.sqrt(sum(nnls(parts.T, z)[1] ** 2 for z in tokens.flat()))
    with sklearn.config_context(working_memory=working_memory):
        assert reconstruction_error(tokens, parts) == pytest.approx(expected)
    assert expected > 0.1


@pytest.mark.parametrize("working_memory", [1024, 0])
def test_minibatches_are_handed_to_scikit_learn_in_their_order(tokens, monkeypatch, working_memory):
    monkeypatch.setattr(_factorise, "BATCH", 7)
    ours, theirs = (MiniBatchNMF(2, init="random", random_state=0) for _ in range(2))
    with sklearn.config_context(working_memory=working_memory):
        train_nmf(ours, tokens)
        blocks = [block for _, block in tokens.blocks()]
    rows = []
    while blocks:
        rows.extend(blocks.pop(0))
        if len(rows) < 7 and blocks:
            continue
        # Each of them gets every n-th row, from all over.
        n_batches = int(np.ceil(len(rows) / 7))
        for first in range(n_batches):
            theirs.partial_fit(np.array(rows[first::n_batches]))
        rows = []
    np.testing.assert_array_equal(ours.components_, theirs.components_)


def test_training_begins_at_given_parts(tokens, rng):
    start = rng.random((2, 5))
    fits = []
    for given in (start, None):
        method = MiniBatchNMF(2, init="random", random_state=1, max_iter=1)
        train_nmf(method, tokens, given)
        fits.append(method.components_)
    twin = MiniBatchNMF(2, init="random", random_state=2, max_iter=1)
    train_nmf(twin, tokens, start)
    np.testing.assert_array_equal(twin.components_, fits[0])
    # Control: without them the draw decides.
    assert not np.allclose(*fits, atol=1e-3)


def test_passes_end_when_the_parts_rest(tokens):
    with sklearn.config_context(working_memory=0):
        method = MiniBatchNMF(2, init="random", random_state=0, forget_factor=0.7)
        parts, n_iter = nmf_in_blocks(
            method, tokens, np.random.RandomState(0), tol=1e-3, max_iter=500
        )
    assert 1 < n_iter < 500
    assert reconstruction_error(tokens, parts) < 0.05 * np.linalg.norm(tokens.flat())


def test_first_parts_are_the_means_of_clusters(rng):
    centres = 9 * np.eye(3, 4)
    cluster = rng.integers(3, size=90)
    X = TokenArray(centres[cluster] + 0.1 * rng.normal(size=(90, 4)), np.arange(0, 91, 3))
    found = first_parts(X, 3, np.random.RandomState(0))
    means = [X.flat()[cluster == c].mean(axis=0) for c in range(3)]
    np.testing.assert_allclose(sorted(found.tolist()), sorted(map(list, means)), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearly_dependent_activations_do_not_raise_the_loss(rng, dtype):
    """Parts alike to a millionth, whose least squares single precision cannot tell apart."""
    X = TokenArray(rng.normal(size=(400, 6)).astype(dtype), np.arange(401))
    parts = rng.normal(size=(1, 6)) + 1e-6 * rng.normal(size=(5, 6))
    found, losses, converged = semi_nmf(X, parts, 0, 40)
    square = (X.flat().astype(np.float64) ** 2).sum()
    assert not converged
    assert (np.diff(losses) < 1e-6 * square).all()
    assert losses[-1] < 0.6 * losses[0]
    weights = activations(X.flat(), found)
    assert ((X.flat() - weights @ found) ** 2).sum() <= losses[-1] * (1 + 1e-5)
