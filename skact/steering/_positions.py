"""At which positions of a pass an edit acts: the same ones whether a cache is used or not.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from skact.models import Running
from skact.rows import Array, as_numpy

__all__ = ["POSITIONS", "as_positions", "chosen", "row_numbers"]

#: Positions that have a name.
POSITIONS = ("all", "last", "generated")


def as_positions(positions: Any) -> str | Array:
    """Check the name of positions, or a mask of the prompts."""
    if isinstance(positions, str):
        if positions in POSITIONS:
            return positions
        raise ValueError(
            f"positions must be one of {list(POSITIONS)} or a mask of bool, got {positions!r}."
        )
    try:
        mask = as_numpy(positions)
    except (TypeError, ValueError):
        mask = np.empty(0)
    if mask.ndim != 2 or not mask.size or mask.dtype.kind not in "bi" or (mask | 1 != 1).any():
        raise ValueError(
            f"positions must be one of {list(POSITIONS)}, or a mask of bool of shape (n_rows, "
            f"n_positions), got shape {np.shape(mask)} of dtype {mask.dtype}."
        )
    if not mask.any():
        raise ValueError("positions is a mask without a single True, so nothing would be changed.")
    return mask.astype(bool)


def row_numbers(running: Running, n_rows: int, n_given: int, what: str) -> Array:
    """Say to which of some entries, one per prompt or row, the rows of a pass belong.

    Parameters
    ----------
    running : Running
        The pass. In a generation each prompt may have several rows, side by side.
    n_rows : int
        Rows of the pass.
    n_given : int
        Entries.
    what : str
        What they are called.

    Returns
    -------
    numbers : ndarray of shape (n_rows,), dtype int64
        Numbers of entries.

    Raises
    ------
    ValueError
        If there are not as many as prompts, or rows.
    """
    n_prompts = running.n_prompts or n_rows
    if n_given != n_prompts or n_rows % n_prompts:
        rows = "prompts" if running.n_prompts else "rows"
        raise ValueError(f"{what} has {n_given} rows, and the pass has {n_prompts} {rows}.")
    return np.arange(n_rows) // (n_rows // n_prompts)


def chosen(positions: str | Array, running: Running, stream: Tensor) -> Tensor:
    """Find the positions of a pass at which an edit acts.

    Parameters
    ----------
    positions : {"all", "last", "generated"} or ndarray of bool
        As from :func:`as_positions`.
    running : Running
        The pass.
    stream : Tensor of shape (n_rows, n_positions, n_features)
        What is edited.

    Returns
    -------
    where : Tensor of shape (n_rows, n_positions), dtype bool
        Padding is never among them.
    """
    n_rows, n_positions = stream.shape[:2]
    real = torch.ones((n_rows, n_positions), dtype=torch.bool, device=stream.device)
    if running.is_real is not None and running.is_real.shape[0] == n_rows:
        width = min(n_positions, running.is_real.shape[1])
        real[:, :width] = running.is_real[:, :width].to(stream.device)
        real[:, width:] = False
    at = running.start + torch.arange(n_positions, device=stream.device)
    n_prompt = running.n_prompt_positions
    if isinstance(positions, str):
        if positions == "all":
            return real
        # Outside of generations, what comes behind a cache counts as generated.
        n_first = running.start + n_positions * (not running.start)
        behind = at >= (n_first if n_prompt is None else n_prompt)
        if positions == "generated":
            return real & behind
        return real & (behind | _last(real, at, n_prompt))
    return real & _masked(positions, running, stream, at)


def _last(real: Tensor, at: Tensor, n_prompt: int | None) -> Tensor:
    """Last position of each row that is no padding, of the prompt where there is one."""
    counts = real if n_prompt is None else real & (at < n_prompt)
    if n_prompt is not None and int(at[-1]) < n_prompt - 1:  # the rest of the prompt comes later
        return torch.zeros_like(real)
    numbers = torch.arange(real.shape[1], device=real.device)
    last = torch.where(counts, numbers, -1).amax(dim=1, keepdim=True)
    return numbers == last


def _masked(mask: Array, running: Running, stream: Tensor, at: Tensor) -> Tensor:
    n_rows, n_positions = stream.shape[:2]
    n_prompt = running.n_prompt_positions
    width = n_positions if n_prompt is None else n_prompt
    if mask.shape[1] != width:
        read = "pass has" if n_prompt is None else "prompts have"
        raise ValueError(
            f"positions is a mask of {mask.shape[1]} positions, and the {read} {width}, padding "
            "included."
        )
    rows = mask[row_numbers(running, n_rows, len(mask), "positions")]
    whole = torch.tensor(rows, device=stream.device)
    if n_prompt is None:
        return whole
    inside = at < n_prompt
    return whole[:, at.clamp(max=n_prompt - 1)] & inside
