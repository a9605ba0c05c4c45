"""The highest scores of samples, sorted once for all concepts that they are judged for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skact.rows import Array, as_floats, most_held, offsets_of, positions_of, runs
from skact.tokens import TokenArray

__all__ = ["SortedTops", "top_sizes"]

# Scores that are sorted at a time.
_ENTRIES = 2**20


def top_sizes(lengths: Array, share: float) -> Array:
    r"""Count the :math:`\lceil \rho\, n \rceil` tokens of each sample, one at least.

    Parameters
    ----------
    lengths : ndarray of shape (n_samples,)
        Tokens of each sample.
    share : float
        :math:`\rho` in [0, 1].

    Returns
    -------
    sizes : ndarray of shape (n_samples,), dtype int64
        How many there are.
    """
    # A share that is an exact number of tokens must not be rounded up by its last bit.
    return np.maximum(np.ceil(share * lengths - 1e-9).astype(np.int64), 1)


class SortedTops:
    """The highest scores of each sample, for some columns.

    Parameters
    ----------
    tops : ndarray of shape (n_columns, n_tops)
        Scores, sample after sample, in each of which they descend.
    sizes : ndarray of shape (n_samples,)
        How many each sample has.
    """

    def __init__(self, tops: Array, sizes: Array) -> None:
        self._sizes, self._ranks = sizes, positions_of(sizes)
        # Which of equal scores comes first does not count: no cut comes between them.
        self._order = np.argsort(-tops, axis=1)
        self._scores = np.take_along_axis(tops, self._order, axis=1)

    @classmethod
    def each(
        cls, scores: TokenArray, columns: Array, sizes: Array, n_most: int | None = None
    ) -> Iterator[tuple[slice, SortedTops]]:
        """Read and sort the highest scores, for as many columns as may be held.

        Parameters
        ----------
        scores : TokenArray of shape (n_samples, n_features)
            Scores, in memory or on disk.
        columns : ndarray of shape (n_columns,), dtype int64
            Columns that are read.
        sizes : ndarray of shape (n_samples,)
            How many of each sample are taken.
        n_most : int, default=None
            Most columns at a time; None bounds only what is held.

        Yields
        ------
        some : slice
            Which of the columns these are.
        tops : SortedTops
            Their scores.
        """
        n_tops = int(sizes.sum())
        for run in runs(np.full(len(columns), 4 * n_tops), most_held() / 4):
            held = _read(scores, columns[run], sizes)
            for some in runs(np.full(len(held), n_tops), _ENTRIES, n_most):
                yield slice(run.start + some.start, run.start + some.stop), cls(held[some], sizes)

    def among(
        self, sizes: Array, present: Array, weight: Array | None = None
    ) -> tuple[Array, Array, Array | None]:
        """Give the scores of fewer tokens, in descending order, and which are positive.

        Parameters
        ----------
        sizes : ndarray of shape (n_samples,)
            How many of each sample are taken, at most as many as there are.
        present : ndarray of shape (n_samples,), dtype bool
            Samples whose tokens are positive.
        weight : ndarray of shape (n_samples,), default=None
            How often each sample counts; None once.

        Returns
        -------
        scores : ndarray of shape (n_taken, n_columns)
            They descend.
        positive : ndarray of shape (n_taken, n_columns), dtype bool
            Truth of each.
        weight : ndarray of shape (n_taken, n_columns), or None
            How often each counts.
        """
        taken = self._ranks < np.repeat(sizes, self._sizes)
        scores, order = self._scores, self._order
        if not taken.all():
            kept = taken[order]
            scores, order = (a[kept].reshape(len(a), -1) for a in (scores, order))
        weights = None if weight is None else np.repeat(weight, self._sizes)[order].T
        return scores.T, np.repeat(present, self._sizes)[order].T, weights


def _read(scores: TokenArray, columns: Array, sizes: Array) -> Array:
    """Highest scores (n_columns, n_tops) of each sample, in descending order."""

    def highest(samples: slice, tokens: Array) -> Array:
        values = as_floats(tokens[:, columns])
        return _descending(values, scores.lengths[samples], sizes[samples])

    out = np.empty((len(columns), int(sizes.sum())), np.result_type(scores.dtype, np.float32))
    start = 0
    for block in scores.each_block(highest):
        out[:, start : start + block.shape[1]] = block
        start += block.shape[1]
    return out


def _descending(values: Array, lengths: Array, sizes: Array) -> Array:
    """Sort the values (n_tokens, n_columns) of each sample, and keep its head.

    Samples of equal length have heads of equal size.
    """
    starts, places = offsets_of(lengths), offsets_of(sizes)
    out = np.empty((values.shape[1], places[-1]), values.dtype)
    for length in np.unique(lengths):
        same = np.flatnonzero(lengths == length)
        head = np.arange(sizes[same[0]])
        rows = starts[same, None] + np.arange(length)
        ordered = np.sort(-values[rows], axis=1)[:, head]
        out[:, (places[same, None] + head).ravel()] = -ordered.reshape(-1, values.shape[1]).T
    return out
