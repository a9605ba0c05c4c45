"""What a pickled embedder remembers of a loaded model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["DetachedPair"]


@dataclass(frozen=True)
class DetachedPair:
    """Stands for a loaded model and its processor once an embedder was pickled.

    Parameters
    ----------
    name : str
        Where the model said it came from; tried again on first use. Empty if it did not say.
    content : str
        Canonical JSON of all of the model that decides its numbers, so that another model under
        that name is refused.
    dtype : str
        Its number format.
    modality : {"text", "image"}
        What it was used for.
    reads : str
        SHA-256 of what the processor does, so that another one is refused.
    processor : tokenizer, image processor or processor, or None
        As it was, which travels whole in a pickle; None in a file of :func:`skact.save`.
    """

    name: str
    content: str = field(repr=False)
    dtype: str
    modality: str
    reads: str
    processor: Any
