"""Scores of tokens over texts and images, in the colours of the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from skact.inspection import escaped, flat_chat, outline_of, text_pieces
from skact.models import ChatToken, Patch
from skact.reporting._charts import number
from skact.rows import Array
from skact.samples import open_image

__all__ = ["Pictures", "Scale", "legend", "sample_map", "strongest"]

# Longest side of an embedded image, and of its map on the page.
_STORED, _SHOWN = 512, 272
_HOT = (255, 90, 0)
# A text of more characters scrolls in its own box, which the keyboard must reach.
_LONG = 1200


class Scale(NamedTuple):
    """Scores of the first and the last colour.

    Parameters
    ----------
    low, high : float
        Scores.
    """

    low: float
    high: float

    @classmethod
    def of(cls, scores: Array) -> Scale:
        """From the median of all tokens, which stay uncoloured below it, to the strongest."""
        low, high = float(np.median(scores)), float(scores.max())
        return cls(low, high if high > low else low + 1)

    def shade(self, scores: Array) -> Array:
        """Numbers in [0, 1]."""
        shade: Array = np.clip((scores - self.low) / (self.high - self.low), 0, 1)
        return shade


class Pictures:
    """Images of a page, each embedded once however often it is shown."""

    def __init__(self) -> None:
        self._images: dict[int, tuple[str, int, int]] = {}

    def use(self, row: int, image: Any) -> tuple[int, int]:
        """Embed a sample, and give its width and height in pixels."""
        if row not in self._images:
            opened = open_image(image, row).copy()
            width, height = opened.size
            opened.thumbnail((_STORED, _STORED))
            self._images[row] = _data_uri(opened, "JPEG", quality=85), width, height
        return self._images[row][1:]

    def definitions(self) -> str:
        """HTML that holds the images, unseen."""
        if not self._images:
            return ""
        images = "".join(
            f'<image id="image-{k}" href="{uri}" width="{width}" height="{height}" '
            'preserveAspectRatio="none"/>'
            for k, (uri, width, height) in self._images.items()
        )
        style = "position:absolute;width:0;height:0"
        return f'<svg style="{style}" aria-hidden="true"><defs>{images}</defs></svg>'


def _data_uri(image: Any, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{encoded}"


def sample_map(
    row: int,
    sample: Any,
    tokens: Sequence[Any],
    scores: Array,
    marks: Array,
    scale: Scale,
    pictures: Pictures,
) -> str:
    """Lay scores over a sample.

    Parameters
    ----------
    row : int
        Number of the sample.
    sample : str, chat or image
        The sample.
    tokens : sequence of n_tokens Token, ChatToken or Patch
        Its tokens.
    scores, marks : ndarray of shape (n_tokens,)
        Their scores, and which have a frame.
    scale : Scale
        Of the colours.
    pictures : Pictures
        Takes images in.

    Returns
    -------
    html : str
        The map, and in words which tokens are the strongest.
    """
    shade = scale.shade(scores)
    if isinstance(tokens[0], Patch):
        size = pictures.use(row, sample)
        drawn = _image_map(row, size, tokens, shade, marks, strongest(sample, tokens, scores))
    else:
        if isinstance(tokens[0], ChatToken):
            sample, tokens = flat_chat(sample, tokens)
        drawn = _text_map(sample, tokens, scores, shade, marks)
    return f'{drawn}<p class="quiet">Strongest: {strongest(sample, tokens, scores)}</p>'


def strongest(sample: Any, tokens: Sequence[Any], scores: Array, n_most: int = 3) -> str:
    """Name the tokens with the largest scores.

    Parameters
    ----------
    sample : str, chat or image
        The sample.
    tokens : sequence of n_tokens Token, ChatToken or Patch
        Its tokens.
    scores : ndarray of shape (n_tokens,)
        Their scores.
    n_most : int, default=3
        How many.

    Returns
    -------
    html : str
        Escaped words.
    """
    rows = np.argsort(-scores, kind="stable")[:n_most]
    return ", ".join(f"{_name(tokens[i])} {number(float(scores[i]))}" for i in rows)


def _name(token: Any) -> str:
    if isinstance(token, Patch):
        return f"row {token.row + 1}, column {token.column + 1}:"
    return f"<q><bdi>{escaped(token.text)}</bdi></q>"


def _text_map(text: str, tokens: Sequence[Any], scores: Array, shade: Array, marks: Array) -> str:
    *places, (rest, _) = text_pieces(text, tokens)
    pieces = []
    for (before, shown), score, level, marked in zip(places, scores, shade, marks, strict=True):
        tag = "mark" if marked else "span"
        style = f' style="--s:{100 * level:.0f}%"' if level >= 0.005 else ""
        pieces.append(
            f'{escaped(before)}<{tag}{style} title="{score:.4g}">{escaped(shown)}</{tag}>'
        )
    box = ' tabindex="0" role="group" aria-label="Text with scores"' if len(text) > _LONG else ""
    return f'<p class="text" dir="auto"{box}>{"".join(pieces)}{escaped(rest)}</p>'


def _image_map(
    row: int,
    size: tuple[int, int],
    patches: Sequence[Patch],
    shade: Array,
    marks: Array,
    said: str,
) -> str:
    from PIL import Image

    width, height = size
    shape = 1 + max(p.row for p in patches), 1 + max(p.column for p in patches)
    heat = np.zeros((*shape, 4), np.uint8)
    heat[..., :3] = _HOT
    # By the square, so that a photograph keeps its colours where little speaks for the concept.
    for patch, level in zip(patches, shade, strict=True):
        heat[patch.row, patch.column, 3] = round(190 * level**2)
    boxes = np.array([patch.box for patch in patches])
    (left, top), (right, bottom) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    scale = _SHOWN / max(width, height)
    line = "".join("M{:g} {:g}L{:g} {:g}".format(*edge) for edge in outline_of(patches, marks))
    # A light line in a dark one is seen on any ground.
    frames = "".join(
        f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="{thick / scale:.3g}" '
        'stroke-linecap="square"/>'
        for colour, thick in (("#111", 4), ("#fff", 2))
    )
    return (
        f'<svg class="map" viewBox="0 0 {width} {height}" width="{width * scale:.0f}" '
        f'height="{height * scale:.0f}" role="img" aria-label="Image {row}, strongest at '
        f'{said}"><use href="#image-{row}"/><image class="heat" '
        f'href="{_data_uri(Image.fromarray(heat, "RGBA"), "PNG")}" x="{left:g}" y="{top:g}" '
        f'width="{right - left:g}" height="{bottom - top:g}" preserveAspectRatio="none"/>'
        f"{frames if line else ''}</svg>"
    )


def legend(scale: Scale, is_image: bool, frame: str) -> str:
    """Say what colours and frames mean.

    Parameters
    ----------
    scale : Scale
        Of the colours.
    is_image : bool
        Whether they lie over images.
    frame : str
        What a frame means, plain text; empty where there are none.

    Returns
    -------
    html : str
        A line.
    """
    kind = " image" if is_image else ""
    what = "patch" if is_image else "token"
    frames = f" Framed: {escaped(frame)}." if frame else ""
    return (
        f'<p class="quiet">Score of a {what}: {number(scale.low)} (median, no colour)'
        f'<span class="scale{kind}" aria-hidden="true"></span>{number(scale.high)} (the strongest).'
        f"{frames}</p>"
    )
