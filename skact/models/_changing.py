"""Put something else in place of the residual stream of a model, in passes and generations.

Positions are those of the whole sequence, so that a pass with a cache, which reads few of them,
does what a pass over all would do.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from skact.models._alone import alone, set_for_now
from skact.models._hooks import Place, hooked, read_states, reading
from skact.models._hub import first_weight, where_from
from skact.models._loaded import Loaded, load
from skact.models._places import Places, find_places
from skact.models._towers import reading_part
from skact.models._tryout import embedding_rows, pass_options
from skact.models._untouched import untouched
from skact.models._weights import fingerprint

__all__ = ["Changeable", "Running", "changeable", "changing", "trial_states"]

_PLACES: WeakKeyDictionary[nn.Module, tuple[Any, Any]] = WeakKeyDictionary()


class Changeable(NamedTuple):
    """A model whose residual stream can be changed.

    Parameters
    ----------
    outer : Module
        What is called; it may be a compiled one.
    whole : Module
        The model itself, with its head.
    loaded : Loaded
        The part of it that reads; of a model without tokenizer, its processor is None.
    """

    outer: nn.Module
    whole: nn.Module
    loaded: Loaded


def changeable(model: Any) -> Changeable:
    """Make a model ready to be changed.

    Parameters
    ----------
    model : Module, or pair (model, tokenizer or image processor)
        A text model needs no tokenizer. One that was compiled is unwrapped.

    Returns
    -------
    model : Changeable
        Where its stream is.

    Raises
    ------
    TypeError
        If it is no model of transformers.
    ValueError, RuntimeError
        If its stream cannot be read; see :func:`~skact.models._places.find_places`.
    """
    outer, *processor = model if isinstance(model, tuple) else (model,)
    whole = getattr(outer, "_orig_mod", outer)
    if not isinstance(whole, nn.Module) or not hasattr(whole, "config") or len(processor) > 1:
        raise TypeError(
            "model must be a model of transformers, a pair of it and its tokenizer or image "
            f"processor, or a TransformerEmbedder; got {type(outer).__name__}."
        )
    loaded = load((whole, *processor)) if processor else _without_tokenizer(whole)
    return Changeable(outer, whole, loaded)


def _without_tokenizer(whole: Any) -> Loaded:
    base, side = reading_part(whole)
    if side == "image":
        raise ValueError(
            f"{type(whole).__name__} reads images; pass the pair of it and its image processor."
        )
    key = tuple(map(id, base.modules()))
    with alone(whole):
        if _PLACES.get(base, (None,))[0] != key:
            with untouched(whole):
                _PLACES[base] = key, find_places(base, _few_tokens(base))
    found: Places = _PLACES[base][1]
    return Loaded(
        base=base,
        blocks=found.blocks,
        places=found.read,
        entry=found.entry,
        processor=None,
        modality=side,
        width=int(found.states[0].shape[-1]),
        prefix=0,
        suffix=0,
        sharing="none",  # it was not tried
        name=where_from(whole) or type(whole).__name__,
        revision=fingerprint(base),
        trial=_few_tokens(base),
    )


def _few_tokens(base: nn.Module) -> dict[str, Any]:
    n, device = embedding_rows(base), first_weight(base).device
    ids = torch.tensor([[k * n // 4 for k in range(4)]], device=device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pass_options(base)}


def trial_states(
    model: Changeable, writers: Sequence[nn.Module] = ()
) -> tuple[list[Tensor], list[Tensor]]:
    """Run a few tokens through a language model, and return its stream after each block.

    Parameters
    ----------
    model : Changeable
        It is left as it was.
    writers : sequence of Module, default=()
        Parts of it whose outputs are asked for as well.

    Returns
    -------
    states : list of n_blocks Tensor of shape (1, 4, n_features)
        The residual stream.
    written : list of Tensor
        What each of the writers put out.
    """
    seen: dict[int, Tensor] = {}

    def see(module: nn.Module, args: Any, output: Tensor) -> None:
        seen[id(module)] = output.clone()

    with untouched(model.whole, edited=True), hooked(model.whole, [(one, see) for one in writers]):
        base = model.loaded.base
        states = read_states(base, model.loaded.places, _few_tokens(base))
    return states, [seen[id(one)] for one in writers]


class Running(NamedTuple):
    """What is known of a pass.

    Parameters
    ----------
    start : int
        Positions that earlier passes have read and a cache holds.
    is_real : Tensor of shape (n_rows, n_positions), dtype bool, or None
        Which positions of the pass are no padding; None if there is none, or it is not known.
    n_prompts, n_prompt_positions : int or None
        Rows and positions of the prompts of the generation that the pass belongs to; None outside
        of generations.
    n_beams : int
        Continuations of each prompt that change places with each other; 1 for none.
    ids : Tensor of shape (n_rows, n_positions), dtype int64, or None
        Tokens that the pass reads; None where it reads no tokens.
    """

    start: int = 0
    is_real: Tensor | None = None
    n_prompts: int | None = None
    n_prompt_positions: int | None = None
    n_beams: int = 1
    ids: Tensor | None = None


def _running(args: tuple[Any, ...], kwargs: Mapping[str, Any], prompts: Running) -> Running:
    ids = kwargs.get("input_ids", args[0] if args else None)
    read = kwargs.get("inputs_embeds") if ids is None else ids
    mask = kwargs.get("attention_mask")
    # What it is called differs between versions and models.
    caches = [one for one in (*kwargs.values(), *args) if hasattr(one, "get_seq_length")]
    start, is_real = (int(caches[0].get_seq_length()), None) if caches else (0, None)
    if isinstance(mask, Tensor) and mask.ndim == 2 and isinstance(read, Tensor):
        is_real = mask[:, -read.shape[1] :] != 0
        start = start if caches else mask.shape[1] - read.shape[1]
    ids = ids if isinstance(ids, Tensor) and ids.ndim == 2 else None
    return prompts._replace(start=start, is_real=is_real, ids=ids)


def _prompts(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Running:
    """Say what is known of a generation before it begins."""
    given = [*args[:1], *(kwargs.get(name) for name in ("inputs", "input_ids", "inputs_embeds"))]
    read = next((one for one in given if isinstance(one, Tensor)), None)
    config = kwargs.get("generation_config") or model.generation_config
    n_beams = kwargs.get("num_beams") or getattr(config, "num_beams", None) or 1
    if read is None:
        return Running(0, None, 1, 1, n_beams)  # begins with a token of its own
    return Running(0, None, int(read.shape[0]), int(read.shape[1]), n_beams)


def _eager(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Give settings by which a generation compiles nothing, beside those that are given."""
    config = kwargs.get("generation_config")
    says = "disable_compile" in kwargs or getattr(config, "disable_compile", False)
    return {} if says else {"disable_compile": True}


