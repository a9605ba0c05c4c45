"""Try a model out and leave it as it was.

Running a model can change it for good: it keeps hooks once it was asked for its hidden states,
turns to another attention for short texts, counts, or caches. Whatever a module, its config and its
generation config hold is put back.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from skact.models._alone import alone, lock_of
from skact.models._hooks import unedited

__all__ = ["drawing", "untouched"]


def _settings(model: nn.Module) -> Iterator[Any]:
    """Configs of a model and of its parts, each once."""
    left = [
        getattr(module, name, None)
        for module in model.modules()
        for name in ("config", "generation_config")
    ]
    seen = set()
    while left:
        config = left.pop()
        if id(config) in seen or not hasattr(config, "__dict__") or isinstance(config, nn.Module):
            continue
        seen.add(id(config))
        yield config
        left += [value for value in vars(config).values() if hasattr(value, "to_dict")]


class _Kept:
    """What the attributes of one object are, and what those hold that are containers."""

    def __init__(self, thing: Any) -> None:
        self.now = vars(thing)
        self.then = dict(self.now)
        self.held = {
            name: copy.copy(value)
            for name, value in self.now.items()
            if isinstance(value, dict | list | set)
        }

    def restore(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.then:
                del self.now[name]
                continue
            if self.now.get(name, self) is not self.then[name]:
                self.now[name] = self.then[name]
            if name in self.held:
                _refill(self.now[name], self.held[name])


def _refill(container: Any, held: Any) -> None:
    if isinstance(container, dict):
        same = len(container) == len(held) and all(
            k is j and v is w
            for (k, v), (j, w) in zip(container.items(), held.items(), strict=True)
        )
        if not same:
            container.clear()
            container.update(held)
    elif container != held:
        container.clear()
        (container.extend if isinstance(container, list) else container.update)(held)


def _versions(model: nn.Module) -> list[int]:
    """Count how often each weight was changed in place."""
    return [p._version for p in model.parameters() if not p.is_inference()]


@contextmanager
def drawing(devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Put torch's state of random numbers back, which all threads share; one of them at a time.

    Parameters
    ----------
    devices : sequence of device, default=()
        Those other than the CPU whose state is put back as well.
    """
    with lock_of(torch.random), torch.random.fork_rng(devices):
        yield


@contextmanager
def untouched(model: nn.Module, *, edited: bool = False) -> Iterator[None]:
    """Put a model, its settings and the state of random numbers back, whatever happens.

    Weights are not copied. A model that rescales its own weights as it goes from training to
    evaluation keeps the notes it made about that.

    Parameters
    ----------
    model : Module
        The model.
    edited : bool, default=False
        Whether edits of this package act meanwhile; what a model is, is found without them.
    """
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with alone(model) as undo, drawing(sorted(devices, key=str)), ExitStack() as stack:
        if not edited:
            stack.enter_context(unedited())
        modules = [_Kept(module) for module in model.modules()]
        settings = [_Kept(config) for config in _settings(model)]
        versions = _versions(model)
        trained = [(p, p.requires_grad) for p in model.parameters()]

        def restore() -> None:
            for kept in settings:
                kept.restore({*kept.now, *kept.then})
            unchanged = versions == _versions(model)
            for kept in modules:
                names = {*kept.now, *kept.then}
                kept.restore(n for n in names if unchanged or "hook" in n or n == "training")
            for parameter, was_trained in trained:
                parameter.requires_grad_(was_trained)

        undo.callback(restore)
        yield
