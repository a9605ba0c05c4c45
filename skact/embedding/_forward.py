"""Run a model over many samples and write what its blocks put out into flat arrays.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from skact.embedding._geometry import Geometry
from skact.embedding._hooks import Run, capture
from skact.embedding._models import Loaded
from skact.embedding._text import Encoded
from skact.samples import open_image
from skact.tokens import Array

__all__ = ["ImageBatches", "TextBatches", "forward"]

# Hooks belong to a module, not to a thread: two passes at once would read each other's states.
_ONE_AT_A_TIME = threading.RLock()


class _Batches(Protocol):
    """Samples in an order of our own, cut into batches that stack.

    ``order`` lists the samples, ``groups`` says which of them may share a batch, ``n_kept`` how
    many tokens each has; ``batch`` returns what the model reads and which positions are tokens.
    """

    order: Array
    groups: Array
    n_kept: Array

    def batch(self, samples: Array) -> tuple[dict[str, Tensor], Array]: ...


class TextBatches:
    """Texts from the longest to the shortest, padded on the right.

    Padding is done here and not by the tokenizer, so its padding side cannot matter, and a
    tokenizer without a pad token will do. Long texts come first: if memory does not suffice,
    that shows at once.

    Parameters
    ----------
    encoded : Encoded
        The positions of all texts.
    pad_id : int or None
        What padding holds; it is masked, so any id will do.
    """

    def __init__(self, encoded: Encoded, pad_id: int | None) -> None:
        self.encoded = encoded
        self.pad_id = pad_id or 0
        self.lengths = np.diff(encoded.offsets)
        self.order = np.argsort(-self.lengths, kind="stable")
        self.groups = np.zeros(len(self.lengths), np.int64)
        self.n_kept = encoded.n_kept

    def batch(self, samples: Array) -> tuple[dict[str, Tensor], Array]:
        """Pad some texts to the longest of them."""
        lengths = self.lengths[samples]
        real = np.arange(lengths.max()) < lengths[:, None]
        rows = _rows(self.encoded.offsets, samples, lengths)
        ids = np.full(real.shape, self.pad_id)
        kept = np.zeros(real.shape, bool)
        ids[real], kept[real] = self.encoded.ids[rows], self.encoded.kept[rows]
        inputs = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(real.astype(np.int64)),
        }
        return inputs, kept


class ImageBatches:
    """Images, those of one processed size together; opened batch by batch.

    Parameters
    ----------
    images : sequence
        The images.
    geometries : list of Geometry
        One per image.
    loaded : Loaded
        Processor and patches.
    special_tokens : bool
        Whether the positions before the patches are tokens.
    """

    def __init__(
        self,
        images: Sequence[Any],
        geometries: list[Geometry],
        loaded: Loaded,
        special_tokens: bool,
    ) -> None:
        self.images = images
        self.geometries = geometries
        self.loaded = loaded
        self.special_tokens = special_tokens
        sizes = np.array([geometry.size for geometry in geometries])
        grids = sizes // loaded.patch
        self.n_kept = grids.prod(axis=1) + loaded.prefix * special_tokens
        self.groups = np.unique(sizes, axis=0, return_inverse=True)[1].reshape(-1)
        self.order = np.lexsort((self.groups, -self.n_kept))

    def batch(self, samples: Array) -> tuple[dict[str, Tensor], Array]:
        """Open and process some images."""
        opened = [open_image(self.images[i], i) for i in samples.tolist()]
        pixels = self.loaded.processor(images=opened, return_tensors="pt")["pixel_values"]
        expected = self.geometries[samples[0]].size
        if pixels.ndim != 4 or pixels.shape[2:] != expected:
            raise ValueError(
                f"{type(self.loaded.processor).__name__} is not understood: sample {samples[0]} "
                f"became pixel_values of shape {tuple(pixels.shape)}, expected height and width "
                f"{expected}."
            )
        prefix = 0 if self.special_tokens else self.loaded.prefix
        n_positions = self.n_kept[samples[0]] + prefix
        kept = np.broadcast_to(np.arange(n_positions) >= prefix, (len(samples), n_positions))
        return {"pixel_values": pixels.to(self.loaded.dtype)}, kept


def _rows(offsets: Array, samples: Array, lengths: Array) -> Array:
    """Rows of some samples in a flat array, one sample after the other."""
    ends = np.cumsum(lengths)
    return np.repeat(offsets[samples] - ends + lengths, lengths) + np.arange(ends[-1])


def _pool(state: Tensor, kept: Tensor, pooling: str) -> Tensor:
    if pooling == "cls":
        return state[:, 0].float()
    if pooling == "last":
        last = kept.shape[1] - 1 - kept.flip(1).int().argmax(1)
        return state[torch.arange(len(state), device=state.device), last].float()
    # Padding may hold anything, NaN too, so it is replaced and not multiplied by zero.
    total = torch.where(kept[:, :, None], state, 0).sum(1, dtype=torch.float32)
    return total / kept.sum(1, keepdim=True)


class _Writer:
    """Puts the rows of each batch into their places; the arrays are made by the first batch."""

    def __init__(self, n_kept: Array, pooling: str | None) -> None:
        self.offsets = np.concatenate([[0], np.cumsum(n_kept)])
        self.pooling = pooling
        self.out: dict[int, Tensor] = {}

    def write(self, samples: Array, states: dict[int, Tensor], kept: Array) -> None:
        device = next(iter(states.values())).device
        if self.pooling is None:
            n_kept = np.diff(self.offsets)[samples]
            n_rows = int(self.offsets[-1])
            rows = torch.from_numpy(_rows(self.offsets, samples, n_kept))
            taken = torch.from_numpy(np.flatnonzero(kept)).to(device)
        else:
            n_rows, rows = len(self.offsets) - 1, torch.from_numpy(samples)
            taken = torch.tensor(kept, device=device)
        for block, state in states.items():
            if kept.shape != state.shape[:2]:
                raise RuntimeError(
                    f"block {block} put out {tuple(state.shape)} for {kept.shape[1]} positions."
                )
            if self.pooling is None:
                values = state.reshape(-1, state.shape[2]).index_select(0, taken)
            else:
                values = _pool(state, taken, self.pooling)
            values = values.to("cpu", torch.float16 if _is_half(values) else torch.float32)
            if block not in self.out:
                self.out[block] = torch.empty(n_rows, values.shape[1], dtype=values.dtype)
            self.out[block].index_copy_(0, rows, values)


def _is_half(values: Tensor) -> bool:
    return values.dtype == torch.float16


def _out_of_memory(error: Exception) -> bool:
    message = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "out of memory" in message
        or "can't allocate memory" in message
        or "not enough memory" in message
    )


def _try(run: Run, batches: _Batches, samples: Array, loaded: Loaded, writer: _Writer) -> bool:
    """Embed one batch; False if memory did not suffice and the batch can be made smaller."""
    inputs, kept = batches.batch(samples)
    try:
        states = run({k: v.to(loaded.device) for k, v in inputs.items()} | loaded.extra)
        writer.write(samples, states, kept)
    except (RuntimeError, MemoryError) as error:
        if len(samples) == 1 or not _out_of_memory(error):
            raise
        return False
    return True


def forward(
    loaded: Loaded,
    batches: _Batches,
    blocks: Sequence[int],
    *,
    pooling: str | None,
    batch_size: int,
    progress: bool,
) -> dict[int, Array]:
    """Read blocks of a model over all samples, in one forward pass per batch.

    Parameters
    ----------
    loaded : Loaded
        The model.
    batches : TextBatches or ImageBatches
        The samples.
    blocks : sequence of int
        Blocks to read.
    pooling : {"cls", "mean", "last"} or None
        Whether to keep one vector per sample only.
    batch_size : int
        Samples per batch; halved for good when memory does not suffice.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    values : dict of int to ndarray of shape (n_tokens or n_samples, n_features)
        By block, samples in their original order; float32, or float16 for the tokens of a model
        in float16.

    Raises
    ------
    RuntimeError
        If memory does not suffice for a single sample.
    """
    from tqdm.auto import tqdm

    writer = _Writer(batches.n_kept, pooling)
    order, groups = batches.order, batches.groups[batches.order]
    start = 0
    with (
        _ONE_AT_A_TIME,
        capture(loaded.base, loaded.blocks, blocks) as run,
        tqdm(total=len(order), desc="Embedding", unit="sample", disable=not progress) as bar,
    ):
        while start < len(order):
            stop = start + int(np.argmin(groups[start : start + batch_size] == groups[start]))
            stop = min(start + batch_size, len(order)) if stop == start else stop
            if _try(run, batches, order[start:stop], loaded, writer):
                bar.update(stop - start)
                start = stop
            else:
                batch_size = max(1, (stop - start) // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
    return {block: values.numpy() for block, values in writer.out.items()}
