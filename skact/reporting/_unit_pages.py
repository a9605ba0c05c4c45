"""One page on units that were found without labels, for a person who asks what they stand for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from skact import models
from skact.arguments import PATH, Such, checked
from skact.files import check_folder
from skact.inspection import escaped
from skact.models import Patch
from skact.reporting._charts import histogram, number, percent
from skact.reporting._maps import Pictures, Scale, legend, sample_map
from skact.reporting._page import about_model, definition_list, filter_form, link_of, page, table
from skact.reporting._units import (
    COUNT,
    FITTED,
    UNITS,
    check_units,
    directions,
    loading,
    score_parts,
    tokens_in,
    unit_steps,
    where,
)
from skact.rows import Array
from skact.samples import as_list
from skact.tokens import TokenArray

__all__ = ["unit_pages"]

# Strongest tokens that are counted by their text, and rows of that table.
_COUNTED, _ROWS = 100, 10
_WORDS = 8
_NAMES = Such(
    "a dict of unit numbers to names",
    lambda value: (
        isinstance(value, Mapping)
        and all(isinstance(name, str) and name.strip() for name in value.values())
    ),
)


@checked(
    estimator=[FITTED],
    path=[PATH, None],
    units=[UNITS, None],
    names=[_NAMES, None],
    n_units=[COUNT],
    n_examples=[COUNT],
    lens=["boolean", None],
    title=[str, None],
)
def unit_pages(
    estimator: Any,
    samples: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    units: Any = None,
    names: Mapping[int, str] | None = None,
    n_units: int = 24,
    n_examples: int = 5,
    lens: bool | None = None,
    title: str | None = None,
) -> str:
    """Write one page on what units stand for, in the form of :func:`report`.

    For each unit: the distribution of its scores over tokens, the tokens on which it fires most,
    the samples in which it fires most as heat maps, and, where the model has an unembedding, the
    words that its direction speaks for and against (:func:`~skact.models.logit_lens`). A scaler
    before the units is folded into their directions.

    Parameters
    ----------
    estimator : Pipeline
        Fitted, from a TransformerEmbedder to a concept method.
    samples : sequence of n_samples texts, chats or images
        As in :class:`TransformerEmbedder`.
    path : str or path-like, default=None
        Also write the page there, in one step.
    units : sequence of int, default=None
        Numbers of units; None takes those whose scores vary most.
    names : dict of int to str, default=None
        Names of units, as from :func:`name_units`.
    n_units : int, default=24
        Units that are taken where ``units`` is None.
    n_examples : int, default=5
        Samples shown of each unit.
    lens : bool, default=None
        Whether to show words. None shows them where the model has an unembedding; for that a named
        model is loaded with it.
    title : str, default=None
        Of the page.

    Returns
    -------
    html : str
        A whole document.

    Raises
    ------
    TypeError, ValueError
        If the estimator has no units, there is no such unit (in ``names`` too), or ``lens=True``
        and the model has no unembedding, or the units no direction in its residual stream.
    FileNotFoundError, IsADirectoryError
        If there is no folder for ``path``, or it is one.
    """
    steps = unit_steps(estimator)
    known = steps[-1].concept_names_
    chosen = check_units(units, len(known))
    names = _named(names, len(known))
    raw = as_list(samples)
    if path is not None:
        check_folder(path)
    tokens = steps[0].transform(raw)
    if units is None and len(known) > n_units:
        chosen = _liveliest(steps[1:], tokens, n_units)
    words = _words(steps, chosen, lens)
    parts = [part.columns(chosen) for _, part in score_parts(steps[1:], tokens, len(known))]
    scores = TokenArray.concatenate([part.with_source(None) for part in parts])
    called = [names.get(int(k), str(known[k])) for k in chosen]
    pictures, shown = Pictures(), []
    for at, (unit, name) in enumerate(zip(chosen.tolist(), called, strict=True)):
        said = words[at] if words else None
        column = scores.columns([at])
        shown.append(_part(at, unit, name, steps[0], raw, column, n_examples, said, pictures))
    body = (
        pictures.definitions()
        + filter_form("Unit", "units", called, {})
        + f'<main id="main" tabindex="-1">{"".join(shown)}</main>'
    )
    which = "" if len(chosen) == len(known) else ", those asked for"
    if units is None and which:
        which = ", those whose scores vary most"
    about = [
        f"{about_model(steps[0], len(raw))}. {len(chosen)} of {len(known)} units of "
        f"{type(steps[-1]).__name__}{which}.",
        "A unit has no meaning by itself: what it fires on suggests one, for such samples.",
    ]
    return page(title or "What units stand for", about, body, path)


def _named(names: Mapping[int, str] | None, n_units: int) -> dict[int, str]:
    """Check that names are those of units."""
    for key in names or {}:
        is_number = isinstance(key, Integral) and not isinstance(key, bool)
        if not is_number or key not in range(n_units):
            raise ValueError(
                f"names must be by the numbers of units, ints from 0 to {n_units - 1}, got {key!r}."
            )
    return {int(key): name for key, name in (names or {}).items()}


def _liveliest(steps: Sequence[Any], tokens: Any, n_units: int) -> Array:
    """Units whose scores have the largest variance, in the order of their numbers."""
    names = steps[-1].concept_names_
    n, mean, squares = 0, np.zeros(len(names)), np.zeros(len(names))
    for _, part in score_parts(steps, tokens, len(names)):
        values = part.flat()
        m, own = len(values), values.mean(axis=0, dtype=np.float64)
        squares += values.var(axis=0, dtype=np.float64) * m + (own - mean) ** 2 * n * m / (n + m)
        mean, n = mean + (own - mean) * m / (n + m), n + m
    return np.sort(np.argsort(-squares, kind="stable")[:n_units])


def _words(
    steps: Sequence[Any], units: Array, lens: bool | None
) -> list[tuple[list[models.LensWord], list[models.LensWord]]] | None:
    """Words that each unit speaks for and against; None where there are none."""
    embedder = steps[0]
    if lens is False:
        return None
    try:
        if embedder.reader.loaded.modality != "text":
            raise ValueError("the model reads images, and has no words.")
        vectors = directions(steps, units)
        found = [
            models.logit_lens(embedder.model, sign * vectors, top=_WORDS, **loading(embedder))
            for sign in (1, -1)
        ]
    except ValueError as error:
        if lens:
            raise ValueError(f"lens=True, but {error}") from error
        return None
    return list(zip(*found, strict=True))


def _part(
    at: int,
    unit: int,
    name: str,
    embedder: Any,
    samples: list[Any],
    scores: TokenArray,
    n_examples: int,
    words: tuple[list[models.LensWord], list[models.LensWord]] | None,
    pictures: Pictures,
) -> str:
    flat, highest = scores.flat()[:, 0], scores.max()[:, 0]
    fires = flat != 0
    facts = {
        "Unit": unit,
        "Tokens on which it fires": None if fires.all() else percent(float(fires.mean())),
        "Largest score": number(float(flat.max())),
        "Median score": number(float(np.median(flat))),
    }
    head = (
        f'<section class="part" id="{link_of(at)}" data-part="{at}" aria-labelledby="name-{at}">'
        f'<h2 id="name-{at}">{escaped(name)}</h2>{definition_list(facts.items())}{_lens(words)}'
    )
    if not fires.any():
        return f"{head}<p>It fires on no token of these samples.</p></section>"
    best = np.argsort(-flat, kind="stable")[: min(_COUNTED, int(fires.sum()))]
    sample, token = where(best, scores.lengths)
    shown = np.argsort(-highest, kind="stable")[:n_examples]
    shown = shown[highest[shown] != 0]
    tokens = tokens_in(embedder, samples, np.append(sample, shown))
    counted = [tokens[i][j] for i, j in zip(sample.tolist(), token.tolist(), strict=True)]
    is_image, scale = isinstance(counted[0], Patch), Scale.of(flat)
    items = "".join(
        f'<li class="sample"><p><strong>Sample {i}</strong> <span class="quiet">highest score '
        f"{number(float(highest[i]))}</span></p>"
        f"{_unframed(i, samples[i], tokens[i], scores[i][:, 0], scale, pictures)}</li>"
        for i in shown.tolist()
    )
    groups = [("all tokens" if fires.all() else "tokens on which it fires", flat[fires])]
    return (
        f"{head}{'' if is_image else _counts(name, counted, flat[best])}"
        f"<h3>Scores of tokens</h3>{histogram(groups, None, 'tokens')}<h3>Strongest samples</h3>"
        f'{legend(scale, is_image, "")}<ol class="samples{" images" if is_image else ""}">{items}'
        "</ol></section>"
    )


def _unframed(
    i: int, sample: Any, tokens: Any, scores: Array, scale: Scale, pictures: Pictures
) -> str:
    return sample_map(i, sample, tokens, scores, np.zeros(len(tokens), bool), scale, pictures)


def _lens(words: tuple[list[models.LensWord], list[models.LensWord]] | None) -> str:
    if words is None:
        return ""
    lists = "".join(
        f'<h3>{said}</h3><ul class="words">'
        + "".join(f'<li dir="auto">{escaped(word.word) or "&nbsp;"}</li>' for word in some)
        + "</ul>"
        for said, some in zip(
            ("Words that it speaks for", "Words that it speaks against"), words, strict=True
        )
    )
    return f'<div class="lens">{lists}</div>'


def _counts(name: str, tokens: Sequence[Any], scores: Array) -> str:
    """Table of the strongest tokens by their text."""
    if not tokens:
        return ""
    texts = [token.text.strip() for token in tokens]
    count = Counter(texts)
    best: dict[str, float] = {}
    for text, score in zip(texts, scores.tolist(), strict=True):
        best.setdefault(text, score)
    rows = [
        [f"<q><bdi>{escaped(text)}</bdi></q>", str(n), number(best[text])]
        for text, n in sorted(count.items(), key=lambda item: (-item[1], -best[item[0]]))[:_ROWS]
    ]
    heads = ("Token", f"Times among the {len(tokens)} strongest", "Highest score")
    return table(f"Top tokens: {name}", heads, rows)
