r"""What a map looks for in a sample: a direction per concept.

The **global** target is the concept vector :math:`v_c`, the same in all samples. The **local** one
is made of the sample itself: the mean of its SuperActivators,

.. math:: t_c(x) = \frac{1}{|S_c(x)|} \sum_{i \in S_c(x)} z_i(x), \qquad
          S_c(x) = \{i : s_c(z_i) \ge \tau_c\},

in the scaled space of the concepts [1]_. A sample without a SuperActivator of c has no local
target.

References
----------
.. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate Reliable
   Concept Signals in the Tail", section on localization.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from skact.rows import Array

__all__ = ["GlobalTarget", "LocalTarget", "Target", "resolve_target"]


class Target(ABC):
    """A direction per concept for one sample; write ``vectors`` to make another one.

    Attributes
    ----------
    missing : str
        What a warning says of pairs of sample and concept that ``vectors`` gives NaN for.
    """

    missing: ClassVar[str] = "have no target"

    @abstractmethod
    def vectors(self, tokens: Array, marks: Array, concept_vectors: Array) -> Array:
        """Return the directions of one sample.

        Parameters
        ----------
        tokens : ndarray of shape (n_tokens, n_features)
            Scaled tokens of the sample.
        marks : ndarray of shape (n_tokens, n_concepts), dtype bool
            Its SuperActivators.
        concept_vectors : ndarray of shape (n_concepts, n_features), dtype float64
            Vectors of the concepts, in the order of the detector; not to be changed.

        Returns
        -------
        vectors : ndarray of shape (n_concepts, n_features), dtype float64
            NaN where the sample has no target for the concept.
        """


@dataclass(frozen=True)
class GlobalTarget(Target):
    """The concept vector, the same in all samples.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.localization import GlobalTarget
    >>> GlobalTarget().vectors(np.ones((2, 2)), np.ones((2, 1), bool), np.array([[3.0, 4.0]]))
    array([[3., 4.]])
    """

    def vectors(self, tokens: Array, marks: Array, concept_vectors: Array) -> Array:
        """Return the directions of one sample.

        Parameters
        ----------
        tokens, marks : ndarray
            Not used.
        concept_vectors : ndarray of shape (n_concepts, n_features)
            Vectors of the concepts.

        Returns
        -------
        vectors : ndarray of shape (n_concepts, n_features), dtype float64
            The same.
        """
        return np.asarray(concept_vectors, np.float64)


@dataclass(frozen=True)
class LocalTarget(Target):
    """The mean of the sample's own SuperActivators.

    Examples
    --------
    >>> import numpy as np
    >>> from skact.localization import LocalTarget
    >>> tokens = np.array([[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]])
    >>> marks = np.array([[True, False], [True, False], [False, False]])
    >>> LocalTarget().vectors(tokens, marks, np.zeros((2, 2)))
    array([[ 2.,  1.],
           [nan, nan]])
    """

    missing = "have no SuperActivator, so there is no local target"

    def vectors(self, tokens: Array, marks: Array, concept_vectors: Array) -> Array:
        """Return the directions of one sample.

        Parameters
        ----------
        tokens : ndarray of shape (n_tokens, n_features)
            Scaled tokens of the sample.
        marks : ndarray of shape (n_tokens, n_concepts), dtype bool
            Its SuperActivators.
        concept_vectors : ndarray
            Not used.

        Returns
        -------
        vectors : ndarray of shape (n_concepts, n_features), dtype float64
            NaN for a concept without a SuperActivator.
        """
        total = marks.T.astype(np.float64) @ tokens.astype(np.float64)
        count = marks.sum(axis=0)[:, None]
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


_NAMED = {"global": GlobalTarget(), "local": LocalTarget()}


def resolve_target(target: Any) -> Target:
    """Turn the parameter ``target`` into an object.

    Parameters
    ----------
    target : {"local", "global"} or Target
        The parameter.

    Returns
    -------
    target : Target
        The object.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(target, Target):
        return target
    if not isinstance(target, str) or target not in _NAMED:
        raise ValueError(
            f'target must be "local", "global" or an object with vectors(...), got {target!r}.'
        )
    return _NAMED[target]
