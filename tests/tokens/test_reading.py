"""Tokens read in blocks, by number and pooled, against loops over a list of 2-D arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import config_context

from skact import TokenArray
from tests.tokens.samples import VALUES, WORKING_MEMORY, draw_key, problems, quick


@pytest.mark.parametrize("working_memory", WORKING_MEMORY)
@quick
@given(problem=problems(), data=st.data())
def test_reductions_equal_a_loop_over_samples(problem, data, working_memory):
    tokens, samples = problem
    key, positions = draw_key(data, len(samples))
    view, kept = tokens[key], [samples[p] for p in positions]
    is_bool = view.dtype == bool
    at = [data.draw(st.integers(0, len(s) - 1)) for s in kept]

    def loop(function, dtype):
        return np.array([function(s) for s in kept], dtype).reshape(view.shape)

    with config_context(working_memory=working_memory):
        results = {
            "max": (view.max(), loop(lambda s: s.max(axis=0), view.dtype)),
            "sum": (
                view.sum(),
                loop(lambda s: s.astype(float).sum(axis=0), np.int64 if is_bool else np.float64),
            ),
            "mean": (view.mean(), loop(lambda s: s.astype(float).mean(axis=0), np.float64)),
            "last": (view.last(), loop(lambda s: s[-1], view.dtype)),
            "tokens_at": (
                view.tokens_at(np.array(at, dtype=int)),
                np.array([s[j] for s, j in zip(kept, at, strict=True)], view.dtype).reshape(
                    view.shape
                ),
            ),
        }
    for result, expected in results.values():
        np.testing.assert_array_equal(result, expected, strict=True)


def test_half_precision_is_summed_in_double():
    ones = np.ones((5000, 1), np.float16)
    tokens = TokenArray(ones, [0, 5000])
    assert tokens.sum() == 5000
    assert tokens.mean() == 1
    assert ones.cumsum(dtype=np.float16)[-1] == 2048  # what half precision would have made of it


@pytest.mark.parametrize("working_memory", WORKING_MEMORY)
@quick
@given(problem=problems(), data=st.data())
def test_blocks_go_through_all_samples_in_order(problem, data, working_memory):
    tokens, samples = problem
    key, positions = draw_key(data, len(samples))
    kept = [samples[p] for p in positions]
    with config_context(working_memory=working_memory):
        blocks = list(tokens[key].blocks())
    assert [i for s, _ in blocks for i in range(s.start, s.stop)] == list(range(len(kept)))
    for piece, values in blocks:
        np.testing.assert_array_equal(values, np.concatenate(kept[piece]), strict=True)
    if working_memory == 0:
        assert len(blocks) == len(kept)
    else:
        assert len(blocks) == bool(kept)


def test_a_block_keeps_to_the_working_memory():
    tokens = TokenArray(np.zeros((1000, 256), np.float32), np.arange(0, 1001, 10))
    with config_context(working_memory=6.4):  # MiB, of which a 64th: 102 tokens of 1 KiB
        sizes = [len(values) for _, values in tokens.blocks()]
    assert sizes == [100] * 10


@quick
@given(problem=problems(), data=st.data())
def test_starts_positions_and_numbers_are_those_of_the_flat_rows(problem, data):
    tokens, samples = problem
    key, shown = draw_key(data, len(samples))
    view = tokens[key]
    places = [(i, j) for i, p in enumerate(shown) for j in range(len(samples[p]))]

    assert view.starts.tolist() == [places.index((i, 0)) for i in range(len(shown))]
    assert view.positions().tolist() == [j for _, j in places]
    assert view.starts.dtype == view.positions().dtype == np.int64
    if not places:
        return
    numbers = np.array(data.draw(st.lists(st.integers(0, len(places) - 1), min_size=1)))
    expected = np.array([samples[shown[i]][j] for i, j in (places[n] for n in numbers)])
    np.testing.assert_array_equal(view.rows(numbers), expected, strict=True)
    for outside in (-1, len(places)):
        with pytest.raises(IndexError, match=rf"numbers must lie in \[0, {len(places)}\)"):
            view.rows(np.array([0, outside]))


def test_tokens_may_be_held_up_to_half_of_the_working_memory():
    tokens = TokenArray(np.zeros((1024, 256), np.float16), np.arange(0, 1025, 2))
    for working_memory, held in ((2, True), (1.99, False)):  # they are 1 MiB in float32
        with config_context(working_memory=working_memory):
            assert tokens.may_be_held == held
            assert tokens[:100].may_be_held  # only what is shown counts


def test_bad_positions():
    tokens = TokenArray(VALUES, [0, 1, 4])
    for positions in ([1, 0], [0, 3], [-1, 0]):
        with pytest.raises(IndexError, match="within their samples"):
            tokens.tokens_at(np.array(positions))
    assert tokens.tokens_at(np.array([0, 2])).shape == (2, 2)
