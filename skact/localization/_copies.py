"""Copies of one sample with parts of it taken away.

Perturbation changes what the model **reads**: patches are painted over in the processed image,
tokens are replaced or deleted before the embedding. Many changed copies go through the model in
batches, and each batch is reduced to a few numbers before the next one, so that no activation of a
thousand copies is ever held. Only the blocks up to the one asked for are run.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from skact.localization._inputs import ModelInputs
from skact.localization._unit import Unit
from skact.models import Loaded, capture, run_batches
from skact.rows import Array

__all__ = ["BASELINES", "Perturbation", "perturbation"]

#: What takes the place of a player, by modality; the first one that a model has is "auto".
BASELINES = {"image": ("mean", "black", "blur"), "text": ("mask", "pad", "delete")}

Inputs = dict[str, Tensor]


class _Copies(Protocol):
    """Makes changed copies of one sample: model inputs, and which positions are its tokens."""

    @property
    def players(self) -> Array: ...

    def batch(self, masks: Array) -> tuple[Inputs, Array]: ...


@dataclass(frozen=True)
class _ImageCopies:
    """An image of which patches are painted over.

    Parameters
    ----------
    pixels, paint : Tensor of shape (1, n_channels, height, width)
        The processed image, and what is seen where a patch is taken away.
    kept : ndarray of shape (n_positions,), dtype bool
        Positions that are patches.
    patch : tuple of int
        Height and width of a patch.
    prefix : int
        Positions before the first patch.
    players : ndarray of shape (n_tokens,)
        Player of each patch that is a token.
    """

    pixels: Tensor
    paint: Tensor
    kept: Array
    patch: tuple[int, int]
    prefix: int
    players: Array

    def batch(self, masks: Array) -> tuple[Inputs, Array]:
        (rows, columns), (_, _, height, width) = self.patch, self.pixels.shape
        n_rows, n_columns = height // rows, width // columns
        # Patches of padding are no players, and stay.
        there = np.ones((len(masks), n_rows * n_columns), bool)
        there[:, self.kept[self.prefix :][: n_rows * n_columns]] = masks[:, self.players]
        grid = torch.from_numpy(there.reshape(-1, 1, n_rows, n_columns)).to(self.pixels.device)
        seen = grid.repeat_interleave(rows, 2).repeat_interleave(columns, 3)
        # Pixels beyond the last whole patch are read by no token.
        seen = nn.functional.pad(seen, (0, width - seen.shape[3], 0, height - seen.shape[2]))
        kept = np.broadcast_to(self.kept, (len(masks), len(self.kept)))
        return {"pixel_values": torch.where(seen, self.pixels, self.paint)}, kept


@dataclass(frozen=True)
class _TextCopies:
    """A text of which tokens are replaced, hidden behind padding, or deleted.

    Parameters
    ----------
    ids : ndarray of shape (n_positions,)
        What the model reads.
    kept : ndarray of shape (n_positions,), dtype bool
        Positions that are tokens of the sample.
    players : ndarray of shape (n_tokens,)
        Player of each token.
    baseline : {"mask", "pad", "delete"}
        What becomes of a token that is taken away.
    filler : int
        Id of the mask or pad token.
    """

    ids: Array
    kept: Array
    players: Array
    baseline: str
    filler: int

    def batch(self, masks: Array) -> tuple[Inputs, Array]:
        there = np.ones((len(masks), len(self.ids)), bool)
        there[:, self.kept] = masks[:, self.players]
        ids = np.where(there, self.ids, self.filler)
        kept = np.broadcast_to(self.kept, ids.shape)
        if self.baseline == "mask":
            attended = np.ones_like(there)
        elif self.baseline == "pad":
            attended, kept = there, kept & there
        else:
            order = np.argsort(~there, axis=1, kind="stable")[:, : max(1, there.sum(1).max())]
            ids, attended = np.take_along_axis(ids, order, 1), np.take_along_axis(there, order, 1)
            kept = np.take_along_axis(kept, order, 1) & attended
        mask = torch.from_numpy(attended.astype(np.int64))
        return {"input_ids": torch.from_numpy(ids), "attention_mask": mask}, kept


@dataclass(frozen=True)
class Perturbation:
    """One sample, ready to be run with some of its players taken away.

    Parameters
    ----------
    loaded : Loaded
        The model.
    block : int
        Block after which it is read.
    copies : object
        Makes the changed copies.
    batch_size : int
        Copies per forward pass, halved when memory does not suffice.
    """

    loaded: Loaded
    block: int
    copies: _Copies
    batch_size: int

    @property
    def players(self) -> Array:
        """Player of each token, int64 of shape (n_tokens,)."""
        return self.copies.players

    @property
    def n_players(self) -> int:
        """Players that can be taken away."""
        return int(self.players.max()) + 1

    def run(self, masks: Array, reduce: Callable[[Tensor, Tensor], Tensor]) -> Array:
        """Run one copy per mask, and reduce each batch of activations to numbers.

        Parameters
        ----------
        masks : ndarray of shape (n_masks, n_players), dtype bool
            True where the player is kept.
        reduce : callable
            Takes the residual stream (n_copies, n_positions, n_features) and which positions are
            tokens that are left (n_copies, n_positions), returns (n_copies, n_values).

        Returns
        -------
        values : ndarray of shape (n_masks, n_values), dtype float64
            In the order of the masks.
        """
        # Copies of similar length side by side, long ones first: with deletion they are cut alike.
        order = np.argsort(-masks.sum(axis=1), kind="stable")
        out: Array | None = None
        with capture(self.loaded.base, self.loaded.places, [self.block]) as run:
            batches = run_batches(
                lambda n_done, size: order[n_done : n_done + size],
                lambda rows: self._batch(run, masks[rows], reduce),
                self.batch_size,
            )
            for rows, values in batches:
                out = np.empty((len(masks), values.shape[1])) if out is None else out
                out[rows] = values
        assert out is not None
        return out

    def _batch(self, run: Any, masks: Array, reduce: Callable[[Tensor, Tensor], Tensor]) -> Array:
        inputs, kept = self.copies.batch(masks)
        device = self.loaded.device
        inputs = {name: value.to(device) for name, value in inputs.items()}
        states: dict[int, Tensor] = {}
        run(inputs | self.loaded.extra, states.__setitem__)
        left = torch.tensor(kept, device=device)
        return reduce(states[self.block], left).to("cpu", torch.float64).numpy()


def perturbation(inputs: ModelInputs, i: int, *, baseline: str, unit: Unit) -> Perturbation:
    """Make one sample ready for perturbation.

    Parameters
    ----------
    inputs : ModelInputs
        The samples.
    i : int
        Which one.
    baseline : {"auto", "mean", "black", "blur", "mask", "pad", "delete"}
        What takes the place of a player. Images: the mean colour of the image, black, or the image
        blurred over the size of a patch. Texts: the mask token, padding that is not attended to,
        or nothing, so that the text gets shorter. "auto" is the mean colour; the mask token where
        the tokenizer has one, else deletion.
    unit : Unit
        What is one player.

    Returns
    -------
    perturbation : Perturbation
        Runs changed copies of it.

    Raises
    ------
    ValueError
        If the model cannot do this baseline, or the unit does not suit the sample.
    """
    loaded = inputs.loaded
    unit.check(loaded.modality)
    baseline = _resolve_baseline(loaded, baseline)
    copies: _Copies = (
        _image_copies(inputs, i, baseline, unit)
        if inputs.is_image
        else _text_copies(inputs, i, baseline, unit)
    )
    # With deletion the copies are of unequal lengths.
    stack = loaded.sharing == "any" or (loaded.sharing == "equal" and baseline != "delete")
    return Perturbation(loaded, inputs.block, copies, inputs.batch_size if stack else 1)


def _resolve_baseline(loaded: Loaded, baseline: str) -> str:
    known: tuple[str, ...] = BASELINES[loaded.modality]
    if loaded.modality == "text" and loaded.processor.mask_token_id is None:
        if baseline == "mask":
            raise ValueError(
                f'baseline="mask", but the tokenizer of {loaded.name!r} has no mask token; use '
                '"pad" or "delete".'
            )
        known = ("delete", "pad")
    if baseline == "auto":
        return known[0]
    if baseline not in known:
        raise ValueError(
            f"baseline={baseline!r} is not for {loaded.modality}s; use one of {known} or 'auto'."
        )
    return baseline


def _image_copies(inputs: ModelInputs, i: int, baseline: str, unit: Unit) -> _ImageCopies:
    groups = None if unit.name == "token" else inputs.players(i, unit)
    image = inputs.image(i)
    pixels, kept, geometry = inputs.process(image)
    if baseline == "mean":
        paint = pixels.mean(dim=(2, 3), keepdim=True).expand_as(pixels)
    else:
        paint, _, _ = inputs.process(_painted(image, baseline, geometry, inputs.loaded.patch))
    players = np.arange(int(kept.sum())) if groups is None else groups
    return _ImageCopies(pixels, paint, kept, inputs.loaded.patch, inputs.loaded.prefix, players)


def _painted(image: Any, baseline: str, geometry: Any, patch: tuple[int, int]) -> Any:
    """Black, or blurred so strongly that nothing within a patch is left."""
    from PIL import Image, ImageFilter

    if baseline == "black":
        return Image.new("RGB", image.size)
    axes = geometry.columns, geometry.rows
    sizes = [p * axis.original / axis.resized for p, axis in zip(patch[::-1], axes, strict=True)]
    return image.filter(ImageFilter.GaussianBlur(max(sizes)))


def _text_copies(inputs: ModelInputs, i: int, baseline: str, unit: Unit) -> _TextCopies:
    tokenizer = inputs.loaded.processor
    # Words first: they need more from the tokenizer, which is asked once.
    words = None if unit.name == "token" else inputs.players(i, unit)
    ids, kept = inputs.text(i)
    players = np.arange(int(kept.sum())) if words is None else words
    filler = tokenizer.mask_token_id if baseline == "mask" else tokenizer.pad_token_id
    return _TextCopies(ids, kept, players, baseline, filler or 0)
