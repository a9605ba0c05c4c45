"""The base classes own ``fit``; what else a method can do stands beside them."""

import numpy as np
import pytest
import sklearn
from sklearn.exceptions import NotFittedError

import skact.concepts
from skact import TokenArray
from skact.concepts import BaseConcepts, BaseUnits
from skact.concepts._base import check_enough_tokens, check_separable
from skact.concepts._reconstruction import ReconstructionMixin
from skact.concepts._statistics import labelled_sums
from skact.concepts._streaming import StreamingConceptsMixin, StreamingUnitsMixin


class Sums(StreamingConceptsMixin, BaseConcepts):
    """A concept is the sum of its tokens, which is the same in any cut."""

    _parameter_constraints = {"go_on": ["boolean"]}

    def __init__(self, go_on=True):
        self.go_on = go_on

    def _streams(self):
        return self.go_on

    def _update(self, tokens, labels, first):
        sums, _ = labelled_sums(tokens, labels)
        return sums if first else self.concept_vectors_ + sums

    def _score(self, values):
        return values @ self.concept_vectors_.T


class Extremes(StreamingUnitsMixin, ReconstructionMixin, BaseUnits):
    """Two units, the smallest and the largest of each feature."""

    _parameter_constraints = {}

    def _fit_vectors(self, tokens):
        return self._update(tokens, True)

    def _update(self, tokens, first):
        values = tokens.flat() if first else np.r_[self.concept_vectors_, tokens.flat()]
        return np.stack([values.min(axis=0), values.max(axis=0)])

    def _score(self, values):
        return values @ self.concept_vectors_.T

    def _reconstruct(self, scores):
        return scores @ self.concept_vectors_


@pytest.fixture
def problem(rng):
    X = TokenArray(rng.normal(size=(40, 3)), np.arange(0, 41, 4))
    labels = TokenArray(np.arange(40)[:, None] % 3 == [0, 1], X.offsets)
    return X, np.ones((10, 2)), labels


def test_concepts_of_ones_own_stream(problem):
    X, y, labels = problem
    whole, parts = Sums().fit(X, y, token_labels=labels), Sums()
    for part in (slice(0, 3), slice(3, 10)):
        parts.partial_fit(X[part], y[part], token_labels=labels[part])
    np.testing.assert_allclose(parts.concept_vectors_, whole.concept_vectors_)
    assert whole.get_feature_names_out().tolist() == ["concept0", "concept1"]
    assert not hasattr(Sums(go_on=False), "partial_fit")
    once = Sums(go_on=False).fit(X, y, token_labels=labels)
    np.testing.assert_array_equal(once.concept_vectors_, whole.concept_vectors_)


def test_units_of_ones_own_stream_and_reconstruct(problem):
    X = problem[0]
    whole, parts = Extremes().fit(X), Extremes()
    for part in (slice(0, 3), slice(3, 10)):
        parts.partial_fit(X[part])
    np.testing.assert_array_equal(parts.concept_vectors_, whole.concept_vectors_)
    assert whole.get_feature_names_out().tolist() == ["extremes0", "extremes1"]
    scores = whole.transform(X)
    assert scores.source.columns == "units"
    back = whole.inverse_transform(scores)
    assert back.source.columns == "features"
    np.testing.assert_array_equal(back.flat(), scores.flat() @ whole.concept_vectors_)


def test_the_mixins_ask_for_what_the_base_asks_for():
    assert Sums().get_metadata_routing().fit.requests == {"token_labels": True}
    requests = Sums().get_metadata_routing().partial_fit.requests
    assert requests == {"token_labels": True, "classes": None}
    with sklearn.config_context(enable_metadata_routing=True):
        asking = Sums().set_partial_fit_request(classes=True)
    assert asking.get_metadata_routing().partial_fit.requests["classes"] is True


@pytest.mark.parametrize("method", [Sums(), Extremes()], ids=str)
def test_everything_is_checked_before_a_hook_is_called(problem, method, monkeypatch):
    X, y, _ = problem
    targets = (y,) if isinstance(method, Sums) else ()
    with pytest.raises(NotFittedError):
        method.transform(X)
    monkeypatch.setattr(type(method), "_update", lambda *a: pytest.fail("the hook was called"))
    bad = X.map(lambda values: np.where(values == values[5, 1], np.nan, values))
    for name in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match="NaN, first at sample 1, token 1, feature 1"):
            getattr(method, name)(bad, *targets)
    # Control: what is in order comes to the hook.
    with pytest.raises(pytest.fail.Exception, match="hook was called"):
        method.fit(X, *targets)


def test_public_methods_leave_fit_to_the_base():
    methods = [m for m in vars(skact.concepts).values() if isinstance(m, type)]
    fits = {m.__name__: m.fit for m in methods if issubclass(m, BaseConcepts | BaseUnits)}
    # It takes labels of tokens, and says that it does not read them.
    assert fits.pop("MaxSeparator") is not BaseConcepts.fit
    assert len(fits) > 8
    assert set(fits.values()) == {BaseConcepts.fit, BaseUnits.fit}


def test_what_cannot_be_told_apart_is_named(problem):
    names = np.array(["cat", "dog"], dtype=object)
    check_separable(np.array([3, 9]), 10, names, "token", "a separator")
    with pytest.raises(ValueError, match="every token belongs to concept 'dog'; a separator needs"):
        check_separable(np.array([3, 10]), 10, names, "token", "a separator")
    with pytest.raises(ValueError, match="every sample holds concept 'cat'"):
        check_separable(np.array([10, 10]), 10, names, "sample", "a separator")
    check_enough_tokens(problem[0], 40, "forty parts")
    with pytest.raises(ValueError, match=r"41 parts need at least 41 tokens, got 40 \(n_samples=1"):
        check_enough_tokens(problem[0], 41, "41 parts")
