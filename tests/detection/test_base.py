"""Weights of samples, and classes of any kind, in every detector."""

import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_score,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

from skact import (
    ConceptSearchCV,
    LastToken,
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    MeanToken,
    RandomToken,
    SuperActivator,
    TokenArray,
    TopWindows,
    WeakSuperActivator,
)

# RandomToken draws a position for each place of a sample, and repeated samples have other places.
REPEATABLE = [
    SuperActivator(0.3),
    MaxToken(0.3),
    MeanToken(0.25),
    LastToken(0.9),
    WeakSuperActivator(0.4),
    WeakSuperActivator(objective="sample"),
    TopWindows(0.3, window=2, share=0.5),
    TopWindows(None, cut="f1"),
    TopWindows(None, cut="expected_f1"),
]
DETECTORS = [*REPEATABLE, RandomToken(random_state=0)]


@pytest.fixture
def problem(rng):
    """Ragged scores of four columns that tell of two concepts, labels and weights."""
    present = rng.random((60, 2)) < 0.4
    labels, scores = [], []
    for row in present:
        marked = (rng.random((rng.integers(1, 8), 2)) < 0.5) & row
        marked[0] |= row
        labels.append(marked)
        noise = rng.normal(size=(len(marked), 4))
        noise[:, :2] += 1.5 * marked
        scores.append(noise.astype(np.float32))
    weight = rng.integers(0, 4, 60)
    return TokenArray.from_list(scores), present.astype(int), TokenArray.from_list(labels), weight


def state(detector):
    names = ("thresholds_", "matched_columns_", "sigmoids_")
    return np.concatenate([np.ravel(getattr(detector, name)) for name in names])


@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize("detector", REPEATABLE, ids=repr)
def test_a_weight_is_a_number_of_repetitions(problem, detector, with_labels):
    X, y, labels, weight = problem
    labels = labels if with_labels else None
    again = np.repeat(np.arange(60), weight)
    repeated = clone(detector).fit(X[again], y[again], labels and labels[again])
    weighted = clone(detector).fit(X, y, labels, sample_weight=weight)
    np.testing.assert_allclose(state(weighted), state(repeated), rtol=1e-6)
    # Control: without weights it is another fit.
    assert np.abs(state(clone(detector).fit(X, y, labels)) - state(weighted)).max() > 1e-3
    assert weighted.n_samples_ == (weight > 0).sum()
    np.testing.assert_array_equal(weighted.n_positive_, y[weight > 0].sum(axis=0))


@pytest.mark.parametrize("detector", DETECTORS, ids=repr)
def test_ones_change_no_bit_and_zeros_leave_out(problem, detector):
    X, y, labels, weight = problem
    plain = clone(detector).fit(X, y, labels)
    ones = clone(detector).fit(X, y, labels, sample_weight=np.ones(60))
    np.testing.assert_array_equal(state(ones), state(plain))
    kept = weight > 0
    part = clone(detector).fit(X[kept], y[kept], labels[kept])
    masked = clone(detector).fit(X, y, labels, sample_weight=kept)
    np.testing.assert_array_equal(state(masked), state(part))


@pytest.mark.parametrize("form", [list, np.asarray, pd.DataFrame])
def test_what_is_left_out_may_have_any_form(problem, form):
    X, y, labels, weight = problem
    kept = np.flatnonzero(weight)
    expected = SuperActivator(0.3).fit(X[kept], y[kept], labels[kept], weight[kept])
    fitted = SuperActivator(0.3).fit(
        X.to_list(), form(y), labels.to_list(), sample_weight=pd.Series(weight)
    )
    np.testing.assert_allclose(state(fitted), state(expected), rtol=1e-12)


@pytest.mark.parametrize("detector", DETECTORS, ids=repr)
def test_small_weights_are_shares(problem, detector):
    X, y, labels, weight = problem
    weight = weight + 0.5
    sums_to_one = clone(detector).fit(X, y, labels, sample_weight=weight / weight.sum())
    average_one = clone(detector).fit(X, y, labels, sample_weight=weight / weight.mean())
    np.testing.assert_allclose(state(sums_to_one), state(average_one), rtol=1e-6)


def test_thresholds_follow_weights_smoothly(problem):
    X, y, labels, weight = problem
    weight = weight + 1.0
    steps = []
    for more in np.linspace(0, 1, 101):
        weight[y[:, 0] > 0] = 1 + more * (np.arange(y[:, 0].sum()) % 3)
        fitted = SuperActivator(0.3, match_columns=True).fit(X, y, labels, sample_weight=weight)
        steps.append(fitted.thresholds_[0])
    assert max(abs(b - a) for a, b in pairwise(steps)) < 0.2 * (max(steps) - min(steps))


@pytest.mark.parametrize("detector", DETECTORS, ids=repr)
def test_paths_take_weights(problem, detector):
    X, y, labels, weight = problem
    data = X, y, labels
    value = detector.delta
    if value is None:  # one cut without a grid
        paths = clone(detector).fit_path(*data, sample_weight=weight)
    else:
        paths = clone(detector).fit_path(*data, deltas=[0.1, value], sample_weight=weight)
    alone = clone(detector).fit(*data, sample_weight=weight)
    np.testing.assert_array_equal(state(paths[-1]), state(alone))
    table = clone(detector).match_table(*data, sample_weight=weight)
    assert table.f1.shape[1:] == (2, 4)


