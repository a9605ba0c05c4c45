"""Samples made ready for a model: which positions it will read, and which of them are tokens.

Texts are tokenised at once and padded batch by batch; of images the geometry is worked out at once,
and the pixels are read batch by batch.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skact.cached import cached_property
from skact.models._chats import (
    ChatToken,
    are_chats,
    chat_texts,
    check_chats,
    encode_chats,
    list_chat_tokens,
)
from skact.models._geometry import Geometry, Patch, patch_boxes
from skact.models._images import image_geometries, label_patches
from skact.models._loaded import Loaded, max_positions
from skact.models._processors import calling
from skact.models._text import (
    Encoded,
    Token,
    check_texts,
    encode,
    label_tokens,
    list_tokens,
    locate,
    own_characters,
)
from skact.rows import Array, rows_of
from skact.samples import open_image

__all__ = ["ImageInputs", "TextInputs", "prepare"]

_NO_PATCH = Patch(-1, -1, (0.0, 0.0, 0.0, 0.0))


@dataclass(frozen=True)
class TextInputs:
    """Texts that are tokenised, to be padded on the right batch by batch.

    Padding is done here and not by the tokenizer, so its padding side cannot matter, and a
    tokenizer without a pad token will do.

    Parameters
    ----------
    loaded : Loaded
        The model.
    texts : list of n_samples str
        The texts.
    encoded : Encoded
        Their positions.
    special_tokens : bool
        Whether special tokens count as tokens.
    """

    loaded: Loaded
    texts: list[str]
    encoded: Encoded
    special_tokens: bool

    @cached_property
    def lengths(self) -> Array:
        """Positions of each text, int64 of shape (n_samples,)."""
        return np.diff(self.encoded.offsets)

    @cached_property
    def n_tokens(self) -> Array:
        """Tokens of each text, int64 of shape (n_samples,)."""
        return self.encoded.n_tokens

    @property
    def is_cut(self) -> Array:
        """Whether a text was too long and lost some of its tokens, bool of shape (n_samples,)."""
        return self.encoded.is_cut

    @property
    def hidden(self) -> Array:
        """Nothing of a text is hidden as pixels of an image may be: zeros (n_samples,)."""
        return np.zeros(len(self.texts))

    @property
    def shapes(self) -> None:
        """No rows and columns: a text is a run of tokens."""
        return None

    @property
    def segments(self) -> Array | None:
        """Runs of adjacent tokens, int32 (n_tokens,); None where every text is one run."""
        return self.encoded.segments

    @property
    def groups(self) -> Array:
        """Which texts may share a batch, int64 of shape (n_samples,); see :class:`Loaded`."""
        return _groups(self.loaded, self.lengths)

    def batch(self, samples: Array) -> tuple[dict[str, Tensor], Array]:
        """Pad some texts to the longest of them.

        Parameters
        ----------
        samples : ndarray of shape (n_batch,), int
            Which ones.

        Returns
        -------
        inputs : dict of str to Tensor
            What the model reads.
        is_token : ndarray of shape (n_batch, n_positions), dtype bool
            Positions that are tokens.
        """
        lengths = self.lengths[samples]
        real = np.arange(lengths.max()) < lengths[:, None]
        rows = rows_of(self.encoded.offsets, samples)
        ids = np.full(real.shape, self.loaded.pad_id)
        is_token = np.zeros(real.shape, bool)
        ids[real], is_token[real] = self.encoded.ids[rows], self.encoded.is_token[rows]
        inputs = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(real.astype(np.int64)),
        }
        return inputs, is_token

    def spans(self) -> list[Array]:
        """Characters of each token, one array (n_tokens_i, 2) per text; see :func:`locate`."""
        with calling(self.loaded.processor) as tokenizer:
            return locate(self.encoded, self.texts, tokenizer, self.special_tokens)

    def tokens(self) -> list[list[Token]]:
        """Name the tokens of each text."""
        with calling(self.loaded.processor) as tokenizer:
            return list_tokens(self.encoded, self.texts, self.spans(), tokenizer)

    def labels(self, spans: Any, concepts: Any) -> Array:
        """Label the tokens of all texts by spans; see :func:`check_spans` and `label_tokens`."""
        return label_tokens(spans, concepts, self.spans())


@dataclass(frozen=True)
class ChatInputs(TextInputs):
    """Chats that are rendered to tokens; ``texts`` are the contents of their messages, joined.

    Parameters
    ----------
    chats : list of n_samples chats
        The chats.
    """

    chats: list[Any]

    def spans(self) -> list[Array]:
        """Characters of each token in the joined contents, one array (n_tokens_i, 2) per chat."""
        return own_characters(self.encoded, self.texts)

    def tokens(self) -> list[list[ChatToken]]:  # type: ignore[override]
        """Name the tokens of each chat."""
        return [list_chat_tokens(*one) for one in zip(self.chats, self.spans(), strict=True)]


@dataclass(frozen=True)
class ImageInputs:
    """Images whose geometry is known, to be opened batch by batch.

    Parameters
    ----------
    loaded : Loaded
        The model.
    images : list of n_samples images
        The images.
    geometries : list of n_samples Geometry
        Where the pixels of each go.
    special_tokens : bool
        Whether the positions before and behind the patches count as tokens.
    numbers : sequence of int
        Number of each image in what the user gave; for errors.
    """

    loaded: Loaded
    images: list[Any]
    geometries: list[Geometry]
    special_tokens: bool
    numbers: Sequence[int]

    def __post_init__(self) -> None:
        n_patches = self._grids.prod(axis=1)
        if not n_patches.all():
            i = int(np.argmin(n_patches))
            height, width = self.geometries[i].rows.original, self.geometries[i].columns.original
            raise ValueError(
                f"sample {self.numbers[i]} is an image of height {height} and width {width}, of "
                f"which no patch of {self.loaded.patch} pixels is left; make it larger."
            )

    @cached_property
    def _sizes(self) -> Array:
        return np.array([geometry.size for geometry in self.geometries])

    @cached_property
    def lengths(self) -> Array:
        """Positions of each image, int64 of shape (n_samples,)."""
        extra = self.loaded.prefix + self.loaded.suffix
        return (self._sizes // self.loaded.patch).prod(axis=1) + extra

    @property
    def is_cut(self) -> Array:
        """Whether a text was cut: False, of shape (n_samples,)."""
        return np.zeros(len(self.images), bool)

    @cached_property
    def n_tokens(self) -> Array:
        """Tokens of each image, int64 of shape (n_samples,)."""
        return self._grids.prod(axis=1) + sum(self._extra)

    @cached_property
    def _grids(self) -> Array:
        """Rows and columns of the patches of each image that are tokens."""
        known = {one: one.shape(self.loaded.patch) for one in set(self.geometries)}
        return np.array([known[one] for one in self.geometries], np.int64)

    @cached_property
    def hidden(self) -> Array:
        """Share of the pixels of each image that no patch shows, float64 (n_samples,)."""
        known = {one: one.hidden(self.loaded.patch) for one in set(self.geometries)}
        return np.array([known[one] for one in self.geometries])

    @property
    def shapes(self) -> Array | None:
        """Rows and columns of each image, int64 (n_samples, 2); None with special tokens."""
        return None if self.special_tokens else self._grids

    @property
    def segments(self) -> None:
        """No gaps: nothing is left out between patches."""
        return None

    @cached_property
    def groups(self) -> Array:
        """Which images may share a batch, int64 of shape (n_samples,): of those of one size."""
        return _groups(self.loaded, np.unique(self._sizes, axis=0, return_inverse=True)[1].ravel())

    def batch(self, samples: Array) -> tuple[dict[str, Tensor], Array]:
        """Open and process some images of one processed size.

        Parameters
        ----------
        samples : ndarray of shape (n_batch,), int
            Which ones.

        Returns
        -------
        inputs : dict of str to Tensor
            What the model reads.
        is_token : ndarray of shape (n_batch, n_positions), dtype bool
            Positions that are tokens.

        Raises
        ------
        ValueError
            If a file is broken, naming its number, or the processor makes another size.
        """
        size = self.geometries[samples[0]].size
        pixels = torch.cat([self._pixels(i, size) for i in samples.tolist()])
        is_token = np.stack([self._is_token(self.geometries[i]) for i in samples.tolist()])
        return {"pixel_values": pixels.to(self.loaded.dtype)}, is_token

    def _pixels(self, i: int, size: tuple[int, int]) -> Tensor:
        """Open and process one image: no two are held in full size."""
        image = open_image(self.images[i], self.numbers[i])
        pixels: Tensor = self.loaded.shown.pixels(image, size)
        if pixels.ndim != 4 or pixels.shape[2:] != size:
            raise ValueError(
                f"{type(self.loaded.processor).__name__} is not understood: sample "
                f"{self.numbers[i]} became "
                f"pixel_values of shape {tuple(pixels.shape)}, expected height and width {size}."
            )
        return pixels

    def _is_token(self, geometry: Geometry) -> Array:
        """Which positions are tokens: no padding, and those around the patches if asked for."""
        extra = (self.loaded.prefix, self.loaded.suffix)
        patches = geometry.tokens(self.loaded.patch)
        return np.pad(patches, extra, constant_values=self.special_tokens)

    @property
    def _extra(self) -> tuple[int, int]:
        """Tokens before the patches and behind them."""
        loaded = self.loaded
        return (loaded.prefix, loaded.suffix) if self.special_tokens else (0, 0)

    def tokens(self) -> list[list[Patch]]:
        """Name the tokens of each image."""
        before, behind = ([_NO_PATCH] * n for n in self._extra)
        return [before + patch_boxes(one, self.loaded.patch) + behind for one in self.geometries]

    def labels(self, masks: Any, concepts: Sequence[Any] | None) -> Array:
        """Label the tokens of all images by masks; see :func:`label_patches`."""
        n_concepts = None if concepts is None else len(concepts)
        return label_patches(self.geometries, masks, self.loaded.patch, self._extra, n_concepts)


def _groups(loaded: Loaded, alike: Array) -> Array:
    """Which samples may share a batch, where those that are alike stack without padding."""
    if loaded.sharing == "none":
        return np.arange(len(alike))
    by_length = loaded.sharing == "equal" or loaded.modality == "image"
    return alike.astype(np.int64) if by_length else np.zeros(len(alike), np.int64)


def _check_ids(loaded: Loaded, encoded: Encoded, numbers: Sequence[int]) -> None:
    unknown = np.flatnonzero(encoded.ids >= loaded.n_ids)
    for place in unknown[:1].tolist():
        i = int(np.searchsorted(encoded.offsets, place, side="right")) - 1
        token = loaded.processor.convert_ids_to_tokens(int(encoded.ids[place]))
        raise ValueError(
            f"sample {numbers[i]} has the token {token!r}, number {encoded.ids[place]}, but the "
            f"model {loaded.name!r} has embeddings for {loaded.n_ids} tokens only; its tokenizer "
            "belongs to another model, or was added to without model.resize_token_embeddings."
        )


def prepare(
    loaded: Loaded,
    samples: Sequence[Any],
    *,
    special_tokens: bool = False,
    max_length: int | None = None,
    sink: int | None = None,
    chat_tokens: str = "all",
    with_spans: bool = False,
    numbers: Sequence[int] | None = None,
) -> TextInputs | ImageInputs:
    """Check samples, and work out what a model will read of them.

    Parameters
    ----------
    loaded : Loaded
        The model.
    samples : sequence of n_samples texts or images
        As the model's modality asks.
    special_tokens : bool, default=False
        Whether special tokens, and the positions around the patches, count as tokens.
    max_length : int or None, default=None
        Positions that a text is cut to; see :func:`max_positions`.
    sink : int or None, default=None
        Token that the model reads before each text; see :func:`find_sink`.
    chat_tokens : {"all", "last"} or str, default="all"
        Turns of a chat that count; a role takes those of that role.
    with_spans : bool, default=False
        Whether the characters of the tokens will be asked for; nothing for images.
    numbers : sequence of int or None, default=None
        Number of each sample in what the user gave, for errors; None counts from 0.

    Returns
    -------
    inputs : TextInputs or ImageInputs
        The samples, with ``lengths``, ``n_tokens``, ``batch`` and ``tokens``.

    Raises
    ------
    ValueError, TypeError
        If a sample is not of the modality, has no token, or has one that the model does not know,
        naming its number.
    """
    numbers = range(len(samples)) if numbers is None else numbers
    if loaded.modality == "image":
        geometries = image_geometries(samples, loaded.shown, numbers)
        return ImageInputs(loaded, list(samples), geometries, special_tokens, numbers)
    limit = max_positions(loaded, max_length)
    if are_chats(samples):
        chats = check_chats(samples, loaded.processor, numbers)
        encoded = encode_chats(
            chats, loaded.processor, which=chat_tokens, max_length=limit, sink=sink, numbers=numbers
        )
        _check_ids(loaded, encoded, numbers)
        return ChatInputs(loaded, chat_texts(chats), encoded, special_tokens, chats)
    texts = check_texts(samples, numbers)
    encoded = encode(
        texts,
        loaded.processor,
        max_length=limit,
        special_tokens=special_tokens,
        sink=sink,
        with_spans=with_spans,
        numbers=numbers,
    )
    _check_ids(loaded, encoded, numbers)
    return TextInputs(loaded, texts, encoded, special_tokens)
