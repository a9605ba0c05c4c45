"""Where images and their masks go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skact.models._framing import Framing
from skact.models._geometry import Geometry, mask_to_patches
from skact.rows import Array, as_numpy
from skact.samples import image_size

__all__ = ["image_geometries", "label_patches"]


def image_geometries(
    images: Sequence[Any], framing: Framing, numbers: Sequence[int]
) -> list[Geometry]:
    """Check all images and say where the pixels of each will go.

    Parameters
    ----------
    images : sequence
        In the forms :func:`open_image` takes.
    framing : ProcessorFraming or WholeFraming
        How they are shown.
    numbers : sequence of int
        Number of each image in what the user gave; for errors.

    Returns
    -------
    geometries : list of Geometry
        One per image.

    Raises
    ------
    ValueError
        If a sample is no image, naming its number.
    """
    known: dict[tuple[int, int], Geometry] = {}
    sizes = [image_size(image, i) for i, image in zip(numbers, images, strict=True)]
    for i, size in zip(numbers, sizes, strict=True):
        if size not in known:
            try:
                known[size] = framing.geometry(*size)
            except ValueError as error:
                raise ValueError(f"sample {i}: {error}") from error
    return [known[size] for size in sizes]


def _as_mask(mask: Any, i: int, geometry: Geometry) -> Array:
    array = as_numpy(mask)
    if array.ndim == 2:
        array = array[:, :, None]
    size = geometry.rows.original, geometry.columns.original
    if array.ndim != 3 or array.shape[:2] != size:
        raise ValueError(
            f"masks[{i}] must be of shape {size} like its image, with one more axis for several "
            f"concepts; got {as_numpy(mask).shape}."
        )
    if array.dtype.kind != "b":
        odd = array[~np.isin(array, (0, 1))]
        if array.dtype.kind not in "iuf" or odd.size:
            raise ValueError(
                f"masks[{i}] must hold bools, or 0 and 1; got dtype {array.dtype}"
                f"{f', with the value {odd[0]}' if odd.size else ''}."
            )
        array = array.astype(bool)
    return array


def label_patches(
    geometries: Sequence[Geometry],
    masks: Any,
    patch: tuple[int, int],
    extra: tuple[int, int],
    n_concepts: int | None,
) -> Array:
    """Turn masks of images into labels of their tokens.

    Parameters
    ----------
    geometries : sequence of Geometry
        One per image.
    masks : sequence of array-like
        One per image, of shape (height, width) or (height, width, n_concepts); read one by one.
    patch : tuple of int
        Height and width of a patch in processed pixels.
    extra : tuple of int
        Tokens before the patches and behind them, which get no label.
    n_concepts : int or None
        Concepts every mask must have; None takes the number from the first mask.

    Returns
    -------
    labels : ndarray of shape (n_tokens, n_concepts), dtype bool
        Labels of the tokens of all images.

    Raises
    ------
    ValueError
        If a mask does not fit its image, naming its number.
    """
    parts = []
    for i, geometry in enumerate(geometries):
        mask = _as_mask(masks[i], i, geometry)
        n_concepts = mask.shape[2] if n_concepts is None else n_concepts
        if mask.shape[2] != n_concepts:
            raise ValueError(f"masks[{i}] has {mask.shape[2]} concepts, expected {n_concepts}.")
        labels = mask_to_patches(mask, geometry, patch)
        parts.append(np.pad(labels, (extra, (0, 0))))
    return np.concatenate(parts)
