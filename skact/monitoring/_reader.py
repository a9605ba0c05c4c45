"""Tokens to scores, scores to decisions, and what is known of a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from skact.base import one_of_many, summing_to_one
from skact.detection import BaseDetector
from skact.monitoring._lines import Line
from skact.rows import Array, as_numpy

__all__ = ["Judgement", "Reader", "Reading", "State", "Stream", "refuse_masked"]


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


class Judgement(NamedTuple):
    """What pooled scores say, as the detector's own answers do.

    Parameters
    ----------
    decision : ndarray of shape (n_samples, n_concepts)
        Pooled score minus threshold, positive where a concept is found; of more than two classes
        log-odds.
    present : ndarray of shape (n_samples, n_concepts), dtype bool
        Whether it is found; of more than two classes the most probable one.
    probability : ndarray of shape (n_samples, n_concepts)
        How probable it is; of more than two classes they sum to 1.
    """

    decision: Array
    present: Array
    probability: Array


class State(NamedTuple):
    """What all tokens of a stream so far say together.

    Parameters
    ----------
    n_tokens : int
        Tokens so far.
    decision : ndarray of shape (n_concepts,)
        Pooled score minus threshold, positive where a concept is found; of more than two classes
        log-odds.
    present : ndarray of shape (n_concepts,), dtype bool
        Whether it is found; of more than two classes the most probable one.
    probability : ndarray of shape (n_concepts,)
        How probable it is; of more than two classes they sum to 1.
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
    of_one : bool
        Whether each sample has one of more than two classes.

    Attributes
    ----------
    blocks : list of int or None
        Layers that are read.
    widths : dict of int to int
        Features of a token of each layer.
    """

    def __init__(self, names: list[str], lines: list[Line], of_one: bool) -> None:
        self.names, self.lines, self.of_one = names, lines, of_one
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
            If they do not fit, are not finite, or some are masked.
        """
        refuse_masked(tokens)
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

    def judge(self, pooled: Sequence[Array]) -> Judgement:
        """Say what pooled scores say.

        Parameters
        ----------
        pooled : sequence of ndarray of shape (n_samples, n_columns)
            One for each line.

        Returns
        -------
        judgement : Judgement
            As ``decision_function``, ``predict`` and ``predict_proba`` answer.
        """
        chances = self._said(BaseDetector.probabilities, pooled)
        if self.of_one:
            odds = self._said(BaseDetector.log_odds, pooled)
            return Judgement(odds, one_of_many(odds), summing_to_one(chances))
        decision = self._said(BaseDetector.decide, pooled)
        return Judgement(decision, decision > 0, chances)

    def reaches(self, pooled: Sequence[Array]) -> Array:
        """Say which pooled scores reach the threshold of their concept, (n_samples, n_concepts)."""
        return self._said(BaseDetector.decide, pooled) > 0

    def _said(self, say: Callable[[BaseDetector, Array], Array], pooled: Sequence[Array]) -> Array:
        pairs = zip(pooled, self.lines, strict=True)
        return self._joined([say(line.detector, p)[:, line.concepts] for p, line in pairs])

    @property
    def answer_names(self) -> list[str]:
        """What the answers are called; ``unsure`` where every concept has two cuts."""
        two_cuts = all(hasattr(line.detector, "unsure") for line in self.lines)
        return [*Judgement._fields, *(["unsure"] if two_cuts else [])]

    def answers(self, pooled: Sequence[Array]) -> list[Array]:
        """Say all that pooled scores say, in the order of ``answer_names``.

        Parameters
        ----------
        pooled : sequence of ndarray of shape (n_samples, n_columns)
            One for each line.

        Returns
        -------
        answers : list of ndarray of shape (n_samples, n_concepts)
            Of :meth:`judge`, and where scores lie between two cuts.
        """
        answers = list(self.judge(pooled))
        if "unsure" in self.answer_names:
            answers.append(self._said(lambda detector, p: detector.unsure(p), pooled) == 0)
        return answers

    def _joined(self, parts: Sequence[Array]) -> Array:
        """Put what the lines say of their concepts into the order of all concepts."""
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)[..., self._order]


def refuse_masked(tokens: Any) -> None:
    """Raise ValueError where some of a masked array is masked; a plain array would lose that."""
    if np.ma.is_masked(tokens):
        raise ValueError(
            "tokens are masked in part, and a monitor reads all of them; leave the masked ones "
            "out, as skact.read_padded(values, mask) does."
        )


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

    def update(self, tokens: Any, *, after_gap: bool = False) -> Reading:
        """Take in the next tokens.

        Parameters
        ----------
        tokens : array-like of shape (n_features,) or (n_tokens, n_features), or mapping
            One token or several, as the model puts them out; a mapping of block to such where the
            detector reads several layers.
        after_gap : bool, default=False
            Whether context was left out before them, as between the turns of a chat: no window of
            the detector reaches over a gap.

        Returns
        -------
        reading : Reading
            What these tokens say.

        Raises
        ------
        ValueError
            If they have another number of features, a layer is missing, or a number is not finite;
            nothing is taken in then.
        TypeError
            If ``after_gap`` is no bool.
        """
        if not isinstance(after_gap, bool | np.bool_):
            raise TypeError(f"after_gap must be True or False, got {after_gap!r}.")
        return self.add(self._reader.score(tokens), [0] if after_gap else [])

    def add(self, scores: Sequence[Array], gaps: Sequence[int] | Array = ()) -> Reading:
        """Take in scores; see :meth:`Reader.score`.

        Parameters
        ----------
        scores : sequence of ndarray of shape (n_tokens, n_columns)
            One for each line.
        gaps : sequence of int, default=()
            Numbers of the tokens before which context was left out, ascending.

        Returns
        -------
        reading : Reading
            What they say.
        """
        self.n_tokens += len(scores[0])
        for pool, rows in zip(self._pools, scores, strict=True):
            first, *others = np.split(rows, gaps) if len(gaps) else [rows]
            pool.add(first)
            for run in others:
                pool.gap()
                pool.add(run)
        return self._reader.read(scores)

    @property
    def state(self) -> State:
        """What all tokens so far say.

        Raises
        ------
        ValueError
            If there was none.
        """
        judgement = self._reader.judge(self._pooled())
        return State(self.n_tokens, *(values[0] for values in judgement))

    @property
    def reaches(self) -> Array:
        """Concepts whose threshold all tokens so far together reach, (n_concepts,)."""
        return self._reader.reaches(self._pooled())[0]

    def _pooled(self) -> list[Array]:
        if not self.n_tokens:
            raise ValueError("the stream has no tokens yet; update(tokens) gives it some.")
        return [pool.value()[None] for pool in self._pools]
