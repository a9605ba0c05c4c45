"""Transport of coordinates, against sorted pairs by hand."""

import warnings

import numpy as np
import pytest
from scipy.stats import linregress
from sklearn.metrics import roc_auc_score

from skact import ActivationTransport
from skact.steering._transport import sorted_pairs

RNG = np.random.default_rng(2)
Y = np.arange(60) % 2
X = RNG.normal(size=(60, 4)) * np.where(Y, 2, 1)[:, None] + Y[:, None] * [3, 0, -1, 0]


def test_each_kind_by_hand():
    a, b = X[Y == 0], X[Y == 1]
    for j in range(4):
        line = linregress(np.sort(a[:, j]), np.sort(b[:, j]))
        fits = {
            "linear": (line.slope, line.intercept),
            "gaussian": (
                b[:, j].std() / a[:, j].std(),
                b[:, j].mean() - b[:, j].std() / a[:, j].std() * a[:, j].mean(),
            ),
            "mean": (1, b[:, j].mean() - a[:, j].mean()),
            "damping": (1 - 2 * max(roc_auc_score(Y, X[:, j]) - 0.5, 0), 0),
        }
        for kind, expected in fits.items():
            edit = ActivationTransport(kind).fit(X, Y)
            np.testing.assert_allclose((edit.slope_[j], edit.intercept_[j]), expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["mean", "gaussian", "linear"])
@pytest.mark.parametrize("strength", [0, 0.4, 1])
def test_tokens_go_where_the_map_says_inside_of_the_support(kind, strength):
    edit = ActivationTransport(kind, strength=strength).fit(X, Y)
    away = np.array([[100.0, 0, -100.0, 0]])
    out = edit.transform(np.concatenate([X, away]))
    a = X[Y == 0]
    inside = (np.concatenate([X, away]) >= a.min(axis=0)) & (
        np.concatenate([X, away]) <= a.max(axis=0)
    )
    expected = np.concatenate([X, away])
    expected = np.where(
        inside,
        (1 - strength) * expected + strength * (edit.slope_ * expected + edit.intercept_),
        expected,
    )
    np.testing.assert_allclose(out, expected, atol=1e-12)
    assert not inside[-1, 0]


def test_moments_arrive():
    free = ActivationTransport("gaussian", within_support=False).fit(X, Y)
    out = free.transform(X[Y == 0])
    np.testing.assert_allclose(out.mean(axis=0), X[Y == 1].mean(axis=0))
    np.testing.assert_allclose(out.std(axis=0), X[Y == 1].std(axis=0))
    linear = ActivationTransport(within_support=False).fit(X, Y).transform(X[Y == 0])
    np.testing.assert_allclose(linear.mean(axis=0), X[Y == 1].mean(axis=0))


def test_sets_of_unequal_size_are_paired_by_rank():
    a, b = sorted_pairs(np.arange(9.0)[::-1, None], np.array([[5.0], [1.0], [3.0]]))
    assert a.ravel().tolist() == [1, 4, 7]
    assert b.ravel().tolist() == [1, 3, 5]


def test_it_is_not_idempotent():
    edit = ActivationTransport("mean", within_support=False).fit(X, Y)
    once = edit.transform(X)
    assert np.abs(edit.transform(once) - once).max() > 1


def test_columns_in_pieces_are_the_same(monkeypatch):
    whole = ActivationTransport().fit(X, Y)
    monkeypatch.setattr("skact.steering._transport._VALUES", 60)
    parts = ActivationTransport().fit(X, Y)
    np.testing.assert_allclose(whole.slope_, parts.slope_, rtol=1e-12)
    np.testing.assert_array_equal(whole.support_, parts.support_)


@pytest.mark.parametrize("kind", ["mean", "gaussian", "linear"])
def test_a_transport_of_nothing_says_so(kind, rng):
    y = np.arange(40) % 2
    with pytest.warns(UserWarning, match="nothing to carry: the 20 tokens with .* the 20 without"):
        edit = ActivationTransport(kind).fit(np.ones((40, 3)), y)
    np.testing.assert_array_equal(edit.transform(np.ones((40, 3))), np.ones((40, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ActivationTransport(kind).fit(rng.normal(size=(40, 3)) + 2 * y[:, None], y)
