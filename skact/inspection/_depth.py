"""F1 of detection by layer, by ``delta`` and by detector, and what concepts choose among these.

F1 comes from a fitted :class:`~skact.model_selection.ConceptSearchCV`, which has it in
``cv_results_``, or from scores: thresholds are then set on calibration samples, the layer and the
``delta`` of a concept are those with the best F1 there (ties go to the smaller delta, then the
earlier layer), and F1 is read on the other samples. Intervals resample the samples that F1 is read
on, and leave thresholds as they are.

Source: Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate Reliable
Concept Signals in the Tail", appendices H, I, K and L.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import Bunch

from skact.arguments import checked
from skact.detection import BaseDetector, SuperActivator
from skact.inspection._analysis import (
    RESAMPLING,
    AnalysisDisplay,
    band,
    ends,
    scores_by_layer,
    whole_blocks,
)
from skact.inspection._judging import ALL_DETECTORS, DELTAS, DETECTORS, SOURCE, judge
from skact.tail import DELTA_GRID

__all__ = [
    "BestLayersDisplay",
    "BestSparsityDisplay",
    "DepthCurveDisplay",
    "SparsityCurveDisplay",
    "best_layers",
    "best_sparsity",
    "depth_curve",
    "sparsity_curve",
]


@checked(
    scores=[SOURCE],
    calibration=["array-like", None],
    deltas=[DELTAS],
    **RESAMPLING,
)
def sparsity_curve(
    scores: Any,
    y: Any = None,
    token_labels: Any = None,
    *,
    calibration: npt.ArrayLike | None = None,
    deltas: npt.ArrayLike = DELTA_GRID,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> Bunch:
    """F1 of SuperActivator against ``delta``, each concept at its best layer.

    Parameters
    ----------
    scores : LayerStack or TokenArray of shape (n_samples, n_concepts), or ConceptSearchCV
        Scores of tokens, a column per concept, of samples that the concept vectors were not fitted
        on; or a fitted search over layers and deltas, whose own F1 are read. What is on disk is
        read in pieces.
    y : array-like of shape (n_samples,) or (n_samples, n_concepts), default=None
        What samples hold; None reads it off ``token_labels``.
    token_labels : TokenArray of shape (n_samples, n_concepts), dtype bool, default=None
        Tokens that belong to the concepts; None counts every token of a positive sample.
    calibration : array-like of shape (n_samples,), dtype bool
        Samples that thresholds and layers are chosen on; F1 is read on the others. Of scores only.
    deltas : array-like of shape (n_deltas,), default=DELTA_GRID
        Sparsities in (0, 1), ascending. Of scores only.
    n_resamples : int, default=1000
        Resamples of the samples that F1 is read on, the same ones for all deltas.
    confidence_level : float, default=0.95
        Share of resamples inside the interval.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples.

    Returns
    -------
    result : Bunch
        ``f1``, (n_deltas, n_concepts), and ``mean`` weighted by the samples that hold a concept,
        with ``low`` and ``high``, (n_deltas,), NaN for a search; ``resamples`` of the mean,
        (n_resamples, n_deltas); ``layers``, the best one of each concept, and ``best_deltas``,
        (n_concepts,); ``deltas``, ``concept_names``.

    Raises
    ------
    ValueError
        If y and labels are both missing, or do not fit the scores; if ``calibration`` does not
        split the samples, or leaves a concept without one; if a search did not try every delta at
        every layer.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray, sparsity_curve
    >>> y = np.arange(40) % 2
    >>> scores = TokenArray(y[:, None] + np.linspace(0, 0.5, 40)[:, None], np.arange(41))
    >>> half = np.arange(40) < 20
    >>> sparsity_curve(scores, y, calibration=half, deltas=[0.5, 0.9], random_state=0).mean
    array([1., 1.])
    """
    detectors = {"SuperActivator": SuperActivator()}
    (judged,) = judge(scores, y, token_labels, deltas, detectors, calibration).values()
    layer, delta = judged.chosen(judged.f1)
    every = np.arange(len(judged.deltas))[:, None]
    counts = judged.counts(n_resamples, random_state)
    f1, mean = judged.mean_f1(layer, every, counts)
    return Bunch(
        deltas=judged.deltas,
        concept_names=judged.names,
        layers=judged.layers[layer],
        best_deltas=judged.deltas[delta],
        f1=f1,
        mean=mean[0],
        **ends(mean, confidence_level),
    )


@checked(
    scores=[SOURCE],
    calibration=["array-like", None],
    deltas=[DELTAS],
    detectors=[DETECTORS, None],
    **RESAMPLING,
)
def depth_curve(
    scores: Any,
    y: Any = None,
    token_labels: Any = None,
    *,
    calibration: npt.ArrayLike | None = None,
    deltas: npt.ArrayLike = DELTA_GRID,
    detectors: Mapping[str, BaseDetector] | None = None,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> Bunch:
    """F1 of each detector by layer, each concept at its best ``delta`` of the layer.

    Parameters
    ----------
    scores : LayerStack or TokenArray of shape (n_samples, n_concepts), or ConceptSearchCV
        Scores of tokens, a column per concept, of samples that the concept vectors were not fitted
        on; or a fitted search over layers and deltas, whose own F1 are read. What is on disk is
        read in pieces.
    y : array-like of shape (n_samples,) or (n_samples, n_concepts), default=None
        What samples hold; None reads it off ``token_labels``.
    token_labels : TokenArray of shape (n_samples, n_concepts), dtype bool, default=None
        Tokens that belong to the concepts; None counts every token of a positive sample.
    calibration : array-like of shape (n_samples,), dtype bool
        Samples that thresholds and deltas are chosen on; F1 is read on the others. Of scores only.
    deltas : array-like of shape (n_deltas,), default=DELTA_GRID
        Sparsities in (0, 1), ascending. Of scores only.
    detectors : dict of str to detector, default=None
        None takes SuperActivator and its four baselines on tokens. Of scores only; a search has
        its own detector.
    n_resamples : int, default=1000
        Resamples of the samples that F1 is read on, the same ones for all detectors and layers.
    confidence_level : float, default=0.95
        Share of resamples inside the interval.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples.

    Returns
    -------
    result : Bunch
        ``f1`` and ``best_deltas``, (n_detectors, n_layers, n_concepts); ``mean`` weighted by the
        samples that hold a concept, with ``low`` and ``high``, (n_detectors, n_layers), NaN for a
        search; ``resamples`` of the mean, (n_resamples, n_detectors, n_layers); ``detectors``,
        ``layers``, ``concept_names``.

    Raises
    ------
    ValueError
        If y and labels are both missing, or do not fit the scores; if ``calibration`` does not
        split the samples, or leaves a concept without one; if a search did not try every delta at
        every layer.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import MaxToken, TokenArray, depth_curve
    >>> y = np.arange(40) % 2
    >>> scores = TokenArray(y[:, None] + np.linspace(0, 0.5, 40)[:, None], np.arange(41))
    >>> result = depth_curve(
    ...     scores, y, calibration=np.arange(40) < 20, detectors={"max": MaxToken()}
    ... )
    >>> result.detectors, result.mean
    (['max'], array([[1.]]))
    """
    found = judge(scores, y, token_labels, deltas, detectors or ALL_DETECTORS, calibration)
    counts = next(iter(found.values())).counts(n_resamples, random_state)
    best, f1, mean = [], [], []
    for judged in found.values():
        delta = judged.f1.argmax(axis=1)
        at_layers, means = judged.mean_f1(np.arange(len(delta))[:, None], delta, counts)
        best.append(judged.deltas[delta])
        f1.append(at_layers)
        mean.append(means)
    means = np.stack(mean, axis=1)
    return Bunch(
        detectors=list(found),
        layers=judged.layers,
        concept_names=judged.names,
        best_deltas=np.array(best),
        f1=np.array(f1),
        mean=means[0],
        **ends(means, confidence_level),
    )


@checked(scores=[SOURCE], deltas=[DELTAS], **RESAMPLING)
def best_sparsity(
    scores: Any,
    y: Any = None,
    token_labels: Any = None,
    *,
    deltas: npt.ArrayLike = DELTA_GRID,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> Bunch:
    """How many concepts choose which ``delta`` of SuperActivator at each layer.

    Parameters
    ----------
    scores : LayerStack or TokenArray of shape (n_samples, n_concepts), or ConceptSearchCV
        Scores of tokens of calibration samples, a column per concept; or a fitted search over
        layers and deltas, whose own F1 are read. What is on disk is read in pieces.
    y : array-like of shape (n_samples,) or (n_samples, n_concepts), default=None
        What samples hold; None reads it off ``token_labels``.
    token_labels : TokenArray of shape (n_samples, n_concepts), dtype bool, default=None
        Tokens that belong to the concepts; None counts every token of a positive sample.
    deltas : array-like of shape (n_deltas,), default=DELTA_GRID
        Sparsities in (0, 1), ascending. Of scores only.
    n_resamples : int, default=1000
        Resamples of the samples: how far the choices are those of these samples.
    confidence_level : float, default=0.95
        Share of resamples inside the interval.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples.

    Returns
    -------
    result : Bunch
        ``counts`` of concepts with ``low`` and ``high``, (n_layers, n_deltas), NaN for a search;
        ``best_deltas``, (n_layers, n_concepts); ``resamples`` of the counts, (n_resamples,
        n_layers, n_deltas); ``layers``, ``deltas``, ``concept_names``.

    Raises
    ------
    ValueError
        If y and labels are both missing, or do not fit the scores; if a search did not try every
        delta at every layer.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import TokenArray, best_sparsity
    >>> y = np.arange(40) % 2
    >>> scores = TokenArray(y[:, None] + np.linspace(0, 0.5, 40)[:, None], np.arange(41))
    >>> best_sparsity(scores, y, deltas=[0.1, 0.95], random_state=0).counts
    array([[0, 1]])
    """
    detectors = {"SuperActivator": SuperActivator()}
    (judged,) = judge(scores, y, token_labels, deltas, detectors).values()
    best = judged.f1.argmax(axis=1)
    drawn = judged.drawn_f1(judged.counts(n_resamples, random_state)).argmax(axis=2)
    each = np.arange(len(judged.deltas))[:, None]
    counts = np.stack([(one[:, None] == each).sum(axis=2) for one in drawn])
    return Bunch(
        layers=judged.layers,
        deltas=judged.deltas,
        concept_names=judged.names,
        best_deltas=judged.deltas[best],
        counts=counts[0],
        **ends(counts, confidence_level),
    )


@checked(scores=[SOURCE], deltas=[DELTAS], detectors=[DETECTORS, None], **RESAMPLING)
def best_layers(
    scores: Any,
    y: Any = None,
    token_labels: Any = None,
    *,
    deltas: npt.ArrayLike = DELTA_GRID,
    detectors: Mapping[str, BaseDetector] | None = None,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> Bunch:
    """How many concepts choose which layer, by detector.

    Parameters
    ----------
    scores : LayerStack or TokenArray of shape (n_samples, n_concepts), or ConceptSearchCV
        Scores of tokens of calibration samples, a column per concept; or a fitted search over
        layers and deltas, whose own F1 are read. What is on disk is read in pieces.
    y : array-like of shape (n_samples,) or (n_samples, n_concepts), default=None
        What samples hold; None reads it off ``token_labels``.
    token_labels : TokenArray of shape (n_samples, n_concepts), dtype bool, default=None
        Tokens that belong to the concepts; None counts every token of a positive sample.
    deltas : array-like of shape (n_deltas,), default=DELTA_GRID
        Sparsities in (0, 1), ascending. Of scores only.
    detectors : dict of str to detector, default=None
        None takes SuperActivator and its four baselines on tokens. Of scores only; a search has
        its own detector.
    n_resamples : int, default=1000
        Resamples of the samples: how far the choices are those of these samples.
    confidence_level : float, default=0.95
        Share of resamples inside the interval.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples.

    Returns
    -------
    result : Bunch
        ``counts`` of concepts with ``low`` and ``high``, (n_detectors, n_layers), NaN for a
        search; ``best_layers``, (n_detectors, n_concepts); ``resamples`` of the counts,
        (n_resamples, n_detectors, n_layers); ``detectors``, ``layers``, ``concept_names``.

    Raises
    ------
    ValueError
        If y and labels are both missing, or do not fit the scores; if a search did not try every
        delta at every layer.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import LayerStack, TokenArray, best_layers
    >>> y = np.arange(40) % 2
    >>> good = TokenArray(y[:, None] + np.linspace(0, 0.5, 40)[:, None], np.arange(41))
    >>> stack = LayerStack({2: good.map(np.negative), 5: good})
    >>> result = best_layers(stack, y, random_state=0)
    >>> result.counts[result.detectors.index("MaxToken")]
    array([0, 1])
    """
    found = judge(scores, y, token_labels, deltas, detectors or ALL_DETECTORS)
    counts = next(iter(found.values())).counts(n_resamples, random_state)
    best, chosen = [], []
    for judged in found.values():
        best.append(judged.layers[judged.chosen(judged.f1)[0]])
        layer, _ = judged.chosen(judged.drawn_f1(counts))
        each = np.arange(len(judged.layers))[:, None]
        chosen.append((layer[:, None] == each).sum(axis=2))
    drawn = np.stack(chosen, axis=1)
    return Bunch(
        detectors=list(found),
        layers=judged.layers,
        concept_names=judged.names,
        best_layers=np.array(best),
        counts=drawn[0],
        **ends(drawn, confidence_level),
    )


class _SearchDisplay(AnalysisDisplay):
    """Also reads the F1 of a search alone."""

    @staticmethod
    def _read(estimator: Any, X: Any) -> Any:
        return estimator if X is None else scores_by_layer(estimator, X)


class SparsityCurveDisplay(_SearchDisplay):
    """F1 against ``delta``, each concept at its best layer, with the interval of the mean.

    ``from_estimator(search, None)`` draws the F1 that a search has found itself.

    Parameters
    ----------
    result : Bunch
        From :func:`sparsity_curve`.

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

    _analyse = staticmethod(sparsity_curve)
    _fields = ("deltas", "mean", "low", "high")

    def _draw(self, ax: Any, result: Bunch) -> None:
        band(ax, result.deltas, result)
        ax.set(xlabel="delta", ylabel="weighted F1")


