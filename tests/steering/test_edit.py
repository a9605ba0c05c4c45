"""What edits have in common: bad inputs, names, keeping."""

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

import skact
from skact import (
    Ablation,
    ActivationTransport,
    Addition,
    AffineEdit,
    KMeansConcepts,
    LinearErasure,
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    MinimalNormEdit,
    NormClip,
    Source,
    TokenArray,
)

RNG = np.random.default_rng(0)
Y = np.c_[np.arange(20) % 2, np.arange(20) // 2 % 2]
X = TokenArray(
    RNG.normal(size=(60, 4)) + np.repeat(Y, 3, axis=0) @ np.eye(4)[:2], np.arange(0, 61, 3)
)
X = X.with_source(Source("m", "r", 2))
NAMED = TokenArray(np.repeat(Y, 3, axis=0).astype(bool), X.offsets, feature_names=["joy", "fear"])
OTHER = TokenArray(NAMED.flat(), X.offsets, feature_names=["cat", "dog"])


def line(*steps, data=X, labels=None):
    return make_pipeline(*steps).fit(
        data, Y, **({} if labels is None else {"maxtoken__token_labels": labels})
    )


@pytest.mark.parametrize(
    ("edit", "data", "y", "message"),
    [
        (Addition(np.ones(3)), X, None, r"direction must have 4 features, .* shape \(3,\)"),
        (Ablation(np.ones((2, 5))), X, None, r"direction must have 4 features, .* shape \(2, 5\)"),
        (Addition([0, 0, 0, 0]), X, None, "direction 0 is zero"),
        (Addition([1, np.nan, 0, 0]), X, None, "direction must be finite"),
        (Addition(np.eye(4)), X, None, "direction must be one vector of 4 features, got 4"),
        (Addition("up"), X, None, "'direction' parameter of Addition"),
        (Addition(strength=np.nan), X, Y, "'strength' .* Got nan"),
        (Addition(strength=np.inf), X, Y, "'strength' .* Got inf"),
        (Addition(unit="norms"), X, Y, "'unit' parameter of Addition"),
        (Addition(), X, None, "requires y to be passed"),
        (
            Addition(concept=2),
            X,
            Y,
            "concept=2 is none of the 2 that there are: concept0, concept1",
        ),
        (AffineEdit(concept="joy"), X, Y, "concept='joy' is none of the 2"),
        (AffineEdit(), X, np.ones((20, 1)), "every token belongs to concept 'concept0'"),
        (ActivationTransport(), X, np.ones((20, 1)), "every token belongs to concept 'concept0'"),
        (LinearErasure(), X, np.ones((20, 1)), "every token belongs to concept 'concept0'"),
        (AffineEdit(), np.ones((20, 4)), Y[:, 0], "the same mean, so it has no level"),
        (MinimalNormEdit([-1, 0, 0, 0]), X, Y, "score no higher along direction"),
        (MinimalNormEdit(probability=1), X, Y, "'probability' parameter"),
        (
            Addition(FrozenEstimator(LinearSeparator().fit(X, Y))),
            X.with_source(Source("m", "r", 3)),
            None,
            "direction was fitted on another block",
        ),
    ],
)
def test_bad_inputs(edit, data, y, message):
    with pytest.raises(ValueError, match=message):
        edit.fit(data, y)


@pytest.mark.parametrize(
    ("gate", "data", "message"),
    [
        (
            line(LinearSeparator(), MaxToken()),
            X[:, ...].with_source(Source("m", "r", 7)),
            "gate was fitted on another block",
        ),
        (
            line(LinearSeparator(), MaxToken(), data=X.columns([0, 1])),
            X.with_source(None),
            "gate was fitted on tokens of 2 features, these have 4",
        ),
        (
            line(KMeansConcepts(2), MaxToken()),
            X,
            "gate must have a concept method that scores tokens by an inner",
        ),
        (
            line(NormClip(), MeanPrototype(), MaxToken()),
            X,
            "gate has the step NormClip, which cannot be folded",
        ),
        (line(MeanPrototype(), LinearSeparator()), X, "gate must end in a detector"),
        (make_pipeline(MeanPrototype(), MaxToken()), X, "not fitted yet"),
        (
            line(LinearSeparator(), MaxToken(), labels=OTHER),
            X,
            r"gate decides on the concepts \['cat', 'dog'\], and the edit is about 'joy'",
        ),
    ],
)
def test_gates_that_do_not_fit(gate, data, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Addition(gate=gate).fit(data, Y, NAMED)


def test_names_of_labels_are_names_of_concepts():
    edit = Addition(concept="fear", unit="raw").fit(X, Y, NAMED)
    assert edit.concept_names_.tolist() == ["joy", "fear"]
    np.testing.assert_allclose(edit.direction_, Addition(concept=1).fit(X, Y).direction_)


def test_a_unit_is_for_edits_that_add():
    with pytest.raises(ValueError, match="the strength of Ablation is a share of its change"):
        Ablation().fit(X, Y).edit_map(unit="raw")


def test_an_edited_sample_can_be_detected():
    pipe = make_pipeline(MeanPrototype(), MaxToken(0.5)).fit(X, Y)
    moved = AffineEdit(concept=0, strength=3).fit(X, Y).transform(X)
    assert pipe.predict(moved)[:, 0].mean() > pipe.predict(X)[:, 0].mean()


@pytest.mark.parametrize("kind", ["gate", "frozen direction"])
def test_edits_are_kept_with_what_they_hold(kind, tmp_path):
    pipe = line(LinearSeparator(), MaxToken(0.5))
    edit = (
        Addition(gate=FrozenEstimator(pipe))
        if kind == "gate"
        else Ablation(FrozenEstimator(pipe[0]))
    )
    edit.fit(X, Y)
    skact.save(edit, tmp_path / "edit")
    np.testing.assert_array_equal(
        skact.load(tmp_path / "edit").transform(X).flat(), edit.transform(X).flat()
    )
