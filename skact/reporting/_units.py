"""What units stand for: the tokens on which they fire most, as a table, and as names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils._param_validation import StrOptions

from skact.arguments import Number, Such, checked
from skact.base import SEARCHES, steps_of
from skact.detection import BaseDetector
from skact.embedding import TransformerEmbedder
from skact.extras import need
from skact.inspection import through
from skact.models import Patch
from skact.preprocessing import NormClip, PositionContext, SelectLayer, TokenScaler
from skact.rows import Array
from skact.samples import as_list
from skact.tokens import TokenArray

__all__ = [
    "COUNT",
    "FITTED",
    "UNITS",
    "check_units",
    "directions",
    "loading",
    "name_units",
    "score_parts",
    "strongest",
    "tokens_in",
    "top_activations",
    "unit_steps",
    "where",
]

#: Something fitted, and no class.
FITTED = Such("a fitted object", lambda value: not isinstance(value, type))
#: Numbers of units.
UNITS = Such(
    "a list of unit numbers",
    lambda value: isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes),
)
COUNT = Number(Integral, 1, None, closed="left")
# Scores that are held at a time.
_PIECE = 2**24


def unit_steps(estimator: Any) -> list[Any]:
    """List the steps from raw samples to scores of units.

    Parameters
    ----------
    estimator : Pipeline
        Fitted; from a TransformerEmbedder to a concept method. A detector at its end is left out.

    Returns
    -------
    steps : list
        An embedder first, what has scores last.

    Raises
    ------
    TypeError
        If it is something else.
    """
    steps = steps_of(estimator, SEARCHES)
    if steps and isinstance(steps[-1], BaseDetector):
        steps = steps[:-1]
    first, last = (steps[0], steps[-1]) if steps else (estimator, estimator)
    if not isinstance(first, TransformerEmbedder) or not hasattr(last, "concept_names_"):
        raise TypeError(
            "estimator must be a fitted Pipeline from a TransformerEmbedder to a concept method, "
            "so that it reads raw samples and has units; it starts with "
            f"{type(first).__name__} and ends in {type(last).__name__}."
        )
    if first.pooling is not None:
        raise TypeError(f"estimator pools by pooling={first.pooling!r}, so tokens have no scores.")
    return steps


def directions(steps: Sequence[Any], units: Array) -> Array:
    """Return the directions of units in the residual stream, scalers folded in.

    Parameters
    ----------
    steps : sequence
        From :func:`unit_steps`.
    units : ndarray of shape (n_units,), int
        Numbers of units.

    Returns
    -------
    vectors : ndarray of shape (n_units, n_features)
        Where a step of length 1 in the units' own space leads.

    Raises
    ------
    ValueError
        If they have none there.
    """
    embedder, *between, last = steps
    if embedder.site not in ("residual", "attention", "mlp"):
        raise ValueError(
            f"site={embedder.site!r} of estimator is not in the residual stream, so its units "
            "speak for no words."
        )
    vectors = getattr(last, "concept_vectors_", None)
    if vectors is None:
        raise ValueError(f"{type(last).__name__} has no directions.")
    scale = 1.0
    for step in between:
        if isinstance(step, TokenScaler):
            scale *= step.scale_ if step.with_scale else 1.0
        elif not isinstance(step, SelectLayer | NormClip | PositionContext):
            raise ValueError(
                f"estimator has the step {type(step).__name__} before its units, behind which "
                "directions are no longer those of the residual stream."
            )
    found: Array = scale * vectors[units]
    return found


def loading(embedder: Any) -> dict[str, Any]:
    """Say how an embedder loads its model, so that it is loaded with its head in the same way."""
    names = ("device", "dtype", "revision", "trust_remote_code")
    return {name: getattr(embedder, name) for name in names}


def check_units(units: Any, n_units: int) -> Array:
    """Check numbers of units; None means all.

    Raises
    ------
    ValueError
        If one is no int, comes twice, or there is no such unit.
    """
    if units is None:
        return np.arange(n_units)
    numbers = np.asarray(units)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iu":
        raise ValueError(f"units must be a list of one or more ints, got {units!r}.")
    strange = numbers[(numbers < 0) | (numbers >= n_units)]
    if len(strange):
        raise ValueError(f"units holds {strange[0]}, and there are {n_units}, from 0.")
    if len(np.unique(numbers)) < len(numbers):
        raise ValueError(f"units must differ from each other, got {numbers.tolist()}.")
    return numbers


def score_parts(
    steps: Sequence[Any], tokens: Any, n_units: int
) -> Iterator[tuple[int, TokenArray]]:
    """Score tokens of some samples at a time, so that all units of all tokens are never held.

    Parameters
    ----------
    steps : sequence
        From tokens to scores.
    tokens : TokenArray or LayerStack
        Of n_samples samples.
    n_units : int
        Columns of the scores.

    Yields
    ------
    first : int
        Number of the first sample.
    scores : TokenArray of shape (n_some, n_units)
        Its scores, and those of the samples behind it.
    """
    ends = np.cumsum(tokens.lengths)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, before + _PIECE // n_units, side="right"))
        stop = max(stop, start + 1)
        yield start, through(steps, tokens[start:stop])
        start = stop


@checked(estimator=[FITTED], units=[UNITS, None], n_top=[COUNT], per_sample=["boolean"])
def top_activations(
    estimator: Any, samples: Any, units: Any = None, *, n_top: int = 10, per_sample: bool = False
) -> Any:
    """List the tokens on which units fire most.

    Parameters
    ----------
    estimator : Pipeline
        Fitted, from a TransformerEmbedder to a concept method such as KMeansConcepts or
        SparseAutoencoder.
    samples : sequence of n_samples texts, chats or images
        As in :class:`TransformerEmbedder`.
    units : sequence of int, default=None
        Numbers of units; None takes all.
    n_top : int, default=10
        Tokens of each unit.
    per_sample : bool, default=False
        Take at most one token, the strongest, of each sample.

    Returns
    -------
    table : pandas.DataFrame
        ``unit``, ``rank`` from 1, ``sample``, ``token`` (its number), ``text`` of the token (of
        images ``left``, ``top``, ``right`` and ``bottom`` of the patch in pixels), ``score``. Where
        a unit scores 0 it does not fire: such tokens are left out.

    Raises
    ------
    ImportError
        Without pandas.
    TypeError, ValueError
        If the estimator has no units, or there is no such unit.

    Examples
    --------
    >>> import skact
    >>> from sklearn.pipeline import make_pipeline
    >>> shapes = skact.make_shapes(20, random_state=0)
    >>> embedder = skact.TransformerEmbedder(skact.shapes_model_path(), layer=0.5)
    >>> pipe = make_pipeline(embedder, skact.KMeansConcepts(4, random_state=0)).fit(shapes.data)
    >>> skact.top_activations(pipe, shapes.data, [0], n_top=2)[["unit", "rank"]].values.tolist()
    [[0, 1], [0, 2]]
    """
    pandas = need("pandas", "top_activations")
    steps = unit_steps(estimator)
    chosen = check_units(units, len(steps[-1].concept_names_))
    raw = as_list(samples)
    tokens = steps[0].transform(raw)
    places, scores = strongest(steps[1:], tokens, chosen, n_top, per_sample)
    rank, unit = np.indices(scores.shape)
    rows = np.stack([unit.T.ravel(), rank.T.ravel(), places.T.ravel()])
    score = scores.T.ravel()
    unit, rank, place = rows[:, score != 0]
    sample, token = where(place, tokens.lengths)
    pieces = tokens_in(steps[0], raw, sample)
    said = [pieces[i][j] for i, j in zip(sample.tolist(), token.tolist(), strict=True)]
    return pandas.DataFrame(
        {"unit": chosen[unit], "rank": rank + 1, "sample": sample, "token": token}
        | _columns(said)
        | {"score": score[score != 0]}
    )


def where(places: Array, lengths: Array) -> tuple[Array, Array]:
    """Turn positions among all tokens into numbers of samples, and of tokens in them."""
    ends = np.cumsum(lengths)
    sample = np.searchsorted(ends, places, side="right")
    return sample, places - (ends - lengths)[sample]


def tokens_in(embedder: Any, samples: Sequence[Any], rows: Array) -> dict[int, Sequence[Any]]:
    """Tokens of some samples, by their number."""
    needed = np.unique(rows).tolist()
    pieces = embedder.tokens_of([samples[i] for i in needed]) if needed else []
    return dict(zip(needed, pieces, strict=True))


def _columns(tokens: list[Any]) -> dict[str, Any]:
    if tokens and isinstance(tokens[0], Patch):
        boxes = np.array([token.box for token in tokens], np.float64)
        return dict(zip(("left", "top", "right", "bottom"), boxes.T, strict=True))
    return {"text": [token.text for token in tokens]}


def strongest(
    steps: Sequence[Any], tokens: Any, units: Array, n_top: int, per_sample: bool
) -> tuple[Array, Array]:
    """Find the tokens on which units fire most.

    Parameters
    ----------
    steps : sequence
        From tokens to scores.
    tokens : TokenArray or LayerStack
        The tokens.
    units : ndarray of shape (n_units,), int
        Numbers of units.
    n_top : int
        Tokens of each.
    per_sample : bool
        Whether to take at most one of each sample.

    Returns
    -------
    places : ndarray of shape (n_top, n_units), dtype int64
        Their positions among all tokens, strongest first; fewer rows where there are fewer.
    scores : ndarray of shape (n_top, n_units)
        Their scores.
    """
    n_units = len(steps[-1].concept_names_)
    before = np.cumsum(tokens.lengths) - tokens.lengths
    places: Array = np.empty((0, len(units)), np.int64)
    scores: Array = np.empty((0, len(units)), np.float64)
    for first, part in score_parts(steps, tokens, n_units):
        values = part.columns(units).flat()
        found = _best_of_each(values, part.lengths) if per_sample else _top(values, n_top)
        places = np.concatenate([places, found + before[first]])
        scores = np.concatenate([scores, np.take_along_axis(values, found, 0)])
        # Of equals the first token stays first.
        order = np.lexsort((places, -scores), axis=0)[:n_top]
        places, scores = (np.take_along_axis(all_, order, 0) for all_ in (places, scores))
    return places, scores


def _top(values: Array, n_top: int) -> Array:
    """Rows of the largest values of each column, in any order."""
    if len(values) <= n_top:
        return np.broadcast_to(np.arange(len(values))[:, None], values.shape)
    return np.argpartition(-values, n_top - 1, axis=0)[:n_top]


def _best_of_each(values: Array, lengths: Array) -> Array:
    """Row of the largest value of each sample and column."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    return np.stack([a + values[a:b].argmax(axis=0) for a, b in zip(starts, ends, strict=True)])


