"""Chats as samples: which turns count, and which characters of a message a token covers.

The model reads the whole chat as its template renders it. What does not count, markup and other
turns, is context: read, and no token of the sample.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from skact.models._processors import calling
from skact.models._template import ChatTokens, chat_tokens, check_messages
from skact.models._text import Encoded, check_span, each_span
from skact.rows import Array, offsets_of

__all__ = [
    "ChatToken",
    "are_chats",
    "chat_key",
    "chat_spans",
    "chat_texts",
    "check_chats",
    "encode_chats",
    "list_chat_tokens",
]

Chat = Sequence[Mapping[str, Any]]


class ChatToken(NamedTuple):
    """One token of a chat.

    Parameters
    ----------
    text : str
        The characters ``content[start:end]`` of its message.
    start, end : int
        Code points of the content of its message.
    message : int
        Number of the message.
    """

    text: str
    start: int
    end: int
    message: int


def are_chats(samples: Sequence[Any]) -> bool:
    """Tell chats from texts, by the first sample."""
    return isinstance(samples[0], list | tuple) and all(isinstance(m, Mapping) for m in samples[0])


def check_chats(
    samples: Sequence[Any], tokenizer: Any, numbers: Sequence[int] | None = None
) -> list[Chat]:
    """Refuse what is no chat, and models that know none.

    Parameters
    ----------
    samples : sequence
        To be lists of ``{"role": str, "content": str}``.
    tokenizer : tokenizer of transformers
        With a chat template.
    numbers : sequence of int or None, default=None
        Number of each sample in what the user gave; None counts from 0.

    Returns
    -------
    chats : list
        The same.

    Raises
    ------
    ValueError, TypeError
        If the model has no chat template, or a sample is no chat, naming its number.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"the samples are chats, but {type(tokenizer).__name__} has no chat template; give "
            "texts, take an instruction-tuned model, or set chat_template on the tokenizer."
        )
    for i, chat in zip(_numbers(samples, numbers), samples, strict=True):
        try:
            check_messages(chat)
        except (TypeError, ValueError) as error:
            raise type(error)(f"sample {i}: {error}") from None
    return list(samples)


def _numbers(samples: Sequence[Any], numbers: Sequence[int] | None) -> Sequence[int]:
    return range(len(samples)) if numbers is None else numbers


def _counted(chat: Chat, which: str, i: int) -> list[int]:
    """Messages that count."""
    if which == "all":
        return list(range(len(chat)))
    if which == "last":
        return [len(chat) - 1]
    found = [k for k, message in enumerate(chat) if message["role"] == which]
    if not found:
        roles = ", ".join(sorted({repr(message["role"]) for message in chat}))
        raise ValueError(
            f"sample {i} has no turn of the role chat_tokens={which!r}; its roles are {roles}. "
            '"all" and "last" take turns of any role.'
        )
    return found


def encode_chats(
    chats: Sequence[Chat],
    tokenizer: Any,
    *,
    which: str,
    max_length: int | None,
    sink: int | None = None,
    numbers: Sequence[int] | None = None,
) -> Encoded:
    """Render chats to tokens, of which those of some turns count.

    Parameters
    ----------
    chats : sequence of n_samples chats
        From :func:`check_chats`.
    tokenizer : tokenizer of transformers
        With a chat template.
    which : {"all", "last"} or str
        Turns that count; a role takes those of that role.
    max_length : int or None
        Positions that a chat is cut to, on the tokenizer's truncation side.
    sink : int or None, default=None
        Token to put before chats that begin with no control token of their template, as where the
        cut has taken it; it is none of the sample.
    numbers : sequence of int or None, default=None
        Number of each sample in what the user gave; None counts from 0.

    Returns
    -------
    encoded : Encoded
        The positions of all chats, with their characters in :func:`chat_texts`.

    Raises
    ------
    ValueError
        If a chat has no turn or no token that counts, naming its number, or as
        :func:`chat_tokens` says.
    """
    ids, spans, is_token, is_cut = [], [], [], []
    for i, chat in zip(_numbers(chats, numbers), chats, strict=True):
        counted = _counted(chat, which, i)
        try:
            with calling(tokenizer):
                tokens = chat_tokens(tokenizer, chat)
        except (TypeError, ValueError) as error:
            raise type(error)(f"sample {i}: {error}") from None
        is_cut.append(max_length is not None and len(tokens.ids) > max_length)
        tokens = _fitted(tokens, tokenizer, max_length, sink)
        ids.append(tokens.ids)
        is_token.append(np.isin(tokens.message, counted))
        spans.append(tokens.spans + _starts(chat)[tokens.message][:, None])
        if not is_token[-1].any():
            raise ValueError(
                f"sample {i} has no token left in the turns that count (chat_tokens={which!r}, "
                f"max_length={max_length})."
            )
    return Encoded(
        np.concatenate(ids),
        offsets_of([len(one) for one in ids]),
        np.concatenate(is_token),
        np.concatenate(spans),
        np.array(is_cut),
    )


