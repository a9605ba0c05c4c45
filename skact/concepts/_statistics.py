"""Statistics of tokens that several concept methods share, as functions on arrays and blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.utils.extmath import row_norms

from skact.rows import Array, as_floats, row_chunks
from skact.tokens import TokenArray

__all__ = [
    "RUN",
    "Moments",
    "balanced_weights",
    "cosine_function",
    "cosines",
    "label_counts",
    "labelled_sums",
    "moments",
    "places_of",
    "products",
    "run_numbers",
    "scatter",
    "shuffled_runs",
    "token_count",
    "token_mean",
    "token_sum",
    "weight_of_tokens",
    "weighted_blocks",
]

# Rows that are held in float64 at a time.
_ROWS = 4096
# Values of a run of samples that stay together when the order is drawn.
RUN = 2**18


def cosines(values: Array, vectors: Array) -> Array:
    r"""Cosine of each token with each vector.

    .. math:: \cos(z, v) = \frac{\langle z, v \rangle}{\lVert z \rVert \lVert v \rVert}

    Parameters
    ----------
    values : ndarray of shape (n_tokens, n_features)
        Tokens z; float16, float32 or float64.
    vectors : ndarray of shape (n_vectors, n_features)
        Vectors v.

    Returns
    -------
    cosines : ndarray of shape (n_tokens, n_vectors), dtype float32 or float64
        In the precision of the tokens, at least float32, of whatever size they are. 0 for a zero
        token or vector, NaN for one that holds NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.concepts import cosines
    >>> cosines(np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), np.array([[0.0, 2.0]])).round(2)
    array([[0.  ],
           [0.71],
           [0.  ]])
    """
    values = as_floats(values)
    return _unit_rows(values) @ _unit_rows(as_floats(vectors)).T.astype(values.dtype)


def cosine_function(vectors: Array) -> Callable[[Array], Array]:
    """Prepare :func:`cosines` with these vectors, for tokens in single precision.

    Parameters
    ----------
    vectors : ndarray of shape (n_vectors, n_features)
        Vectors.

    Returns
    -------
    function : callable
        Takes float32 (n_tokens, n_features), returns cosines (n_tokens, n_vectors).
    """
    units = _unit_rows(as_floats(vectors)).T.astype(np.float32)
    return partial(_cosines_of_singles, units=units, limits=_plain_norms(np.dtype(np.float32)))


def _cosines_of_singles(values: Array, units: Array, limits: tuple[float, float]) -> Array:
    low, high = limits
    norms = np.sqrt(np.einsum("ij,ij->i", values, values))
    if norms.min(initial=high) <= low or norms.max(initial=0) > high:
        return _unit_rows(values) @ units
    return (values @ units) / norms[:, None]


def _plain_norms(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Norms between which squares neither vanish nor overflow."""
    limits = np.finfo(dtype)
    return float(np.sqrt(limits.tiny / limits.eps)), float(limits.max)


def _unit_rows(rows: Array) -> Array:
    """Divide rows by their lengths, also where squares would vanish or overflow; NaN may be."""
    low, high = _plain_norms(rows.dtype)
    lengths = row_norms(rows)
    odd = ~((lengths > low) & (lengths <= high))
    if odd.any():
        # A power of two changes no digit.
        _, exponents = np.frexp(np.abs(rows[odd]).max(axis=1))
        rows = rows.copy()
        rows[odd] = np.ldexp(rows[odd], -exponents[:, None])
        lengths[odd] = row_norms(rows[odd])
    lengths[lengths == 0] = 1
    return rows / lengths[:, None]


def products(values: Array, vectors: Array) -> Array:
    """Inner product of each token with each vector.

    Parameters
    ----------
    values : ndarray of shape (n_tokens, n_features)
        Tokens.
    vectors : ndarray of shape (n_vectors, n_features)
        Vectors.

    Returns
    -------
    products : ndarray of shape (n_tokens, n_vectors), dtype float32 or float64
        In the precision of the tokens, at least float32.
    """
    values = as_floats(values)
    return values @ vectors.T.astype(values.dtype, copy=False)


