"""Samples of an embedder in a store: what it lacks, filled and read back.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from skact.embedding._models import Loaded
from skact.embedding.depth import resolve_layers
from skact.embedding.store import ActivationStore
from skact.embedding.store._fill import Filled
from skact.embedding.store._identity import sample_keys
from skact.tokens import Array, TokenArray

if TYPE_CHECKING:
    from skact.embedding._embedder import TransformerEmbedder

__all__ = ["StoredSamples"]


class StoredSamples:
    """Samples that a store is to hold as an embedder gives them.

    Parameters
    ----------
    embedder : TransformerEmbedder
        Its parameters decide the numbers.
    store : ActivationStore
        The store.
    samples : list
        Texts or images.
    loaded : Loaded
        The embedder's model.
    blocks : sequence of int
        Layers that are asked for.
    """

    def __init__(
        self,
        embedder: TransformerEmbedder,
        store: ActivationStore,
        samples: list[Any],
        loaded: Loaded,
        blocks: Sequence[int],
    ) -> None:
        self.embedder = embedder
        self.store = store
        self.samples = samples
        self.loaded = loaded
        self.keys = sample_keys(samples, loaded.modality)
        self.identities = embedder._identities(store, loaded, blocks)

    def missing(self) -> Array:
        """Tell which samples lack a layer, as a bool array (n_samples,)."""
        return np.asarray(self.store._lacking(self.keys, self.identities).any(axis=1))

    def fill(self) -> Filled:
        """Embed and commit what is missing, duplicates once."""
        number: dict[bytes, int] = {}
        for i, key in enumerate(self.keys):
            number.setdefault(key, i)
        numbers, n_blocks = list(number.values()), len(self.loaded.blocks)
        layers = self.store.layers
        also: Sequence[int] = range(n_blocks) if layers == "all" else []
        if layers is not None and layers != "all":
            also, _ = resolve_layers(layers, n_blocks)
        return self.store._fill(
            list(number),
            self.identities,
            self.embedder._identities(self.store, self.loaded, also),
            lambda places: self.embedder._work(
                self.samples, self.loaded, [numbers[place] for place in places]
            ),
            self.embedder.progress,
        )

    def read(self) -> dict[int, TokenArray]:
        """Show all samples, by block; what is missing is embedded first."""
        while True:
            layers = {}
            for block, identity in self.identities.items():
                source = self.embedder._source(self.loaded, block)
                tokens = self.store._read(self.keys, identity, source)
                if tokens is None:
                    break
                layers[block] = tokens
            else:
                return layers
            self.fill()
