"""How many SuperActivators there are in samples that hold a concept, and where they stand.

Source: Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate Reliable
Concept Signals in the Tail", appendices J and M.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import StrOptions

from skact.arguments import Number, checked, instance
from skact.detection import superactivators
from skact.inspection._analysis import (
    RESAMPLING,
    AnalysisDisplay,
    Samples,
    band,
    ends,
    read_samples,
    resample,
)
from skact.inspection._display import AXES
from skact.rows import Array
from skact.tokens import TokenArray

__all__ = [
    "SuperActivatorCountsDisplay",
    "SuperActivatorPositionsDisplay",
    "superactivator_counts",
    "superactivator_positions",
]

_MARKS = instance("a TokenArray(...) of bool, as from superactivators(estimator, X)", TokenArray)


def _read_marks(marks: TokenArray, y: Any, token_labels: Any) -> Samples:
    if marks.dtype != bool:
        raise ValueError(
            f"marks must be bool, got {marks.dtype}; superactivators(estimator, X) gives them."
        )
    return read_samples(marks, y, token_labels, labelled=True, name="marks")


@checked(marks=[_MARKS], n_steps=[Number(Integral, 1, None, closed="left")], **RESAMPLING)
def superactivator_counts(
    marks: Any,
    y: Any = None,
    token_labels: Any = None,
    *,
    n_steps: int = 100,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> Bunch:
    r"""How many SuperActivators a sample has for each of its in-concept tokens.

    .. math:: r_c(x) = \frac{|\{i : z_i \text{ is a SuperActivator of } c\}|}
              {|\{i : z_i \text{ belongs to } c\}|}

    for all pairs of a sample and a concept that it holds, as a cumulative distribution [1]_.
    SuperActivators count whether or not they are labelled, so a ratio may exceed 1.

    Parameters
    ----------
    marks : TokenArray of shape (n_samples, n_concepts), dtype bool
        True at the SuperActivators, as from :func:`~skact.detection.superactivators`.
    y : array-like of shape (n_samples,) or (n_samples, n_concepts), default=None
        What samples hold; None reads it off ``token_labels``.
    token_labels : TokenArray of shape (n_samples, n_concepts), dtype bool
        Tokens that belong to the concepts.
    n_steps : int, default=100
        Steps of the distribution between 0 and 1.
    n_resamples : int, default=1000
        Resamples of the samples, all concepts together.
    confidence_level : float, default=0.95
        Share of resamples inside the interval.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples.

    Returns
    -------
    result : Bunch
        ``ratios`` of the pairs with their ``sample`` and ``concept`` by number, (n_pairs,); the
        share ``mean`` of pairs whose ratio is at most that of ``grid``, with ``low`` and ``high``,
        (n_steps + 1,), whose first entry is the share of pairs without a SuperActivator;
        ``resamples``, (n_resamples, n_steps + 1); ``concept_names``.

    Raises
    ------
    ValueError
        If labels are missing or do not fit the marks, or a sample holds a concept by y of which no
        token is labelled.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", Appendix J.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray, superactivator_counts
    >>> labels = TokenArray(np.array([[True], [True], [False], [True], [False]]), [0, 3, 5])
    >>> marks = labels.with_values(np.array([[True], [False], [False], [False], [False]]))
    >>> result = superactivator_counts(marks, token_labels=labels, n_steps=2, random_state=0)
    >>> result.ratios, result.grid, result.mean
    (array([0.5, 0. ]), array([0. , 0.5, 1. ]), array([0.5, 1. , 1. ]))
    """
    samples = _read_marks(marks, y, token_labels)
    assert samples.labels is not None
    of = marks.sum()
    among = samples.labels.sum()
    lacking = np.argwhere(samples.present & (among == 0))
    if len(lacking):
        i, c = lacking[0]
        raise ValueError(
            f"token_labels marks no token of concept {samples.names[c]!r} in sample {i}, which "
            f"holds it by y ({len(lacking)} such pairs in all); leave y out to read it off the "
            "labels, or leave these samples out."
        )
    sample, concept = np.nonzero(samples.present)
    ratios = of[sample, concept] / among[sample, concept]
    grid = np.linspace(0, 1, n_steps + 1)
    within = (ratios[:, None] <= grid).astype(np.float64)
    weights = resample(len(marks), n_resamples, random_state)[:, sample].astype(np.float64)
    total = weights.sum(axis=1, keepdims=True)
    mean = weights @ within / np.where(total > 0, total, np.nan)
    return Bunch(
        ratios=ratios,
        sample=sample,
        concept=concept,
        concept_names=samples.names,
        grid=grid,
        mean=mean[0],
        **ends(mean, confidence_level),
    )


class _Where(NamedTuple):
    """Positions in each sample, in samples that hold a concept, of tokens of one kind."""

    sums: Array  # (n_samples, n_concepts)
    counts: Array  # (n_samples, n_concepts)
    bins: Array  # (n_samples, n_bins), of all concepts


@checked(marks=[_MARKS], n_bins=[Number(Integral, 1, None, closed="left")], **RESAMPLING)
def superactivator_positions(
    marks: Any,
    y: Any = None,
    token_labels: Any = None,
    *,
    n_bins: int = 10,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> Bunch:
    r"""Where SuperActivators stand in their samples, against the in-concept tokens.

    Token i of a sample with n tokens has the absolute position i, from 0, and the relative one
    :math:`(i + 1/2) / n`. The tokens of an image are counted row by row. For each pair of a sample
    and a concept that it holds, and that has a SuperActivator and a labelled token, the mean
    position of the former minus that of the latter is the difference; its mean over the pairs is 0
    if the positions of SuperActivators are those of the concept [1]_. Tokens of one sample are not
    independent of each other, so the test flips the sign of whole samples: its p-value is the
    share of flips, with the samples as they are among them, whose mean is at least as far from 0.

    Parameters
    ----------
    marks : TokenArray of shape (n_samples, n_concepts), dtype bool
        True at the SuperActivators, as from :func:`~skact.detection.superactivators`.
    y : array-like of shape (n_samples,) or (n_samples, n_concepts), default=None
        What samples hold; None reads it off ``token_labels``.
    token_labels : TokenArray of shape (n_samples, n_concepts), dtype bool
        Tokens that belong to the concepts.
    n_bins : int, default=10
        Bins of the histograms.
    n_resamples : int, default=1000
        Resamples of the samples, all concepts together, and flips.
    confidence_level : float, default=0.95
        Share of resamples inside the interval.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples and the flips.

    Returns
    -------
    result : Bunch
        ``relative`` and ``absolute``, a Bunch each: ``edges`` of bins, (n_bins + 1,); the share of
        ``superactivators`` and of ``labelled`` tokens in each bin, a Bunch of ``mean``, ``low`` and
        ``high``, (n_bins,), and ``resamples``; the ``difference`` with ``low``, ``high`` and
        ``p_value``; ``n_pairs``.

    Raises
    ------
    ValueError
        If labels are missing or do not fit the marks, or no sample that holds a concept has both a
        SuperActivator and a labelled token.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", Appendix M.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray, superactivator_positions
    >>> labels = TokenArray(np.array([[True], [True], [False], [True], [True]]), [0, 3, 5])
    >>> marks = labels.with_values(np.array([[True], [False], [False], [False], [True]]))
    >>> result = superactivator_positions(marks, token_labels=labels, random_state=0)
    >>> result.absolute.difference, result.n_pairs
    (0.0, 2)
    """
    samples = _read_marks(marks, y, token_labels)
    random = check_random_state(random_state)
    counts = resample(len(marks), n_resamples, random)
    flips = 2.0 * random.randint(2, size=(n_resamples, len(marks))) - 1
    found = {}
    for kind in ("relative", "absolute"):
        end = 1.0 if kind == "relative" else float(marks.lengths.max())
        edges = np.linspace(0, end, n_bins + 1)
        ours, theirs = _positions(samples, kind == "relative", edges)
        found[kind] = Bunch(
            edges=edges,
            superactivators=_shares(ours.bins, counts, confidence_level),
            labelled=_shares(theirs.bins, counts, confidence_level),
            **_difference(ours, theirs, counts, flips, confidence_level),
        )
    n_pairs = int(((ours.counts > 0) & (theirs.counts > 0)).sum())
    return Bunch(n_pairs=n_pairs, **found)


def _positions(samples: Samples, relative: bool, edges: Array) -> tuple[_Where, _Where]:
    """Gather positions of SuperActivators and of labelled tokens in one pass."""
    lengths, shape = samples.stack.lengths, samples.present.shape
    both = [
        _Where(np.zeros(shape), np.zeros(shape), np.zeros((shape[0], len(edges) - 1)))
        for _ in range(2)
    ]
    for piece, sample, marks, labels in samples.pieces(samples.stack.layers[0]):
        starts = np.r_[0, np.cumsum(lengths[piece])[:-1]]
        place = np.arange(len(sample)) - starts[sample - piece.start]
        position = (place + 0.5) / lengths[sample] if relative else place.astype(np.float64)
        at = np.clip(np.searchsorted(edges, position, side="right") - 1, 0, len(edges) - 2)
        for where, tokens in zip(both, (marks, labels), strict=True):
            token, concept = np.nonzero(tokens & samples.present[sample])
            np.add.at(where.sums, (sample[token], concept), position[token])
            np.add.at(where.counts, (sample[token], concept), 1)
            np.add.at(where.bins, (sample[token], at[token]), 1)
    return both[0], both[1]


def _shares(bins: Array, counts: Array, confidence_level: float) -> Bunch:
    """Share of tokens in each bin."""
    drawn = counts.astype(np.float64) @ bins
    total = drawn.sum(axis=1, keepdims=True)
    shares = drawn / np.where(total > 0, total, np.nan)
    return Bunch(mean=shares[0], **ends(shares, confidence_level))


def _difference(
    ours: _Where, theirs: _Where, counts: Array, flips: Array, confidence_level: float
) -> dict[str, float]:
    """Mean difference over pairs, its interval, and the share of flips that are as far from 0."""
    pairs = (ours.counts > 0) & (theirs.counts > 0)
    if not pairs.any():
        raise ValueError(
            "marks and token_labels never meet: no sample that holds a concept has both a "
            "SuperActivator and a labelled token of it, so there are no positions to compare."
        )
    means = [
        np.divide(one.sums, one.counts, out=np.zeros(pairs.shape), where=pairs)
        for one in (ours, theirs)
    ]
    per_sample = (means[0] - means[1]).sum(axis=1)
    n_pairs = counts.astype(np.float64) @ pairs.sum(axis=1)
    drawn = counts @ per_sample / np.where(n_pairs > 0, n_pairs, np.nan)
    interval = ends(drawn, confidence_level)
    # Equal means are as far from 0 whatever the rounding.
    reached = np.abs(flips @ per_sample) >= abs(per_sample.sum()) - 1e-9
    return {
        "difference": float(drawn[0]),
        "low": float(interval["low"]),
        "high": float(interval["high"]),
        "p_value": float((1 + reached.sum()) / (1 + len(flips))),
    }


class _MarksDisplay(AnalysisDisplay):
    """Reads the SuperActivators of an estimator."""

    @staticmethod
    def _read(estimator: Any, X: Any) -> Any:
        return superactivators(estimator, X)


class SuperActivatorCountsDisplay(_MarksDisplay):
    """Cumulative distribution of SuperActivators for each in-concept token, with its interval.

    Parameters
    ----------
    result : Bunch
        From :func:`superactivator_counts`.

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

    _analyse = staticmethod(superactivator_counts)
    _fields = ("grid", "mean", "low", "high")

    def _draw(self, ax: Any, result: Bunch) -> None:
        band(ax, result.grid, result)
        ax.set(
            xlabel="SuperActivators for each in-concept token",
            ylabel="share of samples with the concept",
            ylim=(0, 1.02),
        )


