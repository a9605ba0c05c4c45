"""Trust a model, but check: run it on something tiny before anything is relied on.

What is found out is where its residual stream can be read (:mod:`skact.models._places`), whether
its numbers are the same in every pass and in every batch, and where the patches of an image are
among its positions. A model that fails is refused, or run more carefully; it is left as it was.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from skact.models._geometry import check_geometry, image_geometry
from skact.models._hooks import read_states
from skact.models._hub import first_weight
from skact.models._memory import out_of_memory
from skact.models._mllama import FirstTile, FirstTileProcessor
from skact.models._places import Places, find_places
from skact.models._untouched import untouched

__all__ = ["Facts", "embedding_rows", "pair_of_ints", "pass_options", "try_out", "usable_pad"]

Inputs = dict[str, Any]
# Columns and rows of the small image: unequal, so that patches that run down are seen.
_SMALL = (3, 4)


@dataclass(frozen=True)
class Facts:
    """What trying a model out says, and the processor's settings.

    Parameters
    ----------
    places : Places
        Where to read it.
    sharing : {"any", "equal", "none"}
        Which samples may share a batch: any, those of equal length, none.
    prefix, suffix : int
        Positions before the first patch and behind the last; 0 for text.
    processor : tokenizer or image processor
        Ours to change.
    original : tokenizer or image processor
        What was passed; held, so that the id by which facts are found is not used again.
    any_size : dict or None, default=None
        Keyword arguments with which the model takes images of any size; None if it takes one only.
    """

    places: Places
    sharing: str
    prefix: int
    suffix: int
    processor: Any
    original: Any
    any_size: Inputs | None = None

    @property
    def width(self) -> int:
        """Features of a token."""
        return int(self.places.states[0].shape[-1])


def pair_of_ints(size: Any) -> tuple[int, int]:
    """Height and width of a setting that may be one number for both."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def pass_options(base: nn.Module) -> Inputs:
    """Keyword arguments that belong to every forward pass."""
    takes = inspect.signature(base.forward).parameters
    return {"use_cache": False} if "use_cache" in takes else {}


def embedding_rows(base: Any) -> int:
    """Token ids that a model has an embedding for."""
    with suppress(AttributeError, NotImplementedError):
        return int(base.get_input_embeddings().weight.shape[0])
    return int(base.config.get_text_config().vocab_size)


def usable_pad(base: nn.Module, tokenizer: Any) -> int:
    """Id to pad with. Padding is masked, but some models count positions by it."""
    pad = tokenizer.pad_token_id
    return pad if pad is not None and pad < embedding_rows(base) else 0


def _check_weights(base: Any) -> None:
    if getattr(base.config, "attention_type", None) == "block_sparse":
        raise ValueError(
            f"{type(base).__name__} reads long texts sparsely and changes that for good with a "
            "short one, so its numbers depend on their order; load it with attention_type="
            '"original_full".'
        )
    for name, values in chain(base.named_parameters(), base.named_buffers()):
        if name.endswith("weight") and (not values.is_floating_point() or values.itemsize == 1):
            raise ValueError(
                f"{type(base).__name__} is quantised ({name} is {values.dtype}): its numbers would "
                "depend on what shares a batch. Load it without quantisation."
            )
    for name, module in base.named_modules():
        if ".quantized." in f"{type(module).__module__}.":
            raise ValueError(
                f"{type(base).__name__} is quantised ({name} is a {type(module).__name__}): its "
                "numbers would depend on what shares a batch. Load it without quantisation."
            )


