"""Take the residual stream after chosen blocks of a model, by forward hooks.

Imports torch: import this module only where a model is at hand.

What a model itself reports as ``hidden_states`` is not the same quantity in every architecture:
the last entry is often taken after the final norm. Hooks on the blocks read the same place
everywhere, and :func:`check_hooks` compares them with the model's own states once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from skact.models._hub import evaluating

__all__ = ["Run", "Take", "capture", "check_hooks", "find_blocks", "hooked", "is_ours"]

Take = Callable[[int, Tensor], None]
Run = Callable[[dict[str, Any], Take], None]
Hooks = Iterable[tuple[nn.Module, Callable[..., Any]]]

# Hooks belong to a module, not to a thread: two passes at once would read each other's states.
ONE_AT_A_TIME = threading.RLock()
_OURS: set[int] = set()


class DeepEnoughError(Exception):
    """Leaves a forward pass once the deepest wanted block has run."""


@contextmanager
def hooked(after: Hooks = (), before: Hooks = ()) -> Iterator[None]:
    """Register hooks, one thread at a time, and remove every one of them, whatever happens.

    Parameters
    ----------
    after : iterable of (Module, callable)
        Forward hooks; each takes the module, its positional arguments and its output.
    before : iterable of (Module, callable)
        Forward pre-hooks; each takes the module, its positional and its keyword arguments.
    """
    with ONE_AT_A_TIME, ExitStack() as stack:
        handles = chain(
            (m.register_forward_pre_hook(hook, with_kwargs=True) for m, hook in before),
            (module.register_forward_hook(hook) for module, hook in after),
        )
        for handle in handles:
            _OURS.add(handle.id)
            stack.callback(_OURS.discard, handle.id)
            stack.callback(handle.remove)
        yield


def is_ours(number: int) -> bool:
    """Tell a hook of :func:`hooked` from those that others put on a model, by its number."""
    return number in _OURS


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

    readers = ((blocks[block], reader(block)) for block in wanted)
    with hooked(after=readers), evaluating(base), torch.inference_mode():
        yield run


def _norms(base: nn.Module) -> list[nn.Module]:
    """Norms outside of all lists: those of blocks, also of blocks that did not run, are in one."""
    lists = [module for module in base.modules() if isinstance(module, nn.ModuleList)]
    inside = {id(module) for one in lists for module in one.modules()}
    return [
        module
        for name, module in base.named_modules()
        if id(module) not in inside and "norm" in f"{type(module).__name__} {name}".lower()
    ]


def _same(state: Tensor, reported: Tensor) -> bool:
    tolerance = 1e-5 if state.dtype == torch.float32 else 1e-2
    return state.shape == reported.shape and torch.allclose(
        state.float(), reported.float(), rtol=tolerance, atol=tolerance
    )


def _are_reported(states: dict[int, Tensor], reported: Any, base: nn.Module, n_blocks: int) -> bool:
    """Whether the states after all blocks are what the model reports, the last perhaps normed."""
    if reported is None or len(reported) != n_blocks + 1 or len(states) != n_blocks:
        return False
    last = states[n_blocks - 1]
    return all(_same(states[b], reported[b + 1]) for b in range(n_blocks - 1)) and (
        _same(last, reported[-1]) or any(_same(norm(last), reported[-1]) for norm in _norms(base))
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

    def reader(block: int) -> Callable[..., None]:
        def read(module: nn.Module, args: Any, output: Any) -> None:
            # Cloned, so that a later block that works in place would show.
            states[block] = block_state(output, base).clone()

        return read

    readers = ((block, reader(b)) for b, block in enumerate(blocks))
    with hooked(after=readers), evaluating(base), torch.inference_mode():
        reported = base(**inputs, output_hidden_states=True, return_dict=True).hidden_states
        ok = _are_reported(states, reported, base, len(blocks))
    if not ok:
        raise RuntimeError(
            f"the outputs of the {len(blocks)} blocks of {type(base).__name__} are not the hidden "
            "states that the model itself reports, so its layers cannot be read reliably."
        )
    return states[len(blocks) - 1]
