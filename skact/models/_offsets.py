"""Find the characters of tokens where a byte-level tokenizer reports wrong ones.

Some fast tokenizers, those of Llama 3 among them, say of a word that is in their vocabulary that
it starts and ends at the same character (tokenizers issue 1688). Their vocabulary still spells
every token in bytes. The bytes of the tokens of a text, laid end to end, are the text in UTF-8,
so where the two agree each token has its characters; where they do not (a tokenizer that changes
the text), nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skact.rows import Array, offsets_of

__all__ = ["spans_from_bytes"]


def _alphabet() -> dict[str, int]:
    """Characters in which byte-level vocabularies write bytes: visible ones stand for themselves.

    The others are written with the characters from 256 on.
    """
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + h): b for h, b in enumerate(hidden)}


_BYTES = _alphabet()


def _spell(ids: Sequence[int], silent: Array, tokenizer: Any) -> list[bytes]:
    added = tokenizer.added_tokens_decoder
    out = []
    for token, name, nothing in zip(ids, tokenizer.convert_ids_to_tokens(ids), silent, strict=True):
        if nothing:
            out.append(b"")
        elif token in added:
            out.append(str(added[token]).encode())
        else:
            out.append(bytes(_BYTES[character] for character in name))
    return out


def spans_from_bytes(text: str, ids: Array, silent: Array, tokenizer: Any) -> Array | None:
    """Say which characters each token covers, from the bytes of the tokens.

    Parameters
    ----------
    text : str
        The text, of which truncation may have cut a part.
    ids : ndarray of shape (n_tokens,), dtype int64
        Its tokens.
    silent : ndarray of shape (n_tokens,), dtype bool
        Special tokens that were put to the text; they cover nothing.
    tokenizer : tokenizer of transformers
        Spells the tokens.

    Returns
    -------
    spans : ndarray of shape (n_tokens, 2), dtype int64, or None
        First and one-past-last character; of several tokens that make up one character, each
        covers it. None if the tokens do not spell the text.
    """
    try:
        said = _spell(ids.tolist(), silent, tokenizer)
    except KeyError:  # not in the alphabet: no byte-level tokenizer
        return None
    whole, joined = text.encode(), b"".join(said)
    cut_before = tokenizer.truncation_side == "left"
    if not (whole.endswith(joined) if cut_before else whole.startswith(joined)):
        return None
    lengths = np.array([len(one) for one in said], np.int64)
    offsets = offsets_of(lengths) + (len(whole) - len(joined)) * cut_before
    # A byte starts a character unless it has the form 10xxxxxx.
    character = np.cumsum((np.frombuffer(whole, np.uint8) & 0xC0) != 0x80) - 1
    spans = np.zeros((len(said), 2), np.int64)
    real = lengths > 0
    spans[real, 0] = character[offsets[:-1][real]]
    spans[real, 1] = character[offsets[1:][real] - 1] + 1
    return spans
