"""Questions in words, and answers read strictly."""

from __future__ import annotations

import json
import re
import string
from typing import Any, NamedTuple

from skact.arguments import checked

__all__ = ["Prompt", "check_options", "check_template", "parse_answer"]

_PLACEHOLDERS = {"concept", "kind"}
# The end of a thought, whose begin the template may have written.
_THOUGHT = re.compile(r".*(?:</think(?:ing)?>|\[/THINK\])", re.IGNORECASE | re.DOTALL)
_ANSWER = re.compile(r"""[\s*"'“”‘’«»`]*(yes|no)(?!['’-]?\w)""", re.IGNORECASE)


class Prompt(NamedTuple):
    """One question about one sample.

    Parameters
    ----------
    sample : str or PIL image
        The text, or the image as RGB.
    concept : str
        What is asked for.
    text : str
        All that is to be said in words: a text followed by the question, or the question alone
        where the sample is an image.
    """

    sample: Any
    concept: str
    text: str


def check_template(prompt: str) -> None:
    """Refuse a question with other placeholders than ``{concept}``, which it needs, and ``{kind}``.

    Parameters
    ----------
    prompt : str
        The question.

    Raises
    ------
    ValueError
        If it does not name the concept, or holds what cannot be filled in.
    """
    needs = f"prompt must hold {{concept}}, and may hold {{kind}}; got {prompt!r}"
    try:
        parts = list(string.Formatter().parse(prompt))
    except ValueError as error:
        raise ValueError(f"{needs}: {error}.") from error
    fields = {name for _, name, _, _ in parts if name is not None}
    if fields - _PLACEHOLDERS:
        unknown = ", ".join(f"{{{name}}}" for name in sorted(fields - _PLACEHOLDERS))
        raise ValueError(f"{needs}: {unknown} is unknown. (Write literal braces twice.)")
    if any(spec or conversion for _, _, spec, conversion in parts):
        raise ValueError(f"{needs}: placeholders take no format.")
    if "concept" not in fields:
        raise ValueError(f"{needs}.")


def check_options(options: dict[str, Any] | None) -> None:
    """Refuse variables of a chat template that a log could not tell apart.

    Parameters
    ----------
    options : dict or None
        Variables by name.

    Raises
    ------
    ValueError
        If a name is no string, or a value is not made of strings, numbers, lists and dicts.
    """
    try:
        plain = json.loads(json.dumps(options)) == options
    except (TypeError, ValueError):
        plain = False
    if not plain:
        raise ValueError(
            "template_options must be a dict of names to strings, numbers, bools, lists or dicts "
            f"of these, got {options!r}."
        )


@checked(text=[str])
def parse_answer(text: str) -> bool | None:
    """Read an answer strictly.

    Parameters
    ----------
    text : str
        What the model said.

    Returns
    -------
    present : bool or None
        True or False if the first word, without quotes, asterisks and punctuation, is yes or no in
        any case, and the other word does not occur; else None. A thought before it, up to
        ``</think>``, is passed over.

    Examples
    --------
    >>> from skact import parse_answer
    >>> [parse_answer(a) for a in ("Yes.", "**no**, it is not", "Yes and no", "Nope", "")]
    [True, False, None, None, None]
    """
    text = _THOUGHT.sub("", text, count=1)
    found = _ANSWER.match(text)
    if found is None:
        return None
    said = found[1].lower()
    other = "no" if said == "yes" else "yes"
    if re.search(rf"\b{other}\b", text, re.IGNORECASE):
        return None
    return said == "yes"
