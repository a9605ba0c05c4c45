"""Where concepts are: maps by attribution methods, judged by labels and by faithfulness.

Scaler and separators are fitted on train; SuperActivators, with the ``delta`` of the best F1, on
cal; the threshold of each map on some positive cal samples. Maps are judged on some test samples,
on the pairs of sample and concept that hold the concept and at least one SuperActivator of it: the
same pairs for every method and target.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.utils import Bunch

from skact.cached import cached_property
from skact.concepts import LinearSeparator
from skact.detection import SuperActivator
from skact.embedding import TransformerEmbedder
from skact.localization import (
    CALM,
    LIME,
    MFABA,
    RISE,
    SHAPIQ,
    AttributionMethod,
    ConceptLocalizer,
    DirectAlignment,
    FullGrad,
    GradCAM,
    IntegratedGradients,
    KernelSHAP,
    faithfulness,
)
from skact.metrics import (
    Interval,
    bootstrap_interval,
    keep_pairs,
    pointing_game_score,
    token_average_precision_score,
    token_f1_score,
    token_iou_score,
    weighted_f1_score,
)
from skact.preprocessing import TokenScaler
from skact.protocol._setups import LOCALIZERS, Localization
from skact.rows import Array
from skact.tokens import TokenArray

__all__ = ["MAPPERS", "MapJudge", "check_players", "drawn_rows", "players_of"]

_SCORES: dict[str, Any] = {
    "f1": token_f1_score,
    "iou": token_iou_score,
    "average_precision": token_average_precision_score,
    "pointing_game": pointing_game_score,
}
#: Attribution methods by name.
MAPPERS = {
    method.name: method
    for method in (
        *(DirectAlignment, GradCAM, FullGrad, CALM),
        *(LIME, KernelSHAP, RISE, SHAPIQ),
        *(IntegratedGradients, MFABA),
    )
}
# Samples whose tokens are counted at a time.
_PIECE = 64
_AREAS = ("insertion", "deletion", "gap")


class MapJudge:
    """Judges the maps of one method after the other, on the same samples.

    Parameters
    ----------
    data : Bunch
        With ``data``, ``target`` and ``split``; ``tokens`` of one layer and their ``labels``.
    embedder : TransformerEmbedder
        What has made the tokens.
    settings : Localization
        Targets, samples, and budgets of the methods.
    seed : int
        Of samples, masks and resamples.
    n_resamples : int, default=1000
        Of the intervals.

    Raises
    ------
    ValueError
        If no pair of a sample and a concept is left in cal or test.
    """

    def __init__(
        self,
        data: Bunch,
        embedder: TransformerEmbedder,
        settings: Localization,
        seed: int,
        n_resamples: int = 1000,
    ) -> None:
        self.data = data
        self.embedder = embedder
        self.settings = settings
        self.seed = seed
        self.n_resamples = n_resamples
        self.concepts, self.detector, self.marks = fit_parts(data)
        self.cal, _ = self._choose("cal")
        self.test, self.pairs = self._choose("test")
        self.labels = keep_pairs(data.labels[self.test], self.pairs)

    def _choose(self, split: str) -> tuple[Array, Array]:
        """Choose samples of a split with a labelled token and a SuperActivator of a concept."""
        data, settings = self.data, self.settings
        n_players = players_of(data.labels.lengths, data.labels.shapes, settings)
        short_enough = 2 * n_players <= settings.masks
        own = (np.asarray(data.split) == split) & short_enough
        pairs = data.labels.max() & self.marks.max() & own[:, None]
        if not pairs.any():
            raise ValueError(
                f"localization has nothing to judge: of the {int(own.sum())} samples of {split} "
                f"that have at most half of masks={settings.masks} players, none has a "
                "SuperActivator of a concept that it holds; take another layer, more masks or a "
                f"larger unit than {settings.unit!r}."
            )
        rows = drawn_rows(pairs, settings.per_concept, self.seed)
        return rows, pairs[rows]

    def _samples(self, rows: Array) -> list[Any]:
        return [self.data.data[i] for i in rows]

    @cached_property
    def localizers(self) -> dict[str, ConceptLocalizer]:
        """One for each target."""
        parts = self.embedder, self.concepts, self.detector
        return {
            target: ConceptLocalizer(*parts, target=target, random_state=self.seed)
            for target in self.settings.targets
        }

    @cached_property
    def games(self) -> dict[str, list[Any]]:
        """The explained functions, which do not depend on the method."""
        shown = self._samples(self.test)
        # Also where a method that takes away groups of tokens is the first to be judged.
        return {t: list(one.games(shown, unit="token")) for t, one in self.localizers.items()}

    def about(self) -> dict[str, Any]:
        """Count what maps are judged on, and say what an order at random comes to."""
        data, marks = self.data, self.marks.max()
        in_test = np.asarray(data.split) == "test"
        positive = data.labels.max()[in_test]
        # The order is not that of a map, so any map serves.
        flat = data.labels[self.test].map(np.float64)
        chance = {
            target: faithfulness(game, flat, order="random", **self._options)
            for target, game in self.games.items()
        }
        return {
            "concepts": [str(name) for name in data.target_names],
            "delta": self.detector.delta,
            "samples": {"cal": len(self.cal), "test": len(self.test)},
            "pairs": int(self.pairs.sum()),
            "positive_test_pairs": int(positive.sum()),
            "positive_test_pairs_without_superactivator": int((positive & ~marks[in_test]).sum()),
            "random_order": {target: _plain(self._areas(one)) for target, one in chance.items()},
        }

    @property
    def _options(self) -> dict[str, Any]:
        return {"pairs": self.pairs, "n_steps": self.settings.points, "random_state": self.seed}

    def judge(self, name: str) -> dict[str, Any]:
        """Judge a method's maps for each target; with the seconds that a sample takes."""
        found = {target: self._maps(name, target) for target in self.localizers}
        rows = [
            {
                "method": name,
                "target": target,
                "seconds_per_sample": round(one["seconds"], 3),
                **_plain(self._accuracy(one) | self._areas(one["areas"][target])),
            }
            for target, one in found.items()
        ]
        gain = _plain(self._gain(found)) if {"local", "global"} <= set(found) else None
        return {"table": rows, "gain_of_local": gain}

    def _maps(self, name: str, target: str) -> dict[str, Any]:
        method = made_method(name, self.settings)
        localizer = self.localizers[target].set_params(method=method)
        cal, data = self.cal, self.data
        localizer.fit(self._samples(cal), data.target[cal], data.labels[cal])
        start = time.process_time()
        maps = localizer.transform(self._samples(self.test))
        seconds = (time.process_time() - start) / len(self.test)
        # A comparison with NaN, no map, is False.
        marks = maps.map(partial(np.less_equal, localizer.thresholds_))
        areas = {g: faithfulness(self.games[g], maps, **self._options) for g in self.localizers}
        return {
            "seconds": seconds,
            "marks": keep_pairs(marks, self.pairs),
            "maps": keep_pairs(maps, self.pairs),
            "areas": areas,
        }

    def _interval(self, truth: Any, given: Any, **options: Any) -> Interval:
        settings: dict[str, Any] = {"n_resamples": self.n_resamples, "random_state": self.seed}
        return bootstrap_interval(truth, given, **options, **settings)

    def _mean(self, given: Array, baseline: Array | None = None) -> Interval:
        """Mean over all pairs, with its interval; or that of the difference."""
        return self._interval(given, given, baseline=baseline, metric=_mean_of_second)

    def _accuracy(
        self, one: dict[str, Any], baseline: dict[str, Any] | None = None
    ) -> dict[str, Interval]:
        """Scores against the labels with their intervals; or those of the paired gain."""
        scores = {}
        for name, metric in _SCORES.items():
            read = "marks" if name in ("f1", "iou") else "maps"
            other = None if baseline is None else baseline[read]
            scores[name] = self._interval(self.labels, one[read], baseline=other, metric=metric)
        return scores

    def _areas(self, result: Any) -> dict[str, Interval]:
        """Areas with their intervals, in units of the explained function."""
        return {name: self._mean(getattr(result, name)) for name in _AREAS}

    def _gain(self, found: dict[str, Any]) -> dict[str, Interval]:
        """Paired gain of the local target; maps of both are judged by either function."""
        local, globally = found["local"], found["global"]
        by = {
            f"gap_of_{g}_function": self._mean(local["areas"][g].gap, globally["areas"][g].gap)
            for g in ("global", "local")
        }
        return self._accuracy(local, globally) | by


