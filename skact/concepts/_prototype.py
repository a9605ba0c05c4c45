"""Mean prototypes: a concept is the mean of its tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from skact.base import MergeMixin
from skact.concepts._base import BaseConcepts
from skact.concepts._statistics import cosine_function, cosines, labelled_sums
from skact.concepts._streaming import StreamingConceptsMixin
from skact.rows import Array
from skact.tokens import TokenArray

__all__ = ["MeanPrototype"]


class MeanPrototype(MergeMixin, StreamingConceptsMixin, BaseConcepts):
    r"""A concept is the mean of its tokens; a token is scored by the cosine with it.

    .. math:: v_c = \frac{1}{|D_c|} \sum_{z \in D_c} z, \qquad
              s_c(z) = \frac{\langle z, v_c \rangle}{\lVert z \rVert \lVert v_c \rVert}

    with :math:`D_c` the training tokens labelled c [1]_. A zero token scores 0.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_concepts, n_features), dtype float64
        The means.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", section on concept vectors.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import MeanPrototype
    >>> X = [np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 3.0]])]
    >>> method = MeanPrototype().fit(X, [1, 0], token_labels=[[[1], [0]], [[0]]])
    >>> method.concept_vectors_
    array([[2., 0.]])
    >>> method.transform(X)[0]
    array([[1.],
           [0.]])
    """

    _parameter_constraints: dict[str, list[Any]] = {}

    _sums: Array
    _counts: Array

    def _update(
        self, tokens: TokenArray, labels: TokenArray, first: bool, weight: Array | None
    ) -> Array:
        sums, counts = labelled_sums(tokens, labels, weight)
        self._sums, self._counts = (
            (sums, counts) if first else (self._sums + sums, self._counts + counts)
        )
        return self._means()

    def _means(self) -> Array:
        return self._sums / np.where(self._counts > 0, self._counts, 1)[:, None]

    def _join(self, other: Self) -> None:
        self._sums, self._counts = self._sums + other._sums, self._counts + other._counts
        self.concept_vectors_ = self._means()

    def _score(self, values: Array) -> Array:
        return cosines(values, self.concept_vectors_)

    def _function(self) -> Callable[[Array], Array]:
        return cosine_function(self.concept_vectors_)
