"""Check what a generative model is asked about: the concepts and the raw samples."""

from __future__ import annotations

import hashlib
from typing import Any

from skact.arguments import check_concepts
from skact.samples import open_image
from skact.targets import Targets

__all__ = ["check_names", "check_samples", "guess_kind"]


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


def check_names(concepts: Any, targets: Targets) -> list[str]:
    """Words for the concepts: those given, else the column names or classes of y.

    Parameters
    ----------
    concepts : sequence of str or None
        The words.
    targets : Targets
        Their number, and the names of the columns, or of more than two classes, of y.

    Returns
    -------
    names : list of str
        One per concept, all different.

    Raises
    ------
    ValueError
        If there are none, or they do not fit y.
    """
    classes = targets.classes
    # The number of a class, and what the only concept of two is told from, say nothing to a model.
    are_words = classes is None or (len(classes) > 2 and classes.dtype.kind in "UO")
    columns = targets.names if are_words else None
    given = columns if concepts is None else concepts
    if given is None:
        raise ValueError(
            "a prompt needs names of concepts: pass concepts=[...], or y as a data frame whose "
            "columns are the names, or as more than two classes of strings."
        )
    names = check_concepts(given)
    if len(names) != targets.n_concepts:
        raise ValueError(f"concepts has {len(names)} names, y has {targets.n_concepts} concepts.")
    for c, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"concepts[{c}] must be a str, got {name!r}.")
    if columns is not None and names != columns and sorted(names) == sorted(columns):
        raise ValueError(f"concepts is {names}, but those of y are {columns}: other order.")
    return [str(name) for name in names]
