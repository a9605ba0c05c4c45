r"""Scores inside and outside of concepts, layer by layer.

:math:`D_c^{in}` are the scores of the tokens labelled with a concept, :math:`D_c^{out}` those of
all tokens of samples that do not hold it. Unlabelled tokens of samples that hold it belong to
neither. What of :math:`D_c^{in}` lies above a high quantile of :math:`D_c^{out}` is its separable
tail.

A layer is read in pieces. Only the scores of labelled tokens and the highest scores of the others
are held, for they are all that the quantile and its resamples depend on.

Source: Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate Reliable
Concept Signals in the Tail", sections on distributions and on depth.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from sklearn.utils import Bunch

from skact.arguments import Number, checked
from skact.inspection._analysis import (
    RESAMPLING,
    SCORES,
    AnalysisDisplay,
    Samples,
    band,
    ends,
    read_samples,
    resample,
    whole_blocks,
)
from skact.inspection._display import AXES
from skact.inspection._reading import find_concept
from skact.rows import Array, runs

__all__ = [
    "CoverageDisplay",
    "ScoreDistributionsDisplay",
    "SeparabilityDisplay",
    "coverage",
    "score_distributions",
    "separability",
]

_LEVEL = [Number(Real, 0, 1, closed="neither")]
# Scores from outside of a concept that are held in any case, and how much more of them than lie
# above the quantile, so that those above that of any resample are among them.
_FEWEST, _MARGIN = 2000, 3
# Weights of tokens in resamples that are computed at a time: 32 MiB.
_WEIGHTS = 2**22


class _Tail(NamedTuple):
    """Scores of one concept at one layer, each with its sample."""

    inside: Array  # of labelled tokens
    inside_sample: Array
    outside: Array  # the highest of tokens of samples that do not hold the concept, descending
    outside_sample: Array
    lowest: float  # of all scores


class _Highest:
    """The highest of the scores that it is given, with their samples."""

    def __init__(self, size: int) -> None:
        self.size, self.scores, self.sample = size, np.empty(0), np.empty(0, np.int64)

    def add(self, scores: Array, sample: Array) -> None:
        scores, sample = np.r_[self.scores, scores], np.r_[self.sample, sample]
        if len(scores) > self.size:
            kept = np.argpartition(-scores, self.size - 1)[: self.size]
            scores, sample = scores[kept], sample[kept]
        self.scores, self.sample = scores, sample


def _tails(samples: Samples, layer: int, level: float) -> list[_Tail]:
    """Gather the tails of all concepts in one pass over a layer."""
    lengths, n_concepts = samples.stack.lengths, len(samples.names)
    n_outside = lengths @ ~samples.present
    highest = [_Highest(max(_FEWEST, int(_MARGIN * (1 - level) * n))) for n in n_outside]
    inside: list[list[tuple[Array, Array]]] = [[] for _ in range(n_concepts)]
    lowest = np.full(n_concepts, np.inf)
    for _, sample, scores, labels in samples.pieces(layer):
        scores = scores.astype(np.float64)
        absent = ~samples.present[sample]
        for c in range(n_concepts):
            outside = scores[absent[:, c], c]
            highest[c].add(outside, sample[absent[:, c]])
            lowest[c] = min(lowest[c], outside.min(initial=np.inf))
            if labels is not None:
                inside[c].append((scores[labels[:, c], c], sample[labels[:, c]]))
    tails = []
    for c, top in enumerate(highest):
        order = np.argsort(-top.scores, kind="stable")
        # Nothing, so that there is something to join where tokens are not labelled.
        parts = [(np.empty(0), np.empty(0, np.int64)), *inside[c]]
        values, of = (np.concatenate(both) for both in zip(*parts, strict=True))
        low = min(lowest[c], values.min(initial=np.inf))
        tails.append(_Tail(values, of, top.scores[order], top.sample[order], low))
    return tails


def _quantile(tail: _Tail, counts: Array, n_outside: Array, level: float) -> Array:
    """Quantile of the scores outside in each resample, interpolated linearly.

    Score i, counted from above, is the smallest of which ``cumsum(weights)`` exceeds i.
    """
    weights = counts[:, tail.outside_sample].cumsum(axis=1, dtype=np.int64)
    place = level * (n_outside - 1)
    below = np.floor(place)
    from_above = n_outside - 1 - below
    last = len(tail.outside) - 1
    lower, upper = (
        tail.outside[np.minimum((weights <= rank[:, None]).sum(axis=1), last)]
        for rank in (from_above, np.maximum(from_above - 1, 0))
    )
    quantile = lower + (place - below) * (upper - lower)
    return np.where(n_outside > 0, quantile, np.nan)


def _share_above(scores: Array, sample: Array, counts: Array, cuts: Array) -> Array:
    """Share of scores above a cut, in each resample; NaN where it has no score."""
    order = np.argsort(scores, kind="stable")
    weights = counts[:, sample[order]].cumsum(axis=1, dtype=np.int64)
    at = np.searchsorted(scores[order], cuts, side="right")
    below = np.where(at > 0, weights[np.arange(len(at)), at - 1], 0)
    total = weights[:, -1].astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(np.isnan(cuts), np.nan, (total - below) / total)


def _shares(samples: Samples, counts: Array, level: float, inside: Any) -> tuple[Array, Array]:
    """Thresholds and shares above them, (1 + n_resamples, n_layers, n_concepts).

    ``inside`` gives the scores of a concept and their samples, from its tail and its number.
    """
    if samples.present.all(axis=0).any():
        c = int(np.flatnonzero(samples.present.all(axis=0))[0])
        raise ValueError(
            f"every sample holds concept {c} ({str(samples.names[c])!r}) by y, so no score lies "
            "outside of it; add samples without it, or leave the concept out."
        )
    shape = (len(counts), len(samples.layers), len(samples.names))
    cuts, shares = np.empty(shape), np.empty(shape)
    n_outside = counts.astype(np.float64) @ (samples.stack.lengths[:, None] * ~samples.present)
    for place, layer in enumerate(samples.stack.layers):
        maxima = samples.stack.layer(layer).max()
        for c, tail in enumerate(_tails(samples, layer, level)):
            scores, sample = inside(tail, maxima, c)
            n_weights = max(len(scores), len(tail.outside))
            for some in runs(np.full(len(counts), n_weights), _WEIGHTS):
                drawn = counts[some]
                cuts[some, place, c] = _quantile(tail, drawn, n_outside[some, c], level)
                shares[some, place, c] = _share_above(scores, sample, drawn, cuts[some, place, c])
    return cuts, shares


def _by_layer(samples: Samples, cuts: Array, shares: Array, level: float, confidence: float) -> Any:
    """Lay out what is known per layer and concept, with the mean over concepts."""
    # A resample may hold no sample of a rare concept.
    known = np.isfinite(shares)
    mean = np.where(known, shares, 0).sum(axis=2) / np.maximum(known.sum(axis=2), 1)
    mean[~known.any(axis=2)] = np.nan
    return Bunch(
        layers=samples.layers,
        concept_names=samples.names,
        level=level,
        thresholds=cuts[0],
        share=shares[0],
        mean=mean[0],
        **ends(mean, confidence),
    )


@checked(scores=[SCORES], level=_LEVEL, **RESAMPLING)
def separability(
    scores: Any,
    y: Any = None,
    token_labels: Any = None,
    *,
    level: float = 0.98,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> Bunch:
    r"""Share of the in-concept scores that stand out of the others, by layer.

    .. math:: \frac{|\{s \in D_c^{in} : s > Q_{0.98}(D_c^{out})\}|}{|D_c^{in}|}

    with the scores :math:`D_c^{in}` of tokens labelled with concept c and :math:`D_c^{out}` of all
    tokens of samples that do not hold it [1]_. Resamples of the samples move the quantile, too.

    Parameters
    ----------
    scores : LayerStack or TokenArray of shape (n_samples, n_concepts)
        Scores of tokens, a column per concept, of samples that the concept vectors were not fitted
        on. What is on disk is read in pieces.
    y : array-like of shape (n_samples,) or (n_samples, n_concepts), default=None
        What samples hold; None reads it off ``token_labels``.
    token_labels : TokenArray of shape (n_samples, n_concepts), dtype bool
        Tokens that belong to the concepts.
    level : float, default=0.98
        Level of the quantile, in (0, 1).
    n_resamples : int, default=1000
        Resamples of the samples, the same ones for all layers and concepts.
    confidence_level : float, default=0.95
        Share of resamples inside the interval.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples.

    Returns
    -------
    result : Bunch
        ``share`` and ``thresholds``, (n_layers, n_concepts); ``mean`` over concepts with ``low``
        and ``high``, (n_layers,); ``resamples`` of the mean, (n_resamples, n_layers), whose
        differences are those of layers; ``layers``, ``concept_names``, ``level``. Concepts that a
        resample does not hold are left out of its mean.

    Raises
    ------
    ValueError
        If labels are missing, do not fit the scores, or mark no token of a concept; if all samples
        hold one; if a score is not finite.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", section on depth.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray, separability
    >>> scores = TokenArray(np.array([[0.0], [5.0], [2.0], [1.0], [3.0], [4.0]]), [0, 3, 6])
    >>> labels = scores.with_values(np.array([[False], [True], [True], *[[False]] * 3]))
    >>> result = separability(scores, token_labels=labels, random_state=0)
    >>> result.thresholds.round(2), result.share
    (array([[3.96]]), array([[0.5]]))
    """
    samples = read_samples(scores, y, token_labels, labelled=True)
    counts = resample(len(samples.stack), n_resamples, random_state)
    found = _shares(samples, counts, level, lambda tail, maxima, c: tail[:2])
    return _by_layer(samples, *found, level, confidence_level)


@checked(scores=[SCORES], level=_LEVEL, **RESAMPLING)
def coverage(
    scores: Any,
    y: Any = None,
    token_labels: Any = None,
    *,
    level: float = 0.98,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> Bunch:
    r"""Share of the samples with a concept that have a token in the separable tail, by layer.

    .. math:: \frac{|\{x \text{ holds } c : \max_i s_c(z_i) > Q_{0.98}(D_c^{out})\}|}
              {|\{x \text{ holds } c\}|}

    with the scores :math:`D_c^{out}` of all tokens of samples that do not hold c [1]_. Of samples
    **without** the concept, which have a token above it as well, see ``others``: only beside it
    does a coverage mean something, for a long sample easily has one token in fifty above.

    Parameters
    ----------
    scores : LayerStack or TokenArray of shape (n_samples, n_concepts)
        Scores of tokens, a column per concept, of samples that the concept vectors were not fitted
        on. What is on disk is read in pieces.
    y : array-like of shape (n_samples,) or (n_samples, n_concepts), default=None
        What samples hold; None reads it off ``token_labels``.
    token_labels : TokenArray of shape (n_samples, n_concepts), dtype bool, default=None
        Only for y.
    level : float, default=0.98
        Level of the quantile, in (0, 1).
    n_resamples : int, default=1000
        Resamples of the samples, the same ones for all layers and concepts.
    confidence_level : float, default=0.95
        Share of resamples inside the interval.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples.

    Returns
    -------
    result : Bunch
        As from :func:`separability`. ``others`` is such a Bunch again, of the share of samples
        without the concept that have a token above the same quantile, from the same resamples.

    Raises
    ------
    ValueError
        If y and labels are both missing, or do not fit the scores; if all samples hold a concept;
        if a score is not finite.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", section on depth.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray, coverage
    >>> scores = TokenArray(np.array([[0.0], [5.0], [2.0], [1.0], [3.0], [4.0]]), [0, 3, 6])
    >>> coverage(scores, [1, 0], random_state=0).share
    array([[1.]])
    """
    samples = read_samples(scores, y, token_labels, labelled=False)
    samples = Samples(samples.stack, samples.present, None, samples.names)
    counts = resample(len(samples.stack), n_resamples, random_state)

    def reached_by(some: Array) -> Bunch:
        found = _shares(
            samples,
            counts,
            level,
            lambda tail, maxima, c: (maxima[some[:, c], c], np.flatnonzero(some[:, c])),
        )
        return _by_layer(samples, *found, level, confidence_level)

    return Bunch(others=reached_by(~samples.present), **reached_by(samples.present))


@checked(
    scores=[SCORES],
    level=_LEVEL,
    n_bins=[Number(Integral, 1, None, closed="left")],
    **RESAMPLING,
)
def score_distributions(
    scores: Any,
    y: Any = None,
    token_labels: Any = None,
    *,
    level: float = 0.98,
    n_bins: int = 60,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> Bunch:
    r"""Count the scores inside and outside of each concept in bins; skew of the former, by layer.

    .. math:: \mathrm{skew}(D_c^{in}) = \frac{\frac1n \sum (s - \bar s)^3}
              {\left(\frac1n \sum (s - \bar s)^2\right)^{3/2}}

    is positive where the scores :math:`D_c^{in}` of tokens labelled with concept c have a tail
    above [1]_.

    Parameters
    ----------
    scores : LayerStack or TokenArray of shape (n_samples, n_concepts)
        Scores of tokens, a column per concept, of samples that the concept vectors were not fitted
        on. What is on disk is read in pieces.
    y : array-like of shape (n_samples,) or (n_samples, n_concepts), default=None
        What samples hold; None reads it off ``token_labels``.
    token_labels : TokenArray of shape (n_samples, n_concepts), dtype bool
        Tokens that belong to the concepts.
    level : float, default=0.98
        Level of the quantile of the scores outside, in (0, 1).
    n_bins : int, default=60
        Bins of each histogram, from the lowest to the highest score.
    n_resamples : int, default=1000
        Resamples of the samples, the same ones for all layers and concepts.
    confidence_level : float, default=0.95
        Share of resamples inside the interval.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples.

    Returns
    -------
    result : Bunch
        ``inside`` and ``outside``, counts (n_layers, n_concepts, n_bins) between ``edges``,
        (n_layers, n_concepts, n_bins + 1); ``thresholds``, the quantile, and ``skew``,
        (n_layers, n_concepts); ``mean`` of the skew over concepts with ``low`` and ``high``,
        (n_layers,), and ``resamples``, (n_resamples, n_layers); ``layers``, ``concept_names``,
        ``level``. The skew is NaN where all scores are equal.

    Raises
    ------
    ValueError
        If labels are missing, do not fit the scores, or mark no token of a concept; if all samples
        hold one; if a score is not finite.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", section 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray, score_distributions
    >>> scores = TokenArray(np.array([[0.0], [5.0], [2.0], [1.0], [3.0], [4.0]]), [0, 3, 6])
    >>> labels = scores.with_values(np.array([[False], [True], [True], *[[False]] * 3]))
    >>> result = score_distributions(scores, token_labels=labels, n_bins=2, random_state=0)
    >>> result.edges[0, 0], result.inside[0, 0], result.outside[0, 0]
    (array([1., 3., 5.]), array([1, 1]), array([1, 2]))
    """
    samples = read_samples(scores, y, token_labels, labelled=True)
    counts = resample(len(samples.stack), n_resamples, random_state)
    cuts, _ = _shares(samples, counts[:1], level, lambda tail, maxima, c: tail[:2])
    skew = np.empty((len(counts), *cuts.shape[1:]))
    edges = np.empty((*cuts.shape[1:], n_bins + 1))
    bins = np.zeros((2, *cuts.shape[1:], n_bins), np.int64)
    for place, layer in enumerate(samples.stack.layers):
        for c, tail in enumerate(_tails(samples, layer, level)):
            skew[:, place, c] = _skew(tail.inside, tail.inside_sample, counts)
            highest = max(tail.inside.max(), tail.outside[0])
            edges[place, c] = np.linspace(tail.lowest, highest, n_bins + 1)
        for _, sample, values, labels in samples.pieces(layer):
            held = samples.present[sample]
            assert labels is not None
            for c, of in np.ndindex(len(samples.names), 2):
                chosen = values[~held[:, c] if of else labels[:, c], c]
                bins[of, place, c] += _histogram(chosen.astype(np.float64), edges[place, c])
    result = _by_layer(samples, cuts, skew, level, confidence_level)
    return Bunch(inside=bins[0], outside=bins[1], edges=edges, skew=result.pop("share"), **result)


def _histogram(values: Array, edges: Array) -> Array:
    """Count values between edges; where these are all equal, in the first bin."""
    if edges[0] == edges[-1]:
        return np.bincount([0], [len(values)], len(edges) - 1).astype(np.int64)
    return np.histogram(values, edges)[0]


def _skew(scores: Array, sample: Array, counts: Array) -> Array:
    """Skew of the scores of each resample, from sums of powers of those of each sample."""
    spread = scores.std()
    if spread == 0:
        return np.full(len(counts), np.nan)
    unit = (scores - scores.mean()) / spread
    n_samples = counts.shape[1]
    powers = np.stack([np.bincount(sample, unit**k, n_samples) for k in range(4)], axis=1)
    n, *sums = (counts.astype(np.float64) @ powers).T
    with np.errstate(invalid="ignore", divide="ignore"):
        first, second, third = (one / n for one in sums)
        variance = second - first**2
        cube = third - 3 * first * second + 2 * first**3
        # Rounding leaves something of the variance of equal scores.
        return np.where(variance > 1e-12, cube / variance**1.5, np.nan)


class _LayerDisplay(AnalysisDisplay):
    """A share by layer."""

    _fields: ClassVar[tuple[str, ...]] = ("layers", "mean", "low", "high")
    _label: ClassVar[str]

    def _draw(self, ax: Any, result: Bunch) -> None:
        band(ax, result.layers, result)
        ax.set(xlabel="block", ylabel=self._label)
        whole_blocks(ax)


class SeparabilityDisplay(_LayerDisplay):
    """Separable share of the in-concept scores by layer, mean over concepts with its interval.

    Parameters
    ----------
    result : Bunch
        From :func:`separability`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        Its figure.

    Raises
    ------
    ValueError
        If it is no such result.
    """

    _analyse = staticmethod(separability)
    _label = "share of in-concept tokens in the separable tail"


class CoverageDisplay(_LayerDisplay):
    """Share of samples with a concept that reach its separable tail, by layer, with its interval.

    The dashed line is that of samples without the concept.

    Parameters
    ----------
    result : Bunch
        From :func:`coverage`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        Its figure.

    Raises
    ------
    ValueError
        If it is no such result.
    """

    _analyse = staticmethod(coverage)
    _fields = ("layers", "mean", "low", "high", "others")
    _label = "share of samples that reach the separable tail"

    def _draw(self, ax: Any, result: Bunch) -> None:
        super()._draw(ax, result)
        band(ax, result.layers, result.others, ls="--", label="samples without the concept")
        ax.legend()


class ScoreDistributionsDisplay(AnalysisDisplay):
    """Histograms of the scores inside and outside of a concept at one layer.

    Parameters
    ----------
    result : Bunch
        From :func:`score_distributions`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        Its figure.

    Raises
    ------
    ValueError
        If it is no such result.
    """

    _analyse = staticmethod(score_distributions)
    _fields = ("layers", "concept_names", "edges", "inside", "outside", "thresholds", "skew")

    @checked(ax=[AXES, None])
    def plot(self, *, layer: int = -1, concept: int | str = 0, ax: Any = None) -> Self:
        """Draw the two histograms, and the quantile above which lies the separable tail.

        Parameters
        ----------
        layer : int, default=-1
            Block, one of ``result.layers``; a negative number counts from the last of them.
        concept : int or str, default=0
            Number or name of the concept.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : Display
            With ``ax_`` and ``figure_``.

        Raises
        ------
        ValueError
            If there is no such layer or concept.
        """
        layers = np.asarray(self.result.layers).tolist()
        is_number = isinstance(layer, Integral) and not isinstance(layer, bool)
        if is_number and -len(layers) <= layer < 0:
            layer = layers[layer]
        if not is_number or layer not in layers:
            raise ValueError(f"layer must be one of {layers} (or negative), got {layer!r}.")
        self._at = layers.index(layer), *find_concept(self.result.concept_names, concept)
        return super().plot(ax=ax)

    def _draw(self, ax: Any, result: Bunch) -> None:
        place, c, name = self._at
        edges = np.asarray(result.edges[place][c])
        for label in ("outside", "inside"):
            counts = np.asarray(result[label][place][c], float)
            ax.stairs(counts / counts.sum(), edges, fill=True, alpha=0.5, label=label)
        ax.axvline(result.thresholds[place][c], color="black", ls=":", label="quantile outside")
        ax.set(xlabel="score", ylabel="share of tokens")
        ax.set_title(
            f"{name}, block {result.layers[place]}, skew {result.skew[place][c]:.2f}",
            parse_math=False,
        )
        ax.legend()