def _alike(states: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether states are one up to rounding, which grows with their size and through the blocks."""
    exact = states[0].dtype == torch.float32
    # Other devices than a CPU may round what they multiply.
    tolerance = (1e-4 if states[0].device.type == "cpu" else 1e-3) if exact else 5e-2
    return all(
        bool(((a - b).norm(dim=-1) <= tolerance * b.norm(dim=-1)).all())
        for a, b in zip(map(Tensor.float, states), map(Tensor.float, others), strict=True)
    )


def _check_again(base: nn.Module, places: Places, inputs: Inputs) -> list[Tensor]:
    """Refuse a model that gives other numbers in a second pass."""
    first = read_states(base, places.read, inputs)
    if _alike(first, places.states):
        return first
    if _alike(first, read_states(base, places.read, inputs)):
        raise ValueError(
            f"{type(base).__name__} gives other numbers when it is asked for its hidden states "
            "than when it is not, so they cannot be compared."
        )
    raise ValueError(
        f"{type(base).__name__} gives other numbers in a second pass over the same input, although "
        "it is in evaluation mode: it is random, so its activations mean nothing by themselves."
    )


def _in_a_batch(base: nn.Module, places: Places, inputs: Inputs, alone: list[list[Tensor]]) -> bool:
    """Whether samples give the same numbers in one batch as alone."""
    try:
        together = read_states(base, places.read, inputs)
    except Exception as error:
        if out_of_memory(error):
            raise
        return False
    return all(
        _alike([state[i : i + 1, : one[0].shape[1]] for state in together], one)
        for i, one in enumerate(alone)
    )


def _read_texts(base: nn.Module, tokenizer: Any, texts: Sequence[Sequence[int]]) -> Inputs:
    """Pad on the right, as texts are padded later."""
    length, device = max(map(len, texts)), first_weight(base).device
    pad = usable_pad(base, tokenizer)
    rows = [[*text, *[pad] * (length - len(text))] for text in texts]
    mask = [[1] * len(text) + [0] * (length - len(text)) for text in texts]
    inputs = {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}
    return {k: v.to(device) for k, v in inputs.items()} | pass_options(base)


def _try_texts(base: nn.Module, tokenizer: Any) -> tuple[Places, str]:
    special = set(tokenizer.all_special_ids)
    ids = [i for i in range(embedding_rows(base)) if i not in special] or [0]
    spread = [ids[k * len(ids) // 10] for k in range(10)]
    long, short, other = spread[:4], spread[4:6], spread[6:]

    def inputs(*texts: list[int]) -> Inputs:
        return _read_texts(base, tokenizer, texts)

    places = find_places(base, inputs(long))
    first = _check_again(base, places, inputs(long))
    alone = [first, read_states(base, places.read, inputs(short))]
    if _lengths_matter(base.config):
        return places, "equal"
    if _in_a_batch(base, places, inputs(long, short), alone):
        return places, "any"
    alone = [first, read_states(base, places.read, inputs(other))]
    equal = _in_a_batch(base, places, inputs(long, other), alone)
    return places, "equal" if equal else "none"


def _lengths_matter(config: Any) -> bool:
    """Whether the longest text of a batch decides how the others are read, beyond some length."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = {one.get("rope_type") for one in (rope, *rope.values()) if isinstance(one, dict)}
    return bool(kinds & {"longrope", "dynamic"})


def _find_patches(
    base: nn.Module, places: Places, pixels: Tensor, other: Tensor, patch: tuple[int, int]
) -> tuple[int, int]:
    """Find where patches are by changing them one by one; positions before them, and behind."""
    rows, columns = pixels.shape[2] // patch[0], pixels.shape[3] // patch[1]
    every = [(r, c) for r in range(rows) for c in range(columns)]
    inside = rows // 2 * columns + columns // 2
    few = sorted({0, 1, columns - 1, columns, inside, (rows - 1) * columns, len(every) - 1})
    chosen = every if len(every) <= 16 else [every[k] for k in few]
    copies = pixels.repeat(1 + len(chosen), 1, 1, 1)
    for changed, (r, c) in zip(copies[1:], chosen, strict=True):
        high, wide = (slice(k * p, (k + 1) * p) for k, p in zip((r, c), patch, strict=True))
        changed[:, high, wide] = other[0, :, high, wide]
    # What enters the first block, or the earliest state there is.
    (read,) = read_states(base, (places.entry or places.read[0],), {"pixel_values": copies})
    moved = (read[1:] - read[:1]).float().norm(dim=-1)
    most = moved.argmax(dim=1).tolist()
    n_positions = places.states[0].shape[1]
    prefix, suffix = most[0], n_positions - most[0] - rows * columns
    expected = [prefix + r * columns + c for r, c in chosen]
    if (
        read.shape[1] != n_positions
        or suffix < 0
        or not moved.amax(dim=1).all()
        or most != expected
    ):
        raise ValueError(
            f"{type(base).__name__} has no position for each patch in order of rows: of the "
            f"{n_positions} positions of an image of {rows} x {columns} patches, changing "
            f"the patches {chosen[:4]}... (row, column) changes positions {most[:4]}... most."
        )
    return prefix, suffix


def _try_images(
    base: nn.Module, size: tuple[int, int], patch: tuple[int, int]
) -> tuple[Places, str, int, int]:
    like = first_weight(base)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand((2, 3, *size), generator=generator).to(like) * 2 - 1
    one, two = {"pixel_values": pixels[:1]}, {"pixel_values": pixels}
    places = find_places(base, one)
    prefix, suffix = _find_patches(base, places, pixels[:1], pixels[1:], patch)
    if _in_a_batch(base, places, two, [places.states]):
        return places, "any", prefix, suffix
    _check_again(base, places, one)
    return places, "none", prefix, suffix


def _check_image_model(base: Any, processor: Any) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Check what can be checked without running, and return the sizes of patches and images."""
    config = base.config
    channels = getattr(config, "num_channels", 3)
    if channels != 3:
        raise ValueError(
            f"{type(base).__name__} reads images of {channels} channel(s), but images are given to "
            "models in three, red, green and blue."
        )
    check_geometry(processor)
    patch = pair_of_ints(config.patch_size)
    size = getattr(config, "image_size", None)
    size = None if size is None else pair_of_ints(size)
    if size is not None and (size[0] < patch[0] or size[1] < patch[1]):
        raise ValueError(
            f"{type(base).__name__} reads images of size {size}, less than its patches of {patch}."
        )
    made = image_geometry(processor, *(size or (4 * patch[0], 4 * patch[1]))).size
    if isinstance(base, FirstTile) and made != size:
        raise ValueError(
            f"the image processor makes tiles of size {made}, but the model reads {size}."
        )
    return patch, size


def try_out(whole: nn.Module, base: nn.Module, processor: Any, side: str) -> Facts:
    """Run a model on something tiny, and check all that is relied on later.

    Parameters
    ----------
    whole : Module
        The model that was named, loaded or passed; left as it was.
    base : Module
        The part of it that reads.
    processor : tokenizer or image processor
        Left as it was.
    side : {"text", "image"}
        What it reads.

    Returns
    -------
    facts : Facts
        What was found.

    Raises
    ------
    RuntimeError
        If the model reports other states than can be read.
    ValueError
        If the model is quantised, random, broken, needs more than texts or images, or has no
        position for each patch.
    """
    _check_weights(base)
    if side == "text":
        with untouched(whole):
            return Facts(*_try_texts(base, processor), 0, 0, processor, processor)
    mine = FirstTileProcessor(processor) if hasattr(processor, "max_image_tiles") else processor
    patch, size = _check_image_model(base, mine)
    small = _SMALL[0] * patch[0], _SMALL[1] * patch[1]
    if size is not None and not isinstance(base, FirstTile):
        # Most models read any size; a small image takes no time.
        with untouched(whole), suppress(ValueError, RuntimeError):
            return Facts(*_try_images(base, small, patch), mine, processor, {})
    with untouched(whole):
        places, sharing, prefix, suffix = _try_images(base, size or small, patch)
        any_size = (
            {}
            if size is None
            else _any_size(base, places, small, prefix + suffix + _SMALL[0] * _SMALL[1])
        )
        return Facts(places, sharing, prefix, suffix, mine, processor, any_size)


def _any_size(
    base: nn.Module, places: Places, size: tuple[int, int], n_positions: int
) -> Inputs | None:
    """Try an image of another size with what makes a model interpolate its positions."""
    options = {"interpolate_pos_encoding": True}
    if not options.keys() & inspect.signature(base.forward).parameters.keys():
        return None
    pixels = torch.zeros((1, 3, *size)).to(first_weight(base))
    try:
        states = read_states(base, places.read, {"pixel_values": pixels, **options})
    except Exception as error:  # a model says in its own way that it does not take this size
        if out_of_memory(error):
            raise
        return None
    return options if states[-1].shape[1] == n_positions else None
