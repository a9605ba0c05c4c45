"""Maps against truth: average precision and the pointing game, over tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from skact.arguments import checked, instance
from skact.metrics._overlap import (
    Statistic,
    check_alike,
    check_marks,
    score_of,
    weight_column,
    weighted_mean,
)
from skact.rows import Array, segments_of
from skact.tokens import TokenArray

__all__ = [
    "keep_pairs",
    "pointing_game",
    "pointing_game_score",
    "token_average_precision",
    "token_average_precision_score",
]


def token_average_precision_score(
    labels_true: Any, scores: Any, *, sample_weight: Any = None
) -> float:
    r"""Average precision over tokens per concept, weighted by the tokens that belong to it.

    With precision :math:`P_k` and recall :math:`R_k` of the tokens whose score reaches the k-th
    highest one, over the tokens of all samples,

    .. math:: \mathrm{AP}_c = \sum_k (R_k - R_{k-1}) P_k.

    It needs no threshold, but a scale that all samples share.

    Parameters
    ----------
    labels_true : TokenArray of shape (n_samples, n_concepts), dtype bool
        Truth.
    scores : TokenArray of shape (n_samples, n_concepts)
        A map of each concept. Minus infinity is the lowest score.
    sample_weight : array-like of shape (n_samples,), default=None
        How much each sample counts, with all of its tokens.

    Returns
    -------
    score : float
        In [0, 1]; equal to ``sklearn.metrics.average_precision_score(average="weighted")`` on all
        tokens. 0 if no concept occurs.

    Raises
    ------
    ValueError
        If samples, lengths or concepts differ, a score is NaN, or weights are none of these
        samples.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray, token_average_precision_score
    >>> true = TokenArray(np.array([[True], [False], [True]]), [0, 2, 3])
    >>> token_average_precision_score(true, true.with_values(np.array([[0.9], [0.5], [0.1]])))
    0.833...
    """
    statistic = token_average_precision(labels_true, scores, sample_weight=sample_weight)
    return score_of(statistic, len(labels_true))


def pointing_game_score(labels_true: Any, scores: Any, *, sample_weight: Any = None) -> float:
    r"""Share of the pairs of sample and concept whose highest token belongs to the concept.

    .. math:: \operatorname*{mean}_{(x, c):\, x \text{ holds } c} \frac{|T_c(x) \cap L_c(x)|}
              {|T_c(x)|}, \qquad T_c(x) = \{i : m_{ic} = \max_j m_{jc}\}

    with the map m of a sample, and the tokens :math:`L_c(x)` that belong to the concept. A pair
    takes part if a token of the sample belongs to the concept, so concepts weigh by the samples
    that hold them. Where several tokens share the highest score, the pair counts with the share of
    them that belongs to the concept, as if one was drawn: a flat map points at random.

    Parameters
    ----------
    labels_true : TokenArray of shape (n_samples, n_concepts), dtype bool
        Truth.
    scores : TokenArray of shape (n_samples, n_concepts)
        A map of each concept. Minus infinity is the lowest score.
    sample_weight : array-like of shape (n_samples,), default=None
        How much each sample counts, with all of its tokens.

    Returns
    -------
    score : float
        In [0, 1]. 0 if no concept occurs.

    Raises
    ------
    ValueError
        If samples, lengths or concepts differ, a score is NaN, or weights are none of these
        samples.

    References
    ----------
    J. Zhang, Z. Lin, J. Brandt, X. Shen and S. Sclaroff, "Top-down Neural Attention by Excitation
    Backprop", ECCV 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray, pointing_game_score
    >>> true = TokenArray(np.array([[True], [False], [True]]), [0, 2, 3])
    >>> pointing_game_score(true, true.with_values(np.array([[0.5], [0.9], [0.1]])))
    0.5
    """
    statistic = pointing_game(labels_true, scores, sample_weight=sample_weight)
    return score_of(statistic, len(labels_true))


@checked(tokens=[instance("a TokenArray", TokenArray)], pairs=["array-like"])
def keep_pairs(tokens: TokenArray, pairs: npt.ArrayLike) -> TokenArray:
    """Leave pairs of sample and concept out of token-level scores.

    Labels and decisions of other pairs become False, their scores minus infinity. Applied to both
    sides, that leaves F1, IoU, average precision and the pointing game of the pairs alone: what
    is neither true nor decided enters no count, and what comes after the last true token no
    average precision.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_concepts)
        Labels or decisions (bool), or scores.
    pairs : array-like of shape (n_samples, n_concepts), dtype bool
        Pairs to keep.

    Returns
    -------
    kept : TokenArray of shape (n_samples, n_concepts)
        Of the same dtype.

    Raises
    ------
    ValueError
        If pairs has another shape or dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray, keep_pairs
    >>> scores = TokenArray(np.array([[0.5], [0.9], [0.1]]), [0, 2, 3])
    >>> keep_pairs(scores, [[True], [False]]).values.ravel()
    array([ 0.5,  0.9, -inf])
    """
    pairs = np.asarray(pairs)
    if pairs.dtype != bool or pairs.shape != tokens.shape:
        raise ValueError(
            f"pairs must be bool of shape {tokens.shape}, got shape {pairs.shape} of dtype "
            f"{pairs.dtype}."
        )
    rest = False if tokens.dtype == bool else -np.inf
    values = np.where(np.repeat(pairs, tokens.lengths, axis=0), tokens.flat(), rest)
    return tokens.with_values(
        values.astype(tokens.dtype, copy=False), tokens.feature_names, tokens.source
    )


def token_average_precision(
    labels_true: Any, scores: Any, name: str = "scores", sample_weight: Any = None
) -> Statistic:
    """Average precision of the tokens of resampled samples."""
    _check_maps(labels_true, scores, name)
    n_samples, n_concepts = labels_true.shape
    sample = segments_of(labels_true.lengths)
    ranked = [
        _rank(sample, labels_true.flat()[:, c], scores.flat()[:, c]) for c in range(n_concepts)
    ]
    positive, weight = labels_true.sum(), weight_column(sample_weight, n_samples)[:, 0]

    def one(rows: Array) -> Array:
        times = np.bincount(rows, minlength=n_samples) * weight
        values = np.array([_average_precision(times, *column) for column in ranked])
        return weighted_mean(values, times @ positive)

    return lambda rows: np.apply_along_axis(one, -1, rows)


def _rank(sample: Array, labels: Array, scores: Array) -> tuple[Array, Array, Array]:
    """Sample and label of each token, highest score first, and the last token of each score."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    return sample[order], labels[order], last


