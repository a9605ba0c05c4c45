"""What every step from tokens to tokens has in common."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline

import skact
from skact import (
    Cascade,
    ConceptLocalizer,
    ConceptSearchCV,
    CrossFitTransformer,
    DifferenceInMeans,
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    PromptDetector,
    SelectLayer,
    Source,
    SparseAutoencoder,
    SuperActivator,
    TokenArray,
    TopWindows,
    TransformerEmbedder,
)
from skact.base import NestedParamsMixin, TokensOutMixin, TokenTransformer, concept_names
from skact.validation import check_tokens


class AddOne(TokenTransformer):
    def fit(self, X, y=None):
        check_tokens(self, X)
        return self

    def _transform(self, tokens):
        return tokens.map(lambda block: block + 1)

    def get_feature_names_out(self, input_features=None):
        return np.array(["a", "b"])


class Inner(BaseEstimator):
    def __init__(self, tol=1.0):
        self.tol = tol


PLAIN = [
    (LinearSeparator(), "solver"),
    (SparseAutoencoder(), "training"),
    (SuperActivator(), "delta"),
    (SelectLayer(), "layer"),
    (TransformerEmbedder("a-model"), "model"),
    (ConceptLocalizer("a-model", MeanPrototype(), SuperActivator(), method="rise"), "method"),
    (PromptDetector(), "log"),
    (CrossFitTransformer(MeanPrototype()), "cv"),
    (ConceptSearchCV(SuperActivator(), {}), "scoring"),
]


@pytest.mark.parametrize(("estimator", "name"), PLAIN, ids=lambda v: str(v)[:20])
def test_a_plain_value_has_no_parameters_of_its_own(estimator, name):
    estimator = clone(estimator)
    value = getattr(estimator, name)
    what = f"{name}__tol cannot be set: {name} of {type(estimator).__name__} is {value!r}, which"
    in_pipeline = Pipeline([("step", estimator)])
    for owner, key in ((estimator, f"{name}__tol"), (in_pipeline, f"step__{name}__tol")):
        with pytest.raises(ValueError, match=re.escape(what)):
            owner.set_params(**{key: 2})
    # An object has some, set before or in the same call.
    estimator.set_params(**{f"{name}__tol": 3, name: Inner()})
    assert getattr(estimator, name).tol == 3
    estimator.set_params(**{f"{name}__tol": 4})
    assert getattr(estimator, name).tol == 4
    with pytest.raises(ValueError, match="Invalid parameter 'nothing'"):
        estimator.set_params(nothing__tol=1)


def test_every_estimator_has_it():
    named = [getattr(skact, name) for name in skact.__all__]
    estimators = [c for c in named if isinstance(c, type) and issubclass(c, BaseEstimator)]
    assert len(estimators) > 30
    assert [c.__name__ for c in estimators if not issubclass(c, NestedParamsMixin)] == []


@pytest.fixture
def ragged():
    return [np.zeros((2, 2)), np.ones((3, 2))]


def test_transform_gives_tokens_for_tokens_and_a_matrix_for_a_matrix(ragged):
    step = AddOne().fit(ragged)
    for X in (ragged, TokenArray.from_list(ragged)):
        out = step.transform(X)
        assert isinstance(out, TokenArray)
        for got, sample in zip(out, ragged, strict=True):
            np.testing.assert_array_equal(got, sample + 1)
    matrix = np.arange(6.0).reshape(3, 2)
    out = step.transform(matrix)
    assert type(out) is np.ndarray
    np.testing.assert_array_equal(out, matrix + 1)
    cube = step.transform(np.zeros((2, 4, 2)))
    assert isinstance(cube, TokenArray)
    assert cube.lengths.tolist() == [4, 4]


def test_transform_before_fit_is_refused(ragged):
    with pytest.raises(NotFittedError, match="AddOne"):
        AddOne().transform(ragged)


def test_tokens_are_never_wrapped_in_a_data_frame_and_matrices_are(ragged):
    step = AddOne()
    assert step.set_output(transform="pandas") is step
    frame = step.fit_transform(pd.DataFrame([[0, 1], [2, 3]], ["x", "y"], ["c", "d"]))
    pd.testing.assert_frame_equal(
        frame, pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], ["x", "y"], ["a", "b"])
    )
    assert type(AddOne().fit_transform(np.eye(2))) is np.ndarray
    pipe = make_pipeline(AddOne(), AddOne()).set_output(transform="pandas")
    assert isinstance(pipe.fit_transform(ragged), TokenArray)
    with config_context(transform_output="pandas"):
        assert isinstance(AddOne().fit(ragged).transform(ragged), TokenArray)


def test_a_step_without_the_mixin_would_break_under_set_output(ragged):
    class Plain(TransformerMixin, BaseEstimator):
        def fit(self, X, y=None):
            return self

        def transform(self, X):
            return TokenArray.from_list(X)

        def get_feature_names_out(self, input_features=None):
            return np.array(["a", "b"])

    class Mixed(TokensOutMixin, BaseEstimator):
        fit, transform = Plain.fit, Plain.transform
        get_feature_names_out = Plain.get_feature_names_out

    with config_context(transform_output="pandas"):
        with pytest.raises((TypeError, ValueError)):
            Plain().fit_transform(ragged)
        assert isinstance(Mixed().fit_transform(ragged), TokenArray)


def test_concepts_without_names_are_numbered():
    assert concept_names(["cat", "dog"], 2).tolist() == ["cat", "dog"]
    assert concept_names(None, 3).tolist() == ["concept0", "concept1", "concept2"]
    assert concept_names(None, 3).dtype == object


def test_what_does_not_belong_together_is_not_merged(rng):
    X, y = rng.normal(size=(20, 3)), np.arange(20) % 2
    kept = MeanPrototype().fit(X, y)
    before = kept.concept_vectors_.copy()
    tokens = TokenArray(X, np.arange(21))
    here, there = (
        DifferenceInMeans().fit(tokens.with_source(Source("m", block=b)), y) for b in (1, 2)
    )
    cases = [
        (kept, DifferenceInMeans().fit(X, y), TypeError, r"others\[1\] must be a fitted MeanProto"),
        (kept, MeanPrototype(), NotFittedError, "not fitted"),
        (MeanPrototype(), kept, NotFittedError, "not fitted"),
        (kept, MeanPrototype().fit(X[:, :2], y), ValueError, "number of features: 3 here, 2 there"),
        (kept, MeanPrototype().fit(X, np.c_[y, 1 - y]), ValueError, "another concept_names_"),
        (here, there, ValueError, "another block"),
        (
            DifferenceInMeans().fit(X, y),
            DifferenceInMeans(reference="all").fit(X, y),
            ValueError,
            "another reference: out here, all there",
        ),
    ]
    for one, other, error, message in cases:
        with pytest.raises(error, match=message):
            one.merge(kept if type(one) is MeanPrototype else one, other)
    np.testing.assert_array_equal(kept.concept_vectors_, before)
    np.testing.assert_allclose(kept.merge(kept).concept_vectors_, before)


def cut_at_zero(X):
    return (np.asarray(X) > 0).astype(int)


@pytest.mark.parametrize(
    "estimator",
    [
        MaxToken(0.9),
        make_pipeline(MeanPrototype(), MaxToken(0.9)),
        ConceptSearchCV(MaxToken(), {"delta": [0.8, 0.9]}, cv=2),
        GridSearchCV(MaxToken(), {"delta": [0.8, 0.9]}, cv=2),
        Cascade(TopWindows(None, cut=("recall", "false_alarms"), level=(0.9, 0.1)), cut_at_zero),
    ],
    ids=lambda e: type(e).__name__,
)
def test_scores_find_the_columns_of_y_by_their_names(estimator, rng):
    y = pd.DataFrame({"cat": rng.permutation(np.arange(60) % 2), "dog": np.arange(60) % 2})
    X = y.to_numpy() - 0.5 + rng.normal(size=(60, 2)) / 3
    fitted = clone(estimator).fit(X, y)
    score = fitted.score(X, y)
    assert score > 0.6
    assert fitted.score(X, y[["dog", "cat"]]) == fitted.score(X, y.to_numpy()) == score
    assert fitted.score(X, y[["dog", "cat"]].to_numpy()) < score
    with pytest.raises(ValueError, match="y names its columns"):
        fitted.score(X, y.rename(columns={"dog": "cow"}))
    # What fit took by position stays so.
    assert clone(estimator).fit(X, y.to_numpy()).score(X, y) == score
