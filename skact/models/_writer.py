"""Put the rows that a model puts out batch by batch into their places in large arrays.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skact.rows import Array, Sink, rows_from

__all__ = ["Writer", "send"]

# numpy has no bfloat16: its bits are kept as uint16.
_AS_TORCH = {"float32": torch.float32, "float16": torch.float16, "uint16": torch.bfloat16}


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device; to CUDA beside the work in hand, which takes pinned memory."""
    on_cuda = device.type == "cuda"
    return (tensor.pin_memory() if on_cuda else tensor).to(device, non_blocking=on_cuda)


def _pool(state: Tensor, is_token: Tensor, pooling: str | None) -> Tensor:
    if pooling == "cls":
        return state[:, 0].float()
    if pooling == "last":
        last = is_token.shape[1] - 1 - is_token.flip(1).int().argmax(1)
        return state[torch.arange(len(state), device=state.device), last].float()
    # Padding may hold anything, NaN too, so it is replaced and not multiplied by zero.
    total = torch.where(is_token[:, :, None], state, 0).sum(1, dtype=torch.float32)
    return total / is_token.sum(1, keepdim=True)


def _leaves_half(rows: Tensor) -> bool:
    least, largest = rows.aminmax()
    return not -65504 <= float(least) <= float(largest) <= 65504


class Writer:
    """Puts the rows of each batch into their places, in the dtype of the places.

    On a CPU they are put there as soon as a block has run. An accelerator gathers and converts,
    sends the rows to pinned memory, and works on the next batch while they are put into place;
    :meth:`flush` does it for the last.

    Parameters
    ----------
    sink : Sink
        Has the places.
    n_tokens : ndarray of shape (n_samples,)
        Tokens of each sample.
    pooling : {"cls", "mean", "last"} or None
        Whether to write one vector per sample only.
    device : device
        Of the model.

    Attributes
    ----------
    delayed : bool
        Whether a batch is put into place while the model works on the next.
    """

    def __init__(
        self, sink: Sink, n_tokens: Array, pooling: str | None, device: torch.device
    ) -> None:
        self.sink = sink
        self.device = device
        self.delayed = device.type != "cpu"
        self.dtype = _AS_TORCH[sink.dtype.name]
        self.n_rows = n_tokens if pooling is None else np.ones_like(n_tokens)
        self.pooling = pooling
        self._sent: dict[int, Tensor] = {}
        self._arrived: Any = None

    def start(self, samples: Array, is_token: Array) -> None:
        """Begin a batch; what was taken of one that did not end is forgotten.

        Parameters
        ----------
        samples : ndarray of shape (n_batch,)
            Their numbers.
        is_token : ndarray of shape (n_batch, n_positions), dtype bool
            Positions that are tokens.
        """
        self.samples, self.shape = samples, is_token.shape
        # Of a pooled batch the mask, else the rows to take.
        chosen = is_token if self.pooling else np.flatnonzero(is_token)
        self._chosen = send(torch.from_numpy(chosen), self.device)
        self._sending: dict[int, Tensor] = {}
        if not self.delayed:
            self._places = self._room(samples)

    def take(self, block: int, state: Tensor) -> None:
        """Take what a block put out for the batch.

        Parameters
        ----------
        block : int
            The block.
        state : Tensor of shape (n_batch, n_positions, n_features)
            Its output.

        Raises
        ------
        RuntimeError
            If it is not one row per position.
        OverflowError
            If a value is too large for float16.
        """
        if self.shape != state.shape[:2]:
            raise RuntimeError(
                f"block {block} put out {tuple(state.shape)} for {self.shape[1]} positions."
            )
        if self.delayed:
            rows = self._rows(state).to(self.dtype)
            self._sending[block] = rows.to("cpu", non_blocking=self.device.type == "cuda")
            return
        places, numbers = self._places
        as_it_is = not self.pooling and state.dtype == self.dtype != torch.float16
        if as_it_is and isinstance(numbers, slice):
            out = torch.from_numpy(places[block]).view(self.dtype)[numbers]
            torch.index_select(state.flatten(0, 1), 0, self._chosen, out=out)
        else:
            self._put(block, self._rows(state), places, numbers)

    def _rows(self, state: Tensor) -> Tensor:
        if self.pooling:
            return _pool(state, self._chosen, self.pooling)
        return state.flatten(0, 1).index_select(0, self._chosen)

    def end(self) -> None:
        """End a batch of which every block was taken."""
        if not self.delayed:
            self.sink.keep(self.samples)
            return
        self.flush()
        self._sent, self._sent_samples = self._sending, self.samples
        if self.device.type == "cuda":
            self._arrived = torch.cuda.current_stream(self.device).record_event()

    def flush(self) -> None:
        """Put the rows that were sent last into their places."""
        if not self._sent:
            return
        if self._arrived is not None:
            self._arrived.synchronize()
        places = self._room(self._sent_samples)
        for block, rows in self._sent.items():
            self._put(block, rows, *places)
        self.sink.keep(self._sent_samples)
        self._sent = {}

    def _room(self, samples: Array) -> tuple[Mapping[int, Array], slice | Tensor]:
        """Places by block, and which of their rows are those of the samples."""
        places, starts = self.sink.room(samples)
        numbers = rows_from(starts, self.n_rows[samples])
        if (np.diff(numbers) == 1).all():
            return places, slice(numbers[0], numbers[-1] + 1)
        return places, torch.from_numpy(numbers)

    def _put(
        self, block: int, rows: Tensor, places: Mapping[int, Array], numbers: slice | Tensor
    ) -> None:
        if self.dtype == torch.float16 and _leaves_half(rows) and rows.half().isinf().any():
            raise OverflowError(
                f"block {block} puts out values beyond 65504, the largest of float16; keep its "
                "activations in bfloat16 or float32."
            )
        torch.from_numpy(places[block]).view(self.dtype)[numbers] = rows.to(self.dtype)
