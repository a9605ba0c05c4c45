"""Masks by the strongest activations of units, against loops over tokens and planted units."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn import config_context
from sklearn.model_selection import GridSearchCV

import skact
from skact import ConceptSegmenter, LayerStack, TokenArray, concept_iou
from skact.algebra._segmenter import top_thresholds


@pytest.fixture
def problem(rng):
    """Tokens of units of which the third fires on the one concept, two others on parts of one."""
    lengths = rng.integers(5, 30, 60)
    X = TokenArray.from_list([rng.normal(size=(n, 6)) for n in lengths])
    marked = np.zeros((X.n_tokens, 2), bool)
    marked[rng.choice(X.n_tokens, 2 * (X.n_tokens // 20), replace=False)[::2], 0] = True
    marked[rng.choice(X.n_tokens, X.n_tokens // 10, replace=False), 1] = True
    values = X.flat().copy()
    values[marked[:, 0], 2] += 8
    values[np.flatnonzero(marked[:, 1])[::2], 4] += 8
    values[np.flatnonzero(marked[:, 1])[1::2], 5] += 8
    labels = X.with_values(marked, ["one", "two"])
    return X.with_values(values), labels.max(), labels


def slow_iou(marks, labels):
    """Counts of each sample, summed over samples."""
    both = sum((m & a).sum() for m, a in zip(marks, labels, strict=True))
    either = sum((m | a).sum() for m, a in zip(marks, labels, strict=True))
    return both / either if either else 0


@pytest.mark.parametrize("units", ["best", "weighted"])
def test_everything_is_the_formula(problem, units):
    X, y, L = problem
    method = ConceptSegmenter(0.04, units=units).fit(X, y, L)
    every = np.concatenate(list(X))
    for k in range(6):
        tau = np.quantile(every[:, k], 0.96)
        assert method.thresholds_[k] == pytest.approx(tau)
        for c in range(2):
            found = slow_iou([x[:, k] > tau for x in X], [one[:, c] for one in L])
            assert method.unit_iou_[c, k] == pytest.approx(found)
    masks = method.predict(X)
    for c in range(2):
        best = method.unit_iou_[c].argmax()
        assert method.best_units_[c] == best
        if units == "best":
            expected = every[:, best] > method.thresholds_[best]
        else:
            fires = (every > method.thresholds_).astype(float)
            expected = 1 / (1 + np.exp(-fires @ method.weights_[c])) > 0.5
        np.testing.assert_array_equal(masks.flat()[:, c], expected)
    np.testing.assert_allclose(method.iou_, concept_iou(L, masks))
    assert method.score(X, y, L) == pytest.approx(method.iou_.mean())


def test_weights_minimise_the_balanced_loss(problem):
    X, y, L = problem
    method = ConceptSegmenter(0.05, weight_decay=0.01).fit(X, y, L)
    fires = (X.flat() > method.thresholds_).astype(float)
    for c, said in enumerate(L.flat().T):
        n = said.sum(), (~said).sum()
        alpha = np.where(said, 1 / (2 * n[0]), 1 / (2 * n[1]))

        def loss(w, said=said, alpha=alpha):
            margins = np.where(said, 1, -1) * (fires @ w)
            return alpha @ np.log1p(np.exp(-margins)) + 0.005 * w @ w

        np.testing.assert_allclose(method.weights_[c], minimize(loss, np.zeros(6)).x, atol=2e-3)


def test_planted_units_are_found_and_together_do_what_none_does_alone(problem):
    X, y, L = problem
    best, together = (ConceptSegmenter(0.05, units=u).fit(X, y, L) for u in ("best", "weighted"))
    assert best.best_units_[0] == 2
    assert best.iou_[0] > 0.8
    assert best.best_units_[1] in (4, 5)
    assert together.iou_[1] > 1.4 * best.iou_[1]
    # The control: labels that belong to other tokens.
    astray = L.with_values(L.flat()[::-1], L.feature_names)
    assert (ConceptSegmenter(0.05).fit(X, astray.max(), astray).iou_ < 0.3).all()


def test_units_that_hardly_fire_mark_where_they_do():
    values = np.zeros((1000, 1))
    values[:3] = 1
    method = ConceptSegmenter(0.005, units="best").fit(values, values[:, 0])
    assert method.thresholds_ == 0
    np.testing.assert_array_equal(method.predict(values), values > 0)
    assert method.iou_ == 1


def test_the_bound_of_one_unit_is_met(rng):
    values = rng.normal(size=(1000, 1))
    y = values[:, 0] > np.quantile(values, 0.8)
    method = ConceptSegmenter(0.05, units="best").fit(values, y)
    assert method.iou_ == pytest.approx(0.05 / 0.2)


def test_it_does_not_ask_how_units_are_scaled(problem):
    X, y, L = problem
    scaled = X.with_values((X.flat() + 3) * [1e-3, 1, 50, 7, 2, 9])
    masks = (ConceptSegmenter(0.05).fit(x, y, L).predict(x).flat() for x in (X, scaled))
    np.testing.assert_array_equal(*masks)


def test_tokens_on_disk_give_the_same(problem, tmp_path):
    X, y, L = problem
    np.save(tmp_path / "x.npy", X.flat())
    there = TokenArray(np.load(tmp_path / "x.npy", mmap_mode="r"), X.offsets)
    with config_context(working_memory=0.01):
        assert not there.may_be_held
        np.testing.assert_array_equal(top_thresholds(there, 0.05), top_thresholds(X, 0.05))
        found = ConceptSegmenter(0.05).fit(there, y, L)
    assert found.score(X, y, L) == ConceptSegmenter(0.05).fit(X, y, L).score(X, y, L)


def test_masks_of_images_are_images(rng):
    shapes = rng.integers(3, 6, (20, 2))
    X = TokenArray.from_list([rng.normal(size=(n, 3)) for n in shapes.prod(1)], shapes=shapes)
    L = X.map(lambda values: values[:, :1] > 1)
    masks = ConceptSegmenter(0.15).fit(X, L.max(), L).predict(X)
    np.testing.assert_array_equal(masks.shapes, shapes)
    assert concept_iou(L, masks) > 0.9


def test_a_search_passes_masks_on(problem):
    X, y, L = problem
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            ConceptSegmenter(), {"share": [0.001, 0.05]}, cv=3, error_score="raise"
        ).fit(X, y, token_labels=L)
    assert search.best_params_ == {"share": 0.05}
    weak = ConceptSegmenter(0.05).fit(X, y).score(X, y)
    assert search.best_score_ > 0.6 > weak


def test_a_concept_that_no_unit_marks_is_warned_of():
    values, y = np.arange(100.0)[:, None], np.arange(100) < 5
    with pytest.warns(UserWarning, match=r"none of the 1 units marks a token of \['True'\]"):
        method = ConceptSegmenter(0.05).fit(values, y)
    assert method.score(values, y) == 0


def test_kept_it_says_the_same(problem, tmp_path):
    X, y, L = problem
    method = ConceptSegmenter(0.05).fit(X, y, L)
    skact.save(method, tmp_path / "kept")
    again = skact.load(tmp_path / "kept")
    np.testing.assert_array_equal(again.predict(X).flat(), method.predict(X).flat())
    assert again.score(X, y, L) == method.score(X, y, L)
    assert again.transform(X).source == method.transform(X).source


@pytest.mark.parametrize(
    ("params", "changed", "message"),
    [
        ({"share": 0}, {}, "'share' parameter"),
        ({"share": 1.0}, {}, "'share' parameter"),
        ({"units": "all"}, {}, "'units' parameter"),
        ({"weight_decay": -1}, {}, "'weight_decay' parameter"),
        ({}, {"y": None}, "requires y to be passed"),
        ({}, {"token_labels": lambda L: L[1:]}, "token_labels has 59 samples, X has 60"),
        ({}, {"token_labels": lambda L: L.columns([0])}, "token_labels has 1 concepts, y has 2"),
        ({}, {"token_labels": lambda L: L.map(np.ones_like)}, "y says that the sample does not"),
        ({}, {"X": lambda X: X.map(lambda v: v * np.nan)}, "contains NaN"),
        ({}, {"X": lambda X: LayerStack({0: X})}, "SelectLayer"),
    ],
)
def test_bad_input(problem, params, changed, message):
    given = dict(zip(("X", "y", "token_labels"), problem, strict=True))
    given |= {n: f(given[n]) if callable(f) else f for n, f in changed.items()}
    with pytest.raises((ValueError, TypeError), match=message):
        ConceptSegmenter(**params).fit(**given)


def test_bad_scores(problem):
    X, y, L = problem
    method = ConceptSegmenter(0.05).fit(X, y, L)
    with pytest.raises(ValueError, match="y has 1 concepts, in fit it had 2"):
        method.score(X, y[:, :1])
    with pytest.raises(ValueError, match="6 features"):
        method.predict(X.columns([0]))
    assert method.score(X[:2], y[:2] * 0) == 0  # a fold need not hold the concepts
