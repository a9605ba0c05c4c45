"""The analyses of the paper by linear separators, and what its claims come to, with intervals.

Scaler and separators are fitted on train, at every block. Distributions, separable tails and
coverage are those of cal and test together, on which nothing was fitted. Thresholds, layers and
deltas are chosen on cal; F1, counts and positions are read on test. Intervals are 95 % percentile
bootstraps over samples; differences are taken within each resample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skact.cached import cached_property
from skact.concepts import LinearSeparator
from skact.detection import MaxToken, SuperActivator
from skact.inspection import (
    best_layers,
    best_sparsity,
    coverage,
    depth_curve,
    score_distributions,
    separability,
    sparsity_curve,
    superactivator_counts,
    superactivator_positions,
)
from skact.preprocessing import TokenScaler
from skact.rows import Array
from skact.tail import DELTA_GRID
from skact.tokens import LayerStack, TokenArray

__all__ = ["VECTOR", "Analyst", "chosen_marks", "enough_samples", "mean_vectors"]

#: The baseline of one vector per sample: its own separators, on the mean of the tokens.
VECTOR = "mean vector"
# Sparsities that the paper finds best.
_PAPER = (0.05, 0.1)
_SHOWN = 4  # concepts of which histograms are kept

Found = tuple[dict[str, Any], dict[str, Any]]


class Analyst:
    """Makes one analysis after the other, of the same scores.

    Parameters
    ----------
    tokens, vectors : LayerStack
        Activations, and the mean of those of each sample as a sample of one token.
    labels : TokenArray of shape (n_samples, n_concepts), dtype bool
        With the names of the concepts.
    split : ndarray of shape (n_samples,)
        "train", "cal" or "test".
    n_resamples : int, default=1000
        Of the samples, for intervals.
    seed : int, default=0
        Of the resamples.
    """

    def __init__(
        self,
        tokens: LayerStack,
        vectors: LayerStack,
        labels: TokenArray,
        split: Any,
        n_resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        self.tokens = tokens
        self.vectors = vectors
        self.labels = labels
        self.split = np.asarray(split)
        self.quick: dict[str, Any] = {"n_resamples": n_resamples, "random_state": seed}
        held = np.flatnonzero(self.split != "train")
        self.held_labels = labels[held]
        self.is_cal = self.split[held] == "cal"

    @cached_property
    def scores(self) -> LayerStack:
        """Scores of tokens, on cal and test."""
        return _scores(self.tokens, self.labels.max().astype(int), self.labels, self.split)

    @cached_property
    def vector_scores(self) -> LayerStack:
        """Scores of the vectors of samples, on cal and test."""
        return _scores(self.vectors, self.labels.max().astype(int), None, self.split)

    @cached_property
    def sparsity(self) -> Bunch:
        """F1 against delta."""
        return sparsity_curve(*self._held, calibration=self.is_cal, **self.quick)

    @property
    def _held(self) -> tuple[LayerStack, None, TokenArray]:
        return self.scores, None, self.held_labels

    @property
    def _cal(self) -> tuple[LayerStack, None, TokenArray]:
        return self.scores[self.is_cal], None, self.held_labels[self.is_cal]

    @cached_property
    def _marks(self) -> tuple[TokenArray, None, TokenArray]:
        """SuperActivators on test, of the layer and delta that were chosen."""
        marks = chosen_marks(self.scores, self.sparsity, self.held_labels, self.is_cal)
        return marks[~self.is_cal], None, self.held_labels[~self.is_cal]

    def analyse(self, name: str) -> dict[str, Any]:
        """Make an analysis.

        Parameters
        ----------
        name : str
            One of :data:`ANALYSES`.

        Returns
        -------
        found : dict
            ``result``, what the function of this name gives, without its resamples; and
            ``claims``, what those of the paper come to that it bears on. All as JSON holds it.
        """
        result, claims = getattr(self, f"_{name}")()
        return {"result": _plain(result), "claims": claims}

    def _score_distributions(self) -> Found:
        spread = score_distributions(*self._held, n_bins=40, **self.quick)
        return _thinned(spread), {"skew": _of_depth(spread)}

    def _separability(self) -> Found:
        tail = separability(*self._held, **self.quick)
        return tail, {"separability": _of_depth(tail)}

    def _coverage(self) -> Found:
        cover = coverage(*self._held, **self.quick)
        return cover, {"coverage": _of_coverage(cover)}

    def _sparsity_curve(self) -> Found:
        return self.sparsity, {}

    def _best_sparsity(self) -> Found:
        choices = best_sparsity(*self._cal, **self.quick)
        return choices, {"sparsity": _of_sparsity(self.sparsity, choices)}

    def _depth_curve(self) -> Found:
        depth = depth_curve(*self._held, calibration=self.is_cal, **self.quick)
        y = self.labels[self.split != "train"].max().astype(int)
        max_of_one = {VECTOR: MaxToken()}
        alone = depth_curve(
            self.vector_scores, y, calibration=self.is_cal, detectors=max_of_one, **self.quick
        )
        # The same resamples, so that the differences are paired.
        depth.detectors += alone.detectors
        for name, axis in (("f1", 0), ("mean", 0), ("low", 0), ("high", 0), ("resamples", 1)):
            depth[name] = np.concatenate([depth[name], alone[name]], axis=axis)
        del depth["best_deltas"]
        return depth, {"gain of SuperActivator, mean over blocks": _of_detectors(depth)}

    def _best_layers(self) -> Found:
        return best_layers(*self._cal, **self.quick), {}

    def _superactivator_counts(self) -> Found:
        counts = superactivator_counts(*self._marks, n_steps=50, **self.quick)
        claims = {
            "SuperActivators for each in-concept token, median": round(
                float(np.median(counts.ratios)), 4
            ),
            "samples without a SuperActivator": _interval(counts.mean[0], counts.resamples[:, 0]),
        }
        for name in ("ratios", "sample", "concept"):
            del counts[name]
        return counts, claims

    def _superactivator_positions(self) -> Found:
        places = superactivator_positions(*self._marks, **self.quick)
        said = {
            kind: [
                *(round(places[kind][end], 4) for end in ("difference", "low", "high")),
                round(places[kind].p_value, 4),
            ]
            for kind in ("relative", "absolute")
        }
        return places, {"positions": said}


def mean_vectors(tokens: LayerStack) -> LayerStack:
    """Mean of the tokens of each sample, as a sample of one token."""
    return LayerStack(
        {
            block: TokenArray(
                tokens.layer(block).mean().astype(np.float32), np.arange(len(tokens) + 1)
            )
            for block in tokens.layers
        }
    )


def enough_samples(held: Array, split: Array, fewest: int) -> Array:
    """Numbers of the concepts that have so many samples in train, cal and test.

    Parameters
    ----------
    held : ndarray of shape (n_samples, n_concepts), dtype bool
        Which samples hold which.
    split : ndarray of shape (n_samples,)
        "train", "cal" or "test".
    fewest : int
        How many.

    Returns
    -------
    kept : ndarray of int
        The concepts.
    """
    counts = [held[split == s].sum(axis=0) for s in ("train", "cal", "test")]
    return np.flatnonzero(np.min(counts, axis=0) >= fewest)


def _scores(stack: LayerStack, y: Array, labels: TokenArray | None, split: Array) -> LayerStack:
    """Scores of samples on which nothing was fitted, by block."""
    train, held = np.flatnonzero(split == "train"), np.flatnonzero(split != "train")
    given = {} if labels is None else {"token_labels": labels[train]}
    names = None if labels is None else labels.feature_names
    found = {}
    for layer in stack.layers:
        tokens = stack.layer(layer)
        scaler = TokenScaler().fit(tokens[train])
        separator = LinearSeparator().fit(scaler.transform(tokens[train]), y[train], **given)
        scores: Any = separator.transform(scaler.transform(tokens[held]))
        found[layer] = scores.with_values(scores.flat(), names)
    return LayerStack(found)


def chosen_marks(scores: LayerStack, curve: Bunch, labels: TokenArray, cal: Array) -> Any:
    """SuperActivators of each concept at the layer and delta that it has chosen on cal."""
    marks: Any = None
    for layer in np.unique(curve.layers):
        tokens = scores.layer(int(layer))
        for delta in np.unique(curve.best_deltas[curve.layers == layer]):
            detector = SuperActivator(delta)
            detector.fit(tokens[cal], labels[cal].max(), token_labels=labels[cal])
            found: Any = detector.superactivators(tokens)
            if marks is None:
                marks = found.with_values(np.zeros_like(found.flat()), found.feature_names)
            chosen = (curve.layers == layer) & (curve.best_deltas == delta)
            marks.values[:, chosen] = found.flat()[:, chosen]
    return marks


def _interval(estimate: Any, drawn: Array) -> list[float]:
    """Estimate and the ends of its 95 % interval, rounded."""
    drawn = drawn[np.isfinite(drawn)]
    ends = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else [np.nan, np.nan]
    return [round(float(value), 4) for value in (estimate, *ends)]


def _contrast(result: Bunch, ours: int, theirs: int) -> list[float]:
    """Difference of two entries of a mean."""
    drawn = result.resamples[:, ours] - result.resamples[:, theirs]
    return _interval(result.mean[ours] - result.mean[theirs], drawn)


def _of_depth(result: Bunch) -> dict[str, Any]:
    """How a mean by layer goes from the first block to the middle and on to the last."""
    last = len(result.layers) - 1
    middle = last // 2
    return {
        "first": _interval(result.mean[0], result.resamples[:, 0]),
        "middle": _interval(result.mean[middle], result.resamples[:, middle]),
        "last": _interval(result.mean[last], result.resamples[:, last]),
        "middle - first": _contrast(result, middle, 0),
        "last - middle": _contrast(result, last, middle),
        "best block": int(result.layers[np.argmax(result.mean)]),
    }


def _of_coverage(result: Bunch) -> dict[str, Any]:
    """Coverage by depth, and at the middle block against samples without the concept."""
    middle, others = (len(result.layers) - 1) // 2, result.others
    gap = result.resamples[:, middle] - others.resamples[:, middle]
    return {
        **_of_depth(result),
        "middle, without the concept": _interval(others.mean[middle], others.resamples[:, middle]),
        "middle, gap": _interval(result.mean[middle] - others.mean[middle], gap),
    }


def _of_sparsity(curve: Bunch, choices: Bunch) -> dict[str, Any]:
    """Where F1 is best, and how often the paper's sparsities are."""
    deltas = np.array(DELTA_GRID)
    paper = np.flatnonzero(np.isin(deltas, _PAPER))
    rest = np.setdiff1d(np.arange(len(deltas)), paper)
    drawn = curve.resamples
    best = deltas[drawn.argmax(axis=1)]
    gain = drawn[:, paper].max(axis=1) - drawn[:, rest].max(axis=1)
    n_pairs = choices.counts.sum()
    at_most = np.flatnonzero(deltas <= max(_PAPER))
    tenth, half = (int(np.argmin(abs(deltas - d))) for d in (0.1, 0.5))
    return {
        "best delta": _interval(deltas[curve.mean.argmax()], best),
        "resamples whose best delta is 0.05 or 0.1": round(float(np.isin(best, _PAPER).mean()), 3),
        "F1 at the better of 0.05 and 0.1 - at the best other delta": _interval(
            curve.mean[paper].max() - curve.mean[rest].max(), gain
        ),
        "F1 at 0.1 - at 0.5": _contrast(curve, tenth, half),
        **{
            f"choices of {words}": _interval(
                choices.counts[:, some].sum() / n_pairs,
                choices.resamples[:, :, some].sum(axis=(1, 2)) / n_pairs,
            )
            for words, some in (("0.05 or 0.1", paper), ("at most 0.1", at_most))
        },
    }


