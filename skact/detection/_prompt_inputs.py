"""Check the raw samples that a generative model is asked about, and name them by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skact.tokens import Array, as_numpy

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["as_list", "check_samples", "guess_kind", "open_image"]


def as_list(X: Any) -> list[Any]:
    """List the samples of any accepted container.

    Parameters
    ----------
    X : list, tuple, 1-D array, Series or 4-D array
        Texts or images.

    Returns
    -------
    samples : list
        The samples, not checked.

    Raises
    ------
    ValueError
        If X is another container, or empty.
    """
    expected = "X must be a list, tuple, 1-D array or Series of texts or of images"
    if isinstance(X, str | bytes | Path):
        raise ValueError(f"{expected}, got a single {type(X).__name__}: {str(X)[:40]!r}.")
    if isinstance(X, list | tuple):
        samples = list(X)
    elif type(X).__module__.startswith("pandas") and getattr(X, "ndim", None) == 1:
        samples = X.tolist()
    elif isinstance(X, np.ndarray) and (X.ndim == 4 or (X.ndim == 1 and X.dtype.kind in "OUT")):
        samples = X.tolist() if X.ndim == 1 else list(X)
    else:
        shape = f" of shape {X.shape}" if hasattr(X, "shape") else ""
        raise ValueError(f"{expected}, or a 4-D array of images; got {type(X).__name__}{shape}.")
    if not samples:
        raise ValueError("X has no samples.")
    return samples


def guess_kind(samples: list[Any]) -> str:
    """Take strings for texts and anything else for images.

    Parameters
    ----------
    samples : list
        The samples.

    Returns
    -------
    kind : {"text", "image"}
        By the first sample; :func:`check_samples` refuses a mixture.
    """
    return "text" if isinstance(samples[0], str) else "image"


def check_samples(samples: list[Any], kind: str) -> list[str]:
    """Refuse what is no text or image, and digest what is.

    Parameters
    ----------
    samples : list
        The samples.
    kind : {"text", "image"}
        What they should be.

    Returns
    -------
    digests : list of str
        SHA-256 of the UTF-8 bytes of a text, or of size and RGB pixels of an image, so that one
        image has one digest in whatever form it is given.

    Raises
    ------
    TypeError, ValueError
        If a sample is not of this kind, a text is blank, or a file cannot be read; the number of
        the sample is named.
    """
    digest = _text_digest if kind == "text" else _image_digest
    return [digest(sample, i) for i, sample in enumerate(samples)]


def _text_digest(sample: Any, i: int) -> str:
    if not isinstance(sample, str):
        raise TypeError(f"sample {i} must be a text (str), got {type(sample).__name__}.")
    if not sample.strip():
        raise ValueError(f"sample {i} is an empty text.")
    return hashlib.sha256(b"text\n" + sample.encode("utf-8", "surrogatepass")).hexdigest()


def _image_digest(sample: Any, i: int) -> str:
    image = open_image(sample, i)
    return hashlib.sha256(f"image {image.size}\n".encode() + image.tobytes()).hexdigest()


def open_image(image: Any, i: int) -> Image:
    """Return an image as RGB, upright by its EXIF orientation, with alpha laid over white.

    Parameters
    ----------
    image : str, Path, PIL image or array
        An array is (height, width) or (height, width, channels), uint8 or float in [0, 1].
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
        try:
            with Image.open(image) as file:
                return _to_rgb(ImageOps.exif_transpose(file), i)
        except (OSError, SyntaxError) as error:
            raise ValueError(
                f"sample {i}: the image {str(image)[:200]!r} cannot be read: {error}. (If the "
                'samples are texts, say modality="text".)'
            ) from error
    if not isinstance(image, Image.Image):
        array = _check_array(image, i)
        if array.dtype.kind == "f":
            array = np.rint(array * 255).astype(np.uint8)
        image = Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)
    return _to_rgb(image, i)


def _check_array(image: Any, i: int) -> Array:
    array = as_numpy(image)
    if array.ndim not in (2, 3) or array.size == 0 or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise ValueError(
            f"sample {i} must be an image: a path, a PIL image, or an array (height, width) or "
            f"(height, width, channels) with 1, 3 or 4 channels; got {type(image).__name__} "
            f"of shape {array.shape}."
        )
    is_unit = array.dtype.kind == "f" and bool(array.min() >= 0 and array.max() <= 1)
    if array.dtype != np.uint8 and not is_unit:
        raise ValueError(
            f"sample {i} must be of dtype uint8, or float with values in [0, 1]; got {array.dtype}."
        )
    return array


def _to_rgb(image: Image, i: int) -> Image:
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        raise ValueError(
            f"sample {i} has the mode {image.mode!r}, whose grey values have no fixed range; "
            "bring it to 8 bits first."
        )
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
