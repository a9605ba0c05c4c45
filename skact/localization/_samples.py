"""Samples in the space of the concepts, and the directions that are looked for in each.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from skact.cached import cached_property
from skact.concepts import cosines
from skact.localization._concept_game import ConceptGame, MeanCosine
from skact.localization._copies import perturbation
from skact.localization._game import Remembered
from skact.localization._gradients import InputFunction
from skact.localization._inputs import ModelInputs
from skact.localization._parts import Parts
from skact.localization._targets import Target
from skact.localization._unit import Unit
from skact.models import BlockInputs
from skact.rows import Array
from skact.tokens import TokenArray

__all__ = ["Sample", "Samples"]


class Samples:
    """Raw samples, embedded when their tokens are first asked for.

    Parameters
    ----------
    parts : Parts
        What embeds and scales them.
    target : Target
        What is looked for.
    samples : list of n_samples texts or images
        As the user gave them.
    """

    def __init__(self, parts: Parts, target: Target, samples: list[Any]) -> None:
        self.parts = parts
        self.target = target
        self.inputs = ModelInputs(parts.embedder, samples)
        parts.check(self.inputs.one_token())

    def __len__(self) -> int:
        return len(self.inputs)

    @cached_property
    def tokens(self) -> TokenArray:
        """Scaled tokens, of shape (n_samples, n_features)."""
        return self.parts.scale(self.inputs.activations())

    @cached_property
    def directions(self) -> list[Array]:
        """For each sample a direction per concept, (n_concepts, n_features); NaN for no target."""
        pairs = zip(self.tokens, self.parts.marks(self.tokens), strict=True)
        return [self.target.vectors(one, marks, self.parts.vectors) for one, marks in pairs]

    @cached_property
    def missing(self) -> Array:
        """Concepts without a target, bool of shape (n_samples, n_concepts)."""
        return np.array([np.isnan(vectors).any(axis=1) for vectors in self.directions])

    def n_players(self, unit: Unit) -> Array:
        """Players of each sample, int64 of shape (n_samples,)."""
        if unit.name == "token":
            return self.tokens.lengths
        return np.array([self.inputs.players(i, unit).max() + 1 for i in range(len(self))])

    def first(self) -> Sample:
        """Return the first sample with one target, for checks before any is embedded."""
        one = np.arange(len(self.parts.vectors)) == 0
        return Sample(self, 0, one, self.parts.vectors[one])

    def sample(self, i: int) -> Sample:
        """Return a sample with the directions of the targets that it has."""
        known = ~self.missing[i]
        return Sample(self, i, known, self.directions[i][known])

    def mappable(self) -> Iterator[Sample]:
        """Give the samples that have a target."""
        for i in np.flatnonzero(~self.missing.all(axis=1)).tolist():
            yield self.sample(i)

    def games(self, baseline: str, unit: Unit) -> Iterator[ConceptGame]:
        """Give the game of every sample, with all targets; those it does not have give NaN."""
        for i, vectors in enumerate(self.directions):
            yield Sample(self, i, ~self.missing[i], vectors).concept_game(baseline, unit)

    def columns(self, maps: Iterable[Array]) -> Array:
        """Put the maps of mappable samples into columns (n_tokens, n_concepts); NaN elsewhere."""
        starts = self.tokens.starts
        out = np.full((self.tokens.n_tokens, self.missing.shape[1]), np.nan)
        for sample, values in zip(self.mappable(), maps, strict=True):
            start = starts[sample.number]
            out[start : start + len(values), sample.known] = values
        return out


@dataclass(frozen=True)
class Sample:
    """One sample, and the directions that a map of it looks for.

    Parameters
    ----------
    samples : Samples
        Where it belongs.
    number : int
        Its number there.
    known : ndarray of shape (n_concepts,), dtype bool
        Concepts that it has a target for.
    vectors : ndarray of shape (n_targets, n_features)
        Their directions in the space of the concepts.
    """

    samples: Samples
    number: int
    known: Array
    vectors: Array

    @property
    def tokens(self) -> Array:
        """Scaled tokens, (n_tokens, n_features)."""
        return self.samples.tokens[self.number]

    @property
    def alignment(self) -> Array:
        """Cosine of each token with each target, float64 of shape (n_tokens, n_targets)."""
        return cosines(self.tokens.astype(np.float64), self.vectors)

    def explained(self, *, scaled: bool = False) -> MeanCosine:
        """Return the explained function of the residual stream, or of tokens that are scaled."""
        shift = self.samples.parts.shift
        return MeanCosine(self.vectors, np.zeros_like(shift) if scaled else shift)

    def concept_game(self, baseline: str, unit: Unit) -> ConceptGame:
        """Return the explained function of which players are kept."""
        changed = perturbation(self.samples.inputs, self.number, baseline=baseline, unit=unit)
        return ConceptGame(changed, self.explained())

    def game(self, baseline: str, unit: Unit) -> Remembered:
        """Return the same, with values that all methods share as long as the sample lives."""
        if (baseline, unit) not in self._games:
            self._games[baseline, unit] = Remembered(self.concept_game(baseline, unit))
        return self._games[baseline, unit]

    @cached_property
    def _games(self) -> dict[tuple[str, Unit], Remembered]:
        return {}

    @cached_property
    def input_function(self) -> InputFunction:
        """The explained function of what enters the first block."""
        inputs = self.samples.inputs
        loaded = inputs.loaded
        read, kept = inputs.whole(self.number)
        block_inputs = BlockInputs(loaded, inputs.block, read, np.flatnonzero(kept))
        return InputFunction(block_inputs, self.explained(), inputs.batch_size)
