"""Find where the residual stream after each block of a model can be read, and prove it.

The blocks are taken from the lists of modules that a model has. What they put out is compared with
the ``hidden_states`` that the model itself reports, entry by entry, however it lists them: with or
without what enters the first block, with or without the last one, the last one before or after the
final norm. Where the model reports nothing to compare, the output of a block has to be the very
tensor that enters the next one, and the output of the last block one that enters a module behind
the blocks, or the last hidden state.

Not every model adds up its stream in a block: one halves it in between, another puts a convolution
behind the first block, calls the parts of a block one by one, or has the axes in another order. So
what enters the next block is tried too, and other lists, and the same part of every block. Whatever
is taken equals what the model reports.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skact.models._alone import evaluating
from skact.models._hooks import Place, hooked, n_read, reading
from skact.models._memory import out_of_memory

__all__ = ["Places", "find_blocks", "find_places", "same"]

_AXES = ((0, 1, 2), (1, 0, 2), (0, 2, 1))
Inputs = dict[str, Any]
Targets = dict[int, Tensor]
_Found = tuple[Place, Tensor]  # a place, and the stream that was read there


class Places(NamedTuple):
    """Where to read a model.

    Parameters
    ----------
    blocks : ModuleList of length n_blocks
        Its blocks; one that runs several times is there as often.
    read : tuple of n_blocks Place
        Where the residual stream after each block is.
    entry : Place or None
        What enters the first block; None where that is not all that the later states depend on.
    states : list of n_blocks Tensor (n_samples, n_positions, n_features)
        What was read in the pass by which the places were found.
    inputs : dict
        Keyword arguments of that pass.
    """

    blocks: nn.ModuleList
    read: tuple[Place, ...]
    entry: Place | None
    states: list[Tensor]
    inputs: Inputs


def same(state: Tensor, reported: Tensor) -> bool:
    """Whether two states are one, up to rounding."""
    tolerance = 1e-5 if state.dtype == torch.float32 else 1e-2
    return state.shape == reported.shape and torch.allclose(
        state.float(), reported.float(), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def _n_blocks(config: Any) -> int:
    for one in (config, config.get_text_config()):
        if isinstance(getattr(one, "num_hidden_layers", None), int):
            return int(one.num_hidden_layers) + getattr(config, "num_global_layers", 0)
    raise ValueError(f"{type(config).__name__} does not say its num_hidden_layers.")


def _lists(base: nn.Module) -> list[nn.ModuleList]:
    return [module for module in base.modules() if isinstance(module, nn.ModuleList)]


def _run(base: nn.Module, inputs: Inputs) -> Any:
    """Run a model that has to tell its hidden states."""
    takes = inspect.signature(base.forward).parameters
    samples = "texts" if "input_ids" in inputs else "images"
    alone = f"{type(base).__name__} cannot be run on {samples} alone"
    needs = [
        name
        for name, one in takes.items()
        if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD and name not in inputs
    ]
    if needs:
        raise ValueError(f"{alone}: it needs {' and '.join(needs)} as well.")
    free = any(one.kind is one.VAR_KEYWORD for one in takes.values())
    asked = {"output_hidden_states": True, "return_dict": True}
    options = {name: value for name, value in asked.items() if free or name in takes}
    try:
        with evaluating(base), torch.inference_mode():
            return base(**inputs, **options)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ValueError(f"{alone}: {type(error).__name__}: {error}") from error


def _runs(base: nn.Module, inputs: Inputs) -> dict[nn.ModuleList, list[nn.Module]]:
    """Members of each list as they run in a pass, one after the other."""
    runs: dict[nn.ModuleList, list[nn.Module]] = {one: [] for one in _lists(base)}

    def seen(runs: list[nn.Module]) -> Any:
        return lambda module, args, kwargs: runs.append(module)

    hooks = [(m, seen(order)) for one, order in runs.items() for m in set(one)]
    with hooked(base, before=hooks):
        _run(base, inputs)
    return runs


def find_blocks(base: nn.Module, inputs: Inputs | None = None) -> list[nn.ModuleList]:
    """Find lists that may be the blocks.

    Parameters
    ----------
    base : Module
        The model without head.
    inputs : dict or None, default=None
        Keyword arguments of a small forward pass, in which modules that run several times are
        counted; without them such blocks are not found.

    Returns
    -------
    lists : list of ModuleList
        At least one, from the outermost: those with as many blocks as the config promises, less
        the ones that do not run for a text alone.

    Raises
    ------
    ValueError
        If there is none.
    """
    config: Any = base.config
    n_blocks = _n_blocks(config)
    lists = [list(one) for one in _lists(base) if len(one) == n_blocks]
    if not lists and inputs is not None:
        lists = [one for one in _runs(base, inputs).values() if len(one) == n_blocks]
    if not lists:
        raise ValueError(
            f"{type(base).__name__} has no list of {n_blocks} blocks, the num_hidden_layers of its "
            "config, so its layers cannot be read."
        )
    # Llama-3.2-Vision skips its cross-attention blocks where a text has no image.
    skipped = getattr(config.get_text_config(), "cross_attention_layers", None) or ()
    return [nn.ModuleList(m for b, m in enumerate(one) if b not in skipped) for one in lists]


def _parts(blocks: nn.ModuleList) -> Iterator[nn.ModuleList]:
    """Yield the same part of every block, the outermost first."""
    named = [dict(block.named_modules()) for block in blocks]
    for name in named[0]:
        if name and all(name in one for one in named):
            yield nn.ModuleList(one[name] for one in named)


@dataclass
class _Pass:
    """What one pass showed.

    Parameters
    ----------
    blocks : list of n_blocks Place
        Outputs of the blocks.

    Attributes
    ----------
    entered, put_out : dict of int to Tensor
        Input and output of each block.
    behind : list of (Place, Tensor)
        What entered modules behind the blocks.
    normed : list of (Place, Tensor)
        What norms behind the blocks put out; the places are before them.
    reported : sequence of Tensor
        Hidden states of the model.
    last : Tensor or None
        Its last hidden state.
    """

    blocks: list[Place]
    entered: Targets = field(default_factory=dict)
    put_out: Targets = field(default_factory=dict)
    behind: list[tuple[Place, Tensor]] = field(default_factory=list)
    normed: list[tuple[Place, Tensor]] = field(default_factory=list)
    reported: Sequence[Any] = ()
    last: Any = None

    @property
    def n_blocks(self) -> int:
        return len(self.blocks)

    def take(self, key: tuple[str, int], tensor: Tensor) -> None:
        kind, block = key
        if kind == "out":
            # Cloned, so that a later block that works in place would show.
            self.put_out[block] = tensor.clone()
        else:
            earlier = self.put_out.get(block - 1, tensor[:0])
            self.entered[block] = earlier if torch.equal(tensor, earlier) else tensor.clone()

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self.n_blocks - 1 in self.put_out and args and isinstance(args[0], Tensor):
            self.behind.append((Place(module, before=True), args[0].clone()))

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.n_blocks - 1 in self.put_out and isinstance(output, Tensor):
            self.normed.append((Place(module, before=True), output.clone()))


def _watch(base: nn.Module, blocks: nn.ModuleList, inputs: Inputs) -> _Pass:
    members = list(blocks)
    places = [Place(m, sum(m is e for e in members[:b])) for b, m in enumerate(members)]
    seen = _Pass(places)
    keys = {("out", b): place for b, place in enumerate(places)}
    keys |= {("in", b): place._replace(before=True) for b, place in enumerate(places)}
    lists = _lists(base)
    within = {id(module) for one in lists for module in one.modules()}
    outer = {
        name: module
        for name, module in base.named_modules()
        if id(module) not in within and not _lists(module)
    }
    norms = (m for name, m in outer.items() if "norm" in f"{type(m).__name__} {name}".lower())
    with (
        reading(base, keys, seen.take),
        hooked(base, [(m, seen.leave) for m in norms], [(m, seen.enter) for m in outer.values()]),
    ):
        output = _run(base, inputs)
    seen.reported = getattr(output, "hidden_states", None) or ()
    seen.last = getattr(output, "last_hidden_state", None)
    return seen


def _turned(place: Place, tensor: Any, n_positions: int | None) -> Iterator[_Found]:
    """Turn the axes of a tensor of one sample into every order that puts the sample first."""
    one = (1,) if n_positions is None else (1, n_positions)
    if isinstance(tensor, Tensor) and tensor.ndim == 3:
        for axes in _AXES:
            turned = place._replace(axes=axes)
            state = turned.stream(tensor, n_positions)
            if state.shape[: len(one)] == one:
                yield turned, state


def _fit(place: Place, tensor: Any, target: Any, n_positions: int | None) -> _Found | None:
    """Turn the axes of a tensor until it equals another one."""
    if not isinstance(target, Tensor):
        return None
    turned = _turned(place, tensor, n_positions)
    return next((found for found in turned if same(found[1], target)), None)


def _all_targets(seen: _Pass, n_positions: int | None) -> Iterator[Targets]:
    """Which reported state belongs to which block, in every way that a model may list them."""
    reported = seen.reported
    turned = [
        state.shape
        for block, output in seen.put_out.items()
        for _, state in _turned(seen.blocks[block], output, n_positions)
    ]
    comparable = any(state is not None and state.shape in turned for state in reported)
    if not comparable or len(reported) not in (seen.n_blocks, seen.n_blocks + 1):
        yield {}
        return
    for first in (1, 0):
        entries = enumerate(reported[first:][: seen.n_blocks])
        yield {block: state for block, state in entries if state is not None}


def _inner(seen: _Pass, block: int, targets: Targets, n: int | None) -> _Found | None:
    after, before = seen.blocks[block], seen.blocks[block + 1]._replace(before=True)
    output, following = seen.put_out[block], seen.entered.get(block + 1)
    if block in targets:
        target = targets[block]
        return _fit(after, output, target, n) or _fit(before, following, target, n)
    chained = following is not None and same(output, following)
    return next(_turned(after, output, n), None) if chained else None


def _last(seen: _Pass, targets: Targets, n: int | None) -> _Found | None:
    """After the last block, what is reported may have gone through more than the blocks."""
    block, after = seen.n_blocks - 1, seen.blocks[-1]
    output, target = seen.put_out[block], targets.get(block)
    if found := _fit(after, output, target, n) or _fit(after, output, seen.last, n):
        return found
    if any(same(output, entering) for _, entering in seen.behind):
        return next(_turned(after, output, n), None)
    end = seen.reported[-1] if seen.reported else seen.last
    normed = {place.module for place, output in seen.normed if _fit(place, output, end, n)}
    for place, entering in seen.behind:
        if found := _fit(place, entering, target, n):
            return found
        if place.module in normed:
            return next(_turned(place, entering, n), None)
    return None


def _choose(seen: _Pass, n_positions: int | None) -> list[_Found] | None:
    if len(seen.put_out) < seen.n_blocks:
        return None
    for targets in _all_targets(seen, n_positions):
        found = [_inner(seen, b, targets, n_positions) for b in range(seen.n_blocks - 1)]
        if all(found):
            found.append(_last(seen, targets, n_positions))
            if found[-1]:
                return [one for one in found if one]
    return None


def _why(base: nn.Module, seen: _Pass) -> str:
    name = f"the {seen.n_blocks} blocks of {type(base).__name__}"
    if len(seen.put_out) < seen.n_blocks:
        missing = next(b for b in range(seen.n_blocks) if b not in seen.put_out)
        return (
            f"block {missing} of {name} is not run as a module that puts out a tensor, so its "
            "layers cannot be read by hooks."
        )
    shapes = sorted({tuple(state.shape) for state in seen.put_out.values()})
    if any(len(shape) != 3 for shape in shapes):
        return (
            f"{name} do not put out one vector per position, but tensors of shape {shapes[0]}, so "
            "its layers cannot be read."
        )
    return (
        f"the outputs of {name} are not the hidden states that the model itself reports, so its "
        "layers cannot be read reliably."
    )


def _check(base: nn.Module, states: Sequence[Tensor]) -> None:
    shapes = sorted({tuple(state.shape) for state in states})
    if len(shapes) > 1:
        raise ValueError(
            f"the states after the blocks of {type(base).__name__} are of different shapes, "
            f"{shapes}; only models with the same positions and features throughout can be read."
        )
    for block, state in enumerate(states):
        if not torch.isfinite(state).all():
            raise ValueError(
                f"{type(base).__name__} gives NaN or infinite numbers after block {block} in "
                f"{state.dtype}: its weights are broken, or need more range than that precision "
                'has; try dtype="float32".'
            )


def find_places(
    base: nn.Module, inputs: Inputs, lists: Sequence[nn.ModuleList] | None = None
) -> Places:
    """Find where to read a model, and make sure that these are its own hidden states.

    Parameters
    ----------
    base : Module
        The model without head.
    inputs : dict
        Keyword arguments of a small forward pass of one sample.
    lists : sequence of ModuleList or None, default=None
        What may be its blocks, the likeliest first; None asks :func:`find_blocks`.

    Returns
    -------
    places : Places
        The places.

    Raises
    ------
    RuntimeError
        If the model reports other states than are found at any place.
    ValueError
        If there are no blocks, the model does not run on such inputs alone, or its states are not
        finite or not of one shape.
    """
    n_positions, why = n_read(base, inputs), ""
    left = deque(find_blocks(base, inputs) if lists is None else lists)
    while left:
        blocks = left.popleft()
        seen = _watch(base, blocks, inputs)
        if found := _choose(seen, n_positions):
            _check(base, [state for _, state in found])
            # What enters a block is all that goes on if it is what the block before put out.
            follows = seen.entered.get(1)
            whole = len(blocks) == 1 or (follows is not None and same(seen.put_out[0], follows))
            entry = Place(blocks[0], before=True, axes=found[0][0].axes) if whole else None
            read, states = zip(*found, strict=True)
            return Places(blocks, read, entry, list(states), inputs)
        if not why:
            why = _why(base, seen)
            # A model may run the parts of its blocks itself, past the hooks of the blocks.
            left.extend(_parts(blocks) if not seen.put_out else ())
    raise RuntimeError(why)
