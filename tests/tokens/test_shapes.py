"""Shapes and segments of samples: they go wherever their tokens go, and fit them."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import config_context

from skact import LayerStack, TokenArray
from skact.tokens import join_segments, join_shapes, same_shapes
from tests.tokens.samples import draw_key, on_disk, quick

SHAPES = np.array([[2, 3], [1, 4], [5, 1], [3, 2], [1, 1]])
LENGTHS = SHAPES.prod(axis=1)


def make(mapped=False):
    """Tokens that tell their sample, row and column."""
    rows = [
        [(i, r, c) for r in range(n_rows) for c in range(n_columns)]
        for i, (n_rows, n_columns) in enumerate(SHAPES)
    ]
    values = np.concatenate(rows).astype(np.float32)
    offsets = np.cumsum([0, *LENGTHS])
    return TokenArray(on_disk(values) if mapped else values, offsets, shapes=SHAPES.tolist())


def check(tokens, expected):
    """Every sample has the shape that its tokens tell."""
    assert tokens.shapes.dtype == np.int64
    np.testing.assert_array_equal(tokens.shapes, SHAPES[expected].reshape(-1, 2))
    for sample, (n_rows, n_columns) in zip(tokens, tokens.shapes, strict=True):
        assert (sample[-1, 1:] + 1).tolist() == [n_rows, n_columns]


@quick
@given(data=st.data(), mapped=st.booleans(), working_memory=st.sampled_from([0, 1024]))
def test_shapes_go_where_their_tokens_go(data, mapped, working_memory):
    tokens, positions = make(mapped), list(range(5))
    for _ in range(data.draw(st.integers(1, 3))):
        key, taken = draw_key(data, len(positions))
        tokens, positions = tokens[key], [positions[p] for p in taken]
    check(tokens, positions)
    check(pickle.loads(pickle.dumps(tokens)), positions)
    check(tokens.with_source(None), positions)
    check(tokens.with_stored_values(tokens.values), positions)
    if not positions:
        return
    with config_context(working_memory=working_memory):
        check(tokens.map(lambda rows: rows[:, :3]), positions)
    for same in (
        tokens.compact(),
        tokens.with_values(tokens.flat()),
        tokens.columns([0, 1, 2]),
        TokenArray.from_list(tokens.to_list(), shapes=tokens.shapes),
        np.take(tokens, np.arange(len(positions)), axis=0),
        LayerStack({3: tokens, 5: tokens.compact()}).layer(5),
    ):
        check(same, positions)
    joined = TokenArray.concatenate([tokens, make(mapped), tokens[::-1]])
    check(joined, [*positions, *range(5), *positions[::-1]])


def test_runs_have_no_shapes():
    tokens = make()
    runs = TokenArray.from_list(tokens.to_list())
    assert runs.shapes is None
    assert runs[[1]].compact().shapes is None
    assert TokenArray.concatenate([tokens, runs]).shapes is None
    assert join_shapes([SHAPES, None]) is None
    assert [same_shapes(*pair) for pair in [(None, None), (SHAPES, None), (SHAPES, SHAPES)]] == [
        True,
        False,
        True,
    ]


def test_a_stack_has_the_shapes_of_its_layers():
    stack = LayerStack({0: make(), 4: make()})[[3, 1]]
    check(stack.layer(4), [3, 1])
    np.testing.assert_array_equal(stack.shapes, SHAPES[[3, 1]])
    np.testing.assert_array_equal(LayerStack.concatenate([stack, stack]).shapes, SHAPES[[3, 1] * 2])
    turned = TokenArray(make().values, make().offsets, shapes=SHAPES[:, ::-1])
    runs = TokenArray(make().values, make().offsets)
    for other in (turned, runs):
        with pytest.raises(ValueError, match="shapes of layer 4 are not those of layer 0"):
            LayerStack({0: make(), 4: other})


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            [[2, 3], [1, 4], [5, 2], [3, 2], [2, 2]],
            "sample 2 has 5 tokens, but its shape is 5 x 2",
        ),
        ([[2, 3], [-1, -4], [5, 1], [3, 2], [1, 1]], "sample 1 has 4 tokens.* -1 x -4"),
        (SHAPES[:4], r"of shape \(5, 2\).*of shape \(4, 2\)"),
        (LENGTHS, r"of shape \(5, 2\).*of shape \(5,\)"),
        (SHAPES.astype(float), "must be integers.*float64"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, message):
    tokens = make()
    with pytest.raises(ValueError, match=message):
        TokenArray(tokens.values, tokens.offsets, shapes=shapes)
    with pytest.raises(ValueError, match=message):
        TokenArray.from_list(tokens.to_list(), shapes=shapes)


RUNS = [[2, 3], [4], [1, 1, 2], [6], [3, 1]]  # lengths of the runs of each sample


def make_runs(mapped=False):
    """Tokens that tell their sample and run."""
    rows = [
        (i, r)
        for i, runs in enumerate(RUNS)
        for r, length in enumerate(runs)
        for _ in range(length)
    ]
    values = np.array(rows, np.float32)
    # Any numbers will do: those of messages, say, which need not begin with 0 nor ascend.
    segments = 7 - 2 * values[:, 1].astype(int)
    offsets = np.cumsum([0, *map(sum, RUNS)])
    return TokenArray(on_disk(values) if mapped else values, offsets, segments=segments)


def check_runs(tokens, expected):
    """Every sample has the runs that its tokens tell."""
    if all(len(RUNS[i]) == 1 for i in expected):
        assert tokens.segments is None
    else:
        np.testing.assert_array_equal(tokens.segments, tokens.flat()[:, 1])
        assert tokens.segments.dtype == np.int32
    assert tokens.flat()[tokens.starts, 0].tolist() == list(expected)


@quick
@given(data=st.data(), mapped=st.booleans(), working_memory=st.sampled_from([0, 1024]))
def test_segments_go_where_their_tokens_go(data, mapped, working_memory):
    tokens, positions = make_runs(mapped), list(range(5))
    for _ in range(data.draw(st.integers(1, 3))):
        key, taken = draw_key(data, len(positions))
        tokens, positions = tokens[key], [positions[p] for p in taken]
    check_runs(tokens, positions)
    check_runs(pickle.loads(pickle.dumps(tokens)), positions)
    check_runs(tokens.with_source(None), positions)
    if not positions:
        return
    with config_context(working_memory=working_memory):
        check_runs(tokens.map(lambda rows: rows[:, :2]), positions)
    for same in (
        tokens.compact(),
        tokens.with_values(tokens.flat()),
        tokens.columns([0, 1]),
        TokenArray.from_list(tokens.to_list(), segments=tokens.segments),
        LayerStack({3: tokens, 5: tokens.compact()}).layer(5),
    ):
        check_runs(same, positions)
    plain = TokenArray(tokens.flat()[: tokens.lengths[0]], [0, tokens.lengths[0]])
    joined = TokenArray.concatenate([tokens, make_runs(mapped), tokens[::-1]])
    check_runs(joined, [*positions, *range(5), *positions[::-1]])
    joined = TokenArray.concatenate([plain, tokens])
    if tokens.segments is None:
        assert joined.segments is None
    else:
        n = len(plain.values)
        np.testing.assert_array_equal(joined.segments, np.append(np.zeros(n), tokens.segments))


def test_samples_of_one_run_have_no_segments():
    # A new number where a sample begins is no gap.
    tokens = TokenArray(np.zeros((5, 1)), [0, 2, 5], segments=[3, 3, 1, 1, 1])
    assert tokens.segments is None
    assert TokenArray.concatenate([tokens, tokens]).segments is None
    assert join_segments([(None, 2), (None, 1)]) is None
    assert TokenArray(np.zeros((0, 1)), [0], segments=[]).segments is None


def test_a_stack_has_the_segments_of_its_layers():
    stack = LayerStack({0: make_runs(), 4: make_runs()})[[4, 1]]
    assert stack.segments.tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    joined = LayerStack.concatenate([stack, stack[:1]])
    assert joined.segments.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    whole = TokenArray(make_runs().values, make_runs().offsets)
    with pytest.raises(ValueError, match="segments of layer 4 are not those of layer 0"):
        LayerStack({0: make_runs(), 4: whole})
    # Layers of a store may lie beside other samples, of which some have gaps.
    assert LayerStack({0: make_runs()[[1, 3]], 4: whole[[1, 3]]}).segments is None


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([0, 1], r"shape \(23,\).* got dtype int64 of shape \(2,\)"),
        (np.zeros((23, 1), int), r"of shape \(23, 1\)"),
        (np.zeros(23), "must be integers.*float64"),
        (["a"] * 23, "must be integers"),
    ],
)
def test_segments_that_do_not_fit_are_refused(segments, message):
    tokens = make_runs()
    with pytest.raises(ValueError, match=message):
        TokenArray(tokens.values, tokens.offsets, segments=segments)


def test_a_grid_has_no_gaps():
    with pytest.raises(ValueError, match="shapes or segments"):
        TokenArray(np.zeros((4, 1)), [0, 4], shapes=[[2, 2]], segments=[0, 0, 1, 1])


def test_segments_that_are_no_array_are_named():
    values = np.ones((2, 1), np.float32)
    with pytest.raises(ValueError, match="segments must be an array of integers: "):
        TokenArray(values, [0, 2], segments=[[0, 0], [1]])
    assert TokenArray(values, [0, 2], segments=[0, 1]).segments.tolist() == [0, 1]
