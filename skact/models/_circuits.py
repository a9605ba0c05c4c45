"""The weights of attention, head by head: what a head asks for, looks at, and writes.

Of head h they are W_Q, W_K, W_V and W_O, between the stream that enters a block and what the head
writes. A norm before them divides a token by its own size s and multiplies by a gain g, after the
mean is taken away where it is a LayerNorm: g and that are folded into the weights, so that they act
on x / s. What stands behind W_O, a factor or the gain of a norm, is folded into W_O.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from skact.models._loaded import Loaded
from skact.models._sites import (
    Call,
    OutputProjection,
    find_sites,
    trial_inputs,
    watch_parts,
    weight_of,
)
from skact.models._untouched import untouched
from skact.rows import Array

__all__ = ["Circuits", "find_circuits"]

_ROLES = (
    ("q_proj", "query", "q_lin", "q"),
    ("k_proj", "key", "k_lin", "k"),
    ("v_proj", "value", "v_lin", "v"),
)
_FUSED = ("c_attn", "qkv", "qkv_proj", "Wqkv", "in_proj")
_NEAR = 1e-3  # relative error allowed where weights are put together


@dataclass(frozen=True, eq=False)
class Circuits:
    """The heads of one block, as weights in float64.

    Parameters
    ----------
    block : int
        Number of the block.
    n_heads, n_groups, head_dim : int
        Heads, heads that keys and values have, and features of a head.
    scaling : float
        What logits are multiplied by, 1 / sqrt(head_dim) as a rule.
    query : ndarray of shape (n_heads * head_dim, n_features)
        From x / s to queries, gain of the norm included.
    key, value : ndarray of shape (n_groups * head_dim, n_features)
        Likewise.
    query_bias, key_bias, value_bias : ndarray of shape (n_out,)
        What is added, the bias of the norm included.
    output : ndarray of shape (n_features, n_heads * head_dim)
        W_O, with what stands behind it.
    output_bias : ndarray of shape (n_features,)
        Its bias, likewise.
    normed, centred : bool
        Whether a norm stands before, and whether it takes the mean away.
    norm_behind : bool
        Whether what attention gives goes through a norm of its own, so that writes are known up to
        a factor for each token.
    """

    block: int
    n_heads: int
    n_groups: int
    head_dim: int
    scaling: float
    query: Array
    key: Array
    value: Array
    query_bias: Array
    key_bias: Array
    value_bias: Array
    output: Array
    output_bias: Array
    normed: bool
    centred: bool
    norm_behind: bool

    def sizes(self, tokens: Array) -> Array:
        """Return s for each of the tokens (n_tokens, n_features) that enter the block."""
        if not self.normed:
            return np.ones(len(tokens))
        tokens = np.asarray(tokens, np.float64)
        mean = tokens.mean(axis=1, keepdims=True) if self.centred else 0.0
        return np.sqrt(np.square(tokens - mean).mean(axis=1))

    def by_head(self, rows: Array) -> Array:
        """Cut (n_out, ...) of queries, keys or values into (n_heads, head_dim, ...)."""
        cut = rows.reshape(-1, self.head_dim, *rows.shape[1:])
        return np.repeat(cut, self.n_heads // len(cut), axis=0)


class _Norm(NamedTuple):
    gain: Tensor
    bias: Tensor
    centred: bool


def _norm(module: nn.Module, like: Tensor) -> _Norm:
    """Read gain and bias off what a norm makes of a vector of mean 0 and variance 1."""
    width = like.shape[-1]
    probe = torch.ones(width, dtype=like.dtype, device=like.device)
    probe[1::2] = -1
    probe = (probe - probe.mean()) / probe.std(correction=0)
    ones = torch.ones_like(probe)
    rows = torch.stack([torch.zeros_like(probe), probe, ones])[None]
    zero, at_probe, at_ones = module(rows)[0].double()
    gain = (at_probe - zero) / probe.double()
    return _Norm(gain, zero, bool((at_ones - zero).norm() < 0.5 * gain.norm()))


def _applied(norm: _Norm, entered: Tensor) -> Tensor:
    x = entered.double()
    x = x - x.mean(dim=-1, keepdim=True) if norm.centred else x
    return norm.gain * x / x.square().mean(dim=-1, keepdim=True).sqrt() + norm.bias


def _near(found: Tensor, expected: Tensor, eps: float) -> bool:
    error = (found.double() - expected.double()).norm()
    return bool(error <= max(_NEAR, 16 * eps) * expected.double().norm())


def _linear(module: Any) -> tuple[Tensor, Tensor]:
    weight = weight_of(module).double()
    bias = torch.zeros(len(weight)).to(weight) if module.bias is None else module.bias.double()
    return weight, bias


def _asking(calls: Sequence[Call], projection: OutputProjection) -> list[Call] | None:
    """Find what makes queries, keys and values, or all three at once."""
    before = []
    for call in calls:
        if call.place.module is projection.module:
            break
        if isinstance(call.place.module, nn.Linear | Conv1D):
            before.append(call)
    last = {call.name.rpartition(".")[2]: call for call in before}
    found = [next((last[name] for name in names if name in last), None) for names in _ROLES]
    if all(found):
        return found  # type: ignore[return-value]
    return next(([last[name]] for name in _FUSED if name in last), None)


def _cut(asking: Sequence[Call], projection: OutputProjection) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of queries, keys and values."""
    if len(asking) == 3:
        return [_linear(call.place.module) for call in asking]
    weight, bias = _linear(asking[0].place.module)
    n_query = projection.n_heads * projection.head_dim
    rest = (len(weight) - n_query) // 2
    sizes = [n_query, rest, rest]
    return list(zip(torch.split(weight, sizes), torch.split(bias, sizes), strict=True))


