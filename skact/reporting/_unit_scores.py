"""How well the units of an autoencoder say what the model reads, and make it say it."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from skact import models
from skact.arguments import Number, Such, checked
from skact.concepts import SparseAutoencoder
from skact.reporting._units import (
    COUNT,
    FITTED,
    UNITS,
    check_units,
    directions,
    loading,
    score_parts,
    strongest,
    unit_steps,
)
from skact.rows import Array
from skact.samples import as_list

__all__ = ["autoencoder_steps", "block_of", "unit_input_scores", "unit_output_scores"]

_PROMPTS = Such(
    "a list of one or more texts or chats",
    lambda value: (
        isinstance(value, list | tuple) and value and all(isinstance(x, str | list) for x in value)
    ),
)


def autoencoder_steps(estimator: Any) -> list[Any]:
    """List the two steps from raw samples to units of an autoencoder.

    Parameters
    ----------
    estimator : Pipeline
        Fitted; a detector at its end is left out.

    Returns
    -------
    steps : list
        A TransformerEmbedder and a SparseAutoencoder.

    Raises
    ------
    TypeError
        If it is something else.
    """
    steps = unit_steps(estimator)
    if len(steps) != 2 or not isinstance(steps[1], SparseAutoencoder):
        raise TypeError(
            "estimator must be a fitted Pipeline of a TransformerEmbedder and a SparseAutoencoder, "
            "with no step between or behind them, as units act on what the model itself has; it "
            f"is of {', '.join(type(step).__name__ for step in steps)}. An autoencoder needs no "
            "scaler."
        )
    return steps


def block_of(embedder: Any) -> int:
    """Return the number of the one block that an embedder reads."""
    return models.resolve_layers(embedder.layer, embedder.n_blocks)[0][0]


def _numbers_of_words(steps: Sequence[Any], units: Array, n_words: int) -> Array:
    """Numbers of the words that units speak for, (n_units, n_words)."""
    embedder, vectors = steps[0], directions(steps, units)
    words = models.logit_lens(embedder.model, vectors, top=n_words, **loading(embedder))
    return np.array([[word.token for word in some] for some in words])


def _check_text(embedder: Any) -> None:
    if embedder.reader.loaded.modality != "text":
        raise ValueError("estimator must read texts; its model reads images, and has no words.")


@checked(estimator=[FITTED], units=[UNITS, None], n_top=[COUNT], n_words=[COUNT])
def unit_input_scores(
    estimator: Any, samples: Any, units: Any = None, *, n_top: int = 20, n_words: int = 10
) -> Array:
    """Tell for which units the words that they speak for are those on which they fire.

    The input score of a unit is the share of the texts in which it fires most whose strongest
    token is among the words that its direction speaks for
    (:func:`~skact.models.logit_lens`) [1]_. It is high for units about the token that is read,
    whose words describe them; the units that steer best have a high *output* score
    (:func:`unit_output_scores`).

    Parameters
    ----------
    estimator : Pipeline
        Fitted, of a TransformerEmbedder and a SparseAutoencoder.
    samples : sequence of n_samples texts or chats
        As in :class:`TransformerEmbedder`.
    units : sequence of int, default=None
        Numbers of units; None takes all.
    n_top : int, default=20
        Texts of each unit.
    n_words : int, default=10
        Words of each unit.

    Returns
    -------
    scores : ndarray of shape (n_units,), dtype float64
        From 0 to 1; NaN for units that fire in no text.

    Raises
    ------
    TypeError, ValueError
        If the estimator is something else, its model has no unembedding or reads images, or there
        is no such unit.

    References
    ----------
    .. [1] Arad, Mueller, Belinkov, "SAEs Are Good for Steering -- If You Select the Right
       Features", 2025.
    """
    steps = autoencoder_steps(estimator)
    embedder = steps[0]
    chosen = check_units(units, len(steps[-1].concept_names_))
    _check_text(embedder)
    words = _numbers_of_words(steps, chosen, n_words)
    raw = as_list(samples)
    read = embedder.prepare(raw).encoded
    ids = read.ids[read.is_token]
    places, scores = strongest(steps[1:], embedder.transform(raw), chosen, n_top, True)
    fires = scores != 0
    hits = (ids[places][:, :, None] == words).any(axis=2) & fires
    n_fires = fires.sum(axis=0)
    return np.where(n_fires > 0, hits.sum(axis=0) / np.maximum(n_fires, 1), np.nan)


@checked(
    estimator=[FITTED],
    units=[UNITS, None],
    prompts=[_PROMPTS],
    strength=[Number(Real, None, None, closed="neither")],
    n_words=[COUNT],
)
def unit_output_scores(
    estimator: Any,
    samples: Any,
    units: Any = None,
    *,
    prompts: Sequence[str] = ("In my experience,",),
    strength: float = 10.0,
    n_words: int = 10,
) -> Array:
    r"""Tell which units make the model say the words that they speak for.

    .. math:: S_j = \Big(1 - \frac{r_j}{V}\Big)\, p_j

    with the probability :math:`p_j` of the most probable of the words that the direction of the
    unit speaks for (:func:`~skact.models.logit_lens`), and the number :math:`r_j` of the V words of
    the model that are more probable, after ``strength`` times the largest activation of the unit on
    the samples, times its direction, was added at the last token of a prompt [1]_. Mean over the
    prompts. ``strength=0`` gives the same words in the model as it is, to compare with.

    Parameters
    ----------
    estimator : Pipeline
        Fitted, of a TransformerEmbedder and a SparseAutoencoder.
    samples : sequence of n_samples texts or chats
        On which the largest activations are measured; as in :class:`TransformerEmbedder`.
    units : sequence of int, default=None
        Numbers of units; None takes all, each a pass of the model per prompt.
    prompts : sequence of texts or chats, default=("In my experience,",)
        What the model goes on from.
    strength : float, default=10.0
        In units of the largest activation.
    n_words : int, default=10
        Words of each unit.

    Returns
    -------
    scores : ndarray of shape (n_units,), dtype float64
        From 0 to 1; NaN for units that fire on no token of the samples.

    Raises
    ------
    TypeError, ValueError
        If the estimator is something else, its model has no unembedding or reads images, its
        autoencoder does not read the stream as it is, or there is no such unit.

    References
    ----------
    .. [1] Arad, Mueller, Belinkov, "SAEs Are Good for Steering -- If You Select the Right
       Features", 2025.
    """
    steps = autoencoder_steps(estimator)
    embedder, autoencoder = steps
    chosen = check_units(units, len(autoencoder.concept_names_))
    _check_text(embedder)
    if autoencoder.input_scaling_ != "none":
        raise ValueError(
            f"estimator scales each token by {autoencoder.input_scaling_!r} before it is encoded, "
            "so an activation of a unit is no fixed step of the stream."
        )
    inputs = embedder.prepare(prompts)
    words = _numbers_of_words(steps, chosen, n_words)
    tokens = embedder.transform(samples)
    parts = score_parts(steps[1:], tokens, len(autoencoder.concept_names_))
    highest = np.max([part.columns(chosen).flat().max(axis=0) for _, part in parts], axis=0)
    fires = np.flatnonzero(highest > 0)
    scores = np.full(len(chosen), np.nan)
    if len(fires):
        shifts = (strength * highest[:, None] * autoencoder.concept_vectors_[chosen])[fires]
        scores[fires] = models.next_word_scores(
            models.load_language(embedder.model, **loading(embedder)),
            inputs,
            block_of(embedder),
            embedder.site,
            shifts,
            words[fires],
            embedder.batch_size,
        )
    return scores
