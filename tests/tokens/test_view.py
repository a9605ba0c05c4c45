"""Indexing along samples against a plain list of 2-D arrays."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skact import LayerStack, Source, TokenArray
from skact.tokens import with_row_labels
from tests.tokens.samples import assert_same, draw_key, make_list, make_tokens, problems, quick


@quick
@given(problem=problems(), data=st.data())
def test_a_view_of_a_view_is_the_list_of_its_samples(problem, data):
    tokens, samples = problem
    view, kept = tokens, samples
    for _ in range(data.draw(st.integers(0, 3))):
        key, positions = draw_key(data, len(kept))
        view, kept = view[key], [kept[p] for p in positions]
    n, n_features = len(kept), samples[0].shape[1]

    assert view.shape == (n, n_features)
    assert len(view) == n
    assert view.dtype == samples[0].dtype
    assert view.lengths.tolist() == [len(s) for s in kept]
    assert view.n_tokens == sum(map(len, kept))
    assert_same(view, kept)
    for i in range(-n, n):
        np.testing.assert_array_equal(view[i], kept[i], strict=True)
    for given_back in (view.to_list(), list(view)):
        assert len(given_back) == n
        for a, b in zip(given_back, kept, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    flat = np.concatenate([*kept, samples[0][:0]])
    np.testing.assert_array_equal(view.flat(), flat, strict=True)
    # Not one token was copied, by however many views.
    assert view.values is tokens.values
    for i in (-n - 1, n):
        with pytest.raises(IndexError, match=f"sample {i} is out of range"):
            view[i]


def test_views_share_memory_and_copies_do_not():
    values = np.arange(24, dtype=np.float32).reshape(12, 2)
    tokens = TokenArray(values, [0, 3, 4, 9, 12])
    assert np.shares_memory(tokens.values, values)
    for view in (tokens[1:3], tokens[::-1], tokens[[3, 3, 0]], tokens[np.array([0, 1, 0, 1]) > 0]):
        assert view.values is tokens.values
        assert all(np.shares_memory(sample, values) for sample in view)
    # The tokens of adjacent samples are one slice, those of others must be gathered.
    assert np.shares_memory(tokens[1:3].flat(), values)
    assert not np.shares_memory(tokens[[0, 2]].flat(), values)
    assert not np.shares_memory(tokens[1:3].compact().values, values)
    values[0] = 7
    assert tokens[0][0].tolist() == [7, 7]


def test_it_cannot_become_one_array():
    tokens = TokenArray(np.zeros((3, 2)), [0, 1, 3])
    for container in (tokens, LayerStack({0: tokens})):
        for convert in (np.asarray, np.array, lambda t: np.asarray(t, dtype=float), np.exp):
            with pytest.raises(TypeError, match=r"ragged.*[Pp]ool it first.*X\.flat\(\)"):
                convert(container)


def test_numpy_take_and_array_namespace():
    samples = make_list(0, 5, 2, "float32")
    tokens = make_tokens(samples)
    assert tokens.device == "cpu"
    assert tokens.ndim == 2
    for namespace in (np, tokens.__array_namespace__()):
        taken = namespace.take(tokens, np.array([3, 1]), axis=0)
        assert_same(taken, [samples[3], samples[1]])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ((0, 1), "indexed by samples alone"),
        ((slice(None), [0]), "indexed by samples alone"),
        ((), "indexed by samples alone"),
        (5, "sample 5 is out of range for 3 samples"),
        (-4, "sample -4 is out of range"),
        ([0, 3], "out of bounds"),
        ([True, False], "mask has 2 entries for 3 samples"),
        (np.array([True] * 4), "mask has 4 entries for 3 samples"),
        ([0.0, 1.0], "1-D array of integers or bools, got 1-D of dtype float64"),
        (["a"], "1-D array of integers or bools"),
        ([[0, 1]], "got 2-D"),
        (True, "got 0-D of dtype bool"),
        (None, "1-D array of integers or bools"),
    ],
)
def test_bad_keys(key, message):
    tokens = TokenArray(np.zeros((4, 2)), [0, 1, 3, 4])
    for container in (tokens, LayerStack({0: tokens})):
        with pytest.raises(IndexError, match=message):
            container[key]


def test_only_samples_can_be_taken():
    tokens = TokenArray(np.zeros((3, 2)), [0, 1, 3])
    for options in ({"axis": 1}, {"out": np.empty(1)}, {"mode": "clip"}):
        with pytest.raises(ValueError, match="only samples"):
            tokens.take([0], **options)


def test_labels_of_rows_follow_the_samples():
    pd = pytest.importorskip("pandas")
    tokens = TokenArray(np.arange(10.0).reshape(5, 2), [0, 2, 3, 5], [2, 0, 0])
    index = pd.Index(["c", "a", "b"])
    called = with_row_labels(tokens, index)
    assert tokens.row_labels is None
    stack = LayerStack({0: called, 1: called})
    for samples in (called, stack):
        for key in ([2, 0], np.array([True, False, True]), slice(None, None, -1), slice(0, 0)):
            assert samples[key].row_labels.equals(index[key])
        assert pickle.loads(pickle.dumps(samples[1:])).row_labels.equals(index[1:])
        twice = type(samples).concatenate([samples, samples[:1]])
        assert twice.row_labels.tolist() == ["c", "a", "b", "c"]
    assert stack[[1]].layer(1).row_labels.tolist() == ["a"]
    assert called.map(np.sqrt).columns([0]).compact().row_labels.equals(index)
    assert TokenArray.concatenate([called, tokens]).row_labels is None


@pytest.mark.parametrize("stacked", [False, True])
def test_a_notebook_shows_a_table_that_holds_nothing_unescaped(stacked):
    source = Source("<script>alert(1)</script>", block=3)
    names = ["<b>&", *map(str, range(20))]
    tokens = TokenArray(np.zeros((5, 21)), [0, 2, 5], feature_names=names, source=source)
    shown = LayerStack({3: tokens, 7: tokens}) if stacked else tokens
    html = shown._repr_html_()
    for raw in ("<script>", "<b>", "19"):
        assert raw not in html
    for said in ("&lt;script&gt;alert", "&lt;b&gt;&amp;, 0, 1", "5 (2 to 3 each)", "21, float64"):
        assert said in html
    assert ("<td>3, 7</td>" in html, "block 3" in html) == (stacked, not stacked)
    assert "0 (none)" in shown[:0]._repr_html_()
