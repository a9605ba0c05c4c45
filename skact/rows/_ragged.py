"""Ragged arithmetic: rows of one array, cut into segments of different lengths.

A segment may be the tokens of a sample, or the part of a matrix that lies in one file. Segments lie
one after the other without gaps: number i is ``values[offsets[i]:offsets[i + 1]]``, and its
positions count its rows from 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from skact.rows._types import Array

__all__ = [
    "offsets_of",
    "positions_of",
    "rows_from",
    "rows_of",
    "segment_at",
    "segment_max",
    "segment_sum",
    "segments_of",
]


def offsets_of(lengths: Sequence[int] | Array) -> Array:
    """Say where segments begin and end.

    Parameters
    ----------
    lengths : sequence or ndarray of int of shape (n_segments,)
        Rows of each segment.

    Returns
    -------
    offsets : ndarray of shape (n_segments + 1,), dtype int64
        Where each begins, and at last the number of rows.

    Examples
    --------
    >>> from skact.rows import offsets_of
    >>> offsets_of([2, 5, 3])
    array([ 0,  2,  7, 10])
    """
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, dtype=np.int64, out=offsets[1:])
    return offsets


def rows_from(starts: Array, lengths: Array) -> Array:
    """List the rows of segments that may begin anywhere.

    Parameters
    ----------
    starts : ndarray of shape (n_segments,), dtype int64
        First row of each segment.
    lengths : ndarray of shape (n_segments,), dtype int64
        Rows of each.

    Returns
    -------
    rows : ndarray of shape (n_rows,), dtype int64
        Those of one segment after those of the other.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.rows import rows_from
    >>> rows_from(np.array([7, 0]), np.array([3, 2]))
    array([7, 8, 9, 0, 1])
    """
    offsets = offsets_of(lengths)
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])


def rows_of(offsets: Array, segments: Array) -> Array:
    """List the rows of some segments.

    Parameters
    ----------
    offsets : ndarray of shape (n_segments + 1,), dtype int64
        As from :func:`offsets_of`.
    segments : ndarray of int of shape (n_taken,)
        Which ones, in any order.

    Returns
    -------
    rows : ndarray of shape (n_rows,), dtype int64
        Those of one segment after those of the other.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.rows import rows_of
    >>> rows_of(np.array([0, 2, 7, 10]), np.array([2, 0]))
    array([7, 8, 9, 0, 1])
    """
    starts = offsets[segments]
    return rows_from(starts, offsets[segments + 1] - starts)


def positions_of(lengths: Array) -> Array:
    """Position of each row within its segment.

    Parameters
    ----------
    lengths : ndarray of shape (n_segments,), dtype int64
        Rows of each segment.

    Returns
    -------
    positions : ndarray of shape (n_rows,), dtype int64
        From 0.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.rows import positions_of
    >>> positions_of(np.array([2, 3]))
    array([0, 1, 0, 1, 2])
    """
    return rows_from(np.zeros(len(lengths), np.int64), lengths)


def segments_of(lengths: Array) -> Array:
    """Say for each row in which segment it is.

    Parameters
    ----------
    lengths : ndarray of shape (n_segments,), dtype int64
        Rows of each segment.

    Returns
    -------
    segments : ndarray of shape (n_rows,), dtype int64
        From 0.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.rows import segments_of
    >>> segments_of(np.array([2, 3]))
    array([0, 0, 1, 1, 1])
    """
    return np.repeat(np.arange(len(lengths)), lengths)


def segment_at(offsets: Array, rows: int | Array) -> Array:
    """Say in which segment some rows are.

    Parameters
    ----------
    offsets : ndarray of shape (n_segments + 1,), dtype int64
        As from :func:`offsets_of`.
    rows : int, or ndarray of int of any shape
        Rows, from 0.

    Returns
    -------
    segments : ndarray of the shape of rows, dtype int64
        The segments; no empty one holds a row.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.rows import segment_at
    >>> segment_at(np.array([0, 2, 7, 10]), np.array([9, 0, 2]))
    array([2, 0, 1])
    """
    return np.asarray(np.searchsorted(offsets, rows, side="right") - 1)


def segment_max(values: Array, offsets: Array, out: Array | None = None) -> Array:
    """Maximum of the rows of each segment; "any" for bool.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns)
        The rows.
    offsets : ndarray of shape (n_segments + 1,), dtype int64
        As from :func:`offsets_of`; there is a segment, and none is empty.
    out : ndarray of shape (n_segments, n_columns), default=None
        Where the result goes, of the dtype of the values; None makes it.

    Returns
    -------
    largest : ndarray of shape (n_segments, n_columns)
        Of the dtype of the values.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.rows import segment_max
    >>> segment_max(np.array([[1.0], [3.0], [2.0]]), np.array([0, 2, 3]))
    array([[3.],
           [2.]])
    """
    n_segments = len(offsets) - 1
    if out is None:
        out = np.empty((n_segments, values.shape[1]), values.dtype)
    size, rest = divmod(len(values), n_segments)
    # A maximum is exact, so the fastest way may be taken: ``reduceat`` goes through narrow rows of
    # floats one by one; one reduction over segments of equal length is three times as fast, and so
    # is one per segment where segments are long.
    if values.dtype.kind != "f":
        np.maximum.reduceat(values, offsets[:-1], axis=0, out=out)
    elif rest == 0 and np.array_equal(offsets, np.arange(0, len(values) + 1, size)):
        np.maximum.reduce(values.reshape(n_segments, size, -1), axis=1, out=out)
    elif size >= 24:
        cuts = offsets.tolist()
        for row, start, end in zip(out, cuts[:-1], cuts[1:], strict=True):
            np.maximum.reduce(values[start:end], axis=0, out=row)
    else:
        np.maximum.reduceat(values, offsets[:-1], axis=0, out=out)
    return out


def segment_sum(
    values: Array, offsets: Array, dtype: npt.DTypeLike | None = None, out: Array | None = None
) -> Array:
    """Sum of the rows of each segment.

    Parameters
    ----------
    values : ndarray of shape (n_rows, ...)
        The rows.
    offsets : ndarray of shape (n_segments + 1,), dtype int64
        As from :func:`offsets_of`; no segment is empty.
    dtype : dtype, default=None
        What is summed in; None takes the dtype of the values, int64 for bool.
    out : ndarray of shape (n_segments, ...), default=None
        Where the result goes; None makes it.

    Returns
    -------
    total : ndarray of shape (n_segments, ...)
        The sums.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.rows import segment_sum
    >>> segment_sum(np.array([True, True, False]), np.array([0, 2, 3]))
    array([2, 0])
    """
    if dtype is None and values.dtype.kind == "b":
        dtype = np.int64
    return np.add.reduceat(values, offsets[:-1], axis=0, dtype=dtype, out=out)
