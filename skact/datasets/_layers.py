"""Masks that lie in image files, one file or several for an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from skact.datasets._gather import Sample
from skact.datasets._lazy import LazyMasks, Mask, read_classes
from skact.samples import image_size


class Layer(NamedTuple):
    """A mask file.

    Parameters
    ----------
    path : str
        Of one channel.
    values : mapping of int to tuple of str, or str
        Concepts of each pixel value; or the one concept of all that are not 0.
    ignored : frozenset of int, default=frozenset()
        Values of no concept.
    """

    path: str
    values: Mapping[int, tuple[str, ...]] | str
    ignored: frozenset[int] = frozenset()


class Layers(NamedTuple):
    """The mask files of an image, which all have its size."""

    image: str
    layers: Sequence[Layer]


def labels_of(layers: Layers) -> list[str]:
    """List the concepts that occur; values that are none of the classes are an error."""
    found: dict[str, None] = {}
    size = image_size(layers.image, 0)
    for layer in layers.layers:
        pixels = read_classes(layer.path, size, ("1", "L", "P"))
        for value in np.unique(pixels).tolist():
            if isinstance(layer.values, str):
                found |= {layer.values: None} if value else {}
            elif value in layer.values:
                found |= dict.fromkeys(layer.values[value])
            elif value not in layer.ignored:
                known = sorted({*layer.values, *layer.ignored})
                raise ValueError(
                    f"Mask {layer.path} holds the value {value}, which is no class; known are "
                    f"{known}."
                )
    return list(found)


def layer_masks(chosen: list[Sample], names: list[str]) -> dict[str, Any]:
    """Return the masks of images whose `located` is `Layers`, as `gather` wants it."""
    columns = {name: column for column, name in enumerate(names)}
    draw = partial(_draw, columns=columns)
    return {"masks": LazyMasks([sample.located for sample in chosen], draw, len(names))}


def _draw(layers: Layers, columns: dict[str, int]) -> Mask:
    size = image_size(layers.image, 0)
    mask = np.zeros((*size, len(columns)), bool)
    for layer in layers.layers:
        pixels = read_classes(layer.path, size, ("1", "L", "P"))
        if isinstance(layer.values, str):
            if layer.values in columns:
                mask[:, :, columns[layer.values]] |= pixels != 0
            continue
        for value, labels in layer.values.items():
            for label in labels:
                if label in columns:
                    mask[:, :, columns[label]] |= pixels == value
    return mask
