"""Top windows against every cut: what they promise, in what they equal other detectors, errors."""

import re

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from skact import (
    DELTA_GRID,
    MaxToken,
    MeanToken,
    SuperActivator,
    TokenArray,
    TopWindows,
    WeakSuperActivator,
)
from skact.pooling import top_windows
from skact.tail import best_cut, fit_sigmoid, sigmoid

BOTH = ("recall", "false_alarms")
CUTS = [
    {"delta": 0.3},
    {"cut": "f1"},
    {"cut": "expected_f1"},
    {"cut": "recall", "level": 0.8},
    {"cut": "false_alarms", "level": 0.2},
    {"cut": "false_alarms", "level": 0.2, "confidence": 0.9},
    {"cut": BOTH, "level": (0.8, 0.2)},
]


def windows(**params):
    return TopWindows(**{"delta": None if "cut" in params else 0.1, **params})


@pytest.fixture
def problem(rng):
    """Ragged scores of three concepts, which some samples hold for a while."""
    lengths = rng.integers(1, 30, size=120)
    labels = [np.repeat(rng.random((1, 3)) < 0.4, n, axis=0) for n in lengths]
    for marks in labels:
        marks[rng.integers(0, len(marks)) :] = False
    scores = [rng.normal(size=lab.shape) + 1.5 * lab for lab in labels]
    return scores, np.array([lab.any(axis=0) for lab in labels]).astype(int), labels


def lower_tail(scores, rate):
    """The k-th smallest, with k as many as may be missed on average."""
    return sorted(scores)[int(np.floor(rate * (len(scores) + 1) + 1e-9)) - 1]


def best_by_f1(scores, chances):
    """The largest cut with the best F1, or expected F1."""

    def f1(cut):
        found = scores >= cut
        return 2 * chances[found].sum() / (found.sum() + chances.sum())

    return max(sorted(set(scores), reverse=True), key=f1)


def slow_cut(params, scores, present):
    """The cut of one concept by its definition."""
    yes, no = scores[present], scores[~present]
    if "cut" not in params:
        return np.quantile(yes, 1 - params["delta"])
    if params["cut"] == "f1":
        f1 = {
            t: 2 * np.sum(yes >= t) / (np.sum(scores >= t) + len(yes))
            for t in np.sort(scores)[::-1]
        }
        return max(f1, key=f1.get)
    if params["cut"] == "expected_f1":
        p = sigmoid(scores[:, None], fit_sigmoid(scores[:, None], present))[:, 0]
        f1 = {
            t: 2 * p[scores >= t].sum() / (np.sum(scores >= t) + p.sum())
            for t in np.sort(scores)[::-1]
        }
        return max(f1, key=f1.get)
    if params["cut"] == "recall":
        return lower_tail(yes, 1 - params["level"])
    return np.nextafter(-lower_tail(-no, params["level"]), np.inf)


@pytest.mark.parametrize("match", [False, True])
@pytest.mark.parametrize("pool", [{}, {"window": 5}, {"window": 3, "top": 2}, {"share": 0.5}])
@pytest.mark.parametrize(
    "params", [c for c in CUTS if "confidence" not in c and c.get("cut") != BOTH]
)
def test_every_cut_is_its_definition(problem, params, pool, match):
    scores, present, _ = problem
    tokens = TokenArray.from_list(scores)
    detector = windows(**params, **pool, match_columns=match).fit(tokens, present)
    pooled = top_windows(tokens.values, tokens.offsets, **pool)
    found = detector.predict(scores)
    assert detector.thresholds_.shape == (3,)
    for c in range(3):
        column = pooled[:, detector.matched_columns_[c]]
        cut = slow_cut(params, column, present[:, c] == 1)
        assert detector.thresholds_[c] == pytest.approx(cut, abs=1e-12)
        np.testing.assert_array_equal(found[:, c], column >= detector.thresholds_[c])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("match", [False, True])
