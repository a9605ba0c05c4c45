"""Put the rows that a model puts out batch by batch into their places in large arrays.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

import os
from mmap import mmap
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from skact.tokens import Array

__all__ = ["Writer", "rows_of", "send"]

# numpy has no bfloat16: its bits are kept as uint16.
_AS_TORCH = {"float32": torch.float32, "float16": torch.float16, "uint16": torch.bfloat16}
_MOST_PARTS = 1024  # that one call of the system takes


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device; to CUDA beside the work in hand, which takes pinned memory."""
    on_cuda = device.type == "cuda"
    return (tensor.pin_memory() if on_cuda else tensor).to(device, non_blocking=on_cuda)


def rows_of(offsets: Array, samples: Array) -> Array:
    """Rows of some samples in a flat array, one sample after the other."""
    lengths = np.diff(offsets)[samples]
    ends = np.cumsum(lengths)
    return np.repeat(offsets[samples] - ends + lengths, lengths) + np.arange(ends[-1])


def _stretches(source: Array, target: Array) -> list[tuple[slice, int]]:
    """Cut pairs of rows into stretches in which both go on by one: which rows, and from where."""
    cuts = np.flatnonzero((np.diff(source) != 1) | (np.diff(target) != 1)) + 1
    starts = np.concatenate([[0], cuts])
    lengths = np.diff(starts, append=len(source))
    return [
        (slice(row, row + length), place)
        for row, place, length in zip(
            source[starts].tolist(), target[starts].tolist(), lengths.tolist(), strict=True
        )
    ]


def _pool(state: Tensor, kept: Tensor, pooling: str | None) -> Tensor:
    if pooling == "cls":
        return state[:, 0].float()
    if pooling == "last":
        last = kept.shape[1] - 1 - kept.flip(1).int().argmax(1)
        return state[torch.arange(len(state), device=state.device), last].float()
    # Padding may hold anything, NaN too, so it is replaced and not multiplied by zero.
    total = torch.where(kept[:, :, None], state, 0).sum(1, dtype=torch.float32)
    return total / kept.sum(1, keepdim=True)


def _leaves_half(rows: Tensor) -> bool:
    least, largest = rows.aminmax()
    return not -65504 <= float(least) <= float(largest) <= 65504


class _Memory:
    """An array that rows are copied into."""

    def __init__(self, array: Array) -> None:
        self.dtype = _AS_TORCH[array.dtype.name]
        self.values = torch.from_numpy(array).view(self.dtype)

    def put(self, rows: Tensor, stretches: list[tuple[slice, int]]) -> None:
        for taken, start in stretches:
            self.values[start : start + taken.stop - taken.start].copy_(rows[taken])

    def close(self) -> None:
        pass


class _File:
    """A mapped file that rows are written into.

    The map sees what is written. To write through it would cost a fault for every page, which
    takes twice as long.
    """

    def __init__(self, array: Any) -> None:
        self.dtype = _AS_TORCH[array.dtype.name]
        self.offset, self.row_bytes = array.offset, array.strides[0]
        self.descriptor = os.open(array.filename, os.O_WRONLY)

    def put(self, rows: Tensor, stretches: list[tuple[slice, int]]) -> None:
        raw = rows.to(self.dtype).contiguous().view(torch.uint8).numpy()
        parts: list[Array] = []
        first = stop = 0
        for taken, start in stretches:
            if start != stop or len(parts) == _MOST_PARTS:
                self._write(parts, first)
                parts, first = [], start
            parts.append(raw[taken])
            stop = start + taken.stop - taken.start
        self._write(parts, first)

    def _write(self, parts: list[Array], start: int) -> None:
        """Write what belongs one after the other, in one call if the system takes all of it."""
        place = self.offset + start * self.row_bytes
        n_bytes = sum(part.nbytes for part in parts)
        done = os.pwritev(self.descriptor, parts, place) if parts else 0
        while done < n_bytes:
            rest = b"".join(part.tobytes() for part in parts)[done:]
            done += os.pwrite(self.descriptor, rest, place + done)

    def close(self) -> None:
        os.close(self.descriptor)


def _target(array: Array) -> _Memory | _File:
    whole = isinstance(array, np.memmap) and isinstance(array.base, mmap)
    return _File(array) if whole and hasattr(os, "pwritev") else _Memory(array)


class Writer:
    """Puts the rows of each batch into their places, in the dtype of the arrays.

    A context manager. On a CPU one copy does it. An accelerator gathers and converts, sends the
    rows to pinned memory, and works on the next batch while they are put into place.

    Parameters
    ----------
    out : dict of int to ndarray of shape (n_tokens or n_samples, n_features)
        By block, to write into: float32, float16, or uint16 for the bits of bfloat16.
    n_kept : ndarray of shape (n_samples,)
        Tokens of each sample.
    pooling : {"cls", "mean", "last"} or None
        Whether to write one vector per sample only.
    """

    def __init__(self, out: dict[int, Array], n_kept: Array, pooling: str | None) -> None:
        self.offsets = np.concatenate([[0], np.cumsum(n_kept)])
        self.pooling = pooling
        self.out = {block: _target(array) for block, array in out.items()}
        self._sent: dict[int, Tensor] = {}
        self._stretches: list[tuple[slice, int]] = []
        self._arrived: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for target in self.out.values():
            target.close()

    def write(self, samples: Array, states: dict[int, Tensor], kept: Array) -> None:
        """Write what the blocks put out for some samples.

        Parameters
        ----------
        samples : ndarray of shape (n_batch,)
            Their numbers.
        states : dict of int to Tensor of shape (n_batch, n_positions, n_features)
            By block.
        kept : ndarray of shape (n_batch, n_positions), dtype bool
            Positions that are tokens.

        Raises
        ------
        RuntimeError
            If a block did not put out one row per position.
        OverflowError
            If a value is too large for float16.
        """
        if self.pooling is None:
            source, target = np.flatnonzero(kept), rows_of(self.offsets, samples)
        else:
            source, target = np.arange(len(samples)), samples
        device = next(iter(states.values())).device
        on_cpu, on_cuda = device.type == "cpu", device.type == "cuda"
        taken = None if on_cpu else send(torch.from_numpy(source), device)
        mask = None if self.pooling is None else send(torch.tensor(kept), device)
        sent = {}
        for block, state in states.items():
            if kept.shape != state.shape[:2]:
                raise RuntimeError(
                    f"block {block} put out {tuple(state.shape)} for {kept.shape[1]} positions."
                )
            rows = state.flatten(0, 1) if mask is None else _pool(state, mask, self.pooling)
            if taken is not None:
                rows = rows.index_select(0, taken).to(self.out[block].dtype)
                rows = rows.to("cpu", non_blocking=on_cuda)
            sent[block] = rows
        self.flush()
        self._sent = sent
        self._stretches = _stretches(source if on_cpu else np.arange(len(source)), target)
        self._arrived = torch.cuda.current_stream(device).record_event() if on_cuda else None
        if on_cpu:
            self.flush()

    def flush(self) -> None:
        """Put the rows that were sent last into their places."""
        if self._arrived is not None:
            self._arrived.synchronize()
        for block, rows in self._sent.items():
            out = self.out[block]
            out.put(rows, self._stretches)
            # Rows that are left out, padding say, may be the large ones.
            if (
                out.dtype == torch.float16
                and _leaves_half(rows)
                and any(rows[source].half().isinf().any() for source, _ in self._stretches)
            ):
                raise OverflowError(
                    f"block {block} puts out values beyond 65504, the largest of float16; keep its "
                    "activations in bfloat16 or float32."
                )
        self._sent = {}
