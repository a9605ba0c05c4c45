"""The floor, and recall at few false alarms, against slow formulas and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_curve

from skact import all_positive_f1_score, tpr_at_fpr_score, weighted_f1_score


def test_the_floor_is_the_f1_of_yes(rng):
    y = rng.random((50, 3)) < [0.1, 0.5, 0.9]
    assert all_positive_f1_score(y) == pytest.approx(weighted_f1_score(y, np.ones_like(y)))
    p = y[:, 0].mean()
    assert all_positive_f1_score(y[:, 0]) == pytest.approx(2 * p / (1 + p))
    expected = f1_score(y, np.ones_like(y), average="weighted")
    assert all_positive_f1_score(y) == pytest.approx(expected)


@pytest.mark.parametrize("digits", [1, 8])
@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.1, 0.5, 0.99])
def test_recall_at_few_false_alarms_is_on_the_roc_curve(rng, fpr, digits):
    y = rng.random((300, 2)) < [0.2, 0.6]
    scores = (rng.normal(size=y.shape) + y).round(digits)
    each = []
    for c in range(2):
        false, true, _ = roc_curve(y[:, c], scores[:, c], drop_intermediate=False)
        each.append(true[false <= fpr + 1e-12].max())
        assert tpr_at_fpr_score(y[:, c], scores[:, c], fpr=fpr) == pytest.approx(each[c])
    expected = np.average(each, weights=y.sum(axis=0))
    assert tpr_at_fpr_score(y, scores, fpr=fpr) == pytest.approx(expected)
    assert tpr_at_fpr_score(y, -scores, fpr=fpr) < expected or fpr == 0.99


@pytest.mark.parametrize("form", [list, np.array, pd.Series, lambda y: pd.DataFrame({"y": y})])
def test_classes_of_any_kind_are_read(rng, form):
    y = rng.integers(0, 3, 60)
    words, scores = np.array(["ant", "bee", "cat"])[y], rng.normal(size=(60, 3))
    many, two = form(words), form(np.where(y == 1, "yes", "no"))
    present = (y[:, None] == [0, 1, 2]).astype(int)
    assert all_positive_f1_score(many) == all_positive_f1_score(present)
    assert all_positive_f1_score(two) == all_positive_f1_score(present[:, 1])
    assert weighted_f1_score(many, many) == weighted_f1_score(two, two) == 1
    found = tpr_at_fpr_score(many, scores, fpr=0.2)
    assert found == tpr_at_fpr_score(present, scores, fpr=0.2)
    assert tpr_at_fpr_score(two, scores[:, 0]) == tpr_at_fpr_score(present[:, 1], scores[:, 0])
    with pytest.raises(ValueError, match="y_score"):
        tpr_at_fpr_score(many, scores[:, 0])


@pytest.mark.parametrize("fpr", [0, 0.07, 0.2])
def test_weights_are_repetitions(rng, fpr):
    y = (rng.random((60, 2)) < 0.3).astype(int)
    scores, weight = rng.normal(size=(60, 2)).round(1) + y, rng.integers(0, 4, 60)
    again = np.repeat(np.arange(60), weight)
    found = tpr_at_fpr_score(y, scores, fpr=fpr, sample_weight=weight)
    assert found == pytest.approx(tpr_at_fpr_score(y[again], scores[again], fpr=fpr))
    floor = all_positive_f1_score(y, sample_weight=weight)
    assert floor == pytest.approx(all_positive_f1_score(y[again]))


def test_a_whole_number_of_negatives_is_not_lost_to_rounding():
    y = np.r_[np.ones(10), np.zeros(100)]
    scores = np.r_[np.full(10, 7.5), np.arange(100.0)]
    # 92 negatives (8 to 99) lie above; 0.92 * 100 is 92.000...01 or 91.999...9.
    assert tpr_at_fpr_score(y, scores, fpr=0.92) == 1
    assert tpr_at_fpr_score(y, scores, fpr=0.91) == 0
    assert tpr_at_fpr_score([1, 1], [0.1, 0.2]) == 1
    assert np.isnan(tpr_at_fpr_score([0, 0], [0.1, 0.2]))


@pytest.mark.parametrize(
    ("y", "scores", "options", "message"),
    [
        ([0, 0.5], [0.1, 0.2], {}, "y_true must be .* whole numbers"),
        ([[0], [2]], [[0.1], [0.2]], {}, "y_true must be .* 0 and 1"),
        (["a", "a"], [0.1, 0.2], {}, r"y_true has one class only \(.*'a'"),
        ([0, 1], [[0.1, 0.2], [0.1, 0.2]], {}, r"y_score has shape \(2, 2\), y_true has \(2,\)"),
        ([0, 1], [0.1, np.nan], {}, "y_score must hold numbers, but holds NaN"),
        ([0, 1], ["a", "b"], {}, "y_score"),
        ([0, 1], 0.5, {}, "y_score"),
        ([0, 1], [0.1, 0.2], {"fpr": 1}, "fpr"),
        ([0, 1], [0.1, 0.2], {"fpr": -0.1}, "fpr"),
        ([0, 1], [0.1, 0.2], {"fpr": "low"}, "fpr"),
    ],
)
def test_bad_input(y, scores, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        tpr_at_fpr_score(y, scores, **options)
