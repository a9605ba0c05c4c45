"""Names of layers: block numbers and fractions of the depth."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from skact.arguments import Number, checked
from skact.warning import warn

__all__ = ["depth_to_block", "resolve_layers"]


@checked(
    fraction=[Number(Real, 0, 1, closed="both")],
    n_blocks=[Number(Integral, 1, None, closed="left")],
)
def depth_to_block(fraction: float, n_blocks: int) -> int:
    """Find the block at a fraction of a model's depth.

    The block is ``clip(int(fraction * n_blocks) - 1, 0, n_blocks - 1)``: the last one that is
    complete when that share of the blocks has run.

    Parameters
    ----------
    fraction : float
        Depth in [0, 1]. Every depth before the end of the second block, 0 included, means the
        first block, as no activations exist before it.
    n_blocks : int
        Number of blocks of the model.

    Returns
    -------
    block : int
        0-based block.

    Raises
    ------
    ValueError
        If the fraction is not within [0, 1], or there is no block.

    References
    ----------
    Goldberg, Kim, Stein, Wong: The SuperActivator Mechanism, section on token activations.

    Examples
    --------
    >>> from skact import depth_to_block
    >>> [depth_to_block(f, 24) for f in (0.04, 0.5, 1.0)]
    [0, 11, 23]
    """
    return min(max(int(fraction * n_blocks) - 1, 0), n_blocks - 1)


def _resolve(layer: Any, n_blocks: int) -> int:
    if isinstance(layer, bool | np.bool_):
        raise ValueError(f"layer must be an int or a float, got the bool {layer!r}.")
    if isinstance(layer, int | np.integer):
        if -n_blocks <= layer < n_blocks:
            return int(layer) % n_blocks
        raise ValueError(
            f"layer {layer} does not exist: the model has {n_blocks} blocks, so an int must "
            f"lie in [{-n_blocks}, {n_blocks})."
        )
    if isinstance(layer, float | np.floating):
        if 0 < layer <= 1:
            return depth_to_block(float(layer), n_blocks)
        raise ValueError(
            f"layer {layer} is not a depth: a float must lie in (0, 1]. The model has "
            f"{n_blocks} blocks; pass an int to name one."
        )
    raise ValueError(
        "layer must be a block number, a depth in (0, 1], or a list of those; the model has "
        f"{n_blocks} blocks. Got {layer!r}."
    )


def resolve_layers(layer: Any, n_blocks: int) -> tuple[list[int], bool]:
    """Turn the parameter ``layer`` into blocks.

    Parameters
    ----------
    layer : int, float, or sequence of those
        As in :class:`~skact.embedding.TransformerEmbedder`.
    n_blocks : int
        Number of blocks of the model.

    Returns
    -------
    blocks : list of int
        Distinct 0-based blocks, ascending.
    many : bool
        Whether a list was asked for.

    Raises
    ------
    ValueError
        If a layer does not exist, naming it and the number of blocks.
    """
    if isinstance(layer, Sequence | np.ndarray) and not isinstance(layer, str):
        if len(layer) == 0:
            raise ValueError("layer must name at least one layer, got an empty list.")
        depths = [one for one in layer if isinstance(one, float | np.floating)]
        if 0 < len(depths) < len(layer) and set(depths) == {1.0}:
            warn(
                f"layer names blocks and depths, {layer!r}: 1.0 is the whole depth, which is block "
                f"{n_blocks - 1}, and 1 the second block. Write {n_blocks - 1} or -1 for the last."
            )
        return sorted({_resolve(one, n_blocks) for one in layer}), True
    return [_resolve(layer, n_blocks)], False
