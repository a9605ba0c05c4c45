"""What a pickled embedder remembers of a loaded model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["DetachedPair"]


@dataclass(frozen=True)
class DetachedPair:
    """Stands for a loaded model and its processor once an embedder was pickled.

    Parameters
    ----------
    name : str
        Where the model said it came from; tried again on first use. Empty if it did not say.
    revision : str
        Fingerprint of the weights, so that other weights under that name are refused.
    kind : str
        Class of the model.
    dtype : str
        Its number format.
    processor : tokenizer, image processor or processor
        As it was, which travels whole.
    """

    name: str
    revision: str
    kind: str
    dtype: str
    processor: Any
