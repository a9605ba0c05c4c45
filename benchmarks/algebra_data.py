"""Texts, photographs and intervals for ``algebra.py``."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import SEED
from sklearn.utils import _safe_indexing

from skact import (
    LinearSeparator,
    TokenArray,
    TokenScaler,
    TransformerEmbedder,
    load_masks,
    load_spans,
)


@dataclass
class Part:
    """Samples of one split, with their tokens at some blocks."""

    data: Any
    stack: Any
    y: np.ndarray
    labels: TokenArray
    names: list[str]
    kinds: np.ndarray

    def tokens(self, block):
        """Tokens of one block."""
        return self.stack.layer(block)


def read_texts(folder, model, layers, sizes, fewest=5):
    """Embed the first texts of each split; concepts that every split holds often enough."""
    data = load_spans(folder)
    rows = {split: np.flatnonzero(data.split == split)[:n] for split, n in sizes.items()}
    enough = np.min([data.target[own].sum(axis=0) for own in rows.values()], axis=0) >= fewest
    names = [name for name, kept in zip(data.target_names, enough, strict=True) if kept]
    with (Path(folder) / "samples.jsonl").open(encoding="utf-8") as file:
        intents = {one["id"]: one.get("intent") for one in map(json.loads, file)}
    kinds = np.array([str(intents[one]) for one in data.ids])
    embedder = TransformerEmbedder(model, layers)
    parts = {}
    for split, own in rows.items():
        texts, spans = _safe_indexing(data.data, own), _safe_indexing(data.spans, own)
        stack, y = embedder.transform(texts), data.target[own][:, enough]
        labels = embedder.align_spans(texts, spans, names)
        parts[split] = Part(texts, stack, y, labels, names, kinds[own])
    return parts


def read_photos(folder, model, layers, sizes, fewest=5):
    """Embed the first photographs of each split, all of one grid."""
    data = load_masks(folder)
    embedder = TransformerEmbedder(model, layers, crop="processor")
    rows = {split: np.flatnonzero(data.split == split)[:n] for split, n in sizes.items()}
    parts = {}
    for split, own in rows.items():
        photos, masks = _safe_indexing(data.data, own), _safe_indexing(data.masks, own)
        labels = embedder.align_masks(photos, masks, data.target_names)
        parts[split] = Part(
            photos, embedder.transform(photos), labels.max().astype(int), labels, [], own
        )
    enough = np.min([part.y.sum(axis=0) for part in parts.values()], axis=0) >= fewest
    for part in parts.values():
        part.y, part.labels = part.y[:, enough], part.labels.columns(np.flatnonzero(enough))
        part.names = [n for n, kept in zip(data.target_names, enough, strict=True) if kept]
    return parts


def scaled(parts, block, fit_on="train"):
    """Tokens of a block of all splits, scaled as those of one."""
    scaler = TokenScaler().fit(parts[fit_on].tokens(block))
    return {split: scaler.transform(part.tokens(block)) for split, part in parts.items()}


def separators(X, part):
    """Fit linear separators on labels of tokens."""
    return LinearSeparator(random_state=SEED).fit(X, part.y, token_labels=part.labels)


def resampled(statistic, n_samples, times=200):
    """Give a statistic of rows, with its 95 % percentile bootstrap over samples."""
    rng = np.random.default_rng(SEED)
    drawn = [statistic(rng.integers(n_samples, size=n_samples)) for _ in range(times)]
    ends = np.nanpercentile(drawn, [2.5, 97.5])
    return [float(statistic(np.arange(n_samples))), *map(float, ends)]


def mean_of(values, times=1000):
    """Give the mean of one value per sample, with its interval."""
    values = np.asarray(values, np.float64)
    return resampled(lambda rows: values[rows].mean(), len(values), times)
