"""Samples in the space of the concepts, and the direction that is looked for in each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from skact.localization._parts import Parts
from skact.localization._targets import Target
from skact.rows import Array
from skact.tokens import TokenArray

__all__ = ["Embedded", "cosines"]


@dataclass(frozen=True)
class Embedded:
    """Raw samples with their scaled tokens and their targets.

    Parameters
    ----------
    parts : Parts
        What they were embedded and scaled by.
    samples : list of n_samples texts or images
        As they were given.
    tokens : TokenArray of shape (n_samples, n_features)
        Scaled tokens.
    directions : list of n_samples ndarray of shape (n_concepts, n_features)
        Direction per concept; NaN where the sample has no target.
    """

    parts: Parts
    samples: list[Any]
    tokens: TokenArray
    directions: list[Array]

    @classmethod
    def of(cls, parts: Parts, target: Target, samples: list[Any]) -> Self:
        """Embed samples, and ask the target what to look for in each."""
        tokens = parts.scale(parts.embed(samples))
        pairs = zip(tokens, parts.marks(tokens), strict=True)
        directions = [target.vectors(one, marked, parts.vectors) for one, marked in pairs]
        return cls(parts, samples, tokens, directions)

    @cached_property
    def missing(self) -> Array:
        """Concepts without a target, bool of shape (n_samples, n_concepts)."""
        return np.array([np.isnan(vectors).any(axis=1) for vectors in self.directions])

    @cached_property
    def known(self) -> list[tuple[int, Array]]:
        """Samples that have a target, each with the concepts (n_concepts,) that have one."""
        return [(i, ~missing) for i, missing in enumerate(self.missing) if not missing.all()]


def cosines(tokens: Array, vectors: Array) -> Array:
    """Cosine of each token with each vector.

    Parameters
    ----------
    tokens : ndarray of shape (n_tokens, n_features)
        Tokens.
    vectors : ndarray of shape (n_vectors, n_features)
        Vectors.

    Returns
    -------
    cosines : ndarray of shape (n_tokens, n_vectors), dtype float64
        0 for a zero token or vector, and NaN for a vector of NaN.
    """
    tokens = tokens.astype(np.float64)
    lengths = np.linalg.norm(tokens, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
    products = tokens @ vectors.T
    return np.divide(products, lengths, out=np.zeros(products.shape), where=lengths != 0)
