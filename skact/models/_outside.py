"""What works on a model from outside, so that no hash of its content can name it.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as of_all

from skact.models._hooks import of_ours
from skact.models._hub import first_weight

__all__ = ["find_outside"]

# Hooks of these libraries move tensors, collect outputs, or work with weights that are hashed.
_HARMLESS = ("accelerate", "peft", "torch", "transformers")


def _changing(hooks: dict[int, Any], where: str) -> Iterator[str]:
    for number, hook in list(hooks.items()):  # others come and go in other threads
        library = str(getattr(hook, "__module__", "")).partition(".")[0]
        if edit := of_ours(number):
            yield edit
        elif edit is None and library not in _HARMLESS:
            yield f"the hook {getattr(hook, '__qualname__', type(hook).__name__)} on {where}"


def _works_on(module: nn.Module, where: str) -> Iterator[str]:
    yield from _changing(module._forward_hooks, where)
    yield from _changing(module._forward_pre_hooks, where)
    forward = vars(module).get("forward")
    made_by = getattr(getattr(forward, "func", forward), "__module__", None) or ""
    if forward is not None and made_by.partition(".")[0] != "accelerate":
        yield f"another forward method on {where}"


def find_outside(model: nn.Module) -> list[str]:
    """List what changes the numbers of a model and is no part of it.

    Parameters
    ----------
    model : Module
        The model.

    Returns
    -------
    found : list of str
        Edits of this package, forward hooks and forward methods that somebody put on modules,
        and autocast.
    """
    found = [
        what
        for name, module in model.named_modules()
        for what in _works_on(module, name or "the model")
    ]
    for hooks in (of_all._global_forward_hooks, of_all._global_forward_pre_hooks):
        found += _changing(hooks, "all modules")
    device = first_weight(model).device.type
    if torch.is_autocast_enabled(device):
        found.append(f"autocast to {str(torch.get_autocast_dtype(device)).removeprefix('torch.')}")
    return found
