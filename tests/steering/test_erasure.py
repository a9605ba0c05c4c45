"""Erasure: no linear predictor is left, and the result is that of another implementation."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import roc_auc_score

from skact import Ablation, LinearErasure, TokenArray
from skact.steering._erasure import shrunk

RNG = np.random.default_rng(11)
Y = np.c_[np.arange(400) % 2, np.arange(400) // 2 % 2]
MIX = RNG.normal(size=(7, 7))
X = RNG.normal(size=(400, 7)) @ MIX + Y @ RNG.normal(size=(2, 7)) * 2 + 4


@pytest.mark.parametrize("shrinkage", [True, False])
def test_no_linear_predictor_is_left(shrinkage):
    edit = LinearErasure(shrinkage=shrinkage).fit(X, Y)
    out = edit.transform(X)
    for y in Y.T:
        before, after = (LinearRegression().fit(data, y).score(data, y) for data in (X, out))
        assert before > 0.3  # the control: it could be told
        assert after < 1e-9
        probe = LogisticRegression(C=1e6).fit(out, y)
        assert abs(roc_auc_score(y, probe.decision_function(out)) - 0.5) < 1e-4
    np.testing.assert_allclose(edit.transform(out), out, atol=1e-9)
    np.testing.assert_allclose(out.mean(axis=0), X.mean(axis=0))
    assert len(edit.reads_) == 2


def test_it_changes_less_than_what_takes_the_mean_difference_out():
    y = Y[:, 0]
    least = LinearErasure(shrinkage=False).fit(X, y).transform(X)
    means = X[y == 1].mean(axis=0) - X[y == 0].mean(axis=0)
    u = means / np.linalg.norm(means)
    orthogonal = X - np.outer((X - X.mean(axis=0)) @ u, u)
    assert ((least - X) ** 2).sum() < ((orthogonal - X) ** 2).sum()
    assert abs((orthogonal[y == 1].mean(axis=0) - orthogonal[y == 0].mean(axis=0)) @ u) < 1e-9
    assert Ablation().fit(X, y).basis_.shape == (1, 7)


def test_labels_of_tokens_are_read():
    inside = TokenArray(Y[:, :1].astype(bool), np.arange(0, 401, 4))
    tokens = TokenArray(X, inside.offsets)
    there = inside.max()
    edit = LinearErasure().fit(tokens, np.where(there, 1, 0), inside)
    np.testing.assert_allclose(edit.transform(X), LinearErasure().fit(X, Y[:, :1]).transform(X))


@pytest.mark.parametrize("options", [{}, {"shrinkage": False}, {"constrain_cov_trace": False}])
@pytest.mark.parametrize("columns", [[0], [0, 1]])
def test_it_equals_concept_erasure(options, columns):
    library = pytest.importorskip("concept_erasure")
    import torch

    labels = torch.tensor(Y[:, columns], dtype=torch.float64)
    theirs = library.LeaceFitter.fit(torch.tensor(X), labels, **options).eraser(torch.tensor(X))
    mine = LinearErasure(shrinkage=options.get("shrinkage", True)).fit(X, Y[:, columns])
    np.testing.assert_allclose(mine.transform(X), theirs.numpy(), atol=1e-6)


def test_the_covariance_is_shrunk_as_the_formula_says(rng):
    X = rng.normal(size=(30, 4)) * [3, 1, 1, 0.5]
    S, n, d = np.cov(X, rowvar=False, bias=True), 30, 4
    ball = np.trace(S) / d * np.eye(d)
    gone = (np.trace(S) ** 2 / n) / ((S**2).sum() - np.trace(S) ** 2 / d)
    assert 0.01 < gone < 0.9
    np.testing.assert_allclose(shrunk(S, n), (1 - gone) * S + gone * ball, rtol=1e-9)
    assert not np.allclose(shrunk(S, 10 * n), shrunk(S, n), rtol=1e-3)


def test_the_variance_never_grows():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        skewed = rng.normal(size=(60, 4)) @ (
            rng.normal(size=(4, 4)) * 10.0 ** rng.uniform(-2, 2, 4)
        )
        data = skewed + Y[:60, :1] * rng.normal(size=4) * 3
        edit = LinearErasure(shrinkage=False).fit(data, Y[:60, 0])
        assert edit.transform(data).var(axis=0).sum() < data.var(axis=0).sum()


def test_an_erasure_of_nothing_says_so(rng):
    y = np.arange(40) % 2
    with pytest.warns(UserWarning, match="nothing to erase among 40 tokens: no singular value"):
        edit = LinearErasure().fit(np.ones((40, 3)), y)
    np.testing.assert_array_equal(edit.transform(np.ones((40, 3))), np.ones((40, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LinearErasure().fit(rng.normal(size=(40, 3)) + 2 * y[:, None], y)
