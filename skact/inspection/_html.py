"""Heat maps as HTML that stands alone: no script, nothing loaded, every text escaped."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from skact.files import in_one_step
from skact.rows import Array

__all__ = [
    "document",
    "escaped",
    "is_dark",
    "page",
    "patch_map",
    "text_pieces",
    "titled",
    "token_map",
]


# Longest side of an embedded image; patches are drawn over it as vectors.
_SIDE = 320
_FONT = "font:14px/1.9 system-ui,sans-serif"
# HTML holds none of them; each has a symbol that is seen. Half of a surrogate pair fits no file.
_CONTROLS = {c: 0x2400 + c for c in range(32) if chr(c) not in "\t\n\r"} | {0x7F: 0x2421}
_CONTROLS |= dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)


def escaped(text: str) -> str:
    """Turn a text into HTML.

    Parameters
    ----------
    text : str
        Anything.

    Returns
    -------
    html : str
        Without markup, and with symbols in the place of control characters.
    """
    return escape(text.translate(_CONTROLS))


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
    body = f'<body style="margin:2em;background:#fff">\n{body}\n</body>'
    return document(title, body, policy, path=path)


def document(
    title: str,
    body: str,
    policy: str,
    *,
    head: str = "",
    path: str | os.PathLike[str] | None = None,
) -> str:
    """Put a body into a document.

    Parameters
    ----------
    title : str
        Plain text, escaped here.
    body : str
        The whole element, escaped where it was made.
    policy : str
        What the document may load and run.
    head : str, default=""
        More lines of the head, each with its end.
    path : str or path-like, default=None
        Also write it there, in one step; the folder has to be there.

    Returns
    -------
    html : str
        A whole document.
    """
    html = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escaped(title)}</title>\n{head}</head>\n{body}\n</html>\n"
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
    head = "" if title is None else f'<div style="font-weight:600">{escaped(title)}</div>'
    return f'<div style="{_FONT};color:#111">{head}{body}</div>'


def text_pieces(text: str, tokens: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Cut a text at its tokens, so that the pieces show all of it once.

    Parameters
    ----------
    text : str
        The text.
    tokens : sequence of n_tokens Token
        Its tokens, in order; they may overlap.

    Yields
    ------
    before, shown : str
        Of each token what stands before it and belongs to none, and what it shows: its own
        characters, or its name where it has none. At last what comes behind all, and nothing.
    """
    end = 0
    for token in tokens:
        start = max(token.start, end)
        before, end = text[end:start], max(token.end, end)
        yield before, text[start:end] if token.end > token.start else token.text
    yield text[end:], ""


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
    *places, (rest, _) = text_pieces(text, tokens)
    pieces = []
    for (before, shown), colour, score, framed in zip(
        places, colours, scores, outlined, strict=True
    ):
        ink = "#fff" if is_dark(colour) else "#111"
        frame = ";outline:2px solid #111;outline-offset:-1px" if framed else ""
        pieces.append(
            f'{escaped(before)}<span title="{score:.4g}" style="background:{_css(colour)};'
            f'color:{ink};padding:2px 0;border-radius:2px{frame}">{escaped(shown)}</span>'
        )
    pieces.append(escaped(rest))
    return (
        '<div dir="auto" style="white-space:pre-wrap;overflow-wrap:anywhere;max-width:44em">'
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
