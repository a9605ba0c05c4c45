"""Words that directions of the residual stream speak for, by the model's own unembedding.

Imports torch and transformers: import this module only where a model is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from skact.arguments import Number, checked, float_array
from skact.models._alone import evaluating
from skact.models._hooks import reading
from skact.models._hub import first_weight
from skact.models._language import Language, load_language
from skact.models._loaded import Loaded
from skact.rows import Array

__all__ = ["LensWord", "check_directions", "logit_lens", "words_of"]

# Any words will do to see what a model makes of its last state.
_TRIAL = "one two three four five"


class LensWord(NamedTuple):
    """A word that a direction speaks for.

    Parameters
    ----------
    word : str
        A token of the vocabulary, as it is written.
    logit : float
        What a step of length 1 along the direction, behind the final norm, adds to its logit; only
        the order and the proportions mean something.
    token : int
        Its number in the vocabulary.
    """

    word: str
    logit: float
    token: int


@checked(
    model="no_validation",
    vectors=["array-like"],
    top=[Number(Integral, 1, None, closed="left")],
    device=[str],
    dtype=[str],
    revision=[str, None],
    trust_remote_code=["boolean"],
)
def logit_lens(
    model: Any,
    vectors: Any,
    *,
    top: int = 10,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> list[list[LensWord]]:
    r"""Read directions of the residual stream as words.

    .. math:: \ell(v) = W_U\, \mathrm{norm}(v) - W_U\, \mathrm{norm}(0)

    with the unembedding and the final norm of the model, that is, without the bias of the norm
    [1]_. That these two make the model's logits of its last state is tried out on a text first.

    Parameters
    ----------
    model : str, Path or tuple
        A language model, as in :class:`~skact.TransformerEmbedder`; of a pair with its head.
    vectors : array-like of shape (n_vectors, n_features)
        Directions in the residual stream. A scalar scale changes nothing in the order.
    top : int, default=10
        Words of each.
    device, dtype, revision, trust_remote_code
        As in :class:`~skact.TransformerEmbedder`.

    Returns
    -------
    words : list of n_vectors lists of ``top`` LensWord
        Largest logit first. The negative vector gives the words that it speaks against.

    Raises
    ------
    ValueError
        If the model has no unembedding, does more than a norm before it, or is of another width.

    References
    ----------
    .. [1] nostalgebraist, "interpreting GPT: the logit lens", 2020.
    """
    language = load_language(
        model, device, dtype, revision=revision, trust_remote_code=trust_remote_code
    )
    return words_of(language, check_directions(vectors, language.model.loaded.width), top)


def check_directions(vectors: Any, width: int) -> Array:
    """Refuse what is no directions (n_vectors, width) of a model."""
    rows = float_array(vectors, "vectors")
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(
            f"vectors must have shape (n_vectors, {width}), the width of the model; got "
            f"{rows.shape}."
        )
    if not len(rows) or not np.isfinite(rows).all():
        raise ValueError("vectors must be finite, and one or more.")
    return rows


def words_of(language: Language, rows: Array, top: int) -> list[list[LensWord]]:
    """Read directions of the last state as words.

    Parameters
    ----------
    language : Language
        The model.
    rows : ndarray of shape (n_vectors, n_features)
        Directions.
    top : int
        Words of each.

    Returns
    -------
    words : list of n_vectors lists of ``top`` LensWord
        Largest logit first.

    Raises
    ------
    ValueError
        If the model does more than a norm before its unembedding.
    """
    whole, tokenizer = language.model.whole, language.model.loaded.processor
    weight = first_weight(whole)
    with torch.inference_mode(), evaluating(whole):
        read = _readout(language)
        states = torch.as_tensor(rows, dtype=weight.dtype, device=weight.device)
        logits = (read(states) - read(torch.zeros_like(states[:1]))).float()
        n_words = len(tokenizer)
        logits[:, n_words:] = -torch.inf
        logits[:, [i for i in tokenizer.all_special_ids if i < logits.shape[1]]] = -torch.inf
        best = logits.topk(min(top, n_words), dim=1)
    return [
        [LensWord(str(tokenizer.decode([i])), v, i) for i, v in zip(ids, values, strict=True)]
        for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _readout(language: Language) -> Callable[[Tensor], Tensor]:
    """Find what makes logits of the last state, by what the model makes of a text."""
    whole: Any = language.model.whole
    loaded = language.model.loaded
    ids = loaded.processor(_TRIAL, return_tensors="pt")["input_ids"].to(loaded.device)
    seen: list[Tensor] = []
    with reading(loaded.base, {0: loaded.places[-1]}, lambda _, state: seen.append(state)):
        logits = whole(input_ids=ids).logits.float()
    state = loaded.places[-1].stream(seen[-1], ids.shape[1])
    cap = getattr(whole.config.get_text_config(), "final_logit_softcapping", None)
    for norm in _norms(loaded):
        read = nn.Sequential(norm, language.head)
        found = read(state).float()
        found = cap * torch.tanh(found / cap) if cap else found
        if found.shape == logits.shape and _alike(found, logits):
            return read
    raise ValueError(
        f"model={language.name!r} does more than a norm between its last block and its "
        "unembedding, so its directions cannot be read as words."
    )


def _norms(loaded: Loaded) -> Iterator[nn.Module]:
    """Norms behind the blocks, the last one first; at last none."""
    inside = {id(module) for block in loaded.blocks for module in block.modules()}
    outside = [m for m in loaded.base.modules() if id(m) not in inside]
    yield from (m for m in reversed(outside) if "norm" in type(m).__name__.lower())
    yield nn.Identity()


def _alike(found: Tensor, logits: Tensor) -> bool:
    """Tell whether logits differ in their scale and offset alone."""
    ours, theirs = (x - x.mean(dim=-1, keepdim=True) for x in (found, logits))
    cosine = nn.functional.cosine_similarity(ours, theirs, dim=-1)
    return bool(np.all(cosine.cpu().numpy() > 0.999))
