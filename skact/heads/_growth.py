r"""Compare the growth of gaps between activations with what the weights of heads predict.

For tokens i and j of one sample, a direction v and activations a = <v, x>, the theory of aligned
heads gives the gap behind the attention of a block as

.. math:: \Delta_{ij}' = \Delta_{ij}\,(1 + \sum_h \beta_h \kappa_h \bar V^h_{ij}), \qquad
          \beta_h (m_h(a_i) - m_h(a_j)) = \beta_h \kappa_h \bar V^h_{ij} \Delta_{ij},

with m the mean of activations under the softmax of kappa a_i a_j. Where all tokens see the same
ones, the mean of the factor over all pairs, weighted by the squared gap, is the slope of a' on a
within samples, predicted and measured. Under the mask of a causal model only the slopes are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import Bunch, check_random_state

from skact import models
from skact.arguments import Number, checked, instance
from skact.heads._alignment import alignment, directions
from skact.heads._model import (
    MODEL,
    check_model,
    check_vectors,
    loaded_of,
    warn_of_blocks,
)
from skact.rows import Array
from skact.tokens import LayerStack

if TYPE_CHECKING:
    from skact.models import Circuits

__all__ = ["gap_growth", "looked_at"]

_STACK = instance("a LayerStack(...)", LayerStack)
_ROOM = 2**22  # numbers of a table of logits


def looked_at(activations: Array, kappa: Array, is_causal: bool) -> Array:
    """Give the mean of activations under softmax(kappa a_i a_j), for each query i.

    Parameters
    ----------
    activations : ndarray of shape (n_tokens, n_concepts)
        Of one sample.
    kappa : ndarray of shape (n_heads, n_concepts)
        What products of activations are multiplied by.
    is_causal : bool
        Whether a token sees no later one.

    Returns
    -------
    means : ndarray of shape (n_heads, n_tokens, n_concepts)
        The means.
    """
    n_tokens, n_concepts = activations.shape
    hidden = np.triu(np.full((n_tokens, n_tokens), -np.inf), 1) if is_causal else 0.0
    means = np.empty((len(kappa), n_tokens, n_concepts))
    step = max(1, _ROOM // n_tokens**2)
    pairs = [(h, c) for h in range(len(kappa)) for c in range(n_concepts)]
    for start in range(0, len(pairs), step):
        heads, concepts = map(np.array, zip(*pairs[start : start + step], strict=True))
        a = activations.T[concepts]
        logits = kappa[heads, concepts][:, None, None] * a[:, :, None] * a[:, None, :] + hidden
        weights = np.exp(logits - logits.max(axis=2, keepdims=True))
        means[heads, :, concepts] = (weights @ a[:, :, None])[..., 0] / weights.sum(axis=2)
    return means


def _centred(values: Array) -> Array:
    return values - values.mean(axis=0)


def _sums(
    before: Array, after: Array, vectors: Array, made: Circuits, found: Any, is_causal: bool
) -> Array:
    """Give sums of squares and products of one sample, (3, n_concepts), the last one predicted."""
    a = before @ vectors.T
    scaled = a / made.sizes(before)[:, None]
    means = looked_at(scaled, made.scaling * found["alpha"], is_causal)
    added = np.einsum("hnc,hc->nc", means, found["beta"])
    centred = _centred(a)
    others = (centred, _centred(after @ vectors.T), _centred(added))
    return np.stack([(centred * one).sum(axis=0) for one in others])


def _slopes(sums: Array) -> tuple[Array, Array]:
    """Measured and predicted growth from sums (..., 3, n_concepts)."""
    return sums[..., 1, :] / sums[..., 0, :], 1 + sums[..., 2, :] / sums[..., 0, :]


def _correlation(x: Array, y: Array) -> Array:
    """Correlation over the last two axes."""
    x, y = (v - v.mean(axis=(-2, -1), keepdims=True) for v in (x, y))
    with np.errstate(invalid="ignore"):
        product = (x * y).sum(axis=(-2, -1))
        return product / np.sqrt((x**2).sum(axis=(-2, -1)) * (y**2).sum(axis=(-2, -1)))


@checked(
    X=[_STACK],
    model=[MODEL],
    added=[_STACK, None],
    n_resamples=[Number(Integral, 1, None, closed="left")],
    random_state=["random_state"],
)
def gap_growth(
    X: LayerStack,
    vectors: Any,
    model: Any,
    *,
    added: LayerStack | None = None,
    n_resamples: int = 1000,
    random_state: Any = None,
) -> Bunch:
    r"""Compare the growth of gaps between activations with what weights of heads predict.

    Of block b, with X at block b - 1 the stream that enters it and at block b the stream after it,
    both growths are slopes within samples of activations after on activations before: of a' as it
    is, and of :math:`a + \sum_h \beta_h m_h(a)` with :math:`m_h` the mean of activations (over the
    size of a token, where a norm stands before the block) under the softmax of
    :math:`\alpha_h a_i a_j / \sqrt d` over the tokens of the sample, of a causal model over those
    up to the one that asks. Of a bidirectional model that is the mean of
    :math:`1 + \sum_h \beta_h \kappa_h \bar V_{ij}` over pairs, weighted by their squared gaps. Of a
    causal one it is not: its tokens have keys of their own, so that no map is shared.

    Parameters
    ----------
    X : LayerStack
        The residual stream after blocks, of which at least two follow each other.
    vectors : array-like of shape (n_concepts, n_features), concept method, or mapping of int
        Directions, as in :func:`head_alignment`; or for each block that is looked at its own, by
        the number of the block.
    model : str, Path, tuple or TransformerEmbedder
        The model that X comes from.
    added : LayerStack or None, default=None
        What attention adds (``site="attention"``), of the blocks that are looked at: growth is then
        measured behind attention, before the MLP and before a norm behind the sum.
    n_resamples : int, default=1000
        Resamples of samples for the intervals.
    random_state : int, RandomState instance or None, default=None
        Draws them.

    Returns
    -------
    result : Bunch
        The axes ``layers`` and ``concepts``; ``measured`` and ``predicted``, float64 of shape
        (n_layers, n_concepts), 1 where gaps stay as they are, with ``measured_low``,
        ``measured_high``, ``predicted_low`` and ``predicted_high``, ends of the 95 % percentile
        interval over samples; and ``correlation`` of the two over layers and concepts, NaN for a
        single pair, with ``correlation_low`` and ``correlation_high``.

    Raises
    ------
    ValueError
        If X holds no two blocks that follow each other, is not the residual stream of the model, a
        sample has one token only, or a method was fitted on another model or site, or on scaled
        tokens.
    NotFittedError
        If vectors are a method that is not fitted.

    Warns
    -----
    UserWarning
        If a method was fitted on another block than the one before that it is used for.

    Notes
    -----
    Context that X does not show, special tokens and the sink, takes attention that the prediction
    gives to the tokens shown; so do all that is in the weights beside v. Samples are read one after
    the other, and may lie in a store.
    """
    loaded = loaded_of(model)
    blocks = [block for block in X.layers if block - 1 in X.layers]
    _check(X, blocks, loaded, added)
    by_block = {block: _of_block(vectors, block) for block in blocks}
    warn_of_blocks({block: check_vectors(one, loaded) for block, one in by_block.items()})
    named = {block: directions(one, loaded.width) for block, one in by_block.items()}
    if len({tuple(names) for _, names in named.values()}) > 1:
        raise ValueError("vectors must have the same concepts for all blocks.")
    causal = loaded.modality == "text" and models.is_causal(loaded)
    sums = []
    for made in models.find_circuits(loaded, blocks):
        block, unit = made.block, named[made.block][0]
        found, rows = alignment(made, unit), []
        before, after = X.layer(block - 1), X.layer(block)
        for i in range(len(X)):
            x = np.asarray(before[i], np.float64)
            y = after[i] if added is None else x + added.layer(block)[i]
            rows.append(_sums(x, np.asarray(y, np.float64), unit, made, found, causal))
        sums.append(rows)
    return _result(np.array(sums), blocks, named[blocks[0]][1], n_resamples, random_state)


def _result(
    sums: Array, blocks: list[int], names: list[str], n_resamples: int, random_state: Any
) -> Bunch:
    """Slopes and intervals from sums (n_layers, n_samples, 3, n_concepts)."""
    n_samples = sums.shape[1]
    draws = check_random_state(random_state).multinomial(
        n_samples, np.full(n_samples, 1 / n_samples), size=n_resamples
    )
    measured, predicted = _slopes(sums.sum(axis=1))
    resampled = _slopes(np.einsum("rs,lskc->rlkc", draws.astype(np.float64), sums))
    drawn = {"measured": resampled[0], "predicted": resampled[1]}
    drawn["correlation"] = _correlation(*resampled)
    ends = {
        f"{name}_{end}": np.quantile(values, q, axis=0)
        for name, values in drawn.items()
        for end, q in (("low", 0.025), ("high", 0.975))
    }
    return Bunch(
        layers=blocks,
        concepts=names,
        measured=measured,
        predicted=predicted,
        correlation=float(_correlation(measured, predicted)),
        **ends,
    )


def _of_block(vectors: Any, block: int) -> Any:
    if not isinstance(vectors, Mapping):
        return vectors
    if block not in vectors:
        raise ValueError(f"vectors lacks block {block}, got those of {sorted(vectors)}.")
    return vectors[block]


def _check(X: LayerStack, blocks: list[int], loaded: Any, added: LayerStack | None) -> None:
    if not blocks:
        raise ValueError(
            f"X must hold two blocks that follow each other, got the layers {X.layers}."
        )
    if (beyond := X.layers[-1]) >= len(loaded.blocks):
        raise ValueError(f"X holds block {beyond}, and the model has {len(loaded.blocks)} blocks.")
    if X.n_features != loaded.width:
        raise ValueError(
            f"X must have the {loaded.width} features of the stream of the model, got "
            f"{X.n_features}."
        )
    if X.lengths.min() < 2:
        raise ValueError(
            f"X must have two tokens or more in each sample; sample "
            f"{int(np.argmin(X.lengths))} has one, and no gap."
        )
    for name, stack, site in (("X", X, "residual"), ("added", added, "attention")):
        if stack is None:
            continue
        source = stack.layer(stack.layers[0]).source
        check_model(source, loaded)
        if source is not None and source.site not in (None, site):
            raise ValueError(f'{name} must be read with site="{site}", got ({source}).')
    if added is not None:
        if missing := sorted(set(blocks) - set(added.layers)):
            raise ValueError(f"added lacks the blocks {missing}.")
        if added.shape != X.shape or not np.array_equal(added.lengths, X.lengths):
            raise ValueError("added must hold the same samples as X, in the same order.")
