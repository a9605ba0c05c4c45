"""The type of arrays in annotations, and how tensors become arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "as_numpy"]

Array = npt.NDArray[Any]


def as_numpy(item: Any) -> Array:
    """Return an array or a tensor (of any device, also bfloat16) as a numpy array."""
    if hasattr(item, "detach"):
        item = item.detach().cpu()
        if str(item.dtype) == "torch.bfloat16":
            item = item.float()
        return item.numpy()
    return np.asarray(item)
