"""Which model a model is: a plain record of everything that decides its numbers.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from functools import cache
from typing import Any

from skact.models._content import model_content, model_state
from skact.models._loaded import Loaded
from skact.models._processors import canonical, processor_content

__all__ = ["ModelIdentity", "identify"]

_READER = 2  # raised when this package reads other numbers from the same model
_LIBRARIES = {
    "text": ("torch", "transformers", "tokenizers"),
    "image": ("torch", "transformers", "pillow"),
}


@cache
def _major(library: str) -> str:
    return importlib.metadata.version(library).partition(".")[0]


@dataclass(frozen=True)
class ModelIdentity:
    """All that decides the numbers that a model gives.

    Parameters
    ----------
    name : str
        Name or folder of the model.
    revision : str
        Commit, or fingerprint of all weights and active adapters; the same in every precision of
        one checkpoint.
    content : str
        Canonical JSON of weights or commit, adapters, tokenizer or image processor, number format
        and libraries: models of one content give the same numbers.
    outside : tuple of str
        What works on the model and no content can name: forward hooks that others have put on it,
        autocast.
    """

    name: str
    revision: str
    content: str
    outside: tuple[str, ...]


def identify(loaded: Loaded, *, thorough: bool = False) -> ModelIdentity:
    """Say which model this is.

    Parameters
    ----------
    loaded : Loaded
        The model.
    thorough : bool, default=False
        Whether to look at all weights again; see :func:`fingerprint`.

    Returns
    -------
    identity : ModelIdentity
        Equal for models that give the same numbers.
    """
    state = model_state(loaded.base)
    outside = tuple(state.pop("outside"))
    model: dict[str, Any] = {"name": loaded.name, "commit": loaded.revision}
    if loaded.revision.startswith("weights:"):
        model = model_content(loaded.base, thorough=thorough)
    content = {
        **state,
        "libraries": {name: _major(name) for name in _LIBRARIES[loaded.modality]},
        "modality": loaded.modality,
        "model": model,
        "processor": processor_content(loaded.processor),
        "reader": _READER,
    }
    return ModelIdentity(loaded.name, loaded.revision, canonical(content), outside)
