import warnings

import numpy as np
import pytest
from scipy.special import expit

from skact import LinearSeparator, Minibatch, TokenArray
from skact.concepts import _minibatch
from skact.concepts._minibatch import Descent, descend

L2 = 0.01


@pytest.fixture
def problem(rng):
    """Eighty samples of five features; three concepts, the last without a token."""
    lengths = rng.integers(2, 9, size=80)
    X = TokenArray.from_list([rng.normal(size=(n, 5)).astype(np.float32) for n in lengths])
    labels = rng.random((X.n_tokens, 3)) < np.array([0.4, 0.02, 0])
    return X, X.with_values(labels)


def begun(X, labels):
    descent = Descent.start(X, np.zeros((3, 5)), L2)
    descent.n_positive += labels.flat().sum(axis=0)
    descent.n_tokens += X.n_tokens
    return descent


def slow_step(vectors, n_steps, values, marked, weights, metric):
    """The step of the module's docstring, for one concept at a time."""
    moved = []
    for vector, mark, (negative, positive) in zip(vectors, marked.T, weights, strict=True):
        gradient = L2 * vector
        for z, y in zip(values, mark, strict=True):
            slope = (positive if y else negative) * (expit(z @ vector) - y)
            gradient = gradient + slope * z / len(values)
        step = metric @ gradient
        rate = 0.3 / np.sqrt(1 + n_steps / 50) / max(1, np.sqrt(gradient @ step))
        moved.append(vector - rate * step)
    return np.array(moved)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("batch", [37, 10_000])
def test_steps_follow_the_formula(problem, monkeypatch, balanced, batch):
    X, labels = problem
    monkeypatch.setattr(_minibatch, "_size", lambda n_tokens, n_features: batch)
    descent = begun(X, labels)
    metric = descent.metric.astype(float)
    descend(descent, X, labels, l2=L2, balanced=balanced, random=np.random.RandomState(3))
    # One block holds all; its tokens are dealt out one by one to as many minibatches as needed.
    random = np.random.RandomState(3)
    order = _minibatch.shuffled_runs(X, random)
    values, marked = X[order].flat().astype(float), labels[order].flat()
    n, counts = X.n_tokens, marked.sum(axis=0)
    weights = [(n / (2 * (n - k)), n / (2 * k)) if k else (0, 0) for k in counts]
    if not balanced:
        weights = [(1, 1)] * 3
    n_batches = -(-n // batch)
    vectors, mean = np.zeros((3, 5)), np.zeros((3, 5))
    for t, first in enumerate(random.permutation(n_batches)):
        dealt = values[first::n_batches], marked[first::n_batches]
        vectors = slow_step(vectors, t, *dealt, weights, metric)
        mean += min(1, 4 / (t + 4)) * (vectors - mean)
    assert descent.n_steps == n_batches
    np.testing.assert_allclose(descent.vectors, vectors, atol=1e-5)
    np.testing.assert_allclose(descent.mean, mean, atol=1e-5)
    assert np.abs(vectors[:2]).min() > 1e-4
    other = slow_step(vectors, 0, values[::2], ~marked[::2], weights, metric)
    assert not np.allclose(other, vectors, atol=1e-3)


def test_the_metric_is_the_inverse_of_the_bound_of_the_hessian(problem):
    X, labels = problem
    z, (n, d) = X.flat().astype(float), X.flat().shape
    moment = sum(np.outer(one, one) for one in z) / n
    kept = np.where(np.eye(d, dtype=bool), 1, n / (n + d))
    expected = np.linalg.inv(kept * moment / 4 + L2 * np.eye(d))
    np.testing.assert_allclose(begun(X, labels).metric, expected, rtol=1e-4, atol=1e-5)
    # The control: correlations as they are would make another metric.
    whole = np.linalg.inv(moment / 4 + L2 * np.eye(d))
    assert np.abs(whole - expected).max() > 1e-3


def test_every_token_is_dealt_once_and_keeps_its_labels(rng):
    labels = rng.random((47, 3)) < 0.3
    dealt = _minibatch._dealt(labels, 10)
    assert len(dealt) == 5
    for first, (place, concept) in enumerate(dealt):
        own = np.zeros_like(labels[first::5])
        own[place, concept] = True
        np.testing.assert_array_equal(own, labels[first::5])
    assert sum(len(place) for place, _ in dealt) == labels.sum() > 0


@pytest.mark.parametrize(
    ("n_tokens", "n_features", "size"),
    [(500, 8, 128), (20_000, 64, 250), (20_000, 384, 768), (10**6, 64, 2048), (10**4, 4096, 2048)],
)
def test_few_tokens_make_small_minibatches(n_tokens, n_features, size):
    assert _minibatch._size(n_tokens, n_features) == size


@pytest.mark.parametrize("shift", [0, 3000])
def test_two_passes_come_near_the_minimum_on_few_tokens(rng, monkeypatch, shift):
    """The loss of the docstring, within a tenth; minibatches of 2,048 are further off."""
    values = rng.normal(size=(20_000, 64))
    truth = values @ rng.normal(size=64) + 2 * rng.normal(size=len(values)) > 3
    values[:, 3] += shift
    X = TokenArray(values.astype(np.float32), np.arange(0, len(values) + 1, 10))
    labels = X.with_values(truth[:, None])
    held = labels.max().astype(int)
    weight = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum())

    def loss(solver):
        separator = LinearSeparator(solver, random_state=0).fit(X, held, token_labels=labels)
        vector = separator.concept_vectors_[0].astype(float)
        scores = np.where(truth, 1, -1) * (X.flat().astype(float) @ vector)
        return weight @ np.logaddexp(0, -scores) + separator.weight_decay / 2 * vector @ vector

    least = loss("lbfgs")
    assert least <= loss("minibatch") < 1.1 * least
    monkeypatch.setattr(_minibatch, "_size", lambda n_tokens, n_features: 2048)
    assert loss("minibatch") > 1.1 * least


