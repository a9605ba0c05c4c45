"""What every step from tokens to tokens has in common."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skact import TokenArray
from skact.base import TokensOutMixin, TokenTransformer, concept_names
from skact.validation import check_tokens


class AddOne(TokenTransformer):
    def fit(self, X, y=None):
        check_tokens(self, X)
        return self

    def _transform(self, tokens):
        return tokens.map(lambda block: block + 1)

    def get_feature_names_out(self, input_features=None):
        return np.array(["a", "b"])


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


def test_tokens_are_never_wrapped_in_a_data_frame(ragged):
    step = AddOne()
    assert step.set_output(transform="pandas") is step
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
