"""Find a text again in a draft that was to quote it, as strictly as the draft allows.

Five steps, each more lenient than the one before; the first that finds the text decides: as it is;
in another case; with other white space; with other punctuation; and last the run of as many words
that shares most words with it, if that share is large enough.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from numbers import Real
from typing import NamedTuple

from skact.arguments import Number, checked

__all__ = ["STEPS", "Quote", "find_original"]

STEPS = ("exact", "case", "white space", "punctuation", "word overlap")
_APOSTROPHES = "'’"
_WORD = re.compile(r"\w+(?:['’]\w+)*")


class Quote(NamedTuple):
    """Where a text stands in a draft.

    Parameters
    ----------
    start, end : int
        Offsets in code points: the text is ``draft[start:end]``.
    step : {"exact", "case", "white space", "punctuation", "word overlap"}
        The strictest step that found it.
    n_found : int
        How often that step found it.

    Examples
    --------
    >>> from skact.augmentation import find_original
    >>> find_original("So nice!", "It rained. so nice. I left.").step
    'punctuation'
    """

    start: int
    end: int
    step: str
    n_found: int


@checked(original=[str], draft=[str], min_overlap=[Number(Real, 0, 1, closed="right")])
def find_original(original: str, draft: str, *, min_overlap: float = 0.8) -> Quote | None:
    """Find a text in a draft, by the strictest step that does.

    Parameters
    ----------
    original : str
        The text; it must hold a letter or a digit.
    draft : str
        Where it is looked for, between the ends of words.
    min_overlap : float, default=0.8
        Share of the words of `original`, above 0, that a run of as many words of the draft must
        hold for the last step, each as often as it comes.

    Returns
    -------
    match : Quote or None
        The first place, None if no step finds one.

    Raises
    ------
    ValueError
        If `original` holds neither letter nor digit.

    Examples
    --------
    >>> from skact.augmentation import find_original
    >>> find_original("great weather", "Oh, Great weather today.")
    Quote(start=4, end=17, step='case', n_found=1)
    >>> find_original("great weather", "It rains.") is None
    True
    """
    if not any(c.isalnum() for c in original):
        raise ValueError(f"original must hold a letter or a digit, got {original!r}.")
    for level, step in enumerate(STEPS[:-1]):
        wanted, _ = _reduced(original, level)
        text, places = _reduced(draft, level)
        # Not inside of longer words.
        before, after = (r"(?<!\w)" * _is_word(wanted[0]), r"(?!\w)" * _is_word(wanted[-1]))
        found = list(re.finditer(before + re.escape(wanted) + after, text))
        if found:
            start, end = places[found[0].start()], places[found[0].end() - 1] + 1
            return Quote(start, end, step, len(found))
    return _by_words(original, draft, min_overlap)


def _is_word(character: str) -> bool:
    return re.match(r"\w", character) is not None


def _reduced(text: str, level: int) -> tuple[str, list[int]]:
    """Leave out what a step does not look at, and say which character each one comes from."""
    kept = list(_characters(text, level))
    while level >= 2 and kept and kept[-1][0] == " ":
        kept.pop()
    return "".join(c for c, _ in kept), [place for _, place in kept]


def _characters(text: str, level: int) -> Iterator[tuple[str, int]]:
    last = " "
    for place, original in enumerate(text):
        for c in original.casefold() if level >= 1 else original:
            if level >= 3 and not c.isalnum():
                if c in _APOSTROPHES:
                    continue
                c = " "
            if level >= 2 and c.isspace():
                if last == " ":
                    continue
                c = " "
            last = c
            yield c, place


def _by_words(original: str, draft: str, min_overlap: float) -> Quote | None:
    wanted = Counter(_WORD.findall(original.casefold()))
    n = wanted.total()
    found = [(m[0].casefold(), m.start(), m.end()) for m in _WORD.finditer(draft)]
    runs = [found[i : i + n] for i in range(max(len(found) - n, 0) + 1)]
    shares = [(Counter(word for word, *_ in run) & wanted).total() / n for run in runs]
    best = max(shares)
    if best < min_overlap:
        return None
    run = [place for place in runs[shares.index(best)] if place[0] in wanted]
    return Quote(run[0][1], run[-1][2], STEPS[-1], 1)
