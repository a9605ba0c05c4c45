"""F1 and IoU against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import f1_score, jaccard_score

from skact import TokenArray, concept_iou, token_f1_score, weighted_f1_score
from skact.metrics import token_iou_score
from tests.metrics.marks import make_marks

pairs = array_shapes(min_dims=2, max_dims=2, max_side=8).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


def test_set_iou_is_jaccard_of_all_tokens(rng):
    true, pred = make_marks(rng)
    found = concept_iou(true, pred)
    expected = jaccard_score(true.flat(), pred.flat(), average=None)
    np.testing.assert_allclose(found, expected)
    slow = [
        sum((t[:, c] & p[:, c]).sum() for t, p in zip(true, pred, strict=True))
        / sum((t[:, c] | p[:, c]).sum() for t, p in zip(true, pred, strict=True))
        for c in range(3)
    ]
    np.testing.assert_allclose(found, slow)
    weight = rng.integers(0, 3, len(true))
    rows = np.repeat(np.arange(len(true)), weight)
    weighted = concept_iou(true, pred, sample_weight=weight)
    np.testing.assert_allclose(weighted, concept_iou(true[rows], pred[rows]))
    mean = np.average(found, weights=true.flat().sum(axis=0))
    assert mean == pytest.approx(token_iou_score(true, pred))
    nothing = true.with_values(np.zeros_like(true.flat()))
    np.testing.assert_array_equal(concept_iou(nothing, nothing), 0)
    with pytest.raises(ValueError, match="labels_pred must be a TokenArray of bool"):
        concept_iou(true, pred.flat())


@settings(max_examples=200, deadline=None)
@given(pair=pairs, dtype=st.sampled_from([bool, int, float]))
def test_weighted_f1_is_that_of_scikit_learn(pair, dtype):
    true, pred = (one.astype(dtype) for one in pair)
    score = weighted_f1_score(true, pred)
    if true.shape[1] == 1:
        # scikit-learn would weigh both classes of a single column; here a column is a concept.
        expected = f1_score(true[:, 0], pred[:, 0], zero_division=0)
        assert weighted_f1_score(true[:, 0], pred[:, 0]) == score
    else:
        expected = f1_score(true.astype(int), pred.astype(int), average="weighted", zero_division=0)
    assert score == pytest.approx(expected, abs=1e-12)


def test_weights_are_those_of_scikit_learn(rng):
    true, pred = make_marks(rng, n_concepts=3)
    weight = rng.integers(0, 4, len(true))
    present, found = true.max().astype(int), pred.max().astype(int)
    expected = f1_score(present, found, average="weighted", sample_weight=weight, zero_division=0)
    assert weighted_f1_score(present, found, sample_weight=weight) == pytest.approx(expected)
    names = np.array(list("abc"))
    classes = names[rng.integers(0, 3, len(true))], names[rng.integers(0, 3, len(true))]
    expected = f1_score(*classes, average="weighted", sample_weight=weight)
    assert weighted_f1_score(*classes, sample_weight=list(weight)) == pytest.approx(expected)
    flat = true.flat(), pred.flat()
    of_tokens = np.repeat(weight, true.lengths)
    for score, theirs in ((token_f1_score, f1_score), (token_iou_score, jaccard_score)):
        expected = theirs(*flat, average="weighted", sample_weight=of_tokens, zero_division=0)
        assert score(true, pred, sample_weight=weight) == pytest.approx(expected)
        assert score(true, pred, sample_weight=weight) != pytest.approx(score(true, pred))


def test_weighted_f1_by_hand():
    true = np.array([[1, 1], [1, 0], [1, 0], [0, 0]])
    pred = np.array([[1, 0], [1, 0], [0, 1], [1, 0]])
    # Concept 0: TP 2, FP 1, FN 1 -> 2/3, weight 3; concept 1: nothing hit, weight 1.
    assert weighted_f1_score(true, pred) == pytest.approx((3 * 2 / 3 + 1 * 0) / 4)
    assert weighted_f1_score(true, true) == 1
    assert weighted_f1_score(np.zeros((3, 2)), np.ones((3, 2))) == 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9999), n_concepts=st.integers(2, 3))
def test_token_scores_are_those_of_all_tokens(seed, n_concepts):
    rng = np.random.default_rng(seed)
    true, pred = make_marks(rng, n_concepts=n_concepts)
    order = rng.integers(0, len(true), 7)
    for a, b in ((true, pred), (true[order], pred[order]), (true[::-1], pred[::-1])):
        flat = [np.concatenate(d.to_list()) for d in (a, b)]
        for score, theirs in ((token_f1_score, f1_score), (token_iou_score, jaccard_score)):
            expected = theirs(*flat, average="weighted", zero_division=0)
            assert score(a, b) == pytest.approx(expected, abs=1e-12)


def test_token_scores_by_hand():
    true = TokenArray(np.array([[1, 0], [1, 0], [0, 1], [0, 0]], bool), [0, 2, 4])
    pred = TokenArray(np.array([[1, 0], [0, 0], [1, 0], [0, 1]], bool), [0, 2, 4])
    # Concept 0: TP 1, FP 1, FN 1, weight 2; concept 1: nothing hit, weight 1.
    assert token_f1_score(true, pred) == pytest.approx(2 / 3 * 0.5)
    assert token_iou_score(true, pred) == pytest.approx(2 / 3 / 3)
    assert token_iou_score(true, true) == token_f1_score(true, true) == 1
    nothing = true.map(np.zeros_like)
    assert token_iou_score(nothing, pred) == token_f1_score(nothing, pred) == 0


TRUE = np.array([[1, 0], [0, 1], [1, 1]])
MARKS = TokenArray(np.array([[True], [False], [True]]), [0, 2, 3])


@pytest.mark.parametrize("form", [list, np.array])
@pytest.mark.parametrize(
    "classes", [["no", "yes"], np.array(["no", "yes"], object), [1, 2], [-1.0, 1.0]]
)
def test_the_larger_of_two_classes_is_the_concept(rng, form, classes):
    true, pred = rng.random((2, 40)) < 0.4
    named = [form([classes[int(one)] for one in y]) for y in (true, pred)]
    assert weighted_f1_score(*named) == pytest.approx(f1_score(true, pred))
    assert weighted_f1_score(*named) != pytest.approx(f1_score(~true, ~pred))


@pytest.mark.parametrize("classes", [["joy", "anger", "awe"], [0, 1, 2], [5, 7, 9]])
def test_of_more_classes_each_is_a_concept(rng, classes):
    true, pred = rng.choice(classes, (2, 60)).tolist()
    expected = f1_score(true, pred, average="weighted")
    assert weighted_f1_score(true, pred) == pytest.approx(expected)
    # A class that is only predicted costs hits of others and has no weight itself.
    pred = [classes[2] if one == classes[0] else one for one in pred]
    true = [classes[0] if one == classes[2] else one for one in true]
    if classes[:2] != [0, 1]:  # 0 and 1 alone are one concept
        expected = f1_score(true, pred, average="weighted")
        assert weighted_f1_score(true, pred) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (weighted_f1_score, ([[0], [1], [2]], [[0], [1], [1]]), "y_true must be .* of 0 and 1"),
        (weighted_f1_score, ([0, 1, 1], [0, 1, 2]), "y_pred must be .* of 0 and 1"),
        (weighted_f1_score, ([0, 1, 2], [0, 1, 1.5]), "y_pred must be .* of whole numbers"),
        (weighted_f1_score, ([0, 1, 2], [0, 1, np.inf]), "y_pred must be .* of whole numbers"),
        (weighted_f1_score, ([0, 1, 2], ["0", "1", "1"]), "y_pred must be .* of whole numbers"),
        (weighted_f1_score, ([0, 1, 1], [0, 1, 0.5]), "y_pred must be .*float64"),
        (weighted_f1_score, ([0.0, np.nan], [0, 1]), "y_true misses 1 of its 2 values"),
        (weighted_f1_score, ([[0], [1]], [[np.nan], [None]]), "y_pred misses 2 of its 2 values"),
        (weighted_f1_score, (TRUE[None], TRUE[None]), r"y_true must be .*\(1, 3, 2\)"),
        (weighted_f1_score, (["yes", "no"], [1, 0]), "y_pred must be .* of strings"),
        (weighted_f1_score, (["yes", "no"], [["yes"], ["no"]]), "y_pred must be .* of strings"),
        (weighted_f1_score, ([["yes"], ["no"]], ["yes", "no"]), "y_true must be .* of 0 and 1"),
        (weighted_f1_score, (["yes", 1], ["yes", "no"]), "y_true must be"),
        (weighted_f1_score, (["yes", "no"], ["yes", 1]), "y_pred must be .* of strings"),
        (weighted_f1_score, ([[1], [1, 0]], [1, 0]), "y_true must have rows of one length"),
        (weighted_f1_score, (TRUE[:, :0], TRUE[:, :0]), "y_true must be"),
        (weighted_f1_score, (["yes", None], ["yes", "no"]), "y_true misses 1 of its 2 values"),
        (weighted_f1_score, (["yes", "no"], ["yes"]), "differ in shape"),
        (weighted_f1_score, (TRUE, TRUE[:2]), r"differ in shape: \(3, 2\) and \(2, 2\)"),
        (weighted_f1_score, (TRUE, TRUE[:, :1]), r"differ in shape: \(3, 2\) and \(3, 1\)"),
        (token_f1_score, (MARKS, MARKS[:1]), r"differ in shape: \(2, 1\) and \(1, 1\)"),
        (token_f1_score, (MARKS, MARKS[::-1]), "differ in the number of tokens"),
        (token_f1_score, (MARKS, MARKS.values), "differ in shape|TokenArray"),
        (token_f1_score, (MARKS, MARKS.to_list()), "labels_pred|differ in|TokenArray"),
        (token_f1_score, (MARKS.to_list(), MARKS.to_list()), "labels_true|TokenArray"),
        (token_f1_score, (MARKS, MARKS.map(np.float32)), "labels_pred must .* bool, got float32"),
        (token_iou_score, (MARKS, MARKS[:1]), r"differ in shape: \(2, 1\) and \(1, 1\)"),
        (token_iou_score, (MARKS.map(np.float32), MARKS), "labels_true must .* bool, got float32"),
    ],
)
def test_bad_inputs(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
