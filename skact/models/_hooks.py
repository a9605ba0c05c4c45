"""Take the residual stream after chosen blocks of a model, by forward hooks.

Imports torch: import this module only where a model is at hand.

What a model itself reports as ``hidden_states`` is not the same quantity in every architecture:
the last entry is often taken after the final norm. Hooks read the same place everywhere. Which
places these are is found, and compared with the model's own states, in
:mod:`skact.models._places`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skact.models._alone import CHANGES, alone, evaluating

__all__ = [
    "DeepEnoughError",
    "Place",
    "Run",
    "Take",
    "capture",
    "hooked",
    "is_ours",
    "n_read",
    "read_states",
    "reading",
]

Take = Callable[[int, Tensor], None]
Run = Callable[[dict[str, Any], Take], None]
Hooks = Iterable[tuple[nn.Module, Callable[..., Any]]]

_OURS: set[int] = set()


class DeepEnoughError(Exception):
    """Leaves a forward pass once the deepest wanted block has run."""


class Place(NamedTuple):
    """Where in a forward pass the residual stream after a block is read.

    Parameters
    ----------
    module : Module
        The block as a rule, or what comes behind it.
    call : int, default=0
        Which of its calls within one pass; blocks that share weights are one module.
    before : bool, default=False
        Whether what enters the module is read, in place of what it puts out.
    axes : tuple of int, default=(0, 1, 2)
        Where samples, positions and features are among the axes of the tensor.
    """

    module: nn.Module
    call: int = 0
    before: bool = False
    axes: tuple[int, int, int] = (0, 1, 2)

    def stream(self, tensor: Tensor, n_positions: int | None) -> Tensor:
        """Return what was read here as (n_samples, n_positions, n_features)."""
        return tensor.permute(self.axes)[:, :n_positions]


def n_read(base: nn.Module, inputs: Mapping[str, Any]) -> int | None:
    """Positions of a sample among those that run; None if all of them are.

    A model may pad a text to its attention window; one that reads an image as tiles says how many
    positions are the first one's.
    """
    ids = inputs.get("input_ids")
    return getattr(base, "n_read", None) if ids is None else int(ids.shape[1])


@contextmanager
def hooked(model: nn.Module, after: Hooks = (), before: Hooks = ()) -> Iterator[None]:
    """Register hooks, one thread at a time, and remove every one of them, whatever happens.

    Parameters
    ----------
    model : Module
        The model that is run, whole; what is hooked is part of it.
    after : iterable of (Module, callable)
        Forward hooks; each takes the module, its positional arguments and its output.
    before : iterable of (Module, callable)
        Forward pre-hooks; each takes the module, its positional and its keyword arguments.
    """
    with alone(model) as undo:
        handles = chain(
            (m.register_forward_pre_hook(hook, with_kwargs=True) for m, hook in before),
            (module.register_forward_hook(hook) for module, hook in after),
        )
        with CHANGES:
            for handle in handles:
                _OURS.add(handle.id)
                undo.callback(_OURS.discard, handle.id)
                undo.callback(handle.remove)
        yield


def is_ours(number: int) -> bool:
    """Tell a hook of :func:`hooked` from those that others put on a model, by its number."""
    return number in _OURS


def _entering(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs.get("hidden_states")


@contextmanager
def reading(
    base: nn.Module, places: Mapping[Any, Place], take: Callable[[Any, Tensor], None]
) -> Iterator[None]:
    """Call a function with what is at some places, in every pass of a model.

    Parameters
    ----------
    base : Module
        The model without head.
    places : mapping of key to Place
        Where to read.
    take : callable
        Takes the key and the tensor as it is there, with the axes that it has there, as soon as it
        is there.
    """
    calls: Counter[Any] = Counter()

    def start(module: nn.Module, args: Any, kwargs: Any) -> None:
        calls.clear()

    def reader(key: Any, place: Place) -> tuple[nn.Module, Callable[..., None]]:
        def read(module: nn.Module, args: Any, seen: Any) -> None:
            calls[key] += 1
            if calls[key] != place.call + 1:
                return
            if place.before:
                tensor = _entering(args, seen)
            else:
                tensor = seen[0] if isinstance(seen, tuple) else seen
            if isinstance(tensor, Tensor):
                take(key, tensor)

        return place.module, read

    before = (reader(key, place) for key, place in places.items() if place.before)
    after = (reader(key, place) for key, place in places.items() if not place.before)
    with hooked(base, before=[(base, start)]), hooked(base, after, before):
        yield


@contextmanager
def capture(base: nn.Module, places: Sequence[Place], wanted: Sequence[int]) -> Iterator[Run]:
    """Prepare a model for reading the residual stream after some blocks.

    Parameters
    ----------
    base : Module
        The model without head.
    places : sequence of Place
        Where to read it after each block.
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
    passes: list[tuple[Take, int | None]] = []

    def read(block: int, tensor: Tensor) -> None:
        take, n_positions = passes[-1]
        take(block, places[block].stream(tensor, n_positions))
        if block == deepest:
            raise DeepEnoughError

    def run(inputs: dict[str, Any], take: Take) -> None:
        passes[:] = [(take, n_read(base, inputs))]
        with suppress(DeepEnoughError):
            base(**inputs)

    chosen = {block: places[block] for block in wanted}
    with reading(base, chosen, read), evaluating(base), torch.inference_mode():
        yield run


def read_states(base: nn.Module, places: Sequence[Place], inputs: dict[str, Any]) -> list[Tensor]:
    """Run a pass as all later ones are run, and return a copy of what is at some places.

    Parameters
    ----------
    base : Module
        The model without head.
    places : sequence of Place
        Where to read, in the order in which they run.
    inputs : dict
        Keyword arguments of the model.

    Returns
    -------
    states : list of Tensor of shape (n_samples, n_positions, n_features)
        One per place.
    """
    states: list[Tensor] = []
    with capture(base, places, range(len(places))) as run:
        run(inputs, lambda _, state: states.append(state.clone()))
    return states
