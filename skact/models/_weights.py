"""The content of a model's weights, and of the adapters that are active on it, as one digest.

What counts is the values, not the number format: weights that are widened keep their digest. A
tensor is read once, and found again by its place in memory and the count of its changes.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["active_adapters", "fingerprint"]

_CHUNK = 2**24  # values that are widened at a time
_DIGESTS: Any = WeakIdKeyDictionary()
_SAMPLES: WeakKeyDictionary[nn.Module, dict[bool, list[bytes]]] = WeakKeyDictionary()


def _parts(flat: Tensor) -> Iterator[Tensor]:
    """Values in pieces, as float32, or as bfloat16 where these hold them all."""
    parts = torch.split(flat, _CHUNK)
    if not flat.is_floating_point() or flat.dtype in (torch.bfloat16, torch.float64):
        return iter(parts)
    # The upper half of a float32 is a bfloat16.
    is_half = not any((part.float().view(torch.int32) & 0xFFFF).any() for part in parts)
    return (part.to(torch.bfloat16 if is_half else torch.float32) for part in parts)


def _digest(values: Tensor) -> bytes:
    """SHA-256 of the values of one tensor."""
    digest = hashlib.sha256()
    for part in _parts(values.detach().contiguous().reshape(-1)):
        digest.update(memoryview(part.view(torch.uint8).cpu().numpy()))
    return digest.digest()


def _version(values: Tensor) -> Any:
    """Return what changes with a tensor, but not with changes behind its back, through ``data``."""
    try:
        return values.data_ptr(), values._version
    except RuntimeError:
        return object()  # one made in inference mode does not count its changes


def _total(values: Tensor) -> int:
    """Sum of the bits of a tensor by their places, which also shows changes behind its back."""
    flat = values.detach().contiguous().reshape(-1).view(torch.uint8)
    whole = len(flat) // 8 * 8
    try:
        parts = [*torch.split(flat[:whole].view(torch.int64), _CHUNK), flat[whole:].long()]
    except RuntimeError:  # laid out at an odd place
        parts = [flat.long()]
    total = 0
    for part in parts:
        places = 2 * torch.arange(len(part), device=part.device) + 1
        total = (31 * total + int((part * places).sum())) % 2**64
    return total


def _sample(tensors: Iterable[Tensor]) -> list[bytes]:
    """At most 64 values of each tensor: shows whether somebody has changed all behind its back."""
    by_device: dict[Any, list[Tensor]] = {}
    for values in tensors:
        flat = values.detach().reshape(-1)
        part = flat[:: max(1, len(flat) // 64)][:64]
        by_device.setdefault(values.device, []).append(part.float())
    return [torch.cat(parts).cpu().numpy().tobytes() for parts in by_device.values()]


def _known(values: Tensor, thorough: bool) -> bytes | None:
    version, total, digest = _DIGESTS.get(values, (None, 0, None))
    if version != _version(values) or (thorough and total != _total(values)):
        return None
    return digest


def _learn(values: Tensor) -> bytes:
    version, total = _version(values), _total(values)
    digest = _digest(values)
    _DIGESTS[values] = version, total, digest
    return digest


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Modules that adapters (of the library peft) stand on."""
    for name, module in model.named_modules():
        if hasattr(module, "adapter_layer_names") and hasattr(module, "disable_adapters"):
            yield name, module


def active_adapters(model: nn.Module) -> list[Any]:
    """List what adapters do to a model.

    Parameters
    ----------
    model : Module
        The model.

    Returns
    -------
    adapters : list of [module, adapters, scaling]
        Those that are active and not merged into the weights; empty for a model without any.
    """
    found = []
    for name, module in _adapted(model):
        scaling = getattr(module, "scaling", {})
        active = [] if module.disable_adapters else list(module.active_adapters)
        active = [one for one in active if one not in getattr(module, "merged_adapters", ())]
        if active:
            found.append([name, active, [str(scaling.get(one)) for one in active]])
    return found


def _idle(model: nn.Module, adapters: list[Any]) -> tuple[str, ...]:
    """Beginnings of the names of weights of adapters that are not active."""
    active = {name: names for name, names, _ in adapters}
    kinds = ("adapter_layer_names", "other_param_names")
    return tuple(
        f"{name}.{kind}.{adapter}"
        for name, module in _adapted(model)
        for kind in (one for names in kinds for one in getattr(module, names, ()))
        for adapter in getattr(getattr(module, kind, None), "keys", tuple)()
        if adapter not in active.get(name, ())
    )


def _tensors(model: nn.Module, adapters: list[Any], buffers: bool) -> dict[str, Tensor]:
    """Weights that decide what blocks put out, by the names they have without adapters."""
    # Poolers come after the blocks, and a model loaded with a head has none.
    weights = model.state_dict(keep_vars=True)
    if buffers:
        weights |= dict(model.named_buffers())
    without = "pooler.", *(f"{name}." for name in _idle(model, adapters))
    return {
        name.replace(".base_layer.", "."): values
        for name, values in {id(v): (k, v) for k, v in weights.items()}.values()
        if not name.startswith(without)
    }


def fingerprint(model: nn.Module, *, buffers: bool = False, thorough: bool = False) -> str:
    """Name a model by all of its weights.

    Parameters
    ----------
    model : Module
        The model.
    buffers : bool, default=False
        Whether buffers that are not saved with the model count as well, such as frequencies of
        positions; they may differ between versions and devices.
    thorough : bool, default=False
        Whether to look at every weight again. If not, a change through ``weight.data`` shows only
        if it meets one of 64 values of each weight.

    Returns
    -------
    fingerprint : str
        ``"weights:"`` and 32 hexadecimal digits, over names, shapes and values of all weights and
        over the adapters that are active. Poolers and idle adapters are left out.

    Raises
    ------
    ValueError
        If weights are not in memory.
    """
    adapters = active_adapters(model)
    tensors = _tensors(model, adapters, buffers)
    if away := [name for name, values in tensors.items() if values.is_meta]:
        raise ValueError(
            f"{len(away)} weights of {type(model).__name__} are not in memory (offloaded, or on "
            f"the meta device), such as {away[0]!r}, so it is not known which model it is; load "
            "it whole."
        )
    samples = _SAMPLES.setdefault(model, {})
    if samples.get(buffers) != (sample := _sample(tensors.values())):
        thorough, samples[buffers] = True, sample
    digests = {name: _known(values, thorough) for name, values in tensors.items()}
    if new := [name for name, digest in digests.items() if digest is None]:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            digests |= zip(new, threads.map(_learn, [tensors[name] for name in new]), strict=True)
    whole = hashlib.sha256(repr(adapters).encode())
    for name, values in tensors.items():
        whole.update(f"{name} {tuple(values.shape)}\n".encode() + (digests[name] or b""))
    return f"weights:{whole.hexdigest()[:32]}"
