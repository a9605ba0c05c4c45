"""What was noticed about samples while the model read them: texts cut, pixels hidden, odd tokens.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

__all__ = ["Seen"]

_RATIO = 20  # of a norm to the median
_ENOUGH = 2**17  # tokens of a block
_SHORT = 1e-15  # a norm of which the squares, in single precision, lose digits


def _norms(state: Tensor) -> Tensor:
    """Norm of each vector; squares of large and small numbers are beyond single precision."""
    single = partial(torch.linalg.vector_norm, state, dim=-1)
    if state.device.type == "mps":  # knows no double precision
        return single(dtype=torch.float32)
    if state.device.type == "cpu" and state.dtype != torch.float64:
        norms = single(dtype=torch.float32)
        if bool(((norms > _SHORT) & norms.isfinite()).all()):
            return norms
    return single(dtype=torch.float64)


class Seen:
    """Texts that were cut, pixels that were hidden, and norms of tokens.

    Attributes
    ----------
    n_samples : int
        Samples that were read.
    n_cut : int
        Texts among them that were too long.
    hidden : list of float
        Share of the pixels of each that no patch shows.
    """

    def __init__(self) -> None:
        self.n_samples = 0
        self.n_cut = 0
        self.hidden: list[float] = []
        self._norms: dict[int, list[Tensor]] = {}
        self._n_tokens: dict[int, int] = {}

    def add(self, other: Seen) -> None:
        """Join what was noticed about other samples, elsewhere perhaps."""
        self.n_samples += other.n_samples
        self.n_cut += other.n_cut
        self.hidden += other.hidden
        for block, norms in other._norms.items():
            self._note(block, torch.cat(norms).cpu())

    def look(self, block: int, state: Tensor, is_token: Tensor) -> None:
        """Note the norms of a batch, of the first hundred thousand tokens or so.

        Parameters
        ----------
        block : int
            Which block.
        state : Tensor of shape (n_samples, n_positions, n_features)
            What it put out.
        is_token : Tensor of shape (n_samples, n_positions), dtype bool
            Positions that are tokens.
        """
        if self._n_tokens.get(block, 0) < _ENOUGH:
            self._note(block, _norms(state)[is_token])

    def _note(self, block: int, norms: Tensor) -> None:
        if self._n_tokens.get(block, 0) < _ENOUGH:
            self._norms.setdefault(block, []).append(norms)
            self._n_tokens[block] = self._n_tokens.get(block, 0) + len(norms)

    def cut(self) -> str:
        """Say how many texts were cut; empty if none was."""
        if not self.n_cut:
            return ""
        were = "was" if self.n_cut == 1 else "were"
        return f"{self.n_cut} of {self.n_samples} texts {were} too long and {were} cut"

    def outliers(self) -> str:
        """Say how many tokens have more than 20 times the median norm; empty if none has."""
        found = []
        for block, parts in self._norms.items():
            norms = torch.cat(parts)
            median = float(norms.median())
            n_odd = int((norms > _RATIO * median).sum())
            if n_odd and median:
                found.append((float(norms.max()) / median, n_odd, len(norms), block, median))
        if not found:
            return ""
        ratio, n_odd, n_tokens, block, median = max(found)
        more = f" (and in {len(found) - 1} other blocks)" if len(found) > 1 else ""
        return (
            f"{n_odd} of {n_tokens} tokens at block {block}{more} have a norm above {_RATIO} times "
            f"the median, up to {ratio * median:.4g} against {median:.4g}"
        )
