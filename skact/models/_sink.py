"""The token before a text on which a causal model puts its attention sink.

A decoder whose tokenizer begins a text with nothing special puts the sink, a norm a hundred times
that of others, on the first word. One token before the text takes it over; which of the special
ones does it best is found by trying:

    max over blocks b and texts t of |z_b(first word of t)| / median of |z_b|

is smallest for it. The token is context: the model reads it, and it is no token of the sample.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from skact.models._hooks import read_states
from skact.models._loaded import Loaded
from skact.models._processors import calling
from skact.rows import Array, as_numpy

__all__ = ["find_sink", "is_causal", "lacking_sink", "sink_token"]

_SEPARATOR = re.compile(r"(end|begin|start)_?of_?text|eod|^</?s>$", re.IGNORECASE)
_N_WORDS = 5  # all texts are cut to as many tokens, so that none needs padding
_TEXTS = (
    "Thanks a lot for coming over tonight",
    "The old bridge was closed for repairs",
    "I could not stop laughing at the story",
    "Rain fell on the empty market square",
    "Why would anybody say such a thing",
    "Great, now we have to start all over",
    "She opened the letter with trembling hands",
    "Nobody told me that the shop had moved",
)

_FOUND: WeakKeyDictionary[nn.Module, tuple[Any, int | None]] = WeakKeyDictionary()


def _states(loaded: Loaded, ids: Tensor) -> list[Tensor]:
    """States (n_texts, n_positions, n_features) after each block."""
    ids = ids.to(loaded.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **loaded.extra}
    return [state.float() for state in read_states(loaded.base, loaded.places, inputs)]


def is_causal(loaded: Loaded) -> bool:
    """Whether a position is deaf to those behind it; of a model that reads texts."""
    last = _states(loaded, torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 8, 10]]) % loaded.n_ids)[-1]
    tolerance = 1e-4 if loaded.dtype == torch.float32 else 1e-2
    return bool(torch.allclose(last[0, :-1], last[1, :-1], rtol=tolerance, atol=tolerance))


def _encode(loaded: Loaded, texts: Sequence[str], special: bool) -> list[list[int]]:
    with calling(loaded.processor) as tokenizer:
        return list(tokenizer(list(texts), add_special_tokens=special)["input_ids"])


def _candidates(loaded: Loaded) -> list[int]:
    """List special tokens that a text may follow, and separators of documents."""
    tokenizer = loaded.processor
    names = ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id")
    ids = [getattr(tokenizer, name, None) for name in names]
    added = tokenizer.added_tokens_decoder
    ids += [i for i, token in added.items() if _SEPARATOR.search(str(token))]
    return [i for i in dict.fromkeys(ids) if i is not None and i < loaded.n_ids]


def _largest_ratio(loaded: Loaded, words: Tensor, candidate: int) -> float:
    ids = torch.cat([torch.full((len(words), 1), candidate), words], dim=1)
    norms = [state[:, 1:].norm(dim=-1) for state in _states(loaded, ids)]
    return max(float(norm[:, 0].max() / norm.median()) for norm in norms)


def _choose(loaded: Loaded) -> int | None:
    begins = _encode(loaded, ["a"], True)[0][:1] != _encode(loaded, ["a"], False)[0][:1]
    candidates = _candidates(loaded)
    if begins or not candidates or not is_causal(loaded):
        return None
    rows = [row[:_N_WORDS] for row in _encode(loaded, _TEXTS, False)]
    shortest = min(map(len, rows))
    if not shortest:
        return candidates[0]
    words = torch.tensor([row[:shortest] for row in rows])
    return min(candidates, key=lambda candidate: _largest_ratio(loaded, words, candidate))


def sink_token(loaded: Loaded, sink: int) -> str:
    """Name a token."""
    with calling(loaded.processor) as tokenizer:
        return str(tokenizer.convert_ids_to_tokens(sink))


def lacking_sink(
    loaded: Loaded, convention: str | None, ids: Array | Tensor, is_real: Array | Tensor
) -> tuple[int, str] | None:
    """Find a row that does not begin with the token before the texts that something learnt from.

    Parameters
    ----------
    loaded : Loaded
        The model; without a tokenizer, the one by which its sink was found in this process counts.
    convention : str or None
        Of the :class:`~skact.tokens.Source` of what was learnt.
    ids : ndarray or Tensor of shape (n_rows, n_positions), dtype int64
        Rows.
    is_real : ndarray or Tensor of shape (n_rows, n_positions), dtype bool
        Which positions are no padding.

    Returns
    -------
    found : (int, str) or None
        Number of the first row, and its first token; None if there is no such row, or nothing is
        known. A row that begins with another special token has a sink.
    """
    tokenizer = loaded.processor or _FOUND.get(loaded.base, (None,))[0]
    if tokenizer is None or loaded.modality != "text" or ", after " not in (convention or ""):
        return None
    rows, counts = as_numpy(ids), as_numpy(is_real)
    with calling(tokenizer):
        for row in np.flatnonzero(counts.any(axis=1)).tolist():
            first = int(rows[row][counts[row]][0])
            said = f", after {str(tokenizer.convert_ids_to_tokens(first))!r}"
            special = first in tokenizer.all_special_ids
            if not special and said not in str(convention):
                return row, str(tokenizer.decode([first]))
    return None


def find_sink(loaded: Loaded, sink: Any) -> int | None:
    """Find which token a model reads before each text.

    Parameters
    ----------
    loaded : Loaded
        The model.
    sink : {"auto"}, str, int or None
        As in :class:`~skact.embedding.TransformerEmbedder`.

    Returns
    -------
    token : int or None
        Its id; None for nothing, as for images, and with "auto" for models that are not causal or
        whose tokenizer begins a text with a token of its own.

    Raises
    ------
    ValueError
        If the tokenizer does not know the token, or the model reads images.
    """
    if sink == "auto" and loaded.modality == "text":
        known = _FOUND.get(loaded.base)
        if known is None or known[0] is not loaded.processor:
            known = _FOUND[loaded.base] = loaded.processor, _choose(loaded)
        return known[1]
    if sink is None or sink == "auto":
        return None
    if loaded.modality == "image":
        raise ValueError(f"sink={sink!r}, but the model {loaded.name!r} reads images.")
    tokenizer, token = loaded.processor, sink
    if isinstance(sink, str):
        with calling(tokenizer):
            token = tokenizer.convert_tokens_to_ids(sink)
            if token is not None and tokenizer.convert_ids_to_tokens(token) != sink:
                token = None  # the unknown token stood for it
    if token is None or isinstance(token, bool) or not 0 <= token < loaded.n_ids:
        special = ", ".join(map(repr, tokenizer.all_special_tokens[:8]))
        raise ValueError(
            f"sink={sink!r} is no token of {type(tokenizer).__name__} with {loaded.n_ids} tokens; "
            f"its special tokens are {special or 'none'}."
        )
    return int(token)
