"""What a model reads of raw samples, each opened and tokenised once in a call.

The one place that knows how an embedder prepares its samples.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skact.cached import cached_property
from skact.embedding import TransformerEmbedder
from skact.localization._unit import Unit, cells, superpixels
from skact.models import Geometry, ImageInputs, TextInputs, resolve_layers
from skact.rows import Array
from skact.samples import open_image
from skact.tokens import TokenArray

__all__ = ["ModelInputs"]

# Bytes of pixels that stay open between embedding and explaining.
_ROOM = 2**30


class ModelInputs:
    """Raw samples as a model reads them.

    Parameters
    ----------
    embedder : TransformerEmbedder
        With one layer, without pooling and special tokens.
    samples : list of n_samples texts or images
        As the user gave them.

    Attributes
    ----------
    loaded : Loaded
        The model.
    block : int
        Block after which it is read.
    batch_size : int
        Copies of a sample per forward pass.
    """

    def __init__(self, embedder: TransformerEmbedder, samples: list[Any]) -> None:
        self._embedder, self._samples = embedder, samples
        self._reader = embedder.reader
        self.loaded = self._reader.loaded
        (self.block,), _ = resolve_layers(embedder.layer, len(self.loaded.blocks))
        self.batch_size = embedder.batch_size
        self._images: dict[int, Any] = {}
        self._room = _ROOM
        self._prepared: TextInputs | None = None
        self._players: dict[tuple[int, Unit], Array] = {}

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def is_image(self) -> bool:
        """Whether samples are images."""
        return self.loaded.modality == "image"

    def one_token(self) -> TokenArray:
        """Return a token of no sample, with the width and the source of the activations."""
        source = self._reader.source(self.block)
        return TokenArray(np.ones((1, self.loaded.width), np.float32), [0, 1], source=source)

    def activations(self) -> TokenArray:
        """Embed all samples."""
        samples = self._samples
        # A store knows a file by its bytes, and need not open it.
        if self.is_image and self._embedder.store is None:
            samples = [self._sample(i) for i in range(len(samples))]
        tokens = self._embedder.transform(samples)
        assert isinstance(tokens, TokenArray)
        return tokens

    def _sample(self, i: int) -> Any:
        """Return an image in place of its file, as long as there is room for it."""
        sample = self._images.get(i, self._samples[i])
        if isinstance(sample, str | Path) and self._room > 0:
            self._images[i] = sample = open_image(sample, i)
            self._room -= 3 * sample.width * sample.height
        return sample

    def image(self, i: int) -> Any:
        """Open an image, as RGB."""
        return open_image(self._sample(i), i)

    def process(self, image: Any) -> tuple[Tensor, Array, Geometry]:
        """Return pixels (1, n_channels, height, width), patches among positions, and geometry."""
        prepared = self._reader.prepare([image])
        assert isinstance(prepared, ImageInputs)
        inputs, kept = prepared.batch(np.array([0]))
        return inputs["pixel_values"].to(self.loaded.device), kept[0], prepared.geometries[0]

    def whole(self, i: int) -> tuple[dict[str, Any], Array]:
        """Return all that the model reads of a sample, and which positions are its tokens."""
        if self.is_image:
            pixels, kept, _ = self.process(self.image(i))
            return {"pixel_values": pixels, **self.loaded.extra}, kept
        ids, kept = self.text(i)
        read = {"input_ids": torch.from_numpy(ids[None]).to(self.loaded.device)}
        read["attention_mask"] = torch.ones_like(read["input_ids"])
        return {**read, **self.loaded.extra}, kept

    def text(self, i: int) -> tuple[Array, Array]:
        """Return ids, and which of these positions are tokens of the text."""
        encoded = self._texts(with_spans=False).encoded
        rows = slice(encoded.offsets[i], encoded.offsets[i + 1])
        return encoded.ids[rows], encoded.is_token[rows]

    def players(self, i: int, unit: Unit) -> Array:
        """Group of each token of a sample, int64 of shape (n_tokens,).

        Parameters
        ----------
        i : int
            Which sample.
        unit : Unit
            Of its modality, and not tokens themselves.

        Raises
        ------
        ValueError
            If the unit does not fit the sample, naming it.
        """
        if (i, unit) not in self._players:
            try:
                found = self._patches(i, unit) if self.is_image else self._words(i)
            except ValueError as error:
                raise ValueError(f"sample {i}: {error}") from None
            self._players[i, unit] = found
        return self._players[i, unit]

    def _patches(self, i: int, unit: Unit) -> Array:
        """Square or superpixel of each patch of an image."""
        image = self.image(i)
        shapes = self._reader.prepare([image]).shapes
        assert shapes is not None
        n_rows, n_columns = shapes[0].tolist()
        if unit.name == "grid":
            return cells(n_rows, n_columns, unit.cell_size)
        pixels, kept, _ = self.process(image)
        height, width = self.loaded.patch
        # Padding lies around the patches that are tokens, which are a rectangle.
        first = int(np.argmax(kept)) - self.loaded.prefix
        row, column = divmod(first, pixels.shape[3] // width)
        shown = pixels[0, :, row * height :, column * width :]
        shown = shown[:, : n_rows * height, : n_columns * width].permute(1, 2, 0)
        colours = shown.to("cpu", torch.float64).numpy()
        return superpixels(colours, n_rows, n_columns, unit.n_segments)

    def _words(self, i: int) -> Array:
        """Word of each token of a text; one of white space alone goes with the word before it."""
        text = self._samples[i]
        solid = np.array([not character.isspace() for character in text])
        starts = solid & ~np.concatenate([[False], solid[:-1]])
        word = np.maximum(np.cumsum(starts) - 1, 0)
        return np.unique(word[np.maximum(self._spans[i][:, 1] - 1, 0)], return_inverse=True)[1]

    @cached_property
    def _spans(self) -> list[Array]:
        return self._texts(with_spans=True).spans()

    def _texts(self, *, with_spans: bool) -> TextInputs:
        if self._prepared is None or (with_spans and self._prepared.encoded.spans is None):
            prepared = self._reader.prepare(self._samples, with_spans=with_spans)
            assert isinstance(prepared, TextInputs)
            self._prepared = prepared
        return self._prepared
