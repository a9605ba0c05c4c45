"""Tokens of many samples in one flat array."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import partial
from types import MethodType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn import get_config

from skact.rows import (
    Array,
    Mapped,
    Shards,
    as_floats,
    as_numpy,
    may_hold,
    on_disk,
    pack,
    read,
    read_ahead,
    row_chunks,
    runs,
    unpack,
)
from skact.tokens._source import Source
from skact.tokens._view import SampleView

__all__ = ["TokenArray"]

T = TypeVar("T")

_DTYPES = ("float16", "float32", "float64", "bool")


def _as_values(values: Any) -> Any:
    if isinstance(values, Shards | Mapped):
        return values
    if values.dtype.kind in "iu":
        values = values.astype(np.float32)
    if values.dtype.name not in _DTYPES:
        raise TypeError(f"values must have one of the dtypes {_DTYPES}, got {values.dtype}.")
    return np.ascontiguousarray(values) if not values.flags.c_contiguous else values


def _as_integers(numbers: Any, name: str) -> Array:
    array = np.asarray(numbers)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{name} must be 1-D integers, got {array.ndim}-D of dtype {array.dtype}.")
    return array.astype(np.int64, copy=False)


def _segment_max(tokens: Array, starts: Array, out: Array) -> None:
    """Maximum of each segment, the fastest way for its shape; exact, so all ways agree.

    ``reduceat`` goes through narrow rows one by one; one reduction over segments of equal length
    is three times as fast, and so is one per segment where segments are long.
    """
    size, rest = divmod(len(tokens), len(starts))
    if rest == 0 and np.array_equal(starts, np.arange(0, len(tokens), size)):
        np.maximum.reduce(tokens.reshape(len(starts), size, -1), axis=1, out=out)
    elif size >= 24:
        ends = np.append(starts[1:], len(tokens))
        for row, start, end in zip(out, starts.tolist(), ends.tolist(), strict=True):
            np.maximum.reduce(tokens[start:end], axis=0, out=row)
    else:
        np.maximum.reduceat(tokens, starts, axis=0, out=out)


def _detached(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Bind a method to a copy of its object, whose attributes may be set anew later."""
    if isinstance(function, partial):
        return partial(_detached(function.func), *function.args, **function.keywords)
    if isinstance(function, MethodType):
        return MethodType(function.__func__, copy(function.__self__))
    return function