class _Passes:
    """Counts passes, and the places that each of them comes to."""

    def __init__(self, places: Mapping[tuple[int, str], Place]) -> None:
        self.places, self.n, self.began_at = places, 0, 0
        self.reached: set[tuple[int, str]] = set()

    def begin(self) -> None:
        self.n += 1
        self.reached.clear()

    def check_places(self, module: nn.Module, args: Any, output: Any) -> None:
        for block, site in self.places:
            if (block, site) not in self.reached:
                self._refuse(f"block {block}" if site == "residual" else f"the {site} of {block}")

    def outer_begins(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.began_at = self.n

    def outer_ends(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.n == self.began_at:
            self._refuse("the model")

    def _refuse(self, what: str) -> None:
        raise RuntimeError(
            f"{what} was run past its hooks, so that nothing was changed: it was compiled, or its "
            "forward was replaced. Change the model that is not compiled, or compile nothing of it."
        )


@contextmanager
def changing(
    model: Changeable,
    places: Mapping[tuple[int, str], Place],
    change: Callable[[tuple[int, str], Running, Tensor], Tensor],
    names: Mapping[tuple[int, str], str],
) -> Iterator[_Passes]:
    """Change what is at some places of a model as long as the context lasts; then it is as it was.

    What was compiled by torch runs eagerly meanwhile, so that hooks are called.

    Parameters
    ----------
    model : Changeable
        The model; no other thread runs it meanwhile.
    places : mapping of key to Place
        Where, in the order in which they run; the keys are pairs of block and site.
    change : callable
        Takes the key, the pass and what is there, (n_rows, n_positions, n_features), returns what
        takes its place.
    names : mapping of key to str
        What is done there, as sources of tokens say it.

    Yields
    ------
    passes : object
        With ``n``, the number of passes so far.

    Raises
    ------
    RuntimeError
        From a pass that is run past the hooks, as soon as it ends.
    """
    passes, now, prompts = _Passes(places), Running(), Running()

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal now
        passes.begin()
        now = _running(args, kwargs, prompts)

    def put(key: Any, tensor: Tensor) -> Tensor:
        passes.reached.add(key)
        axes = places[key].axes
        new = change(key, now, tensor.permute(axes))
        return new.permute(tuple(axes.index(axis) for axis in range(3)))

    original: Any = getattr(model.whole, "generate", None)

    def generate(*args: Any, **kwargs: Any) -> Any:
        nonlocal prompts
        prompts = _prompts(model.whole, args, kwargs)
        try:
            return original(*args, **_eager(kwargs), **kwargs)
        finally:
            prompts = Running()

    base = model.loaded.base
    above = [m for m in {model.outer, model.whole} if m is not base]
    began, ended = ([(m, hook) for m in above] for hook in (passes.outer_begins, passes.outer_ends))
    with (
        alone(model.whole) as undo,
        _eagerly(model),
        hooked(model.whole, before=[*began, (base, enter)], edit=""),
        ExitStack() as stack,
    ):
        for key, place in places.items():
            stack.enter_context(reading(base, {key: place}, put, edit=names[key]))
        ends = [(base, passes.check_places), *ended]
        stack.enter_context(hooked(model.whole, ends, edit=""))
        if original is not None:
            set_for_now(undo, model.whole, "generate", generate)
        yield passes


@contextmanager
def _eagerly(model: Changeable) -> Iterator[None]:
    """Let torch call what it has compiled as it was written, if it has compiled anything."""
    with ExitStack() as stack:
        stance = getattr(torch.compiler, "set_stance", None)
        calls = (getattr(part, "_compiled_call_impl", None) for part in model.whole.modules())
        if stance is not None and "torch._dynamo" in sys.modules:
            stack.enter_context(stance("force_eager"))
        elif model.outer is not model.whole or any(calls):
            raise RuntimeError(
                "the model was compiled, and before version 2.6 torch cannot call it as it was "
                "written, so that nothing would be changed; change one that is not compiled."
            )
        yield
