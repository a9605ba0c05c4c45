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
from contextvars import ContextVar
from functools import wraps
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
    "n_read",
    "of_ours",
    "read_states",
    "reading",
    "unedited",
]

Take = Callable[[int, Tensor], None]
Run = Callable[[dict[str, Any], Take], None]
Hooks = Iterable[tuple[nn.Module, Callable[..., Any]]]

# What hooks of this package change, by their numbers; "" is nothing.
_OURS: dict[int, str] = {}
_UNEDITED = ContextVar("_UNEDITED", default=False)


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

    def put(self, args: tuple[Any, ...], seen: Any, tensor: Tensor) -> Any:
        """Make what a hook returns so that a tensor takes the place of what was read here."""
        if not self.before:
            return (tensor, *seen[1:]) if isinstance(seen, tuple) else tensor
        if args:
            return (tensor, *args[1:]), seen
        return args, {**seen, "hidden_states": tensor}

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
def hooked(
    model: nn.Module, after: Hooks = (), before: Hooks = (), *, edit: str | None = None
) -> Iterator[None]:
    """Register hooks, one thread at a time, and remove every one of them, whatever happens.

    Parameters
    ----------
    model : Module
        The model that is run, whole; what is hooked is part of it.
    after : iterable of (Module, callable)
        Forward hooks; each takes the module, its positional arguments and its output.
    before : iterable of (Module, callable)
        Forward pre-hooks; each takes the module, its positional and its keyword arguments.
    edit : str or None, default=None
        What they do to the numbers of the model, where they are an edit, which does nothing inside
        of :func:`unedited`; a store refuses the model then, as it does with hooks of others. "" is
        for those that go with an edit and only look.
    """
    if edit is not None:
        after, before = (
            [(m, _unless_unedited(hook)) for m, hook in one] for one in (after, before)
        )
    with alone(model) as undo:
        handles = chain(
            (m.register_forward_pre_hook(hook, with_kwargs=True) for m, hook in before),
            (module.register_forward_hook(hook) for module, hook in after),
        )
        with CHANGES:
            for handle in handles:
                _OURS[handle.id] = edit or ""
                undo.callback(_OURS.pop, handle.id, None)
                undo.callback(handle.remove)
        yield


def of_ours(number: int) -> str | None:
    """Say what a hook of :func:`hooked` changes, by its number; None if it is one of others."""
    return _OURS.get(number)


@contextmanager
def unedited() -> Iterator[None]:
    """Run models as if nothing of this package edited them, in this thread."""
    token = _UNEDITED.set(True)
    try:
        yield
    finally:
        _UNEDITED.reset(token)


def _unless_unedited(hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def passing(*given: Any) -> Any:
        return None if _UNEDITED.get() else hook(*given)

    return passing


def _entering(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs.get("hidden_states")


@contextmanager
def reading(
    base: nn.Module,
    places: Mapping[Any, Place],
    take: Callable[[Any, Tensor], Tensor | None],
    *,
    edit: str | None = None,
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
        is there. A tensor that it returns takes its place.
    edit : str or None, default=None
        What that does to the numbers, if it ever returns one; see :func:`hooked`.
    """
    calls: Counter[Any] = Counter()

    def start(module: nn.Module, args: Any, kwargs: Any) -> None:
        calls.clear()

    def reader(key: Any, place: Place) -> tuple[nn.Module, Callable[..., Any]]:
        def read(module: nn.Module, args: Any, seen: Any) -> Any:
            calls[key] += 1
            if calls[key] != place.call + 1:
                return None
            if place.before:
                tensor = _entering(args, seen)
            else:
                tensor = seen[0] if isinstance(seen, tuple) else seen
            new = take(key, tensor) if isinstance(tensor, Tensor) else None
            return None if new is None else place.put(args, seen, new)

        return place.module, read

    before = (reader(key, place) for key, place in places.items() if place.before)
    after = (reader(key, place) for key, place in places.items() if not place.before)
    with hooked(base, before=[(base, start)]), hooked(base, after, before, edit=edit):
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
