"""Gradients of what a head says, with respect to the states after some blocks.

Imports torch and transformers: import this module only where a model is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skact.models._alone import evaluating
from skact.models._hooks import n_read, reading
from skact.models._inputs import frozen
from skact.models._language import load_language
from skact.models._loaded import Loaded
from skact.models._memory import run_batches
from skact.models._prepare import ImageInputs, TextInputs
from skact.models._sites import at_site
from skact.rows import Array

__all__ = ["head_gradients", "label_columns", "load_word", "with_head"]


def with_head(model: Any, loaded: Loaded) -> nn.Module:
    """Find what is run for a head: the model of a pair, whole, or all that was loaded of a name.

    Parameters
    ----------
    model : str, Path, or pair (model, tokenizer or image processor)
        As in :class:`~skact.TransformerEmbedder`.
    loaded : Loaded
        The part of it that reads.

    Returns
    -------
    whole : Module
        With the head that it has.
    """
    if not isinstance(model, tuple):
        return loaded.base
    whole: Any = getattr(model[0], "_orig_mod", model[0])
    assert isinstance(whole, nn.Module)
    return whole


def label_columns(whole: nn.Module) -> dict[Any, int]:
    """Say which columns of its logits a classifier names, by name and by number."""
    names = getattr(getattr(whole, "config", None), "id2label", None) or {}
    return {name: int(k) for k, name in names.items()} | {int(k): int(k) for k in names}


def load_word(
    model: Any, word: str, site: str, **options: Any
) -> tuple[nn.Module, Loaded, Callable[[Any, Tensor], Tensor]]:
    """Load a language model with its unembedding, and find a word in it.

    Parameters
    ----------
    model, **options
        As in :func:`~skact.models._language.load_language`.
    word : str
        One token of the vocabulary, with the blank before it if it has one.
    site : str
        Where states are read.

    Returns
    -------
    whole : Module
        The model with its head.
    loaded : Loaded
        The part of it that reads.
    head : callable
        Takes what the model puts out and the last token of each sample, returns the logits of the
        word there, (n_samples,).

    Raises
    ------
    ValueError
        If the model has no unembedding, or the word is not one token.
    """
    language = load_language(model, **options)
    loaded = at_site(language.model.loaded, site)
    ids = loaded.processor.encode(word, add_special_tokens=False)
    if len(ids) != 1:
        pieces = [loaded.processor.decode([i]) for i in ids]
        raise ValueError(
            f"heads must name words of one token, and {word!r} has {len(ids)} for "
            f"{language.name!r}: {pieces}; a word within a text begins with a blank, as ' good'."
        )

    def logit(output: Any, last: Tensor) -> Tensor:
        found: Tensor = output.logits[torch.arange(len(last)), last, ids[0]]
        return found

    return language.model.whole, loaded, logit


def head_gradients(
    whole: nn.Module,
    loaded: Loaded,
    inputs: TextInputs | ImageInputs,
    blocks: Sequence[int],
    head: Callable[[Any, Tensor], Any],
    batch_size: int,
) -> Array:
    r"""Differentiate what a head says by one step of all tokens of a sample.

    .. math:: g_i = \sum_t \frac{\partial h(z_i)}{\partial z_{it}}

    over the tokens t of sample i, at each block; the product with v is the derivative of h where
    all tokens of the sample are moved along v. Samples of one length are run together, so that no
    head meets padding.

    Parameters
    ----------
    whole : Module
        What is run.
    loaded : Loaded
        The part of it that reads, at the site where the states are.
    inputs : TextInputs or ImageInputs
        Samples, ready for it.
    blocks : sequence of int
        Blocks after which the states are.
    head : callable
        Takes what the model puts out and the place of the last token of each sample, returns
        (n_batch,) numbers, with gradients.
    batch_size : int
        Samples of a pass at most.

    Returns
    -------
    gradients : ndarray of shape (n_blocks, n_samples, n_features), dtype float64
        Zero where the head does not depend on the tokens.

    Raises
    ------
    ValueError
        If the head gives something else, or nothing that has a gradient.
    RuntimeError
        If a block was run past its hooks.
    """
    seen: dict[int, Tensor] = {}

    def take(block: int, state: Tensor) -> Tensor | None:
        if state.requires_grad:
            seen[block] = state
            return None
        seen[block] = state.detach().clone().requires_grad_()
        return seen[block].clone()  # what comes behind may write into it

    def run(rows: Array) -> Array:
        read, is_token = inputs.batch(rows)
        sent = {name: value.to(loaded.device) for name, value in read.items()} | loaded.extra
        where = torch.from_numpy(is_token).to(loaded.device)
        seen.clear()
        output = whole(**sent)
        if missed := [block for block in blocks if block not in seen]:
            raise RuntimeError(
                f"block {missed[0]} of the model {loaded.name!r} did not run within what is "
                "differentiated: it was compiled, replaced, or the head does without it."
            )
        last = where.shape[1] - 1 - where.flip(1).int().argmax(dim=1)
        values = _checked_values(head(output, last), len(rows))
        slopes = torch.autograd.grad(values.sum(), [seen[b] for b in blocks], allow_unused=True)
        n = n_read(loaded.base, sent)
        streams = [
            None if slope is None else loaded.places[block].stream(slope, n)
            for block, slope in zip(blocks, slopes, strict=True)
        ]
        return _summed(streams, where, loaded.width)

    with (
        reading(loaded.base, {block: loaded.places[block] for block in blocks}, take),
        evaluating(whole),
        frozen(whole),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        parts = list(run_batches(_cut_alike(inputs), run, batch_size))
    gradients = np.zeros((len(blocks), len(inputs.lengths), loaded.width))
    for rows, sums in parts:
        gradients[:, rows] = sums
    return gradients


def _cut_alike(inputs: TextInputs | ImageInputs) -> Callable[[int, int], Array]:
    """Cut batches of samples that stack without padding, the longest first."""
    order = np.lexsort((inputs.groups, -inputs.lengths))
    kinds = np.stack([inputs.lengths, inputs.groups], axis=1)[order]

    def cut(n_done: int, size: int) -> Array:
        alike = (kinds[n_done : n_done + size] == kinds[n_done : n_done + 1]).all(axis=1)
        return order[n_done : n_done + int(np.argmin(np.append(alike, False)))]

    return cut


def _summed(streams: Sequence[Tensor | None], where: Tensor, width: int) -> Array:
    """Sum over the tokens of each sample: (n_blocks, n_samples, n_features)."""
    sums = np.zeros((len(streams), len(where), width))
    for total, stream in zip(sums, streams, strict=True):
        if stream is not None:
            total[:] = (stream.double() * where[..., None]).sum(dim=1).cpu().numpy()
    return sums


def _checked_values(values: Any, n_samples: int) -> Tensor:
    if not isinstance(values, Tensor) or values.shape != (n_samples,):
        came = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values)
        raise ValueError(
            f"heads must give one number per sample, a tensor of shape ({n_samples},) for this "
            f"batch, got {came}."
        )
    if not values.requires_grad:
        raise ValueError(
            "heads gave numbers without a gradient: the head detaches them, or reads nothing that "
            "the model computes from its states."
        )
    return values