@pytest.mark.usefixtures("routing")
def test_weights_are_routed_through_pipelines_and_searches(problem):
    X, y, _, weight = problem
    y = y[:, 0]
    separator = LinearSeparator().set_fit_request(sample_weight=True)
    detector = SuperActivator().set_fit_request(sample_weight=True)
    detector.set_score_request(sample_weight=True)
    line = make_pipeline(separator, detector)
    line.fit(X, y, sample_weight=weight)
    again = np.repeat(np.arange(60), weight)
    repeated = clone(line).fit(X[again], y[again])
    np.testing.assert_allclose(line[-1].thresholds_, repeated[-1].thresholds_, rtol=1e-4)
    search = GridSearchCV(line, {"superactivator__delta": [0.1, 0.5]}, error_score="raise", cv=2)
    search.fit(X, y, sample_weight=weight)
    best = clone(line).set_params(**search.best_params_).fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(search.predict(X), best.predict(X))
    # Whoever does not ask gets none.
    with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
        make_pipeline(LinearSeparator(), MaxToken()).fit(X, y, sample_weight=weight)


@pytest.mark.parametrize(
    "params",
    [
        {"cut": "recall", "level": 0.8},
        {"cut": "false_alarms", "level": 0.2, "confidence": 0.8},
        {"cut": ("recall", "false_alarms"), "level": (0.7, 0.3)},
    ],
)
def test_promises_are_those_of_samples_that_count_the_same(problem, params):
    X, y, labels, weight = problem
    detector = TopWindows(None, **params)
    with pytest.raises(ValueError, match="promises a rate of exchangeable samples"):
        detector.fit(X, y, labels, sample_weight=weight)
    kept = weight > 0
    masked = clone(detector).fit(X, y, sample_weight=kept)
    np.testing.assert_array_equal(state(masked), state(clone(detector).fit(X[kept], y[kept])))


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(59), "sample_weight must have one entry per sample: got 59 for 60"),
        (3, "sample_weight must be 1-D, got shape ()"),
        (np.ones((60, 1)), "sample_weight must be 1-D, got shape (60, 1)"),
        (np.zeros(60), "sample_weight must not be zero for every sample"),
        (np.where(np.arange(60) == 7, -1, 1), "that of sample 7 is -1.0"),
        (np.where(np.arange(60) == 8, np.nan, 1), "that of sample 8 is nan"),
        (["a"] * 60, "sample_weight must be an array of numbers"),
    ],
)
def test_what_is_no_weight(problem, weight, message):
    X, y, *_ = problem
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        MaxToken().fit(X, y, sample_weight=weight)


def test_a_concept_whose_samples_all_weigh_nothing_is_named(problem):
    X, y, *_ = problem
    frame = pd.DataFrame(y, columns=["cat", "dog"])
    with pytest.raises(ValueError, match=r"concept 1 \('dog'\) has no positive sample"):
        MaxToken().fit(X, frame, sample_weight=1 - y[:, 1])
    with pytest.raises(ValueError, match="y must have one entry per sample: got 61"):
        MaxToken().fit(X, np.arange(61) % 2, sample_weight=y[:, 0])


@pytest.mark.parametrize("detector", DETECTORS, ids=repr)
def test_answers_are_in_the_words_of_y(problem, detector):
    X, y, *_ = problem
    plain = clone(detector).fit(X, y[:, 0]).predict(X)
    for words in (np.array(["no", "yes"]), np.array(["no", "yes"], object)):
        named = clone(detector).fit(X, pd.Series(words[y[:, 0]], index=range(5, 65)))
        assert named.classes_.tolist() == ["no", "yes"]
        assert named.concept_names_.tolist() == ["yes"]
        np.testing.assert_array_equal(named.predict(X), words[plain])
        assert named.score(X, words[y[:, 0]]) == np.mean(plain == y[:, 0])
        np.testing.assert_array_equal(named.predict_proba(X).shape, (60, 2))
    frame = clone(detector).fit(X, pd.DataFrame(y.astype(bool), columns=["cat", "dog"]))
    assert frame.concept_names_.tolist() == ["cat", "dog"]
    assert set(cross_val_score(detector, X, words[y[:, 0]], error_score="raise")) <= set(
        np.arange(13) / 12
    )


@pytest.fixture
def classes(rng):
    """Ragged scores of three classes, of which a token or two of a sample speak."""
    kind = rng.integers(0, 3, 90)
    samples = [rng.normal(size=(rng.integers(3, 7), 3)) for _ in kind]
    for sample, c in zip(samples, kind, strict=True):
        sample[:2, c] += 3
    return TokenArray.from_list(samples), np.array(["cat", "dog", "fox"])[kind]