def token_sum(tokens: TokenArray, weight: Array | None = None) -> Array:
    """Sum all tokens.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.
    weight : ndarray of shape (n_samples,), default=None
        How often each sample counts; None once.

    Returns
    -------
    total : ndarray of shape (n_features,), dtype float64
        The sum.
    """
    total = np.zeros(tokens.n_features)
    if weight is None:
        for values in tokens.float_chunks():
            total += values.sum(axis=0, dtype=np.float64)
        return total
    for samples, block in tokens.blocks():
        times = np.repeat(weight[samples], tokens.lengths[samples])
        for start in range(0, len(block), _ROWS):
            rows = slice(start, start + _ROWS)
            total += times[rows] @ block[rows].astype(np.float64)
    return total


def weighted_blocks(
    tokens: TokenArray, weight: Array | None
) -> Iterator[tuple[Array | None, Array]]:
    """Yield blocks of tokens, and how often each token counts.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.
    weight : ndarray of shape (n_samples,) or None
        How often each sample counts; None once.

    Yields
    ------
    times : ndarray of shape (n_some,), dtype float64, or None
        Weights of these tokens.
    values : ndarray of shape (n_some, n_features)
        Tokens.
    """
    for samples, block in tokens.blocks():
        yield weight_of_tokens(tokens, weight, samples), block


def weight_of_tokens(
    tokens: TokenArray, weight: Array | None, samples: slice = slice(None)
) -> Array | None:
    """Say how often each token counts: as often as its sample.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.
    weight : ndarray of shape (n_samples,) or None
        How often each sample counts; None once.
    samples : slice
        Samples whose tokens are asked for.

    Returns
    -------
    times : ndarray of shape (n_some,), dtype float64, or None
        Weights of these tokens.
    """
    return None if weight is None else np.repeat(weight[samples], tokens.lengths[samples])


def label_counts(labels: TokenArray) -> Array:
    """Count the tokens that each concept has; most have none, so only labels are counted.

    Parameters
    ----------
    labels : TokenArray of shape (n_samples, n_concepts), dtype bool
        Labels of tokens.

    Returns
    -------
    counts : ndarray of shape (n_concepts,), dtype int64
        The numbers.
    """
    counts = np.zeros(labels.n_features, np.int64)
    for _, block in labels.blocks():
        counts += np.bincount(places_of(block)[1], minlength=labels.n_features)
    return counts


def token_mean(tokens: TokenArray) -> Array:
    """Average all tokens, each of which counts the same, however many its sample has.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.

    Returns
    -------
    mean : ndarray of shape (n_features,), dtype float64
        The mean.
    """
    return token_sum(tokens) / tokens.n_tokens


def labelled_sums(
    tokens: TokenArray, labels: TokenArray, weight: Array | None = None
) -> tuple[Array, Array]:
    """Sum and number of the tokens of each label.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.
    labels : TokenArray of shape (n_samples, n_concepts), dtype bool
        Labels of the same tokens.
    weight : ndarray of shape (n_samples,), default=None
        How often each sample counts; None once.

    Returns
    -------
    sums : ndarray of shape (n_concepts, n_features), dtype float64
        One row per label.
    counts : ndarray of shape (n_concepts,), dtype float64
        Tokens of each label.
    """
    total = np.zeros((labels.n_features, tokens.n_features))
    count = np.zeros(labels.n_features)
    for samples, block in tokens.blocks():
        marked = labels[samples].flat().astype(np.float64)
        if weight is not None:
            marked *= np.repeat(weight[samples], tokens.lengths[samples])[:, None]
        done = 0
        for chunk in row_chunks(block):
            rows = slice(done, done + len(chunk))
            done += len(chunk)
            total += marked[rows].T @ as_floats(chunk).astype(np.float64, copy=False)
        count += marked.sum(axis=0)
    return total, count


def scatter(blocks: Iterable[tuple[Array | None, Array]], shift: Array) -> Array:
    r"""Sum over tokens of :math:`(z - \text{shift})(z - \text{shift})^\top`.

    Parameters
    ----------
    blocks : iterable of (ndarray of shape (n_some,) or None, ndarray of shape (n_some, n_features))
        How often each token counts (None once), and the tokens.
    shift : ndarray of shape (n_features,), dtype float64
        What is subtracted; near the mean, no precision is lost.

    Returns
    -------
    scatter : ndarray of shape (n_features, n_features), dtype float64
        The sum.
    """
    total = np.zeros((len(shift), len(shift)))
    for times, block in blocks:
        for start in range(0, len(block), _ROWS):
            part = block[start : start + _ROWS] - shift
            again = part if times is None else times[start : start + _ROWS, None] * part
            total += part.T @ again
    return total


