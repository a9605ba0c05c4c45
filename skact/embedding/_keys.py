"""Names of samples and of layers in a store: hashes of content, never of pickled objects.

A sample is named by the SHA-256 of its content: a text by its UTF-8 bytes, a chat by its messages,
a file, by its path or open, by its bytes, and only these bytes are embedded under that name; an
array or PIL image by its size and its RGB pixels as the model is shown them. So a file and an image
made from it are two samples, and equal pixels are one.

A layer is named by the SHA-256 of a canonical JSON of everything else that changes the numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skact import models
from skact.samples import HashedFile, is_file, open_image
from skact.store import Identity

__all__ = ["as_keyed", "layer_identities", "sample_keys"]


def _file_key(given: Any, i: int) -> bytes:
    """SHA-256 of a file, read each time: neither its name nor its times say what is in it."""
    try:
        if not isinstance(given, str | Path):
            given.seek(0)
            return hashlib.sha256(given.read()).digest()
        with open(given, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except (OSError, ValueError, TypeError):
        open_image(given, i)  # says which sample it is
        raise


def as_keyed(sample: Any, key: bytes) -> Any:
    """Give a sample in a form that can be read only as what has this key."""
    return HashedFile(sample, key) if is_file(sample) else sample


def _image_key(image: Any, i: int) -> bytes:
    if is_file(image):
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
    chats = models.are_chats(samples)
    said = map(models.chat_key, samples) if chats else map(str.encode, models.check_texts(samples))
    return [hashlib.sha256(one).digest() for one in said]


def layer_identities(
    model: models.ModelIdentity,
    blocks: Sequence[int],
    *,
    convention: str,
    max_length: int | None,
    stored_as: str,
    has_gaps: bool = False,
) -> dict[int, Identity]:
    """Name layers of a model by all that decides their numbers.

    Parameters
    ----------
    model : ModelIdentity
        The model.
    blocks : sequence of int
        Its layers.
    convention : str
        What is read after a block, pooling and special tokens included.
    max_length : int or None
        Positions that a text is cut to; None for images and for no limit.
    stored_as : str
        Precision in which the numbers are stored.
    has_gaps : bool, default=False
        Whether samples may have gaps, which are stored too: files from before they were do not
        tell where.

    Returns
    -------
    identities : dict of int to Identity
        By block.

    Raises
    ------
    ValueError
        If something works on the model that no key can name.
    """
    if model.outside:
        raise ValueError(
            f"the model {model.name!r} does not work alone: {'; '.join(model.outside)}. A store "
            "cannot tell its activations from those without; take that off, or embed with "
            "store=None."
        )
    about = {"convention": convention, "max_length": max_length, "stored_as": stored_as}
    if has_gaps:
        about["gaps"] = "stored"
    out = {}
    for block in blocks:
        text = models.canonical({**json.loads(model.content), **about, "block": block})
        digest = hashlib.sha256(text.encode()).digest()
        out[block] = Identity(text, digest, model.name, block)
    return out
