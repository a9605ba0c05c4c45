"""Exact levels, exact probabilities, energies, and what is idempotent."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from skact import (
    Ablation,
    Addition,
    AffineEdit,
    DifferenceInMeans,
    LinearSeparator,
    MaxToken,
    MinimalNormEdit,
    TokenArray,
)

RNG = np.random.default_rng(7)
Y = np.c_[np.arange(30) % 2, np.arange(30) // 2 % 2]
WAYS = np.array([[2.0, 0, 1, 0, 0], [0, 1.5, 0, 0, 1]])
OFFSETS = np.arange(0, 121, 4)
LABELS = TokenArray(np.repeat(Y, 4, axis=0).astype(bool) & (RNG.random((120, 2)) < 0.6), OFFSETS)
X = TokenArray(RNG.normal(size=(120, 5)) + LABELS.flat() @ WAYS + 3, OFFSETS)
FLAT, INSIDE = X.flat(), LABELS.flat()


def mean_difference(c):
    return FLAT[INSIDE[:, c]].mean(axis=0) - FLAT[~INSIDE[:, c]].mean(axis=0)


@pytest.mark.parametrize("concept", [0, 1])
def test_addition_is_a_vector_of_the_asked_length(concept):
    raw = Addition(concept=concept, strength=2, unit="raw").fit(X, Y, LABELS)
    np.testing.assert_allclose(
        raw.transform(X).flat() - FLAT, np.tile(2 * mean_difference(concept), (120, 1))
    )
    sized = Addition(concept=f"concept{concept}", strength=0.5).fit(X, Y, LABELS)
    change = sized.transform(X).flat() - FLAT
    norms = np.linalg.norm(FLAT, axis=1)
    np.testing.assert_allclose(np.linalg.norm(change, axis=1), np.median(norms) / 2)
    assert change[0] @ mean_difference(concept) > 0
    np.testing.assert_allclose(sized.edit_map(1, unit="raw").shift, mean_difference(concept))


def test_a_sink_does_not_set_the_unit():
    values = np.concatenate([FLAT, np.full((9, 5), 1e6), np.zeros((3, 5))])
    edit = Addition(np.ones(5)).fit(values)
    assert edit.median_norm_ == pytest.approx(np.median(np.linalg.norm(FLAT, axis=1)))


def test_ablation_takes_the_energy_along_its_directions():
    edit = Ablation().fit(X, Y, LABELS)
    out = edit.transform(X).flat()
    for c in range(2):
        np.testing.assert_allclose(out @ mean_difference(c), 0, atol=1e-12)
    along = FLAT @ edit.basis_.T
    np.testing.assert_allclose((out**2).sum(axis=1), (FLAT**2).sum(axis=1) - (along**2).sum(axis=1))
    np.testing.assert_allclose(edit.transform(out), out, atol=1e-12)
    one = Ablation(concept=1).fit(X, Y, LABELS)
    u = mean_difference(1) / np.linalg.norm(mean_difference(1))
    np.testing.assert_allclose(one.transform(FLAT), FLAT - np.outer(FLAT @ u, u), atol=1e-12)
    assert np.abs(one.transform(FLAT) @ mean_difference(0)).max() > 0.1


def test_dependent_directions_are_one():
    assert Ablation([[1, 0, 0, 0, 0], [2, 0, 0, 0, 0]]).fit(X).basis_.shape == (1, 5)


@pytest.mark.parametrize("level", [0, 1, 0.3, -2])
def test_affine_edits_reach_their_level_exactly(level):
    edit = AffineEdit(concept=1, strength=level).fit(X, Y, LABELS)
    out = edit.transform(X).flat()
    r = mean_difference(1)
    u = r / np.linalg.norm(r)
    without = FLAT[~INSIDE[:, 1]].mean(axis=0)
    np.testing.assert_allclose(out, FLAT - np.outer(FLAT @ u, u) + (without @ u) * u + level * r)
    np.testing.assert_allclose(out @ u, without @ u + level * np.linalg.norm(r))
    np.testing.assert_allclose(edit.transform(out), out, atol=1e-12)
    if level == 1:
        np.testing.assert_allclose(out @ u, FLAT[INSIDE[:, 1]].mean(axis=0) @ u)


@pytest.mark.parametrize(
    ("probability", "side", "wrong"),
    [
        (0.9, "auto", "below"),
        (0.2, "auto", "above"),
        (0.9, "above", "above"),
        (0.5, "auto", "below"),
    ],
)
def test_minimal_norm_edits_reach_their_probability_exactly(probability, side, wrong):
    edit = MinimalNormEdit(probability=probability, side=side).fit(X, Y, LABELS)
    before = expit(FLAT @ edit.separator_ + edit.intercept_)
    out = edit.transform(X).flat()
    after = expit(out @ edit.separator_ + edit.intercept_)
    moved = before < probability if wrong == "below" else before > probability
    assert 0 < moved.sum() < 120
    np.testing.assert_allclose(after[moved], probability)
    np.testing.assert_array_equal(out[~moved], FLAT[~moved])
    np.testing.assert_allclose(edit.transform(out), out, atol=1e-9)
    # No shorter way leads there: the change is along the separator.
    change = out[moved] - FLAT[moved]
    way = edit.separator_ / np.linalg.norm(edit.separator_)
    np.testing.assert_allclose(np.linalg.norm(change, axis=1), np.abs(change @ way))


def test_the_separator_is_calibrated():
    edit = MinimalNormEdit().fit(X, Y, LABELS)
    plain = LinearSeparator().fit(X, Y, LABELS).concept_vectors_[0]
    assert np.corrcoef(plain, edit.separator_)[0, 1] > 1 - 1e-9
    chances = expit(FLAT @ edit.separator_ + edit.intercept_)
    assert chances.mean() == pytest.approx(INSIDE[:, 0].mean(), abs=0.02)
    as_is = MinimalNormEdit(calibrate=False).fit(X, Y, LABELS)
    np.testing.assert_allclose(as_is.separator_, plain)
    assert as_is.intercept_ == 0


def test_a_frozen_method_is_not_fitted_again():
    method = DifferenceInMeans().fit(X, Y, LABELS)
    edit = Addition(FrozenEstimator(method), concept=1, unit="raw").fit(FLAT[:7])
    np.testing.assert_allclose(edit.direction_, method.concept_vectors_[1])
    with pytest.raises(ValueError, match="concept='x' is none of the 2 that there are: concept0"):
        Addition(FrozenEstimator(method), concept="x").fit(X)


def test_neither_addition_nor_a_share_is_idempotent():
    for edit in (Addition(), Ablation(strength=0.5)):
        once = edit.fit(X, Y, LABELS).transform(X)
        assert np.abs(edit.transform(once).flat() - once.flat()).max() > 0.1


@pytest.mark.parametrize("level", [0.3, 0.7])
def test_a_gate_lets_only_tokens_of_the_concept_through(level):
    pipe = make_pipeline(LinearSeparator(), MaxToken(level)).fit(X, Y)
    edit = Addition(concept=1, gate=FrozenEstimator(pipe)).fit(X, Y, LABELS)
    fires = pipe[0].transform(X).flat()[:, 1] >= pipe[1].thresholds_[1]
    assert 0 < fires.sum() < 120
    out = edit.transform(X).flat()
    np.testing.assert_array_equal(out[~fires], FLAT[~fires])
    np.testing.assert_allclose(out[fires], FLAT[fires] + edit.edit_map().shift)
