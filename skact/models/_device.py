"""Which devices torch has here.

Imports torch: import this module only where a model is needed.
"""

from __future__ import annotations

import torch

__all__ = ["check_device"]


def check_device(device: str) -> None:
    """Refuse a device that torch cannot use here.

    Parameters
    ----------
    device : str
        Its name, such as "cpu", "cuda" or "cuda:1".

    Raises
    ------
    ValueError
        If there is no such device, naming those that there are.
    """
    try:
        torch.empty(0, device=device)
    # Each backend has its own way to say that it is not there.
    except (RuntimeError, AssertionError, ImportError, AttributeError) as error:
        raise ValueError(
            f"device={device!r} cannot be used here; there is {', '.join(_devices())}."
        ) from error


def _devices() -> list[str]:
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