def _behind(a: Call, projection: OutputProjection, width: int) -> tuple[Any, bool]:
    """Return what the output of the projection is multiplied by, and whether that is a norm."""
    module = a.place.module
    if module is projection.module:
        return 1.0, False
    one = torch.ones_like(a.entered[:1, :1, :width])
    factor, twice = module(one).double(), module(2 * one).double()
    if torch.allclose(2 * factor, twice, rtol=1e-3):
        return factor[0, 0], False
    return _norm(module, one).gain, True


def _refuse(loaded: Loaded, block: int, why: str) -> ValueError:
    return ValueError(
        f"the heads of block {block} of {type(loaded.base).__name__} cannot be taken apart: {why}."
    )


def _norm_before(
    loaded: Loaded, block: int, x: Tensor, calls: Sequence[Call], entered: Tensor
) -> _Norm | None:
    """Find the norm between the stream that enters a block and what asks."""
    if torch.equal(entered, x):
        return None
    before = next((call for call in calls if torch.equal(call.out, entered)), None)
    if before is None or not torch.equal(before.entered, x):
        raise _refuse(loaded, block, "what enters them is neither the stream nor a norm of it")
    norm = _norm(before.place.module, x.to(loaded.dtype))
    if not _near(_applied(norm, x), entered, torch.finfo(loaded.dtype).eps):
        raise _refuse(loaded, block, f"{before.name} is no LayerNorm or RMSNorm")
    return norm


def _check_bilinear(loaded: Loaded, block: int, asking: Call) -> None:
    inside = asking.name.rpartition(".")[0]
    for name, module in loaded.blocks[block].named_modules():
        if name.startswith(f"{inside}.") and "norm" in type(module).__name__.lower():
            why = f"{name} is a norm of queries or keys, so logits are no bilinear form"
            raise _refuse(loaded, block, why)


def _folded(weight: Tensor, bias: Tensor, norm: _Norm | None) -> tuple[Tensor, Tensor]:
    """Fold a norm into the weights that follow it."""
    if norm is None:
        return weight, bias
    gained = weight * norm.gain
    if norm.centred:
        gained = gained - gained.mean(dim=1, keepdim=True)
    return gained, bias + weight @ norm.bias


