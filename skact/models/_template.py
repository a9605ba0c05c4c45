"""From the messages of a chat to the tokens a model reads, knowing where each one comes from.

A chat template writes markup around what the messages say. What it writes of its own is found by
rendering it once more with a placeholder for each content. Only the template may write control
tokens: where a content spells one (``<|im_end|>``), the text is cut inside of it before it is
tokenised, so that it stays text and opens no turn.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from types import FrameType
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from skact.arguments import check_characters
from skact.models._text import Encoded, locate
from skact.rows import Array, offsets_of

__all__ = ["ChatTokens", "apply_template", "chat_tokens", "check_options"]

Message = Mapping[str, Any]

_MOST_STEPS = 5_000_000
# No text can know it.
_NONCE = uuid4().hex
_PLACEHOLDER = re.compile(rf"{_NONCE}(\d+)n")


class ChatTokens(NamedTuple):
    """Tokens of a chat.

    Parameters
    ----------
    ids : ndarray of shape (n_tokens,), dtype int64
        All that the model reads.
    message : ndarray of shape (n_tokens,), dtype int64
        Number of the message that a token is part of the content of; -1 for markup.
    spans : ndarray of shape (n_tokens, 2), dtype int64
        First and one-past-last character of that content; 0 and 0 for markup.
    """

    ids: Array
    message: Array
    spans: Array


def chat_tokens(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
    template_options: Mapping[str, Any] | None = None,
) -> ChatTokens:
    """Render a chat to tokens, and say of each which message and characters it comes from.

    Parameters
    ----------
    tokenizer : fast tokenizer or processor of transformers
        With a chat template.
    messages : sequence of {"role": str, "content": str}
        The chat.
    add_generation_prompt : bool, default=False
        Whether the markup that begins an answer follows.
    template_options : mapping or None, default=None
        Variables for the template, such as ``{"enable_thinking": False}``.

    Returns
    -------
    tokens : ChatTokens
        Ids as ``apply_chat_template`` gives them, except that control tokens which a content spells
        are text. A token with characters of a content and of markup counts for the content.

    Raises
    ------
    TypeError, ValueError
        If the messages are no chat, naming the first that is none.
    ValueError
        If the template refuses the chat, does not know an option, or does not write each content
        once as it is (but for blanks around it), or if a control token in a content cannot be kept
        as text.
    """
    options = dict(template_options or {})
    check_messages(messages)
    check_options(tokenizer, options)
    reader = getattr(tokenizer, "tokenizer", tokenizer)
    if not reader.is_fast:
        raise ValueError(
            f"{type(reader).__name__} is a slow tokenizer, which does not know the characters of "
            "its tokens; use a fast one."
        )
    text, places = _render(tokenizer, messages, add_generation_prompt, options)
    control = _control_tokens(reader, len(reader), str(tokenizer.chat_template))
    inside = _owners(places, len(text))
    ids, spans = _tokenise(reader, text, _cuts(text, inside, control))
    return _assign(ids, spans, inside, places, control, text)


def check_messages(messages: Any) -> None:
    """Refuse what is no chat.

    Parameters
    ----------
    messages : object
        To be a list of ``{"role": str, "content": str}``.

    Raises
    ------
    TypeError
        If it is not, naming the first message that is none.
    ValueError
        If a role is more than a word, which the template would write as markup, or a content holds
        half of a surrogate pair.
    """
    expected = 'a list of {"role": str, "content": str}'
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise TypeError(f"a chat must be {expected}, got {str(messages)[:60]!r}.")
    for i, message in enumerate(messages):
        said = dict(message) if isinstance(message, Mapping) else {}
        said = {key: value for key, value in said.items() if value is not None}
        if set(said) != {"role", "content"} or not all(isinstance(v, str) for v in said.values()):
            raise TypeError(f"a chat must be {expected}; message {i} is {str(message)[:60]}.")
        if not re.fullmatch(r"[\w.-]+", said["role"]):
            raise ValueError(f"the role of message {i} must be a word, got {said['role'][:60]!r}.")
        check_characters(said["content"], f"message {i}")


def check_options(tokenizer: Any, options: Mapping[str, Any]) -> None:
    """Refuse variables that a chat template would pass over.

    Parameters
    ----------
    tokenizer : tokenizer or processor of transformers
        With a chat template.
    options : mapping
        Variables for it.

    Raises
    ------
    ValueError
        If the template never speaks of one, or one is an argument of ``apply_chat_template``.
    """
    arguments = {"messages", *inspect.signature(tokenizer.apply_chat_template).parameters}
    for name in options:
        if name in arguments - {"tools", "documents"}:
            raise ValueError(f"template_options has {name!r}, which is not the user's to set.")
        if not re.search(rf"\b{re.escape(str(name))}\b", str(tokenizer.chat_template)):
            raise ValueError(
                f"template_options has {name!r}, which the model's chat template does not know."
            )


def apply_template(tokenizer: Any, messages: Any, **options: Any) -> Any:
    """Call ``apply_chat_template``, and say it in our words where the template refuses.

    A template that goes on for more than five million steps, some seconds, is stopped. What it puts
    into one step, such as a text repeated 10**10 times, is not bounded.

    Parameters
    ----------
    tokenizer : tokenizer or processor of transformers
        With a chat template.
    messages : list
        One chat or several.
    **options
        Passed on.

    Returns
    -------
    rendered : object
        What it returns.

    Raises
    ------
    ValueError
        If the template refuses the messages, or does not end.
    """
    try:
        with _bounded():
            return tokenizer.apply_chat_template(messages, **options)
    except Exception as error:
        if not type(error).__module__.startswith("jinja2"):
            raise
        chats = messages if isinstance(messages[0], list) else [messages]
        system = any(message["role"] == "system" for chat in chats for message in chat)
        hint = " Some templates know no system message." if system else ""
        raise ValueError(f"the model's chat template refuses the chat: {error}.{hint}") from error


@contextmanager
def _bounded() -> Iterator[None]:
    """Stop templates that loop: of theirs, and of no other code, the lines that run are counted."""
    before, n_steps = sys.gettrace(), 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal n_steps
        if frame.f_code.co_filename != "<template>":  # the name jinja gives to what has none
            return None
        n_steps += event == "line"
        if n_steps > _MOST_STEPS:
            raise ValueError(
                f"the model's chat template was stopped after {_MOST_STEPS:,} steps; it seems to "
                "loop without an end."
            )
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


class _Place(NamedTuple):
    """Where a content stands in what was rendered: characters, and how many it lost before."""

    message: int
    start: int
    stop: int
    skipped: int


def _render(
    tokenizer: Any, messages: Sequence[Message], prompt: bool, options: dict[str, Any]
) -> tuple[str, list[_Place]]:
    is_processor = hasattr(tokenizer, "tokenizer")

    def render(contents: list[str]) -> str:
        spoken: list[Any] = [
            {**m, "content": [{"type": "text", "text": c}] if is_processor else c}
            for m, c in zip(messages, contents, strict=True)
        ]
        text = apply_template(
            tokenizer, spoken, tokenize=False, add_generation_prompt=prompt, **options
        )
        return _begin(tokenizer, text) if is_processor else str(text)

    contents = [m["content"] for m in messages]
    text = render(contents)
    pieces = _PLACEHOLDER.split(render([f"{_NONCE}{i}n" for i in range(len(contents))]))
    order = list(map(int, pieces[1::2]))
    for i, message in enumerate(messages):
        if order.count(i) != 1:
            raise ValueError(
                f"the model's chat template writes the content of message {i} "
                f"({message['role']}) {order.count(i)} times instead of once."
            )
    places = _find(text, pieces[::2], [contents[i] for i in order])
    if places is None:
        raise ValueError(
            "the model's chat template changes what the messages say, or writes other markup for "
            f"it, so it is not known which tokens are theirs. It begins {text[:80]!r}."
        )
    return text, [_Place(i, *place) for i, place in zip(order, places, strict=True)]


def _find(text: str, markup: list[str], contents: list[str]) -> list[tuple[int, int, int]] | None:
    """Find contents between pieces of markup: start, stop, and characters lost before them."""
    if not text.startswith(markup[0]):
        return None
    places, start = [], len(markup[0])
    for content, after in zip(contents, markup[1:], strict=True):
        fitting = [way for way in _ways(content) if text.startswith(way + after, start)]
        if not fitting:
            return None
        stop = start + len(fitting[0])
        places.append((start, stop, content.index(fitting[0])))
        start = stop + len(after)
    return places if start == len(text) else None


def _ways(content: str) -> dict[str, None]:
    """Give a content as it is, and without some of the blanks around it."""
    blanks = (None, "\n")
    ways = [content, *(content.lstrip(b) for b in blanks), *(content.rstrip(b) for b in blanks)]
    return dict.fromkeys([*ways, *(content.strip(b) for b in blanks)])


def _begin(processor: Any, text: str) -> str:
    """Begin as a processor does, which adds what its tokenizer begins a text with if it misses."""
    reader = processor.tokenizer
    start = reader.bos_token
    adds = start and reader("a")["input_ids"][:1] == [reader.bos_token_id]
    return start + text if adds and not text.startswith(start) else text


@lru_cache(maxsize=8)
def _control_tokens(reader: Any, n_tokens: int, template: str) -> dict[int, str]:
    """Tokens that are more than text, by id: special ones, and those that the template spells."""
    return {
        i: str(token)
        for i, token in reader.added_tokens_decoder.items()
        if token.special or (str(token).strip() and str(token) in template)
    }


def _owners(places: Sequence[_Place], n_characters: int) -> Array:
    """Place of each character of what was rendered, -1 for markup."""
    owners = np.full(n_characters, -1)
    for k, place in enumerate(places):
        owners[place.start : place.stop] = k
    return owners


def _cuts(text: str, owners: Array, control: dict[int, str]) -> list[int]:
    """Characters before which to cut, so that no content spells a control token any more."""
    cuts = set()
    for spelling in {s for s in control.values() if len(s) > 1 and s in text}:
        start = text.find(spelling)
        while start >= 0:
            if (owners[start : start + len(spelling)] >= 0).any():
                cuts.add(start + 1)
            start = text.find(spelling, start + 1)
    return sorted(cuts)


def _tokenise(reader: Any, text: str, cuts: list[int]) -> tuple[Array, Array]:
    edges = [0, *cuts, len(text)]
    pieces = [text[start:stop] for start, stop in pairwise(edges)]
    got = reader(
        pieces, add_special_tokens=False, return_attention_mask=False, return_offsets_mapping=True
    )
    ids = np.array([i for row in got["input_ids"] for i in row], np.int64)
    spans = np.array([s for row in got["offset_mapping"] for s in row], np.int64).reshape(-1, 2)
    rows = Encoded(
        ids,
        offsets_of(list(map(len, got["input_ids"]))),
        np.ones(len(ids), bool),
        spans,
        np.zeros(len(pieces), bool),
    )
    located = locate(rows, pieces, reader, special=False)
    return ids, np.concatenate([s + start for s, start in zip(located, edges, strict=False)])


def _assign(
    ids: Array,
    spans: Array,
    owners: Array,
    places: Sequence[_Place],
    control: dict[int, str],
    text: str,
) -> ChatTokens:
    """Give tokens to messages by their characters."""
    n = len(owners)
    characters = np.where(owners >= 0, np.arange(n), n)
    # The first character of a content at or behind each character.
    first = np.minimum.accumulate(np.append(characters, n)[::-1])[::-1]
    of_content = first[spans[:, 0]] < spans[:, 1]
    number, begin, end, skipped = np.array(places)[owners[first[spans[of_content, 0]]]].T
    start, stop = spans[of_content].T
    # An unknown character may become a control token too, without spelling it.
    spelled = [
        control.get(i) == text[a:b].strip()
        for i, (a, b) in zip(ids[of_content], spans[of_content], strict=True)
    ]
    is_control = np.isin(ids[of_content], list(control)) & spelled
    for k in np.flatnonzero(is_control & (start >= begin) & (stop <= end)):
        raise ValueError(
            f"the content of message {number[k]} spells the control token "
            f"{control[ids[of_content][k]]!r}, which this tokenizer cannot read as text."
        )
    message, within = np.full(len(ids), -1), np.zeros_like(spans)
    message[of_content] = np.where(is_control, -1, number)  # it takes blanks beside it with it
    inside = np.clip(spans[of_content], begin[:, None], end[:, None]) + (skipped - begin)[:, None]
    within[of_content] = np.where(is_control[:, None], 0, inside)
    return ChatTokens(ids, message, within)
