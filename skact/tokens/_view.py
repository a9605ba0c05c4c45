"""Indexing along samples, in the forms that scikit-learn uses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from html import escape
from numbers import Integral
from types import ModuleType
from typing import Any, Self, TypeVar, overload

import numpy as np
from sklearn.utils._array_api import get_namespace

from skact.rows import Array

__all__ = ["SampleView", "with_row_labels"]


class SampleView(ABC):
    """Indexing along samples, in the forms that scikit-learn uses."""

    index: Array
    #: The index of the pandas object that the samples came in, which data frames are joined by.
    row_labels: Any

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Number of features of a token."""

    def _view(self, key: Any) -> Self:
        """Show some of the samples shown: those at a slice, at integers or of a mask."""
        # What is stored was checked once; a view can skip the checks.
        view = object.__new__(type(self))
        labels = None if self.row_labels is None else self.row_labels[key]
        view.__dict__.update(self.__dict__, index=self.index[key], row_labels=labels)
        return view

    @property
    @abstractmethod
    def lengths(self) -> Array:
        """Tokens of each sample, int64 of shape (n_samples,)."""

    @abstractmethod
    def _sample(self, i: int) -> Any:
        """Return the tokens of the i-th shown sample."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples and of features; tokens are not counted."""
        return len(self.index), self.n_features

    ndim = 2
    device = "cpu"

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[Any]:
        return (self._sample(i) for i in range(len(self)))

    @overload
    def __getitem__(self, key: int | np.integer) -> Any: ...

    @overload
    def __getitem__(self, key: Any) -> Self: ...

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            # scikit-learn indexes whatever has a shape as array[key, ...].
            rest = [k for k in key[1:] if k is not Ellipsis and k != slice(None)]
            if not key or rest:
                raise IndexError(
                    f"{type(self).__name__} is indexed by samples alone, got the key {key!r}; "
                    "index X[i] or X.flat() to reach tokens and features."
                )
            key = key[0]
        if isinstance(key, int | np.integer) and not isinstance(key, bool | np.bool_):
            if not -len(self) <= key < len(self):
                raise IndexError(f"sample {key} is out of range for {len(self)} samples.")
            return self._sample(int(key) % len(self))
        if isinstance(key, slice):
            return self._view(key)
        return self.take(key)

    def take(
        self, indices: Any, axis: int | None = 0, out: None = None, mode: str = "raise"
    ) -> Self:
        """Take samples by integer positions or by a boolean mask, without copying tokens.

        Parameters
        ----------
        indices : array-like of int or bool
            Positions along samples (negative ones count from the end), or one bool per sample.
        axis : {0}, default=0
            Only samples can be taken.
        out, mode : None, "raise"
            Present because ``numpy.take`` hands them on.

        Returns
        -------
        samples : TokenArray or LayerStack
            A view on the same tokens.

        Raises
        ------
        IndexError
            If a position is out of range, or a mask has another length than the samples.
        """
        plain = isinstance(mode, str) and mode == "raise" and out is None
        if not plain or not (axis is None or (isinstance(axis, Integral) and axis == 0)):
            raise ValueError("only samples (axis=0) can be taken, without out and mode.")
        keys = np.asarray(indices)
        if keys.size == 0:
            keys = keys.astype(np.int64)
        if keys.ndim != 1 or keys.dtype.kind not in "biu":
            raise IndexError(
                "indices of samples must be a 1-D array of integers or bools, got "
                f"{keys.ndim}-D of dtype {keys.dtype}."
            )
        if keys.dtype.kind == "b" and len(keys) != len(self):
            raise IndexError(f"the mask has {len(keys)} entries for {len(self)} samples.")
        return self._view(keys)

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """Say what a person wants to know first, line by line."""

    def _repr_html_(self) -> str:
        lengths = self.lengths
        spread = f"{lengths.min()} to {lengths.max()} each" if len(lengths) else "none"
        facts = {"samples": f"{len(self):,}", "tokens": f"{lengths.sum():,} ({spread})"}
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
            for name, value in {**facts, **self._facts()}.items()
        )
        return f"<table><caption>{type(self).__name__}</caption><tbody>{rows}</tbody></table>"

    def __array_namespace__(self, *, api_version: str | None = None) -> ModuleType:
        # The namespace of the index, whose take calls ours: so folds are cut under
        # array_api_dispatch as well, and mixing with numpy arrays is no conflict.
        return get_namespace(self.index)[0]

    def __array__(self, *args: Any, **kwargs: Any) -> Array:
        raise TypeError(
            f"a {type(self).__name__} is ragged and cannot become one array. Pool it first "
            "(X.max(), X.mean(), X.last() give one row per sample), or take X.flat() for one "
            "row per token."
        )


View = TypeVar("View", bound=SampleView)


def with_row_labels(samples: View, labels: Any) -> View:
    """Say what the rows of a data frame of these samples are called.

    Parameters
    ----------
    samples : TokenArray or LayerStack
        Samples.
    labels : pandas.Index of length n_samples, or None
        Their labels; None where they are unknown.

    Returns
    -------
    samples : TokenArray or LayerStack
        A view.
    """
    view = samples[:]
    view.row_labels = labels
    return view
