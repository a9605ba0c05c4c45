import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize
from scipy.stats import binom
from sklearn.metrics import f1_score

from skact import (
    DELTA_GRID,
    DifferenceInMeans,
    SuperActivator,
    TokenArray,
    TransformerEmbedder,
    concept_f1,
    load_spans,
    tail_threshold,
)
from skact.tail import (
    best_columns,
    best_cut,
    best_cut_of_sorted,
    false_alarm_cut,
    fit_sigmoid,
    guaranteed_rank,
    recall_cut,
    sigmoid,
    unsure_cuts,
)


def slow_quantile(scores, q):
    """Linear interpolation between order statistics, written out."""
    ordered = sorted(map(float, scores))
    position = q * (len(ordered) - 1)
    below = int(np.floor(position))
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def test_grid_is_the_papers():
    assert DELTA_GRID == (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@given(
    hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e3, 1e3)),
    st.floats(0.01, 0.99),
)
def test_threshold_is_the_upper_quantile(scores, delta):
    expected = slow_quantile(scores, 1 - delta)
    assert tail_threshold(scores, delta) == pytest.approx(expected, abs=1e-9)


def test_share_delta_lies_above(rng):
    scores = rng.normal(size=100_001)
    for delta in DELTA_GRID:
        assert np.mean(scores > tail_threshold(scores, delta)) == pytest.approx(delta, abs=1e-4)


def test_many_deltas_and_columns_at_once(rng):
    scores = rng.normal(size=(50, 3)).astype(np.float32)
    together = tail_threshold(scores, DELTA_GRID)
    assert together.shape == (12, 3)
    for i, delta in enumerate(DELTA_GRID):
        for c in range(3):
            assert together[i, c] == tail_threshold(scores[:, c], delta)


@given(
    hnp.arrays(bool, (7, 3)),
    hnp.arrays(bool, (7, 3)),
)
def test_f1_is_scikit_learns(present, predicted):
    expected = f1_score(present, predicted, average=None, zero_division=0)
    np.testing.assert_allclose(concept_f1(present, predicted), expected)


def test_best_column_is_the_first_of_equals():
    assert best_columns(np.array([[0.2, 0.9, 0.9], [0.5, 0.1, 0.5]])).tolist() == [1, 0]


@given(
    st.integers(1, 25).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.float64, n, elements=st.integers(-3, 3)), hnp.arrays(bool, n)
        )
    )
)
def test_best_cut_beats_every_other_cut(data):
    scores, positive = data
    positive[0] = True
    cuts = np.unique(scores)
    f1 = [f1_score(positive, scores >= cut) for cut in cuts]
    best = max(cut for cut, value in zip(cuts, f1, strict=True) if np.isclose(value, max(f1)))
    assert best_cut(scores, positive) == best
    columns = np.column_stack([scores, -scores, scores % 2])
    alone = [best_cut(column, positive) for column in columns.T]
    assert best_cut(columns, positive).tolist() == alone


def test_probabilities_give_the_cut_of_the_best_expected_f1(rng):
    scores = rng.integers(0, 12, size=(40, 2)).astype(float)
    chances = rng.random((40, 2))
    for c, cut in enumerate(best_cut(scores, chances)):
        expected = {
            t: 2
            * chances[scores[:, c] >= t, c].sum()
            / (np.sum(scores[:, c] >= t) + chances[:, c].sum())
            for t in np.unique(scores[:, c])
        }
        assert cut == max(expected, key=expected.get)


def test_the_best_cut_of_sorted_scores_is_the_best_cut(rng):
    scores = rng.normal(size=(50, 4)).round(1)
    positive = rng.random(50) < 0.3
    order = np.argsort(-scores, axis=0)
    found = best_cut_of_sorted(np.take_along_axis(scores, order, axis=0), positive[order])
    np.testing.assert_array_equal(found, best_cut(scores, positive))
    # Control: the order counts.
    assert not np.array_equal(best_cut_of_sorted(scores, positive[order]), found)