@pytest.mark.parametrize("delta", [0.02, 0.5])
def test_one_window_of_one_token_is_the_maximum(problem, delta, match, dtype):
    scores, present, _ = problem
    scores = [s.astype(dtype) for s in scores]
    ours = TopWindows(delta, match_columns=match).fit(scores, present)
    theirs = MaxToken(delta, match_columns=match).fit(scores, present)
    for name in ("thresholds_", "matched_columns_", "sigmoids_"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    for name in ("predict", "decision_function", "predict_proba"):
        np.testing.assert_array_equal(getattr(ours, name)(scores), getattr(theirs, name)(scores))


def test_relatives(problem):
    scores, present, _ = problem
    mean = MeanToken(0.3).fit(scores, present)
    np.testing.assert_allclose(
        TopWindows(0.3, share=1.0).fit(scores, present).thresholds_, mean.thresholds_
    )
    exact = WeakSuperActivator(objective="sample").fit(scores, present)
    np.testing.assert_array_equal(
        windows(cut="f1").fit(scores, present).thresholds_, exact.thresholds_
    )


def test_windows_of_images_are_squares(rng):
    images = rng.normal(size=(60, 36, 2))
    y = np.arange(60) % 2
    square = np.array([14, 15, 20, 21])
    images[y == 1, square[:, None]] += 2  # four patches that touch, in a 6 x 6 grid
    grids = TokenArray.from_list(images, shapes=np.full((60, 2), 6))
    detector = windows(window=2, cut="f1", match_columns=True).fit(grids, y)
    means = np.array(
        [
            max(
                image[r : r + 2, c : c + 2, detector.matched_columns_[0]].mean()
                for r in range(5)
                for c in range(5)
            )
            for image in images.reshape(60, 6, 6, 2)
        ]
    )
    assert detector.thresholds_[0] == pytest.approx(best_cut(means, y == 1))
    runs = clone(detector).fit(TokenArray.from_list(images), y)
    assert detector.score(grids, y) > runs.score(images, y)


@pytest.mark.parametrize("shaped", [False, True])
@pytest.mark.parametrize("params", CUTS, ids=str)
def test_memory_and_disk_agree_to_the_bit(params, shaped, rng, tmp_path):
    shapes = rng.integers(1, 6, (60, 2))
    offsets = np.concatenate([[0], shapes.prod(axis=1).cumsum()])
    np.save(tmp_path / "scores.npy", rng.normal(size=(offsets[-1], 3)).astype(np.float32))
    y, shapes = rng.random((60, 2)) < 0.5, shapes if shaped else None
    fitted = []
    for mode, budget in ((None, 64), ("r", 1e-3)):
        values = np.load(tmp_path / "scores.npy", mmap_mode=mode)
        scores = TokenArray(values, offsets, shapes=shapes)
        with sklearn.config_context(working_memory=budget):
            assert (len(list(scores.blocks())) > 1) == (mode == "r")
            fitted.append(windows(**params, window=2, top=2).fit(scores, y))
    for name in ("thresholds_", "matched_columns_", "sigmoids_"):
        np.testing.assert_array_equal(getattr(fitted[0], name), getattr(fitted[1], name))


@pytest.mark.parametrize("params", CUTS, ids=str)
def test_scale_and_shift_change_no_decision(problem, params):
    scores, present, _ = problem
    moved = [4 * s - 2 for s in scores]  # exact, so that a float above is one
    plain = windows(**params).fit(scores, present).predict(scores)
    np.testing.assert_array_equal(windows(**params).fit(moved, present).predict(moved), plain)


def test_two_cuts_leave_some_unsure(problem):
    scores, present, _ = problem
    two = windows(cut=BOTH, level=(0.95, 0.05)).fit(scores, present)
    low = windows(cut="recall", level=0.95).fit(scores, present)
    high = windows(cut="false_alarms", level=0.05).fit(scores, present)
    ends = np.column_stack([low.thresholds_, high.thresholds_])
    crossed = ends[:, 0] > ends[:, 1]
    assert not crossed.any()
    np.testing.assert_array_equal(two.unsure_thresholds_, ends)
    np.testing.assert_array_equal(two.thresholds_, ends[:, 1])
    said = two.predict_unsure(scores)
    assert set(np.unique(said)) == {-1, 0, 1}
    np.testing.assert_array_equal(said == 1, two.predict(scores) == 1)
    np.testing.assert_array_equal(said >= 0, low.predict(scores) == 1)
    one = clone(two).fit([s[:, :1] for s in scores], present[:, 0])
    np.testing.assert_array_equal(one.predict_unsure([s[:, :1] for s in scores]), said[:, 0])


def test_nobody_is_unsure_where_the_cuts_cross(rng):
    y = np.arange(100) % 2
    X = rng.normal(size=(100, 1)) + 10 * y[:, None]
    two = windows(cut=BOTH, level=(0.9, 0.1)).fit(X, y)
    low = windows(cut="recall", level=0.9).fit(X, y).thresholds_
    high = windows(cut="false_alarms", level=0.1).fit(X, y).thresholds_
    assert high < low
    np.testing.assert_array_equal(two.unsure_thresholds_, [[(low[0] + high[0]) / 2] * 2])
    np.testing.assert_array_equal(two.predict_unsure(X), 2 * y - 1)


@pytest.mark.parametrize("params", CUTS[:-1], ids=str)
def test_one_cut_leaves_nobody_unsure(problem, params):
    scores, present, _ = problem
    detector = windows(cut=BOTH, level=(0.8, 0.2)).fit(scores, present)
    detector.set_params(
        **{"delta": None, "level": None, **params, "cut": params.get("cut", "tail")}
    )
    detector.fit(scores, present)
    assert not hasattr(detector, "unsure_thresholds_")
    with pytest.raises(AttributeError, match="has no attribute 'predict_unsure'"):
        detector.predict_unsure(scores)


def test_before_fitting():
    with pytest.raises(NotFittedError):
        windows(cut=BOTH, level=(0.8, 0.2)).predict_unsure([[1.0]])


PATHS = [
    ({"delta": 0.1}, "deltas", [0.2, 0.7]),
    ({"cut": "recall"}, "levels", [0.6, 0.9]),
    ({"cut": "false_alarms", "confidence": 0.8}, "levels", [0.3, 0.1]),
    ({"cut": BOTH}, "levels", [(0.6, 0.3), (0.9, 0.1)]),
    ({"cut": "f1"}, "levels", [None]),
]


@pytest.mark.parametrize("match", [False, True])
@pytest.mark.parametrize(("params", "name", "values"), PATHS)
def test_a_path_is_a_fit_for_each_value(problem, params, name, values, match):
    scores, present, labels = problem
    start = {} if name == "deltas" or values == [None] else {"level": values[0]}
    detector = windows(**params, **start, window=2, match_columns=match)
    path = detector.fit_path(scores, present, labels, **{name: values})
    assert len(path) == len(values)
    table = detector.match_table(scores, present, labels, **{name: values})
    assert table.thresholds.shape == (len(values), 3, 3)
    assert len(table[name]) == len(values)
    for one, value in zip(path, values, strict=True):
        alone = clone(detector).set_params(**{name[:-1]: value}).fit(scores, present)
        assert one.get_params() == alone.get_params()
        state = {k: v for k, v in vars(alone).items() if k.endswith("_")}
        assert {k for k in vars(one) if k.endswith("_")} == set(state)
        for key, expected in state.items():
            np.testing.assert_array_equal(getattr(one, key), expected, err_msg=key)
    default = detector.fit_path(scores, present)
    assert len(default) == (len(DELTA_GRID) if name == "deltas" else 1)


@pytest.mark.parametrize(
    ("params", "name", "values"), [PATHS[1], ({"cut": BOTH}, "levels", PATHS[3][2])]
)
def test_grids_over_levels(problem, params, name, values):
    scores, present, _ = problem
    grid = GridSearchCV(
        windows(**params, level=values[0]),
        {"level": values, "window": [1, 3]},
        scoring="f1_macro",
        cv=3,
        error_score="raise",
    ).fit(TokenArray.from_list(scores), present)
    assert grid.best_params_["level"] in values
    assert grid.predict_proba(scores).shape == (120, 3)


def test_expected_f1_says_where_it_finds_everything(rng):
    y = np.eye(2, dtype=int)[np.arange(60) % 2]
    X = rng.normal(size=(60, 2)) + [3, -3] * y
    with pytest.warns(UserWarning, match=r"1 of 2 concepts \(first 'concept1'\) .* every sample"):
        detector = windows(cut="expected_f1").fit(X, y)
    assert detector.predict(X)[:, 1].all()
    assert not detector.predict(X)[:, 0].all()


def drawn(rng, n_samples, n_tokens, holds):
    """Samples of noise, in which a few labelled tokens stand out where they hold the concept."""
    labels = np.zeros((n_samples, n_tokens, 1), bool)
    labels[:, :3] = holds
    return rng.normal(size=labels.shape) + 3 * labels, labels


def test_a_threshold_of_tokens_does_not_hold_for_longer_samples(rng):
    """P(max > t) grows with the length, and a quantile of tokens does not know the length."""
    alarms = {"SuperActivator": [], "sample cut": [], "sample cut of short ones": []}
    short_cut = None
    for n_tokens in (16, 128):
        there, marks = drawn(rng, 400, n_tokens, True)
        X = np.concatenate([there, drawn(rng, 400, n_tokens, False)[0]])
        y, labels = np.repeat([1, 0], 400), np.concatenate([marks, np.zeros_like(marks)])
        new, _ = drawn(rng, 2000, n_tokens, False)
        tokens = SuperActivator(0.5).fit(X, y, token_labels=list(labels))
        samples = windows(cut="false_alarms", level=0.05).fit(X, y)
        short_cut = short_cut or samples
        for name, detector in zip(alarms, (tokens, samples, short_cut), strict=True):
            alarms[name].append(detector.predict(new).mean())
    assert alarms["SuperActivator"][1] > 4 * alarms["SuperActivator"][0] > 0.05
    np.testing.assert_allclose(alarms["sample cut"], 0.05, atol=0.02)
    # That is a cut set on samples as long; one of short samples holds no better for long ones.
    assert alarms["sample cut of short ones"][1] > 4 * 0.05


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"window": 0}, "'window' parameter of TopWindows must be an int"),
        ({"window": 2.0}, "'window' .* Got 2.0"),
        ({"window": True}, "'window' .* Got True"),
        ({"top": 1.5}, "'top' .* Got 1.5"),
        ({"share": 0.0}, "'share' .* Got 0.0"),
        ({"share": 0.5, "top": 3}, "top=3 and share=0.5 both say how many windows count"),
        ({"cut": "best"}, "'cut' parameter of TopWindows must be"),
        ({"cut": ("false_alarms", "recall")}, "'cut' .* Got"),
        ({"delta": 0.1, "cut": "f1"}, "delta belongs to cut='tail'; with cut='f1' it must be None"),
        (
            {"delta": 0.1, "cut": "recall", "level": 0.9},
            "with cut='recall' it must be None, got 0.1",
        ),
        ({"level": 0.9}, "cut='tail' promises no level"),
        ({"cut": "f1", "level": 0.9}, "cut='f1' promises no level"),
        ({"cut": "recall"}, "cut='recall' needs one level, the promised rate, got level=None"),
        ({"cut": "recall", "level": (0.9, 0.1)}, "cut='recall' needs one level"),
        ({"cut": BOTH, "level": 0.9}, r"cut=\('recall', 'false_alarms'\) needs two levels"),
        ({"cut": "recall", "level": 1.0}, "'level' .* Got 1.0"),
        ({"cut": "recall", "level": 0}, "'level' .* Got 0"),
        ({"cut": "recall", "level": "high"}, "'level' .* Got 'high'"),
        ({"cut": "recall", "level": True}, "'level' .* Got True"),
        ({"cut": BOTH, "level": (0.9, 1.1)}, r"'level' .* Got \(0.9, 1.1\)"),
        ({"cut": BOTH, "level": (0.9, 0.1, 0.1)}, "'level' .* Got"),
        ({"confidence": 0.9}, "confidence=0.9 needs a level"),
        ({"cut": "f1", "confidence": 0.9}, "confidence=0.9 needs a level .* cut='f1' has none"),
        ({"cut": "recall", "level": 0.9, "confidence": 1.0}, "'confidence' .* Got 1.0"),
        ({"window": 31}, "window=31 is longer than every sample; the longest has 30 tokens"),
        (
            {"cut": "recall", "level": 0.99},
            r"error rate of 0.01 needs at least 99 samples that hold 'concept0', got \d+",
        ),
        (
            {"cut": "false_alarms", "level": 0.02, "confidence": 0.95},
            "0.02 with confidence 0.95 needs at least 149 samples without 'concept0', got",
        ),
        ({"cut": BOTH, "level": (0.8, 0.001)}, "at least 999 samples without 'concept0'"),
    ],
)
@pytest.mark.parametrize("call", ["fit", "fit_path"])
def test_bad_settings(problem, params, message, call):
    scores, present, _ = problem
    scores = [*scores[:-1], np.zeros((30, 3))]
    with pytest.raises(ValueError, match=message):
        getattr(windows(**params), call)(scores, present)


