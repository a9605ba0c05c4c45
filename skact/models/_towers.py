"""The part of a model that reads samples: below any head, and the tower of one modality of two.

Imports torch and transformers: import this module only where a model is needed.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import transformers
from torch import nn

# Before transformers 5.18 the name `transformers.AutoImageProcessor` asks for torchvision.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from skact.models._content import model_content, model_state
from skact.models._hub import Checkpoint, PairKind, first_weight, load_pair, where_from
from skact.models._mllama import FirstTile
from skact.models._pair import DetachedPair
from skact.models._processors import canonical, private_copy, processor_content

__all__ = ["Tower", "detach", "find_tower", "reading_part"]

# Image processors that exist for torchvision only but do nothing special, and their defaults.
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_PLAIN = {
    "DINOv3ViTImageProcessor": {
        "size": {"height": 224, "width": 224},
        "resample": 2,
        "do_center_crop": False,
        **_IMAGENET,
    }
}

_SIDES = {
    "image": ("vision_model", "vision_tower", "visual"),
    "text": ("text_model", "language_model"),
}
# Models that a pickle of this process stands for: it finds them again as long as they live.
_LIVE: WeakValueDictionary[str, nn.Module] = WeakValueDictionary()
_PROCESSORS: WeakValueDictionary[str, Any] = WeakValueDictionary()


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Tower(NamedTuple):
    """What reads samples of one modality.

    Parameters
    ----------
    whole : Module
        The model that was named, loaded or passed.
    base : Module
        The part of it that reads.
    processor : tokenizer or image processor
        Makes its inputs; not to be changed.
    modality : {"text", "image"}
        What it reads.
    name : str
        Name or folder of the model.
    """

    whole: nn.Module
    base: nn.Module
    processor: Any
    modality: str
    name: str


def _fetch_tokenizer(checkpoint: Checkpoint) -> Any:
    tokenizer = checkpoint.fetch("tokenizer", transformers.AutoTokenizer)
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        # Without tokenizer files an empty one is made up from the config.
        raise OSError(
            f"model={checkpoint.name!r}: no usable tokenizer was found; the folder or repository "
            "holds no vocabulary."
        )
    return tokenizer


def _sides(config: Any) -> set[str]:
    sides = {
        side
        for side, name in (("image", "vision_config"), ("text", "text_config"))
        if getattr(config, name, None) is not None
    }
    return sides or {"image" if hasattr(config, "patch_size") else "text"}


def _reads(processor: Any) -> set[str]:
    """Modalities of a processor; a combined one has both."""
    sides = set()
    if callable(processor) and hasattr(processor, "model_max_length"):
        sides.add("text")
    if hasattr(processor, "image_mean") or hasattr(processor, "do_resize"):
        sides.add("image")
    if hasattr(processor, "tokenizer"):
        sides.add("text")
    if hasattr(processor, "image_processor"):
        sides.add("image")
    return sides


def _choose(modality: str, possible: set[str], what: str) -> str:
    if modality == "auto":
        return "image" if "image" in possible else "text"
    if modality not in possible:
        raise ValueError(f"modality={modality!r}, but {what} reads {' and '.join(possible)} only.")
    return modality


class _PilProcessor:
    """One implementation on every machine, whether torchvision is there or not."""

    @staticmethod
    def from_pretrained(name: str, **options: Any) -> Any:
        settings: dict[str, Any] = {}
        with suppress(OSError):
            settings, _ = transformers.ImageProcessingMixin.get_image_processor_dict(
                name, **options
            )
        kind = str(settings.get("image_processor_type")).removesuffix("Fast")
        if kind in _PLAIN:
            return transformers.BitImageProcessorPil.from_dict(_PLAIN[kind] | settings)
        return AutoImageProcessor.from_pretrained(name, backend="pil", **options)


def _fetch(
    checkpoint: Checkpoint, device: str, dtype: str, *, modality: str
) -> tuple[nn.Module, Any]:
    model = checkpoint.model(transformers.AutoModel, device, dtype)
    if _choose(modality, _sides(model.config), f"model {checkpoint.name!r}") == "text":
        return model, _fetch_tokenizer(checkpoint)
    return model, checkpoint.fetch("image processor", _PilProcessor)


def _find(model: Any, modality: str, device: str, dtype: str, **options: Any) -> Tower:
    kind = PairKind(
        parts="config, weights and tokenizer or image processor",
        model="a transformers model",
        processor="a tokenizer or an image processor",
        has="config",
        is_processor=_reads,
        fetch=partial(_fetch, modality=modality),
    )
    network, processor, name = load_pair(model, kind, device, dtype, **options)
    if not isinstance(model, tuple):
        side = _choose(modality, _sides(network.config), f"model {name!r}")
        return Tower(network, _base(network, side), processor, side, name)
    sides, reads = _sides(network.config), _reads(processor)
    what = f"the pair of {type(network).__name__} and {type(processor).__name__}"
    if not reads & sides:
        raise ValueError(
            f"{what} does not fit together: the model reads {' and '.join(sides)}, the processor "
            f"makes {' and '.join(reads)}."
        )
    side = _choose(modality, reads & sides, what)
    return Tower(network, _base(network, side), _part(processor, side), side, name)


def _part(processor: Any, side: str) -> Any:
    """Tokenizer or image processor of a combined processor."""
    return getattr(processor, "tokenizer" if side == "text" else "image_processor", processor)


def _reads_samples(model: nn.Module) -> bool:
    """Tell a model from its encoder, which reads what has been embedded."""
    takes = inspect.signature(model.forward).parameters.values()
    needed = {one.name for one in takes if one.default is one.empty and one.kind in _NAMED}
    return needed <= {"input_ids", "pixel_values"}


def _check_prompts(model: Any) -> None:
    """Refuse tokens that peft learns, which stand before the model and not in it."""
    for name, config in (getattr(model, "peft_config", None) or {}).items():
        if getattr(config, "is_prompt_learning", False):
            raise ValueError(
                f"{type(model).__name__} has learnt prompts (the adapter {name!r}, "
                f"{type(config).__name__}), which are not read; take adapters that change weights, "
                "or the model below them."
            )


def _base(model: nn.Module, side: str) -> nn.Module:
    base = model
    for name in ("base_model", "model"):  # a head whose class misnames what is below it has both
        below = getattr(base, name, None)
        if isinstance(below, nn.Module) and hasattr(below, "config") and _reads_samples(below):
            base = below
    if len(_sides(base.config)) > 1:
        for name in _SIDES[side]:
            if isinstance(getattr(base, name, None), nn.Module):
                base = getattr(base, name)
                break
        else:
            raise ValueError(f"{type(base).__name__} has no known {side} tower.")
    if hasattr(base, "encoder") and hasattr(base, "decoder"):
        raise ValueError(
            f"{type(base).__name__} has an encoder and a decoder; pass the pair "
            "(model.get_encoder(), tokenizer) to read the encoder."
        )
    is_tiled = getattr(base.config, "model_type", None) == "mllama_vision_model"
    return FirstTile(base) if is_tiled else base


def _reattach(saved: DetachedPair, modality: str, device: str, dtype: str, **options: Any) -> Tower:
    side = saved.modality if modality == "auto" else modality
    if dtype not in ("auto", saved.dtype):
        raise ValueError(f"dtype={dtype!r}, but the model was loaded in {saved.dtype}.")
    if (live := _LIVE.get(saved.content)) is not None:
        processor = saved.processor or _PROCESSORS.get(saved.reads)
        if processor is not None:
            tower = _find((live, processor), side, device, dtype, **options)
            if _said(tower.base) == saved.content:
                return tower
    lost = (
        "this embedder was saved with a loaded model, whose weights are not saved. Give it the "
        "model again: set_params(model=(model, tokenizer or image processor))."
    )
    if not saved.name:
        raise ValueError(lost)
    try:
        found = _find(saved.name, side, device, saved.dtype, **options)
    except (OSError, ValueError) as error:
        raise ValueError(f"{lost} ({saved.name!r} could not be loaded.)") from error
    if _said(found.base) != saved.content:
        now, then = json.loads(_said(found.base)), json.loads(saved.content)
        other = ", ".join(name for name in now if now[name] != then[name])
        raise ValueError(f"{lost} (In {saved.name!r} there is another one: by its {other}.)")
    if saved.processor is not None:
        return found._replace(processor=_part(saved.processor, side))
    if _what_it_does(found.processor, saved.modality) != saved.reads:
        raise ValueError(f"{lost} (In {saved.name!r} there is another tokenizer or processor.)")
    return found


def _said(base: nn.Module) -> str:
    return canonical({**model_state(base), **model_content(base)})


def _what_it_does(processor: Any, side: str) -> str:
    """SHA-256 of what a processor does with samples."""
    part = private_copy(_part(processor, side))
    said = [getattr(part, name, None) for name in ("model_max_length", "chat_template")]
    return hashlib.sha256(canonical([processor_content(part), *said]).encode()).hexdigest()


def find_tower(model: Any, modality: str, device: str, dtype: str, **options: Any) -> Tower:
    """Get from what the user named to the part of a model that reads samples.

    Parameters
    ----------
    model, modality, device, dtype
        As in :class:`~skact.embedding.TransformerEmbedder`.
    **options
        ``revision`` and ``trust_remote_code``, as there.

    Returns
    -------
    tower : Tower
        The part.

    Raises
    ------
    OSError
        If a name can neither be found nor fetched.
    ValueError, TypeError
        If the model, its processor and the other parameters do not fit each other.
    """
    find = _reattach if isinstance(model, DetachedPair) else _find
    return find(model, modality, device, dtype, **options)


def reading_part(model: Any) -> tuple[nn.Module, str]:
    """Return the part of a live model that reads samples, texts if it can, and its modality."""
    side = "text" if "text" in _sides(model.config) else "image"
    return _base(model, side), side


def detach(pair: Any, modality: str) -> DetachedPair:
    """Remember a loaded pair, but for its weights, which are found again by their fingerprint."""
    options = {"revision": None, "trust_remote_code": False}
    tower = _find(pair, modality, "auto", "auto", **options)
    content = _said(tower.base)
    _LIVE[content] = tower.whole
    dtype = str(first_weight(tower.base).dtype).removeprefix("torch.")
    reads, processor = _what_it_does(pair[1], tower.modality), private_copy(pair[1])
    _PROCESSORS[reads] = processor
    return DetachedPair(where_from(tower.whole), content, dtype, tower.modality, reads, processor)
