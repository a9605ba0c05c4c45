"""What says whether a text holds a concept: detectors on other models than the one steered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skact import models
from skact.arguments import float_array
from skact.base import SEARCHES, concept_names, steps_of, winners_of
from skact.embedding import TransformerEmbedder
from skact.rows import Array

__all__ = ["judged", "named_judges"]


def named_judges(judges: Any, loaded: models.Loaded) -> dict[str, Any]:
    """Give judges by name, and refuse those that read the model that is steered.

    Parameters
    ----------
    judges : estimator, callable, or mapping of str to those
        Judges.
    loaded : Loaded
        The model.

    Returns
    -------
    judges : dict
        By name.

    Raises
    ------
    TypeError
        If one gives no probabilities.
    ValueError
        If there is none, or one reads the model.
    """
    known = dict(judges) if isinstance(judges, Mapping) else {"judge": judges}
    if not known:
        raise ValueError("judges must hold at least one, got none.")
    for name, judge in known.items():
        if isinstance(judge, type) or not (hasattr(judge, "predict_proba") or callable(judge)):
            raise TypeError(
                "judges must be fitted estimators with predict_proba on raw texts, or functions of "
                f"texts; {name!r} is {judge!r}."
            )
        for embedder in _embedders(judge):
            if embedder.reader.loaded.revision == loaded.revision:
                raise ValueError(
                    f"judge {name!r} reads the model that is steered, so that it would judge by "
                    "what the edit was made of; take a detector on another model."
                )
    return known


def _embedders(judge: Any) -> list[TransformerEmbedder]:
    """Embedders by which a judge reads; those of a function are not known."""
    own = getattr(judge, "embedder_", None)
    steps = [own, *steps_of(judge, SEARCHES)]
    for step in steps_of(judge, SEARCHES):
        for line in (winners_of(step) or {}).values():
            steps += steps_of(line, SEARCHES)
    return [step for step in steps if isinstance(step, TransformerEmbedder)]


def judged(name: str, judge: Any, texts: Sequence[str], concept: int | str | None) -> Array:
    """Ask a judge how probable the concept is in texts.

    Parameters
    ----------
    name : str
        Of the judge.
    judge : estimator or callable
        The judge.
    texts : sequence of n_texts str
        Texts; in those without a letter or digit is nothing.
    concept : int, str or None
        Which concept or class, of several.

    Returns
    -------
    chances : ndarray of shape (n_texts,), dtype float64
        From 0 to 1.

    Raises
    ------
    ValueError
        If it knows no such concept, or gives something else.
    """
    chances = np.zeros(len(texts))
    said = [i for i, text in enumerate(texts) if any(map(str.isalnum, text))]
    if not said:
        return chances
    asked = [texts[i] for i in said]
    if not hasattr(judge, "predict_proba"):
        found = float_array(judge(asked), f"what judge {name!r} returns")
    else:
        answers = np.asarray(judge.predict_proba(asked))
        found = answers[:, _column(name, judge, answers.shape[1], concept)]
    if found.shape != (len(asked),) or not ((found >= 0) & (found <= 1)).all():
        raise ValueError(
            f"judge {name!r} must give a number from 0 to 1 for each of {len(asked)} texts, got "
            f"shape {found.shape}."
        )
    chances[said] = found
    return chances


def _column(name: str, judge: Any, n_columns: int, concept: int | str | None) -> int:
    """Column of the concept."""
    names = [str(one) for one in _names(judge, n_columns)]
    if concept is None:
        if n_columns > 2 or (n_columns == 2 and not hasattr(judge, "classes_")):
            raise ValueError(f"concept must say which of {names} judge {name!r} is asked for.")
        return n_columns - 1
    if isinstance(concept, str) and concept in names:
        return names.index(concept)
    if isinstance(concept, str) or concept >= n_columns:
        raise ValueError(f"concept={concept!r} is none of those of judge {name!r}: {names}.")
    return int(concept)


def _names(judge: Any, n_columns: int) -> Sequence[Any]:
    last = (steps_of(judge, SEARCHES) or [judge])[-1]
    for one, name in ((judge, "classes_"), (judge, "concept_names_"), (last, "concept_names_")):
        names: Sequence[Any] = getattr(one, name, ())
        if len(names) == n_columns:
            return names
    return list(concept_names(None, n_columns))
