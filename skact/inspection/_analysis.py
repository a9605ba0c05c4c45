"""What all analyses share: what they read, how samples are resampled, how results are drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch, check_random_state

from skact.arguments import Number, checked, instance
from skact.base import concept_names
from skact.detection import BaseDetector, SuperActivator
from skact.embedding import TransformerEmbedder
from skact.extras import need
from skact.inspection._display import AXES
from skact.models import resolve_layers
from skact.preprocessing import SelectLayer
from skact.rows import Array, all_finite
from skact.targets import as_token_labels, check_label_lengths, check_targets, check_token_labels
from skact.tokens import LayerStack, TokenArray

__all__ = [
    "RESAMPLING",
    "SCORES",
    "AnalysisDisplay",
    "Samples",
    "band",
    "ends",
    "read_samples",
    "resample",
    "scores_by_layer",
    "whole_blocks",
    "winners_by_layer",
]

SCORES = instance("a LayerStack(...) or TokenArray(...)", LayerStack, TokenArray)
#: Settings that all intervals have.
RESAMPLING: dict[str, Any] = {
    "n_resamples": [Number(Integral, 1, None, closed="left")],
    "confidence_level": [Number(Real, 0, 1, closed="neither")],
    "random_state": ["random_state"],
}


@dataclass(frozen=True)
class Samples:
    """Scores or marks of samples at one layer or more, and what the samples hold.

    Parameters
    ----------
    stack : LayerStack of shape (n_samples, n_concepts)
        A column per concept.
    present : ndarray of shape (n_samples, n_concepts), dtype bool
        Samples that hold the concepts.
    labels : TokenArray of shape (n_samples, n_concepts), dtype bool, or None
        Tokens that belong to them.
    names : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    """

    stack: LayerStack
    present: Array
    labels: TokenArray | None
    names: Array

    @property
    def layers(self) -> Array:
        """The blocks, int64 of shape (n_layers,)."""
        return np.array(self.stack.layers, np.int64)

    def pieces(self, layer: int) -> Iterator[tuple[slice, Array, Array, Array | None]]:
        """Go through a layer: samples, the sample of each token, scores, labels."""
        tokens = self.stack.layer(layer)
        lengths = tokens.lengths
        for piece, scores in tokens.blocks():
            if scores.dtype.kind == "f" and not all_finite(scores):
                raise ValueError(
                    f"scores must be finite, but layer {layer} holds NaN or infinity in samples "
                    f"{piece.start} to {piece.stop - 1}."
                )
            sample = np.repeat(np.arange(piece.start, piece.stop), lengths[piece])
            labels = None if self.labels is None else self.labels[piece].flat()
            yield piece, sample, scores, labels


def read_samples(
    scores: Any, y: Any, token_labels: Any, *, labelled: bool, name: str = "scores"
) -> Samples:
    """Check that scores, targets and labels of tokens belong together.

    Parameters
    ----------
    scores : LayerStack or TokenArray of shape (n_samples, n_concepts)
        Scores, or marks.
    y : array-like or None
        None: a sample holds a concept where a token belongs to it.
    token_labels : TokenArray, list of arrays or None
        Labels of tokens.
    labelled : bool
        Whether labels of tokens are needed.
    name : str, default="scores"
        What the scores are called.

    Returns
    -------
    samples : Samples
        All of it.

    Raises
    ------
    ValueError
        If something is missing or does not fit.
    """
    if isinstance(scores, TokenArray):
        block = None if scores.source is None else scores.source.block
        scores = LayerStack({0 if block is None else block: scores})
    if token_labels is None and (labelled or y is None):
        raise ValueError(
            "token_labels is missing: the analysis compares tokens that belong to a concept with "
            "others, and labels of samples do not tell them apart; TransformerEmbedder.align_spans "
            "and align_masks make them."
            if labelled
            else "y and token_labels are both missing: pass one that says what samples hold."
        )
    labels = None if token_labels is None else as_token_labels(token_labels)
    if labels is not None:
        check_label_lengths(labels, scores.lengths, name)
        y = _held(labels) if y is None else y
    targets = check_targets(SuperActivator(), y, len(scores))
    if labels is not None:
        labels, targets = check_token_labels(labels, scores.layer(scores.layers[0]), targets)
    if scores.n_features != targets.n_concepts:
        raise ValueError(
            f"{name} has {scores.n_features} columns for {targets.n_concepts} concepts; of units, "
            "take the column of each concept by columns(detector.matched_columns_)."
        )
    columns = scores.layer(scores.layers[0]).feature_names
    names = concept_names(targets.names or columns, targets.n_concepts)
    if columns and sorted(columns) == sorted(names) and list(columns) != list(names):
        raise ValueError(
            f"{name} has the concepts in the order {list(columns)}, the labels in {list(names)}; "
            "use one order."
        )
    return Samples(scores, targets.present, labels, names)


def _held(labels: TokenArray) -> Array:
    """Read off labels of tokens what samples hold; every concept must be held by one."""
    held: Array = labels.max()
    missing = np.flatnonzero(~held.any(axis=0))
    if len(missing):
        c, names = int(missing[0]), labels.feature_names
        concept = f"{c} ({names[c]!r})" if names else c
        raise ValueError(
            f"token_labels marks no token of concept {concept} in any sample; label some "
            "of its tokens, or leave its column out of scores and labels."
        )
    return held


def resample(n_samples: int, n_resamples: int, random_state: Any) -> Array:
    """Tell how often each resample holds each sample.

    Parameters
    ----------
    n_samples : int
        Samples.
    n_resamples : int
        Resamples.
    random_state : int, RandomState instance or None
        Draws them.

    Returns
    -------
    counts : ndarray of shape (1 + n_resamples, n_samples), dtype uint16
        The first row is the samples themselves, each once.

    Raises
    ------
    ValueError
        If there are fewer than two samples.
    """
    if n_samples < 2:
        raise ValueError(f"the bootstrap needs at least 2 samples, got {n_samples} in scores.")
    rng = np.random.default_rng(check_random_state(random_state).randint(2**31 - 1))
    counts = np.ones((1 + n_resamples, n_samples), np.uint16)
    for row in counts[1:]:
        row[:] = np.bincount(rng.integers(n_samples, size=n_samples), minlength=n_samples)
    return counts


def ends(values: Array, confidence_level: float) -> dict[str, Array]:
    """Percentile interval of what resamples give; ends are NaN where most give none.

    Parameters
    ----------
    values : ndarray of shape (1 + n_resamples, ...)
        Of the samples themselves, then of resamples.
    confidence_level : float
        Share of resamples inside.

    Returns
    -------
    interval : dict
        ``low``, ``high`` of shape (...), and ``resamples``, of shape (n_resamples, ...).
    """
    drawn = values[1:]
    if not len(drawn):  # what a search has found has no samples
        nothing = np.full(drawn.shape[1:], np.nan)
        return {"low": nothing, "high": nothing, "resamples": drawn}
    levels = [(1 - confidence_level) / 2, (1 + confidence_level) / 2]
    defined = np.isfinite(drawn).mean(axis=0) >= 0.5
    # Columns of NaN alone would warn.
    low, high = np.nanquantile(np.where(defined, drawn, 0), levels, axis=0)
    return {
        "low": np.where(defined, low, np.nan),
        "high": np.where(defined, high, np.nan),
        "resamples": drawn,
    }


def scores_by_layer(estimator: Any, X: Any) -> Any:
    """Score samples at each layer that an estimator reads.

    Parameters
    ----------
    estimator : ConceptSearchCV, Pipeline or detector
        Fitted. A search has the layers of its winners, or all layers of X if nothing but
        SelectLayer stands before its detector.
    X : object
        What the estimator takes.

    Returns
    -------
    scores : LayerStack or TokenArray of shape (n_samples, n_concepts)
        The column that each concept reads.
    """
    if isinstance(estimator, BaseDetector):
        return X
    if isinstance(estimator, Pipeline):
        scores = estimator[:-1].transform(X)
        return scores.columns(estimator[-1].matched_columns_)
    winners = winners_by_layer(estimator)
    steps = [step for _, step in next(iter(winners.values())).steps[:-1]]
    if isinstance(X, LayerStack) and all(isinstance(step, SelectLayer) for step in steps):
        return X
    embedder = estimator.embedder_
    if embedder is not None:
        X = clone(embedder).set_params(layer=list(winners)).transform(X)
    found = {}
    for layer, winner in winners.items():
        if embedder is None:
            scores = winner[:-1].transform(X)
        else:
            scores = X.layer(layer)
            scores = winner[1:-1].transform(scores) if len(winner.steps) > 2 else scores
        found[layer] = scores.columns(winner[-1].matched_columns_)
    return LayerStack(found)


def winners_by_layer(search: Any) -> dict[int, Pipeline]:
    """Fitted winners of a search, one for each layer that a concept has chosen; ascending.

    Raises
    ------
    TypeError
        If it is no fitted search over layers that keeps its winners.
    """
    winners: dict[int, Pipeline] = {}
    for winner in getattr(search, "best_estimators_", {}).values():
        block = _block(winner)
        if block is not None:
            winners.setdefault(block, winner)
    if not winners:
        raise TypeError(
            "estimator must be a detector, a Pipeline that ends in one, or a fitted "
            "ConceptSearchCV over layers that keeps its winners (refit=True); of a "
            f"ConceptDetector, one of its pipelines_. Got {type(search).__name__}."
        )
    return dict(sorted(winners.items()))


def _block(winner: Any) -> int | None:
    """Block that a fitted pipeline reads, if it chooses one."""
    for _, step in winner.steps if isinstance(winner, Pipeline) else []:
        if isinstance(step, SelectLayer):
            return step.layer_
        if isinstance(step, TransformerEmbedder):
            blocks, _ = resolve_layers(step.layer, step.n_blocks)
            return blocks[0] if len(blocks) == 1 else None
    return None


class AnalysisDisplay(ABC):
    """Draws the result of an analysis, which a subclass names."""

    _analyse: ClassVar[Callable[..., Bunch]]
    _fields: ClassVar[tuple[str, ...]]

    ax_: Any
    figure_: Any

    @checked(result=[instance("a Bunch(...), or a dict of the same", dict)])
    def __init__(self, result: Any) -> None:
        lacking = [name for name in self._fields if name not in result]
        if lacking:
            raise ValueError(
                f"result must be what {self._analyse.__name__} returns, but lacks {lacking[0]!r}."
            )
        self.result = Bunch(**result)

    @classmethod
    @checked(ax=[AXES, None])
    def from_predictions(
        cls, scores: Any, y: Any = None, token_labels: Any = None, *, ax: Any = None, **options: Any
    ) -> Self:
        """Analyse scores and draw the result.

        Parameters
        ----------
        scores, y, token_labels : as in the analysis
            Scores of samples, or marks of their tokens, and what the samples hold.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **options : dict
            Settings of the analysis.

        Returns
        -------
        display : Display
            With ``ax_`` and ``figure_``.

        Raises
        ------
        ValueError, TypeError
            As the analysis, or if ax is no matplotlib Axes.
        """
        return cls(cls._analyse(scores, y, token_labels, **options)).plot(ax=ax)

    @classmethod
    @checked(ax=[AXES, None])
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        token_labels: Any = None,
        *,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Score samples, analyse the scores and draw the result.

        Parameters
        ----------
        estimator : ConceptSearchCV, Pipeline or detector
            Fitted. A search scores at the layers of its winners; where nothing but SelectLayer
            stands before its detector, all layers of X are analysed.
        X : object
            What the estimator takes; for a detector, its scores.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts), default=None
            What samples hold; None reads it off ``token_labels``.
        token_labels : TokenArray of shape (n_samples, n_concepts), dtype bool, default=None
            Tokens that belong to the concepts.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **options : dict
            Settings of the analysis.

        Returns
        -------
        display : Display
            With ``ax_`` and ``figure_``.

        Raises
        ------
        TypeError
            If the estimator does not end in a detector.
        """
        return cls.from_predictions(cls._read(estimator, X), y, token_labels, ax=ax, **options)

    @staticmethod
    def _read(estimator: Any, X: Any) -> Any:
        """Get from an estimator what the analysis takes."""
        return scores_by_layer(estimator, X)

    @checked(ax=[AXES, None])
    def plot(self, *, ax: Any = None) -> Self:
        """Draw the result.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : Display
            With ``ax_`` and ``figure_``.

        Raises
        ------
        ValueError
            If ax is no matplotlib Axes.
        """
        plt = need("matplotlib.pyplot", "plot")
        if ax is None:
            _, ax = plt.subplots(figsize=(6, 4), layout="constrained")
        self._draw(ax, self.result)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @abstractmethod
    def _draw(self, ax: Any, result: Bunch) -> None:
        """Draw it."""


def band(ax: Any, x: Any, curves: Any, row: Any = ..., **style: Any) -> None:
    """Draw a curve over its interval; ``row`` takes one of several."""
    mean, low, high = (np.asarray(curves[name], float)[row] for name in ("mean", "low", "high"))
    (line,) = ax.plot(x, mean, marker="o", ms=3, **style)
    ax.fill_between(x, low, high, alpha=0.2, color=line.get_color(), lw=0)
    if np.size(x) == 1:  # whose band has no width
        ax.vlines(x, low, high, alpha=0.5, color=line.get_color())


def whole_blocks(ax: Any) -> None:
    """Tick no fractions of blocks."""
    ticker = need("matplotlib.ticker", "plot")
    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
