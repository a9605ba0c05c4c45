"""Fonts for any text: what the default font lacks comes from another installed one, or is a box."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any

__all__ = ["columns_of", "drawable", "set_title"]

_BOX = "\N{WHITE SQUARE}"
# Fonts that hold what others lack are tried first.
_LIKELY = ("cjk", "emoji", "symbola", "symbol", "unifont", "noto", "hei", "mincho", "gothic")


@cache
def _glyphs(path: str) -> frozenset[int]:
    """Characters that a font draws; none where it is of a kind that matplotlib cannot read."""
    from matplotlib.font_manager import get_font

    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):  # bitmaps in colour
        return frozenset()


@cache
def _installed() -> list[tuple[str, str]]:
    """Family and file of the plain fonts of this machine, likely ones first."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    # What was installed after matplotlib last looked is not in its list.
    for path in set(findSystemFonts()) - {f.fname for f in fontManager.ttflist}:
        with suppress(OSError, RuntimeError, ValueError):
            fontManager.addfont(path)
    fonts = {
        f.name: f.fname
        for f in fontManager.ttflist
        # The one of last resort has a box for everything; ours is smaller.
        if f.style == "normal" and f.weight == 400 and "last resort" not in f.name.lower()
    }
    likely = {
        name: next((i for i, word in enumerate(_LIKELY) if word in name.lower()), len(_LIKELY))
        for name in fonts
    }
    return sorted(fonts.items(), key=lambda item: (likely[item[0]], item[0]))


@cache
def _family_with(character: int) -> str | None:
    return next((name for name, path in _installed() if character in _glyphs(path)), None)


def drawable(texts: Iterable[str], family: str) -> tuple[list[str], list[str]]:
    """Find fonts that draw texts without a warning.

    Parameters
    ----------
    texts : iterable of str
        The texts.
    family : str
        The font that draws what it can.

    Returns
    -------
    texts : list of str
        With a box for what no installed font has.
    families : list of str
        The font, and those that have what it lacks.
    """
    from matplotlib.font_manager import FontProperties, findfont

    own = _glyphs(findfont(FontProperties(family=[family])))
    texts = [unicodedata.normalize("NFC", text) for text in texts]
    lacking = sorted({ord(c) for text in texts for c in text if c != "\n"} - own)
    found = {character: _family_with(character) for character in lacking}
    # What has no shape of its own, such as a joiner or a selector, needs no box.
    instead = {
        c: "" if unicodedata.category(chr(c)) in ("Cf", "Mn", "Me", "Cc") else _BOX
        for c, name in found.items()
        if name is None
    }
    others = dict.fromkeys(name for name in found.values() if name is not None)
    return [text.translate(instead) for text in texts], [family, *others]


def columns_of(text: str) -> int:
    """Count the columns of a text in a font of fixed width: two for wide characters.

    Parameters
    ----------
    text : str
        The text.

    Returns
    -------
    n_columns : int
        None for marks that stand over others.
    """
    return sum(
        0
        if unicodedata.combining(c) or unicodedata.category(c) == "Cf"
        else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def set_title(target: Any, title: str | None, **options: Any) -> None:
    """Put plain text over axes or over a figure, whatever its script.

    Parameters
    ----------
    target : Axes or Figure
        What it stands over.
    title : str or None
        The text; None leaves axes untitled.
    **options
        For the text.
    """
    from matplotlib import rcParams

    (shown,), families = drawable([title or ""], rcParams["font.family"][0])
    write = target.suptitle if hasattr(target, "suptitle") else target.set_title
    # Without a change of font the style of the user's figure stays.
    extra = {"family": families} if len(families) > 1 else {}
    write(shown, parse_math=False, **extra, **options)
