import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from skact import (
    DELTA_GRID,
    LastToken,
    MaxToken,
    MeanToken,
    RandomToken,
    Source,
    SuperActivator,
    TokenArray,
    WeakSuperActivator,
)
from skact.tail import fit_sigmoid, sigmoid

DETECTORS = [SuperActivator, MaxToken, MeanToken, LastToken, RandomToken]


@pytest.fixture
def problem(rng):
    """Ragged scores of three concepts, whose labelled tokens score higher."""
    lengths = rng.integers(1, 9, size=60)
    labels = [rng.random((n, 3)) < 0.12 for n in lengths]
    for c in range(3):
        labels[c][0, c] = True
    scores = [rng.normal(size=lab.shape) + 5.0 * lab for lab in labels]
    present = np.array([lab.any(axis=0) for lab in labels]).astype(int)
    return scores, present, labels


def slow_pool(name, scores):
    """The aggregators of the paper, sample by sample and concept by concept."""
    pool = {
        "SuperActivator": max,
        "MaxToken": max,
        "MeanToken": lambda s: sum(s) / len(s),
        "LastToken": lambda s: s[-1],
    }[name]
    return np.array([[pool(list(column)) for column in sample.T] for sample in scores])


@pytest.mark.parametrize("delta", [0.02, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("Detector", DETECTORS[:-1])
@pytest.mark.parametrize("with_labels", [True, False])
def test_equals_the_paper_written_slowly(Detector, delta, with_labels, problem):
    scores, present, labels = problem
    detector = Detector(delta=delta)
    detector.fit(scores, present, token_labels=labels if with_labels else None)
    pooled = slow_pool(Detector.__name__, scores)
    for c in range(3):
        if Detector is SuperActivator:
            # The weak reading counts every token of a positive sample.
            reference = [
                s[c]
                for sample, marks, here in zip(scores, labels, present[:, c], strict=True)
                for s, m in zip(sample, marks[:, c], strict=True)
                if (m if with_labels else here)
            ]
        else:
            reference = pooled[present[:, c] == 1, c]
        tau = np.quantile(reference, 1 - delta)
        assert detector.thresholds_[c] == pytest.approx(tau)
        np.testing.assert_array_equal(detector.predict(scores)[:, c], pooled[:, c] >= tau)
    np.testing.assert_allclose(
        detector.decision_function(scores), pooled - detector.thresholds_, atol=1e-12
    )


def test_token_labels_change_the_superactivator_threshold_alone(problem):
    scores, present, labels = problem
    for Detector in DETECTORS[:-1]:
        weak = Detector(delta=0.3).fit(scores, present).thresholds_
        strong = Detector(delta=0.3).fit(scores, present, token_labels=labels).thresholds_
        assert np.allclose(weak, strong) == (Detector is not SuperActivator)


@pytest.mark.parametrize("Detector", DETECTORS)
def test_binary_equals_one_column_of_the_indicator(Detector, problem):
    scores, present, labels = problem
    first = [s[:, :1] for s in scores]
    marks = [m[:, :1] for m in labels]
    kwargs = {"random_state": 0} if Detector is RandomToken else {}
    classes = np.array(["absent", "present"])[present[:, 0]]
    binary = Detector(0.4, **kwargs).fit(first, classes, token_labels=marks)
    column = Detector(0.4, **kwargs).fit(first, present[:, :1], token_labels=marks)
    assert binary.classes_.tolist() == ["absent", "present"]
    assert binary.predict(first).shape == (60,)
    assert column.predict(first).shape == (60, 1)
    np.testing.assert_array_equal(binary.predict(first) == "present", column.predict(first)[:, 0])
    np.testing.assert_array_equal(
        binary.decision_function(first), column.decision_function(first)[:, 0]
    )


def test_defaults(problem):
    scores, present, labels = problem
    detector = SuperActivator().fit(scores, present, token_labels=labels)
    assert (detector.delta, detector.match_columns) == (0.1, "auto")
    explicit = SuperActivator(delta=0.1, match_columns=False)
    explicit.fit(scores, present, token_labels=labels)
    np.testing.assert_array_equal(detector.thresholds_, explicit.thresholds_)


@pytest.mark.parametrize("Detector", [SuperActivator, MaxToken])
def test_a_larger_delta_finds_no_less(Detector, problem):
    scores, present, labels = problem
    found = [
        Detector(delta).fit(scores, present, token_labels=labels).predict(scores)
        for delta in DELTA_GRID
    ]
    assert all(np.all(a <= b) for a, b in pairwise(found))
    assert found[0].sum() < found[-1].sum()


def test_superactivators_explain_the_decision(problem):
    scores, present, labels = problem
    detector = SuperActivator(0.2).fit(scores, present, token_labels=labels)
    marks = detector.superactivators(scores)
    assert marks.dtype == bool
    np.testing.assert_array_equal(marks.max(), detector.predict(scores).astype(bool))
    for sample, mark in zip(scores, marks, strict=True):
        np.testing.assert_array_equal(mark, sample >= detector.thresholds_)


def test_a_score_at_the_threshold_counts_as_found():
    scores = np.array([[1.0], [3.0], [2.0]])
    detector = MaxToken(0.5).fit(scores, [1, 1, 0])
    assert detector.thresholds_[0] == 2.0
    assert detector.predict([[2.0], [np.nextafter(2.0, 0)]]).tolist() == [1, 0]
    # scikit-learn's own scorers read a positive decision as found.
    assert (detector.decision_function([[2.0], [np.nextafter(2.0, 0)]]) > 0).tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize("Detector", DETECTORS)
def test_permuted_columns_are_matched_back(Detector, problem, rng):
    scores, present, labels = problem
    order = np.array([2, 0, 3, 1])
    shuffled = [np.c_[s, rng.normal(size=len(s))][:, order] for s in scores]
    kwargs = {"random_state": 0} if Detector is RandomToken else {}
    detector = Detector(0.9, **kwargs).fit(shuffled, present, token_labels=labels)
    straight = Detector(0.9, match_columns=False, **kwargs)
    straight.fit(scores, present, token_labels=labels)
    own = np.argsort(order)[:3]
    found = detector.matched_columns_ == own
    assert found.all() or Detector in (LastToken, RandomToken, MeanToken)
    np.testing.assert_allclose(detector.thresholds_[found], straight.thresholds_[found])


def test_matched_column_has_the_best_f1(problem, rng):
    scores, present, labels = problem
    units = [np.c_[s, s + rng.normal(size=s.shape)] for s in scores]
    detector = SuperActivator(0.3).fit(units, present, token_labels=labels)
    for c in range(3):
        marks = np.concatenate([m[:, c] for m in labels])
        f1 = []
        for k in range(6):
            tau = np.quantile(np.concatenate([u[:, k] for u in units])[marks], 0.7)
            hit = np.array([u[:, k].max() >= tau for u in units])
            truth = present[:, c] == 1
            f1.append(2 * (hit & truth).sum() / (hit.sum() + truth.sum()))
        assert detector.matched_columns_[c] == np.argmax(f1)


def test_units_are_matched_even_if_as_many_as_concepts(problem):
    scores, present, labels = problem
    swapped = TokenArray.from_list([s[:, [1, 0, 2]] for s in scores])
    units = swapped.with_source(Source(columns="units"))
    fit = {"y": present, "token_labels": labels}
    assert SuperActivator(0.9).fit(units, **fit).matched_columns_.tolist() == [1, 0, 2]
    assert SuperActivator(0.9).fit(swapped, **fit).matched_columns_.tolist() == [0, 1, 2]
    forced = SuperActivator(0.9, match_columns=True).fit(swapped, **fit)
    assert forced.matched_columns_.tolist() == [1, 0, 2]


def test_random_token_is_uniform_and_repeatable():
    scores = [np.arange(4.0)[:, None] for _ in range(4000)]
    detector = RandomToken(0.5, random_state=3).fit(scores, np.arange(4000) % 2)
    drawn = detector.pool(TokenArray.from_list(scores)).ravel()
    counts = np.bincount(drawn.astype(int), minlength=4)
    assert np.all(np.abs(counts - 1000) < 150)
    again = RandomToken(0.5, random_state=3).fit(scores, np.arange(4000) % 2)
    np.testing.assert_array_equal(detector.predict(scores), again.predict(scores))
    other = RandomToken(0.5, random_state=4).fit(scores, np.arange(4000) % 2)
    assert np.any(other.pool(TokenArray.from_list(scores)).ravel() != drawn)


def test_padding_cannot_win_the_maximum():
    short, long = np.full((1, 1), -2.0), np.full((5, 1), -1.0)
    detector = MaxToken(0.5).fit([short, long, short, long], [0, 1, 0, 1])
    assert detector.decision_function([short])[0] == pytest.approx(-1.0)


@pytest.mark.parametrize("match", [False, True])
@pytest.mark.parametrize("Detector", [*DETECTORS, WeakSuperActivator])
def test_a_path_is_a_fit_for_each_delta(Detector, match, problem):
    scores, present, labels = problem
    kwargs = {"random_state": 1} if Detector is RandomToken else {}
    detector = Detector(match_columns=match, **kwargs)
    path = detector.fit_path(scores, present, labels, deltas=[0.2, 0.7])
    assert not hasattr(detector, "thresholds_")
    for one, delta in zip(path, [0.2, 0.7], strict=True):
        alone = Detector(delta, match_columns=match, **kwargs)
        alone.fit(scores, present, token_labels=labels)
        assert one.get_params() == alone.get_params()
        np.testing.assert_array_equal(one.thresholds_, alone.thresholds_)
        np.testing.assert_array_equal(one.matched_columns_, alone.matched_columns_)
        np.testing.assert_array_equal(one.predict(scores), alone.predict(scores))
        np.testing.assert_array_equal(one.sigmoids_, alone.sigmoids_)
    assert len(detector.fit_path(scores, present)) == len(DELTA_GRID)
    with pytest.raises(ValueError, match=r"'delta' parameter .* Got 1\.2"):
        detector.fit_path(scores, present, deltas=[0.1, 1.2])
    with pytest.raises(ValueError, match=r"'delta' parameter .* Got 1\.2"):
        detector.match_table(scores, present, deltas=[0.1, 1.2])


def test_match_table_holds_every_column_and_delta(problem, rng):
    scores, present, labels = problem
    units = [np.c_[s, rng.normal(size=(len(s), 2))] for s in scores]
    table = SuperActivator().match_table(units, present, labels, deltas=[0.3, 0.9])
    assert table.f1.shape == table.thresholds.shape == (2, 3, 5)
    for d, delta in enumerate([0.3, 0.9]):
        for c in range(3):
            for k in range(5):
                column = [u[:, k : k + 1] for u in units]
                alone = SuperActivator(delta, match_columns=False)
                alone.fit(column, present[:, [c]], token_labels=[m[:, [c]] for m in labels])
                assert table.thresholds[d, c, k] == alone.thresholds_[0]
                found, truth = alone.predict(column)[:, 0], present[:, c]
                f1 = 2 * (found & truth).sum() / (found.sum() + truth.sum())
                assert table.f1[d, c, k] == pytest.approx(f1)


def made(Detector, **kwargs):
    return Detector(**kwargs, **({"random_state": 0} if Detector is RandomToken else {}))


@pytest.mark.parametrize("Detector", [*DETECTORS, WeakSuperActivator])
def test_probabilities_come_from_pooled_scores(Detector, problem):
    scores, present, labels = problem
    detector = made(Detector).fit(scores, present, token_labels=labels)
    pooled = detector.pool(TokenArray.from_list(scores))
    expected = sigmoid(pooled, fit_sigmoid(pooled, present == 1))
    chances = detector.predict_proba(scores)
    np.testing.assert_allclose(chances, expected, rtol=1e-9)
    assert chances.shape == (60, 3)
    assert chances[present == 1].mean() > chances[present == 0].mean()
    decision = detector.decision_function(scores)
    for c in range(3):
        assert np.all(np.diff(chances[np.argsort(decision[:, c]), c]) >= 0)
    marks = [m[:, :1] for m in labels]
    one = made(Detector).fit([s[:, :1] for s in scores], present[:, 0], token_labels=marks)
    both = one.predict_proba([s[:, :1] for s in scores])
    np.testing.assert_allclose(both[:, 1], chances[:, 0], rtol=1e-9)
    np.testing.assert_allclose(both.sum(axis=1), 1)


@pytest.mark.parametrize(("scale", "shift"), [(1e-4, 0.0), (1.0, -50.0), (300.0, 7.0)])
@pytest.mark.parametrize("Detector", [*DETECTORS, WeakSuperActivator])
def test_scale_and_shift_of_scores_change_no_probability(Detector, scale, shift, problem):
    scores, present, labels = problem
    moved = [scale * s + shift for s in scores]
    chances = made(Detector).fit(scores, present, token_labels=labels).predict_proba(scores)
    again = made(Detector).fit(moved, present, token_labels=labels).predict_proba(moved)
    np.testing.assert_allclose(again, chances, rtol=1e-6)


def test_a_concept_without_signal_is_said(problem, rng, recwarn):
    _, present, _ = problem
    scores = rng.normal(size=present.shape) - 2 * present
    detector = MaxToken().fit(scores, present)
    assert not recwarn
    with pytest.warns(
        UserWarning,
        match=r"scores of 3 of 3 concepts \(first 'concept0'\) were on average no higher",
    ):
        chances = detector.predict_proba(scores)
    assert np.ptp(chances, axis=0).max() == 0
    np.testing.assert_allclose(chances[0], present.mean(axis=0), atol=0.02)


def slow_weak(scores, present, share, objective):
    """Appendix N, sample by sample, with every cut tried by scikit-learn's F1."""
    from sklearn.metrics import f1_score

    pool, truth = [], []
    for sample, here in zip(scores, present, strict=True):
        k = 1 if objective == "sample" else int(np.ceil(share * len(sample)))
        top = sorted(sample, reverse=True)[:k]
        pool += top
        truth += [here] * k
    cuts = sorted(set(pool), reverse=True)
    return cuts[int(np.argmax([f1_score(truth, np.array(pool) >= cut) for cut in cuts]))]


@pytest.mark.parametrize("objective", ["token", "sample"])
@pytest.mark.parametrize("share", [None, 0.4])
def test_weak_labels_equal_the_paper_written_slowly(problem, objective, share):
    scores, present, labels = problem
    detector = WeakSuperActivator(0.5, objective=objective, share=share)
    detector.fit(scores, present, token_labels=labels)
    for c in range(3):
        shares = [m[:, c].mean() for m, y in zip(labels, present[:, c], strict=True) if y]
        rho = 0.5 * (np.mean(shares) if share is None else share)
        tau = slow_weak([s[:, c] for s in scores], present[:, c], rho, objective)
        assert detector.thresholds_[c] == tau
        found = [s[:, c].max() >= tau for s in scores]
        np.testing.assert_array_equal(detector.predict(scores)[:, c], found)


def test_without_token_labels_the_share_is_one(problem):
    scores, present, _ = problem
    unknown = WeakSuperActivator().fit(scores, present)
    given = WeakSuperActivator(share=1.0).fit(scores, present)
    np.testing.assert_array_equal(unknown.thresholds_, given.thresholds_)
    narrow = WeakSuperActivator(0.9, share=0.2).fit(scores, present)
    wide = WeakSuperActivator(0.9, share=1.0).fit(scores, present)
    assert not np.array_equal(narrow.thresholds_, wide.thresholds_)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"objective": "concept"}, "'objective' parameter"),
        ({"share": 0.0}, "'share' parameter"),
        ({"share": 1.5}, "'share' parameter"),
    ],
)
def test_bad_settings_of_weak_labels(params, message, problem):
    scores, present, _ = problem
    with pytest.raises(ValueError, match=message):
        WeakSuperActivator(**params).fit(scores, present)


