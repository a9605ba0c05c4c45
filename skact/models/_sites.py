"""Find what the branches of each block add to the residual stream, and the heads of its attention.

A block adds twice: what attention gives (a) and what the MLP gives (m), after whatever a branch
does to it last, such as a norm or a factor of its own. No list of names says which parts of a block
these are. They are those of which, in a small pass,

    x + a + m = y                  (norms before the branches: Llama, Gemma-2, GPT-2, ViT, DINOv2)
    LN(LN(x + a) + m) = y          (norms behind the sums: BERT)

holds at every position, with x what enters the block and y the stream after it: the parts are tried
and compared by what is added, so that a large x hides nothing. A model in which none fit is
refused.

The heads are what enters the output projection of attention, of which each head has a slice. What
a head writes is its slice of the projection, times its slice of the input; the sum over heads and
the bias has to be what the projection puts out.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from skact.models._alone import evaluating
from skact.models._hooks import Place, hooked, read_states
from skact.models._hub import first_weight
from skact.models._loaded import Loaded
from skact.models._places import find_places
from skact.models._towers import reading_part
from skact.models._tryout import embedding_rows, pair_of_ints, pass_options
from skact.models._untouched import untouched

__all__ = [
    "Call",
    "OutputProjection",
    "Sites",
    "at_site",
    "find_sites",
    "output_projections",
    "trial_inputs",
    "watch_parts",
    "weight_of",
]

_SUM, _HEADS = 1e-4, 1e-5  # errors allowed, of what is added and of what heads write
_ENOUGH = 16  # positions that are compared
_COUNTS = ("num_attention_heads", "num_heads", "n_heads", "n_head", "attention_heads")

_FOUND: WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], Sites]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class OutputProjection:
    """The last linear step of the attention of a block, which sums what its heads write.

    Parameters
    ----------
    block : int
        Number of the block.
    name : str
        Name of the module within the block.
    module : Linear or Conv1D
        The module, whose input is of shape (n_samples, n_positions, n_heads * head_dim).
    place : Place
        Where that input is read.
    n_heads : int
        Heads; of a grouped-query model those that ask.
    head_dim : int
        Features of a head.
    """

    block: int
    name: str
    module: nn.Module
    place: Place
    n_heads: int
    head_dim: int

    @property
    def weight(self) -> Tensor:
        """W_O as it is now, (n_features, n_heads * head_dim), a view of the weight of the model."""
        return weight_of(self.module)

    @property
    def bias(self) -> Tensor | None:
        """What the projection adds by itself, (n_features,), or None."""
        return self.module.bias  # type: ignore[return-value]

    def columns(self, head: int) -> slice:
        """Columns of the weight, and features of the input, that belong to a head."""
        return slice(head * self.head_dim, (head + 1) * self.head_dim)


class Sites(NamedTuple):
    """Where to read the branches of every block.

    Parameters
    ----------
    attention, mlp : tuple of n_blocks Place
        What each branch adds to the stream.
    projections : tuple of n_blocks OutputProjection
        Of attention; empty where they were not found.
    norm_first : bool
        Whether norms stand before the branches; if not, behind the sums.
    why : str
        Why projections were not found.
    """

    attention: tuple[Place, ...]
    mlp: tuple[Place, ...]
    projections: tuple[OutputProjection, ...]
    norm_first: bool
    why: str = ""


class Call(NamedTuple):
    """A part of a block that ran: its name, what entered and what came out, at some positions."""

    name: str
    place: Place
    entered: Tensor
    out: Tensor


def weight_of(module: Any) -> Tensor:
    weight: Tensor = module.weight
    return weight.T if isinstance(module, Conv1D) else weight


def _first(thing: Any) -> Any:
    return thing[0] if isinstance(thing, tuple) and thing else thing


def _some(thing: Any, place: Place, n_positions: int) -> Tensor | None:
    """Copy a few positions of what a module was given or gives, samples first."""
    if not isinstance(thing, Tensor) or thing.ndim != 3:
        return None
    return place.stream(thing, n_positions).float().clone()


def watch_parts(
    base: nn.Module, blocks: nn.ModuleList, like: Place, n_positions: int, inputs: dict[str, Any]
) -> list[tuple[Tensor | None, list[Call]]]:
    """Run a model; what enters each block, and the calls of its parts in the order they end.

    Parameters
    ----------
    base : Module
        The model without head.
    blocks : ModuleList
        Its blocks.
    like : Place
        Says in which order axes are.
    n_positions : int
        How many positions are kept.
    inputs : dict
        Keyword arguments of the model.

    Returns
    -------
    seen : list of (Tensor or None, list of Call)
        One for each block that ran, copies in float32.
    """
    seen: list[tuple[Tensor | None, list[Call]]] = []
    counts: Counter[nn.Module] = Counter()

    def enter_block(module: nn.Module, args: Any, kwargs: Any) -> None:
        entering = _first(args) if args else kwargs.get("hidden_states")
        seen.append((_some(entering, like, n_positions), []))

    def leave(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            place = Place(module, counts[module], axes=like.axes)
            counts[module] += 1
            entered, out = (_some(_first(one), like, n_positions) for one in (args, output))
            if seen and out is not None:
                # What is given by name is not seen; only norms and projections are looked at.
                seen[-1][1].append(Call(name, place, out if entered is None else entered, out))

        return hook

    members = list(dict.fromkeys(blocks))
    parts = {part: name for block in members for name, part in block.named_modules() if name}
    with (
        hooked(
            base,
            [(part, leave(name)) for part, name in parts.items()],
            [(block, enter_block) for block in members],
        ),
        evaluating(base),
        torch.inference_mode(),
    ):
        base(**inputs)
    return seen


def _error(found: Tensor, added: Tensor, total: Tensor, eps: float) -> float:
    """Largest error at a position, in units of what is allowed there."""
    allowed = _SUM * added.norm(dim=-1) + 4 * eps * total.norm(dim=-1)
    return float(((found - added).norm(dim=-1) / allowed.clamp_min(1e-30)).max())


def _norm_first(x: Tensor, y: Tensor, calls: Sequence[Call], eps: float) -> Iterator[Any]:
    """Yield pairs of parts with the error of x + a + m = y."""
    alike = [call for call in calls if call.out.shape == y.shape]
    for a, m in combinations(alike, 2):
        yield _error(a.out + m.out, y - x, y, eps), a, m


def _norm_last(x: Tensor, y: Tensor, calls: Sequence[Call], eps: float) -> Iterator[Any]:
    """Yield pairs of parts with the error of LN(LN(x + a) + m) = y."""
    alike = [(i, call) for i, call in enumerate(calls) if call.out.shape == y.shape]
    norms = [
        (i, call)
        for i, call in alike
        if call.entered.shape == y.shape and "norm" in type(call.place.module).__name__.lower()
    ]
    for (i, inner), (j, outer) in combinations(norms, 2):
        end = _error(outer.out, y, y, eps)
        if end > 1:
            continue
        first, second = inner.entered - x, outer.entered - inner.out
        for a in (call for k, call in alike if k < i):
            error = max(end, _error(a.out, first, inner.entered, eps))
            for m in (call for k, call in alike if i < k < j and error <= 1):
                yield max(error, _error(m.out, second, outer.entered, eps)), a, m


def _projection(base: Any, block: int, calls: Sequence[Call], a: Call) -> OutputProjection | str:
    """Find the linear step whose output is a, or goes through one more part to a."""
    ends = next(i for i, call in enumerate(calls) if call is a)
    found = [
        call
        for call in calls[: ends + 1]
        if isinstance(call.place.module, nn.Linear | Conv1D)
        and any(torch.equal(call.out, end) for end in (a.out, a.entered))
    ]
    where = f"block {block} of {type(base).__name__}"
    if not found:
        return (
            f"what attention adds in {where} does not come from one linear output projection; "
            "adapters have to be merged into it"
        )
    call = found[-1]
    module: Any = call.place.module
    width = call.entered.shape[-1]
    n_heads = _n_heads(base, block, call.name, calls)
    if not n_heads or width % n_heads:
        return f"{where} says that it has {n_heads} heads, and {width} features enter {call.name}"
    weight = weight_of(module).float()
    inputs = call.entered.reshape(*call.entered.shape[:2], n_heads, -1)
    by_head = weight.reshape(len(weight), n_heads, -1)
    written = torch.einsum("sphk,dhk->sphd", inputs, by_head).sum(dim=2)
    if module.bias is not None:
        written = written + module.bias.float()
    eps = torch.finfo(module.weight.dtype).eps
    allowed = max(_HEADS, 4 * eps) * call.out.norm(dim=-1)
    if not bool(((written - call.out).norm(dim=-1) <= allowed).all()):
        return f"the {n_heads} heads of {where} do not add up to what {call.name} puts out"
    place = call.place._replace(before=True)
    return OutputProjection(block, call.name, module, place, n_heads, width // n_heads)


def _n_heads(base: Any, block: int, name: str, calls: Sequence[Call]) -> int | None:
    """Heads as the attention says, or the config."""
    modules = {call.name: call.place.module for call in calls}
    parts = name.split(".")
    above = [modules.get(".".join(parts[:n])) for n in range(len(parts) - 1, 0, -1)]
    text = base.config.get_text_config() if hasattr(base.config, "get_text_config") else base.config
    for one in (*above, base.config, text):
        for count in _COUNTS:
            if isinstance(n_heads := getattr(one, count, None), int):
                return n_heads
    return None


@torch.inference_mode()
def _find(base: Any, blocks: nn.ModuleList, read: Sequence[Place], inputs: dict[str, Any]) -> Sites:
    eps = torch.finfo(first_weight(base).dtype).eps
    states = [state[:, :_ENOUGH].float() for state in read_states(base, read, inputs)]
    seen = watch_parts(base, blocks, read[0], states[0].shape[1], inputs)
    found: list[tuple[bool, Call, Call]] = []
    projections: list[OutputProjection | str] = []
    for block, y in enumerate(states):
        x, calls = seen[block] if len(seen) == len(states) else (None, [])
        tried = (
            []
            if x is None or x.shape != y.shape
            else [
                (*one, first)
                for first, sums in ((True, _norm_first), (False, _norm_last))
                for one in sums(x, y, calls, eps)
            ]
        )
        error, a, m, first = min(tried, key=lambda one: one[0], default=(2.0, None, None, False))
        if error > 1:
            raise ValueError(
                f"block {block} of {type(base).__name__} does not add up: no two of its parts are "
                "attention and MLP with input + attention + MLP = output, or "
                f"LN(LN(input + attention) + MLP) = output, to {_SUM:g}."
            )
        found.append((first, a, m))
        projections.append(_projection(base, block, calls, a))
    why = next((one for one in projections if isinstance(one, str)), "")
    widths = {(p.n_heads, p.head_dim) for p in projections if isinstance(p, OutputProjection)}
    if len(widths) > 1:
        why = f"the blocks of {type(base).__name__} have other heads: {sorted(widths)}"
    return Sites(
        tuple(a.place for _, a, _ in found),
        tuple(m.place for _, _, m in found),
        () if why else tuple(projections),  # type: ignore[arg-type]
        all(first for first, _, _ in found),
        why,
    )


def _small(base: Any, side: str) -> dict[str, Any]:
    """Make a small sample for a model that comes without tokenizer or processor."""
    like = first_weight(base)
    if side == "image":
        shape = 1, getattr(base.config, "num_channels", 3), *pair_of_ints(base.config.image_size)
        pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        return {"pixel_values": pixels.to(like)}
    ids = torch.arange(1, 5, device=like.device)[None] * (embedding_rows(base) // 5)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pass_options(base)}


def trial_inputs(loaded: Loaded) -> dict[str, Any]:
    """Return the small sample on which a model was tried out, where the model is now."""
    return {
        name: value.to(loaded.device) if isinstance(value, Tensor) else value
        for name, value in loaded.trial.items()
    }


def find_sites(loaded: Loaded) -> Sites:
    """Find the branches of every block of a model, and make sure that they add up.

    Parameters
    ----------
    loaded : Loaded
        The model.

    Returns
    -------
    sites : Sites
        The places; found once for a model, and again when a part of it was replaced.

    Raises
    ------
    ValueError
        If the parts of a block do not add up to what it puts out.
    """
    parts = tuple(map(id, loaded.base.modules()))
    known = _FOUND.get(loaded.base)
    if known is None or known[0] != parts:
        with untouched(loaded.base):
            sites = _find(loaded.base, loaded.blocks, loaded.places, trial_inputs(loaded))
        known = _FOUND[loaded.base] = parts, sites
    return known[1]


def at_site(loaded: Loaded, site: str) -> Loaded:
    """Read a model at another site of its blocks.

    Parameters
    ----------
    loaded : Loaded
        The model, as :func:`load` gives it.
    site : {"residual", "attention", "mlp", "heads"}
        As in :class:`~skact.embedding.TransformerEmbedder`.

    Returns
    -------
    loaded : Loaded
        The same model, whose ``places`` and ``width`` are those of the site.

    Raises
    ------
    ValueError
        If the site cannot be found in this model, or what is read there does not add up.
    """
    if site == "residual":
        return loaded
    instead = 'site="residual" reads the stream of any model that can be read'
    try:
        sites = find_sites(loaded)
    except ValueError as error:
        raise ValueError(f"site={site!r} cannot be read: {error} {instead}.") from error
    if site == "heads":
        if sites.why:
            raise ValueError(f"site='heads' cannot be read: {sites.why}. {instead}.")
        places = tuple(one.place for one in sites.projections)
        first = sites.projections[0]
        return replace(loaded, places=places, width=first.n_heads * first.head_dim, site=site)
    return replace(loaded, places=sites.attention if site == "attention" else sites.mlp, site=site)


def output_projections(model: Loaded | nn.Module) -> tuple[OutputProjection, ...]:
    """Find the output projection of the attention of every block.

    Parameters
    ----------
    model : Loaded or Module
        A model from :func:`load`, or a live transformers model, with or without a head.

    Returns
    -------
    projections : tuple of n_blocks OutputProjection
        Checked: what the heads write, and the bias, is what the projection puts out, to 1e-5.

    Raises
    ------
    ValueError
        If the blocks do not add up, or the projections are not found.
    RuntimeError
        If the blocks of a live model are not found.
    """
    if isinstance(model, Loaded):
        sites = find_sites(model)
    else:
        base, side = reading_part(model)
        with untouched(model):
            places = find_places(base, _small(base, side))
            sites = _find(base, places.blocks, places.read, places.inputs)
    if sites.why:
        raise ValueError(f"heads cannot be read: {sites.why}.")
    return sites.projections
