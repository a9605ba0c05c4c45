"""Ragged arithmetic against a plain list of ranges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skact.rows import (
    offsets_of,
    positions_of,
    rows_from,
    rows_of,
    segment_at,
    segment_max,
    segment_sum,
    segments_of,
)

quick = settings(max_examples=60, deadline=None)
LENGTHS = st.lists(st.integers(0, 4), max_size=7)


def ranges(lengths):
    """Rows of each segment, counted one by one."""
    segments, row = [], 0
    for length in lengths:
        segments.append(list(range(row, row + length)))
        row += length
    return segments


def joined(segments):
    return [row for segment in segments for row in segment]


def assert_integers(result, expected):
    np.testing.assert_array_equal(result, np.array(expected, np.int64), strict=True)


@quick
@given(lengths=LENGTHS, data=st.data())
def test_offsets_rows_and_positions_are_counted(lengths, data):
    segments, array = ranges(lengths), np.array(lengths, np.int64)
    offsets = offsets_of(array)
    assert_integers(offsets, [0, *(sum(lengths[: i + 1]) for i in range(len(lengths)))])
    assert_integers(offsets_of(lengths), offsets)
    assert_integers(positions_of(array), joined(range(len(s)) for s in segments))
    assert_integers(segments_of(array), joined([i] * n for i, n in enumerate(lengths)))
    assert_integers(segment_at(offsets, np.arange(offsets[-1])), segments_of(array))

    taken = data.draw(st.lists(st.integers(0, max(len(lengths) - 1, 0)), max_size=9))
    taken = np.array(taken if lengths else [], np.int64)
    assert_integers(rows_of(offsets, taken), joined(segments[i] for i in taken))
    starts = data.draw(st.lists(st.integers(0, 50), min_size=len(lengths), max_size=len(lengths)))
    counted = joined(range(s, s + n) for s, n in zip(starts, lengths, strict=True))
    assert_integers(rows_from(np.array(starts, np.int64), array), counted)


def test_offsets_of_narrow_and_unsigned_lengths_are_int64():
    for dtype in (np.bool_, np.uint8, np.uint32, np.int32):
        assert_integers(offsets_of(np.array([1, 0, 1], dtype)), [0, 1, 1, 2])
    # 255 + 255 would not fit.
    assert_integers(offsets_of(np.full(2, 255, np.uint8)), [0, 255, 510])


def test_one_row_has_one_segment():
    assert int(segment_at(np.array([0, 2, 2, 5]), 2)) == 2  # the empty one holds no row


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, bool])
@pytest.mark.parametrize(
    "lengths",
    [[3], [2, 2, 2], [1, 5, 2, 1], [30, 25, 40], [1, 60], [24, 24]],
    ids=["one", "equal", "short", "long", "mixed", "long and equal"],
)
@pytest.mark.parametrize("n_columns", [1, 3])
def test_reductions_are_those_of_each_segment(rng, dtype, lengths, n_columns):
    values = (rng.integers(-16, 17, (sum(lengths), n_columns)) / 4).astype(dtype)
    offsets, segments = offsets_of(lengths), ranges(lengths)
    largest = np.array([values[rows].max(axis=0) for rows in segments])
    np.testing.assert_array_equal(segment_max(values, offsets), largest, strict=True)
    out = np.zeros((len(lengths), n_columns), dtype)
    assert segment_max(values, offsets, out) is out
    np.testing.assert_array_equal(out, largest)

    summed = np.int64 if dtype is bool else np.float64
    total = np.array([values[rows].astype(summed).sum(axis=0) for rows in segments])
    np.testing.assert_array_equal(segment_sum(values, offsets, summed), total, strict=True)
    np.testing.assert_array_equal(segment_sum(values[:, 0], offsets, summed), total[:, 0])
    assert segment_sum(values, offsets).dtype == (np.int64 if dtype is bool else dtype)
    out = np.zeros(total.shape, summed)
    assert segment_sum(values, offsets, summed, out) is out
    np.testing.assert_array_equal(out, total)


@pytest.mark.parametrize("lengths", [[2, 2], [1, 3], [30, 40]])
def test_nan_stays_the_maximum_of_its_segment(lengths):
    values = np.ones((sum(lengths), 2))
    values[-1, 1] = np.nan
    np.testing.assert_array_equal(segment_max(values, offsets_of(lengths)), [[1, 1], [1, np.nan]])
