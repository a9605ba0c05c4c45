"""Isolated vectors against the formula with whitening, written slowly."""

import numpy as np
import pytest

import skact
from skact import (
    DifferenceInMeans,
    IsolatedConcepts,
    KMeansConcepts,
    LinearSeparator,
    MeanPrototype,
)
from skact.concepts._isolated import isolated


def slow(t, others, rho):
    """Whiten by a Cholesky factor, take out, and go back."""
    weights = 1 / (np.linalg.norm(others, axis=1) + 1e-6)
    R = others * weights[:, None] / weights.sum()
    C = R.T @ R / len(R) + 1e-4 * np.mean(R**2) * np.eye(len(t))
    L = np.linalg.cholesky(C)
    white = np.linalg.solve(L, t)
    U, sizes, _ = np.linalg.svd(np.linalg.solve(L, R.T), full_matrices=False)
    Q = U[:, sizes > 1e-8 * sizes[0]]
    return L @ (white - (1 - np.sqrt(1 - rho)) * Q @ (Q.T @ white))


@pytest.mark.parametrize("rho", [0, 0.3, 0.9, 1])
def test_it_is_the_formula_with_whitening(rng, rho):
    vectors = rng.normal(size=(4, 9)) * [[1], [5], [0.1], [2]]
    for c, found in enumerate(isolated(vectors, rho)):
        expected = slow(vectors[c], np.delete(vectors, c, axis=0), rho)
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_energy_along_the_others_falls(rng):
    vectors = rng.normal(size=(3, 6))
    basis = np.linalg.qr(vectors[1:].T)[0]
    before, after = (np.sum((basis.T @ v[0]) ** 2) for v in (vectors, isolated(vectors, 0.75)))
    assert after == pytest.approx(0.25 * before)


def test_repeated_others_change_nothing(rng):
    vectors = rng.normal(size=(3, 6))
    twice = isolated(np.vstack([vectors, vectors[1:]]), 0.8)[0]
    np.testing.assert_allclose(twice, isolated(vectors, 0.8)[0])
    np.testing.assert_array_equal(isolated(vectors, 0), vectors)
    np.testing.assert_array_equal(isolated(vectors[:1], 1), vectors[:1])


@pytest.fixture
def problem(rng):
    """A concept that mostly occurs where another one does."""
    y = np.c_[np.arange(60) % 2, np.arange(60) % 2 * (np.arange(60) % 3 > 0)]
    return [rng.normal(size=(4, 5)) + row @ np.eye(2, 5) * 2 for row in y], y


@pytest.mark.parametrize("method", [MeanPrototype(), LinearSeparator(), DifferenceInMeans()])
def test_scores_are_those_of_the_method_with_other_vectors(problem, method):
    X, y = problem
    plain = method.fit(X, y)
    found = IsolatedConcepts(method, rho=0).fit(X, y)
    np.testing.assert_allclose(found.transform(X).flat(), plain.transform(X).flat())
    found = IsolatedConcepts(method).fit(X, y)
    plain.concept_vectors_ = isolated(plain.concept_vectors_, 0.9)
    np.testing.assert_allclose(found.transform(X).flat(), plain.transform(X).flat())
    cosine = np.corrcoef(found.concept_vectors_)[0, 1]
    assert cosine < np.corrcoef(method.fit(X, y).concept_vectors_)[0, 1]


def test_what_is_kept_says_the_same(problem, tmp_path):
    X, y = problem
    method = IsolatedConcepts(MeanPrototype()).fit(X, y)
    skact.save(method, tmp_path / "kept")
    again = skact.load(tmp_path / "kept").transform(X).flat()
    np.testing.assert_array_equal(again, method.transform(X).flat())


def test_a_vector_of_which_nothing_is_left_is_told(rng):
    X, y = rng.normal(size=(30, 2)), np.arange(30) % 3
    with pytest.warns(UserWarning, match="3 of 3 concepts .* lie in the span of the others"):
        IsolatedConcepts(DifferenceInMeans()).fit(X, y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"estimator": KMeansConcepts(2)}, "'estimator' .* a labelled concept method"),
        ({"estimator": MeanPrototype(), "rho": 1.5}, "'rho'"),
        ({"estimator": MeanPrototype(), "rho": np.nan}, "'rho'"),
    ],
)
def test_bad_parameters(params, message, rng):
    with pytest.raises(ValueError, match=message):
        IsolatedConcepts(**params).fit(rng.normal(size=(6, 3)), np.arange(6) % 2)


@pytest.mark.parametrize("method", [MeanPrototype(), LinearSeparator(), DifferenceInMeans()])
def test_scores_are_affine_where_those_of_the_method_are(problem, method):
    X, y = problem
    isolating = IsolatedConcepts(method, rho=0.8).fit(X, y)
    if not hasattr(method, "affine_map"):
        assert not hasattr(isolating, "affine_map")
        return
    weights, bias = isolating.affine_map()
    expected = np.concatenate(X) @ weights.T + bias
    np.testing.assert_allclose(isolating.transform(X).flat(), expected, rtol=1e-5, atol=1e-6)