def _average_precision(times: Array, sample: Array, labels: Array, last: Array) -> float:
    """Average precision where sample i counts ``times[i]`` times."""
    weights = times[sample]
    hits, found = np.cumsum(weights * labels)[last], np.cumsum(weights)[last]
    if not hits[-1]:
        return 0.0
    # Scores of samples that were not drawn add nothing to the hits.
    precision = hits / np.where(found > 0, found, 1)
    return float(np.diff(hits, prepend=0) @ precision / hits[-1])


def pointing_game(
    labels_true: Any, scores: Any, name: str = "scores", sample_weight: Any = None
) -> Statistic:
    """Hit rate of resampled samples."""
    _check_maps(labels_true, scores, name)
    top = scores.flat() == np.repeat(scores.max(), scores.lengths, axis=0)
    tops = scores.with_values(top).sum()
    hits = scores.with_values(top & labels_true.flat()).sum() / tops
    held = labels_true.max() * weight_column(sample_weight, len(scores))

    def statistic(rows: Array) -> Array:
        drawn = rows.shape[:-1]
        return weighted_mean(hits[rows].reshape(*drawn, -1), held[rows].reshape(*drawn, -1))

    return statistic


def _check_maps(labels_true: Any, scores: Any, name: str) -> None:
    check_marks(labels_true, "labels_true")
    if not isinstance(scores, TokenArray) or scores.dtype == bool:
        got = getattr(scores, "dtype", type(scores).__name__)
        raise ValueError(f"{name} must be a TokenArray of floats, got {got}.")
    check_alike(labels_true, scores)
    missing = np.argwhere(scores.map(np.isnan).max())
    if len(missing):
        i, c = missing[0]
        raise ValueError(
            f"{name} holds NaN in sample {i}, concept {c}: it has no map there. keep_pairs leaves "
            "a pair out."
        )
