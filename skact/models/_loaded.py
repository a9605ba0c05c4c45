"""Get from what the user named to a model whose layers can be read.

Imports torch and transformers: import this module only where a model is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from skact.models._alone import alone
from skact.models._framing import Framing, choose_framing
from skact.models._hooks import Place
from skact.models._hub import first_weight, passing, sentence_length
from skact.models._processors import calling, private_copy
from skact.models._towers import Tower, find_tower
from skact.models._tryout import (
    Facts,
    embedding_rows,
    pair_of_ints,
    pass_options,
    try_out,
    usable_pad,
)
from skact.models._weights import fingerprint

__all__ = ["Loaded", "load", "max_positions"]

_FACTS: WeakKeyDictionary[nn.Module, dict[Any, Facts]] = WeakKeyDictionary()
_MADE_FROM: WeakKeyDictionary[nn.Module, dict[str, str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Loaded:
    """A model ready to be read.

    Parameters
    ----------
    base : Module
        Without head; one tower of a model that has two.
    blocks : ModuleList
        Its transformer blocks; one that runs several times is there as often.
    places : tuple of Place
        Where the residual stream after each block is read, or another site of it.
    entry : Place or None
        What enters the first block; None where later states depend on more than that.
    processor : tokenizer or image processor
        Ours to change.
    modality : {"text", "image"}
        What it reads.
    width : int
        Features of a token.
    prefix, suffix : int
        Positions before the first patch, and behind the last; 0 for text.
    sharing : {"any", "equal", "none"}
        Which samples give the same numbers in one batch as alone: any, those of equal length, none.
    name, revision : str
        For the :class:`~skact.tokens.Source` of activations.
    sentence_length : int or None
        Positions of the sentences it was trained for, where a named model states them.
    framing : ProcessorFraming or WholeFraming, default=None
        How images are shown; None for text.
    trial : dict
        Keyword arguments of the small pass in which the model was tried out.
    site : {"residual", "attention", "mlp", "heads"}, default="residual"
        What is at ``places``; see :func:`~skact.models.at_site`.
    """

    base: nn.Module
    blocks: nn.ModuleList
    places: tuple[Place, ...]
    entry: Place | None
    processor: Any
    modality: str
    width: int
    prefix: int
    suffix: int
    sharing: str
    name: str
    revision: str
    sentence_length: int | None = None
    framing: Framing | None = None
    trial: dict[str, Any] = field(default_factory=dict)
    site: str = "residual"

    @property
    def shown(self) -> Framing:
        """How images are shown; only of a model for images."""
        assert self.framing is not None
        return self.framing

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
        return pair_of_ints(self.config.patch_size)

    @property
    def extra(self) -> dict[str, Any]:
        """Keyword arguments that belong to every forward pass."""
        options = pass_options(self.base)
        return options if self.framing is None else {**options, **self.framing.extra}

    @property
    def n_ids(self) -> int:
        """Token ids that the model has an embedding for."""
        return embedding_rows(self.base)

    @property
    def pad_id(self) -> int:
        """Id that texts are padded with."""
        return usable_pad(self.base, self.processor)

    @property
    def has_cls(self) -> bool:
        """Whether the first position is a CLS token."""
        if self.modality == "image":
            return self.prefix > 0
        cls = self.processor.cls_token_id
        with calling(self.processor):
            return cls is not None and self.processor("a")["input_ids"][0] == cls


def load(
    model: Any,
    *,
    modality: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    crop: str = "auto",
    max_patches: int = 1024,
) -> Loaded:
    """Load a model, or take it from the cache of this process, and check that it can be read.

    Parameters
    ----------
    model, modality, device, dtype, revision, trust_remote_code, crop, max_patches
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
        If the model, its processor and the other parameters do not fit each other, or the model
        cannot be relied on; see :func:`~skact.models._tryout.try_out`.
    RuntimeError
        If hooks do not reproduce the model's hidden states.
    """
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    tower = find_tower(model, modality, device, dtype, **options)
    base, side = tower.base, tower.modality
    processor = private_copy(tower.processor)
    known = _facts(tower, processor)
    named = isinstance(model, str | Path)
    revision = _of_checkpoint(tower, model, dtype, **options) if named else fingerprint(base)
    length = sentence_length(tower.name, options["revision"]) if named else None
    framing = None
    if side == "image":
        patch = pair_of_ints(base.config.patch_size)  # type: ignore[union-attr]
        framing = choose_framing(
            crop, known.processor, patch, max_patches, known.any_size, tower.name
        )
    return Loaded(
        base=base,
        blocks=known.places.blocks,
        places=known.places.read,
        entry=known.places.entry,
        processor=known.processor,
        modality=side,
        width=known.width,
        prefix=known.prefix,
        suffix=known.suffix,
        sharing=known.sharing,
        name=tower.name,
        revision=revision,
        sentence_length=length,
        framing=framing,
        trial=known.places.inputs,
    )


def _facts(tower: Tower, processor: Any) -> Facts:
    """Try a model out, once for a processor."""
    facts = _FACTS.setdefault(tower.whole, {})
    # A block that was replaced is tried out again.
    key = id(processor), tower.modality, tuple(map(id, tower.base.modules()))
    if key not in facts:
        with alone(tower.whole):
            if key not in facts:
                facts[key] = try_out(tower.whole, tower.base, processor, tower.modality)
    return facts[key]


def _of_checkpoint(tower: Tower, model: Any, dtype: str, **options: Any) -> str:
    """Commit of a named model, or the fingerprint of the weights that it has in its files."""
    known = _MADE_FROM.setdefault(tower.whole, {})
    commit = getattr(tower.whole.config, "_commit_hash", None)
    if not commit and tower.modality not in known:
        whole = tower
        if dtype in ("float16", "bfloat16"):  # some digits may be lost
            with passing():
                whole = find_tower(model, tower.modality, "cpu", "auto", **options)
        known[tower.modality] = fingerprint(whole.base)
    return commit or known[tower.modality]


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
