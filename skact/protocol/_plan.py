"""What a run takes, as arithmetic: forward passes, bytes on disk, hours of the model."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils._param_validation import StrOptions

from skact.arguments import Number, checked
from skact.store import shard_bytes

__all__ = ["Plan", "plan"]

_COUNT = [Number(Integral, 1, None, closed="left")]


@dataclass(frozen=True)
class Plan:
    """What embedding takes.

    Parameters
    ----------
    passes : int
        Samples that go through the model: each once for its tokens, and once more for its class
        token if it has one; all layers come from one pass.
    n_bytes : int
        Of the files of activations.
    hours : float
        Of all devices at once.
    """

    passes: int
    n_bytes: int
    hours: float


@checked(
    samples=_COUNT,
    tokens=["array-like", Number(Real, 1, None, closed="left")],
    layers=_COUNT,
    width=_COUNT,
    dtype=[StrOptions({"float32", "float16", "bfloat16"})],
    passes_per_second=[Number(Real, 0, None, closed="neither")],
    devices=_COUNT,
    grids=["boolean"],
    class_token=["boolean"],
    n_header=_COUNT,
)
def plan(
    samples: int,
    tokens: npt.ArrayLike,
    layers: int,
    width: int,
    dtype: str,
    passes_per_second: float,
    devices: int = 1,
    *,
    grids: bool = False,
    class_token: bool = True,
    n_header: int = 4096,
) -> Plan:
    """Say what it takes to embed samples for the protocol.

    Parameters
    ----------
    samples : int
        Distinct samples.
    tokens : float or array-like of shape (samples,)
        Tokens of each; one number if all have as many, or the mean.
    layers : int
        Blocks that are kept.
    width : int
        Features of a token.
    dtype : {"float32", "float16", "bfloat16"}
        Of the store.
    passes_per_second : float
        Samples that go through the model on one device in a second.
    devices : int, default=1
        Devices that share the samples.
    grids : bool, default=False
        Whether samples are images, whose files keep rows and columns of patches.
    class_token : bool, default=True
        Whether the model has one, which takes a pass of its own for the baseline CLS. Without, the
        baseline decides by the mean of the tokens, which takes none.
    n_header : int, default=4096
        Bytes of the head of a file, in whole blocks.

    Returns
    -------
    plan : Plan
        Passes and bytes are exact for one process that fills an empty store, the hours are as good
        as the speed that is given.

    Raises
    ------
    ValueError
        If there is not one number of tokens for each sample.

    Examples
    --------
    >>> from skact.protocol import plan
    >>> planned = plan(5000, 256, 6, 1024, "float16", passes_per_second=100, grids=True)
    >>> planned.passes, f"{planned.n_bytes / 1e9:.2f} GB", f"{60 * planned.hours:.1f} minutes"
    (10000, '15.79 GB', '1.7 minutes')
    """
    each = np.asarray(tokens)
    if each.ndim and each.shape != (samples,):
        raise ValueError(
            f"tokens must be one number, or one for each of the {samples} samples, got an array of "
            f"shape {each.shape}."
        )
    lengths = _whole(each, samples)
    settings: dict[str, Any] = {"n_features": width, "dtype": dtype, "n_header": n_header}
    of_tokens = shard_bytes(lengths, grids=grids, **settings)
    of_vectors = class_token * shard_bytes(np.ones(samples, np.int64), **settings)
    passes = (1 + class_token) * samples
    hours = passes / (passes_per_second * devices) / 3600
    return Plan(passes, layers * (of_tokens + of_vectors), hours)


def _whole(tokens: npt.NDArray[Any], samples: int) -> npt.NDArray[np.int64]:
    """Whole numbers of tokens that add up to those of all samples."""
    ends = np.rint(np.cumsum(np.broadcast_to(tokens, samples), dtype=np.float64))
    return np.diff(ends, prepend=0).astype(np.int64)
