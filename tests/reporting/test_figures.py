"""Figures are those of scikit-learn and of the formulas; examples are the ones that say most."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from skact.metrics import all_positive_f1_score, bootstrap_interval
from skact.reporting._figures import OUTCOMES, _auroc, _precision, figures, outcomes, worst_first


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_rankings_are_those_of_scikit_learn_with_ties_too(rng, decimals):
    for _ in range(20):
        truth = rng.random(30) < 0.3
        truth[:2] = True, False
        scores = np.round(rng.normal(size=30) + truth, decimals)
        assert _auroc(truth, scores) == pytest.approx(roc_auc_score(truth, scores))
        assert _precision(truth, scores) == pytest.approx(average_precision_score(truth, scores))


def test_figures_are_those_of_the_decisions(rng):
    truth = rng.random(80) < 0.4
    pooled = rng.normal(size=80) + truth
    found = pooled > 0.7
    got = figures(truth, found, pooled, seed=3, n_resamples=200)
    assert got.f1.estimate == pytest.approx(f1_score(truth, found))
    assert got.floor == pytest.approx(2 * truth.mean() / (1 + truth.mean()))
    assert got.gain.estimate == pytest.approx(got.f1.estimate - all_positive_f1_score(truth))
    assert got.precision == pytest.approx(truth[found].mean())
    assert got.recall == pytest.approx((truth & found).sum() / truth.sum())
    assert (got.n_known, got.n_positive, got.n_found) == (80, truth.sum(), found.sum())
    slow = bootstrap_interval(truth, pooled, metric=roc_auc_score, n_resamples=200, random_state=3)
    assert got.auroc == pytest.approx(slow)
    for interval in (got.f1, got.gain, got.auroc, got.average_precision):
        assert interval.low < interval.estimate < interval.high


@pytest.mark.parametrize("truth", [[True] * 4, [False] * 4, [True]])
def test_samples_of_one_kind_have_no_ranking(truth, recwarn):
    truth = np.array(truth)
    scores = np.arange(len(truth), dtype=float)
    got = figures(truth, scores > 1.5, scores, seed=0, n_resamples=10)
    assert np.isnan(got.auroc.estimate)
    assert got.floor == float(truth.all())
    assert not recwarn.list


def test_outcomes_and_what_is_shown_first():
    present = np.array([1, 1, 1, 0, 0, 0, np.nan, np.nan])
    decision = np.array([2.0, -3.0, -1.0, 5.0, 9.0, -1.0, 1.0, -1.0])
    named = outcomes(present, decision > 0)
    assert named.tolist() == [
        *("hit", "missed", "missed", "alarm", "alarm", "clear", "found", "nothing")
    ]
    assert worst_first(named, "missed", decision, 5).tolist() == [1, 2]
    assert worst_first(named, "alarm", decision, 5).tolist() == [4, 3]
    assert worst_first(named, "alarm", decision, 1).tolist() == [4]
    assert {key for key in OUTCOMES if len(worst_first(named, key, decision, 9))} == set(OUTCOMES)
