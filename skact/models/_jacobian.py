"""Words that directions of an earlier layer speak for, by what the later layers make of them.

Imports torch and transformers: import this module only where a model is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from skact.arguments import Number, checked
from skact.models._alone import evaluating
from skact.models._changing import Running, changing
from skact.models._depth import resolve_layers
from skact.models._forward import Batches
from skact.models._hooks import reading
from skact.models._language import Language, load_language
from skact.models._lens import LensWord, check_directions, words_of
from skact.models._memory import run_batches
from skact.models._prepare import TextInputs, prepare
from skact.models._sink import find_sink
from skact.rows import Array
from skact.samples import as_list

__all__ = ["JacobianWords", "jacobian_lens"]


class JacobianWords(NamedTuple):
    """What directions come to in the last layer, and the words that they speak for there.

    Parameters
    ----------
    words : list of n_vectors lists of LensWord
        Largest logit first.
    vectors : ndarray of shape (n_vectors, n_features), dtype float64
        :math:`J v`.
    n_samples : int
        Samples over which the Jacobian is a mean.
    n_tokens : int
        Their tokens.
    """

    words: list[list[LensWord]]
    vectors: Array
    n_samples: int
    n_tokens: int


@checked(
    model="no_validation",
    vectors=["array-like"],
    layer=[Number(Integral, None, None, closed="neither"), Number(Real, 0, 1, closed="right")],
    top=[Number(Integral, 1, None, closed="left")],
    batch_size=[Number(Integral, 1, None, closed="left")],
    max_length=[Number(Integral, 1, None, closed="left"), None],
    sink=[str, Number(Integral, 0, None, closed="left"), None],
    device=[str],
    dtype=[str],
    revision=[str, None],
    trust_remote_code=["boolean"],
)
def jacobian_lens(
    model: Any,
    vectors: Any,
    samples: Any,
    *,
    layer: float,
    top: int = 10,
    batch_size: int = 32,
    max_length: int | None = None,
    sink: str | int | None = "auto",
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> JacobianWords:
    r"""Read directions of the residual stream after a block as the words that they lead to.

    .. math:: \ell(v) = W_U\, \mathrm{norm}(J v) - W_U\, \mathrm{norm}(0), \qquad
              J = \operatorname*{mean}_{t'} \sum_t
                  \frac{\partial h_{\mathrm{final}, t'}}{\partial h_{l, t}}

    with the mean over all tokens :math:`t'` of all samples, and the sum over the tokens t of the
    same sample: :math:`J v` is how the last state of a token changes, on average, with the first
    step along v at every token of layer l. Up to a factor, which the norm takes out, that is the
    mean over all pairs of tokens of which one sees the other. The logit lens [1]_
    (:func:`logit_lens`) takes :math:`J = I`, as if later blocks did nothing; the mean of Jacobians
    [2]_ follows v through them, and is the same where l is the last block.

    J itself is never made: :math:`J v` is a product of a Jacobian and a vector in forward mode, a
    pass of the model for each vector and batch. What is not a token, as the token that takes the
    attention sink, is neither moved nor counted.

    Parameters
    ----------
    model : str, Path or tuple
        A language model, as in :class:`~skact.TransformerEmbedder`; of a pair with its head.
    vectors : array-like of shape (n_vectors, n_features)
        Directions in the residual stream after the block. A scalar scale changes nothing in the
        order.
    samples : sequence of n_samples texts or chats
        Over which the Jacobian is a mean.
    layer : int or float
        The block, or its depth, as in :class:`~skact.TransformerEmbedder`.
    top : int, default=10
        Words of each.
    batch_size : int, default=32
        Samples of mean length in a batch.
    max_length, sink, device, dtype, revision, trust_remote_code
        As in :class:`~skact.TransformerEmbedder`.

    Returns
    -------
    found : JacobianWords
        The words and :math:`J v`, with the numbers of samples and tokens behind them.

    Raises
    ------
    ValueError, TypeError
        If the model has no unembedding, does more than a norm before it, is of another width, or
        takes a step of which torch knows no derivative, or there is no such block or no text.

    References
    ----------
    .. [1] nostalgebraist, "interpreting GPT: the logit lens", 2020.
    .. [2] Hernandez et al., "Linearity of Relation Decoding in Transformer Language Models",
       ICLR 2024, section on the mean Jacobian.
    """
    language = load_language(
        model, device, dtype, revision=revision, trust_remote_code=trust_remote_code
    )
    loaded = language.model.loaded
    rows = check_directions(vectors, loaded.width)
    (block,), _ = resolve_layers(layer, len(loaded.places))
    inputs: Any = prepare(
        loaded, as_list(samples), max_length=max_length, sink=find_sink(loaded, sink)
    )
    carried = _carried(language, rows, inputs, block, batch_size)
    n_samples, n_tokens = len(inputs.lengths), int(inputs.n_tokens.sum())
    if not np.isfinite(carried).all():
        raise ValueError(
            f"model={language.name!r} has a Jacobian at block {block} that is not finite on these "
            "samples."
        )
    carried /= n_tokens
    return JacobianWords(words_of(language, carried, top), carried, n_samples, n_tokens)


def _carried(
    language: Language, rows: Array, inputs: TextInputs, block: int, batch_size: int
) -> Array:
    """Sum over all tokens of the derivative of the last state by a step along each row."""
    loaded = language.model.loaded
    batches = Batches(inputs, np.arange(len(inputs.lengths)))
    steps = torch.as_tensor(rows, dtype=loaded.dtype, device=loaded.device)
    last = loaded.places[-1]
    acting: list[tuple[Tensor, Tensor]] = []
    sums: list[Array] = []

    def push(key: Any, running: Running, stream: Tensor) -> Tensor:
        step, where = acting[-1]
        tangent = torch.zeros_like(stream)
        tangent[:, : where.shape[1]][where] = step
        dual: Tensor = forward_ad.make_dual(stream, tangent)  # type: ignore[no-untyped-call]
        return dual

    def take(_: Any, state: Tensor) -> None:
        _, where = acting[-1]
        tangent = forward_ad.unpack_dual(state).tangent  # type: ignore[no-untyped-call]
        if tangent is None:
            raise ValueError(
                f"model={language.name!r} does not let a step at block {block} through to its last "
                "state, so it has no Jacobian."
            )
        sums.append(last.stream(tangent, where.shape[1])[where].double().sum(dim=0).cpu().numpy())

    def run(samples: Array) -> Array:
        read, is_token = batches.batch(samples)
        sent = {name: value.to(loaded.device) for name, value in read.items()} | loaded.extra
        where = torch.from_numpy(is_token).to(loaded.device)
        sums.clear()
        for step in steps:
            acting[:] = [(step, where)]
            with forward_ad.dual_level():
                loaded.base(**sent)
        return np.stack(sums)

    key = (block, "residual")
    budget = batch_size * int(inputs.lengths.sum()) // len(inputs.lengths)
    with (
        torch.no_grad(),
        evaluating(language.model.whole),
        # Of what computes attention at once, torch knows no derivative in forward mode.
        sdpa_kernel(SDPBackend.MATH),
        changing(language.model, {key: loaded.places[block]}, push, {key: f"a step at {block}"}),
        reading(loaded.base, {0: last}, take),
    ):
        parts = run_batches(batches.cut, _explained(run, language), budget, batches.n_positions)
        return np.sum([sum_ for _, sum_ in parts], axis=0)


def _explained(run: Callable[[Array], Array], language: Language) -> Callable[[Any], Array]:
    """Say what it is about where torch says that it lacks a derivative."""

    def running(samples: Sequence[int]) -> Array:
        try:
            return run(np.asarray(samples))
        except NotImplementedError as error:
            raise ValueError(
                f"model={language.name!r} takes a step of which torch knows no derivative in "
                f"forward mode: {error}"
            ) from error

    return running
