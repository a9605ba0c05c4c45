"""Indexing along samples, in the forms that scikit-learn uses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from numbers import Integral
from types import ModuleType
from typing import Any, Self

import numpy as np
from sklearn.utils._array_api import get_namespace

from skact.rows import Array

__all__ = ["SampleView"]


class SampleView(ABC):
    """Indexing along samples, in the forms that scikit-learn uses."""

    index: Array

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Number of features of a token."""

    @abstractmethod
    def _view(self, index: Array) -> Self:
        """Show the stored samples ``index``."""

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
            return self._view(self.index[key])
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
        return self._view(self.index[keys])

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