@pytest.fixture
def released(reference):
    """Scores, labels and expectations of the authors' released implementation."""
    data = reference("ref_thresholds_detection")
    n_tokens = int(data["in_P"])
    acts = data["in_acts"]
    n_concepts = acts.shape[1]
    tokens = np.zeros(acts.shape, bool)
    present = np.zeros((len(acts) // n_tokens, n_concepts), bool)
    for c in range(n_concepts):
        tokens[data["in_tok"][data["in_tok_off"][c] : data["in_tok_off"][c + 1]], c] = True
        present[data["in_img"][data["in_img_off"][c] : data["in_img_off"][c + 1]], c] = True
    offsets = np.arange(0, len(acts) + 1, n_tokens)
    return data, TokenArray(acts, offsets), TokenArray(tokens, offsets), present


def test_released_numbers(released):
    data, scores, labels, present = released
    cal, test = (np.flatnonzero(data["in_split"] == s) for s in ("cal", "test"))
    f1 = {"cal": [], "test": []}
    for d, delta in enumerate(data["in_deltas"]):
        detector = SuperActivator(delta=delta, match_columns=False)
        detector.fit(scores[cal], present[cal], token_labels=labels[cal])
        np.testing.assert_allclose(detector.thresholds_, data["out_thresholds"][d], atol=2e-6)
        for split, rows in (("cal", cal), ("test", test)):
            truth, found = present[rows], detector.predict(scores[rows]).astype(bool)
            counts = [truth & found, ~truth & found, ~truth & ~found, truth & ~found]
            np.testing.assert_array_equal(
                np.stack([k.sum(axis=0) for k in counts], axis=1),
                data[f"out_counts_{split}_tp_fp_tn_fn"][d],
            )
            f1[split].append(concept_f1(truth, found))
    np.testing.assert_allclose(f1["cal"], data["out_f1_cal"], atol=2e-6)
    np.testing.assert_allclose(f1["test"], data["out_f1_test"], atol=2e-6)
    best = np.argmax(f1["cal"], axis=0)
    np.testing.assert_array_equal(np.array(data["in_deltas"])[best], data["out_best_delta"])
    weights = present[test].sum(axis=0)
    np.testing.assert_array_equal(weights, data["in_weights_test_pos"])
    chosen = np.array(f1["test"])[best, np.arange(len(best))]
    assert np.average(chosen, weights=weights) == pytest.approx(
        float(data["out_weighted_test_f1"]), abs=2e-6
    )


def test_columns_do_not_depend_on_each_other(rng, monkeypatch):
    from skact import tail

    scores, deltas = rng.normal(size=(30, 7)).astype(np.float32), [0.1, 0.5]
    whole = tail_threshold(scores, deltas)
    monkeypatch.setattr(tail, "_DOUBLES", 61)
    np.testing.assert_array_equal(tail_threshold(scores, deltas), whole)
    np.testing.assert_array_equal([tail_threshold(s, deltas) for s in scores.T], whole.T)
    assert tail_threshold(scores, 0.1).shape == (7,)
    assert isinstance(tail_threshold(scores[:, 0], 0.1), float)


LEVELS = [(0.1, None), (0.01, None), (0.1, 0.95), (0.02, 0.9), (0.5, 0.6)]


@pytest.mark.parametrize(("rate", "confidence"), LEVELS)
def test_ranks_are_the_largest_that_keep_the_promise(rate, confidence):
    def kept(n):
        # The share below the k-th smallest of n uniform draws is Beta(k, n - k + 1).
        k = np.arange(1, n + 1)
        if confidence is None:
            return k / (n + 1) <= rate * (1 + 1e-9)
        return binom.cdf(k - 1, n, rate) <= 1 - confidence

    for n in (*range(1, 60), 99, 149, 300, 1234):
        ranks = 1 + np.flatnonzero(kept(n))
        if len(ranks):
            assert guaranteed_rank(n, rate, confidence) == ranks.max()
        else:
            with pytest.raises(ValueError, match=rf"needs at least \d+ cats, got {n}"):
                guaranteed_rank(n, rate, confidence, "cats")


@pytest.mark.parametrize(
    ("level", "confidence", "needed"),
    [(0.9, None, 9), (0.99, None, 99), (0.9, 0.95, 29), (0.99, 0.95, 299), (0.8, 0.9, 11)],
)
def test_too_few_samples_are_counted(level, confidence, needed):
    scores = np.arange(float(needed))[:, None]
    assert recall_cut(scores, level, confidence) == 0
    assert false_alarm_cut(scores, 1 - level, confidence) == np.nextafter(needed - 1, np.inf)
    for cut, at in ((recall_cut, level), (false_alarm_cut, 1 - level)):
        with pytest.raises(ValueError, match=f"at least {needed} samples, got {needed - 1}"):
            cut(scores[1:], at, confidence)


def test_levels_and_columns_do_not_depend_on_each_other(rng):
    scores, levels = rng.normal(size=(200, 3)), [0.95, 0.6, 0.9]
    for cut in (recall_cut, false_alarm_cut):
        for confidence in (None, 0.9):
            together = cut(scores, levels, confidence)
            assert together.shape == (3, 3)
            alone = [
                [cut(column[:, None], at, confidence).item() for column in scores.T]
                for at in levels
            ]
            assert together.tolist() == alone


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_cuts_of_false_alarms_lie_one_float_above_a_score(dtype):
    # With the score itself, all samples at 0 would fire.
    scores = np.repeat(np.array([0, 1, 2], dtype), [93, 4, 2])[:, None]
    cut = false_alarm_cut(scores, [0.1, 0.05, 0.02])
    np.testing.assert_array_equal(dtype(cut[:, 0]), np.nextafter(dtype([0, 1, 2]), dtype(9)))
    assert (scores.astype(np.float64) >= cut[0, 0]).mean() == pytest.approx(6 / 99)
    assert (scores >= np.sort(scores, axis=0)[-10]).all()


def test_two_cuts_meet_where_they_cross(rng):
    present = np.repeat([True, False], 100)
    near, far = rng.normal(size=200) + present, rng.normal(size=200) + 9 * present
    cuts = unsure_cuts(np.column_stack([near, far]), present, [[0.9, 0.05], [0.6, 0.2]])
    assert cuts.shape == (2, 2, 2)
    for (lower, upper), (recall, alarms) in zip(cuts, [(0.9, 0.05), (0.6, 0.2)], strict=True):
        separate = [recall_cut(s[present, None], recall).item() for s in (near, far)]
        above = [false_alarm_cut(s[~present, None], alarms).item() for s in (near, far)]
        assert lower[1] == upper[1] == (separate[1] + above[1]) / 2
        assert above[1] < lower[1] < separate[1]
        if separate[0] < above[0]:
            assert (lower[0], upper[0]) == (separate[0], above[0])
    assert cuts[0, 0, 0] < cuts[0, 1, 0]


def population(kind, request):
    """Scores of many samples with a concept and without it."""
    rng = np.random.default_rng(1)
    if kind == "continuous":
        return rng.normal(1, 1, 4000), rng.normal(0, 1, 4000)
    if kind == "zero-inflated":
        drawn = rng.gamma(1, size=(2, 4000)) * (rng.random((2, 4000)) < [[0.6], [0.07]])
        return tuple(drawn.astype(np.float32))
    texts, y, marks = request.getfixturevalue("real_texts")
    fit, held = slice(0, 400), slice(400, None)
    scores = DifferenceInMeans().fit(texts[fit], y[fit], marks[fit]).transform(texts[held]).max()
    return scores[y[held] == 1, 0], scores[y[held] == 0, 0]


@pytest.fixture(scope="session")
def real_texts(data_folder, real_model):
    """Tokens of requests by an encoder, and where a date or a place in them is named."""
    data = load_spans(data_folder("snips"))
    embedder = TransformerEmbedder(str(real_model("minilm")), layer=4)
    texts, spans = data.data[:1200], data.spans[:1200]
    marks = embedder.align_spans(texts, spans, ["timeRange"])
    return embedder.transform(texts), marks.max()[:, 0].astype(int), marks


@pytest.mark.parametrize("confidence", [None, 0.9])
@pytest.mark.parametrize("kind", ["continuous", "zero-inflated", "real"])
def test_cuts_keep_their_promise(kind, confidence, request):
    n, turns, rate = 60, 1000, 0.1
    rng = np.random.default_rng(0)
    positives, negatives = population(kind, request)
    wrong = []
    for scores, cut, at, errs in (
        (positives, recall_cut, 1 - rate, np.less),
        (negatives, false_alarm_cut, rate, np.greater_equal),
    ):
        # Each column is one calibration, drawn from the population with replacement.
        cuts = cut(rng.choice(scores, size=(n, turns)), at, confidence)[0]
        wrong.append(errs(scores[:, None].astype(np.float64), cuts).mean(axis=0))
    for rates in wrong:
        if confidence is None:
            assert rates.mean() <= rate + 3 * rates.std() / np.sqrt(turns)
        else:
            assert np.mean(rates > rate) <= 1 - confidence + 3 * np.sqrt(0.09 / turns)
    if confidence is None and kind == "continuous":
        # A single calibration misses its level half of the time, and the promise is not idle.
        assert all(0.3 < np.mean(rates > rate) < 0.6 for rates in wrong)
        assert all(rates.mean() > 0.8 * rate for rates in wrong)


def test_a_plain_quantile_does_not_keep_it(rng):
    scores = rng.normal(size=4000)
    drawn = rng.choice(scores, size=(20, 1000))
    missed = [
        (scores[:, None] < cut).mean()
        for cut in (np.quantile(drawn, 0.1, axis=0), recall_cut(drawn, 0.9)[0])
    ]
    assert missed[1] < 0.1 < missed[0] - 0.02


def test_probabilities_are_platts(rng):
    present = rng.random((300, 4)) < [0.1, 0.5, 0.9, 0.02]
    scores = rng.normal(size=(300, 4)) + present * [0.5, 3, 1, 2]
    fitted = fit_sigmoid(scores, present)
    chances = sigmoid(scores, fitted)
    for c in range(4):
        z = (scores[:, c] - scores[:, c].mean()) / scores[:, c].std()
        n = present[:, c].sum()
        target = np.where(present[:, c], (n + 1) / (n + 2), 1 / (302 - n))

        def loss(q, z=z, target=target):
            return np.sum(np.logaddexp(0, q[0] * z + q[1]) - target * (q[0] * z + q[1]))

        a, b = minimize(loss, [0, 0], bounds=[(0, None), (None, None)], tol=1e-14).x
        np.testing.assert_allclose(chances[:, c], 1 / (1 + np.exp(-a * z - b)), atol=1e-5)
    # At its best, the sum of probabilities is that of the targets.
    n = present.sum(axis=0)
    expected = n * (n + 1) / (n + 2) + (300 - n) / (302 - n)
    np.testing.assert_allclose(chances.sum(axis=0), expected)


@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0), (1e5, 0), (1, -300.0), (0.01, 0.5)])
def test_scale_and_shift_of_scores_change_no_probability(rng, scale, shift):
    present = rng.random(200) < 0.2
    scores = rng.normal(size=(200, 2)) + present[:, None]
    chances = sigmoid(scores, fit_sigmoid(scores, present))
    moved = scale * scores + shift
    np.testing.assert_allclose(sigmoid(moved, fit_sigmoid(moved, present)), chances, rtol=1e-7)


@pytest.mark.parametrize("scores", ["falling", "constant", "separated"])
def test_probabilities_never_fall_and_stay_inside(rng, scores):
    present = np.arange(50) < 10
    column = {
        "falling": rng.normal(size=50) - 2 * present,
        "constant": np.full(50, 0.1),
        "separated": 1e6 * present,
    }[scores][:, None]
    ((_, slope, _),) = fitted = fit_sigmoid(column, present)
    chances = sigmoid(column, fitted)
    assert ((chances > 0) & (chances < 1)).all()
    assert (slope > 0) == (scores == "separated")
    if slope == 0:
        np.testing.assert_allclose(chances, (10 * 11 / 12 + 40 / 42) / 50)
    else:
        np.testing.assert_allclose(chances[[0, -1], 0], [11 / 12, 1 / 42], rtol=1e-6)
