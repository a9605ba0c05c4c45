"""Open images in all the forms that users have them in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skact.embedding._geometry import Geometry, image_geometry, mask_to_patches
from skact.tokens import Array, as_numpy

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["image_geometries", "label_patches", "open_image"]

# Values 5 to 8 of the EXIF orientation lay the image on its side.
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)


def _is_pil(image: Any) -> bool:
    from PIL import Image

    return isinstance(image, Image.Image)


@contextmanager
def _open_file(path: str | Path, i: int) -> Iterator[Image]:
    from PIL import Image

    try:
        with Image.open(path) as file:
            yield file
    except (OSError, SyntaxError) as error:
        raise ValueError(f"sample {i}: the image {str(path)!r} cannot be read: {error}") from error


def _check_array(image: Any, i: int) -> Array:
    array = as_numpy(image)
    if array.ndim not in (2, 3) or array.size == 0 or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise ValueError(
            f"sample {i} must be an image: a path, a PIL image, or an array (height, width) or "
            f"(height, width, channels) with 1, 3 or 4 channels; got {type(image).__name__} "
            f"of shape {array.shape}."
        )
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(
                f"sample {i} is an image of dtype {array.dtype}, so its values must lie in "
                f"[0, 1]; they span [{array.min()}, {array.max()}]."
            )
    elif array.dtype != np.uint8:
        raise ValueError(f"sample {i} must be of dtype uint8 or float, got {array.dtype}.")
    return array


def _size(image: Any, i: int) -> tuple[int, int]:
    """Height and width as the image will be seen; of most files only the header is read."""
    if isinstance(image, str | Path):
        with _open_file(image, i) as file:
            width, height = file.size
            _check_mode(file, i)
            sideways = file.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
        return (width, height) if sideways else (height, width)
    if _is_pil(image):
        _check_mode(image, i)
        return image.height, image.width
    height, width = _check_array(image, i).shape[:2]
    return height, width


def _check_mode(image: Image, i: int) -> None:
    if image.mode.startswith(("I", "F")):
        raise ValueError(
            f"sample {i} has the mode {image.mode!r}, whose grey values have no fixed range; "
            "bring it to 8 bits first."
        )


def _to_rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def open_image(image: Any, i: int) -> Image:
    """Return an image as RGB, the way the model is to see it.

    Parameters
    ----------
    image : str, Path, PIL image or array
        A file is turned upright by its EXIF orientation. Alpha is laid over white, grey becomes
        RGB. Arrays are uint8, or float in [0, 1].
    i : int
        Number of the sample, for errors.

    Returns
    -------
    image : PIL image
        RGB, of the original size.

    Raises
    ------
    ValueError
        If the sample is no image, naming its number.
    """
    from PIL import Image, ImageOps

    if isinstance(image, str | Path):
        with _open_file(image, i) as file:
            return _to_rgb(ImageOps.exif_transpose(file))
    if _is_pil(image):
        return _to_rgb(image)
    array = _check_array(image, i)
    if array.dtype.kind == "f":
        array = np.rint(array * 255).astype(np.uint8)
    return _to_rgb(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array))


def image_geometries(images: Sequence[Any], processor: Any) -> list[Geometry]:
    """Check all images and say what the processor will do to each.

    Parameters
    ----------
    images : sequence
        In the forms :func:`open_image` takes.
    processor : image processor of transformers
        The processor.

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
    sizes = [_size(image, i) for i, image in enumerate(images)]
    for size in sizes:
        if size not in known:
            known[size] = image_geometry(processor, *size)
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
        if array.dtype.kind not in "iuf" or not np.isin(array, (0, 1)).all():
            raise ValueError(f"masks[{i}] must hold bools, or 0 and 1; got dtype {array.dtype}.")
        array = array.astype(bool)
    return array


def label_patches(
    geometries: Sequence[Geometry],
    masks: Any,
    patch: tuple[int, int],
    prefix: int,
    n_concepts: int | None,
) -> tuple[Array, Array]:
    """Turn masks of images into labels of their tokens.

    Parameters
    ----------
    geometries : sequence of Geometry
        One per image.
    masks : sequence of array-like
        One per image, of shape (height, width) or (height, width, n_concepts); read one by one.
    patch : tuple of int
        Height and width of a patch in processed pixels.
    prefix : int
        Tokens before the patches, which get no label.
    n_concepts : int or None
        Concepts every mask must have; None takes the number from the first mask.

    Returns
    -------
    labels : ndarray of shape (n_tokens, n_concepts), dtype bool
        Labels of the tokens of all images.
    lengths : ndarray of shape (n_samples,), dtype int64
        Tokens per image.

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
        parts.append(np.concatenate([np.zeros((prefix, n_concepts), bool), labels]))
    return np.concatenate(parts), np.array([len(part) for part in parts])