def test_float64_and_half_precision_take_the_same_steps(problem):
    X, labels = problem
    X = X.with_values(X.flat().astype(np.float16))
    found = []
    for dtype in (np.float16, np.float64):
        descent = begun(X, labels)
        given = X.with_values(X.flat().astype(dtype))
        descend(descent, given, labels, l2=L2, balanced=True, random=np.random.RandomState(0))
        found.append(descent.vectors)
    np.testing.assert_allclose(*found, atol=1e-5)
    assert np.abs(found[0]).max() > 1e-2


@pytest.mark.parametrize("change", ["unit", "offset"])
def test_units_of_features_change_nothing(rng, change):
    """Neither a feature of large numbers nor one far from zero keeps the others from learning."""
    values = rng.normal(size=(4000, 16))
    labels = (values @ rng.normal(size=16) > 3)[:, None]

    def loss(values):
        X = TokenArray(values.astype(np.float32), np.arange(0, 4001, 10))
        marks = X.with_values(labels)
        descent = Descent.start(X, np.zeros((1, 16)), 1e-4)
        descent.n_positive += labels.sum(axis=0)
        descent.n_tokens += X.n_tokens
        random = np.random.RandomState(0)
        for _ in range(2):
            descend(descent, X, marks, l2=1e-4, balanced=True, random=random)
        signs, share = np.where(labels, 1, -1), np.where(labels, labels.mean(), 1 - labels.mean())
        return np.mean(np.logaddexp(0, -signs * (values @ descent.mean.T)) / (2 * share))

    plain, changed = loss(values), values.copy()
    if change == "unit":
        changed[:, 5] *= 3000
        assert loss(changed) == pytest.approx(plain, rel=1e-2)
    else:
        changed[:, 5] += 3000
        assert loss(changed) < 1.1 * plain
    assert plain < 0.75 * np.log(2)


def test_outliers_are_told_with_figures(rng):
    values = rng.normal(size=(400, 8))
    y = rng.integers(2, size=40)
    for n_odd in (0, 3):
        X = values.copy()
        X[: 100 * n_odd : 100] *= 5000 / np.linalg.norm(X[: 100 * n_odd : 100], axis=1)[:, None]
        X = TokenArray(X, np.arange(0, 401, 10))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            LinearSeparator(Minibatch(), random_state=0).fit(X, y)
        said = [str(one.message) for one in caught]
        if n_odd:
            (said,) = said
            median = np.median(np.linalg.norm(X.flat(), axis=1))
            assert said.startswith(
                "3 of 400 tokens have a norm above 20 times the median, up to 5000 against "
                f"{median:.4g}: "
            )
        else:
            assert not said
