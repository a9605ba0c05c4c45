r"""How much of what a head does lies along a concept, read off its weights.

A head is aligned with a unit direction v where the logits of its queries and keys grow with v on
both sides, and what it copies along v it writes along v. Of the weights of a head,

.. math:: W_Q^\top W_K = \alpha\, v v^\top + E_{QK}, \qquad W_O W_V = \beta\, v v^\top + E_{OV},
          \qquad \alpha = v^\top W_Q^\top W_K v, \qquad \beta = v^\top W_O W_V v.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import Bunch, check_random_state

from skact import models
from skact.arguments import Number, checked, float_array
from skact.heads._model import MODEL, check_vectors, loaded_of, warn_of_blocks
from skact.rows import Array

if TYPE_CHECKING:
    from skact.models import Circuits

__all__ = ["alignment", "directions", "head_alignment"]


def directions(vectors: Any, n_features: int) -> tuple[Array, list[str]]:
    """Make unit vectors (n_concepts, n_features), in float64, and name them."""
    names = getattr(vectors, "concept_names_", None)
    rows = float_array(getattr(vectors, "concept_vectors_", vectors), "vectors")
    if rows.ndim == 1:
        rows = rows[None]
    if rows.ndim != 2 or rows.shape[1] != n_features or not len(rows):
        raise ValueError(
            f"vectors must be of shape (n_concepts, {n_features}), as the stream of the model is "
            f"wide, got {rows.shape}."
        )
    norms = np.linalg.norm(rows, axis=1)
    if not (np.isfinite(norms).all() and norms.all()):
        c = int(np.argmin(np.isfinite(norms) & (norms > 0)))
        raise ValueError(f"vectors[{c}] must be finite and not 0: it has no direction.")
    listed = [f"concept{c}" for c in range(len(rows))] if names is None else list(map(str, names))
    return rows / norms[:, None], listed


def alignment(circuits: Circuits, vectors: Array) -> dict[str, Array]:
    """Give alpha, beta and what biases do of each head, for unit vectors.

    Parameters
    ----------
    circuits : Circuits
        Heads of a block.
    vectors : ndarray of shape (n_vectors, n_features)
        Unit vectors.

    Returns
    -------
    found : dict of str to ndarray of shape (n_heads, n_vectors)
        ``alpha``, ``beta``, ``alpha_bias``, the slope of logits along the key that is the same for
        all queries, and ``beta_bias``, what the head writes along the vector whatever it looks at.
    """
    made = circuits
    query, key, value = (
        made.by_head(weight @ vectors.T) for weight in (made.query, made.key, made.value)
    )
    written = (vectors @ made.output).T.reshape(made.n_heads, made.head_dim, -1)
    query_bias, value_bias = (
        made.by_head(bias)[:, :, None] for bias in (made.query_bias, made.value_bias)
    )
    return {
        "alpha": (query * key).sum(axis=1),
        "beta": (written * value).sum(axis=1),
        "alpha_bias": (query_bias * key).sum(axis=1),
        "beta_bias": (written * value_bias).sum(axis=1),
    }


def _norms(made: Circuits) -> tuple[Array, Array]:
    """Frobenius norms of W_Q' W_K and of W_O W_V of each head, from products head_dim wide."""
    query, key, value = (made.by_head(weight) for weight in (made.query, made.key, made.value))
    output = made.output.T.reshape(made.n_heads, made.head_dim, -1)
    grams = [one @ one.swapaxes(1, 2) for one in (query, key, output, value)]
    asked, copied = (grams[0] * grams[1]).sum(axis=(1, 2)), (grams[2] * grams[3]).sum(axis=(1, 2))
    return np.sqrt(asked), np.sqrt(copied)


def _at_least(found: Array, drawn: Array) -> Array:
    """Share of drawn values (n_heads, n_random) not below each found one (n_heads, n_concepts)."""
    ordered = np.sort(drawn, axis=1)
    below = np.stack([np.searchsorted(row, f) for row, f in zip(ordered, found, strict=True)])
    return (1 + drawn.shape[1] - below) / (1 + drawn.shape[1])