@dataclass(frozen=True)
class Moments:
    r"""Number, mean and scatter of tokens; those of two sets add up to those of both.

    .. math:: S = S_1 + S_2 + \frac{n_1 n_2}{n_1 + n_2}
              (\mu_2 - \mu_1)(\mu_2 - \mu_1)^\top

    as Chan, Golub and LeVeque (1979) found, which loses no digits to a mean far from zero.

    Parameters
    ----------
    n_tokens : int or float
        n, the sum of weights where tokens have some.
    mean : ndarray of shape (n_features,), dtype float64
        :math:`\mu`.
    scatter : ndarray of shape (n_features, n_features), dtype float64, or None
        S, about the mean; None if it is not asked for.
    """

    n_tokens: float
    mean: Array
    scatter: Array | None

    def __add__(self, other: Moments) -> Moments:
        n_tokens = self.n_tokens + other.n_tokens
        way, share = other.mean - self.mean, other.n_tokens / n_tokens
        mean = self.mean + share * way
        if self.scatter is None or other.scatter is None:
            return Moments(n_tokens, mean, None)
        between = share * self.n_tokens * np.outer(way, way)
        return Moments(n_tokens, mean, self.scatter + other.scatter + between)


def moments(tokens: TokenArray, weight: Array | None = None, *, with_scatter: bool) -> Moments:
    """Compute number, mean and scatter of all tokens.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.
    weight : ndarray of shape (n_samples,), default=None
        How often each sample counts; None once.
    with_scatter : bool
        Whether the scatter is asked for, which reads the tokens a second time.

    Returns
    -------
    moments : Moments
        In double precision.
    """
    n_tokens = token_count(tokens, weight)
    mean = token_sum(tokens, weight) / n_tokens
    scattered = scatter(weighted_blocks(tokens, weight), mean) if with_scatter else None
    return Moments(n_tokens, mean, scattered)


def token_count(tokens: TokenArray, weight: Array | None) -> float:
    """Count tokens, each as often as its sample.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.
    weight : ndarray of shape (n_samples,) or None
        How often each sample counts; None once.

    Returns
    -------
    n_tokens : int or float
        The sum of weights, where there are some.
    """
    return tokens.n_tokens if weight is None else float(weight @ tokens.lengths)


def balanced_weights(n_positive: Array, n_tokens: float | Array) -> tuple[Array, Array]:
    """Weight of each negative and of each positive token, by which both classes count the same.

    Parameters
    ----------
    n_positive : ndarray of shape (n_concepts,)
        Positive tokens of each concept, or the sum of their weights.
    n_tokens : int or float, or ndarray of shape (n_concepts,)
        All tokens, or the sum of their weights.

    Returns
    -------
    negative, positive : ndarray of shape (n_concepts,), dtype float64
        Each class sums to 1/2; both are 0 where one of the classes is empty.
    """
    separable = (n_positive > 0) & (n_positive < n_tokens)
    positive = np.where(separable, 0.5 / np.where(separable, n_positive, 1), 0)
    negative = np.where(separable, 0.5 / np.where(separable, n_tokens - n_positive, 1), 0)
    return negative, positive


def places_of(labels: Array) -> tuple[Array, Array]:
    """Find labels, as ``np.nonzero`` does, several times as fast.

    Parameters
    ----------
    labels : ndarray of shape (n_tokens, n_concepts), dtype bool
        Labels of tokens.

    Returns
    -------
    token, concept : ndarray of shape (n_labels,), dtype int64
        Where they are, token after token.
    """
    token, concept = np.divmod(np.flatnonzero(labels), labels.shape[1])
    return token, concept


def shuffled_runs(tokens: TokenArray, random: np.random.RandomState) -> Array:
    """Put runs of neighbouring samples in random order: read mostly forwards, yet mixed.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.
    random : RandomState
        Draws the order.

    Returns
    -------
    samples : ndarray of shape (n_samples,), dtype int64
        Their new order.
    """
    run = run_numbers(tokens)
    rank = random.permutation(int(run[-1]) + 1)
    return np.argsort(rank[run], kind="stable")


def run_numbers(tokens: TokenArray) -> Array:
    """Count off runs of neighbouring samples, each of about ``RUN`` values.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.

    Returns
    -------
    run : ndarray of shape (n_samples,), dtype int64
        The number of the run of each sample, ascending.
    """
    return tokens.starts // max(RUN // tokens.n_features, 1)
