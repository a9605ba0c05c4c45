"""Heat maps as HTML that stands alone: no script, nothing loaded, every text escaped."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from skact.files import in_one_step
from skact.rows import Array

__all__ = ["is_dark", "page", "patch_map", "titled", "token_map"]


# Longest side of an embedded image; patches are drawn over it as vectors.
_SIDE = 320
_FONT = "font:14px/1.9 system-ui,sans-serif"


def page(title: str, body: str, path: str | os.PathLike[str] | None = None) -> str:
    """Wrap a fragment into a page that may load nothing and run nothing.

    Parameters
    ----------
    title : str
        Plain text, escaped here.
    body : str
        HTML, escaped where it was made.
    path : str or path-like, default=None
        Also write it there, in one step; the folder has to be there.

    Returns
    -------
    html : str
        A whole document.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    html = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n</head>\n"
        f'<body style="margin:2em;background:#fff">\n{body}\n</body>\n</html>\n'
    )
    if path is not None:
        with in_one_step(Path(path)) as file:
            file.write_text(html, encoding="utf-8")
    return html


def titled(title: str | None, body: str) -> str:
    """Put a heading over a map.

    Parameters
    ----------
    title : str or None
        Plain text, escaped here.
    body : str
        HTML.

    Returns
    -------
    html : str
        A fragment.
    """
    head = "" if title is None else f'<div style="font-weight:600">{escape(title)}</div>'
    return f'<div style="{_FONT};color:#111">{head}{body}</div>'


def token_map(
    text: str, tokens: Sequence[Any], colours: Array, scores: Array, outlined: Array
) -> str:
    """Lay coloured tokens into their text.

    Parameters
    ----------
    text : str
        The text, shown whole.
    tokens : sequence of n_tokens Token
        Its tokens, in order. A special token shows its name.
    colours : ndarray of shape (n_tokens, 4)
        Red, green, blue and opacity in [0, 1].
    scores : ndarray of shape (n_tokens,)
        Shown when the pointer rests on a token.
    outlined : ndarray of shape (n_tokens,), dtype bool
        Tokens with a frame.

    Returns
    -------
    html : str
        A fragment.
    """
    pieces, end = [], 0
    for token, colour, score, framed in zip(tokens, colours, scores, outlined, strict=True):
        # Characters that belong to no token stay plain; overlaps are shown once.
        start = max(token.start, end)
        pieces.append(escape(text[end:start]))
        end = max(token.end, end)
        shown = text[start:end] if token.end > token.start else token.text
        ink = "#fff" if is_dark(colour) else "#111"
        frame = ";outline:2px solid #111;outline-offset:-1px" if framed else ""
        pieces.append(
            f'<span title="{score:.4g}" style="background:{_css(colour)};color:{ink};'
            f'padding:2px 0;border-radius:2px{frame}">{escape(shown)}</span>'
        )
    pieces.append(escape(text[end:]))
    return (
        '<div style="white-space:pre-wrap;overflow-wrap:anywhere;max-width:44em">'
        f"{''.join(pieces)}</div>"
    )


def patch_map(
    image: Any,
    patches: Sequence[Any],
    colours: Array,
    scores: Array,
    outline: Sequence[tuple[float, float, float, float]],
) -> str:
    """Lay coloured patches over their image.

    Parameters
    ----------
    image : PIL image
        Embedded as PNG, reduced if it is large.
    patches : sequence of n_tokens Patch
        Boxes in pixels of the image.
    colours : ndarray of shape (n_tokens, 4)
        Red, green, blue and opacity in [0, 1].
    scores : ndarray of shape (n_tokens,)
        Shown when the pointer rests on a patch.
    outline : sequence of tuple of float
        Lines ``(x, y, x, y)`` around SuperActivators, in pixels of the image.

    Returns
    -------
    html : str
        A fragment.
    """
    width, height = image.size
    scale = _SIDE / max(width, height)
    shapes = []
    for patch, colour, score in zip(patches, colours, scores, strict=True):
        left, top, right, bottom = patch.box
        shapes.append(
            f'<rect x="{left:g}" y="{top:g}" width="{right - left:g}" height="{bottom - top:g}" '
            f'fill="{_css(colour)}" fill-opacity="{colour[3]:.3f}">'
            f"<title>{score:.4g}</title></rect>"
        )
    line = "".join("M{:g} {:g}L{:g} {:g}".format(*edge) for edge in outline)
    # A light line in a dark one is seen on any ground.
    for colour, size in (("#111", 4), ("#fff", 2)):
        shapes.append(
            f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="{size / scale:.3g}" '
            'stroke-linecap="square"/>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width * scale:.0f}" height="{height * scale:.0f}" role="img">'
        f'<image href="{_data_uri(image)}" width="{width}" height="{height}"/>'
        f"{''.join(shapes)}</svg>"
    )


def is_dark(colour: Array) -> bool:
    """Tell whether text on this colour has to be white.

    Parameters
    ----------
    colour : ndarray of shape (4,)
        Red, green, blue and opacity in [0, 1].

    Returns
    -------
    dark : bool
        By the weights of the eye.
    """
    return bool(0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2] < 0.45)


def _css(colour: Array) -> str:
    return "#" + "".join(f"{int(c):02x}" for c in np.rint(255 * colour[:3]))


def _data_uri(image: Any) -> str:
    small = image.copy()
    small.thumbnail((2 * _SIDE, 2 * _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
