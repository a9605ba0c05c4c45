"""Which devices torch has here.

Imports torch: import this module only where a model is needed.
"""

from __future__ import annotations

import torch

__all__ = ["check_device", "placement"]


def placement(device: str, dtype: str) -> tuple[str, str]:
    """Say where a named model runs, and in which number format.

    Parameters
    ----------
    device : str
        Its name, or "auto".
    dtype : str
        Number format, or "auto".

    Returns
    -------
    device : str
        No longer "auto".
    dtype : str
        "auto" where it is that of the checkpoint: not on a CPU.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto" and torch.device(device).type == "cpu":
        dtype = "float32"
    return device, dtype


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
