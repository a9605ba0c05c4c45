"""Raw samples, texts or images, in all the forms that users have them in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skact.files import check_size
from skact.rows import Array, as_numpy

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PIXELS_PER_BYTE", "HashedFile", "as_list", "image_size", "is_file", "open_image"]

#: Most pixels that a byte of a large image file stands for; deflate gives a thousand grey ones.
PIXELS_PER_BYTE = 2000

# Values 5 to 8 of the EXIF orientation lay the image on its side.
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)


def as_list(X: Any) -> list[Any]:
    """List the samples of any container that holds them in order and can say how many.

    Parameters
    ----------
    X : list, tuple, 1-D array, Series or other column, table with one column, or 4-D array
        Texts or images. A column is known by what it does (``to_pylist``, ``to_list``, ``tolist``,
        or length and items), whichever library it is of. An array of shape (n, 1) is a column.

    Returns
    -------
    samples : list
        The samples, not checked.

    Raises
    ------
    ValueError
        If X is another container, such as a table of several columns, a dict, or a generator,
        which could be read only once; or if it is empty.
    """
    expected = "X must be a list, tuple, 1-D array, Series or other column of texts or of images"
    if isinstance(X, str | bytes | Path):
        raise ValueError(f"{expected}, got a single {type(X).__name__}: {str(X)[:40]!r}.")
    if isinstance(X, Iterable) and (isinstance(X, Iterator) or not hasattr(X, "__len__")):
        raise ValueError(f"{expected}, got a {type(X).__name__}, which is read once; pass list(X).")
    is_ordered = hasattr(X, "__len__") and not isinstance(X, Mapping | Set)
    samples = _items(_only_column(X)) if is_ordered else None
    if samples is None:
        shape = getattr(X, "shape", None)
        shape = f" of shape {shape}" if isinstance(shape, tuple) else ""
        raise ValueError(f"{expected}, or a 4-D array of images; got {type(X).__name__}{shape}.")
    if not samples:
        raise ValueError("X has no samples.")
    return samples


def _only_column(X: Any) -> Any:
    """Take the column out of a table that has one."""
    if isinstance(X, np.ndarray):
        return X[:, 0] if X.ndim == 2 and X.shape[1] == 1 else X
    names = getattr(X, "column_names", getattr(X, "columns", None))
    if names is None or callable(names):
        return X
    if len(names) != 1:
        raise ValueError(
            f"X is a table of {len(names)} columns, {list(map(str, names))[:10]}; pass the one "
            "that holds the samples, X[name]."
        )
    return X[names[0]]


def _items(X: Any) -> list[Any] | None:
    if isinstance(X, np.ndarray):
        is_column = X.ndim == 1 and X.dtype.kind in "OUT"
        return X.tolist() if is_column else list(X) if X.ndim == 4 else None
    if getattr(X, "ndim", 1) != 1:
        return None
    for name in ("to_pylist", "to_list", "tolist"):
        if hasattr(X, name):
            return list(getattr(X, name)())
    if hasattr(X, "__getitem__"):
        return list(islice(iter(X), len(X)))
    return None


@dataclass(frozen=True)
class HashedFile:
    """An image file that is read only if its bytes are those that were hashed.

    Parameters
    ----------
    path : str, Path or file open in binary mode
        The file.
    sha256 : bytes
        Of its bytes.
    """

    path: Any
    sha256: bytes

    def content(self, i: int) -> bytes:
        """Read it, as sample number i; RuntimeError if it is another file by now."""
        if isinstance(self.path, str | Path):
            content = Path(self.path).read_bytes()
        else:
            self.path.seek(0)
            content = self.path.read()
        if hashlib.sha256(content).digest() != self.sha256:
            raise RuntimeError(
                f"sample {i}: the file {str(self.path)!r} was changed while samples were embedded. "
                "Nothing of it was kept; embed it again when it is whole."
            )
        return content


def _is_pil(image: Any) -> bool:
    from PIL import Image

    return isinstance(image, Image.Image)


def is_file(image: Any) -> bool:
    """Tell whether a sample is a file, by its path or open."""
    return isinstance(image, str | Path | HashedFile) or (
        hasattr(image, "read") and hasattr(image, "seek")
    )


@contextmanager
def _opened(image: Any, i: int) -> Iterator[Image]:
    """Open an image as PIL does, and name the sample where PIL cannot read it."""
    from PIL import Image

    named = image.path if isinstance(image, HashedFile) else image
    shown = repr(str(named)[:200]) if isinstance(named, str | Path) else type(image).__name__
    try:
        if _is_pil(image):
            yield image
        else:
            content = image.content(i) if isinstance(image, HashedFile) else None
            with Image.open(image if content is None else BytesIO(content)) as file:
                if content is not None or isinstance(image, str | Path):
                    n_bytes = os.path.getsize(image) if content is None else len(content)
                    check_size(file.width * file.height, n_bytes, PIXELS_PER_BYTE)
                yield file
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"sample {i}: the image {shown} has more pixels than PIL opens: {error} Make it "
            "smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file."
        ) from error
    # Some versions of PIL meet a closed file as an attribute that is None.
    except (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        AttributeError,
        AssertionError,
        EOFError,
    ) as error:
        advice = '(If the samples are texts, take a model of texts, or say modality="text" to '
        advice += "one that reads both.)"
        if not isinstance(named, str | Path):
            advice = "Files must be open, in binary mode, when they are read; paths always can be."
        raise ValueError(
            f"sample {i}: the image {shown} cannot be read: {error or 'its file is closed'}. "
            f"{advice}"
        ) from error


def _check_array(image: Any, i: int) -> Array:
    array = as_numpy(image)
    if array.ndim not in (2, 3) or array.size == 0 or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise ValueError(
            f"sample {i} must be an image: a path, a file open in binary mode, a PIL image, or an "
            "array (height, width) or (height, width, channels) with 1, 3 or 4 channels; got "
            f"{type(image).__name__} of shape {array.shape}."
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


def image_size(image: Any, i: int) -> tuple[int, int]:
    """Tell the size of an image as it will be seen; of most files only the header is read.

    Parameters
    ----------
    image : str, Path, binary file, PIL image or array
        As in :func:`open_image`.
    i : int
        Number of the sample, for errors.

    Returns
    -------
    height, width : int
        In pixels.

    Raises
    ------
    ValueError
        If the sample is no image, naming its number.
    """
    if not (is_file(image) or _is_pil(image)):
        height, width = _check_array(image, i).shape[:2]
        return height, width
    with _opened(image, i) as file:
        mode, (width, height) = file.mode, file.size
        # PIL itself turns a TIFF, and tells its size as it will be.
        sideways = file.format != "TIFF" and file.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
    _check_pil(mode, (height, width), i)
    return (width, height) if sideways else (height, width)


def _check_pil(mode: str, size: tuple[int, int], i: int) -> None:
    if mode.startswith(("I", "F")):
        raise ValueError(
            f"sample {i} has the mode {mode!r}, whose grey values have no fixed range; "
            "bring it to 8 bits first."
        )
    if not _becomes_rgb(mode):
        raise ValueError(
            f"sample {i} has the mode {mode!r}, which PIL cannot convert to RGB; save it in "
            "another mode first."
        )
    if min(size) < 1:
        raise ValueError(f"sample {i} is an image of height {size[0]} and width {size[1]}.")


@cache
def _becomes_rgb(mode: str) -> bool:
    from PIL import Image

    try:
        _to_rgb(Image.new(mode, (1, 1)))
    except ValueError:
        return False
    return True


def _to_rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    # What is RGB is not copied: converting is all that costs time where an image is in memory.
    return image if image.mode == "RGB" else image.convert("RGB")


def open_image(image: Any, i: int) -> Image:
    """Return an image as RGB, the way the model is to see it.

    Parameters
    ----------
    image : str, Path, HashedFile, binary file, PIL image or array
        What has an EXIF orientation is turned upright by it. Alpha is laid over white, grey becomes
        RGB. Arrays are uint8, or float in [0, 1]. Files are read from their beginning and left
        open.
    i : int
        Number of the sample, for errors.

    Returns
    -------
    image : PIL image
        RGB, of the original size; the sample itself where it is one, so not to be changed.

    Raises
    ------
    ValueError
        If the sample is no image, naming its number.
    """
    from PIL import Image, ImageOps

    if not (is_file(image) or _is_pil(image)):
        array = _check_array(image, i)
        if array.dtype.kind == "f":
            array = np.rint(array * 255).astype(np.uint8)
        return _to_rgb(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array))
    with _opened(image, i) as file:
        file.load()
        # Transposing what is upright would copy it.
        turned = file.getexif().get(_ORIENTATION, 1) != 1
        upright = ImageOps.exif_transpose(file) if turned else file
    _check_pil(upright.mode, (upright.height, upright.width), i)
    return _to_rgb(upright)
