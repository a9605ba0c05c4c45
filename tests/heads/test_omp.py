"""Simultaneous pursuit against a naive loop, against another library, and its bad inputs."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import orthogonal_mp

from skact import SimultaneousOMP
from skact.heads._omp import Atoms, pursue


def naive(H, D, n_steps):
    """The definition, with residuals and least squares in each step."""
    support, explained, residual = [], [], H
    for _ in range(n_steps):
        scores = [sum(abs(r @ d) for r in residual) for d in D]
        support.append(int(np.argmax(scores)))
        coef = np.linalg.lstsq(D[support].T, H.T, rcond=None)[0].T
        residual = H - coef @ D[support]
        explained.append(1 - (residual**2).sum() / (H**2).sum())
    return support, coef, explained


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("n", "v", "d"), [(1, 30, 12), (20, 40, 15), (7, 9, 30), (50, 300, 24)])
def test_it_is_the_naive_loop(rng, n, v, d, normalize, center):
    if n == 1 and center:
        return
    X = rng.normal(size=(n, d)) + rng.normal(size=d)
    D = rng.normal(size=(v, d)) * rng.uniform(0.5, 2, size=(v, 1))
    omp = SimultaneousOMP(8, normalize=normalize, center=center).fit(X, D)
    H = X - X.mean(axis=0) if center else X
    rows = D / np.linalg.norm(D, axis=1, keepdims=True) if normalize else D
    support, coef, explained = naive(H, rows, 8)
    np.testing.assert_array_equal(omp.support_, support)
    np.testing.assert_allclose(omp.coef_, coef, atol=1e-8)
    np.testing.assert_allclose(omp.explained_variance_ratio_, explained, atol=1e-8)
    np.testing.assert_allclose(omp.components_, rows[support], rtol=1e-12)


def test_of_one_sample_it_is_the_pursuit_of_scikit_learn(rng):
    D = rng.normal(size=(60, 20))
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    for x in rng.normal(size=(5, 20)):
        omp = SimultaneousOMP(10, center=False).fit(x[None], D)
        coef = orthogonal_mp(D.T, x, n_nonzero_coefs=10)
        np.testing.assert_array_equal(np.sort(omp.support_), np.flatnonzero(coef))
        np.testing.assert_allclose(omp.coef_[0], coef[omp.support_], atol=1e-8)
        many = SimultaneousOMP(10, center=False).fit(np.outer([1, -2, 0, 0.5], x), D)
        np.testing.assert_array_equal(many.support_, omp.support_)
        np.testing.assert_allclose(many.coef_, np.outer([1, -2, 0, 0.5], omp.coef_), atol=1e-8)


def test_all_samples_count_alike(rng):
    """The sum of sizes, not of squares, and not each sample by itself."""
    X, D = np.array([[3.0, 2.0], [0.0, 2.0]]), np.eye(2)
    assert SimultaneousOMP(1, center=False).fit(X, D).support_ == [1]
    assert (X**2).sum(axis=0).argmax() == 0
    X, D = rng.normal(size=(30, 10)), rng.normal(size=(20, 10))
    omp = SimultaneousOMP(5).fit(X, D)
    order, signs = rng.permutation(30), rng.choice([-1, 1], 20)
    again = SimultaneousOMP(5).fit(3 * X[order] + 1, D * signs[:, None])
    np.testing.assert_array_equal(again.support_, omp.support_)
    np.testing.assert_allclose(again.explained_variance_ratio_, omp.explained_variance_ratio_)


def test_the_curve_never_falls_and_ends_where_nothing_is_left(rng):
    X, D = rng.normal(size=(40, 8)), rng.normal(size=(100, 8))
    omp = SimultaneousOMP(50).fit(X, D)
    assert len(omp.support_) == 8, "steps are as many as the rank"
    assert (np.diff(omp.explained_variance_ratio_) > 0).all()
    assert abs(omp.explained_variance_ratio_[-1] - 1) < 1e-12
    assert len(SimultaneousOMP(50).fit(X, D[:5]).support_) == 5
    twice = np.concatenate([D[:3], D[:3], D[:1] + D[1:2], np.zeros((2, 8))])
    found = SimultaneousOMP(50).fit(X, twice)
    assert len(found.support_) == 3, "copies and combinations add nothing"
    np.testing.assert_allclose(
        found.explained_variance_ratio_[-1],
        SimultaneousOMP(50).fit(X, D[:3]).explained_variance_ratio_[-1],
    )
    one = SimultaneousOMP(50, center=False).fit(2 * D[4:5], D)
    assert one.support_ == [4]
    assert one.explained_variance_ratio_[-1] == pytest.approx(1)


def test_samples_are_transformed_and_put_together_again(rng):
    X, D = rng.normal(size=(40, 12)) + 3, rng.normal(size=(30, 12))
    omp = SimultaneousOMP(5).fit(X, D)
    np.testing.assert_allclose(omp.transform(X), omp.coef_, atol=1e-10)
    back = omp.inverse_transform(omp.transform(X))
    residual, energy = ((X - back) ** 2).sum(), ((X - X.mean(axis=0)) ** 2).sum()
    assert abs(1 - residual / energy - omp.explained_variance_ratio_[-1]) < 1e-12
    np.testing.assert_allclose(omp.transform(back), omp.coef_, atol=1e-10)
    again = clone(omp).fit(X, D)
    np.testing.assert_array_equal(again.coef_, omp.coef_)


def test_single_precision_chooses_the_same(rng):
    X, D = rng.normal(size=(256, 64)), rng.normal(size=(200, 64))
    double = SimultaneousOMP(20).fit(X, D)
    single = SimultaneousOMP(20).fit(X.astype(np.float32), D.astype(np.float32))
    assert single.coef_.dtype == single.components_.dtype == np.float32
    np.testing.assert_array_equal(single.support_, double.support_)
    np.testing.assert_allclose(single.coef_, double.coef_, atol=1e-4)
    assert SimultaneousOMP(2).fit(X.astype(np.float32), D).coef_.dtype == np.float64


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("dtype", "power"), [(np.float32, 83), (np.float64, 700)])
def test_sizes_change_nothing_but_sizes(rng, dtype, power, normalize):
    """Squares of 2 ** 83, about 1e25, are beyond float32, and those of 2 ** 700 beyond float64."""
    X, D = rng.normal(size=(40, 16)).astype(dtype), rng.normal(size=(30, 16)).astype(dtype)
    omp = SimultaneousOMP(3, normalize=normalize)
    plain = clone(omp).fit(X, D)
    with np.errstate(all="raise"):
        for up in (power, -power):
            for rows in (0, power, -power) if normalize else (0, up):
                found = clone(omp).fit(np.ldexp(X, up), np.ldexp(D, rows))
                np.testing.assert_array_equal(found.support_, plain.support_)
                np.testing.assert_array_equal(
                    found.explained_variance_ratio_, plain.explained_variance_ratio_
                )
                by = 0 if normalize else rows
                np.testing.assert_array_equal(found.coef_, np.ldexp(plain.coef_, up - by))
                np.testing.assert_array_equal(found.components_, np.ldexp(plain.components_, by))
                assert found.coef_.dtype == dtype
                again = found.transform(np.ldexp(X, up))
                np.testing.assert_array_equal(again, np.ldexp(plain.transform(X), up - by))
    sized = D * np.logspace(-25, 25, 30)[:, None].astype(dtype)
    if normalize:  # each row by itself
        np.testing.assert_array_equal(clone(omp).fit(X, sized).support_, plain.support_)


def test_a_large_dictionary_gives_what_a_small_one_gives(rng, monkeypatch):
    X, D = rng.normal(size=(20, 10)), rng.normal(size=(70, 10))
    whole = pursue(X, Atoms(D, True), 6)
    monkeypatch.setattr("skact.heads._omp._SMALL", 10)
    monkeypatch.setattr("skact.heads._omp._PIECE", 64)
    parts = pursue(X, Atoms(D, True), 6)
    np.testing.assert_array_equal(parts.support, whole.support)
    np.testing.assert_allclose(parts.coef, whole.coef, atol=1e-12)


X, D = np.random.default_rng(0).normal(size=(6, 4)), np.eye(4)


@pytest.mark.parametrize(
    ("omp", "given", "message"),
    [
        (SimultaneousOMP(0), (X, D), "'n_nonzero_coefs' parameter .* Got 0"),
        (SimultaneousOMP(normalize=1), (X, D), "'normalize'"),
        (SimultaneousOMP(), (X, np.eye(3)), r"rows of 4 features, .* got shape \(3, 3\)"),
        (SimultaneousOMP(), (X, np.zeros((3, 4))), "a row that is not zero"),
        (SimultaneousOMP(), (X, np.empty((0, 4))), "dictionary must be a matrix of numbers"),
        (SimultaneousOMP(), (X, [["a"] * 4]), "dictionary must be a matrix of numbers"),
        (SimultaneousOMP(), (X, None), "dictionary must be a matrix of numbers"),
        (SimultaneousOMP(), (X, D * np.nan), "dictionary .* contains NaN"),
        (SimultaneousOMP(), (X[:1], D), r"1 equal sample\(s\).* center=False"),
        (SimultaneousOMP(), (np.full((3, 4), 0.1), D), r"3 equal sample\(s\)"),
        (SimultaneousOMP(center=False), (0 * X, D), "X is all zero"),
        (SimultaneousOMP(), (X[0], D), "Expected 2D array"),
    ],
)
def test_bad_input_is_refused(omp, given, message):
    with pytest.raises(ValueError, match=message):
        omp.fit(*given)


def test_bad_input_after_the_fit():
    with pytest.raises(NotFittedError):
        SimultaneousOMP().transform(X)
    omp = SimultaneousOMP(2).fit(X, D)
    with pytest.raises(ValueError, match="X must have 2 features"):
        omp.inverse_transform(X)
    with pytest.raises(ValueError, match="expecting 4 features"):
        omp.transform(X[:, :3])
