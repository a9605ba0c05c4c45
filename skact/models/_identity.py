"""Which model a model is: a plain record of everything that decides its numbers.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from skact.models._loaded import Loaded
from skact.models._outside import find_outside
from skact.models._processors import canonical, processor_content, without
from skact.models._weights import active_adapters, fingerprint

__all__ = ["ModelIdentity", "identify"]

_READER = 2  # raised when this package reads other numbers from the same model
_LIBRARIES = {
    "text": ("torch", "transformers", "tokenizers"),
    "image": ("torch", "transformers", "pillow"),
}
# Settings that name things, or come after the blocks.
_NAMES = {
    "_name_or_path", "architectures", "dtype", "id2label", "label2id", "problem_type",
    "return_dict", "transformers_version", "use_cache",
}  # fmt: skip


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
    model: dict[str, Any] = {"name": loaded.name, "commit": loaded.revision}
    if loaded.revision.startswith("weights:"):
        settings = json.loads(loaded.config.to_json_string(use_diff=False))
        model = {
            "weights": fingerprint(loaded.base, thorough=thorough),
            "config": without(settings, _NAMES),
            "class": type(loaded.base).__name__,
        }
    content = {
        "adapters": active_adapters(loaded.base),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "libraries": {name: _major(name) for name in _LIBRARIES[loaded.modality]},
        "modality": loaded.modality,
        "model": model,
        "processor": processor_content(loaded.processor),
        "reader": _READER,
    }
    outside = tuple(find_outside(loaded.base))
    return ModelIdentity(loaded.name, loaded.revision, canonical(content), outside)
