"""Rows and columns of samples whose tokens are a grid, row by row, as the patches of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skact.rows import Array

__all__ = ["check_shapes", "join_shapes", "same_shapes"]


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
    """Tell whether samples have the same rows and columns, or have none alike."""
    if shapes is None or others is None:
        return shapes is others
    return np.array_equal(shapes, others)
