"""Scalers before an edit or a gate, folded into it, so that it acts on raw tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skact.base import steps_of
from skact.embedding import TransformerEmbedder
from skact.preprocessing import TokenScaler
from skact.steering._map import EditMap, Gate

__all__ = ["check_scalers", "fold_scalers", "token_steps"]

Folded = TypeVar("Folded", EditMap, Gate)


def token_steps(line: Any) -> list[Any]:
    """List the steps of an edit or a gate that read tokens, in order."""
    return [step for step in steps_of(line) if not isinstance(step, TransformerEmbedder)]


def check_scalers(what: str, steps: Sequence[Any], where: str = "") -> None:
    """Refuse steps that cannot be folded.

    Parameters
    ----------
    what : str
        What has them.
    steps : sequence
        The steps.
    where : str, default=""
        Where it has them, if that has to be said.

    Raises
    ------
    TypeError
        If one is no TokenScaler.
    """
    for step in steps:
        if not isinstance(step, TokenScaler):
            raise TypeError(
                f"{what} has the step {type(step).__name__}{where}, which cannot be folded into "
                "an affine map; use TokenScaler or none."
            )


def fold_scalers(made: Folded, scalers: Sequence[TokenScaler]) -> Folded:
    """Make of what acts on scaled tokens the same on raw ones.

    Parameters
    ----------
    made : EditMap or Gate
        What stands behind the scalers.
    scalers : sequence of TokenScaler
        In the order in which tokens go through them.

    Returns
    -------
    made : EditMap or Gate
        Of raw tokens.

    Raises
    ------
    NotFittedError
        If a scaler is not fitted.
    """
    for scaler in reversed(scalers):
        check_is_fitted(scaler)
        mean = scaler.mean_ if scaler.with_mean else np.zeros_like(scaler.mean_)
        made = made.fold(mean, scaler.scale_ if scaler.with_scale else 1.0)
    return made
