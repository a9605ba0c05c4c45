"""Run a model over many samples and write what its blocks put out into flat arrays.

Samples are taken from the longest to the shortest and cut into batches of at most B positions,
padding included: many short samples or few long ones at a time. A batch pads n_b samples to its
longest, of length M_b, where the shortest has m_b, so over all batches the padding is at most

    sum_b n_b (M_b - m_b) <= B sum_b (1 - m_b / M_b) <= B log(longest / shortest),

since n_b M_b <= B, 1 - x <= -log(x), and no batch begins above the length at which the one before
ended. However many samples there are, the padding does not grow.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from skact.models._geometry import Geometry
from skact.models._hooks import capture
from skact.models._loaded import Loaded
from skact.models._memory import run_batches
from skact.models._text import Encoded
from skact.models._writer import Writer, rows_of, send
from skact.progress import Bar, token_bar
from skact.rows import Array, Arrays, Sink
from skact.samples import open_image

__all__ = ["ImageBatches", "TextBatches", "cut", "forward"]


class _Batches(Protocol):
    """Samples in an order of our own, cut into batches that stack.

    ``order`` lists the samples, ``groups`` says which of them may share a batch, ``lengths`` how
    many positions each has and ``n_kept`` how many tokens; ``batch`` returns what the model reads
    and which positions are tokens.
    """

    order: Array
    groups: Array
    lengths: Array
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
        rows = rows_of(self.encoded.offsets, samples)
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
        self.lengths = grids.prod(axis=1) + loaded.prefix
        self.n_kept = np.array([self._kept(i).sum() for i in range(len(geometries))])
        self.groups = np.unique(sizes, axis=0, return_inverse=True)[1].reshape(-1)
        self.order = np.lexsort((self.groups, -self.lengths))

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
        kept = np.stack([self._kept(i) for i in samples.tolist()])
        return {"pixel_values": pixels.to(self.loaded.dtype)}, kept

    def _kept(self, i: int) -> Array:
        """Which positions are tokens: no padding, and those before the patches if asked for."""
        before = np.full(self.loaded.prefix, self.special_tokens)
        return np.concatenate([before, self.geometries[i].tokens(self.loaded.patch)])


def cut(batches: _Batches, start: int, budget: int) -> Array:
    """Take samples of one group while, padded to the first of them, they fill no more."""
    samples = batches.order[start:]
    if len(samples):
        samples = samples[: max(1, budget // int(batches.lengths[samples[0]]))]
        groups = batches.groups[samples]
        samples = samples[: int(np.argmin(np.append(groups == groups[0], False)))]
    return samples


class _Ahead:
    """Batches, of which the next is made ready in another thread while one is run.

    Parameters
    ----------
    batches : TextBatches or ImageBatches
        The samples.
    thread : ThreadPoolExecutor
        With one worker.

    Attributes
    ----------
    ready : Future
        What the model reads of the batch that was cut last, and which positions are tokens.
    """

    def __init__(self, batches: _Batches, thread: ThreadPoolExecutor) -> None:
        self.batches = batches
        self.thread = thread
        self._place: tuple[int, int] | None = None

    def cut(self, n_done: int, budget: int) -> Array:
        """Cut a batch, and begin with the one after it."""
        if self._place != (n_done, budget):  # the first one, or memory did not suffice
            self._begin(n_done, budget)
        samples, self.ready = self._following
        self._begin(n_done + len(samples), budget)
        return samples

    def _begin(self, n_done: int, budget: int) -> None:
        samples = cut(self.batches, n_done, budget)
        ready = self.thread.submit(self.batches.batch, samples) if len(samples) else Future()
        self._place, self._following = (n_done, budget), (samples, ready)


def forward(
    loaded: Loaded,
    batches: _Batches,
    blocks: Sequence[int],
    *,
    pooling: str | None,
    budget: int,
    progress: bool | Bar,
    sink: Sink | None = None,
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
    budget : int
        Positions of a batch, padding included; a longer sample is a batch by itself. Halved for
        good when memory does not suffice.
    progress : bool or bar
        Whether to show a bar, in tokens; or a bar whose ``update`` takes the tokens of a batch.
    sink : Sink or None, default=None
        Where the rows go, straight from the model, batch by batch. None takes memory for all.

    Returns
    -------
    values : dict of int to ndarray of shape (n_tokens or n_samples, n_features)
        The arrays by block, samples in their original order; float32, or float16 for the tokens
        of a model in float16. Empty where a sink has taken the rows.

    Raises
    ------
    RuntimeError
        If memory does not suffice for a single sample.
    OverflowError
        If a sink of float16 cannot hold a value.
    """
    n_kept = batches.n_kept
    memory = None
    if sink is None:
        half = pooling is None and loaded.dtype == torch.float16
        dtype = np.dtype(np.float16 if half else np.float32)
        lengths = n_kept if pooling is None else np.ones_like(n_kept)
        sink = memory = Arrays(blocks, lengths, loaded.width, dtype)
    writer = Writer(sink, n_kept, pooling, loaded.device)
    with (
        capture(loaded.base, loaded.blocks, blocks) as run,
        ThreadPoolExecutor(1) as thread,
        token_bar(progress, int(n_kept.sum())) as bar,
    ):
        ahead = _Ahead(batches, thread)

        def embed(samples: Array) -> None:
            inputs, kept = ahead.ready.result()
            writer.start(samples, kept)
            sent = {name: send(value, loaded.device) for name, value in inputs.items()}
            run(sent | loaded.extra, writer.take)
            writer.end()

        def n_positions(samples: Array) -> int:
            return len(samples) * int(batches.lengths[samples[0]])

        for samples, _ in run_batches(ahead.cut, embed, budget, n_positions):
            bar.update(int(n_kept[samples].sum()))
        writer.flush()
    return {} if memory is None else memory.values
