"""Samples in a store as an embedder gives them: what it lacks, filled and read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skact import models
from skact.cached import cached_property
from skact.embedding._keys import as_keyed, sample_keys
from skact.embedding._reader import Reader
from skact.rows import Array
from skact.store import ActivationStore, Filled, Identity, Job
from skact.tokens import TokenArray

__all__ = ["StoredSamples", "saying_what_is_left"]


@contextmanager
def saying_what_is_left(n_samples: int, n_left: Callable[[], int]) -> Iterator[None]:
    """Tell, when a run fails or is interrupted, how much of it is done.

    Parameters
    ----------
    n_samples : int
        Distinct samples that were asked for.
    n_left : callable
        Counts those that the store lacks.

    Yields
    ------
    None
        While samples are embedded.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        done = (
            f"{n_samples - n_left()} of {n_samples} distinct samples are in the store; calling "
            "again embeds only the others."
        )
        if isinstance(error, BrokenProcessPool):
            raise RuntimeError(
                f"a worker process died, killed perhaps for want of memory. {done} Fewer workers "
                "(n_jobs) or a smaller batch_size need less memory."
            ) from error
        error.add_note(done)
        raise


@dataclass(frozen=True)
class StoredSamples:
    """Samples that a store is to hold.

    Parameters
    ----------
    store : ActivationStore
        The store.
    reader : Reader
        Embeds what it lacks.
    samples : list of n_samples texts or images
        The samples.
    blocks : sequence of int
        Layers that are asked for.
    progress : bool
        Whether to show a bar.
    seen : Seen
        What was noticed about the samples that were embedded.
    """

    store: ActivationStore
    reader: Reader
    samples: list[Any]
    blocks: Sequence[int]
    progress: bool
    seen: models.Seen = field(default_factory=lambda: models.Seen())

    @cached_property
    def keys(self) -> list[bytes]:
        """Name of each sample."""
        return sample_keys(self.samples, self.reader.loaded.modality)

    @cached_property
    def identities(self) -> dict[int, Identity]:
        """Names of the layers that are asked for, by block."""
        return self.reader.identities(self.blocks, self.store.dtype)

    def distinct(self) -> Array:
        """Give the number of the first of each group of equal samples, ascending."""
        first = {key: i for i, key in reversed(list(enumerate(self.keys)))}
        return np.sort(np.fromiter(first.values(), np.int64, len(first)))

    def missing(self) -> Array:
        """Tell which samples lack a layer, as a bool array (n_samples,)."""
        return np.asarray(self.store.lacking(self.keys, self.identities).any(axis=1))

    def _n_missing(self) -> int:
        lacking = zip(self.keys, self.missing(), strict=True)
        return len({key for key, is_missing in lacking if is_missing})

    def forget(self) -> int:
        """Remove the samples from the store, at all layers of all models; how many were there."""
        return self.store.forget(self.keys)

    def fill(self) -> Filled:
        """Embed and commit what is missing, duplicates once."""
        first: dict[bytes, int] = {}
        for i, key in enumerate(self.keys):
            first.setdefault(key, i)
        numbers = list(first.values())

        def prepare(places: Sequence[int]) -> Job:
            chosen = [numbers[place] for place in places]
            samples = [self.samples[i] for i in chosen]
            if self.reader.loaded.modality == "image":
                samples = [
                    as_keyed(sample, self.keys[i])
                    for i, sample in zip(chosen, samples, strict=True)
                ]
            return self.reader.forward_pass(samples, chosen, self.seen)

        also = self.reader.identities(self._blocks_to_keep(), self.store.dtype)
        return self.store.fill(list(first), self.identities, also, prepare, self.progress)

    def _blocks_to_keep(self) -> Sequence[int]:
        """Layers to store of every sample that goes through the model anyway."""
        layers, n_blocks = self.store.layers, len(self.reader.loaded.blocks)
        if layers is None:
            return []
        return range(n_blocks) if layers == "all" else models.resolve_layers(layers, n_blocks)[0]

    def read(self) -> dict[int, TokenArray]:
        """Show all samples, by block; what is missing is embedded first."""
        while True:
            layers = {}
            for block, identity in self.identities.items():
                tokens = self.store.read(self.keys, identity, self.reader.source(block))
                if tokens is None:
                    break
                layers[block] = tokens
            else:
                self.reader.warn_of(self.seen)
                return layers
            with saying_what_is_left(len(set(self.keys)), self._n_missing):
                self.fill()
