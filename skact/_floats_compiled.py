"""Conversions of numbers in loops that numba compiles: each is read once and written once.

They give what numpy gives, bit for bit, and leave the interpreter to other threads meanwhile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["scaled", "widened"]

Array = npt.NDArray[Any]


def widened(values: Array) -> Array | None:
    """Convert float16 to float32, as :func:`skact.floats.finite_floats` does.

    Parameters
    ----------
    values : ndarray, dtype float16
        C-contiguous.

    Returns
    -------
    values : ndarray, dtype float32, or None
        None where an entry is NaN or infinite.
    """
    out = np.empty(values.shape, np.float32)
    rows = (-1, values.shape[-1]) if values.size else (0, 1)
    made = out.reshape(rows)
    finite = _widen(values.view(np.int16).reshape(rows), made.view(np.int32), made)
    return out if finite else None


def scaled(values: Array, shift: Array, scale: float) -> Array:
    """Subtract a row from each row, and divide by a scalar.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_features), dtype float32 or float64
        Rows.
    shift : ndarray of shape (n_features,), of the same dtype
        What is subtracted.
    scale : float
        What is divided by.

    Returns
    -------
    values : ndarray of shape (n_rows, n_features), of the same dtype
        New memory.
    """
    out = np.empty_like(values)
    _scale(values, shift, values.dtype.type(scale), out)
    return out


def widen(given: Array, bits: Array, made: Array) -> bool:
    """Fill in float32 numbers, seen also as their bits, from the bits of float16 ones."""
    exponent = np.int32(0)
    for i in range(given.shape[0]):
        for j in range(given.shape[1]):
            half = np.int32(given[i, j])
            exponent = max(exponent, half & np.int32(0x7C00))
            # See skact.floats for what becomes of the bits.
            bits[i, j] = (half << np.int32(13)) & np.int32(-0x70002000)
        for j in range(given.shape[1]):
            made[i, j] *= np.float32(2.0**112)
    return bool(exponent < 0x7C00)


def scale(given: Array, shift: Array, scalar: Any, made: Array) -> None:
    """Fill in the numbers that are shifted and divided."""
    for i in range(given.shape[0]):
        for j in range(given.shape[1]):
            made[i, j] = (given[i, j] - shift[j]) / scalar


_compiler = njit(nogil=True, error_model="numpy")
_widen, _scale = _compiler(widen), _compiler(scale)
