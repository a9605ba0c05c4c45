"""Which model a model is: a plain record of everything that decides its numbers.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils.weak import WeakIdKeyDictionary

from skact.models._loaded import Loaded

__all__ = ["ModelIdentity", "canonical", "identify"]

_READER = 1  # raised when this package reads other numbers from the same model
_LIBRARIES = {
    "text": ("torch", "transformers", "tokenizers"),
    "image": ("torch", "transformers", "pillow"),
}
# Settings that name things, or come after the blocks.
_NAMES = {
    "_name_or_path", "architectures", "dtype", "id2label", "label2id", "problem_type",
    "return_dict", "transformers_version", "use_cache",
}  # fmt: skip
_PLACES = {"name_or_path", "padding_side", "processor_class", "tokenizer_file", "vocab_file"}

_WEIGHTS = WeakIdKeyDictionary()
_TOKENIZERS: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


@cache
def _major(library: str) -> str:
    return importlib.metadata.version(library).partition(".")[0]


def canonical(content: Any) -> str:
    """Write content as JSON of which there is one form only."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)


def _weights(base: Any, sampled: str) -> str:
    """SHA-256 over all weights of a model; computed anew only when they may have changed."""
    tensors = {id(v): (k, v) for k, v in base.state_dict(keep_vars=True).items()}
    # Poolers come after the blocks, and a model loaded with a head has none.
    weights = [(k, v) for k, v in tensors.values() if not k.startswith("pooler.")]
    try:
        state = sampled, [(k, v.data_ptr(), v._version) for k, v in weights]
    except RuntimeError:
        state = None  # tensors made in inference mode do not count their changes
    first = weights[0][1]
    if state is not None and first in _WEIGHTS and _WEIGHTS[first][0] == state:
        return _WEIGHTS[first][1]
    digest = hashlib.sha256()
    for name, values in weights:
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        raw = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(memoryview(raw.numpy()))
    _WEIGHTS[first] = state, digest.hexdigest()
    return digest.hexdigest()


def _without(settings: Any, names: Iterable[str]) -> Any:
    if isinstance(settings, dict):
        return {k: _without(v, names) for k, v in settings.items() if k not in names}
    return settings


def _vocabulary_files(tokenizer: Any) -> dict[str, str]:
    """SHA-256 of what a tokenizer keeps beside its vocabulary, such as scores and merges."""
    with tempfile.TemporaryDirectory() as folder, suppress(NotImplementedError):
        tokenizer.save_vocabulary(folder)
        files = sorted(path for path in Path(folder).iterdir() if path.is_file())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {}


def _tokenizer(tokenizer: Any) -> str:
    """SHA-256 over what a tokenizer does, without the state that each call leaves in it."""
    if tokenizer not in _TOKENIZERS:
        if tokenizer.is_fast:
            content = json.loads(tokenizer.backend_tokenizer.to_str())
            content = {k: v for k, v in content.items() if k not in ("truncation", "padding")}
        else:
            content = {
                "class": type(tokenizer).__name__,
                "vocabulary": tokenizer.get_vocab(),
                "files": _vocabulary_files(tokenizer),
                "special": tokenizer.special_tokens_map,
                "settings": _without(tokenizer.init_kwargs, _PLACES),
            }
        _TOKENIZERS[tokenizer] = hashlib.sha256(canonical(content).encode()).hexdigest()
    return _TOKENIZERS[tokenizer]


def _processor(loaded: Loaded) -> dict[str, Any]:
    processor = loaded.processor
    if loaded.modality == "image":
        settings = json.loads(processor.to_json_string())
        return {"class": type(processor).__name__, **_without(settings, _PLACES)}
    return {
        "content": _tokenizer(processor),
        "truncation_side": processor.truncation_side,
        "split_special_tokens": getattr(processor, "split_special_tokens", False),
    }


@dataclass(frozen=True)
class ModelIdentity:
    """All of a loaded model that decides the numbers it gives.

    Parameters
    ----------
    name : str
        Name or folder of the model.
    content : str
        Canonical JSON of weights or commit, processor, number format and libraries.
    """

    name: str
    content: str


def identify(loaded: Loaded, *, by_weights: bool) -> ModelIdentity:
    """Say which model this is.

    Parameters
    ----------
    loaded : Loaded
        The model.
    by_weights : bool
        Whether to hash the weights even if the model came from a commit, because they may have
        been changed since.

    Returns
    -------
    identity : ModelIdentity
        Equal for models that give the same numbers.
    """
    if by_weights or loaded.revision.startswith("weights:"):
        settings = json.loads(loaded.config.to_json_string(use_diff=False))
        model = {
            "weights": _weights(loaded.base, loaded.revision),
            "config": _without(settings, _NAMES),
            "class": type(loaded.base).__name__,
        }
    else:
        model = {"name": loaded.name, "commit": loaded.revision}
    content = {
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "libraries": {name: _major(name) for name in _LIBRARIES[loaded.modality]},
        "modality": loaded.modality,
        "model": model,
        "processor": _processor(loaded),
        "reader": _READER,
    }
    return ModelIdentity(loaded.name, canonical(content))
