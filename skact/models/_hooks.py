"""Take the residual stream after chosen blocks of a model, by forward hooks.

Imports torch: import this module only where a model is at hand.

What a model itself reports as ``hidden_states`` is not the same quantity in every architecture:
the last entry is often taken after the final norm. Hooks on the blocks read the same place
everywhere, and :func:`check_hooks` compares them with the model's own states once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from skact.models._hub import evaluating

__all__ = ["Run", "Take", "capture", "check_hooks", "find_blocks"]

Take = Callable[[int, Tensor], None]
Run = Callable[[dict[str, Any], Take], None]


class DeepEnoughError(Exception):
    """Leaves a forward pass once the deepest wanted block has run."""


def find_blocks(base: nn.Module, n_blocks: int) -> nn.ModuleList:
    """Find the list of transformer blocks.

    Parameters
    ----------
    base : Module
        The model without head.
    n_blocks : int
        Number of blocks its config promises.

    Returns
    -------
    blocks : ModuleList of length n_blocks
        The outermost one of that length.

    Raises
    ------
    ValueError
        If there is none.
    """
    for module in base.modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks:
            return module
    raise ValueError(
        f"{type(base).__name__} has no list of {n_blocks} blocks, the num_hidden_layers of its "
        "config, so its layers cannot be read."
    )


def block_state(output: Any, base: nn.Module) -> Tensor:
    state = output[0] if isinstance(output, tuple) else output
    # A model that reads an image as tiles says how many positions are the first one's.
    return state[:, : getattr(base, "n_read", None)]


@contextmanager
def capture(base: nn.Module, blocks: nn.ModuleList, wanted: Sequence[int]) -> Iterator[Run]:
    """Prepare a model for reading the residual stream after some blocks.

    Parameters
    ----------
    base : Module
        The model without head.
    blocks : ModuleList
        Its blocks.
    wanted : sequence of int
        Blocks to read.

    Yields
    ------
    run : callable
        Takes the keyword arguments of the model, and a function that is given each wanted block
        and its tensor (n_samples, n_positions, n_features) as soon as the block has run, while the
        tensor is still in the cache. The one forward pass ends after the deepest wanted block. On
        leaving the context every hook is removed and the model is as it was.
    """
    deepest = max(wanted)
    taking: list[Take] = []

    def reader(block: int) -> Callable[..., None]:
        def read(module: nn.Module, args: Any, output: Any) -> None:
            taking[-1](block, block_state(output, base))
            if block == deepest:
                raise DeepEnoughError

        return read

    def run(inputs: dict[str, Any], take: Take) -> None:
        taking[:] = [take]
        with suppress(DeepEnoughError):
            base(**inputs)

    handles: list[Any] = []
    try:
        for block in wanted:
            handles.append(blocks[block].register_forward_hook(reader(block)))
        with evaluating(base), torch.inference_mode():
            yield run
    finally:
        for handle in handles:
            handle.remove()


def _norms(base: nn.Module) -> list[nn.Module]:
    """Norms outside of all lists: those of blocks, also of blocks that did not run, are in one."""
    lists = [module for module in base.modules() if isinstance(module, nn.ModuleList)]
    inside = {id(module) for one in lists for module in one.modules()}
    return [
        module
        for name, module in base.named_modules()
        if id(module) not in inside and "norm" in f"{type(module).__name__} {name}".lower()
    ]


def _same(found: Tensor, own: Tensor) -> bool:
    tolerance = 1e-5 if found.dtype == torch.float32 else 1e-2
    return found.shape == own.shape and torch.allclose(
        found.float(), own.float(), rtol=tolerance, atol=tolerance
    )


def check_hooks(base: nn.Module, blocks: nn.ModuleList, inputs: dict[str, Any]) -> Tensor:
    """Make sure that hooks read the model's own hidden states.

    Parameters
    ----------
    base : Module
        The model without head.
    blocks : ModuleList
        Its blocks.
    inputs : dict
        Keyword arguments of a small forward pass.

    Returns
    -------
    state : Tensor of shape (n_samples, n_positions, n_features)
        After the last block.

    Raises
    ------
    RuntimeError
        If a hook and the model disagree. After the last block, the model's state may be the
        hook's after the final norm.
    """
    states: dict[int, Tensor] = {}
    # Cloned, so that a later block that works in place would show.
    handles = [
        block.register_forward_hook(
            lambda m, a, output, b=b: states.update({b: block_state(output, base).clone()})
        )
        for b, block in enumerate(blocks)
    ]
    try:
        with evaluating(base), torch.inference_mode():
            own = base(**inputs, output_hidden_states=True, return_dict=True).hidden_states
            last = len(blocks) - 1
            ok = own is not None and len(own) == len(blocks) + 1 and len(states) == len(blocks)
            ok = ok and all(_same(states[b], own[b + 1]) for b in range(last))
            ok = ok and (
                _same(states[last], own[-1])
                or any(_same(norm(states[last]), own[-1]) for norm in _norms(base))
            )
    finally:
        for handle in handles:
            handle.remove()
    if not ok:
        raise RuntimeError(
            f"the outputs of the {len(blocks)} blocks of {type(base).__name__} are not the hidden "
            "states that the model itself reports, so its layers cannot be read reliably."
        )
    return states[last]
