"""Tokens of many samples in one flat array."""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from types import MethodType
from typing import Any, Self

import numpy as np

from skact.arguments import SEQUENCE, check_characters, checked, is_name
from skact.rows import Array, FileRows, Mapped, Shards, as_numpy, may_hold, offsets_of, on_disk
from skact.tokens._reading import TokenReader
from skact.tokens._shapes import check_segments, check_shapes, join_segments, join_shapes
from skact.tokens._source import Source, common

__all__ = ["TokenArray"]

_MOST_NAMES = 10  # that a person is shown
_DTYPES = ("float16", "float32", "float64", "bool")


def _as_values(values: Any) -> Any:
    if isinstance(values, Shards | Mapped):
        return values
    if values.dtype.kind in "iu":
        values = values.astype(np.float32)
    if values.dtype.name not in _DTYPES:
        raise TypeError(f"values must have one of the dtypes {_DTYPES}, got {values.dtype}.")
    rows = FileRows.of(values) if values.flags.c_contiguous else np.ascontiguousarray(values)
    foreign = type(rows) is np.ndarray and not rows.dtype.isnative
    return rows.astype(rows.dtype.newbyteorder("=")) if foreign else rows


def _as_integers(numbers: Any, name: str) -> Array:
    array = np.asarray(numbers)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{name} must be 1-D integers, got {array.ndim}-D of dtype {array.dtype}.")
    if array.size and (largest := int(array.max())) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must hold 64-bit integers with a sign, got {largest}.")
    return array.astype(np.int64, copy=False)


def _as_names(names: Iterable[Any]) -> tuple[str, ...]:
    listed = list(names)
    for c, name in enumerate(listed):
        if not is_name(name):
            raise TypeError(f"feature_names[{c}] must be a name, got {name!r}.")
        check_characters(name, f"feature_names[{c}]")
    return tuple(map(str, listed))