class BestSparsityDisplay(_SearchDisplay):
    """How many concepts choose which ``delta`` at each layer.

    ``from_estimator(search, None)`` draws what a search has chosen itself.

    Parameters
    ----------
    result : Bunch
        From :func:`best_sparsity`.

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

    _analyse = staticmethod(best_sparsity)
    _fields = ("layers", "deltas", "counts")

    def _draw(self, ax: Any, result: Bunch) -> None:
        image = ax.imshow(np.asarray(result.counts), origin="lower", aspect="auto", cmap="viridis")
        ax.set_xticks(range(len(result.deltas)), [f"{delta:g}" for delta in result.deltas])
        ax.set_yticks(range(len(result.layers)), result.layers)
        ax.set(xlabel="delta", ylabel="block")
        ax.figure.colorbar(image, ax=ax, label="concepts")


class DepthCurveDisplay(_SearchDisplay):
    """F1 of each detector by layer, with the interval of the mean.

    ``from_estimator(search, None)`` draws the F1 that a search has found itself.

    Parameters
    ----------
    result : Bunch
        From :func:`depth_curve`.

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

    _analyse = staticmethod(depth_curve)
    _fields = ("layers", "detectors", "mean", "low", "high")

    def _draw(self, ax: Any, result: Bunch) -> None:
        for row, name in enumerate(result.detectors):
            band(ax, result.layers, result, row, label=name)
        ax.set(xlabel="block", ylabel="weighted F1")
        whole_blocks(ax)
        ax.legend()


class BestLayersDisplay(_SearchDisplay):
    """How many concepts choose which layer, a bar for each detector.

    ``from_estimator(search, None)`` draws what a search has chosen itself.

    Parameters
    ----------
    result : Bunch
        From :func:`best_layers`.

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

    _analyse = staticmethod(best_layers)
    _fields = ("layers", "detectors", "counts")

    def _draw(self, ax: Any, result: Bunch) -> None:
        width = 0.8 / len(result.detectors)
        for row, name in enumerate(result.detectors):
            place = np.arange(len(result.layers)) + (row - (len(result.detectors) - 1) / 2) * width
            ax.bar(place, np.asarray(result.counts)[row], width, label=name)
        ax.set_xticks(range(len(result.layers)), result.layers)
        ax.set(xlabel="block", ylabel="concepts")
        ax.legend()