def _of_detectors(result: Bunch) -> dict[str, Any]:
    """Gain of SuperActivator over each other detector, mean over blocks."""
    ours = result.detectors.index("SuperActivator")
    found = {}
    for row, name in enumerate(result.detectors):
        if row != ours:
            drawn = (result.resamples[:, ours] - result.resamples[:, row]).mean(axis=1)
            found[name] = _interval((result.mean[ours] - result.mean[row]).mean(), drawn)
    return found


def _thinned(spread: Bunch) -> dict[str, Any]:
    """Keep the histograms of the first, middle and last block, and of four concepts."""
    last = len(spread.layers) - 1
    places, c = [0, last // 2, last], slice(_SHOWN)
    small = {name: spread[name][places][:, c] for name in ("edges", "inside", "outside")}
    small |= {name: spread[name][places][:, c] for name in ("thresholds", "skew")}
    small |= {"layers": spread.layers[places], "concept_names": spread.concept_names[c]}
    by_layer = {name: spread[name] for name in ("layers", "mean", "low", "high")}
    return {**small, "skew_by_layer": by_layer, "level": spread.level}


def _plain(value: Any) -> Any:
    """Turn a result into what JSON holds, without its resamples."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if key != "resamples"}
    if isinstance(value, np.ndarray):
        return np.round(value, 4).tolist() if value.dtype.kind == "f" else value.tolist()
    return value