_TABLE = Such(
    "a table from top_activations, with the columns unit and score",
    lambda value: {"unit", "score"} <= set(map(str, getattr(value, "columns", ()))),
)


@checked(
    table=[_TABLE],
    by=[StrOptions({"tokens"}), callable],
    n_words=[COUNT],
)
def name_units(
    table: Any, by: Callable[[Any], str] | str = "tokens", *, n_words: int = 3
) -> dict[int, str]:
    """Name units by what they fire on.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`top_activations`.
    by : "tokens" or callable, default="tokens"
        "tokens" joins the words that have the largest sums of scores. A callable takes the rows of
        a unit and returns its name; it may ask a language model, say.
    n_words : int, default=3
        Words of a name.

    Returns
    -------
    names : dict of int to str
        By unit. Where two would have one name, the number of the unit is added.

    Raises
    ------
    ValueError
        If images, whose patches have no words, are to be named by tokens.
    TypeError
        If the callable returns something else than text.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame(
    ...     {"unit": [3, 3, 3], "text": ["Cat", "cat", "dog"], "score": [2.0, 1.0, 2.5]}
    ... )
    >>> from skact import name_units
    >>> name_units(table), name_units(table, lambda rows: "pets")
    ({3: 'cat / dog'}, {3: 'pets'})
    """
    if not callable(by) and "text" not in table.columns:
        raise ValueError(
            'by="tokens" needs the column text of table, which patches of images have not; give a '
            "callable."
        )
    names: dict[int, str] = {}
    for unit, rows in table.groupby("unit", sort=True):
        name = by(rows) if callable(by) else _words(rows, n_words)
        if not isinstance(name, str) or not name.strip():
            raise TypeError(f"by must return a name, got {name!r} for unit {unit}.")
        names[int(unit)] = name
    twice = {name for name in names.values() if list(names.values()).count(name) > 1}
    return {k: f"{name} ({k})" if name in twice else name for k, name in names.items()}


def _words(rows: Any, n_words: int) -> str:
    sums: dict[str, float] = {}
    for text, score in zip(rows["text"], rows["score"], strict=True):
        word = str(text).strip().lower()
        sums[word] = sums.get(word, 0.0) + float(score)
    words = sorted((word for word in sums if word), key=lambda word: -sums[word])[:n_words]
    return " / ".join(words) or "blank"
