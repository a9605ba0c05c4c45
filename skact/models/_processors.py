"""Tokenizers and image processors: private copies of them, and what they hold.

A tokenizer changes its truncation and padding with each call, so the user's is never called: a copy
is, one thread at a time. The copy is made anew when the user has changed the original.
"""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from skact.models._alone import lock_of

__all__ = ["calling", "canonical", "private_copy", "processor_content"]

_PLACES = {"name_or_path", "padding_side", "processor_class", "tokenizer_file", "vocab_file"}
_BACKEND = ("normalizer", "pre_tokenizer", "post_processor")
_MODEL = ("dropout", "unk_token", "fuse_unk", "byte_fallback", "ignore_merges")

_COPIES: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_CONTENTS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def canonical(content: Any) -> str:
    """Write content as JSON of which there is one form only."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)


def without(settings: Any, names: Iterable[str]) -> Any:
    """Leave names out of nested settings."""
    if isinstance(settings, dict):
        return {k: without(v, names) for k, v in settings.items() if k not in names}
    return settings


@contextmanager
def calling(tokenizer: Any) -> Iterator[Any]:
    """Call a tokenizer, one thread at a time, and leave no truncation or padding behind.

    A fork waits, for a child could never take the locks of the tokenizer's own that are held.
    """
    with lock_of(tokenizer, awaited=True):
        try:
            yield tokenizer
        finally:
            _rest(tokenizer)


def _rest(tokenizer: Any) -> None:
    if getattr(tokenizer, "is_fast", False):
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()


def _parts(processor: Any) -> list[Any]:
    """Tokenizer and image processor of a combined processor, or the one that it is."""
    inner = [getattr(processor, name, None) for name in ("tokenizer", "image_processor")]
    return [part for part in inner if part is not None] or [processor]


def _settings(processor: Any) -> Any:
    """Change when somebody changes a processor; cheap, whatever the size of a vocabulary."""
    if not hasattr(processor, "model_max_length"):
        return processor.to_json_string()
    steps: list[Any] = []
    if processor.is_fast:
        backend = processor.backend_tokenizer
        steps += [backend.get_vocab_size(), *(getattr(backend.model, n, None) for n in _MODEL)]
        with suppress(Exception):  # a step written in Python does not tell
            steps += [getattr(getattr(backend, s), "__getstate__", bytes)() for s in _BACKEND]
    else:
        parts = [one for one in vars(processor).values() if hasattr(one, "__dict__")]
        steps = [canonical(vars(part)) for part in parts]
    said = ("truncation_side", "model_max_length", "split_special_tokens", "chat_template")
    return (
        [str(getattr(processor, name, None)) for name in said],
        canonical(processor.special_tokens_map),
        str(processor.added_tokens_decoder),
        steps,
    )


def private_copy(processor: Any) -> Any:
    """Copy a processor, once for as long as it is not changed.

    Parameters
    ----------
    processor : tokenizer, image processor or processor
        The user's, or one that others share.

    Returns
    -------
    copy : tokenizer, image processor or processor
        Ours to call; of a tokenizer, without the truncation and padding that its last call left.
    """
    state = [_settings(part) for part in _parts(processor)]
    with lock_of(private_copy):
        known = _COPIES.get(processor)
        if known is None or known[0] != state:
            twin = copy.deepcopy(processor)
            for part in _parts(twin):
                _rest(part)
            known = _COPIES[processor] = state, twin
    return known[1]


def _vocabulary_files(tokenizer: Any) -> dict[str, str]:
    """SHA-256 of what a tokenizer keeps beside its vocabulary, such as scores and merges."""
    with tempfile.TemporaryDirectory() as folder, suppress(NotImplementedError):
        tokenizer.save_vocabulary(folder)
        files = sorted(path for path in Path(folder).iterdir() if path.is_file())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {}


def _tokenizer_content(tokenizer: Any) -> str:
    """SHA-256 over what a tokenizer does, without the state that each call leaves in it."""
    if tokenizer.is_fast:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content = {k: v for k, v in content.items() if k not in ("truncation", "padding")}
    else:
        content = {
            "class": type(tokenizer).__name__,
            "vocabulary": tokenizer.get_vocab(),
            "files": _vocabulary_files(tokenizer),
            "special": tokenizer.special_tokens_map,
            "settings": without(tokenizer.init_kwargs, _PLACES),
        }
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def processor_content(processor: Any) -> dict[str, Any]:
    """Say what a tokenizer or an image processor does.

    Parameters
    ----------
    processor : tokenizer or image processor
        From :func:`private_copy`: it does not change, so it is read once.

    Returns
    -------
    content : dict
        For JSON; equal for processors that do the same.
    """
    if processor not in _CONTENTS:
        if hasattr(processor, "model_max_length"):
            _CONTENTS[processor] = {
                "content": _tokenizer_content(processor),
                "truncation_side": processor.truncation_side,
                "split_special_tokens": getattr(processor, "split_special_tokens", False),
            }
        else:
            settings = without(json.loads(processor.to_json_string()), _PLACES)
            _CONTENTS[processor] = {"class": type(processor).__name__, **settings}
    return _CONTENTS[processor]
