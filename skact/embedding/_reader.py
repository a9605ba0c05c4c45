"""A loaded model as one embedder reads it: what decides the numbers, their source and keys."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from skact import models
from skact.cached import cached_property
from skact.embedding._keys import layer_identities
from skact.rows import offsets_of
from skact.store import Identity
from skact.tokens import Site, Source, TokenArray
from skact.warning import warn

__all__ = ["Reader"]

_MUCH = 0.1  # of an image
_SITES = {
    "residual": "residual stream after the block",
    "attention": "what attention adds to the residual stream in the block",
    "mlp": "what the MLP adds to the residual stream in the block",
    "heads": "what enters the output projection of attention in the block",
}
_POOLED = {"cls": "CLS position", "mean": "mean of the tokens", "last": "last token"}


@dataclass(frozen=True)
class Reader:
    """A loaded model, and how it is read.

    Parameters
    ----------
    loaded : Loaded
        The model.
    by_weights : bool
        Whether somebody else may have changed its weights.
    pooling, special_tokens, batch_size, max_length, crop
        As in :class:`~skact.embedding.TransformerEmbedder`.
    sink : int or None
        Token that the model reads before each text.
    chat_tokens : str or None
        Turns that count, for chats; None for other samples.
    """

    loaded: models.Loaded
    by_weights: bool
    pooling: str | None
    special_tokens: bool
    batch_size: int
    max_length: int | None
    crop: str
    sink: int | None
    chat_tokens: str | None = None

    def prepare(
        self, samples: Sequence[Any], *, with_spans: bool = False, numbers: Any = None
    ) -> models.TextInputs | models.ImageInputs:
        """Make samples ready for the model; see :func:`skact.models.prepare`."""
        return models.prepare(
            self.loaded,
            samples,
            special_tokens=self.special_tokens,
            max_length=self.max_length,
            sink=self.sink,
            chat_tokens=self.chat_tokens or "all",
            with_spans=with_spans,
            numbers=numbers,
        )

    def forward_pass(
        self, samples: Sequence[Any], numbers: Any = None, seen: models.Seen | None = None
    ) -> models.ForwardPass:
        """Make samples ready to be embedded, whole or in parts."""
        inputs = self.prepare(samples, numbers=numbers)
        return models.ForwardPass(
            inputs, pooling=self.pooling, batch_size=self.batch_size, seen=seen
        )

    def embed(
        self, samples: Sequence[Any], blocks: Sequence[int], progress: bool
    ) -> dict[int, TokenArray]:
        """Embed samples into memory, by block."""
        job = self.forward_pass(samples)
        offsets = offsets_of(job.n_rows)
        try:
            values = job.embed(np.arange(len(samples)), blocks, progress=progress)
        except KeyboardInterrupt as error:
            error.add_note(
                f"None of the {len(samples)} samples is kept, as there is no store; with "
                "store=FOLDER, what was embedded stays, and calling again goes on."
            )
            raise
        self.warn_of(job.seen)
        return {
            block: TokenArray(
                rows,
                offsets,
                source=self.source(block),
                shapes=job.shapes,
                segments=job.segments,
            )
            for block, rows in values.items()
        }

    def warn_of(self, seen: models.Seen) -> None:
        """Warn of what would be silently wrong about samples that the model has read."""
        if said := seen.cut():
            warn(f"{said}; truncated(X) tells which. max_length={self.max_length} cuts there.")
        if said := seen.outliers():
            warn(
                f"{said}. Means, scales and separators will be about these tokens; "
                "NormClip(ratio=20) bounds them."
            )
        much = [share for share in seen.hidden if share > _MUCH]
        if self.crop == "auto" and much:
            warn(
                f"{type(self.loaded.processor).__name__} crops {len(much)} of {seen.n_samples} "
                f"images by more than a tenth: they lose {np.mean(much):.0%} of their pixels on "
                f"average, {max(much):.0%} at most. The model {self.loaded.name!r} never sees "
                'these, and what is labelled there only has no token. crop="whole" shows whole '
                'images to models that take them; crop="processor" keeps the crop without this '
                "warning."
            )

    def label(self, samples: Sequence[Any], labelled: Any, concepts: Any) -> TokenArray:
        """Turn labels of characters or pixels into labels of tokens."""
        inputs = self.prepare(samples, with_spans=True)
        labels = inputs.labels(labelled, concepts)
        offsets = offsets_of(inputs.n_tokens)
        return TokenArray(
            labels,
            offsets,
            feature_names=concepts,
            shapes=inputs.shapes,
            segments=inputs.segments,
        )

    @property
    def _template(self) -> str:
        template = models.canonical(self.loaded.processor.chat_template)
        return hashlib.sha256(template.encode()).hexdigest()

    @property
    def convention(self) -> str:
        """What is read at a block."""
        convention = _SITES[self.loaded.site]
        if self.loaded.framing is not None:
            convention += self.loaded.framing.convention
        if self.chat_tokens is not None:
            convention += f", turns of chats: {self.chat_tokens} (template {self._template[:8]})"
        if self.sink is not None:
            convention += f", after {models.sink_token(self.loaded, self.sink)!r}"
        if self.special_tokens:
            convention += ", special tokens kept"
        if self.pooling is not None:
            convention += f", {_POOLED[self.pooling]}"
        return convention

    @cached_property
    def identity(self) -> models.ModelIdentity:
        """Which model it is; all weights are looked at again if somebody may have changed them."""
        return models.identify(self.loaded, thorough=self.by_weights)

    @cached_property
    def outside(self) -> list[str]:
        """What works on the model and is no part of it."""
        return models.find_outside(self.loaded.base)

    def source(self, block: int) -> Source:
        """Say where activations at a block come from."""
        said = ", with ".join([self.convention, *self.outside])
        return Source(
            self.loaded.name, self.loaded.revision, block, said, site=cast(Site, self.loaded.site)
        )

    def identities(self, blocks: Sequence[int], stored_as: str) -> dict[int, Identity]:
        """Name layers, in one precision, by all that decides their numbers."""
        return layer_identities(
            self.identity,
            blocks,
            convention=self.convention,
            max_length=models.max_positions(self.loaded, self.max_length),
            stored_as=stored_as,
            has_gaps=self.chat_tokens is not None and self.pooling is None,
        )
