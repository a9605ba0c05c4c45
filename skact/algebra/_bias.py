"""Whether a concept leans to one of two others."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import betainc
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from skact.arguments import checked, float_array
from skact.concepts import cosines
from skact.rows import Array

__all__ = ["chance_of_lean", "concept_bias"]


def chance_of_lean(lean: Array, apart: float, n_features: int) -> Array:
    r"""How often a random direction leans as far.

    The lean of a unit vector t is its product with the difference u of two unit vectors. For t
    uniform on the sphere :math:`\langle t, u \rangle^2 / \lVert u \rVert^2` has the distribution
    Beta(1/2, (d - 1)/2).

    Parameters
    ----------
    lean : ndarray of shape (n_vectors,)
        :math:`\langle t, u \rangle`.
    apart : float
        :math:`\lVert u \rVert`.
    n_features : int
        d, at least 2.

    Returns
    -------
    chance : ndarray of shape (n_vectors,)
        Probability of a lean at least as large, to either side.
    """
    share = np.minimum((lean / apart) ** 2, 1)
    chance: Array = 1 - betainc(0.5, (n_features - 1) / 2, share)
    return chance


@checked(vectors="no_validation", first="no_validation", second="no_validation")
def concept_bias(vectors: Any, first: Any, second: Any) -> Bunch:
    r"""Tell whether concepts are nearer to one of two others.

    .. math:: b(t) = \big| \cos(t, r_1) - \cos(t, r_2) \big|

    of the vector t of a concept and two references [1]_: a profession and two genders, say. In many
    dimensions any direction leans a little; the p-value says how often a random one, uniform on the
    sphere, leans as far, in closed form.

    Parameters
    ----------
    vectors : array-like of shape (n_concepts, n_features), or fitted concept method
        Directions t; a method gives its ``concept_vectors_``.
    first, second : array-like of shape (n_features,), str or int
        :math:`r_1` and :math:`r_2`, or, where vectors is a concept method, names or numbers of
        concepts of it.

    Returns
    -------
    result : Bunch
        ``concepts``, a list of names; ``bias``, ``lean``, :math:`\cos(t, r_1) - \cos(t, r_2)`, so
        above 0 towards the first one, and ``p_value``, ndarrays of shape (n_concepts,), dtype
        float64. Of the references themselves the lean says nothing.

    Raises
    ------
    NotFittedError
        If the method is not fitted.
    ValueError
        If a vector is zero, not finite or of another width, both references have one direction, or
        the method does not know one.

    Notes
    -----
    Vectors that are learnt from tokens lie in few directions of the space, so that many more of
    them lean far than of random directions, whatever their labels: a small p-value is no evidence
    then. Compare the lean with those of vectors that the same method learns from random labels.

    References
    ----------
    .. [1] Caliskan, Bryson, Narayanan, "Semantics derived automatically from language corpora
       contain human-like biases", Science, 2017, with one word on each side.

    Examples
    --------
    >>> from skact import concept_bias
    >>> result = concept_bias([[1, 1, 0], [3, 0, 4]], [1, 0, 0], [0, 1, 0])
    >>> result.bias.round(2), result.lean.round(2)
    (array([0. , 0.6]), array([0. , 0.6]))
    """
    names = None
    if isinstance(vectors, BaseEstimator):
        check_is_fitted(vectors)
        names = [str(name) for name in getattr(vectors, "concept_names_", [])]
    rows = float_array(getattr(vectors, "concept_vectors_", vectors), "vectors")
    if rows.ndim != 2 or rows.shape[1] < 2 or not len(rows):
        raise ValueError(
            f"vectors must be of shape (n_concepts, n_features), 2 features or more, got "
            f"{rows.shape}."
        )
    ends = np.stack(
        [_reference(*one, rows, names) for one in (("first", first), ("second", second))]
    )
    _check_directions("vectors", rows)
    near = cosines(rows, ends)
    lean = near[:, 0] - near[:, 1]
    units = ends / np.linalg.norm(ends, axis=1, keepdims=True)
    apart = float(np.linalg.norm(units[0] - units[1]))
    if apart < 1e-9:
        raise ValueError("first and second must be of two directions, but have the same.")
    return Bunch(
        concepts=[f"concept{c}" for c in range(len(rows))] if names is None else names,
        bias=np.abs(lean),
        lean=lean,
        p_value=chance_of_lean(lean, apart, rows.shape[1]),
    )


def _reference(name: str, reference: Any, rows: Array, names: list[str] | None) -> Array:
    if isinstance(reference, str | int | np.integer) and not isinstance(reference, bool):
        known: list[Any] = names or []
        number = known.index(reference) if reference in known else reference
        if isinstance(number, str) or not 0 <= number < len(known):
            raise ValueError(
                f"{name} must be a vector, or one of the concepts {known}, got {reference!r}."
            )
        return rows[number]
    vector = float_array(reference, name)
    if vector.shape != rows.shape[1:]:
        raise ValueError(
            f"{name} must be of shape ({rows.shape[1]},), as vectors are wide, got {vector.shape}."
        )
    _check_directions(name, vector[None])
    return vector


def _check_directions(name: str, rows: Array) -> None:
    norms = np.linalg.norm(rows, axis=1)
    good = np.isfinite(norms) & (norms > 0)
    if not good.all():
        which = f"{name}[{np.argmin(good)}]" if len(rows) > 1 else name
        raise ValueError(f"{which} must be finite and not 0: it has no direction.")
