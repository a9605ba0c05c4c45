"""The base classes own ``fit``; what else a method can do stands beside them."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import has_fit_parameter

import skact.concepts
from skact import (
    DifferenceInMeans,
    KMeansConcepts,
    LinearSeparator,
    MaxSeparator,
    MeanPrototype,
    NMFConcepts,
    PCAConcepts,
    TokenArray,
)
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

    def _update(self, tokens, labels, first, weight):
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
    assert Sums().get_metadata_routing().fit.requests == {
        "token_labels": True,
        "sample_weight": None,
    }
    requests = Sums().get_metadata_routing().partial_fit.requests
    assert requests == {"token_labels": True, "classes": None, "sample_weight": None}
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
    # It hands all it is given to another method.
    assert fits.pop("IsolatedConcepts") is not BaseConcepts.fit
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


WEIGHED = [
    MeanPrototype(),
    DifferenceInMeans(),
    DifferenceInMeans(reference="all"),
    DifferenceInMeans(whiten=True),
    DifferenceInMeans("pca"),
    DifferenceInMeans("pca", reference="all"),
    LinearSeparator(),
    LinearSeparator(balance=None),
    MaxSeparator(tol=1e-9),
    MaxSeparator(None, top=2, window=2, tol=1e-9),
    MaxSeparator(token_weight=0.5, benign_variance=0.1, tol=1e-9),
]


@pytest.fixture
def weighed(rng):
    """Ragged tokens of two concepts, labels and weights."""
    present = rng.random((50, 2)) < 0.4
    labels = [
        (rng.random((n, 2)) < 0.6) & row
        for n, row in zip(rng.integers(2, 9, 50), present, strict=True)
    ]
    for marked, row in zip(labels, present, strict=True):
        marked[0] |= row
    samples = [rng.normal(size=(len(m), 4)) + m @ rng.normal(size=(2, 4)) for m in labels]
    data = TokenArray.from_list(samples), present.astype(int), TokenArray.from_list(labels)
    return *data, rng.integers(0, 4, 50)


@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize("method", WEIGHED, ids=repr)
def test_a_weight_is_a_number_of_repetitions(weighed, method, with_labels):
    X, y, labels, weight = weighed
    labels = labels if with_labels else None
    again = np.repeat(np.arange(50), weight)
    repeated = clone(method).fit(X[again], y[again], labels and labels[again]).concept_vectors_
    found = clone(method).fit(X, y, labels, sample_weight=weight).concept_vectors_
    np.testing.assert_allclose(found, repeated, rtol=1e-4, atol=1e-5 * np.abs(repeated).max())
    # Scale does not count, and without weights it is another fit.
    shares = clone(method).fit(X, y, labels, sample_weight=weight / 1e3).concept_vectors_
    np.testing.assert_allclose(shares, found, rtol=1e-4, atol=1e-5 * np.abs(found).max())
    plain = clone(method).fit(X, y, labels).concept_vectors_
    assert np.abs(plain - found).max() > 1e-3 * np.abs(found).max()


@pytest.mark.parametrize(
    "method",
    [*WEIGHED, MaxSeparator(weight_decay="auto", cv=2), LinearSeparator("adam", random_state=0)],
    ids=repr,
)
def test_ones_change_no_bit_and_zeros_leave_out(weighed, method):
    X, y, labels, weight = weighed
    plain = clone(method).fit(X, y, labels).concept_vectors_
    ones = clone(method).fit(X, y, labels, sample_weight=np.ones(50)).concept_vectors_
    np.testing.assert_array_equal(ones, plain)
    kept = weight > 0
    part = clone(method).fit(X[kept], y[kept], labels[kept]).concept_vectors_
    masked = clone(method).fit(X, y, labels, sample_weight=kept).concept_vectors_
    np.testing.assert_array_equal(masked, part)


def test_weights_and_groups_are_cut_alike(weighed):
    X, y, labels, weight = weighed
    groups, kept = np.arange(50) // 5, np.flatnonzero(weight)
    method = MaxSeparator(weight_decay="auto", cv=2, token_weight=0.5)
    whole = method.fit(X, y, labels, weight, groups).concept_vectors_
    part = method.fit(X[kept], y[kept], labels[kept], weight[kept], groups[kept])
    np.testing.assert_array_equal(whole, part.concept_vectors_)


@pytest.mark.parametrize(
    "method", [MeanPrototype(), DifferenceInMeans(), DifferenceInMeans(whiten=True)]
)
def test_parts_with_weights_go_on_and_merge(weighed, method):
    X, y, labels, weight = weighed
    weight = weight + 1
    whole = clone(method).fit(X, y, labels, sample_weight=weight).concept_vectors_
    parts = [slice(0, 20), slice(20, 50)]
    stream = clone(method)
    for part in parts:
        stream.partial_fit(X[part], y[part], labels[part], sample_weight=weight[part])
    np.testing.assert_allclose(stream.concept_vectors_, whole)
    one, other = (
        clone(method).fit(X[part], y[part], labels[part], sample_weight=weight[part])
        for part in parts
    )
    np.testing.assert_allclose(one.merge(other).concept_vectors_, whole)


def test_a_separator_ends_where_its_loss_is_flat(rng):
    y, weight = np.arange(60) % 2, rng.integers(0, 4, 60)
    X, again = rng.normal(size=(60, 64)), np.repeat(np.arange(60), weight)
    X[:, 0] += 6 * y
    X /= np.linalg.norm(X, axis=1).mean()

    def ends(dtype):
        Z = X.astype(dtype)
        weighted = LinearSeparator().fit(Z, y, sample_weight=weight).concept_vectors_[0]
        return weighted, LinearSeparator().fit(Z[again], y[again]).concept_vectors_[0]

    def loss(v):
        sign, share = 2 * y[again] - 1, np.where(y, weight @ y, weight @ (1 - y))[again]
        return (np.logaddexp(0, -sign * (X[again] @ v)) / (2 * share)).sum() + 5e-5 * v @ v

    for dtype, gap in ((np.float64, 1e-8), (np.float32, 1e-6)):
        one, other = ends(dtype)
        assert abs(loss(one) - loss(other)) < gap
        assert one @ other > 0.9999 * np.linalg.norm(one) * np.linalg.norm(other)
        # Control: it is the loss, and it is not flat everywhere.
        assert loss(0.9 * one) - loss(one) > 1e-4


@pytest.mark.parametrize("solver", ["adam", "minibatch"])
def test_solvers_that_draw_tokens_take_no_weights(weighed, solver):
    X, y, labels, weight = weighed
    with pytest.raises(ValueError, match=r"draws tokens.*sample_weight needs solver=\"lbfgs\""):
        LinearSeparator(solver).fit(X, y, labels, sample_weight=weight)


@pytest.mark.parametrize("Units", [KMeansConcepts, PCAConcepts, NMFConcepts])
def test_units_have_no_weights(Units):
    assert not has_fit_parameter(Units(), "sample_weight")


@pytest.mark.parametrize("method", WEIGHED, ids=repr)
def test_rows_of_matrices_have_weights(weighed, method, rng):
    method = clone(method)
    if getattr(method, "window", 1) > 1:
        method.set_params(window=1)
    X, y = rng.normal(size=(30, 3)), np.array(["a", "b", "c"])[np.arange(30) % 3]
    weight = np.arange(30) % 4
    again = np.repeat(np.arange(30), weight)
    found = method.fit(pd.DataFrame(X), list(y), sample_weight=weight.tolist())
    assert found.get_feature_names_out().tolist() == ["a", "b", "c"]
    repeated = clone(method).fit(X[again], y[again]).concept_vectors_
    scale = np.abs(repeated).max()
    np.testing.assert_allclose(found.concept_vectors_, repeated, rtol=1e-4, atol=1e-5 * scale)
