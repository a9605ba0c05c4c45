"""What a picture reads from a fitted localizer."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline

from skact.detection import superactivators
from skact.models import Token
from skact.rows import Array

__all__ = [
    "attributions",
    "center_of",
    "find_concept",
    "flat_chat",
    "is_localizer",
    "is_many",
    "method_name",
    "tokens_and_marks",
]


_PARTS = ("embedder", "concepts", "detector")


def is_localizer(estimator: Any) -> bool:
    """Tell whether an estimator has maps of raw samples, and the parts they come from."""
    return all(hasattr(estimator, name) for name in ("games", *_PARTS))


def find_concept(names: Any, concept: int | str) -> tuple[int, str]:
    """Return number and name of a concept that is given by either."""
    known = list(names)
    is_one = isinstance(concept, Hashable) and not isinstance(concept, bool | np.bool_)
    if not is_one or (concept not in known and concept not in range(len(known))):
        numbers = "0" if len(known) == 1 else f"0 to {len(known) - 1}"
        raise ValueError(f"concept must be one of {known} or of {numbers}, got {concept!r}.")
    number = known.index(concept) if concept in known else int(concept)
    return number, str(known[number])


def flat_chat(chat: Sequence[Mapping[str, Any]], tokens: Any) -> tuple[str, list[Token]]:
    """Write a chat as one text, each message behind its role, and its tokens as tokens of that.

    Parameters
    ----------
    chat : sequence of {"role": str, "content": str}
        The chat.
    tokens : sequence of ChatToken
        Its tokens.

    Returns
    -------
    text : str
        The chat.
    tokens : list of Token
        The same tokens.
    """
    text, starts = "", []
    for message in chat:
        text += f"{message['role']}: "
        starts.append(len(text))
        text += f"{message['content']}\n"
    moved = [Token(t.text, t.start + starts[t.message], t.end + starts[t.message]) for t in tokens]
    return text.rstrip("\n"), moved


def is_many(samples: Any) -> bool:
    """Tell a container of raw samples from one text, chat, image or path."""
    if isinstance(samples, list | tuple):
        is_chat = bool(samples) and all(isinstance(message, Mapping) for message in samples)
        return not is_chat
    shape = getattr(samples, "shape", None)
    if isinstance(shape, tuple):
        return len(shape) not in (2, 3)
    return any(hasattr(samples, name) for name in ("to_pylist", "to_list", "tolist"))


def tokens_and_marks(localizer: Any, sample: Any, concept: int) -> tuple[Sequence[Any], Array]:
    """Tokens of one raw sample, and which of them are SuperActivators of a concept."""
    parts = Pipeline([(name, getattr(localizer, name)) for name in _PARTS])
    marks = superactivators(parts, [sample])[0][:, concept]
    return localizer.embedder.tokens_of([sample])[0], marks


def attributions(
    localizer: Any, sample: Any, concept: int, methods: Sequence[Any]
) -> dict[str, Array]:
    """Map a concept in one raw sample; NaN where there is none, which the picture shows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*their maps are NaN")
        maps = localizer.compare([sample], methods)
    return {name: found[0][:, concept] for name, found in maps.items()}


def method_name(method: Any) -> str:
    """Return the name of a method that is a name, an object, or an object that was written out."""
    return str(getattr(method, "name", method)).partition("(")[0].lower()


def center_of(method: Any, scores: npt.ArrayLike) -> float:
    """Return the attribution that speaks neither for nor against a concept."""
    known = np.asarray(scores, dtype=np.float64)
    known = known[np.isfinite(known)]
    # RISE gives expected values, whose zero means nothing; they are read against their mean.
    return float(known.mean()) if method_name(method) == "rise" and len(known) else 0.0
