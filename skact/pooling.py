r"""Pools: from the scores of tokens to one score per sample, and how much each token counts.

A pool takes the scores (n_tokens, n_columns) of samples that lie one after the other, and where
each begins. One that is differentiated gives the values :math:`A(x)`, (n_samples, n_columns), with
the weights :math:`q_i = \partial A / \partial s_i`, (n_tokens, n_columns), which sum to 1 over the
tokens of a sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np

from skact.rows import (
    Array,
    offsets_of,
    positions_of,
    segment_max,
    segment_sum,
)
from skact.tokens import TokenArray

__all__ = [
    "RunningLast",
    "RunningMax",
    "RunningMean",
    "RunningPool",
    "RunningWindows",
    "check_top_and_share",
    "block_layout",
    "check_window",
    "longest_window",
    "pool_windows",
    "soft_maximum",
    "top_windows",
    "weighted_top_windows",
    "window_means",
]


def soft_maximum(scores: Array, offsets: Array, sharpness: float) -> tuple[Array, Array]:
    r"""Pool the scores of each sample between their mean and their maximum.

    .. math:: A(x) = \frac1r \log \frac1n \sum_{i=1}^n e^{r s_i}, \qquad
              \frac{\partial A}{\partial s_i} = \frac{e^{r s_i}}{\sum_j e^{r s_j}}

    Parameters
    ----------
    scores : ndarray of shape (n_tokens, n_columns)
        Scores, sample after sample.
    offsets : ndarray of shape (n_samples + 1,), dtype int64
        Where each sample begins, and at last the number of tokens.
    sharpness : float
        r > 0; towards 0 it is the mean, towards infinity the maximum.

    Returns
    -------
    values : ndarray of shape (n_samples, n_columns)
        A.
    weights : ndarray of shape (n_tokens, n_columns)
        The derivative.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.pooling import soft_maximum
    >>> scores, offsets = np.array([[0.0], [2.0]]), np.array([0, 2])
    >>> [round(float(soft_maximum(scores, offsets, r)[0][0, 0]), 2) for r in (0.01, 1, 100)]
    [1.0, 1.43, 1.99]
    """
    lengths = np.diff(offsets)
    largest = segment_max(scores, offsets)
    weights = np.exp(sharpness * (scores - np.repeat(largest, lengths, axis=0)))
    total = segment_sum(weights, offsets)
    weights /= np.repeat(total, lengths, axis=0)
    mean = total / lengths[:, None].astype(scores.dtype)
    return largest + np.log(mean) / sharpness, weights


def check_top_and_share(top: int, share: float | None) -> None:
    """Refuse to say twice how many windows count.

    Parameters
    ----------
    top, share : as in :func:`top_windows`
        Which windows count.

    Raises
    ------
    ValueError
        If both are given.
    """
    if share is not None and top != 1:
        raise ValueError(
            f"top={top} and share={share} both say how many windows count; leave one of them out."
        )


def longest_window(tokens: TokenArray) -> int:
    """Tell the side of the largest window that fits into a sample.

    Parameters
    ----------
    tokens : TokenArray
        Samples, at least one.

    Returns
    -------
    side : int
        Tokens of a run, or patches along one side of a square.
    """
    shapes = tokens.shapes
    if shapes is not None:
        return int(shapes.min(axis=1).max())
    return int(np.diff(_runs(offsets_of(tokens.lengths), tokens.segments)).max())


def _runs(offsets: Array, segments: Array | None) -> Array:
    """Where each run of adjacent tokens begins, and at last the number of tokens."""
    if segments is None:
        return offsets
    return np.union1d(offsets, np.flatnonzero(segments[1:] != segments[:-1]) + 1)


def block_layout(tokens: TokenArray, samples: slice) -> tuple[Array, Array | None, Array | None]:
    """Tell how the tokens of some samples lie beside one another.

    Parameters
    ----------
    tokens : TokenArray
        Samples.
    samples : slice
        Some of them, as :meth:`~skact.TokenArray.blocks` gives them.

    Returns
    -------
    offsets : ndarray of shape (n_some + 1,), dtype int64
        Where each of these begins, and at last the number of their tokens.
    shapes : ndarray of shape (n_some, 2) or None
        Their rows and columns.
    segments : ndarray of shape (n_tokens_of_some,) or None
        Their runs.
    """
    some = tokens[samples]
    return offsets_of(some.lengths), some.shapes, some.segments


def check_window(window: int, tokens: TokenArray) -> None:
    """Refuse a window that fits into no sample.

    Parameters
    ----------
    window : int
        Tokens of a run, or patches along one side of a square.
    tokens : TokenArray
        Samples, at least one.

    Raises
    ------
    ValueError
        If it is longer than every one.
    """
    longest = longest_window(tokens)
    if window > longest:
        unit = "tokens" if tokens.shapes is None else "patches along its shorter side"
        what = "sample" if tokens.segments is None else "run of tokens without a gap"
        raise ValueError(
            f"window={window} is longer than every {what}; the longest has {longest} {unit}."
        )


def pool_windows(
    scores: TokenArray, window: int = 1, top: int = 1, share: float | None = None
) -> Array:
    """Pool the samples of a container as :func:`top_windows` does, block by block.

    Parameters
    ----------
    scores : TokenArray of shape (n_samples, n_columns)
        Scores, in memory or on disk; grids where they have shapes, and no window crosses a gap
        where they have segments.
    window, top, share : as in :func:`top_windows`
        Which windows count.

    Returns
    -------
    values : ndarray of shape (n_samples, n_columns)
        One score per sample and column.
    """
    pooled: Array | None = None
    for samples, tokens in scores.blocks():
        offsets, *layout = block_layout(scores, samples)
        part = top_windows(tokens, offsets, window, top, share, *layout)
        if pooled is None:
            pooled = np.empty(scores.shape, part.dtype)
        pooled[samples] = part
    assert pooled is not None
    return pooled


def top_windows(
    scores: Array,
    offsets: Array,
    window: int = 1,
    top: int = 1,
    share: float | None = None,
    shapes: Array | None = None,
    segments: Array | None = None,
) -> Array:
    r"""Pool each sample by the mean of its largest window means.

    .. math:: a_t = \frac1M \sum_{m=0}^{M-1} s_{t+m}, \qquad A(x) = \frac1K \sum_{k=1}^K a_{(k)}

    with :math:`a_{(1)} \ge a_{(2)} \ge \dots`. What a sample gets does not depend on those beside
    it, to the last bit.

    Parameters
    ----------
    scores : ndarray of shape (n_tokens, n_columns)
        Scores, sample after sample.
    offsets : ndarray of shape (n_samples + 1,), dtype int64
        Where each sample begins, and at last the number of tokens.
    window : int, default=1
        M: tokens of a run, or patches along one side of a square. In a sample or run that is
        smaller, the largest one that fits.
    top : int, default=1
        K; all windows of a sample that has fewer.
    share : float, default=None
        :math:`\kappa` in (0, 1]: K is :math:`\max(1, \mathrm{round}(\kappa\, n_{windows}))`.
    shapes : ndarray of shape (n_samples, 2), dtype int64, default=None
        Rows and columns of samples that are grids; None means runs.
    segments : ndarray of shape (n_tokens,), int, default=None
        Runs of adjacent tokens: no window crosses to a neighbour of another number. None means one
        run for each sample.

    Returns
    -------
    values : ndarray of shape (n_samples, n_columns)
        A, in float64; of the dtype of the scores where it is their maximum.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.pooling import top_windows
    >>> top_windows(np.array([[1.0], [3.0], [2.0], [0.0]]), np.array([0, 4]), window=2)
    array([[2.5]])
    """
    if window == top == 1 and share is None:
        return segment_max(scores, offsets)
    means, cuts, _, _ = _window_means(scores, offsets, window, shapes, segments)
    if top == 1 and share is None:
        return segment_max(means, cuts)
    counts = _counts(np.diff(cuts), top, share)
    values = np.empty((len(counts), means.shape[1]))
    # Samples of one length are a block, whose largest are found without sorting the rest.
    for some, rows, n_largest in _of_one_length(cuts, counts):
        rest = rows.shape[1] - n_largest
        block = means[rows]
        block.partition(rest, axis=1)
        values[some] = np.sort(block[:, rest:], axis=1).mean(axis=1)
    return values


def weighted_top_windows(
    scores: Array,
    offsets: Array,
    window: int = 1,
    top: int = 1,
    share: float | None = None,
    shapes: Array | None = None,
    segments: Array | None = None,
) -> tuple[Array, Array]:
    """Pool as :func:`top_windows`, and tell how much each token counts.

    Parameters
    ----------
    scores, offsets, window, top, share, shapes, segments : as in :func:`top_windows`
        Scores, and which windows of them count.

    Returns
    -------
    values : ndarray of shape (n_samples, n_columns), dtype float64
        A.
    weights : ndarray of shape (n_tokens, n_columns), dtype float64
        The derivative of A; among equal windows the earlier one counts.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.pooling import weighted_top_windows
    >>> scores = np.array([[1.0], [3.0], [2.0], [0.0]])
    >>> weighted_top_windows(scores, np.array([0, 4]), window=2)[1].ravel()
    array([0. , 0.5, 0.5, 0. ])
    """
    exact = scores.astype(np.float64, copy=False)
    means, cuts, to_tokens = window_means(exact, offsets, window, shapes, segments)
    counts = _counts(np.diff(cuts), top, share)
    counted = np.zeros_like(means)
    if (counts == 1).all():
        np.put_along_axis(counted, _first_of_largest(means, cuts), 1.0, axis=0)
    else:
        for _, rows, n_largest in _of_one_length(cuts, counts):
            counted[rows] = _is_largest(means[rows], n_largest) / n_largest
    return segment_sum(counted * means, cuts), to_tokens(counted)


def _first_of_largest(values: Array, offsets: Array) -> Array:
    """Row of the largest value of each segment and column, the first of equal ones."""
    largest = np.repeat(segment_max(values, offsets), np.diff(offsets), axis=0)
    rows = np.where(values == largest, np.arange(len(values))[:, None], len(values))
    return np.minimum.reduceat(rows, offsets[:-1], axis=0)


def _is_largest(block: Array, n_largest: int) -> Array:
    """Mark the largest along the second axis of (n, length, n_columns), first the first ones."""
    rest = block.shape[1] - n_largest
    least = np.partition(block, rest, axis=1)[:, rest : rest + 1]
    larger, equal = block > least, block == least
    missing = n_largest - larger.sum(axis=1, keepdims=True)
    return larger | (equal & (equal.cumsum(axis=1) <= missing))


def _of_one_length(offsets: Array, counts: Array) -> Iterator[tuple[Array, Array, int]]:
    """Segments of one length with their rows, (n, length), and how many of each count."""
    lengths = np.diff(offsets)
    for length in np.unique(lengths):
        some = np.flatnonzero(lengths == length)
        yield some, offsets[some, None] + np.arange(length), int(counts[some[0]])


def window_means(
    scores: Array,
    offsets: Array,
    window: int = 1,
    shapes: Array | None = None,
    segments: Array | None = None,
) -> tuple[Array, Array, Callable[[Array], Array]]:
    """Average the scores of every window of each sample.

    Parameters
    ----------
    scores, offsets, window, shapes, segments : as in :func:`top_windows`
        Scores, and the size of a window.

    Returns
    -------
    means : ndarray of shape (n_windows, n_columns)
        Means, sample after sample, in float64; the scores themselves where a window is one token.
    offsets : ndarray of shape (n_samples + 1,), dtype int64
        Where the windows of each sample begin, and at last their number.
    to_tokens : callable
        Takes what each window counts, (n_windows, n_columns), and returns what each token counts
        by it, (n_tokens, n_columns): the transpose of averaging.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.pooling import window_means
    >>> means, _, to_tokens = window_means(np.array([[1.0], [3.0], [2.0]]), np.array([0, 3]), 2)
    >>> means.ravel(), to_tokens(np.array([[0.0], [1.0]])).ravel()
    (array([2. , 2.5]), array([0. , 0.5, 0.5]))
    """
    if window == 1:
        return scores, offsets, lambda counted: counted
    means, cuts, grids, windows = _window_means(scores, offsets, window, shapes, segments)

    def to_tokens(counted: Array) -> Array:
        # Each token sums up the windows that it lies in: the same sum, with a margin of zeros.
        margin = windows - 1
        wide = grids + 2 * margin
        padded = np.zeros((wide.prod(axis=1).sum(), counted.shape[1]))
        each = np.repeat(windows.prod(axis=1), grids.prod(axis=1))[:, None]
        padded[_rows(wide, margin, grids)] = counted / each
        return _sums(padded, wide, windows)[0]

    return means, cuts, to_tokens


def _window_means(
    scores: Array, offsets: Array, window: int, shapes: Array | None, segments: Array | None
) -> tuple[Array, Array, Array, Array]:
    """Means of all windows, where those of each sample begin, their grids, and their sizes.

    There is a grid for each sample, or for each run where samples have gaps.
    """
    runs = _runs(offsets, segments)
    lengths = np.diff(runs)
    if shapes is None:
        shapes = np.column_stack([np.ones_like(lengths), lengths])
        windows = np.minimum([1, window], shapes)
    else:
        windows = np.minimum(window, shapes.min(axis=1, keepdims=True)).repeat(2, axis=1)
    sums, grids = _sums(scores.astype(np.float64), shapes, windows)
    n_windows = grids.prod(axis=1)
    cuts = offsets_of(n_windows)
    if segments is not None:
        cuts = cuts[np.searchsorted(runs, offsets)]
    return sums / np.repeat(windows.prod(axis=1), n_windows)[:, None], cuts, grids, windows


def _sums(values: Array, grids: Array, windows: Array) -> tuple[Array, Array]:
    """Sum every window (rows, columns) of each grid; the sums are grids again."""
    for axis in (1, 0):
        values, grids = _sums_along(values, grids, windows[:, axis], axis)
    return values, grids


def _sums_along(values: Array, grids: Array, sizes: Array, axis: int) -> tuple[Array, Array]:
    """Sum every run of ``sizes`` values along one axis of each grid.

    Runs are put together of blocks of 1, 2, 4, ... values, so that the time grows with the
    logarithm of their size, and no sum runs through what lies outside of them: a difference of
    cumulated sums would change its last bits with the samples before.
    """
    if (sizes == 1).all():
        return values, grids
    made = grids - (sizes[:, None] - 1) * (np.arange(2) == axis)
    steps = grids[:, 1] if axis == 0 else np.ones_like(sizes)
    n_made, n_before = made.prod(axis=1), grids.prod(axis=1)
    size, step = np.repeat(sizes, n_made), np.repeat(steps, n_made)
    start = _rows(grids, np.zeros_like(grids), made)
    row, each = np.arange(len(values)), np.repeat(steps, n_before)
    total, width = np.zeros((len(start), values.shape[1])), 1
    while True:
        has = np.flatnonzero(size & width)
        total[has] += values[start[has]]
        start[has] += width * step[has]
        if 2 * width > sizes.max():
            return total, made
        # What reaches over the end of a grid is in no run.
        values = values + values[np.minimum(row + width * each, len(values) - 1)]
        width *= 2


def _rows(grids: Array, corners: Array, parts: Array) -> Array:
    """Rows of the values of parts (rows, columns) of grids, which begin at the corners."""
    lengths = parts.prod(axis=1)
    row, column = np.divmod(positions_of(lengths), np.repeat(parts[:, 1], lengths))
    first = offsets_of(grids.prod(axis=1))[:-1] + corners[:, 0] * grids[:, 1] + corners[:, 1]
    return np.repeat(first, lengths) + row * np.repeat(grids[:, 1], lengths) + column


def _counts(lengths: Array, top: int, share: float | None) -> Array:
    """How many windows of each sample count."""
    if share is None:
        return np.minimum(top, lengths)
    return np.maximum(np.rint(share * lengths).astype(np.int64), 1)


class RunningPool(ABC):
    """What of the scores of a stream its pooled score needs, token after token.

    Parameters
    ----------
    n_columns : int
        Score columns.
    """

    def __init__(self, n_columns: int) -> None:
        self.n_columns = n_columns

    @abstractmethod
    def add(self, scores: Array) -> None:
        """Take in the scores (n_new, n_columns) of the next tokens."""

    def gap(self) -> None:  # noqa: B027 (most pools take tokens one by one)
        """Say that context was left out here: the next token is not adjacent to the last."""

    @abstractmethod
    def value(self) -> Array:
        """Pooled score (n_columns,) of all tokens so far, of which there is at least one."""


class RunningMax(RunningPool):
    """Largest score so far."""

    def __init__(self, n_columns: int) -> None:
        super().__init__(n_columns)
        self._largest = np.full(n_columns, -np.inf)

    def add(self, scores: Array) -> None:
        """Take in scores; see :class:`RunningPool`."""
        for row in scores:
            np.maximum(self._largest, row, out=self._largest)

    def value(self) -> Array:
        """Largest score of each column."""
        return self._largest.copy()


class RunningMean(RunningPool):
    """Mean score so far."""

    def __init__(self, n_columns: int) -> None:
        super().__init__(n_columns)
        self._total, self._n = np.zeros(n_columns), 0

    def add(self, scores: Array) -> None:
        """Take in scores; see :class:`RunningPool`."""
        for row in scores:
            self._total += row
        self._n += len(scores)

    def value(self) -> Array:
        """Mean score of each column."""
        return self._total / self._n


class RunningLast(RunningPool):
    """Score of the last token."""

    def add(self, scores: Array) -> None:
        """Take in scores; see :class:`RunningPool`."""
        if len(scores):
            self._last = np.array(scores[-1])

    def value(self) -> Array:
        """Last score of each column."""
        return self._last.copy()


class RunningWindows(RunningPool):
    """Mean of the largest window means so far, as :func:`top_windows` has it for runs.

    Parameters
    ----------
    n_columns : int
        Score columns.
    window, top, share : as in :func:`top_windows`
        Which windows count. With ``share`` the means of all windows are kept, as how many of them
        count grows with the stream.
    """

    def __init__(
        self, n_columns: int, window: int = 1, top: int = 1, share: float | None = None
    ) -> None:
        super().__init__(n_columns)
        self.window, self.top, self.share = window, top, share
        self._recent = np.zeros((window, n_columns))
        self._sum = np.zeros(n_columns)
        self._n = self._n_windows = 0  # tokens since the last gap, and windows that are complete
        self._means = np.empty((top if share is None else 64, n_columns))
        self._least = np.empty(n_columns)

    def add(self, scores: Array) -> None:
        """Take in scores; see :class:`RunningPool`."""
        for row in scores:
            place = self._n % self.window
            if place == 0:  # from time to time exactly, so that rounding does not add up
                self._sum = self._recent[1:].sum(axis=0)
            else:
                self._sum -= self._recent[place]
            self._sum += row
            self._recent[place] = row
            self._n += 1
            if self._n >= self.window:
                self._add_window(self._sum / self.window)

    def gap(self) -> None:
        """Let no window reach over this place; what came is one window if it was shorter."""
        if 0 < self._n < self.window:
            self._add_window(self._recent[: self._n].mean(axis=0))
        self._recent[:] = 0
        self._n = 0

    def _add_window(self, mean: Array) -> None:
        n_before, self._n_windows = self._n_windows, self._n_windows + 1
        if self.share is not None and n_before == len(self._means):
            self._means = np.concatenate([self._means, np.empty_like(self._means)])
        if n_before < len(self._means):
            self._means[n_before] = mean
            if n_before == len(self._means) - 1:
                self._least = self._means.min(axis=0)
        elif (mean > self._least).any():
            # Each column gives up the least of those that count.
            places = self._means.argmin(axis=0), np.arange(self.n_columns)
            self._means[places] = np.maximum(self._least, mean)
            self._least = self._means.min(axis=0)

    def value(self) -> Array:
        """Pooled score of each column; shorter streams are one window."""
        n_windows, kept = self._n_windows, self._means[: self._n_windows]
        if 0 < self._n < self.window:
            n_windows += 1
            kept = np.concatenate([kept, self._recent[None, : self._n].mean(axis=1)])
        n = int(_counts(np.array([n_windows]), self.top, self.share)[0])
        if self.share is not None or len(kept) > n:
            kept = np.partition(kept, len(kept) - n, axis=0)[len(kept) - n :]
        pooled: Array = kept.mean(axis=0)
        return pooled
