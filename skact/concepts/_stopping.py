"""When training stops: after some epochs in a row without progress."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["count_stagnant"]


def count_stagnant(loss: Any, best: Any, n_stagnant: Any, tol: float) -> tuple[Any, Any]:
    r"""Count the epochs in a row without progress, as scikit-learn's multi-layer perceptron does.

    Epoch t makes progress if :math:`\ell_t \le \min_{s < t} \ell_s - tol`. The minimum is taken
    over **every** epoch before: many small decreases are no progress, whatever they sum to.

    Parameters
    ----------
    loss : float or ndarray of shape (n_concepts,)
        Loss after this epoch.
    best : float or ndarray of shape (n_concepts,)
        Smallest loss before it; infinite before the first epoch.
    n_stagnant : int or ndarray of shape (n_concepts,)
        Epochs in a row without progress before it.
    tol : float
        Decrease that counts as progress.

    Returns
    -------
    best, n_stagnant : float and int, or two ndarrays of shape (n_concepts,)
        Both with this epoch. A loss that is no number makes no progress.
    """
    return np.fmin(best, loss), np.where(loss <= best - tol, 0, n_stagnant + 1)