@pytest.mark.parametrize("detector", DETECTORS, ids=repr)
def test_of_several_classes_the_most_probable_is_the_answer(classes, detector):
    X, y = classes
    fitted = clone(detector).fit(X, pd.Series(y, index=range(100, 190)))
    assert fitted.classes_.tolist() == fitted.concept_names_.tolist() == ["cat", "dog", "fox"]
    indicator = clone(detector).fit(X, (y[:, None] == fitted.classes_).astype(int))
    np.testing.assert_array_equal(state(fitted), state(indicator))
    chances = fitted.predict_proba(X)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    each = indicator.predict_proba(X)
    np.testing.assert_allclose(chances, each / each.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(1 / (1 + np.exp(-fitted.decision_function(X))), each)
    said = fitted.predict(X)
    np.testing.assert_array_equal(said, fitted.classes_[chances.argmax(axis=1)])
    assert fitted.score(X, y) == np.mean(said == y)
    # What a class is recognised by are still its SuperActivators.
    marks, expected = fitted.superactivators(X), indicator.superactivators(X)
    np.testing.assert_array_equal(marks.flat(), expected.flat())


def test_classes_are_told_apart_and_by_names(classes):
    X, y = classes
    line = make_pipeline(MeanPrototype(), MaxToken(0.5))
    assert cross_val_score(line, X, y, error_score="raise").mean() > 0.8
    named = TokenArray(X.values, X.offsets, feature_names=["dog", "fox", "cat"])
    swapped = MaxToken(0.5).fit(named.columns([2, 0, 1]), y)
    assert swapped.matched_columns_.tolist() == [0, 1, 2]
    assert MaxToken(0.5).fit(named, y).matched_columns_.tolist() == [2, 0, 1]


def test_two_cuts_leave_some_classes_unsure(classes):
    X, y = classes
    both = TopWindows(None, cut=("recall", "false_alarms"), level=(0.9, 0.1)).fit(X, y)
    assert both.predict_unsure(X).shape == (90, 3)


@pytest.mark.parametrize("voting", ["soft", "hard"])
def test_detectors_vote(classes, voting):
    X, y = classes
    members = [("max", MaxToken(0.5)), ("mean", MeanToken(0.5)), ("last", LastToken(0.5))]
    for truth in (y, np.where(y == "cat", "yes", "no")):
        vote = VotingClassifier(members, voting=voting).fit(X, truth)
        fitted = [clone(member).fit(X, truth) for _, member in members]
        if voting == "soft":
            chances = np.mean([member.predict_proba(X) for member in fitted], axis=0)
            np.testing.assert_allclose(vote.predict_proba(X), chances)
            expected = vote.classes_[chances.argmax(axis=1)]
        else:
            said = [member.predict(X) for member in fitted]
            expected = [
                max(sorted(set(row)), key=list(row).count) for row in zip(*said, strict=True)
            ]
        np.testing.assert_array_equal(vote.predict(X), expected)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda line: CalibratedClassifierCV(line, method="isotonic", cv=3),
        lambda line: StackingClassifier([("line", line)], cv=3),
        lambda line: TunedThresholdClassifierCV(line, scoring="f1_macro", cv=3),
        lambda line: OneVsRestClassifier(line),
        lambda line: BaggingClassifier(line[-1], n_estimators=5, random_state=0),
        lambda line: AdaBoostClassifier(line[-1], n_estimators=5, random_state=0),
    ],
)
def test_wrappers_of_scikit_learn_answer_in_the_words_of_y(classes, wrap):
    X, y = classes
    wrapped = wrap(make_pipeline(MeanPrototype(), MaxToken(0.5)))
    if isinstance(wrapped, BaggingClassifier | AdaBoostClassifier):
        X = X.max()  # which take matrices only
    if isinstance(wrapped, TunedThresholdClassifierCV):
        y = np.where(y == "cat", "yes", "no")
    fitted = wrapped.fit(X, y)
    assert fitted.classes_.tolist() == sorted(set(y))
    assert set(fitted.predict(X)) <= set(y)
    assert fitted.score(X, y) > 0.5
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1)


def test_a_search_gives_each_class_its_winner(classes):
    X, y = classes
    line = make_pipeline(MeanPrototype(), MaxToken())
    search = ConceptSearchCV(line, {"maxtoken__delta": [0.3, 0.6, 0.9]}, cv=3).fit(X, y)
    assert list(search.best_params_) == search.classes_.tolist() == ["cat", "dog", "fox"]
    indicator = (y[:, None] == search.classes_).astype(int)
    folds = list(StratifiedKFold(3).split(X, y))
    alone = ConceptSearchCV(line, {"maxtoken__delta": [0.3, 0.6, 0.9]}, cv=folds)
    alone.fit(X, pd.DataFrame(indicator, columns=search.classes_))
    assert search.best_params_ == alone.best_params_
    chances = alone.predict_proba(X)
    np.testing.assert_allclose(search.predict_proba(X), chances / chances.sum(axis=1)[:, None])
    np.testing.assert_array_equal(search.predict(X), search.classes_[chances.argmax(axis=1)])
    assert search.decision_function(X).shape == (90, 3)
    assert search.score(X, y) > 0.8