def test_the_tail_needs_a_delta(problem):
    scores, present, _ = problem
    with pytest.raises(ValueError, match="cut='tail' needs a delta"):
        windows(delta=None).fit(scores, present)
    assert len(windows(delta=None).fit_path(scores, present)) == len(DELTA_GRID)  # it has some


@pytest.mark.parametrize(
    ("params", "given", "message"),
    [
        ({"cut": "f1"}, {"deltas": [0.1]}, "deltas belong to cut='tail'; with cut='f1' delta"),
        (
            {"cut": "recall", "level": 0.9},
            {"deltas": [0.1]},
            "with cut='recall' delta must be None",
        ),
        ({}, {"levels": [0.1]}, "levels do not belong to cut='tail'"),
        ({"cut": "f1"}, {"levels": [0.9]}, "cut='f1' promises no level"),
        ({"cut": "recall", "level": 0.9}, {"levels": []}, "levels must hold one or more numbers"),
        ({"cut": "recall", "level": 0.9}, {"levels": [1.5]}, "'level' .* Got 1.5"),
        ({"cut": "recall", "level": 0.9}, {"levels": [(0.9, 0.1)]}, "needs one level"),
        ({"cut": BOTH, "level": (0.8, 0.2)}, {"levels": [0.9, 0.1]}, "needs two levels"),
        ({}, {"deltas": [(0.1, 0.2)]}, "'delta' .* Got"),
    ],
)
@pytest.mark.parametrize("call", ["fit_path", "match_table"])
def test_bad_paths(problem, params, given, message, call):
    scores, present, _ = problem
    with pytest.raises(ValueError, match=message):
        getattr(windows(**params), call)(scores, present, **given)


