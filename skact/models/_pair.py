"""What a pickled embedder remembers of a loaded model."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DetachedPair"]


@dataclass(frozen=True)
class DetachedPair:
    """Stands for a loaded model and its processor once an embedder was pickled.

    Parameters
    ----------
    name : str
        Where the model said it came from; tried again on first use.
    revision : str
        Fingerprint of the weights, so that other weights under that name are refused.
    """

    name: str
    revision: str