class TokenArray(SampleView):
    """Tokens of n samples in one flat array, without padding.

    Parameters
    ----------
    values : ndarray, memmap, Shards or Mapped of shape (n_all_tokens, n_features)
        All tokens, sample after sample; float16, float32, float64 or bool. Not copied if it is
        C-contiguous.
    offsets : array-like of shape (n_all_samples + 1,)
        Sample i is ``values[offsets[i]:offsets[i + 1]]``. No sample may be empty.
    index : array-like of shape (n_samples,), default=None
        The stored samples that are shown, in order; None shows all.
    feature_names : sequence of str, default=None
        One name per column.
    source : Source, default=None
        Where the activations come from.

    Attributes
    ----------
    shape : tuple
        ``(n_samples, n_features)``.
    lengths : ndarray of shape (n_samples,)
        Tokens per sample.

    Raises
    ------
    ValueError
        If the offsets do not fit the values, or a sample is empty.
    TypeError
        If the values have a dtype that is not listed above.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray
    >>> X = TokenArray.from_list([np.ones((2, 3)), np.zeros((4, 3))])
    >>> X.shape, X.lengths.tolist()
    ((2, 3), [2, 4])
    >>> X[[1]].max()
    array([[0., 0., 0.]])
    """

    values: Any
    offsets: Array
    feature_names: tuple[str, ...] | None
    source: Source | None

    def __init__(
        self,
        values: Any,
        offsets: Sequence[int] | Array,
        index: Sequence[int] | Array | None = None,
        *,
        feature_names: Sequence[str] | None = None,
        source: Source | None = None,
    ) -> None:
        if getattr(values, "ndim", None) != 2:
            raise ValueError(
                "values must be a 2-D array (n_all_tokens, n_features), got "
                f"{getattr(values, 'shape', type(values).__name__)}."
            )
        self.values = _as_values(values)
        self.offsets = _as_integers(offsets, "offsets")
        if self.offsets.ndim != 1 or len(self.offsets) < 1 or self.offsets[0] != 0:
            raise ValueError("offsets must be 1-D and start with 0.")
        if self.offsets[-1] != len(self.values):
            raise ValueError(
                f"offsets end at {self.offsets[-1]}, but there are {len(self.values)} tokens."
            )
        empty = np.flatnonzero(np.diff(self.offsets) <= 0)
        if len(empty):
            raise ValueError(f"sample {empty[0]} has no tokens; every sample needs at least one.")
        n_stored = len(self.offsets) - 1
        self.index = np.arange(n_stored) if index is None else _as_integers(index, "index")
        if len(self.index) and not (self.index.min() >= 0 and self.index.max() < n_stored):
            raise IndexError(f"index must lie in [0, {n_stored}).")
        self.feature_names = None if feature_names is None else tuple(map(str, feature_names))
        if self.feature_names is not None and len(self.feature_names) != self.values.shape[1]:
            raise ValueError(
                f"feature_names has {len(self.feature_names)} names for "
                f"{self.values.shape[1]} features."
            )
        self.source = source

    @classmethod
    def from_list(
        cls,
        samples: Sequence[Any],
        *,
        feature_names: Sequence[str] | None = None,
        source: Source | None = None,
    ) -> Self:
        """Lay samples one after another; copies the tokens once.

        Parameters
        ----------
        samples : sequence of array-like of shape (n_tokens_i, n_features)
            Arrays or tensors, one per sample.
        feature_names : sequence of str, default=None
            One name per column.
        source : Source, default=None
            Where the activations come from.

        Returns
        -------
        tokens : TokenArray
            The samples.

        Raises
        ------
        ValueError
            If there is no sample, a sample is not 2-D or empty, or widths differ.
        """
        arrays = [as_numpy(sample) for sample in samples]
        if not arrays:
            raise ValueError("X has no samples.")
        for i, array in enumerate(arrays):
            if array.ndim != 2:
                raise ValueError(
                    f"sample {i} must be 2-D (n_tokens, n_features), got shape {array.shape}."
                )
            if array.shape[1] != arrays[0].shape[1]:
                raise ValueError(
                    f"sample {i} has {array.shape[1]} features, sample 0 has {arrays[0].shape[1]}."
                )
        offsets = np.cumsum([0, *map(len, arrays)])
        return cls(np.concatenate(arrays), offsets, feature_names=feature_names, source=source)

    @classmethod
    def concatenate(cls, parts: Sequence[TokenArray]) -> Self:
        """Put the samples of several containers behind one another.

        The tokens are copied, unless all of them are on disk.

        Parameters
        ----------
        parts : sequence of TokenArray
            Containers of equal width.

        Returns
        -------
        tokens : TokenArray
            Names and source are kept where all parts agree.

        Raises
        ------
        ValueError
            If there is nothing to concatenate or widths differ.
        """
        if not parts:
            raise ValueError("there is nothing to concatenate.")
        widths = {part.n_features for part in parts}
        if len(widths) > 1:
            raise ValueError(f"the parts differ in n_features: {sorted(widths)}.")
        first = parts[0]
        index = None
        if all(on_disk(part.values) and part.dtype == first.dtype for part in parts):
            values: Any = Shards([part.values for part in parts])
            lengths = [np.diff(part.offsets) for part in parts]
            starts = np.cumsum([0, *map(len, lengths)])
            index = np.concatenate(
                [part.index + start for part, start in zip(parts, starts[:-1], strict=True)]
            )
        else:
            values = np.concatenate([part.flat() for part in parts])
            lengths = [part.lengths for part in parts]
        return cls(
            values,
            np.cumsum(np.concatenate([[0], *lengths])),
            index,
            feature_names=(
                first.feature_names
                if all(p.feature_names == first.feature_names for p in parts)
                else None
            ),
            source=first.source if all(p.source == first.source for p in parts) else None,
        )

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

    def _view(self, index: Array) -> Self:
        # The stored part was checked once; a view can skip the checks.
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, index=index)
        return view

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
        lengths = self.offsets[index + 1] - self.offsets[index]
        ends = np.cumsum(lengths)
        return np.repeat(self.offsets[index] - ends + lengths, lengths) + np.arange(ends[-1])

    def flat(self) -> Array:
        """Return all tokens as rows of one array.

        Returns
        -------
        tokens : ndarray of shape (n_tokens, n_features)
            A view where the samples shown lie side by side in one array, else a copy. All of it
            is held: tokens that may not fit in memory are read by :meth:`blocks`.
        """
        if not isinstance(self.values, Shards | Mapped):
            return read(self.values, self._rows())
        rows = self._rows()
        if isinstance(self.values, Shards) and isinstance(rows, slice):
            # Where they lie in one file, they are not copied.
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

    def compact(self) -> Self:
        """Copy the samples shown into a container that holds nothing else.

        Returns
        -------
        tokens : TokenArray
            Equal samples over their own memory.
        """
        values = self.flat()
        own = np.array(values) if values.base is not None else np.asarray(values)
        return self.with_values(own, self.feature_names, self.source)

    def to_list(self) -> list[Array]:
        """Return one array (n_tokens_i, n_features) per sample, without copying.

        Returns
        -------
        samples : list of ndarray
            Views on the tokens.
        """
        return list(self)

    def with_values(
        self,
        values: Any,
        feature_names: Sequence[str] | None = None,
        source: Source | None = None,
    ) -> Self:
        """Give the same samples other columns.

        Parameters
        ----------
        values : ndarray, memmap, Shards or Mapped of shape (n_tokens, n_new_features)
            One row per token shown.
        feature_names : sequence of str, default=None
            One name per new column.
        source : Source, default=None
            Where the new values come from.

        Returns
        -------
        tokens : TokenArray
            The new values, cut into samples of the same lengths.
        """
        offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        return type(self)(values, offsets, feature_names=feature_names, source=source)

    def over(
        self,
        values: Any,
        feature_names: Sequence[str] | None = None,
        source: Source | None = None,
    ) -> Self:
        """Show the same samples in other values of the stored tokens.

        Parameters
        ----------
        values : ndarray, memmap, Shards or Mapped of shape (n_all_tokens, n_new_features)
            One row per stored token.
        feature_names : sequence of str, default=None
            One name per new column.
        source : Source, default=None
            Where the new values come from.

        Returns
        -------
        tokens : TokenArray
            The samples shown, in the new values.
        """
        return type(self)(
            values, self.offsets, self.index, feature_names=feature_names, source=source
        )

    def map(
        self,
        function: Callable[[Array], Array],
        *,
        feature_names: Sequence[str] | None = None,
        source: Source | None = None,
    ) -> Self:
        """Apply a function to tokens, block by block.

        Where the tokens are on disk and the result takes more than half of scikit-learn's
        ``working_memory``, nothing is computed yet: the result is a view whose tokens go through
        the function whenever they are read.

        Parameters
        ----------
        function : callable
            Takes (n_tokens, n_features), returns (n_tokens, n_new_features), row by row. It is
            kept where nothing is computed yet. A method, alone or in a ``partial``, is then bound
            to a copy of its object, so that fitting that again changes nothing; what is to reach
            other processes must be one that can be pickled.
        feature_names : sequence of str, default=None
            One name per new column.
        source : Source, default=None
            Where the result comes from.

        Returns
        -------
        tokens : TokenArray
            The same samples with the new columns. Only the result is held in whole.
        """
        if on_disk(self.values) and len(self):
            computed = self.over(Mapped(self.values, _detached(function)), feature_names, source)
            if not may_hold(self.n_tokens * computed.n_features * computed.dtype.itemsize):
                return computed
            return self.with_values(computed.flat(), feature_names, source)
        out: Array | None = None
        for rows, tokens in self.row_blocks():
            part = function(tokens)
            if len(part) != len(tokens):
                raise ValueError(f"the function made {len(part)} rows of {len(tokens)} tokens.")
            if len(part) == self.n_tokens:
                out = part
                break
            if out is None:
                out = np.empty((self.n_tokens, part.shape[1]), part.dtype)
            out[rows] = part
        if out is None:
            raise ValueError("X has no samples.")
        return self.with_values(out, feature_names, source)

    def columns(self, columns: Sequence[int] | Array) -> Self:
        """Keep some columns, in the order given; copies them.

        Parameters
        ----------
        columns : array-like of int or bool
            Column numbers, where one may be taken several times, or one bool per column.

        Returns
        -------
        tokens : TokenArray
            The same samples with these columns.
        """
        columns = np.arange(self.n_features)[np.asarray(columns)]
        names = self.feature_names and [self.feature_names[c] for c in columns]
        return self.map(
            partial(np.take, indices=columns, axis=1), feature_names=names, source=self.source
        )

    def _reduce(self, ufunc: np.ufunc, dtype: npt.DTypeLike) -> Array:
        out = np.empty(self.shape, dtype)
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        for samples, tokens in self.blocks():
            cuts = starts[samples] - starts[samples.start]
            if ufunc is np.maximum and tokens.dtype.kind == "f":
                _segment_max(tokens, cuts, out[samples])
            else:
                ufunc.reduceat(tokens, cuts, axis=0, dtype=dtype, out=out[samples])
        return out

    def max(self) -> Array:
        """Maximum over the tokens of each sample; "any" for bool.

        Returns
        -------
        pooled : ndarray of shape (n_samples, n_features)
            Of the dtype of the values.
        """
        return self._reduce(np.maximum, self.dtype)

    def sum(self) -> Array:
        """Sum over the tokens of each sample; a count for bool.

        Returns
        -------
        pooled : ndarray of shape (n_samples, n_features)
            Sums in float64, or counts in int64 for bool.
        """
        return self._reduce(np.add, np.int64 if self.dtype.kind == "b" else np.float64)

    def mean(self) -> Array:
        """Mean over the tokens of each sample; a share for bool.

        Returns
        -------
        pooled : ndarray of shape (n_samples, n_features), dtype float64
            The means.
        """
        return self.sum() / self.lengths[:, None]

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
            If a position is not within its sample.
        """
        positions = np.asarray(positions)
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
            If a number is out of range.
        """
        numbers, ends = np.asarray(numbers), np.cumsum(self.lengths)
        if np.any((numbers < 0) | (numbers >= self.n_tokens)):
            raise IndexError(f"numbers must lie in [0, {self.n_tokens}).")
        sample = np.searchsorted(ends, numbers, side="right")
        stored = self.index[sample]
        # From its end, a token is as far in the stored sample as among those shown.
        return read(self.values, self.offsets[stored + 1] - ends[sample] + numbers)

    def with_source(self, source: Source | None) -> Self:
        """Show the same tokens under another source.

        Parameters
        ----------
        source : Source or None
            The new source.

        Returns
        -------
        tokens : TokenArray
            A view.
        """
        return self.over(self.values, self.feature_names, source)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "values": pack(self.values)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, values=unpack(state["values"]))

    def __repr__(self) -> str:
        source = f", source: {self.source}" if self.source else ""
        return (
            f"TokenArray({len(self)} samples, {self.n_tokens} tokens, "
            f"{self.n_features} features, {self.dtype}{source})"
        )