def players_of(lengths: Array, shapes: Array | None, settings: Localization) -> Array:
    """Players of samples of so many tokens, and of images with such rows and columns, at most.

    An array of (n_samples,) int.
    """
    if settings.unit == "segments":
        return np.minimum(lengths, settings.n_segments)
    if settings.unit == "grid" and shapes is not None:
        return np.prod(-(-shapes // settings.cell_size), axis=1)
    return lengths


def check_players(settings: Localization, embedder: TransformerEmbedder, data: Bunch) -> None:
    """Refuse a budget that leaves out every sample with a concept of a split, before work.

    Parameters
    ----------
    settings : Localization
        Budget and players.
    embedder : TransformerEmbedder
        What counts tokens; the model does not run.
    data : Bunch
        With ``data``, ``target`` and ``split``.

    Raises
    ------
    ValueError
        If of cal or test all have more players than half of the masks, with the fewest masks that
        would do.
    """
    for split in ("cal", "test"):
        held = np.asarray(data.target, bool).any(axis=1) & (np.asarray(data.split) == split)
        fewest = min(_count_players(settings, embedder, data, np.flatnonzero(held)))
        if 2 * fewest > settings.masks:
            raise ValueError(
                f"localization leaves out all samples of {split}: each has more players than half "
                f"of masks={settings.masks}, {fewest} at least with unit={settings.unit!r}; take "
                f"masks={2 * fewest} or more, or a larger unit."
            )


def _count_players(
    settings: Localization, embedder: TransformerEmbedder, data: Bunch, rows: Array
) -> Iterator[int]:
    """Fewest players of some samples after the other, up to those that are few enough."""
    for start in range(0, len(rows), _PIECE):
        inputs = embedder.prepare([data.data[i] for i in rows[start : start + _PIECE]])
        shapes = getattr(inputs, "shapes", None)
        fewest = int(players_of(np.asarray(inputs.n_tokens), shapes, settings).min())
        yield fewest
        if 2 * fewest <= settings.masks:
            return


def made_method(name: str, settings: Localization) -> AttributionMethod:
    """Make an attribution method with its budget, and its players where it takes some away."""
    budgets = LOCALIZERS[name]
    own: dict[str, Any] = {}
    if "masks" in budgets:
        own = {key: getattr(settings, key) for key in ("unit", "cell_size", "n_segments")}
    return MAPPERS[name](*(getattr(settings, budget) for budget in budgets), **own)


def drawn_rows(pairs: Array, per_concept: int, seed: int) -> Array:
    """Draw so many samples of each concept from pairs (n_samples, n_concepts); their numbers."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    return np.unique(np.concatenate([order[p[order]][:per_concept] for p in pairs.T]))


def fit_parts(data: Bunch) -> tuple[Any, SuperActivator, TokenArray]:
    """Concepts from train; the detector, with the delta of the best F1, from cal; its marks."""
    train, cal = (np.flatnonzero(np.asarray(data.split) == s) for s in ("train", "cal"))
    concepts = make_pipeline(TokenScaler(), LinearSeparator())
    concepts.fit(
        data.tokens[train], data.target[train], linearseparator__token_labels=data.labels[train]
    )
    scores: Any = concepts.transform(data.tokens)
    y = data.target[cal]
    path = SuperActivator().fit_path(scores[cal], y, data.labels[cal])
    best: Any = max(path, key=lambda d: (weighted_f1_score(y, d.predict(scores[cal])), -d.delta))
    return concepts, best, best.superactivators(scores)


def _mean_of_second(_: Array, values: Array) -> float:
    return float(np.nanmean(values))


def _plain(scores: dict[str, Interval]) -> dict[str, list[float]]:
    """Round intervals to lists."""
    return {name: [round(float(v), 4) for v in interval] for name, interval in scores.items()}
