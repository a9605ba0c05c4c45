"""Tops that are sorted once for all concepts, against a sort for each of them."""

import numpy as np
import pytest
import sklearn
from hypothesis import given
from hypothesis import strategies as st

from skact import TokenArray, WeakSuperActivator
from skact.detection import _tops
from skact.detection._tops import SortedTops, top_sizes

DELTAS = [0.05, 0.3, 0.95]


def slow_cut(scores, positive):
    """The largest of the cuts with the best F1."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    hits = np.cumsum(positive[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + positive.sum())
    f1[:-1][ordered[:-1] == ordered[1:]] = -1
    return float(ordered[np.argmax(f1)])


def slow_table(scores, labels, share, objective):
    """Thresholds of each delta, concept and column, one after the other."""
    lengths = scores.lengths
    segments = np.repeat(np.arange(len(lengths)), lengths)
    present = labels.max()
    out = np.empty((len(DELTAS), labels.n_features, scores.n_features))
    for c in range(labels.n_features):
        shares = [m[:, c].mean() for m in labels if m[:, c].any()]
        own = np.mean(shares) if share is None else share
        for k, column in enumerate(scores.flat().T):
            rank = np.empty(len(column), np.int64)
            rank[np.lexsort((-column, segments))] = scores.positions()
            for d, delta in enumerate(DELTAS):
                size = np.maximum(np.ceil(delta * own * lengths - 1e-9), 1)
                if objective == "sample":
                    size = np.ones(len(lengths))
                top = rank < np.repeat(size, lengths)
                out[d, c, k] = slow_cut(column[top], np.repeat(present[:, c], lengths)[top])
    return out


@pytest.fixture(params=["different", "alike", "half"])
def data(request, rng):
    lengths = rng.integers(1, 15, size=80)
    scores = rng.normal(size=(lengths.sum(), 5)).astype(np.float32)
    labels = rng.random((lengths.sum(), 3)) < 0.1
    scores[:, :3] += 2 * labels
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if request.param == "alike":
        scores = np.maximum(scores, 0).round(1)  # most are equal to others
    if request.param == "half":
        scores = scores.astype(np.float16)
    return TokenArray(scores, offsets), TokenArray(labels, offsets)


@pytest.mark.parametrize("objective", ["token", "sample"])
@pytest.mark.parametrize("share", [None, 1.0, 0.2])
@pytest.mark.parametrize("place", ["memory", "few at a time", "disk"])
def test_thresholds_are_those_of_a_sort_for_each_concept(
    data, share, objective, place, monkeypatch, tmp_path
):
    scores, labels = data
    y, expected = labels.max().astype(int), slow_table(scores, labels, share, objective)
    if place == "few at a time":
        monkeypatch.setattr(_tops, "_ENTRIES", 1000)
    if place == "disk":
        np.save(tmp_path / "scores.npy", scores.values)
        mapped = np.load(tmp_path / "scores.npy", mmap_mode="r")
        scores = TokenArray(mapped, scores.offsets)
    detector = WeakSuperActivator(share=share, objective=objective)
    with sklearn.config_context(working_memory=1e-2 if place == "disk" else 1024):
        table = detector.match_table(scores, y, labels, deltas=DELTAS)
        np.testing.assert_array_equal(table.thresholds, expected)
        # One column for each concept, in an order of its own.
        columns = [2, 0, 1]
        own = detector.set_params(match_columns=False).fit_path(
            scores.columns(columns), y, labels, deltas=DELTAS
        )
    for d, one in enumerate(own):
        np.testing.assert_array_equal(one.thresholds_, expected[d, np.arange(3), columns])
    # Control: the concepts differ.
    assert not np.array_equal(expected[:, 0], expected[:, 1])


@given(
    st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=1), min_size=1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_tops_are_the_sorted_heads_of_samples(samples, share, part):
    lengths = np.array([len(s) for s in samples])
    flat = np.concatenate(samples)[:, None]
    tokens = TokenArray(flat, np.concatenate([[0], np.cumsum(lengths)]))
    sizes, fewer = top_sizes(lengths, share), top_sizes(lengths, share * part)
    ((_, tops),) = SortedTops.each(tokens, np.array([0]), sizes)
    present = np.arange(len(samples)) % 2 == 0
    scores, positive, _ = tops.among(fewer, present)
    heads = [sorted(s, reverse=True)[:n] for s, n in zip(samples, fewer, strict=True)]
    assert scores[:, 0].tolist() == sorted((x for head in heads for x in head), reverse=True)
    of_present = [x for head, here in zip(heads, present, strict=True) for x in head if here]
    assert sorted(scores[positive].tolist()) == sorted(of_present)


def test_an_exact_number_of_tokens_is_not_rounded_up():
    assert top_sizes(np.array([10, 100, 3]), 0.1 * 3).tolist() == [3, 30, 1]
    assert np.ceil(0.1 * 3 * 10) == 4
    assert top_sizes(np.array([5]), 0.0).tolist() == [1]
