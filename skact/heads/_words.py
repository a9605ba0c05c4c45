"""The unembedding of a model, and which of its rows are which words.

What is loaded of a named model has no head. A row of the unembedding is then known if the model
has one and shares it with its embedding, as its config says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from skact import models
from skact.embedding import TransformerEmbedder
from skact.rows import Array
from skact.warning import warn

if TYPE_CHECKING:
    from skact.models import Loaded

__all__ = ["token_ids", "unembedding", "vocabulary"]


def unembedding(embedder: TransformerEmbedder, loaded: Loaded) -> Array:
    """Return what turns the residual stream into logits.

    Parameters
    ----------
    embedder : TransformerEmbedder
        With the model as it was given.
    loaded : Loaded
        What was loaded of it.

    Returns
    -------
    weight : ndarray of shape (n_tokens, n_features), dtype float32
        One row per token of the vocabulary; a copy.

    Raises
    ------
    ValueError
        If the model has none.
    """
    whole: Any = embedder.model[0] if isinstance(embedder.model, tuple) else loaded.base
    head = models.output_head(whole)
    weight = getattr(models.tied_head(loaded.base) if head is None else head, "weight", None)
    if weight is None:
        raise ValueError(
            f"{type(whole).__name__} has no unembedding. Give dictionary an array, or embedder a "
            "loaded pair of a model with a head for the next token (AutoModelForCausalLM) and its "
            "tokenizer."
        )
    return np.array(weight.detach().float().cpu().numpy())


def vocabulary(loaded: Loaded) -> list[str]:
    """Spell every token of a tokenizer, by its number."""
    tokenizer = loaded.processor
    return [str(tokenizer.decode([i])) for i in range(len(tokenizer))]


def token_ids(words: Sequence[str], loaded: Loaded, multi_token: str) -> dict[str, int]:
    """Find the token of each word.

    Parameters
    ----------
    words : sequence of str
        Different words. Each is looked for as it stands behind a blank, then by itself.
    loaded : Loaded
        The model, with its tokenizer.
    multi_token : {"raise", "first", "skip"}
        What to do with words of several tokens: refuse them, take the first one, leave them out.

    Returns
    -------
    ids : dict of str to int
        In the order of the words. Of words with the same token the first is kept, with a warning.

    Raises
    ------
    ValueError
        If the tokenizer does not know a word, or a word has several tokens and may not.
    """
    tokenizer = loaded.processor
    found: dict[str, int] = {}
    several: dict[str, list[str]] = {}
    twice: list[str] = []
    for number, word in enumerate(words):
        spelt = [
            tokenizer.encode(text, add_special_tokens=False) for text in (f" {word}", str(word))
        ]
        ids = next((one for one in spelt if len(one) == 1), spelt[0])
        if not ids or tokenizer.unk_token_id in ids:
            raise ValueError(f"words[{number}] is {word!r}, which the tokenizer does not know.")
        if len(ids) > 1:
            several[word] = [tokenizer.decode([one]) for one in ids]
            if multi_token == "skip":
                continue
        if ids[0] in found.values():
            twice.append(word)
        else:
            found[word] = ids[0]
    if several and multi_token == "raise":
        some = ", ".join(f"{w!r} ({' + '.join(map(repr, p))})" for w, p in several.items())
        raise ValueError(
            f"words has {len(several)} of several tokens: {some}. Leave them out, or set "
            'multi_token="first" to take the first token of each, or "skip".'
        )
    if not found:
        raise ValueError("words has no word of one token; give others.")
    if twice:
        warn(f"{len(twice)} words have the token of an earlier word and are left out: {twice}.")
    return found