@checked(
    model=[MODEL],
    n_random=[Number(Integral, 1, None, closed="left")],
    random_state=["random_state"],
)
def head_alignment(
    model: Any,
    vectors: Any,
    layer: int | float | Sequence[int | float] | None = None,
    *,
    n_random: int = 1000,
    random_state: Any = None,
) -> Bunch:
    r"""Tell how far each head is aligned with each concept, by its weights.

    For a unit vector v in the stream that enters a block, and each head of the block,

    .. math:: \alpha = v^\top W_Q^\top W_K v, \qquad \beta = v^\top W_O W_V v.

    A head with large positive :math:`\alpha\beta` lets tokens along v look at each other, and makes
    what they have of v grow. A norm before the block divides a token by its size s: its gain is
    folded into the weights, and with a LayerNorm that the mean is taken away, so that logits along
    v are :math:`\alpha a_i a_j / (s_i s_j \sqrt{d})` for activations a and heads of d features.

    Parameters
    ----------
    model : str, Path, tuple or TransformerEmbedder
        What the embedder takes as model, or an embedder.
    vectors : array-like of shape (n_concepts, n_features), or concept method
        Directions in the residual stream that enters the block: of concepts fitted on the layer
        before, say. A fitted method gives its ``concept_vectors_``, and must have been fitted on
        raw tokens of the residual stream of this model.
    layer : int, float, sequence of those, or None, default=None
        Blocks whose heads are looked at, as in :class:`~skact.embedding.TransformerEmbedder`; None
        takes all.
    n_random : int, default=1000
        Random directions, uniform on the sphere, that are compared with.
    random_state : int, RandomState instance or None, default=None
        Draws them.

    Returns
    -------
    result : Bunch
        The axes ``layers``, ``heads`` and ``concepts``, lists; and arrays of dtype float64 and
        shape (n_layers, n_heads, n_concepts):

        - ``alpha``, ``beta``;
        - ``alpha_share``, ``beta_share``: over the Frobenius norms of :math:`W_Q^\top W_K` and
          :math:`W_O W_V`, so 1 for a head that is nothing else;
        - ``alpha_bias``: what biases add to the slope of logits along the key, for all queries
          alike; ``beta_bias``: what they make the head write along v whatever it looks at;
        - ``gain``: :math:`\alpha\beta / \sqrt d`, or over what the model divides its logits by in
          place of :math:`\sqrt d` (Gemma-2), which times a variance of activations is the growth of
          their gaps, and ``gain_p``, ``alpha_p``, ``beta_p``: :math:`(1 + k) / (1 + n)` where k of
          the n random directions have as much of it, of either sign for the latter two.

        ``bias``, (n_layers, n_concepts), is what the bias of the projection adds along v;
        ``normed`` and ``norm_behind``, lists over layers, tell whether a norm stands before the
        heads, and whether what they write goes through another (Gemma-2), which divides it by its
        size.

    Raises
    ------
    ValueError
        If the heads of the model cannot be taken apart, vectors are not as wide as its stream, or a
        method was fitted on another model or site, or on scaled tokens.
    NotFittedError
        If vectors are a method that is not fitted.

    Warns
    -----
    UserWarning
        If a method was fitted on another block than the one before those that are looked at.

    Notes
    -----
    Rotary positions are taken at offset 0: between a token and itself. A cap on logits (Gemma-2) is
    left out.

    References
    ----------
    Goldberg, Kim, Stein, Wong: The SuperActivator Mechanism, section on the theory.

    Examples
    --------
    >>> import numpy as np
    >>> import skact
    >>> vectors = np.eye(64)[:2]
    >>> found = skact.head_alignment(skact.shapes_model_path(), vectors, layer=[1, 2])
    >>> found.alpha.shape == (len(found.layers), len(found.heads), len(found.concepts))
    True
    """
    loaded = loaded_of(model)
    fitted = check_vectors(vectors, loaded)
    unit, names = directions(vectors, loaded.width)
    n_blocks = len(loaded.blocks)
    blocks, _ = models.resolve_layers(range(n_blocks) if layer is None else layer, n_blocks)
    warn_of_blocks(dict.fromkeys(blocks, fitted))
    random = check_random_state(random_state).standard_normal((n_random, loaded.width))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    rows: list[dict[str, Any]] = []
    circuits = models.find_circuits(loaded, blocks)
    for made in circuits:
        found, drawn = alignment(made, unit), alignment(made, random)
        for one in (found, drawn):
            one["gain"] = one["alpha"] * one["beta"] * made.scaling
        asked, copied = _norms(made)
        rows.append(
            {
                **found,
                "alpha_share": found["alpha"] / asked[:, None],
                "beta_share": found["beta"] / copied[:, None],
                "alpha_p": _at_least(np.abs(found["alpha"]), np.abs(drawn["alpha"])),
                "beta_p": _at_least(np.abs(found["beta"]), np.abs(drawn["beta"])),
                "gain_p": _at_least(found["gain"], drawn["gain"]),
                "bias": unit @ made.output_bias,
            }
        )
    return Bunch(
        layers=blocks,
        heads=list(range(circuits[0].n_heads)),
        concepts=names,
        normed=[made.normed for made in circuits],
        norm_behind=[made.norm_behind for made in circuits],
        **{key: np.stack([row[key] for row in rows]) for key in rows[0]},
    )
