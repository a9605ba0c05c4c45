"""Samples that are made ready for a model at one time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from skact.rows import Array
from skact.store._records import Identity

__all__ = ["Window", "windows"]

# Chunks of a window, and samples of the first one: nothing else is done while it is prepared.
_WINDOW, _FIRST = 4, 256


@dataclass
class Window:
    """Samples that lack the same layers: their numbers, keys, and layers by block."""

    places: list[int]
    keys: list[bytes]
    layers: Mapping[int, Identity]

    def only(self, which: list[int]) -> Self:
        """Keep some of the samples."""
        places, keys = [self.places[i] for i in which], [self.keys[i] for i in which]
        return type(self)(places, keys, self.layers)


def windows(
    samples: Sequence[bytes],
    lacking: Array,
    needed: Array,
    layers: Mapping[int, Identity],
    chunk_size: int,
) -> list[Window]:
    """Put samples together by what they lack, if that is a needed layer; a few of them first."""
    blocks = list(layers)
    places = np.flatnonzero(lacking[:, needed].any(axis=1))
    patterns, group = np.unique(lacking[places], axis=0, return_inverse=True)
    out: list[Window] = []
    for number, pattern in enumerate(patterns):
        members = places[group.reshape(-1) == number].tolist()
        wanted = {blocks[column]: layers[blocks[column]] for column in np.flatnonzero(pattern)}
        start = 0
        while start < len(members):
            size = _WINDOW * chunk_size if out else min(chunk_size, _FIRST)
            part = members[start : start + size]
            out.append(Window(part, [samples[place] for place in part], wanted))
            start += size
    return out