def _circuits(
    loaded: Loaded, x: Tensor, calls: Sequence[Call], a: Call, projection: OutputProjection
) -> Circuits:
    block = projection.block
    asking = _asking(calls, projection)
    if asking is None:
        raise _refuse(loaded, block, "its queries, keys and values have other names than is known")
    _check_bilinear(loaded, block, asking[0])
    norm = _norm_before(loaded, block, x, calls, asking[0].entered)
    made = [_folded(weight, bias, norm) for weight, bias in _cut(asking, projection)]
    factor, norm_behind = _behind(a, projection, x.shape[-1])
    output, output_bias = _linear(projection.module)
    scale = factor[:, None] if isinstance(factor, Tensor) else factor
    made.append((output * scale, output_bias * factor))
    (query, query_bias), (key, key_bias), (value, value_bias), (output_, output_bias_) = (
        (weight.cpu().numpy(), bias.cpu().numpy()) for weight, bias in made
    )
    attention = loaded.blocks[block].get_submodule(projection.name.rpartition(".")[0])
    scaling = getattr(attention, "scaling", None)
    return Circuits(
        block=block,
        n_heads=projection.n_heads,
        n_groups=len(key) // projection.head_dim,
        head_dim=projection.head_dim,
        scaling=scaling if isinstance(scaling, float) else projection.head_dim**-0.5,
        query=query,
        key=key,
        value=value,
        query_bias=query_bias,
        key_bias=key_bias,
        value_bias=value_bias,
        output=output_,
        output_bias=output_bias_,
        normed=norm is not None,
        centred=norm is not None and norm.centred,
        norm_behind=norm_behind,
    )


def _check_values(loaded: Loaded, made: Circuits, x: Tensor, entered: Tensor) -> None:
    """Of a text of one token, what enters the projection is the value of the token."""
    tokens = x[0].cpu().double().numpy()
    values = (tokens / made.sizes(tokens)[:, None]) @ made.value.T + made.value_bias
    heads = made.by_head(values.T).reshape(-1, len(tokens)).T
    if not _near(entered[0].cpu(), torch.from_numpy(heads), torch.finfo(loaded.dtype).eps):
        raise _refuse(loaded, made.block, "a text of one token does not come out as its value")


def find_circuits(loaded: Loaded, blocks: Sequence[int]) -> list[Circuits]:
    """Read the weights of the heads of some blocks.

    Parameters
    ----------
    loaded : Loaded
        The model, as :func:`load` gives it.
    blocks : sequence of int
        Its blocks.

    Returns
    -------
    circuits : list of Circuits
        One for each. Checked: a norm before them is a LayerNorm or RMSNorm, and a text of one token
        comes out as its value. Rotary positions are left out, as between a token and itself; a cap
        on logits too.

    Raises
    ------
    ValueError
        If the heads are not found, or queries and keys go through norms of their own (Qwen3).
    """
    sites = find_sites(loaded)
    if sites.why:
        raise ValueError(f"heads cannot be read: {sites.why}.")
    inputs, is_text = trial_inputs(loaded), loaded.modality == "text"
    if is_text:
        inputs |= {name: inputs[name][:, :1] for name in ("input_ids", "attention_mask")}
    n_positions = 1 if is_text else 16
    with untouched(loaded.base), torch.inference_mode():
        seen = watch_parts(loaded.base, loaded.blocks, loaded.places[0], n_positions, inputs)
        found = []
        for block in blocks:
            x, calls = seen[block]
            assert x is not None
            place, projection = sites.attention[block], sites.projections[block]
            of = {(call.place.module, call.place.call): call for call in calls}
            a = of[place.module, place.call]
            made = _circuits(loaded, x, calls, a, projection)
            if is_text:
                entered = of[projection.module, projection.place.call].entered
                _check_values(loaded, made, x, entered)
            found.append(made)
    return found