class SuperActivatorPositionsDisplay(_MarksDisplay):
    """Histograms of the positions of SuperActivators and of in-concept tokens, with intervals.

    Parameters
    ----------
    result : Bunch
        From :func:`superactivator_positions`.

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

    _analyse = staticmethod(superactivator_positions)
    _fields = ("relative", "absolute")

    @checked(kind=[StrOptions({"relative", "absolute"})], ax=[AXES, None])
    def plot(self, *, kind: str = "relative", ax: Any = None) -> Self:
        """Draw the histograms.

        Parameters
        ----------
        kind : {"relative", "absolute"}, default="relative"
            Positions as a share of the sample, or counted from its begin.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : Display
            With ``ax_`` and ``figure_``.
        """
        self._kind = kind
        return super().plot(ax=ax)

    def _draw(self, ax: Any, result: Bunch) -> None:
        found = result[self._kind]
        edges = np.asarray(found["edges"])
        for name, label in (("superactivators", "SuperActivators"), ("labelled", "in-concept")):
            band(ax, (edges[1:] + edges[:-1]) / 2, found[name], label=label)
        ax.set(xlabel=f"{self._kind} position", ylabel="share of tokens")
        ax.set_title(f"difference {found['difference']:.3f}, p = {found['p_value']:.3f}")
        ax.legend()
