"""Average precision against scikit-learn, the pointing game by hand, and pairs left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from skact import TokenArray, token_f1_score
from skact.metrics import (
    keep_pairs,
    pointing_game_score,
    token_average_precision_score,
    token_iou_score,
)


def make_maps(rng, n_samples=12, n_concepts=3, n_values=4):
    lengths = rng.integers(1, 6, n_samples)
    offsets = np.cumsum([0, *lengths])
    shape = offsets[-1], n_concepts
    labels = TokenArray(rng.random(shape) < 0.3, offsets)
    return labels, labels.with_values(rng.integers(-n_values, n_values, shape) / n_values)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 9999), n_concepts=st.integers(1, 3), n_values=st.sampled_from([2, 99]))
def test_average_precision_is_that_of_all_tokens(seed, n_concepts, n_values):
    rng = np.random.default_rng(seed)
    labels, scores = make_maps(rng, n_concepts=n_concepts, n_values=n_values)
    order = rng.integers(0, len(labels), 9)
    for a, b in ((labels, scores), (labels[order], scores[order])):
        true, score = (np.concatenate(d.to_list()) for d in (a, b))
        held = true.any(axis=0)
        if not held.any():
            assert token_average_precision_score(a, b) == 0
            continue
        # scikit-learn warns of concepts that do not occur, and gives them no weight.
        expected = average_precision_score(
            true[:, held].astype(int), score[:, held], average="weighted"
        )
        assert token_average_precision_score(a, b) == pytest.approx(expected, abs=1e-12)


def test_average_precision_by_hand():
    labels = TokenArray(np.array([[True], [False], [True], [False]]), [0, 2, 4])

    def score(*values):
        return token_average_precision_score(labels, labels.with_values(np.c_[list(values)]))

    assert score(0.9, 0.2, 0.8, 0.1) == 1
    assert score(0.9, 0.8, 0.1, 0.0) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert score(0.0, 0.0, 0.0, 0.0) == 0.5
    nothing = labels.map(np.zeros_like)
    assert token_average_precision_score(nothing, nothing.map(np.float64)) == 0


def slow_pointing_game(labels, scores):
    """Share of the best tokens that are right, averaged over pairs that hold the concept."""
    hits = []
    for true, score in zip(labels, scores, strict=True):
        for c in np.flatnonzero(true.any(axis=0)):
            best = np.flatnonzero(score[:, c] == score[:, c].max())
            hits.append(np.mean([true[i, c] for i in best]))
    return np.mean(hits)


@pytest.mark.parametrize("n_values", [2, 10**6])
def test_pointing_game_is_a_loop_over_pairs(rng, n_values):
    labels, scores = make_maps(rng, n_samples=30, n_values=n_values)
    assert pointing_game_score(labels, scores) == pytest.approx(slow_pointing_game(labels, scores))
    backwards = pointing_game_score(labels[::-1], scores[::-1])
    assert backwards == pytest.approx(slow_pointing_game(labels, scores))


def test_weights_are_repetitions(rng):
    labels, scores = make_maps(rng, n_samples=30)
    weight = rng.integers(0, 4, 30)
    again = np.repeat(np.arange(30), weight)
    for score in (token_average_precision_score, pointing_game_score):
        found = score(labels, scores, sample_weight=weight)
        assert found == pytest.approx(score(labels[again], scores[again]))
        assert found == pytest.approx(score(labels, scores, sample_weight=weight / 1e3))
        assert found != pytest.approx(score(labels, scores))
    with pytest.raises(ValueError, match="sample_weight must have one entry per sample"):
        pointing_game_score(labels, scores, sample_weight=weight[:-1])


def test_pointing_game_by_hand():
    labels = TokenArray(np.array([[1, 0], [0, 0], [0, 1], [1, 1]], bool), [0, 2, 4])
    scores = labels.with_values(np.array([[0.9, 0], [0.1, 0], [0.7, 0.3], [0.2, 0.1]]))
    # Concept 0: hit, missed; concept 1: not in sample 0, hit in sample 1, where all is labelled.
    assert pointing_game_score(labels, scores) == pytest.approx(2 / 3)
    assert pointing_game_score(labels, labels.map(np.float32)) == 1
    # A flat map points at random: 1/2, 1/2 and 1.
    assert pointing_game_score(labels, scores.map(np.zeros_like)) == pytest.approx(2 / 3)
    assert pointing_game_score(labels.map(np.zeros_like), scores) == 0


def test_both_scores_are_invariant_as_they_should_be(rng):
    labels, scores = make_maps(rng, n_samples=40)
    rising = scores.map(np.exp)
    for score in (token_average_precision_score, pointing_game_score):
        assert score(labels, rising) == pytest.approx(score(labels, scores))
        assert score(labels, scores.map(np.negative)) != pytest.approx(score(labels, scores))
    # A shift of one sample means nothing within it, and something between samples.
    moved = scores.with_values(
        scores.flat() + 3.0 * np.repeat(np.arange(40) % 2, scores.lengths)[:, None]
    )
    assert pointing_game_score(labels, moved) == pytest.approx(pointing_game_score(labels, scores))
    assert token_average_precision_score(labels, moved) != token_average_precision_score(
        labels, scores
    )


def test_pairs_left_out_have_no_part_in_any_score(rng):
    """Scores of the kept pairs alone: concept by concept, on the samples that are kept."""
    labels, scores = make_maps(rng, n_samples=30)
    marks = scores.map(lambda tokens: tokens > 0)
    pairs = rng.random(labels.shape) < 0.5
    kept_labels, kept_marks, kept_scores = (keep_pairs(d, pairs) for d in (labels, marks, scores))
    assert kept_labels.dtype == bool
    assert kept_scores.dtype == scores.dtype
    for score, other in (
        (token_f1_score, marks),
        (token_iou_score, marks),
        (token_average_precision_score, scores),
    ):
        alone, weights = [], []
        for c, keep in enumerate(pairs.T):
            one = labels.columns([c])[keep]
            alone.append(score(one, other.columns([c])[keep]))
            weights.append(one.values[one._rows()].sum())
        kept = kept_marks if other is marks else kept_scores
        assert score(kept_labels, kept) == pytest.approx(np.average(alone, weights=weights))
        assert score(kept_labels, kept) != pytest.approx(score(labels, other))
    hits = [
        slow_pointing_game(labels.columns([c])[[i]], scores.columns([c])[[i]])
        for i, c in np.argwhere(pairs & labels.max())
    ]
    assert pointing_game_score(kept_labels, kept_scores) == pytest.approx(np.mean(hits))


LABELS = TokenArray(np.array([[True], [False], [True]]), [0, 2, 3])
SCORES = LABELS.with_values(np.array([[0.5], [0.1], [np.nan]]))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (token_average_precision_score, (LABELS, SCORES), "NaN in sample 1, concept 0"),
        (pointing_game_score, (LABELS, SCORES), "scores holds NaN .* keep_pairs"),
        (pointing_game_score, (LABELS, LABELS), "scores must be a TokenArray of floats, got bool"),
        (pointing_game_score, (LABELS, [[0.1]]), "scores must .* got list"),
        (pointing_game_score, (SCORES, SCORES), "labels_true must .* of bool, got float64"),
        (pointing_game_score, (LABELS, SCORES[:1]), r"differ in shape: \(2, 1\) and \(1, 1\)"),
        (token_average_precision_score, (LABELS, SCORES[::-1]), "differ in the number of tokens"),
        (keep_pairs, (SCORES, [True, True]), r"bool of shape \(2, 1\), got shape \(2,\)"),
        (keep_pairs, (SCORES, [[1], [0]]), "pairs must be bool .* int64"),
    ],
)
def test_bad_inputs(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