def _fitted(
    tokens: ChatTokens, tokenizer: Any, max_length: int | None, sink: int | None
) -> ChatTokens:
    """Cut a chat to its length, and let it begin with a token that takes the attention sink."""
    n, room = len(tokens.ids), max_length or len(tokens.ids) + 1
    left = tokenizer.truncation_side == "left"
    begins = tokens.ids[0] in tokenizer.all_special_ids and not (left and n > room)
    if sink is None or begins:
        part = slice(-room, None) if left else slice(room)
        return ChatTokens(*(values[part] for values in tokens))
    room -= 1
    part = slice(max(n - room, 0), None) if left else slice(room)
    ids, message, spans = (values[part] for values in tokens)
    none = np.zeros((1, 2), np.int64)
    return ChatTokens(np.append(sink, ids), np.append(-1, message), np.concatenate([none, spans]))


def chat_key(chat: Chat) -> bytes:
    """Content of a chat, as bytes."""
    said = [[message["role"], message["content"]] for message in chat]
    return b"chat\n" + json.dumps(said, ensure_ascii=False).encode()


def _starts(chat: Chat) -> Array:
    """Where the content of each message begins in all contents, one behind the other."""
    return offsets_of([len(message["content"]) for message in chat])


def chat_texts(chats: Sequence[Chat]) -> list[str]:
    """Contents of the messages of each chat, one behind the other."""
    return ["".join(message["content"] for message in chat) for chat in chats]


def chat_spans(chats: Sequence[Chat], spans: Any) -> list[list[tuple[int, int, Any]]]:
    """Take labelled spans of messages to :func:`chat_texts`.

    Parameters
    ----------
    chats : sequence of n_samples chats
        From :func:`check_chats`.
    spans : sequence of n_samples sequences of (message, start, end, label)
        Labelled spans of each chat.

    Returns
    -------
    spans : list of list of (start, end, label)
        The same.

    Raises
    ------
    ValueError
        If a span does not fit its message, naming both, or its label is no name.
    TypeError
        If start or end is no int.
    """
    out: list[list[tuple[int, int, Any]]] = [[] for _ in chats]
    for i, where, span in each_span(spans, len(chats), "chat"):
        try:
            message, start, end, label = span
            length = len(dict(enumerate(chats[i]))[operator.index(message)]["content"])
        except (TypeError, ValueError, KeyError):
            raise ValueError(
                f"{where} must be (message, start, end, label) with one of the {len(chats[i])} "
                f"messages, got {span!r}."
            ) from None
        check_span(where, start, end, label, length)
        first = int(_starts(chats[i])[message])
        out[i].append((first + int(start), first + int(end), label))
    return out


def list_chat_tokens(chat: Chat, spans: Array) -> list[ChatToken]:
    """Name tokens of a chat by their characters in its :func:`chat_texts`."""
    starts, tokens = _starts(chat), []
    messages = np.searchsorted(starts, spans[:, 0], side="right") - 1
    for message, (start, end) in zip(messages.tolist(), spans.tolist(), strict=True):
        start, end = start - int(starts[message]), end - int(starts[message])
        tokens.append(ChatToken(chat[message]["content"][start:end], start, end, message))
    return tokens