@pytest.mark.parametrize(
    ("params", "data", "message"),
    [
        ({"delta": 0.0}, {}, r"'delta' parameter of .* range \(0.0, 1.0\). Got 0.0"),
        ({"delta": 1.0}, {}, r"'delta' parameter of .* Got 1.0"),
        ({"delta": "high"}, {}, r"'delta' parameter of .* Got 'high'"),
        ({"match_columns": "never"}, {}, r"'match_columns' parameter"),
        ({"match_columns": False}, {"y": np.eye(4, 2, dtype=int)}, "one column per concept, got 3"),
        ({}, {"y": None}, "requires y to be passed, but the target y is None"),
        ({}, {"y": [1, 1, 1, 1]}, "one class only"),
        ({}, {"y": [0, 1, 1]}, "inconsistent numbers of samples"),
        ({}, {"y": np.eye(4, 5, dtype=int)}, "concept 4 has no positive sample"),
    ],
)
@pytest.mark.parametrize("Detector", DETECTORS)
def test_bad_input(Detector, params, data, message):
    given = {"X": np.arange(12.0).reshape(4, 3), "y": [0, 1, 0, 1], **data}
    with pytest.raises(ValueError, match=message):
        Detector(**params).fit(**given)


@pytest.mark.parametrize("Detector", DETECTORS)
@pytest.mark.parametrize(
    "method", ["predict", "decision_function", "predict_proba", "superactivators"]
)
def test_before_fitting(Detector, method):
    with pytest.raises(NotFittedError):
        getattr(Detector(), method)([[1.0]])


def test_scores_of_another_layer_are_refused(problem):
    scores, present, _ = problem
    tokens = TokenArray.from_list(scores, source=Source(model="m", block=3))
    detector = SuperActivator().fit(tokens, present)
    with pytest.raises(ValueError, match=r"another block .* block 3.* block 4"):
        detector.predict(tokens.with_source(Source(model="m", block=4)))
    assert detector.predict(tokens).shape == present.shape


def test_decisions_take_double_precision_of_what_concepts_read_alone(rng):
    scores = rng.normal(size=(20_000, 256)).astype(np.float16)
    present = scores[:, :2] > 1
    detector = MaxToken(match_columns=True).fit(scores, present)
    tracemalloc.start()
    decision = detector.decide(scores)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert decision.dtype == np.float64
    np.testing.assert_array_equal(decision, detector.decide(scores.astype(np.float64)))
    # All columns in double precision are four times the scores.
    assert peak < scores.nbytes / 2
