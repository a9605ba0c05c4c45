"""Names of samples and of layers in a store: hashes of content, never of pickled objects.

A sample is named by the SHA-256 of its content: a text by its UTF-8 bytes, a file by its bytes, an
array or PIL image by its size and its RGB pixels as the model is shown them. So a file and an image
made from it are two samples, and equal pixels are one.

A layer is named by the SHA-256 of a canonical JSON of everything else that changes the numbers.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils.weak import WeakIdKeyDictionary

from skact.embedding._models import Loaded
from skact.embedding._text import check_texts
from skact.embedding.store._index import Identity
from skact.samples import open_image

__all__ = ["identify", "sample_keys"]

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

_FILES: dict[str, tuple[tuple[int, ...], bytes]] = {}
_WEIGHTS = WeakIdKeyDictionary()
_TOKENIZERS: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


@cache
def _major(library: str) -> str:
    return importlib.metadata.version(library).partition(".")[0]


def canonical(content: Any) -> str:
    """Write content as JSON of which there is one form only."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)


def _file_key(path: str | Path, i: int) -> bytes:
    """SHA-256 of a file; read anew only when its state has changed."""
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            state = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
            name = os.path.abspath(path)
            if _FILES.get(name, (None,))[0] != state:
                _FILES[name] = state, hashlib.file_digest(file, "sha256").digest()
            return _FILES[name][1]
    except OSError:
        open_image(path, i)  # says which sample it is
        raise


def _image_key(image: Any, i: int) -> bytes:
    if isinstance(image, str | Path):
        return _file_key(image, i)
    pixels = open_image(image, i)
    digest = hashlib.sha256(f"RGB pixels, {pixels.width} x {pixels.height}\n".encode())
    digest.update(pixels.tobytes())
    return digest.digest()


def sample_keys(samples: Sequence[Any], modality: str) -> list[bytes]:
    """Name samples by their content.

    Parameters
    ----------
    samples : sequence
        Texts or images.
    modality : {"text", "image"}
        Which of the two.

    Returns
    -------
    keys : list of bytes
        32 bytes each.

    Raises
    ------
    ValueError, TypeError
        If a sample is not of the modality, naming its number.
    """
    if modality == "image":
        return [_image_key(image, i) for i, image in enumerate(samples)]
    # Half of a surrogate pair is no UTF-8, but a tokenizer takes it.
    encoded = (text.encode("utf-8", "surrogatepass") for text in check_texts(samples))
    return [hashlib.sha256(text).digest() for text in encoded]


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


def identify(
    loaded: Loaded,
    blocks: Sequence[int],
    *,
    by_weights: bool,
    convention: str,
    max_length: int | None,
    dtype: str,
) -> dict[int, Identity]:
    """Name layers of a model by all that decides their numbers.

    Parameters
    ----------
    loaded : Loaded
        The model.
    blocks : sequence of int
        Its layers.
    by_weights : bool
        Whether to hash the weights even if the model came from a commit, because they may have
        been changed since.
    convention : str
        What is read after a block, pooling and special tokens included.
    max_length : int or None
        Positions that a text is cut to; None for images and for no limit.
    dtype : str
        Precision in which the numbers are stored.

    Returns
    -------
    identities : dict of int to Identity
        By block.
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
    libraries = _LIBRARIES[loaded.modality]
    common = {
        "convention": convention,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "libraries": {name: _major(name) for name in libraries},
        "max_length": max_length,
        "modality": loaded.modality,
        "model": model,
        "processor": _processor(loaded),
        "reader": _READER,
        "stored_as": dtype,
    }
    out = {}
    for block in blocks:
        text = canonical({**common, "block": block})
        out[block] = Identity(text, hashlib.sha256(text.encode()).digest(), loaded.name, block)
    return out
