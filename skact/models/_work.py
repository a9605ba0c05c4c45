"""Samples made ready for a model, and sent through it whole or in parts.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skact.models._forward import ImageBatches, TextBatches, forward
from skact.models._geometry import Geometry
from skact.models._loaded import Loaded
from skact.models._text import Encoded
from skact.models._writer import rows_of
from skact.progress import Bar
from skact.rows import Array, Sink
from skact.samples import open_image

__all__ = ["Work"]


class Work:
    """Samples that are tokenised, or images whose geometry is known.

    Parameters
    ----------
    loaded : Loaded
        The model.
    ready : Encoded or list of Geometry
        The texts, or what will be done to each image.
    images : sequence
        The images; empty for texts.
    numbers : sequence of int
        Number of each sample in what the user gave, for errors.
    special_tokens, pooling, batch_size
        As in :class:`~skact.embedding.TransformerEmbedder`.

    Attributes
    ----------
    n_tokens, n_rows : ndarray of shape (n_samples,)
        Tokens that the model gives for a sample, and rows that are kept: one if they are pooled.
    n_features : int
        Numbers in a row.
    """

    def __init__(
        self,
        loaded: Loaded,
        ready: Encoded | list[Geometry],
        images: Sequence[Any],
        numbers: Sequence[int],
        *,
        special_tokens: bool,
        pooling: str | None,
        batch_size: int,
    ) -> None:
        self.loaded = loaded
        self.ready = ready
        self.images = images
        self.numbers = numbers
        self.special_tokens = special_tokens
        self.pooling = pooling
        self.n_features = loaded.width
        batches = self._batches(np.arange(len(numbers)))
        # As many positions as so many samples of mean length have, in whatever parts they come.
        self.budget = batch_size * int(batches.lengths.sum()) // len(numbers)
        self.n_tokens = batches.n_kept
        self.n_rows = self.n_tokens if pooling is None else np.ones(len(numbers), np.int64)

    def _batches(self, rows: Array) -> TextBatches | ImageBatches:
        if isinstance(self.ready, Encoded):
            places, lengths = rows_of(self.ready.offsets, rows), np.diff(self.ready.offsets)[rows]
            encoded = Encoded(
                self.ready.ids[places],
                np.concatenate([[0], np.cumsum(lengths)]),
                self.ready.kept[places],
                None,
            )
            return TextBatches(encoded, self.loaded.processor.pad_token_id)
        images = [self.images[i] for i in rows]
        geometries = [self.ready[i] for i in rows]
        return ImageBatches(images, geometries, self.loaded, self.special_tokens)

    def embed(
        self,
        rows: Array,
        blocks: Sequence[int],
        sink: Sink | None = None,
        progress: bool | Bar = False,
    ) -> dict[int, Array]:
        """Run the model on some samples.

        Parameters
        ----------
        rows : ndarray of shape (n_taken,), int
            Which ones.
        blocks, sink, progress
            As in :func:`~skact.models._forward.forward`.

        Returns
        -------
        values : dict of int to ndarray of shape (n_rows, n_features)
            By block, one sample after another; none where a sink has taken them.
        """
        try:
            return forward(
                self.loaded,
                self._batches(rows),
                blocks,
                pooling=self.pooling,
                budget=self.budget,
                progress=progress,
                sink=sink,
            )
        except ValueError:
            if self.loaded.modality == "image":
                for i in rows:
                    open_image(self.images[i], self.numbers[i])  # names it among all samples
            raise
