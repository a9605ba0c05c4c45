"""Follow what a model reads while it generates, from the residual stream, pass by pass.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import StoppingCriteria, StoppingCriteriaList

from skact.models._alone import alone, set_for_now
from skact.models._hooks import hooked, reading
from skact.models._loaded import Loaded
from skact.rows import Array

__all__ = ["Pass", "generating"]

# What makes a pass read something else than the next token of each row.
_OTHER_WAYS = ("assistant_model", "prompt_lookup_num_tokens", "custom_generate")


class Pass(NamedTuple):
    """What one pass of a generation has read: the prompts first, then a token at a time.

    Parameters
    ----------
    ids : ndarray of shape (n_rows, n_positions), dtype int64
        Tokens.
    is_padding : ndarray of shape (n_rows, n_positions), dtype bool
        Positions that are there to make rows equally long.
    states : dict of int to ndarray of shape (n_rows, n_positions, n_features), dtype float32
        Residual stream after each block that was asked for.
    """

    ids: Array
    is_padding: Array
    states: dict[int, Array]


class _Stop(StoppingCriteria):
    def __init__(self, done: Callable[[], Array]) -> None:
        self._done = done

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return torch.as_tensor(self._done(), dtype=torch.bool, device=input_ids.device)


@contextmanager
def generating(
    model: nn.Module,
    loaded: Loaded,
    blocks: Sequence[int],
    start: Callable[[Array, Array], None],
    take: Callable[[Pass], None],
    done: Callable[[], Array] | None = None,
) -> Iterator[None]:
    """Follow ``model.generate`` as long as the context lasts; afterwards the model is as it was.

    Parameters
    ----------
    model : Module
        With ``generate``; no other thread runs it meanwhile.
    loaded : Loaded
        The same model, ready to be read.
    blocks : sequence of int
        Blocks that are read.
    start : callable
        Called before the first pass of each generation, with the ``ids`` and ``is_padding`` of the
        prompts as in :class:`Pass`.
    take : callable
        Called with each :class:`Pass`.
    done : callable, default=None
        Returns which rows, (n_rows,), need no more tokens; asked after each token.

    Raises
    ------
    ValueError
        From ``generate``, before anything runs: for beams, assistants and generations without a
        cache, which read other tokens than the next one of each row.
    """
    inputs: dict[str, Any] = {}
    states: dict[int, Tensor] = {}
    is_on = is_new = False

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal is_new
        inputs.update(ids=kwargs.get("input_ids", args[0] if args else None))
        inputs.update(mask=kwargs.get("attention_mask"))
        if is_on and is_new and inputs["ids"] is not None:
            is_new = False
            start(*_read(inputs["ids"], inputs["mask"]))

    def read(block: int, tensor: Tensor) -> None:
        states[block] = loaded.places[block].stream(tensor, None)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if is_on and inputs["ids"] is not None:
            take(_pass(inputs["ids"], inputs["mask"], states))
        states.clear()

    original: Any = model.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        nonlocal is_on, is_new
        _check(model, kwargs)
        kwargs["stopping_criteria"] = _criteria(kwargs, done)
        is_on = is_new = True
        try:
            return original(*args, **kwargs)
        finally:
            is_on = False

    base = loaded.base
    with (
        alone(model) as undo,
        hooked(base, before=[(base, enter)]),
        reading(base, {block: loaded.places[block] for block in blocks}, read),
        hooked(base, after=[(base, leave)]),
    ):
        set_for_now(undo, model, "generate", generate)
        yield


def _criteria(kwargs: dict[str, Any], done: Callable[[], Array] | None) -> StoppingCriteriaList:
    """Ways to end that were asked for, and ours."""
    asked = kwargs.get("stopping_criteria") or ()
    return StoppingCriteriaList([*asked, *([] if done is None else [_Stop(done)])])


def _check(model: nn.Module, kwargs: dict[str, Any]) -> None:
    """Refuse ways to generate of which not every pass reads the next token of each row."""
    config = kwargs.get("generation_config") or model.generation_config

    def asked(name: str) -> Any:
        return kwargs[name] if name in kwargs else getattr(config, name, None)

    if (asked("num_beams") or 1) > 1:
        raise ValueError(
            f"a monitor follows one continuation of each prompt, but num_beams={asked('num_beams')}"
            " changes which one that is; use num_beams=1."
        )
    if asked("use_cache") is False:
        raise ValueError("a monitor reads each token once; use_cache=False reads it again.")
    for name in _OTHER_WAYS:
        if asked(name):
            raise ValueError(f"a monitor cannot follow a generation with {name}, which takes back.")


def _read(ids: Tensor, mask: Any) -> tuple[Array, Array]:
    """Tokens of a pass, and which of them are padding."""
    is_padding = torch.zeros_like(ids, dtype=torch.bool)
    if isinstance(mask, Tensor) and mask.ndim == 2:
        is_padding = mask[:, -ids.shape[1] :] == 0
    return ids.cpu().numpy(), is_padding.cpu().numpy()


def _pass(ids: Tensor, mask: Any, states: dict[int, Tensor]) -> Pass:
    at = {block: state.float().cpu().numpy() for block, state in states.items()}
    return Pass(*_read(ids, mask), at)
