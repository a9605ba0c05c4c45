"""Intervals against a slow bootstrap and against their promise."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from skact import (
    Interval,
    TokenArray,
    bootstrap_interval,
    token_f1_score,
    weighted_f1_score,
)
from skact.metrics import pointing_game_score, token_average_precision_score, token_iou_score
from tests.metrics.marks import make_marks


def make_decisions(rng, n_samples=60, n_concepts=3, flip=0.2):
    true = rng.random((n_samples, n_concepts)) < 0.4
    return true, true ^ (rng.random(true.shape) < flip)


def slow_interval(n_samples, statistic, seed, n_resamples, level):
    """Percentile bootstrap: draw rows, compute again, read off the quantiles."""
    rng = np.random.default_rng(np.random.RandomState(seed).randint(2**31 - 1))
    rows = rng.integers(0, n_samples, (n_resamples, n_samples))
    values = [statistic(row) for row in rows]
    ends = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return statistic(np.arange(n_samples)), *ends


@pytest.mark.parametrize("level", [0.95, 0.6])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("metric", [None, weighted_f1_score, lambda *y: weighted_f1_score(*y)])
def test_interval_of_samples_is_a_loop_over_resamples(rng, level, paired, metric):
    true, pred = make_decisions(rng)
    _, other = make_decisions(rng)

    def statistic(rows):
        score = f1_score(true[rows], pred[rows], average="weighted", zero_division=0)
        if paired:
            score -= f1_score(true[rows], other[rows], average="weighted", zero_division=0)
        return score

    interval = bootstrap_interval(
        true,
        pred,
        baseline=other if paired else None,
        metric=metric,
        n_resamples=150,
        confidence_level=level,
        random_state=7,
    )
    assert isinstance(interval, Interval)
    np.testing.assert_allclose(interval, slow_interval(60, statistic, 7, 150, level), atol=1e-12)
    assert interval.low < interval.estimate < interval.high


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("metric", [None, weighted_f1_score])
@pytest.mark.parametrize("form", [list, np.array])
def test_strings_of_two_classes_are_the_indicator(rng, paired, metric, form):
    true, pred, other = rng.random((3, 50)) < 0.4
    options = {"metric": metric, "n_resamples": 50, "random_state": 2}

    def interval(true, pred, other):
        baseline = {"baseline": other} if paired else {}
        return bootstrap_interval(true, pred, **baseline, **options)

    named = [form(np.where(y, "yes", "no").tolist()) for y in (true, pred, other)]
    assert interval(*named) == interval(true, pred, other)
    assert interval(*named) != interval(~true, ~pred, ~other)


def test_strings_of_many_classes_have_the_weighted_f1_of_scikit_learn(rng):
    classes = ["joy", "anger", "awe", "fear"]
    true, pred, other = (rng.choice(classes, 60, p=[0.5, 0.3, 0.15, 0.05]) for _ in range(3))

    def statistic(rows):
        first, second = (
            f1_score(true[rows], one[rows], average="weighted", labels=classes, zero_division=0)
            for one in (pred, other)
        )
        return first - second

    given = [y.tolist() for y in (true, pred)]
    interval = bootstrap_interval(*given, baseline=other.tolist(), n_resamples=100, random_state=4)
    np.testing.assert_allclose(interval, slow_interval(60, statistic, 4, 100, 0.95), atol=1e-12)


def test_classes_are_those_of_all_that_is_compared():
    """With a third class in the baseline alone, "no" is a concept for both."""
    true, pred = ["yes", "yes", "no", "no"] * 5, ["yes", "no", "no", "no"] * 5
    other = ["maybe", "yes", "no", "no"] * 5
    found = bootstrap_interval(true, pred, baseline=other, random_state=0).estimate
    scores = [f1_score(true, one, average="weighted", zero_division=0) for one in (pred, other)]
    assert found == pytest.approx(scores[0] - scores[1])
    alone = bootstrap_interval(true, pred, random_state=0).estimate
    assert alone == pytest.approx(f1_score(true, pred, pos_label="yes"))
    assert alone != pytest.approx(scores[0])


def test_strings_go_to_a_metric_as_they_are(rng):
    true, pred = rng.choice(["a", "b", "c"], (2, 40)).tolist()
    found = bootstrap_interval(true, pred, metric=accuracy_score, n_resamples=50, random_state=1)
    assert found.estimate == accuracy_score(true, pred)
    assert found.low < found.estimate < found.high


@pytest.mark.parametrize("metric", [None, token_f1_score, lambda *y: token_f1_score(*y)])
def test_interval_of_tokens_resamples_whole_samples(rng, metric):
    true, pred, other = make_marks(rng, n_samples=25, shares=(0.3, 0.5, 0.4))

    def statistic(rows):
        flat = [np.concatenate([d[i] for i in rows]) for d in (true, pred, other)]
        scores = [f1_score(flat[0], one, average="weighted", zero_division=0) for one in flat[1:]]
        return scores[0] - scores[1]

    interval = bootstrap_interval(
        true,
        pred,
        baseline=other,
        metric=metric,
        n_resamples=100,
        random_state=1,
    )
    np.testing.assert_allclose(interval, slow_interval(25, statistic, 1, 100, 0.95), atol=1e-12)


@pytest.mark.parametrize(
    "metric", [token_iou_score, token_average_precision_score, pointing_game_score]
)
@pytest.mark.parametrize("paired", [False, True])
def test_known_scores_are_as_if_called_on_each_resample(rng, metric, paired):
    true, pred, other = make_marks(rng, n_samples=20, shares=(0.3, 0.5, 0.4))
    if metric is not token_iou_score:
        # Few values, so many ties.
        pred, other = (
            true.with_values(rng.integers(0, 4, true.values.shape) / 4) for _ in range(2)
        )
    options = {"baseline": other if paired else None, "n_resamples": 60, "random_state": 5}
    fast = bootstrap_interval(true, pred, metric=metric, **options)
    slow = bootstrap_interval(true, pred, metric=lambda *y: metric(*y), **options)
    np.testing.assert_allclose(fast, slow, atol=1e-12)
    assert fast.low < fast.estimate < fast.high


@pytest.mark.parametrize("paired", [False, True])
def test_a_sample_counts_by_its_weight_wherever_it_is_drawn(rng, paired):
    true, pred = make_decisions(rng)
    other, weight = make_decisions(rng)[1], rng.integers(0, 4, 60)

    def statistic(rows):
        rows = np.repeat(rows, weight[rows])
        given = [pred, other] if paired else [pred]
        f1 = [f1_score(true[rows], p[rows], average="weighted", zero_division=0) for p in given]
        return f1[0] - f1[1] if paired else f1[0]

    found = bootstrap_interval(
        true,
        pred,
        baseline=other if paired else None,
        sample_weight=weight,
        n_resamples=50,
        random_state=3,
    )
    np.testing.assert_allclose(found, slow_interval(60, statistic, 3, 50, 0.95))
    plain = bootstrap_interval(true, pred, n_resamples=50, random_state=3)
    assert abs(plain.estimate - found.estimate) > 1e-3
    with pytest.raises(ValueError, match="sample_weight is for the scores of this package"):
        bootstrap_interval(true, pred, metric=lambda t, p: 0.0, sample_weight=weight)
    with pytest.raises(ValueError, match="sample_weight must have one entry per sample"):
        bootstrap_interval(true, pred, sample_weight=weight[1:])


def test_views_are_resampled_as_they_show(rng):
    true, pred = make_marks(rng, n_samples=30)
    order = rng.permutation(30)[:20]
    shown = bootstrap_interval(true[order], pred[order], n_resamples=50, random_state=0)
    copied = bootstrap_interval(
        true[order].compact(), pred[order].compact(), n_resamples=50, random_state=0
    )
    assert shown == copied
    assert shown != bootstrap_interval(true[:20], pred[:20], n_resamples=50, random_state=0)


def test_any_metric_is_called_on_each_resample(rng):
    true, pred = make_decisions(rng, n_concepts=1)
    true, pred = true[:, 0], pred[:, 0]
    interval = bootstrap_interval(
        true.tolist(), pred, metric=accuracy_score, n_resamples=80, random_state=3
    )
    slow = slow_interval(60, lambda r: accuracy_score(true[r], pred[r]), 3, 80, 0.95)
    np.testing.assert_allclose(interval, slow, atol=1e-12)


def test_intervals_hold_the_truth_as_often_as_they_promise():
    """Decisions are wrong in a known share of samples, so the F1 of the population is known."""
    present, sensitivity, specificity = 0.4, 0.8, 0.9
    hit = present * sensitivity
    found = hit + (1 - present) * (1 - specificity)
    truth = 2 * hit / (present + found)
    rng = np.random.default_rng(0)
    held = {0.95: 0, 0.5: 0}
    n_draws = 300
    for _ in range(n_draws):
        true = rng.random(150) < present
        pred = np.where(true, rng.random(150) < sensitivity, rng.random(150) >= specificity)
        for level in held:
            _, low, high = bootstrap_interval(
                true, pred, n_resamples=300, confidence_level=level, random_state=rng.integers(1e9)
            )
            held[level] += low <= truth <= high
    # Three standard errors of 300 draws, and a little for the small samples.
    assert 0.90 < held[0.95] / n_draws < 0.985
    assert 0.40 < held[0.5] / n_draws < 0.60


def rare_ranking():
    """A ranking with so few positives that some resamples hold none."""
    rng = np.random.default_rng(0)
    y = (np.arange(40) < 3).astype(int)
    return y, y + rng.normal(size=40), rng.normal(size=40)


def share_above(y, score):
    """Probability that a positive ranks above a negative; NaN, or 0 / 0, without one of them."""
    positive, negative = score[y == 1], score[y == 0]
    return np.divide(np.sum(positive[:, None] > negative), len(positive) * len(negative))


def strict_share_above(y, score):
    if len(set(y.tolist())) < 2:
        raise ValueError("only one class")
    return share_above(y, score)


@pytest.mark.parametrize("metric", [share_above, strict_share_above, roc_auc_score])
@pytest.mark.parametrize("paired", [False, True])
def test_resamples_without_a_value_are_left_out_and_counted(metric, paired):
    y, score, other = rare_ranking()
    rows = np.random.default_rng(np.random.RandomState(3).randint(2**31 - 1))
    rows = rows.integers(0, 40, (400, 40))
    rows = [r for r in rows if y[r].any()]
    n_undefined = 400 - len(rows)
    assert 5 < n_undefined < 50
    values = [share_above(y[r], score[r]) for r in rows]
    if paired:
        values = np.subtract(values, [share_above(y[r], other[r]) for r in rows])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        interval = bootstrap_interval(
            y, score, baseline=other if paired else None, metric=metric, n_resamples=400,
            random_state=3,
        )  # fmt: skip
    np.testing.assert_allclose(interval[1:], np.quantile(values, [0.025, 0.975]), atol=1e-12)
    assert len(said) == 1
    assert f"not defined on {n_undefined} of 400 resamples" in str(said[0].message)
    assert said[0].filename == __file__
    assert ("only one class" in str(said[0].message)) is (metric is strict_share_above)


@pytest.mark.parametrize("metric", [share_above, strict_share_above])
def test_an_interval_of_few_resamples_is_none(metric):
    y = (np.arange(40) == 0).astype(int)
    score = np.arange(40.0)

    def single(y, score):
        return np.nan if y.sum() != 1 else metric(y, score)

    with pytest.warns(UserWarning, match=r"too many for an interval"):
        interval = bootstrap_interval(y, score, metric=single, random_state=0)
    assert interval.estimate == 0
    assert np.isnan(interval[1:]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_metric_that_is_not_defined_on_the_samples(value):
    with pytest.warns(UserWarning, match=f"not defined on these samples: it gives {value}"):
        interval = bootstrap_interval(TRUE, TRUE, metric=lambda *_: value)
    assert np.isnan(interval[1:]).all()
    with pytest.raises(ValueError, match="only one class"):
        bootstrap_interval(np.ones(5), np.arange(5), metric=strict_share_above)


def test_other_errors_of_a_metric_are_not_swallowed():
    def broken(y, score):
        raise TypeError("broken")

    with pytest.raises(TypeError, match="broken"):
        bootstrap_interval(TRUE, TRUE, metric=broken)


def test_what_a_metric_warns_of_is_said_once():
    def talking(y, score):
        warnings.warn("hear", stacklevel=1)
        return 0.5

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert bootstrap_interval(TRUE, TRUE, metric=talking) == (0.5, 0.5, 0.5)
    assert [str(one.message) for one in said] == ["hear"]


def test_a_paired_difference_is_narrower_than_independent_intervals(rng):
    true, pred = make_decisions(rng, n_samples=200)
    nearly = pred ^ (rng.random(pred.shape) < 0.02)
    first = bootstrap_interval(true, pred, random_state=0)
    second = bootstrap_interval(true, nearly, random_state=0)
    difference = bootstrap_interval(true, pred, baseline=nearly, random_state=0)
    independent = np.hypot(first.high - first.low, second.high - second.low)
    assert difference.estimate == pytest.approx(first.estimate - second.estimate)
    assert difference.high - difference.low < independent / 2
    # The pairing does it: against unrelated decisions nothing is won.
    unrelated = rng.random(pred.shape) < 0.4
    wide = bootstrap_interval(true, pred, baseline=unrelated, random_state=0)
    assert wide.high - wide.low > 1.5 * (difference.high - difference.low)


@pytest.mark.parametrize("metric", [None, weighted_f1_score])
def test_identical_decisions_differ_by_nothing(rng, metric):
    true, pred = make_decisions(rng)
    same = bootstrap_interval(true, pred, baseline=pred, metric=metric, n_resamples=50)
    assert same == (0, 0, 0)
    marks, found = make_marks(rng)
    assert bootstrap_interval(marks, found, baseline=found, n_resamples=50) == (0, 0, 0)


def test_random_state_fixes_the_resamples(rng):
    true, pred = make_decisions(rng)

    def interval(random_state):
        return bootstrap_interval(true, pred, n_resamples=50, random_state=random_state)

    assert interval(0) == interval(0)
    assert interval(0)[1:] != interval(1)[1:]
    assert interval(np.random.RandomState(0)) == interval(0)
    assert interval(0)[0] == interval(1)[0] == weighted_f1_score(true, pred)


def test_batches_change_nothing(rng, monkeypatch):
    """Many samples and concepts are resampled in several batches."""
    true, pred = make_decisions(rng, n_samples=40)
    sizes = []

    from skact.metrics import _bootstrap

    def in_batches(*args, batch, **options):
        sizes.append(batch)
        return original(*args, batch=3, **options)

    original = _bootstrap.bootstrap
    whole = bootstrap_interval(true, pred, n_resamples=50, random_state=0)
    monkeypatch.setattr(_bootstrap, "bootstrap", in_batches)
    assert bootstrap_interval(true, pred, n_resamples=50, random_state=0) == whole
    assert sizes == [2**24 // (40 * 3)]


def test_an_interval_reads_as_one():
    assert str(Interval(0.51234, 0.4, 0.6)) == "0.512 [0.400, 0.600]"
    assert repr(Interval(0.51234567, 0.4, 2e-5)) == "Interval(estimate=0.5123, low=0.4, high=2e-05)"


TRUE = np.array([[1, 0], [0, 1], [1, 1]])
MARKS = TokenArray(np.array([[True], [False], [True]]), [0, 2, 3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((TRUE, TRUE[:2]), "y_pred has 2 samples, y_true has 3"),
        ((TRUE, TRUE[:, :1]), "differ in shape"),
        ((TRUE[:1], TRUE[:1]), "at least 2 samples, got 1"),
        ((TRUE, TRUE + 1), "y_pred must be"),
        ((["yes", "no"], [1, 0]), "y_pred must be .* of strings, the classes of y_true"),
        ((MARKS, MARKS[::-1]), "differ in the number of tokens"),
    ],
)
def test_bad_inputs(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence_level": 0}, "'confidence_level' .* Got 0"),
        ({"confidence_level": 95}, "'confidence_level' .* Got 95"),
        ({"n_resamples": 0}, "'n_resamples' .* Got 0"),
        ({"baseline": TRUE[:2]}, "baseline has 2 samples"),
        ({"baseline": TRUE[:, :1]}, "differ in shape"),
        ({"baseline": TRUE + 1}, "baseline must be"),
        ({"baseline": ["a", "b", "a"]}, "baseline must be"),
        ({"random_state": "seed"}, "seed"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(TRUE, TRUE, **options)
