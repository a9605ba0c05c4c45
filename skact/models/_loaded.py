"""Get from what the user named to a model whose layers can be read.

Imports torch and transformers: import this module only where a model is needed.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from skact.models._geometry import check_geometry, image_geometry
from skact.models._hooks import check_hooks, find_blocks
from skact.models._hub import first_weight, passing, sentence_length
from skact.models._mllama import FirstTile, FirstTileProcessor
from skact.models._processors import calling, private_copy
from skact.models._towers import Tower, find_tower
from skact.models._weights import fingerprint

__all__ = ["Loaded", "load", "max_positions"]

_FACTS: WeakKeyDictionary[nn.Module, dict[Any, _Facts]] = WeakKeyDictionary()
_MADE_FROM: WeakKeyDictionary[nn.Module, dict[str, str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Facts:
    """What one tiny forward pass and the processor's settings say, kept per model."""

    width: int
    prefix: int
    processor: Any
    original: Any  # keeps the id by which these facts are found from being used again


@dataclass(frozen=True)
class Loaded:
    """A model ready to be read.

    Parameters
    ----------
    base : Module
        Without head; one tower of a model that has two.
    blocks : ModuleList
        Its transformer blocks.
    processor : tokenizer or image processor
        Ours to change.
    modality : {"text", "image"}
        What it reads.
    width : int
        Features of a token.
    prefix : int
        Positions before the first patch; 0 for text.
    name, revision : str
        For the :class:`~skact.tokens.Source` of activations.
    sentence_length : int or None
        Positions of the sentences it was trained for, where a named model states them.
    """

    base: nn.Module
    blocks: nn.ModuleList
    processor: Any
    modality: str
    width: int
    prefix: int
    name: str
    revision: str
    sentence_length: int | None = None

    @property
    def config(self) -> Any:
        """Config of the tower."""
        return self.base.config

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.base.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return first_weight(self.base).dtype

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of a patch."""
        return _pair_of_ints(self.config.patch_size)

    @property
    def extra(self) -> dict[str, Any]:
        """Keyword arguments that belong to every forward pass."""
        takes = inspect.signature(self.base.forward).parameters
        return {"use_cache": False} if "use_cache" in takes else {}

    @property
    def has_cls(self) -> bool:
        """Whether the first position is a CLS token."""
        if self.modality == "image":
            return self.prefix > 0
        cls = self.processor.cls_token_id
        with calling(self.processor):
            return cls is not None and self.processor("a")["input_ids"][0] == cls


def _pair_of_ints(size: Any) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _n_blocks(config: Any) -> int:
    for one in (config, config.get_text_config()):
        if isinstance(getattr(one, "num_hidden_layers", None), int):
            return int(one.num_hidden_layers)
    raise ValueError(f"{type(config).__name__} does not say its num_hidden_layers.")


def _blocks(base: nn.Module) -> nn.ModuleList:
    """Blocks that run for a text, or for an image, alone."""
    config: Any = base.config
    blocks = find_blocks(base, _n_blocks(config) + getattr(config, "num_global_layers", 0))
    # Llama-3.2-Vision skips its cross-attention blocks where a text has no image.
    skipped = getattr(config.get_text_config(), "cross_attention_layers", None) or ()
    return nn.ModuleList(block for b, block in enumerate(blocks) if b not in skipped)


def _try_out(base: nn.Module, processor: Any, side: str) -> _Facts:
    """Run the model once on something tiny, and check all that is relied on later."""
    blocks, like = _blocks(base), first_weight(base)
    config: Any = base.config
    if side == "text":
        ids = torch.arange(4, device=like.device)[None] % config.get_text_config().vocab_size
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        state = check_hooks(base, blocks, inputs)
        return _Facts(state.shape[-1], 0, processor, processor)
    is_tiled = hasattr(processor, "max_image_tiles")
    images = FirstTileProcessor(processor) if is_tiled else processor
    check_geometry(images)
    patch = _pair_of_ints(config.patch_size)
    size = _pair_of_ints(getattr(config, "image_size", None) or (4 * patch[0], 4 * patch[1]))
    made = image_geometry(images, *size).size
    if isinstance(base, FirstTile) and made != size:
        raise ValueError(
            f"the image processor makes tiles of size {made}, but the model reads {size}."
        )
    shape = (1, getattr(config, "num_channels", 3), *size)
    pixels = torch.linspace(-1, 1, steps=shape[1] * size[0] * size[1]).reshape(shape)
    state = check_hooks(base, blocks, {"pixel_values": pixels.to(like)})
    prefix = state.shape[1] - (size[0] // patch[0]) * (size[1] // patch[1])
    if state.ndim != 3 or prefix < 0:
        raise ValueError(
            f"{type(base).__name__} has no token per patch: {tuple(state.shape)} for an image of "
            f"size {size} and patches of {patch}."
        )
    return _Facts(state.shape[-1], prefix, images, processor)


def load(
    model: Any,
    *,
    modality: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Loaded:
    """Load a model, or take it from the cache of this process, and check that it can be read.

    Parameters
    ----------
    model, modality, device, dtype, revision, trust_remote_code
        As in :class:`~skact.embedding.TransformerEmbedder`.

    Returns
    -------
    loaded : Loaded
        The model.

    Raises
    ------
    OSError
        If a name can neither be found nor fetched.
    ValueError, TypeError
        If the model, its processor and the other parameters do not fit each other.
    RuntimeError
        If hooks do not reproduce the model's hidden states.
    """
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    tower = find_tower(model, modality, device, dtype, **options)
    base, side = tower.base, tower.modality
    processor = private_copy(tower.processor)
    facts = _FACTS.setdefault(tower.whole, {})
    if (id(processor), side) not in facts:
        facts[id(processor), side] = _try_out(base, processor, side)
    known = facts[id(processor), side]
    revision, length = fingerprint(base), None
    if isinstance(model, str | Path):
        commit = getattr(tower.whole.config, "_commit_hash", None)
        revision = commit or _of_checkpoint(tower, model, dtype, **options) or revision
        length = sentence_length(tower.name, options["revision"])
    return Loaded(
        base=base,
        blocks=_blocks(base),
        processor=known.processor,
        modality=side,
        width=known.width,
        prefix=known.prefix,
        name=tower.name,
        revision=revision,
        sentence_length=length,
    )


def _of_checkpoint(tower: Tower, model: Any, dtype: str, **options: Any) -> str | None:
    """Fingerprint of what a model in half precision was made from; None for any other."""
    if dtype not in ("float16", "bfloat16"):
        return None
    known = _MADE_FROM.setdefault(tower.whole, {})
    if tower.modality not in known:
        with passing():
            whole = find_tower(model, tower.modality, "cpu", "auto", **options)
            known[tower.modality] = fingerprint(whole.base)
    return known[tower.modality]


def max_positions(loaded: Loaded, max_length: int | None) -> int | None:
    """Find how many positions a text is cut to.

    Parameters
    ----------
    loaded : Loaded
        The model.
    max_length : int or None
        What was asked for; None takes the limit of model, tokenizer and trained sentences.

    Returns
    -------
    limit : int or None
        None if there is no limit, as for images.

    Raises
    ------
    ValueError
        If the model has fewer positions than were asked for.
    """
    if loaded.modality == "image":
        return None
    positions = _n_positions(loaded)
    if max_length is None:
        # A tokenizer without a limit of its own says 10^30.
        limits = loaded.processor.model_max_length, positions, loaded.sentence_length
        limit = min(limit for limit in limits if limit)
        return int(limit) if limit < 10**9 else None
    if positions is not None and max_length > positions:
        raise ValueError(
            f"max_length={max_length}, but the model {loaded.name!r} has {positions} positions."
        )
    return int(max_length)


def _n_positions(loaded: Loaded) -> int | None:
    config = loaded.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    for name, module in loaded.base.named_modules():
        # RoBERTa-like models count positions from behind the padding index.
        if (
            name.endswith("position_embeddings")
            and getattr(module, "padding_idx", None) is not None
        ):
            return limit - int(module.padding_idx) - 1
    return limit
