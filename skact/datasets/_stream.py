"""Lists inside of JSON documents, item by item where the document is large."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skact.extras import need
from skact.files import read_json

#: Bytes from which on a document is not read as a whole.
LARGE = 2**26


def read_items(path: Path, key: str = "") -> Iterator[Any]:
    """Read the items of a list that a JSON document holds.

    Parameters
    ----------
    path : Path
        The document.
    key : str, default=""
        Where the document, an object, holds the list; empty if it is the list.

    Yields
    ------
    item : object
        What the list holds.

    Raises
    ------
    ImportError
        If the document takes more than 64 MiB and ijson is not installed.
    ValueError
        If it is no such JSON.
    """
    if path.is_file() and path.stat().st_size > LARGE:
        yield from _stream(path, key)
        return
    content = read_json(path)
    if key:
        content = content.get(key) if isinstance(content, dict) else None
    if not isinstance(content, list):
        raise ValueError(f"{path} must hold a list" + (f" under {key!r}." if key else "."))
    yield from content


def _stream(path: Path, key: str) -> Iterator[Any]:
    ijson = need("ijson", f"A JSON of more than {LARGE >> 20} MiB")
    number = 0
    prefix = f"{key}.item" if key else "item"
    try:
        with path.open("rb") as file:
            for item in ijson.items(file, prefix, use_float=True):
                number += 1
                yield item
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not JSON ({str(error).splitlines()[0]}), after item {number} of the list."
        ) from error
    if not number:
        raise ValueError(f"{path} must hold a list" + (f" under {key!r}." if key else "."))
