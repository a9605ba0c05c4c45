import numpy as np
import pytest
import sklearn
from scipy.optimize import approx_fprime
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from skact import LinearSeparator, MaxSeparator, TokenArray


@pytest.fixture
def problem(rng):
    """Two concepts: a sample holds one if a single token of it lies far along its direction."""
    y = rng.random((150, 2)) < 0.4
    y[:2] = [[True, False], [False, True]]
    samples = []
    for row in y:
        tokens = rng.normal(size=(rng.integers(2, 12), 6))
        for c in np.flatnonzero(row):
            tokens[rng.integers(len(tokens)), c] += 4.0
        samples.append(tokens)
    return TokenArray.from_list(samples), y.astype(int)


def slow_loss(method, X, y, flat):
    """The formula of the docstring, sample by sample."""
    n_concepts, n_features = method.concept_vectors_.shape
    vectors = flat[:-n_concepts].reshape(n_concepts, n_features)
    total = 0.5 * method.weight_decay * (vectors**2).sum()
    for c in range(n_concepts):
        for tokens, holds in zip(X, y[:, c], strict=True):
            weight = 0.5 / (y[:, c] == holds).sum()
            powers = [np.exp(method.sharpness * (z @ vectors[c])) for z in tokens]
            pooled = np.log(np.mean(powers)) / method.sharpness
            sign = 1 if holds else -1
            total += weight * np.log1p(np.exp(-sign * (pooled + flat[c - n_concepts])))
    return total


@pytest.mark.parametrize("sharpness", [0.5, 4.0])
def test_gradient_of_the_slow_loss_vanishes_at_the_result(problem, sharpness):
    X, y = problem
    method = MaxSeparator(sharpness, weight_decay=0.02, tol=1e-12).fit(X, y)
    found = np.r_[method.concept_vectors_.ravel(), method.intercepts_]

    def slope(flat):
        return np.abs(approx_fprime(flat, lambda f: slow_loss(method, X, y, f), 1e-6)).max()

    assert slope(found) < 1e-3
    assert slope(0.8 * found) > 1e-2
    assert slow_loss(method, X, y, found) < 0.9 * slow_loss(method, X, y, np.zeros(len(found)))


def test_single_tokens_make_it_logistic_regression(rng):
    X = rng.normal(size=(120, 4))
    y = X[:, 0] + 0.5 * rng.normal(size=120) > 0.6
    method = MaxSeparator(weight_decay=0.01, tol=1e-12).fit(X, y)
    # scikit-learn minimises C * sum of weighted losses + |w|^2 / 2, with weights of mean 1.
    expected = LogisticRegression(C=1 / (0.01 * 120), class_weight="balanced", tol=1e-10).fit(X, y)
    np.testing.assert_allclose(method.concept_vectors_, expected.coef_, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(method.intercepts_, expected.intercept_, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(method.transform(X), X @ method.concept_vectors_.T, rtol=1e-6)


def test_it_finds_the_telling_token_that_labels_of_all_tokens_drown(problem):
    X, y = problem
    train, test = slice(0, 100), slice(100, 150)

    def areas(method):
        scores = method.fit(X[train], y[train]).transform(X[test]).max()
        return roc_auc_score(y[test], scores, average=None)

    ours, drowned = areas(MaxSeparator()), areas(LinearSeparator(weight_decay=0.01))
    assert (ours > 0.9).all()
    assert ours.mean() > drowned.mean() + 0.02


def test_neither_order_nor_repetition_of_tokens_matters(problem):
    X, y = problem
    plain = MaxSeparator().fit(X, y).concept_vectors_
    for change in (lambda tokens: tokens[::-1], lambda tokens: np.repeat(tokens, 3, axis=0)):
        other = MaxSeparator().fit([change(tokens) for tokens in X], y).concept_vectors_
        np.testing.assert_allclose(other, plain, atol=1e-2)
    doubled = [np.r_[tokens, tokens[:1]] for tokens in X]
    assert np.abs(MaxSeparator().fit(doubled, y).concept_vectors_ - plain).max() > 0.02


def test_labels_of_tokens_are_not_read(problem):
    X, y = problem
    labels = X.with_values(np.ones((X.n_tokens, 2), bool))
    with_labels = MaxSeparator().fit(X, y, token_labels=labels).concept_vectors_
    np.testing.assert_array_equal(with_labels, MaxSeparator().fit(X, y).concept_vectors_)


def test_blocks_change_nothing(problem):
    X, y = problem
    whole = MaxSeparator(weight_decay=0.02).fit(X, y).concept_vectors_
    with sklearn.config_context(working_memory=0):
        pieces = MaxSeparator(weight_decay=0.02).fit(X, y).concept_vectors_
    np.testing.assert_allclose(whole, pieces, atol=5e-3)


def test_more_than_two_classes_are_a_concept_each(problem):
    X, y = problem
    kinds = np.array(["a", "b", "c"])[(y[:, 0] + 2 * y[:, 1]).clip(max=2)]
    assert MaxSeparator().fit(X, kinds).concept_names_.tolist() == ["a", "b", "c"]


def test_an_unfinished_run_warns(problem):
    with pytest.warns(ConvergenceWarning, match="max_iter=1 "):
        MaxSeparator(max_iter=1).fit(*problem)


@pytest.mark.parametrize(
    ("params", "y", "message"),
    [
        ({}, np.ones((150, 1), int), "every sample holds concept 'concept0'"),
        ({}, np.zeros((150, 1), int), "has no positive sample"),
        ({}, np.ones(149, int), "149"),
        ({"sharpness": 0.0}, None, "'sharpness' parameter of MaxSeparator"),
        ({"weight_decay": -1.0}, None, "'weight_decay' parameter of MaxSeparator"),
        ({"max_iter": 0}, None, "'max_iter' parameter of MaxSeparator"),
        ({"tol": -1.0}, None, "'tol' parameter of MaxSeparator"),
    ],
)
def test_bad_input(problem, params, y, message):
    X, good = problem
    with pytest.raises(ValueError, match=message):
        MaxSeparator(**params).fit(X, good if y is None else y)
