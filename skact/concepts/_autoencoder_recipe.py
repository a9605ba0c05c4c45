"""How a sparse autoencoder is trained, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from sklearn.base import BaseEstimator

from skact.arguments import Number
from skact.base import NestedParamsMixin
from skact.rows import Array

__all__ = ["AutoencoderTraining", "TrainingState"]


@dataclass(frozen=True)
class TrainingState:
    """What training goes on from, besides the weights: the scaling, and what Adam remembers."""

    mean: Array
    scale: float
    moments: list[tuple[float, Array, Array]]


class AutoencoderTraining(NestedParamsMixin, BaseEstimator):
    """How :class:`SparseAutoencoder` is trained: minibatches, epochs, and when to stop.

    Parameters
    ----------
    learning_rate : float, default=0.003
        Step size of Adam.
    batch_size : int, default=256
        Tokens in a minibatch.
    max_epochs : int, default=100
        Passes over the tokens; ``partial_fit`` takes one.
    tol : float, default=1e-4
        How far the epoch's mean loss must fall below the smallest one of all epochs before, for
        progress; the loss starts near 1.
    patience : int, default=5
        Epochs in a row without progress after which training stops.
    resample_dead : int, default=None
        After every so many epochs, units that fired on no token during the last epoch start anew
        at the residuals of badly reconstructed tokens (drawn with probability proportional to the
        squared loss, after [1]_). None leaves them dead.
    device : str, default="cpu"
        Where torch trains; "cpu" repeats exactly by seed.
    progress : bool, default=False
        Whether to show a progress bar over epochs.

    References
    ----------
    .. [1] Bricken et al., "Towards Monosemanticity: Decomposing Language Models With Dictionary
       Learning", 2023.

    Examples
    --------
    >>> from skact import AutoencoderTraining, SparseAutoencoder
    >>> method = SparseAutoencoder(training=AutoencoderTraining(max_epochs=30))
    >>> method.set_params(training__learning_rate=0.01)
    SparseAutoencoder(training=AutoencoderTraining(learning_rate=0.01,
                                                   max_epochs=30))
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "learning_rate": [Number(Real, 0, None, closed="neither")],
        "batch_size": [Number(Integral, 1, None, closed="left")],
        "max_epochs": [Number(Integral, 1, None, closed="left")],
        "tol": [Number(Real, 0, None, closed="left")],
        "patience": [Number(Integral, 1, None, closed="left")],
        "resample_dead": [Number(Integral, 1, None, closed="left"), None],
        "device": [str],
        "progress": ["boolean"],
    }

    def __init__(
        self,
        learning_rate: float = 0.003,
        *,
        batch_size: int = 256,
        max_epochs: int = 100,
        tol: float = 1e-4,
        patience: int = 5,
        resample_dead: int | None = None,
        device: str = "cpu",
        progress: bool = False,
    ) -> None:
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.tol = tol
        self.patience = patience
        self.resample_dead = resample_dead
        self.device = device
        self.progress = progress
