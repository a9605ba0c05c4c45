"""Reading tokens of many samples: whole, in pieces, by number, or pooled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import numpy as np
from sklearn import get_config

from skact.rows import (
    Array,
    Mapped,
    Shards,
    as_floats,
    may_hold,
    offsets_of,
    positions_of,
    read,
    read_ahead,
    row_chunks,
    rows_of,
    runs,
    segment_at,
    segment_max,
    segment_sum,
)
from skact.tokens._view import SampleView

__all__ = ["TokenReader"]

T = TypeVar("T")


class TokenReader(SampleView):
    """Tokens of samples that lie in one flat array, and the ways to read them.

    Attributes
    ----------
    values : ndarray, memmap, Shards or Mapped of shape (n_all_tokens, n_features)
        Stored tokens, sample after sample.
    offsets : ndarray of shape (n_all_samples + 1,), dtype int64
        Stored sample i is ``values[offsets[i]:offsets[i + 1]]``.
    index : ndarray of shape (n_samples,), dtype int64
        The stored samples that are shown, in order.
    """

    values: Any
    offsets: Array

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return int(self.values.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the values."""
        dtype: np.dtype[Any] = self.values.dtype
        return dtype

    @property
    def lengths(self) -> Array:
        """Tokens of each sample, int64 of shape (n_samples,)."""
        return self.offsets[self.index + 1] - self.offsets[self.index]

    @property
    def n_tokens(self) -> int:
        """Tokens of all samples shown."""
        return int(self.lengths.sum())

    @property
    def starts(self) -> Array:
        """Row of ``flat()`` at which each sample begins, int64 of shape (n_samples,)."""
        return offsets_of(self.lengths)[:-1]

    @property
    def may_be_held(self) -> bool:
        """Whether all tokens may be held in float32, see :func:`skact.rows.may_hold`."""
        return may_hold(4 * self.n_tokens * self.n_features)

    def positions(self) -> Array:
        """Position of each token within its sample.

        Returns
        -------
        positions : ndarray of shape (n_tokens,), dtype int64
            From 0, one per row of ``flat()``.
        """
        return positions_of(self.lengths)

    def _sample(self, i: int) -> Array:
        stored = self.index[i]
        tokens: Array = self.values[self.offsets[stored] : self.offsets[stored + 1]]
        return tokens

    def _rows(self, samples: slice = slice(None)) -> slice | Array:
        """Rows of ``values`` that hold the tokens of some samples; a slice if they are adjacent."""
        index = self.index[samples]
        if len(index) == 0:
            return slice(0, 0)
        if np.all(np.diff(index) == 1):
            return slice(int(self.offsets[index[0]]), int(self.offsets[index[-1] + 1]))
        return rows_of(self.offsets, index)

    def flat(self) -> Array:
        """Return all tokens as rows of one array.

        Returns
        -------
        tokens : ndarray of shape (n_tokens, n_features)
            A view where the samples shown lie side by side in one array, else a copy. All of it
            is held: tokens that may not fit in memory are read by :meth:`blocks`.
        """
        rows = self._rows()
        # What lies in one file need not be copied.
        if not isinstance(self.values, Mapped) and (
            isinstance(rows, slice) or not isinstance(self.values, Shards)
        ):
            return read(self.values, rows)
        out = np.empty((self.n_tokens, self.n_features), self.dtype)
        for rows, tokens in self.row_blocks():
            out[rows] = tokens
        return out

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Go through the tokens in pieces of whole samples.

        A piece takes about a 64th of scikit-learn's ``working_memory`` in float32, so that what
        is computed from it stays in the cache, and at least one sample. Where the tokens lie does
        not change the pieces. Pages of a mapped file are let go of with the piece.

        Yields
        ------
        samples : slice
            The samples of the piece.
        tokens : ndarray of shape (n_tokens_of_piece, n_features)
            Their tokens.
        """
        yield from self.each_block(lambda samples, tokens: (samples, tokens))

    def each_block(self, function: Callable[[slice, Array], T]) -> Iterator[T]:
        """Compute something from each piece of :meth:`blocks`, in the threads that read them.

        What is in memory need not be read, and is computed from without threads.

        Parameters
        ----------
        function : callable
            Takes the samples of a piece and their tokens, which it must not change.

        Yields
        ------
        result : object
            What the function returns for the next piece.
        """
        if not callable(function):
            raise TypeError(f"function must be callable, got {function!r}.")
        lengths = self.lengths
        budget = get_config()["working_memory"] * 2**14 / (4 * max(self.n_features, 1))
        pieces = runs(lengths, budget)
        yield from read_ahead(
            self.values,
            [int(lengths[piece].sum()) for piece in pieces],
            lambda number: self._rows(pieces[number]),
            lambda number, tokens: function(pieces[number], tokens),
        )

    def row_blocks(self) -> Iterator[tuple[slice, Array]]:
        """Go through the pieces of :meth:`blocks` with their rows.

        Yields
        ------
        rows : slice
            The rows of ``flat()`` that the piece holds.
        tokens : ndarray of shape (n_tokens_of_piece, n_features)
            Their tokens.
        """
        stop = 0
        for _, tokens in self.blocks():
            start, stop = stop, stop + len(tokens)
            yield slice(start, stop), tokens

    def float_chunks(self) -> Iterator[Array]:
        """Go through the tokens in pieces that stay in the cache while something is computed.

        Yields
        ------
        tokens : ndarray of shape (n_tokens_of_piece, n_features), dtype float32 or float64
            A piece, in a precision that linear algebra computes in.
        """
        for _, block in self.blocks():
            for chunk in row_chunks(block):
                yield as_floats(chunk)

    def to_list(self) -> list[Array]:
        """Return one array (n_tokens_i, n_features) per sample, without copying.

        Returns
        -------
        samples : list of ndarray
            Views on the tokens.
        """
        return list(self)

    def _pooled(self, reduce: Callable[..., Array], out: Array) -> Array:
        offsets = offsets_of(self.lengths)
        for samples, tokens in self.blocks():
            cuts = offsets[samples.start : samples.stop + 1] - offsets[samples.start]
            reduce(tokens, cuts, out=out[samples])
        return out

    def max(self) -> Array:
        """Maximum over the tokens of each sample; "any" for bool.

        Returns
        -------
        pooled : ndarray of shape (n_samples, n_features)
            Of the dtype of the values.
        """
        return self._pooled(segment_max, np.empty(self.shape, self.dtype))

    def sum(self) -> Array:
        """Sum over the tokens of each sample; a count for bool.

        Returns
        -------
        pooled : ndarray of shape (n_samples, n_features)
            Sums in float64, or counts in int64 for bool.
        """
        dtype = np.int64 if self.dtype.kind == "b" else np.float64
        return self._pooled(partial(segment_sum, dtype=dtype), np.empty(self.shape, dtype))

    def mean(self) -> Array:
        """Mean over the tokens of each sample; a share for bool.

        Returns
        -------
        pooled : ndarray of shape (n_samples, n_features), dtype float64
            The means.
        """
        means = self.sum().astype(np.float64, copy=False)
        means /= self.lengths[:, None]
        return means

    def last(self) -> Array:
        """Last token of each sample.

        Returns
        -------
        pooled : ndarray of shape (n_samples, n_features)
            Of the dtype of the values.
        """
        return self.tokens_at(self.lengths - 1)

    def tokens_at(self, positions: Array) -> Array:
        """One token of each sample.

        Parameters
        ----------
        positions : ndarray of shape (n_samples,), int
            Position of the token within its sample.

        Returns
        -------
        tokens : ndarray of shape (n_samples, n_features)
            The tokens, copied.

        Raises
        ------
        IndexError
            If there is not one position per sample, or one is not within its sample.
        """
        positions = np.asarray(positions)
        if positions.shape != (len(self),) or positions.dtype.kind not in "iu":
            raise IndexError(
                f"positions must be {len(self)} integers, one per sample; got shape "
                f"{positions.shape} of dtype {positions.dtype}."
            )
        if np.any((positions < 0) | (positions >= self.lengths)):
            raise IndexError("positions must lie within their samples.")
        return read(self.values, self.offsets[self.index] + positions)

    def rows(self, numbers: Array) -> Array:
        """Read tokens by their number, counted through all samples shown.

        Parameters
        ----------
        numbers : ndarray of shape (n_rows,), int
            Rows of ``flat()``, from 0; ascending ones are read forwards.

        Returns
        -------
        tokens : ndarray of shape (n_rows, n_features)
            The tokens, copied.

        Raises
        ------
        IndexError
            If a number is out of range or no integer.
        """
        numbers, offsets = np.asarray(numbers), offsets_of(self.lengths)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise IndexError(
                f"numbers must be 1-D integers, got {numbers.ndim}-D of dtype {numbers.dtype}."
            )
        if np.any((numbers < 0) | (numbers >= offsets[-1])):
            raise IndexError(f"numbers must lie in [0, {offsets[-1]}).")
        sample = segment_at(offsets, numbers)
        return read(self.values, self.offsets[self.index[sample]] + numbers - offsets[sample])
