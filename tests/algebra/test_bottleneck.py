"""A classifier that sees nothing but concepts, and says which of them it reads."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import skact
from skact import (
    ConceptBottleneckClassifier,
    DifferenceInMeans,
    MeanPrototype,
    PCAConcepts,
    TokenArray,
    TokenScaler,
    TransformerEmbedder,
)
from tests import tiny_models


@pytest.fixture
def data(rng):
    """Tokens with four concepts, of which the first two make three classes."""
    has = rng.integers(2, size=(240, 4))
    tokens = np.repeat(has, 3, axis=0) @ np.eye(4, 8) * 3 + rng.normal(size=(720, 8))
    X = TokenArray(tokens.astype(np.float32), np.arange(0, 721, 3))
    kind = np.array(["neither", "one", "both"])[has[:, 0] + has[:, 1]]
    return X, kind, pd.DataFrame(has, columns=["a", "b", "c", "d"])


def loss_of(weights, scores, y, classes, C):
    """The objective, written slowly."""
    w, b = weights
    total = 0.0
    for row, label in zip(scores, y, strict=True):
        odds = [b[k] + sum(w[k][c] * row[c] for c in range(len(row))) for k in range(len(classes))]
        total -= odds[list(classes).index(label)] - np.log(np.sum(np.exp(odds)))
    return C * total + np.abs(w).sum()


@pytest.mark.parametrize("pool", ["max", "mean", "last"])
def test_it_is_at_the_least_of_the_objective(data, pool, rng):
    X, y, has = data
    model = ConceptBottleneckClassifier(
        MeanPrototype(), pool=pool, C=0.3, tol=1e-8, max_iter=5000, random_state=0
    ).fit(X, y, concept_labels=has)
    raw = MeanPrototype().fit(X, has).transform(X)
    pooled = np.stack([{"max": s.max(0), "mean": s.mean(0), "last": s[-1]}[pool] for s in raw])
    scores = (pooled - pooled.mean(axis=0)) / pooled.std(axis=0)
    found = loss_of((model.coef_, model.intercept_), scores, y, model.classes_, 0.3)
    for _ in range(20):
        near = [p + 0.03 * rng.normal(size=p.shape) for p in (model.coef_, model.intercept_)]
        assert loss_of(near, scores, y, model.classes_, 0.3) > found - 1e-4
    odds = scores @ model.coef_.T + model.intercept_
    chances = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(X), chances, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(model.predict(X), model.classes_[chances.argmax(axis=1)])
    assert list(model.concept_names_) == ["a", "b", "c", "d"]
    assert model.coef_.shape == (3, 4)


def test_it_reads_the_concepts_that_make_the_classes(data):
    X, y, has = data
    sparse = ConceptBottleneckClassifier(MeanPrototype(), C=0.05, random_state=0)
    sparse.fit(X, y, concept_labels=has)
    assert (sparse.coef_[:, 2:] == 0).all()
    assert (sparse.coef_[0, :2] > 0).all()  # "both"
    assert sparse.score(X, y) > 0.6
    dense = clone(sparse).set_params(C=100).fit(X, y, concept_labels=has)
    assert (dense.coef_ != 0).sum() > (sparse.coef_ != 0).sum()
    # With the concepts of others nothing can be told: the bottleneck lets nothing else through.
    blind = clone(sparse).fit(X, y, concept_labels=has.iloc[:, 2:])
    assert blind.score(X, y) < sparse.score(X, y) - 0.1


def test_two_classes_have_one_row(data):
    X, _, has = data
    y = np.where(has["a"], "yes", "no")
    model = ConceptBottleneckClassifier(MeanPrototype(), random_state=0)
    model.fit(X, y, concept_labels=has)
    assert model.coef_.shape == (1, 4)
    assert np.abs(model.coef_[0]).argmax() == 0
    assert model.decision_function(X).shape == (240,)
    odds = np.log(model.predict_proba(X)[:, 1] / model.predict_proba(X)[:, 0])
    np.testing.assert_allclose(odds, model.decision_function(X), rtol=1e-6)
    np.testing.assert_array_equal(model.predict(X) == "yes", odds > 0)
    assert log_loss(y, model.predict_proba(X)) < 0.5


def test_a_fitted_pipeline_is_used_as_it_is(data):
    X, y, has = data
    line = make_pipeline(TokenScaler(), MeanPrototype()).fit(X[:80], has[:80])
    before = line[-1].concept_vectors_.copy()
    model = ConceptBottleneckClassifier(FrozenEstimator(line), random_state=0).fit(X, y)
    np.testing.assert_array_equal(line[-1].concept_vectors_, before)
    assert list(model.concept_names_) == ["a", "b", "c", "d"]
    other = ConceptBottleneckClassifier(line, random_state=0).fit(X[:80], y[:80], has[:80])
    np.testing.assert_allclose(other.estimator_[-1].concept_vectors_, before)
    assert other.estimator_ is not line


def test_units_need_no_labels_and_classes_can_be_concepts(data):
    X, y, _ = data
    units = ConceptBottleneckClassifier(PCAConcepts(3), pool="mean", random_state=0).fit(X, y)
    assert units.coef_.shape == (3, 3)
    plain = ConceptBottleneckClassifier(DifferenceInMeans(), random_state=0).fit(X, y)
    assert list(plain.concept_names_) == sorted(set(y))
    assert plain.score(X, y) > 0.6


def test_raw_samples_and_searches(data):
    X, y, has = data
    texts = ["the happy cat", "the angry thing", "a happy cat", "one angry cat"] * 3
    embedder = TransformerEmbedder(tiny_models.text_pair("bert"), layer=1)
    line = make_pipeline(embedder, DifferenceInMeans())
    model = ConceptBottleneckClassifier(line, random_state=0).fit(texts, [1, 0] * 6)
    assert model.score(texts, [1, 0] * 6) == 1
    with skact_routing():
        search = GridSearchCV(
            ConceptBottleneckClassifier(MeanPrototype(), random_state=0),
            {"C": [0.01, 1], "estimator": [MeanPrototype(), DifferenceInMeans()]},
            cv=2,
            error_score="raise",
        ).fit(X, y, concept_labels=has)
    assert search.best_score_ > 0.6


def skact_routing():
    import sklearn

    return sklearn.config_context(enable_metadata_routing=True)


def test_marked_tokens_reach_the_method(data):
    X, y, has = data
    first = TokenArray(np.arange(720)[:, None] % 3 == np.zeros((1, 4)), X.offsets)
    labels = first.map(lambda v: v & np.repeat(has.to_numpy(bool), 3, axis=0))
    model = ConceptBottleneckClassifier(MeanPrototype(), random_state=0)
    model.fit(X, y, concept_labels=has, token_labels=labels)
    expected = MeanPrototype().fit(X, has, token_labels=labels).concept_vectors_
    np.testing.assert_allclose(model.estimator_.concept_vectors_, expected)
    assert not np.allclose(expected, MeanPrototype().fit(X, has).concept_vectors_)


def test_what_is_saved_answers_the_same(data, tmp_path):
    X, y, has = data
    for made in (MeanPrototype(), make_pipeline(TokenScaler(), MeanPrototype())):
        model = ConceptBottleneckClassifier(made, random_state=0).fit(X, y, concept_labels=has)
        skact.save(model, tmp_path / "kept.safetensors")
        back = skact.load(tmp_path / "kept.safetensors")
        assert set(vars(back)) == set(vars(model))
        np.testing.assert_array_equal(back.predict_proba(X), model.predict_proba(X))
        np.testing.assert_array_equal(back.predict(X), model.predict(X))


@pytest.mark.parametrize(
    ("params", "given", "message"),
    [
        ({"estimator": "nonsense"}, {}, "'estimator' parameter"),
        ({"pool": "top"}, {}, "'pool' parameter"),
        ({"C": 0}, {}, "'C' parameter"),
        ({"tol": -1}, {}, "'tol' parameter"),
        ({"max_iter": 0}, {}, "'max_iter' parameter"),
        ({}, {"y": None}, "requires y to be passed"),
        ({}, {"y": ["a"] * 240}, "y must have two classes or more"),
        ({}, {"y": np.r_[np.nan, np.ones(239)]}, "Input y contains NaN"),
        ({}, {"y": np.ones((240, 2))}, "y should be a 1d array"),
        ({}, {"y": np.full(240, 1j)}, "y must hold classes"),
        ({}, {"y": ["a", "b"]}, "numbers of samples|inconsistent"),
        ({}, {"concept_labels": [[0, 1]]}, "concept_labels must be"),
    ],
)
def test_bad_input(data, params, given, message):
    X, y, has = data
    model = ConceptBottleneckClassifier(FrozenEstimator(MeanPrototype().fit(X, has)))
    with pytest.raises((ValueError, TypeError), match=message):
        model.set_params(**params).fit(**{"X": X, "y": y, **given})


def test_before_fit(data):
    with pytest.raises(NotFittedError):
        ConceptBottleneckClassifier(MeanPrototype()).predict(data[0])
