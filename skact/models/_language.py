"""Language models with their heads: loaded, and asked what another stream makes of the next token.

Imports torch and transformers: import this module only where a model is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from skact.models._alone import evaluating
from skact.models._changing import Changeable, Running, changeable, changing
from skact.models._forward import Batches
from skact.models._hub import Checkpoint, PairKind, load_pair
from skact.models._memory import run_batches
from skact.models._pair import DetachedPair
from skact.models._prepare import TextInputs
from skact.models._sink import is_causal
from skact.models._sites import at_site
from skact.models._unembedding import output_head
from skact.rows import Array

__all__ = ["Language", "check_foresees", "load_language", "next_token_losses", "next_word_scores"]


class Language(NamedTuple):
    """A language model with its head.

    Parameters
    ----------
    model : Changeable
        The model.
    head : Module
        Its unembedding.
    name : str
        What it is called in errors.
    """

    model: Changeable
    head: nn.Module
    name: str


def load_language(
    model: Any,
    device: str = "auto",
    dtype: str = "auto",
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Language:
    """Load a language model with its head; a named one with the head that its files hold.

    Parameters
    ----------
    model, device, dtype, revision, trust_remote_code
        As in :class:`~skact.TransformerEmbedder`; of a pair the model with its head.

    Returns
    -------
    language : Language
        The model.

    Raises
    ------
    ValueError
        If it has no unembedding.
    """
    if isinstance(model, DetachedPair):
        raise ValueError("model is not loaded any more; give the pair itself.")
    whole, tokenizer, name = load_pair(
        model, _KIND, device, dtype, revision=revision, trust_remote_code=trust_remote_code
    )
    head = output_head(whole)
    if head is None:
        raise ValueError(f"model={name!r} has no unembedding, so its directions have no words.")
    return Language(changeable((whole, tokenizer)), head, name)


def _fetch(checkpoint: Checkpoint, device: str, dtype: str) -> tuple[nn.Module, Any]:
    config = checkpoint.fetch("config", transformers.AutoConfig)
    heads = [n for n in config.architectures or [] if "CausalLM" in n or "LMHead" in n]
    if not heads:  # a head would be made up
        raise ValueError(
            f"model={checkpoint.name!r} has no unembedding, so its directions have no words: it is "
            f"a {', '.join(config.architectures or ['model'])}."
        )
    tokenizer = checkpoint.fetch("tokenizer", transformers.AutoTokenizer)
    return checkpoint.model(transformers.AutoModelForCausalLM, device, dtype), tokenizer


_KIND = PairKind(
    parts="config, weights and tokenizer",
    model="a transformers model",
    processor="a tokenizer",
    has="config",
    is_processor=lambda processor: hasattr(processor, "all_special_ids"),
    fetch=_fetch,
)


def check_foresees(language: Language) -> None:
    """Refuse a model that sees what it would have to foresee.

    Parameters
    ----------
    language : Language
        The model.

    Raises
    ------
    ValueError
        If a position is not deaf to those behind it.
    """
    if not is_causal(language.model.loaded):
        raise ValueError(
            f"model={language.name!r} sees the tokens behind a position, so it does not foresee "
            "them."
        )


def next_token_losses(
    language: Language,
    inputs: TextInputs,
    block: int,
    site: str,
    replacements: Sequence[Callable[[Array], Array] | None],
    batch_size: int,
) -> tuple[Array, int]:
    """Measure how well a model foresees tokens when something else takes the place of a state.

    Parameters
    ----------
    language : Language
        The model.
    inputs : TextInputs
        Texts, ready for it.
    block, site
        Where the state is.
    replacements : sequence of callable or None
        Each takes what is at positions that are tokens, (n_some, n_features), and returns what
        takes its place; other positions stay as they are. None leaves all.
    batch_size : int
        Texts of mean length in a batch.

    Returns
    -------
    losses : ndarray of shape (n_replacements,), dtype float64
        Mean cross-entropy, in nats, of a token given those before it, over the pairs of neighbours
        that are both tokens.
    n_pairs : int
        How many.

    Raises
    ------
    ValueError
        If no text has two tokens.
    """
    batches = Batches(inputs, np.arange(len(inputs.lengths)))
    acting: list[tuple[Callable[[Array], Array] | None, Tensor]] = []

    def change(stream: Tensor) -> Tensor:
        replace, where = acting[-1]
        if replace is None:
            return stream
        new, old = stream.clone(), stream[where]
        new[where] = torch.as_tensor(replace(old.float().cpu().numpy())).to(old)
        return new

    def run(samples: Array) -> Array:
        read, is_token = batches.batch(samples)
        where = torch.from_numpy(is_token).to(language.model.loaded.device)
        sums = []
        for replace in replacements:
            acting[:] = [(replace, where)]
            sums.append(_summed_loss(language, read, where))
        return np.array([*sums, float((is_token[:, 1:] & is_token[:, :-1]).sum())])

    budget = batch_size * int(inputs.lengths.sum()) // len(inputs.lengths)
    with _changed(language, block, site, change):
        found = list(run_batches(batches.cut, run, budget, batches.n_positions))
    *losses, n_pairs = np.sum([sums for _, sums in found], axis=0)
    if not n_pairs:
        raise ValueError("samples must have two tokens in a row somewhere, of which one is next.")
    return np.array(losses) / n_pairs, int(n_pairs)


def _summed_loss(language: Language, read: dict[str, Tensor], is_token: Tensor) -> float:
    sent = {name: value.to(is_token.device) for name, value in read.items()}
    pairs = is_token[:, :-1] & is_token[:, 1:]
    logits = (
        language.model.whole(**sent, **language.model.loaded.extra).logits[:, :-1][pairs].float()
    )
    following = sent["input_ids"][:, 1:][pairs]
    return float(nn.functional.cross_entropy(logits, following, reduction="none").double().sum())


def next_word_scores(
    language: Language,
    inputs: TextInputs,
    block: int,
    site: str,
    shifts: Array,
    words: Array,
    batch_size: int,
) -> Array:
    r"""Measure how much a shift of the last token makes a model say some words next.

    Parameters
    ----------
    language : Language
        The model.
    inputs : TextInputs
        Prompts, ready for it; what comes behind the last token of one is not read.
    block, site
        Where the shift is added.
    shifts : ndarray of shape (n_shifts, n_features)
        The shifts.
    words : ndarray of shape (n_shifts, n_words), dtype int64
        Numbers of the words of each.
    batch_size : int
        Shifts at a time.

    Returns
    -------
    scores : ndarray of shape (n_shifts,), dtype float64
        Mean over the prompts of (1 - rank / V) p, with the probability p of the most probable of
        the words and the number of words of V that are more probable.
    """
    device = language.model.loaded.device
    acting: list[Tensor] = []

    def change(stream: Tensor) -> Tensor:
        new = stream.clone()
        new[:, -1] += acting[-1].to(new)
        return new

    def run(units: Array, ids: Tensor) -> Array:
        acting[:] = [torch.as_tensor(shifts[units])]
        many = ids.expand(len(units), -1)
        read = {"input_ids": many, "attention_mask": torch.ones_like(many)}
        read |= language.model.loaded.extra
        chances = language.model.whole(**read).logits[:, -1].float().softmax(dim=-1)
        own = chances.gather(1, torch.as_tensor(words[units], device=device)).amax(dim=1)
        rank = (chances > own[:, None]).sum(dim=1)
        scores: Array = ((1 - rank / chances.shape[1]) * own).double().cpu().numpy()
        return scores

    scores = np.zeros((len(inputs.lengths), len(shifts)))
    with _changed(language, block, site, change):
        for i, row in enumerate(scores):
            read, is_token = inputs.batch(np.array([i]))
            ids = read["input_ids"][:, : np.flatnonzero(is_token[0])[-1] + 1].to(device)
            for start in range(0, len(shifts), batch_size):
                some = np.arange(len(shifts))[start : start + batch_size]
                row[some] = run(some, ids)
    return scores.mean(axis=0)


@contextmanager
def _changed(
    language: Language, block: int, site: str, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Change what is at one place of a model, which makes no gradients meanwhile."""
    place = at_site(language.model.loaded, site).places[block]

    def at_place(key: Any, running: Running, stream: Tensor) -> Tensor:
        return change(stream)

    key = (block, site)
    with (
        torch.inference_mode(),
        evaluating(language.model.whole),
        changing(language.model, {key: place}, at_place, {key: f"another {site} at {block}"}),
    ):
        yield
