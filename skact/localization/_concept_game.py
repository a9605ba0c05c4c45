r"""The explained function: how much a sample's tokens point towards a target, on average.

.. math:: g(x; t) = \frac1n \sum_i \cos(z_i(x), t)

with :math:`z_i` the scaled embeddings that the concepts were fitted on [1]_. The scaling is affine,
so the cosine is computed straight from the residual stream.

Imports torch: import this module only where a model is at hand.

References
----------
.. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate Reliable
   Concept Signals in the Tail", section on localization.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skact.localization._copies import Perturbation
from skact.rows import Array

__all__ = ["ConceptGame", "MeanCosine"]


class MeanCosine:
    """Cosines of tokens with targets, and their mean over the tokens of a sample.

    Parameters
    ----------
    targets : ndarray of shape (n_targets, n_features)
        Directions in the scaled space. A row of NaN gives NaN.
    shift : ndarray of shape (n_features,)
        What scaling subtracts; its positive factor leaves the cosine as it is.
    """

    def __init__(self, targets: Array, shift: Array) -> None:
        norms = np.linalg.norm(targets, axis=1, keepdims=True)
        unit = np.divide(targets, norms, out=np.zeros_like(targets), where=norms != 0)
        self._unit = torch.from_numpy(np.ascontiguousarray(unit, np.float32))
        self._shift = torch.from_numpy(np.ascontiguousarray(shift, np.float32))

    @property
    def n_targets(self) -> int:
        """Number of directions."""
        return len(self._unit)

    def per_token(self, state: Tensor) -> Tensor:
        """Cosine of each token with each target, 0 for a zero token.

        Parameters
        ----------
        state : Tensor of shape (..., n_features)
            Residual stream.

        Returns
        -------
        cosines : Tensor of shape (..., n_targets), dtype float32
            With gradients where the state has some.
        """
        centred = state.float() - self._shift.to(state.device)
        # Squares of very large and very small numbers are none.
        size = centred.detach().abs().amax(dim=-1, keepdim=True)
        centred = centred / torch.where(size > 0, size, 1)
        products = centred @ self._unit.to(state.device).T
        return products / centred.norm(dim=-1, keepdim=True).clamp_min(0.5)

    def __call__(self, state: Tensor, left: Tensor | None = None) -> Tensor:
        """Mean cosine over the tokens that are left; 0 where none is.

        Parameters
        ----------
        state : Tensor of shape (n_copies, n_positions, n_features)
            Residual stream.
        left : Tensor of shape (n_copies, n_positions), dtype bool, or None
            Positions to average over; None takes all.

        Returns
        -------
        values : Tensor of shape (n_copies, n_targets), dtype float32
            In [-1, 1].
        """
        values = self.per_token(state)
        if left is None:
            return values.mean(dim=1)
        # A hidden position may hold NaN, so it is replaced and not multiplied by zero.
        total = torch.where(left[:, :, None], values, 0).sum(dim=1)
        return total / left.sum(dim=1, keepdim=True).clamp_min(1)


@dataclass(frozen=True)
class ConceptGame:
    """The explained function of one sample as a game: see :class:`~skact.localization.Game`.

    Parameters
    ----------
    perturbation : Perturbation
        Runs changed copies of the sample.
    explained : MeanCosine
        What is read from them.
    """

    perturbation: Perturbation
    explained: MeanCosine

    @property
    def players(self) -> Array:
        """Player of each token, int64 of shape (n_tokens,)."""
        return self.perturbation.players

    @property
    def n_players(self) -> int:
        """Players that can be taken away."""
        return self.perturbation.n_players

    @property
    def n_targets(self) -> int:
        """Explained values."""
        return self.explained.n_targets

    def __call__(self, masks: Array) -> Array:
        """Value of coalitions.

        Parameters
        ----------
        masks : ndarray of shape (n_masks, n_players), dtype bool
            True where the player is kept.

        Returns
        -------
        values : ndarray of shape (n_masks, n_targets), dtype float64
            Mean cosines over the tokens that are left; 0 where none is.

        Raises
        ------
        ValueError
            If the masks have another shape.
        """
        masks = np.asarray(masks)
        if masks.ndim != 2 or masks.shape[1] != self.n_players or masks.dtype != bool:
            raise ValueError(
                f"masks must be bool of shape (n_masks, {self.n_players}), got {masks.dtype} of "
                f"shape {masks.shape}."
            )
        if len(masks) == 0:
            return np.empty((0, self.n_targets))
        return self.perturbation.run(masks, self.explained)
