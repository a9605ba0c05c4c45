"""How the tokens of a sample lie beside one another: in a grid, or in runs with gaps between them.

The patches of an image are a grid, row by row. The tokens of a text are one run, and several where
context was left out between them, as between the turns of a chat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skact.rows import Array

__all__ = ["check_segments", "check_shapes", "join_segments", "join_shapes", "same_shapes"]


def check_shapes(shapes: Any, lengths: Array) -> Array:
    """Check that shapes fit the tokens of their samples.

    Parameters
    ----------
    shapes : array-like of int of shape (n_samples, 2)
        Rows and columns of each sample.
    lengths : ndarray of shape (n_samples,), dtype int64
        Tokens of each.

    Returns
    -------
    shapes : ndarray of shape (n_samples, 2), dtype int64
        The shapes.

    Raises
    ------
    ValueError
        If one does not multiply to the tokens of its sample; the first is named.
    """
    array = np.asarray(shapes)
    if array.shape != (len(lengths), 2) or array.dtype.kind not in "iu":
        raise ValueError(
            f"shapes must be integers of shape ({len(lengths)}, 2), the rows and columns of each "
            f"sample; got dtype {array.dtype} of shape {array.shape}."
        )
    array = array.astype(np.int64, copy=False)
    bad = np.flatnonzero((array.min(axis=1, initial=1) < 1) | (array.prod(axis=1) != lengths))
    if len(bad):
        i = bad[0]
        raise ValueError(
            f"shapes must multiply to the tokens of each sample: sample {i} has {lengths[i]} "
            f"tokens, but its shape is {array[i, 0]} x {array[i, 1]}."
        )
    return array


def join_shapes(parts: Sequence[Array | None]) -> Array | None:
    """Put shapes of samples behind one another; None if some samples have none.

    Parameters
    ----------
    parts : sequence of ndarray of shape (n_samples_i, 2) or None
        Rows and columns of samples.

    Returns
    -------
    shapes : ndarray of shape (n_samples, 2) or None
        Those of all samples.
    """
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def same_shapes(shapes: Array | None, others: Array | None) -> bool:
    """Tell whether samples have the same shapes or the same segments, or have none alike."""
    if shapes is None or others is None:
        return shapes is others
    return np.array_equal(shapes, others)


def check_segments(segments: Any, offsets: Array) -> Array | None:
    """Count the runs of adjacent tokens within each sample.

    Parameters
    ----------
    segments : array-like of int of shape (n_tokens,)
        Neighbours in a sample that have unequal numbers are not adjacent.
    offsets : ndarray of shape (n_samples + 1,), dtype int64
        Where each sample begins, and at last the number of tokens.

    Returns
    -------
    segments : ndarray of shape (n_tokens,), dtype int32, or None
        From 0 in each sample; None if every sample is one run.

    Raises
    ------
    ValueError
        If they are not one integer per token.
    """
    try:
        array = np.asarray(segments)
    except ValueError as error:
        raise ValueError(f"segments must be an array of integers: {error}") from error
    if array.shape != (offsets[-1],) or (array.size and array.dtype.kind not in "biu"):
        raise ValueError(
            f"segments must be integers of shape ({offsets[-1]},), the number of the run that each "
            f"token lies in; got dtype {array.dtype} of shape {array.shape}."
        )
    begins = array[1:] != array[:-1]
    begins[offsets[1:-1] - 1] = False
    if not begins.any():
        return None
    runs = np.zeros(len(array), np.int32)
    np.cumsum(begins, out=runs[1:])
    return runs - np.repeat(runs[offsets[:-1]], np.diff(offsets))


def join_segments(parts: Sequence[tuple[Array | None, int]]) -> Array | None:
    """Put segments of samples behind one another; None if no sample has any.

    Parameters
    ----------
    parts : sequence of (ndarray of shape (n_tokens_i,) or None, int)
        Runs of tokens, and how many tokens there are.

    Returns
    -------
    segments : ndarray of shape (n_tokens,), dtype int32, or None
        Those of all tokens.
    """
    if all(part is None for part, _ in parts):
        return None
    return np.concatenate([np.zeros(n, np.int32) if p is None else p for p, n in parts])