def _detached(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Bind a method to a copy of its object, whose attributes may be set anew later."""
    if isinstance(function, partial):
        return partial(_detached(function.func), *function.args, **function.keywords)
    if isinstance(function, MethodType):
        return MethodType(function.__func__, copy(function.__self__))
    return function


class TokenArray(TokenReader):
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
    shapes : array-like of int of shape (n_all_samples, 2), default=None
        Rows and columns of each stored sample whose tokens are a grid, row by row, as the patches
        of an image are. None means runs of tokens.
    segments : array-like of int of shape (n_all_tokens,), default=None
        Where context was left out inside of samples, as between the turns of a chat: neighbours of
        one sample with unequal numbers are not adjacent. None means that every sample is one run.

    Attributes
    ----------
    shape : tuple
        ``(n_samples, n_features)``.
    lengths : ndarray of shape (n_samples,)
        Tokens per sample.
    shapes : ndarray of shape (n_samples, 2), dtype int64, or None
        Rows and columns of each sample shown.
    segments : ndarray of shape (n_tokens,), dtype int32, or None
        Run of adjacent tokens that each row of ``flat()`` lies in, from 0 in each sample; None
        where no sample shown has a gap.
    row_labels : pandas.Index or None
        The index of the Series or data frame that the samples came in, which follows them into the
        data frames that ``set_output`` asks for.

    Raises
    ------
    ValueError
        If the offsets do not fit the values, a sample is empty, its shape does not fit its tokens,
        or there is not one segment per token.
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
        shapes: Any = None,
        segments: Any = None,
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
        if isinstance(feature_names, str | bytes) or not isinstance(feature_names, Iterable | None):
            raise TypeError(f"feature_names must be a list of names, got {feature_names!r}.")
        self.feature_names = None if feature_names is None else _as_names(feature_names)
        if self.feature_names is not None and len(self.feature_names) != self.values.shape[1]:
            raise ValueError(
                f"feature_names has {len(self.feature_names)} names for "
                f"{self.values.shape[1]} features."
            )
        if not isinstance(source, Source | None):
            raise TypeError(f"source must be a Source(...) or None, got {source!r}.")
        self.source = source
        self._shapes = None if shapes is None else check_shapes(shapes, np.diff(self.offsets))
        self._segments = None if segments is None else check_segments(segments, self.offsets)
        if self._shapes is not None and self._segments is not None:
            raise ValueError("samples have shapes or segments: a grid has no gaps.")
        self.row_labels = None

    @property
    def shapes(self) -> Array | None:
        """Rows and columns of each sample, int64 of shape (n_samples, 2); None for runs."""
        return None if self._shapes is None else self._shapes[self.index]

    @property
    def segments(self) -> Array | None:
        """Run of adjacent tokens that each token lies in, int32 of shape (n_tokens,), or None."""
        shown = None if self._segments is None else self._segments[self._rows()]
        return shown if shown is not None and shown.any() else None

    @classmethod
    @checked(samples=["array-like"])
    def from_list(
        cls,
        samples: Sequence[Any],
        *,
        feature_names: Sequence[str] | None = None,
        source: Source | None = None,
        shapes: Any = None,
        segments: Any = None,
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
        shapes : array-like of int of shape (n_samples, 2), default=None
            Rows and columns of each sample, if they are grids.
        segments : array-like of int of shape (n_tokens,), default=None
            Runs of adjacent tokens, if samples have gaps.

        Returns
        -------
        tokens : TokenArray
            The samples.

        Raises
        ------
        ValueError
            If there is no sample, a sample is not 2-D or empty, widths differ, or a shape does not
            fit its sample.
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
        offsets = offsets_of([len(array) for array in arrays])
        return cls(
            np.concatenate(arrays),
            offsets,
            feature_names=feature_names,
            source=source,
            shapes=shapes,
            segments=segments,
        )

    @classmethod
    @checked(parts=[SEQUENCE])
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
            Names and each field of the source are kept where all parts agree, shapes where all
            parts have them, and segments where one has them.

        Raises
        ------
        ValueError
            If there is nothing to concatenate or widths differ.
        """
        if not parts:
            raise ValueError("parts is empty: there is nothing to concatenate.")
        for part in parts:
            if not isinstance(part, TokenArray):
                raise TypeError(f"parts must hold TokenArrays, got {type(part).__name__}.")
        widths = {part.n_features for part in parts}
        if len(widths) > 1:
            raise ValueError(f"the parts differ in n_features: {sorted(widths)}.")
        first = parts[0]
        index = None
        if all(on_disk(part.values) and part.dtype == first.dtype for part in parts):
            values: Any = Shards([part.values for part in parts])
            lengths = [np.diff(part.offsets) for part in parts]
            shapes = [part._shapes for part in parts]
            segments = [(part._segments, len(part.values)) for part in parts]
            starts = offsets_of([len(stored) for stored in lengths])[:-1]
            index = np.concatenate(
                [part.index + start for part, start in zip(parts, starts, strict=True)]
            )
        else:
            values = np.concatenate([part.flat() for part in parts])
            lengths = [part.lengths for part in parts]
            shapes = [part.shapes for part in parts]
            segments = [(part.segments, part.n_tokens) for part in parts]
        joined = cls(
            values,
            offsets_of(np.concatenate(lengths)),
            index,
            feature_names=(
                first.feature_names
                if all(p.feature_names == first.feature_names for p in parts)
                else None
            ),
            source=common(part.source for part in parts),
            shapes=join_shapes(shapes),
            segments=join_segments(segments),
        )
        labels = [part.row_labels for part in parts]
        if all(known is not None for known in labels):
            joined.row_labels = labels[0].append(labels[1:])
        return joined

    def __getstate__(self) -> dict[str, Any]:
        # Rows in memory that are not shown stay behind; rows in files travel as names of files.
        shows_all = np.array_equal(self.index, np.arange(len(self.offsets) - 1))
        if shows_all or on_disk(self.values) or self.n_tokens > len(self.values):
            return self.__dict__
        return self.compact().__dict__

    def compact(self) -> Self:
        """Copy the samples shown into a container that holds nothing else.

        Returns
        -------
        tokens : TokenArray
            Equal samples over their own memory.
        """
        values = self.flat()
        copied = np.array(values) if values.base is not None else np.asarray(values)
        return self.with_values(copied, self.feature_names, self.source)

    def with_values(
        self,
        values: Any,
        feature_names: Sequence[str] | None = None,
        source: Source | None = None,
    ) -> Self:
        """Give the tokens shown other columns: one row per token of the samples shown.

        Parameters
        ----------
        values : ndarray, memmap, Shards or Mapped of shape (n_tokens, n_new_features)
            As the rows of ``flat()``.
        feature_names : sequence of str, default=None
            One name per new column.
        source : Source, default=None
            Where the new values come from.

        Returns
        -------
        tokens : TokenArray
            The new values, cut into samples of the same lengths, shapes and segments; nothing else
            is stored.
        """
        renewed = type(self)(
            values,
            offsets_of(self.lengths),
            feature_names=feature_names,
            source=source,
            shapes=self.shapes,
            segments=self.segments,
        )
        renewed.row_labels = self.row_labels
        return renewed

    def with_stored_values(
        self,
        values: Any,
        feature_names: Sequence[str] | None = None,
        source: Source | None = None,
    ) -> Self:
        """Give all stored tokens other columns, and show the same samples of them.

        Parameters
        ----------
        values : ndarray, memmap, Shards or Mapped of shape (n_all_tokens, n_new_features)
            As the rows of ``values``: one per stored token, shown or not.
        feature_names : sequence of str, default=None
            One name per new column.
        source : Source, default=None
            Where the new values come from.

        Returns
        -------
        tokens : TokenArray
            The samples shown, with their index, shapes and segments, in the new values.
        """
        renewed = type(self)(
            values,
            self.offsets,
            self.index,
            feature_names=feature_names,
            source=source,
            shapes=self._shapes,
            segments=self._segments,
        )
        renewed.row_labels = self.row_labels
        return renewed

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
        if not callable(function):
            raise TypeError(f"function must be callable, got {function!r}.")
        if on_disk(self.values) and len(self):
            lazy = Mapped(self.values, _detached(function))
            computed = self.with_stored_values(lazy, feature_names, source)
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

        Raises
        ------
        IndexError
            If they are no columns of these tokens.
        """
        chosen = np.asarray(columns)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iub":
            raise IndexError(
                f"columns must be 1-D integers or bools, got {chosen.ndim}-D of dtype "
                f"{chosen.dtype}."
            )
        columns = np.arange(self.n_features)[chosen]
        names = self.feature_names and [self.feature_names[c] for c in columns]
        return self.map(
            partial(np.take, indices=columns, axis=1), feature_names=names, source=self.source
        )

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
        return self.with_stored_values(self.values, self.feature_names, source)

    def _facts(self) -> dict[str, Any]:
        names = self.feature_names
        facts = {"features": f"{self.n_features:,}, {self.dtype}"}
        if names is not None:
            facts["names"] = ", ".join(names[:_MOST_NAMES]) + (", ..." * (len(names) > _MOST_NAMES))
        return facts if self.source is None else {**facts, "source": str(self.source)}

    def __repr__(self) -> str:
        source = f", source: {self.source}" if self.source else ""
        return (
            f"TokenArray({len(self)} samples, {self.n_tokens} tokens, "
            f"{self.n_features} features, {self.dtype}{source})"
        )


def _with_all_rows(tokens: TokenArray) -> tuple[Any, ...]:
    return copyreg.__newobj__, (type(tokens),), tokens.__dict__  # type: ignore[attr-defined]


# Processes of joblib map the rows of all tasks from one file: a copy for each would be slower.
with suppress(ImportError):
    from joblib.externals.loky.backend.reduction import register

    register(TokenArray, _with_all_rows)
