"""What each head writes into the residual stream, from what enters the output projection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np

from skact import models
from skact.arguments import Number, checked
from skact.heads._model import MODEL, check_model, loaded_of
from skact.rows import Array, all_finite
from skact.tokens import LayerStack, Source, TokenArray

__all__ = ["HeadWrites", "head_writes"]


def _write(values: Array, columns: slice, weight: Array) -> Array:
    """Multiply the features of a head by its slice of the projection, in float32."""
    return np.asarray(values)[:, columns].astype(np.float32, copy=False) @ weight.T


class HeadWrites(Mapping[tuple[int, int], Any]):
    """What heads write, by (block, head); computed when it is read.

    Parameters
    ----------
    inputs : dict of int to TokenArray or ndarray of shape (n_samples, n_heads * head_dim)
        What enters the output projection, by block.
    weights : dict of int to ndarray of shape (n_features, n_heads * head_dim), dtype float32
        The output projections.
    n_heads : int
        Heads of a block.

    Attributes
    ----------
    layers : list of int
        The blocks.
    n_heads : int
        Heads of a block.
    """

    def __init__(self, inputs: dict[int, Any], weights: dict[int, Array], n_heads: int) -> None:
        self.layers = list(inputs)
        self.n_heads = n_heads
        self._inputs, self._weights = inputs, weights

    def __getitem__(self, key: tuple[int, int]) -> Any:
        try:
            block, head = key
        except (TypeError, ValueError):
            raise KeyError(f"a head is asked for by (block, head), got {key!r}.") from None
        if block not in self._inputs or not 0 <= head < self.n_heads:
            raise KeyError(
                f"there is no head {head} of block {block}: the blocks are {self.layers}, with "
                f"{self.n_heads} heads each."
            )
        tokens, weight = self._inputs[block], self._weights[block]
        width = weight.shape[1] // self.n_heads
        columns = slice(head * width, (head + 1) * width)
        write = partial(_write, columns=columns, weight=weight[:, columns])
        if not isinstance(tokens, TokenArray):
            return write(tokens)
        said = f"what head {head} of attention writes in the block, before any norm or factor"
        source = replace(tokens.source or Source(), block=block, convention=said, site=None)
        return tokens.map(write, source=source)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((block, head) for block in self.layers for head in range(self.n_heads))

    def __len__(self) -> int:
        return len(self.layers) * self.n_heads

    def __repr__(self) -> str:
        return f"HeadWrites(layers {self.layers}, {self.n_heads} heads)"


@checked(model=[MODEL], layer=[Number(Integral, None, None, closed="neither"), None])
def head_writes(X: Any, model: Any, *, layer: int | None = None) -> HeadWrites:
    r"""Turn what enters the output projections into what each head writes.

    Head h of a block writes

    .. math:: H^h = u^h (W_O^h)^\top

    into the residual stream [1]_, where u is what enters the output projection of attention and
    :math:`u^h`, :math:`W_O^h` are the slices that belong to the head. The sum over heads, and the
    bias of the projection, is what attention gives before a norm or factor of its own. Nothing is
    computed before a head is asked for. Means over tokens commute with it: of the mean over tokens
    of X, the mean of the writes comes.

    Parameters
    ----------
    X : TokenArray, LayerStack or ndarray of shape (n_samples, n_heads * head_dim)
        What ``TransformerEmbedder(site="heads")`` gives, with ``pooling`` or without.
    model : str, Path, tuple or TransformerEmbedder
        The model that X comes from: what the embedder takes as model, or the embedder.
    layer : int or None, default=None
        Block of an ndarray, or of a TokenArray that does not say it; a negative number counts from
        the end.

    Returns
    -------
    writes : HeadWrites
        Mapping of (block, head) to TokenArray (n_samples, n_features), or to an ndarray where X is
        one; float32. What is on disk stays there until it is read.

    Raises
    ------
    ValueError
        If X was not read at the site "heads" of this model, its block is not known, or an ndarray
        is not finite.

    Notes
    -----
    What is read without an embedder needs the token that the embedder puts before texts where the
    tokenizer begins with none, or the attention sink falls on the first word: ``<|endoftext|>`` for
    SmolLM2, whose ``tokenizer.bos_token`` is another. The ``convention`` of a source names it.

    References
    ----------
    .. [1] Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021.
    """
    loaded = loaded_of(model)
    projections = models.output_projections(loaded)
    inputs = _inputs(X, layer, len(projections))
    for block, tokens in inputs.items():
        source = tokens.source if isinstance(tokens, TokenArray) else None
        check_model(source, loaded)
        if source is not None and source.site not in (None, "heads"):
            raise ValueError(f'X must be read with site="heads", got ({source}).')
        width = projections[block].n_heads * projections[block].head_dim
        if tokens.ndim != 2 or tokens.shape[1] != width:
            raise ValueError(
                f"X must have the {width} features that enter the output projection of block "
                f'{block}, got shape {tokens.shape}; TransformerEmbedder(site="heads") gives them.'
            )
    weights = {block: projections[block].weight.detach().float().cpu().numpy() for block in inputs}
    return HeadWrites(inputs, weights, projections[0].n_heads)


def _inputs(X: Any, layer: int | None, n_blocks: int) -> dict[int, Any]:
    """Name what was given by its blocks."""
    if isinstance(X, LayerStack):
        inputs: dict[int, Any] = {block: X.layer(block) for block in X.layers}
    else:
        tokens = X if isinstance(X, TokenArray) else _finite(X)
        source = tokens.source if isinstance(tokens, TokenArray) else None
        inputs = {_block(source, layer, n_blocks): tokens}
    if beyond := [block for block in inputs if not 0 <= block < n_blocks]:
        raise ValueError(f"X is from block {beyond[0]}, and the model has {n_blocks} blocks.")
    return inputs


def _finite(X: Any) -> Array:
    values = np.asarray(X)
    if values.dtype.kind not in "biuf" or not all_finite(values):
        raise ValueError(
            "X must hold finite real numbers, got "
            f"{'NaN or infinity' if values.dtype.kind == 'f' else f'dtype {values.dtype}'}."
        )
    return values


def _block(source: Source | None, layer: int | None, n_blocks: int) -> int:
    """Find the block that tokens are from."""
    said = None if source is None else source.block
    if layer is None:
        if said is None:
            raise ValueError("layer must be given: X does not say which block it is from.")
        return said
    (block,), _ = models.resolve_layers(int(layer), n_blocks)
    if said not in (None, block):
        raise ValueError(f"layer is {layer}, but X is from block {said}.")
    return block