def test_a_grid_over_delta_names_the_cut(problem):
    scores, present, _ = problem
    grid = GridSearchCV(windows(cut="f1"), {"delta": [0.1, 0.5]}, error_score="raise")
    with pytest.raises(ValueError, match=re.escape("with cut='f1' it must be None, got 0.1")):
        grid.fit(TokenArray.from_list(scores), present)


@pytest.mark.parametrize("params", CUTS, ids=str)
def test_marks_are_scores_too(problem, params):
    scores, present, _ = problem
    marks = [s > 1.5 for s in scores]
    numbers = [m.astype(np.float32) for m in marks]
    ours = windows(**params, window=2).fit(marks, present)
    np.testing.assert_array_equal(
        ours.predict(marks), windows(**params, window=2).fit(numbers, present).predict(numbers)
    )
    assert windows(**params).fit(marks, present).predict(marks).shape == (120, 3)


def test_scores_that_are_no_numbers(problem):
    scores, present, _ = problem
    scores[3] = np.full((4, 3), np.nan)
    with pytest.raises(ValueError, match="NaN"):
        windows(window=2).fit(scores, present)


def test_grids_are_measured_by_their_shorter_side(rng):
    X = TokenArray.from_list(rng.normal(size=(20, 12, 1)), shapes=np.tile([3, 4], (20, 1)))
    windows(window=3).fit(X, np.arange(20) % 2)
    with pytest.raises(ValueError, match="longest has 3 patches along its shorter side"):
        windows(window=4).fit(X, np.arange(20) % 2)
