"""What a model is asked to write, as data."""

from __future__ import annotations

import string
from collections.abc import Mapping

__all__ = ["EMBEDDING_PROMPTS", "TOPICS", "WRITING_PROMPTS", "check_prompts"]

_EMBED = (
    "Write a short comment of two to four sentences, as somebody would post it. {place} must be "
    "this text, word for word and only once:\n\n{original}\n\nThe other sentences are calm and "
    "plain: they give the occasion and show no {concept}. Answer with the comment alone."
)
_PLACES = {
    "start": "Its beginning",
    "middle": "Its middle, with a sentence before and after,",
    "end": "Its end",
}
#: Of :func:`embed_in_paragraphs`, by structure.
EMBEDDING_PROMPTS = {name: _EMBED.replace("{place}", words) for name, words in _PLACES.items()}
#: Of :func:`write_paragraphs`: texts that carry the concept, and texts that do not.
WRITING_PROMPTS = {
    "with": (
        "Write a paragraph of four to eight sentences about {topic}. Exactly one sentence shows "
        "{concept}, dry and in passing; put it between <{tag}> and </{tag}>. All others are meant "
        "as they are said. Answer with the paragraph alone."
    ),
    "without": (
        "Write a paragraph of four to eight sentences about {topic}. Every sentence is meant as it "
        "is said: there is no {concept} in it. Answer with the paragraph alone."
    ),
}
#: What paragraphs are about, unless other topics are given.
TOPICS = (
    "a journey to work",
    "cooking for friends",
    "a new telephone",
    "the weather",
    "moving house",
    "a meeting at the office",
    "a neighbour's garden",
    "learning an instrument",
    "a visit to the dentist",
    "a football match",
    "repairing a bicycle",
    "a day at school",
    "a film",
    "shopping for shoes",
    "a holiday by the sea",
    "an old computer",
)


def check_prompts(prompts: Mapping[str, str], needs: set[str], may: set[str]) -> None:
    """Refuse prompts whose placeholders cannot be filled in, or that lack one.

    Parameters
    ----------
    prompts : mapping of str to str
        Prompts by name.
    needs, may : set of str
        Placeholders that each must have, and may have.

    Raises
    ------
    ValueError
        If there is none, or one does not fit, naming it.
    """
    if not prompts:
        raise ValueError("prompts must hold at least one prompt.")
    for name, prompt in prompts.items():
        if not isinstance(name, str) or not isinstance(prompt, str):
            raise ValueError(f"prompts must be strings by name, got {name!r}: {prompt!r}.")
        try:
            fields = {field for _, field, _, _ in string.Formatter().parse(prompt)} - {None}
        except ValueError as error:
            raise ValueError(f"prompts[{name!r}]: {error}. Write literal braces twice.") from error
        if not needs <= fields <= needs | may:
            words = [", ".join(f"{{{field}}}" for field in sorted(some)) for some in (needs, may)]
            raise ValueError(
                f"prompts[{name!r}] must hold {words[0] or 'nothing'}, and may hold "
                f"{words[1] or 'nothing'}; got {prompt!r}."
            )
