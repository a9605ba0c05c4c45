"""Make heads write more, less or the opposite, for a while or for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state

from skact import models
from skact.arguments import Number, Such, checked
from skact.embedding import TransformerEmbedder
from skact.rows import Array
from skact.warning import warn

if TYPE_CHECKING:
    from torch import nn

__all__ = ["bake_heads", "random_heads", "scale_heads"]


def _live(model: Any) -> Any:
    """Return the live model of a model or a pair, None of anything else."""
    live = model[0] if isinstance(model, tuple) and model else model
    return live if hasattr(live, "named_modules") and hasattr(live, "config") else None


_LIVE = Such(
    "a live model of transformers, or a loaded pair (model, tokenizer or image processor)",
    lambda value: _live(value) is not None,
)
_MODEL = Such(
    f"{_LIVE}, or a TransformerEmbedder(...)",
    lambda value: _live(value) is not None or isinstance(value, TransformerEmbedder),
)
_HEADS = Such(
    "a list of (block, head)",
    lambda value: isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes),
)
_FACTOR = Number(Real, None, None, closed="neither")


def _check(heads: Any, n_blocks: int, n_heads: int) -> list[tuple[int, int]]:
    """Check names of heads, and return them as ints."""
    found: list[tuple[int, int]] = []
    for number, pair in enumerate(heads):
        whole = isinstance(pair, Sequence | np.ndarray) and not isinstance(pair, str | bytes)
        ints = whole and all(
            isinstance(one, Integral) and not isinstance(one, bool | np.bool_) for one in pair
        )
        if not ints or len(pair) != 2:
            raise ValueError(f"heads[{number}] must be (block, head), two ints, got {pair!r}.")
        block, head = int(pair[0]), int(pair[1])
        if not (0 <= block < n_blocks and 0 <= head < n_heads):
            raise ValueError(
                f"heads[{number}]: there is no head {head} of block {block}; the blocks are 0 to "
                f"{n_blocks - 1}, with heads 0 to {n_heads - 1}."
            )
        if (block, head) in found:
            raise ValueError(f"heads[{number}]: head {head} of block {block} comes twice.")
        found.append((block, head))
    if not found:
        raise ValueError("heads must hold one or more heads, got none.")
    return found


def _factors(model: Any, heads: Any, factor: float) -> dict[models.OutputProjection, Array]:
    """Factors of the features that enter each projection with a head among them."""
    projections = models.output_projections(model)
    chosen = _check(heads, len(projections), projections[0].n_heads)
    shared = Counter(one.module for one in projections)
    factors: dict[models.OutputProjection, Array] = {}
    for block, head in chosen:
        one = projections[block]
        if shared[one.module] > 1:
            raise ValueError(
                f"heads of block {block} cannot be scaled by themselves: {shared[one.module]} "
                "blocks share the weights of their attention."
            )
        here = factors.setdefault(one, np.ones(one.n_heads * one.head_dim, np.float32))
        here[one.columns(head)] = factor
    return factors


@checked(model=[_MODEL], heads=[_HEADS], factor=[_FACTOR])
def scale_heads(model: Any, heads: Any, factor: float) -> AbstractContextManager[None]:
    r"""Multiply what heads write into the residual stream, inside of a ``with`` block.

    What head h of a block writes is multiplied by ``factor``: 0 silences it, -1 inhibits what it is
    about, 5 enhances it. It holds in every pass: forward, ``generate`` with a cache, gradients.
    Other threads wait for the model meanwhile. A store does not keep activations of a model that is
    scaled, and what is embedded says in its Source which heads were, and by what.

    Parameters
    ----------
    model : Module, tuple or TransformerEmbedder
        A live model with or without a head, a loaded pair, or an embedder, whose model is meant.
    heads : sequence of (block, head)
        Which heads, such as ``HeadPursuit.get_support(indices=True)``.
    factor : float
        The factor.

    Returns
    -------
    scaled : context manager
        On leaving the model is as it was, whatever happened. It may be entered again.

    Raises
    ------
    ValueError
        If a head does not exist or comes twice, the heads of the model are not found, or blocks
        share their attention.

    Examples
    --------
    >>> import torch, transformers
    >>> from skact import scale_heads
    >>> config = transformers.GPT2Config(
    ...     n_embd=8, n_layer=2, n_head=2, vocab_size=20, bos_token_id=0, eos_token_id=0
    ... )
    >>> model, ids = transformers.GPT2LMHeadModel(config).eval(), torch.tensor([[3, 7, 1]])
    >>> before = model(ids).logits
    >>> with scale_heads(model, [(0, 1), (1, 0)], -1):
    ...     same = torch.equal(model(ids).logits, before)
    >>> same, torch.equal(model(ids).logits, before)
    (False, True)
    """
    whole, readable = _parts(model)
    factor = float(factor)
    factors = _factors(readable, heads, factor)
    names = {}
    for one in factors:
        those = sorted(int(head) for block, head in heads if block == one.block)
        listed = ", ".join(map(str, those))
        names[one] = f"heads {listed} of block {one.block} scaled by {factor!r}"
    return models.Reusable(lambda: _scaled(whole, factors, names))


def _parts(model: Any) -> tuple[nn.Module, Any]:
    """Return the module that is run, and what its projections are found in."""
    if isinstance(model, TransformerEmbedder):
        loaded = clone(model).set_params(site="residual").reader.loaded
        return loaded.base, loaded
    return _live(model), _live(model)


@contextmanager
def _scaled(
    model: nn.Module,
    factors: dict[models.OutputProjection, Array],
    names: dict[models.OutputProjection, str],
) -> Iterator[None]:
    import torch

    def hook(scale: torch.Tensor) -> Any:
        def scale_heads(module: nn.Module, args: Any, kwargs: Any) -> Any:
            entering = args[0]
            return (entering * scale.to(entering), *args[1:]), kwargs

        return scale_heads

    with ExitStack() as stack:
        for one, scale in factors.items():
            before = [(one.module, hook(torch.from_numpy(scale)))]
            stack.enter_context(models.hooked(model, before=before, edit=names[one]))
        yield


@checked(model=[_LIVE], heads=[_HEADS], factor=[_FACTOR])
def bake_heads(model: Any, heads: Any, factor: float) -> None:
    """Multiply what heads write for good, in the weights of a live model.

    The columns of the output projection that belong to the heads are multiplied, so the logits are
    those of :func:`scale_heads`. The inverse factor undoes it, up to rounding. That of float32 is
    below 1e-5 of the logits; weights in bfloat16 have three digits, and -1, 0 and powers of two
    alone are exact in them. Load a model with ``dtype=torch.float32`` for other factors.

    Parameters
    ----------
    model : Module or tuple
        A live model, or a loaded pair. A model that an embedder loaded by its name is not taken,
        since it would go on under that name.
    heads, factor : as in :func:`scale_heads`
        Which heads, and by what.

    Raises
    ------
    ValueError
        As :func:`scale_heads`, or if weights are not floats; nothing is changed then.
    """
    import torch

    factors = _factors(_live(model), heads, float(factor))
    for one in factors:
        if not one.module.weight.is_floating_point():  # type: ignore[operator]
            raise ValueError(
                f"the weights of block {one.block} are {one.module.weight.dtype}, which cannot be "
                "multiplied; load the model without quantisation."
            )
    with torch.no_grad():
        for one, scale in factors.items():
            one.weight.mul_(torch.from_numpy(scale).to(one.weight))


@checked(ranking=["array-like"], like=["array-like"], random_state=["random_state"])
def random_heads(ranking: Any, like: Any, random_state: Any = None) -> Array:
    """Draw heads at random, as many of each block as there are among some, and none of those.

    Parameters
    ----------
    ranking : array-like of shape (n_all, 2)
        All heads, (block, head), such as ``HeadPursuit.ranking_``.
    like : array-like of shape (n_heads, 2)
        Some of them.
    random_state : int, RandomState or None, default=None
        Draws them.

    Returns
    -------
    heads : ndarray of shape (n_heads, 2), dtype int64
        (block, head). Where a block has not as many others left, heads of the nearest blocks stand
        in, with a warning.

    Raises
    ------
    ValueError
        If the arguments are no heads, some are not among all, or there are not enough others.

    Examples
    --------
    >>> from skact import random_heads
    >>> every = [(block, head) for block in range(3) for head in range(2)]
    >>> random_heads(every, [(0, 1), (2, 0)], random_state=0)
    array([[0, 0],
           [2, 1]])
    """
    every, chosen = _pairs(ranking, "ranking"), _pairs(like, "like")
    known = {tuple(one) for one in every.tolist()}
    for number, one in enumerate(chosen.tolist()):
        if tuple(one) not in known:
            raise ValueError(f"like[{number}] is {tuple(one)}, which is not in ranking.")
    left = known - {tuple(one) for one in chosen.tolist()}
    if len(left) < len(chosen):
        raise ValueError(
            f"like has {len(chosen)} of {len(known)} heads, which leaves {len(left)} to draw from."
        )
    draws = check_random_state(random_state)
    drawn: list[tuple[int, int]] = []
    far = 0
    for block, count in sorted(Counter(chosen[:, 0].tolist()).items()):
        others = sorted(left)
        order = draws.permutation(len(others))
        near = sorted((others[i] for i in order), key=lambda one: abs(one[0] - block))[:count]
        far += sum(one[0] != block for one in near)
        left -= set(near)
        drawn += near
    if far:
        warn(
            f"{far} of {len(drawn)} random heads are of a block next to that which they stand for, "
            "for most heads of that one are in like."
        )
    return np.array(drawn, np.int64)


def _pairs(heads: Any, name: str) -> Array:
    found = np.asarray(heads)
    if found.ndim != 2 or found.shape[1] != 2 or not len(found) or found.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold one or more heads, (block, head), two ints each.")
    if len(np.unique(found, axis=0)) != len(found):
        raise ValueError(f"{name} must hold each head once.")
    return found.astype(np.int64)
