"""One thread at a time runs a model, and what a pass changes about it is put back.

Hooks, modes and settings belong to a model, not to a thread: two passes at once would read each
other's states. So whoever runs a model holds its lock. A model and its towers have the same one,
whichever of them is asked for; other models have others.

A forked child is the only thread there is, so it waits for nobody: it begins with new locks, and
with models from which everything is gone that the other threads of its parent had put there. Torch
computes in one thread there. A fork waits for calls of tokenizers, which have locks of their own
that no child could release.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ContextDecorator, ExitStack, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CHANGES", "Reusable", "alone", "evaluating", "lock_of", "set_for_now"]

#: Held for a moment while hooks come or go; a fork waits for it, so that it finds all or none.
CHANGES = threading.RLock()

_LOCKS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
# Those of the locks that a fork waits for, and what a fork that is under way holds of them.
_AWAITED: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_FORKING = threading.RLock()
_HELD: list[Any] = []
_OF_MODULES: WeakKeyDictionary[nn.Module, dict[int, Any]] = WeakKeyDictionary()
_NUMBERS = count()
# What puts models back, and the thread that will call it.
_UNDO: dict[ExitStack, int] = {}


def _hold() -> None:
    """Take all that a fork waits for, in a loop, for locks may be made meanwhile."""
    _FORKING.acquire()
    while True:
        CHANGES.acquire()
        left = [lock for lock in _AWAITED.values() if lock not in _HELD]
        if not left:
            return
        CHANGES.release()
        for lock in left:
            lock.acquire()
            _HELD.append(lock)


def _let_go() -> None:
    while _HELD:
        _HELD.pop().release()
    CHANGES.release()
    _FORKING.release()


def _begin_anew() -> None:
    _let_go()
    if _OF_MODULES:
        # The threads in which torch computes are gone too, and it would wait for them.
        sys.modules["torch"].set_num_threads(1)
    _LOCKS.clear()
    _AWAITED.clear()
    _OF_MODULES.clear()
    others = [undo for undo, thread in _UNDO.items() if thread != threading.get_ident()]
    for undo in reversed(others):
        del _UNDO[undo]
        undo.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_begin_anew)


def lock_of(thing: Any, *, awaited: bool = False) -> Any:
    """Return the re-entrant lock of a thing, the same one as long as the thing lives.

    Parameters
    ----------
    thing : object
        What one thread at a time may use; not a model, which has :func:`alone`.
    awaited : bool, default=False
        Whether a fork waits until nobody holds the lock; for what is held for a moment.

    Returns
    -------
    lock : RLock
        A forked child has another one.
    """
    with CHANGES:
        lock = _LOCKS.setdefault(thing, threading.RLock())
        if awaited:
            _AWAITED[thing] = lock
        return lock


def _locks_of(model: nn.Module) -> list[Any]:
    """Locks of a model, in the order in which everybody takes them.

    One as a rule; several where towers had been used by themselves before their model was.
    """
    with CHANGES:
        if model not in _OF_MODULES:
            parts = list(model.modules())
            found: dict[int, Any] = {}
            for part in parts:
                found |= _OF_MODULES.get(part, {})
            found = found or {next(_NUMBERS): threading.RLock()}
            for part in parts:
                _OF_MODULES.setdefault(part, found)
        return [lock for _, lock in sorted(_OF_MODULES[model].items())]


@contextmanager
def alone(model: nn.Module) -> Iterator[ExitStack]:
    """Let no other thread run a model, nor its towers, nor what they are towers of.

    Parameters
    ----------
    model : Module
        The model.

    Yields
    ------
    undo : ExitStack
        Takes what is to be called on leaving, whatever happens, while the model is still held; and
        in a child that is forked meanwhile by another thread.
    """
    with ExitStack() as held:
        for lock in _locks_of(model):
            held.enter_context(lock)
        undo = ExitStack()
        _UNDO[undo] = threading.get_ident()
        try:
            yield undo
        finally:
            with CHANGES:
                del _UNDO[undo]
                undo.close()


class Reusable(ContextDecorator, AbstractContextManager[None]):
    """A context that may be entered again, also inside of itself.

    Parameters
    ----------
    make : callable
        Makes a context for each time.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make
        self._entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        context = self._make()
        context.__enter__()
        self._entered.append(context)

    def __exit__(self, *error: Any) -> bool | None:
        return self._entered.pop().__exit__(*error)


def set_for_now(undo: ExitStack, thing: Any, name: str, value: Any) -> None:
    """Set an attribute of an object, and put back what was there, if anything, on leaving.

    Parameters
    ----------
    undo : ExitStack
        As from :func:`alone`.
    thing : object
        The object.
    name : str
        The attribute.
    value : object
        What it is meanwhile.
    """
    now, lacking = vars(thing), object()
    before = now.get(name, lacking)
    if before is lacking:
        undo.callback(now.pop, name, None)
    else:
        undo.callback(now.__setitem__, name, before)
    now[name] = value


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Turn dropout off, and leave every module in the mode it was found in."""
    with alone(model) as undo:
        training = [module for module in model.modules() if module.training]

        def restore() -> None:
            for module in training:
                module.training = True

        undo.callback(restore)
        for module in training:
            module.training = False
        yield
