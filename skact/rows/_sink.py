"""Where the rows go that a model puts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from skact.rows._ragged import offsets_of
from skact.rows._types import Array

__all__ = ["Arrays", "Sink"]


class Sink(Protocol):
    """Where rows go.

    ``dtype`` is float32, float16, or uint16 for the bits of bfloat16. ``room`` gives, for the
    samples whose rows come next, arrays by block, and the row in which each sample begins; ``keep``
    says that they are filled. Room that is not kept is given again.
    """

    dtype: np.dtype[Any]

    def room(self, samples: Array) -> tuple[Mapping[int, Array], Array]: ...

    def keep(self, samples: Array) -> None: ...


class Arrays:
    """Memory for the rows of all samples, in their order.

    Parameters
    ----------
    blocks : sequence of int
        The transformer blocks.
    lengths : ndarray of shape (n_samples,)
        Rows of each sample.
    n_features : int
        Numbers in a row.
    dtype : dtype
        float32, float16, or uint16 for the bits of bfloat16.

    Attributes
    ----------
    values : dict of int to ndarray of shape (n_rows, n_features)
        By block.
    """

    def __init__(
        self, blocks: Sequence[int], lengths: Array, n_features: int, dtype: np.dtype[Any]
    ) -> None:
        offsets = offsets_of(lengths)
        self.dtype = dtype
        self.values = {block: np.empty((offsets[-1], n_features), dtype) for block in blocks}
        self.starts = offsets[:-1]

    def room(self, samples: Array) -> tuple[dict[int, Array], Array]:
        """Give the arrays, and where in them some samples begin."""
        return self.values, self.starts[samples]

    def keep(self, samples: Array) -> None:
        """Do nothing: every sample has its own place."""
