import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score

from skact import DELTA_GRID, SuperActivator, TokenArray, concept_f1, tail_threshold
from skact.tail import best_columns, best_cut, top_share


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


@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=9), min_size=1, max_size=6),
    st.sampled_from([0.01, 0.1, 0.25, 0.5, 1.0]),
)
def test_top_share_is_the_sorted_head_of_each_sample(samples, share):
    lengths = np.array([len(s) for s in samples])
    scores = np.concatenate([np.array(s, float) for s in samples])
    (marks,) = top_share(scores, lengths, [share])
    top = np.split(marks, np.cumsum(lengths)[:-1])
    for sample, marked in zip(samples, top, strict=True):
        size = int(np.ceil(share * len(sample)))
        assert marked.sum() == size
        chosen = sorted((s for s, m in zip(sample, marked, strict=True) if m), reverse=True)
        assert chosen == sorted(sample, reverse=True)[:size]


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
