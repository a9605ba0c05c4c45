"""Samples in a store as an embedder gives them: what it lacks, filled and read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skact.models import resolve_layers
from skact.rows import Array
from skact.store import ActivationStore, Filled, Identity, Job
from skact.tokens import Source, TokenArray

__all__ = ["StoredSamples"]


@dataclass(frozen=True)
class StoredSamples:
    """Samples that a store is to hold.

    Parameters
    ----------
    store : ActivationStore
        The store.
    keys : sequence of bytes
        Name of each sample.
    identities : dict of int to Identity
        Names of the layers that are asked for, by block.
    n_blocks : int
        Layers that the model has.
    identify : callable
        Takes layers, names each of them.
    prepare : callable
        Takes numbers of samples, makes them ready for the model.
    source : callable
        Takes a layer, says where its activations come from.
    progress : bool
        Whether to show a bar.
    """

    store: ActivationStore
    keys: Sequence[bytes]
    identities: Mapping[int, Identity]
    n_blocks: int
    identify: Callable[[Sequence[int]], Mapping[int, Identity]]
    prepare: Callable[[Sequence[int]], Job]
    source: Callable[[int], Source]
    progress: bool

    def missing(self) -> Array:
        """Tell which samples lack a layer, as a bool array (n_samples,)."""
        return np.asarray(self.store.lacking(self.keys, self.identities).any(axis=1))

    def fill(self) -> Filled:
        """Embed and commit what is missing, duplicates once."""
        number: dict[bytes, int] = {}
        for i, key in enumerate(self.keys):
            number.setdefault(key, i)
        numbers, layers = list(number.values()), self.store.layers
        also: Sequence[int] = range(self.n_blocks) if layers == "all" else []
        if layers is not None and layers != "all":
            also, _ = resolve_layers(layers, self.n_blocks)
        return self.store.fill(
            list(number),
            self.identities,
            self.identify(also),
            lambda places: self.prepare([numbers[place] for place in places]),
            self.progress,
        )

    def read(self) -> dict[int, TokenArray]:
        """Show all samples, by block; what is missing is embedded first."""
        while True:
            layers = {}
            for block, identity in self.identities.items():
                tokens = self.store.read(self.keys, identity, self.source(block))
                if tokens is None:
                    break
                layers[block] = tokens
            else:
                return layers
            self.fill()
