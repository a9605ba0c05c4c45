"""Mean prototypes: a concept is the mean of its tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from skact.concepts._base import BaseConcepts, cosines
from skact.tokens import TokenArray

__all__ = ["MeanPrototype", "labelled_means"]

Array = npt.NDArray[Any]


def labelled_means(tokens: TokenArray, labels: TokenArray) -> Array:
    """Mean of the tokens of each label.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Tokens.
    labels : TokenArray of shape (n_samples, n_concepts), dtype bool
        Labels of the same tokens; each concept has at least one.

    Returns
    -------
    means : ndarray of shape (n_concepts, n_features), dtype float64
        One row per label.
    """
    total = np.zeros((labels.n_features, tokens.n_features))
    count = np.zeros(labels.n_features)
    for samples, values in tokens.blocks():
        marked = labels[samples].flat()
        for c in range(labels.n_features):
            total[c] += values[marked[:, c]].sum(axis=0, dtype=np.float64)
        count += marked.sum(axis=0)
    return total / count[:, None]


class MeanPrototype(BaseConcepts):
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

    def _fit_vectors(self, tokens: TokenArray, labels: TokenArray) -> Array:
        return labelled_means(tokens, labels)

    def _score(self, values: Array) -> Array:
        return cosines(values, self.concept_vectors_)
