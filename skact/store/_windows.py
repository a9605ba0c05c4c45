"""Samples that are made ready for a model at one time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from skact.rows import Array
from skact.store._records import Identity

__all__ = ["Window", "window_slices", "windows"]

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
        for span in window_slices(len(members), chunk_size, small_first=not out):
            part = members[span]
            out.append(Window(part, [samples[place] for place in part], wanted))
    return out


def window_slices(n_samples: int, chunk_size: int, *, small_first: bool = True) -> Iterator[slice]:
    """Cut samples into windows, of which the first is small where nothing comes before it."""
    start, size = 0, min(chunk_size, _FIRST) if small_first else _WINDOW * chunk_size
    while start < n_samples:
        yield slice(start, start + size)
        start, size = start + size, _WINDOW * chunk_size
