"""Tokens to scores, scores to decisions, and what is known of a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from skact.monitoring._lines import Line
from skact.rows import Array, as_numpy

__all__ = ["Reader", "Reading", "State", "Stream"]


class Reading(NamedTuple):
    """What some tokens of a stream say.

    Parameters
    ----------
    scores : ndarray of shape (n_tokens, n_concepts)
        Score of each token.
    marks : ndarray of shape (n_tokens, n_concepts), dtype bool
        Whether the score reaches the threshold by itself.
    """

    scores: Array
    marks: Array


class State(NamedTuple):
    """What all tokens of a stream so far say together.

    Parameters
    ----------
    n_tokens : int
        Tokens so far.
    decision : ndarray of shape (n_concepts,)
        Pooled score minus threshold; positive where a concept is found.
    present : ndarray of shape (n_concepts,), dtype bool
        Whether it is found.
    probability : ndarray of shape (n_concepts,)
        How probable it is.
    """

    n_tokens: int
    decision: Array
    present: Array
    probability: Array


class Reader:
    """What all streams of a monitor have in common.

    Parameters
    ----------
    names : list of str
        Names of the concepts.
    lines : list of Line
        Ways from tokens to decisions, which together decide all concepts.

    Attributes
    ----------
    blocks : list of int or None
        Layers that are read.
    widths : dict of int to int
        Features of a token of each layer.
    """

    def __init__(self, names: list[str], lines: list[Line]) -> None:
        self.names, self.lines = names, lines
        self.blocks = sorted({line.block for line in lines}, key=lambda b: (b is None, b))
        self.widths = {line.block: line.width for line in lines}
        self._order = np.argsort(np.concatenate([line.concepts for line in lines]))
        self._thresholds = self._joined([line.thresholds for line in lines])
        # The columns of a single line are as a rule in the order of the concepts already.
        every = np.arange(lines[0].detector.n_features_in_)
        self._is_plain = len(lines) == 1 and np.array_equal(lines[0].columns, every)

    def score(self, tokens: Any) -> list[Array]:
        """Score tokens, and take in nothing.

        Parameters
        ----------
        tokens : array-like or mapping
            As in :meth:`Stream.update`.

        Returns
        -------
        scores : list of ndarray of shape (n_tokens, n_columns)
            One for each line from tokens to decisions.

        Raises
        ------
        ValueError
            If the tokens do not fit.
        """
        if len(self.blocks) == 1 and not isinstance(tokens, Mapping):
            rows = self.rows(tokens, self.blocks[0])
            return [line.score(rows) for line in self.lines]
        if not isinstance(tokens, Mapping) or not set(self.blocks) <= set(tokens):
            got = sorted(tokens) if isinstance(tokens, Mapping) else type(tokens).__name__
            raise ValueError(f"tokens must be a mapping with the layers {self.blocks}, got {got}.")
        by_block = {block: self.rows(tokens[block], block) for block in self.blocks}
        if len({len(rows) for rows in by_block.values()}) > 1:
            counts = {block: len(rows) for block, rows in by_block.items()}
            raise ValueError(f"tokens differ in number between layers: {counts}.")
        return [line.score(by_block[line.block]) for line in self.lines]

    def rows(self, tokens: Any, block: int | None) -> Array:
        """Check tokens of one layer.

        Parameters
        ----------
        tokens : array-like of shape (n_features,) or (n_tokens, n_features)
            Floats.
        block : int or None
            The layer.

        Returns
        -------
        rows : ndarray of shape (n_tokens, n_features), dtype float32
            The same.

        Raises
        ------
        ValueError
            If they do not fit, or are not finite.
        """
        rows = tokens if isinstance(tokens, np.ndarray) else as_numpy(tokens)
        rows = rows[None] if rows.ndim == 1 else rows
        width = self.widths[block]
        if rows.ndim != 2 or rows.shape[1] != width or rows.dtype.kind != "f":
            raise ValueError(
                f"tokens must be floats of shape ({width},) or (n_tokens, {width}), got shape "
                f"{np.shape(tokens)} of dtype {rows.dtype}."
            )
        rows = np.ascontiguousarray(rows, np.float32)
        # A sum of squares that is finite has no other terms, and is much cheaper to ask for.
        if not isfinite(np.vdot(rows, rows)) and not np.isfinite(rows).all():
            raise ValueError("tokens must be finite, but hold NaN or infinity.")
        return rows

    def read(self, scores: Sequence[Array]) -> Reading:
        """Say what scores of tokens say.

        Parameters
        ----------
        scores : sequence of ndarray of shape (n_tokens, n_columns)
            As from :meth:`score`.

        Returns
        -------
        reading : Reading
            Scores and marks of the concepts.
        """
        if self._is_plain:
            rows = scores[0]
        else:
            parts = [s[:, line.columns] for s, line in zip(scores, self.lines, strict=True)]
            rows = self._joined(parts)
        return Reading(rows, rows >= self._thresholds)

    def judge(self, pooled: Sequence[Array]) -> tuple[Array, Array]:
        """Say what pooled scores say.

        Parameters
        ----------
        pooled : sequence of ndarray of shape (n_samples, n_columns)
            One for each line.

        Returns
        -------
        decision, chances : ndarray of shape (n_samples, n_concepts)
            Pooled score minus threshold, and probability.
        """
        pairs = list(zip(pooled, self.lines, strict=True))
        decisions = [line.detector.decide(p)[:, line.concepts] for p, line in pairs]
        chances = [line.detector.probabilities(p)[:, line.concepts] for p, line in pairs]
        return self._joined(decisions), self._joined(chances)

    def _joined(self, parts: Sequence[Array]) -> Array:
        """Put what the lines say of their concepts into the order of all concepts."""
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)[..., self._order]


class Stream:
    """Tokens that come one after another; made by :meth:`Monitor.stream`.

    Parameters
    ----------
    reader : Reader
        What reads the tokens.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.reset()

    def reset(self) -> None:
        """Forget all tokens."""
        self.n_tokens = 0
        self._pools = [line.detector.running_pool() for line in self._reader.lines]

    def update(self, tokens: Any) -> Reading:
        """Take in the next tokens.

        Parameters
        ----------
        tokens : array-like of shape (n_features,) or (n_tokens, n_features), or mapping
            One token or several, as the model puts them out; a mapping of block to such where the
            detector reads several layers.

        Returns
        -------
        reading : Reading
            What these tokens say.

        Raises
        ------
        ValueError
            If they have another number of features, a layer is missing, or a number is not finite;
            nothing is taken in then.
        """
        return self.add(self._reader.score(tokens))

    def add(self, scores: Sequence[Array]) -> Reading:
        """Take in scores; see :meth:`Reader.score`.

        Parameters
        ----------
        scores : sequence of ndarray of shape (n_tokens, n_columns)
            One for each line.

        Returns
        -------
        reading : Reading
            What they say.
        """
        self.n_tokens += len(scores[0])
        for pool, rows in zip(self._pools, scores, strict=True):
            pool.add(rows)
        return self._reader.read(scores)

    @property
    def state(self) -> State:
        """What all tokens so far say.

        Raises
        ------
        ValueError
            If there was none.
        """
        if not self.n_tokens:
            raise ValueError("the stream has no tokens yet; update(tokens) gives it some.")
        pooled = [pool.value()[None] for pool in self._pools]
        decision, chances = (values[0] for values in self._reader.judge(pooled))
        return State(self.n_tokens, decision, decision > 0, chances)
