"""Samples as their cosines with named vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skact.arguments import check_concepts, float_array, instance
from skact.base import ConceptNamesOutMixin, NestedParamsMixin, TokensOutMixin, concept_names
from skact.concepts import BaseConcepts, BaseUnits, cosines
from skact.preprocessing import TokenPooling
from skact.rows import Array
from skact.tokens import TokenArray
from skact.validation import check_tokens

__all__ = ["ConceptualEmbedding"]


class ConceptualEmbedding(NestedParamsMixin, ConceptNamesOutMixin, TokensOutMixin, BaseEstimator):
    r"""Describe samples by their cosines with named vectors.

    .. math:: e_c(x) = \cos(\bar z, v_c)
              = \frac{\bar z \cdot v_c}{\lVert \bar z \rVert \lVert v_c \rVert}

    of the pooled tokens :math:`\bar z` of a sample and the vector of each concept [1]_. What comes
    out is an embedding of which each dimension has a name; it goes where a matrix goes, into
    searches of neighbours, clusters and classifiers.

    Parameters
    ----------
    vectors : fitted concept method, dict of str to vector, array-like or None, default=None
        The vectors: those of a method, with its names, of tokens of the same model, layer and
        scaling; or by name; or rows ``concept0``, ``concept1``, ... of an array of shape
        (n_concepts, n_features). None takes the axes, so that a sample is its pooled tokens at
        length 1.
    pool : {"mean", "max", "last"}, default="mean"
        What becomes of the tokens of a sample, feature by feature.

    Attributes
    ----------
    vectors_ : ndarray of shape (n_concepts, n_features), dtype float64
        The vectors, each of length 1.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Their names.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the tokens.

    See Also
    --------
    ConceptBottleneckClassifier : Classes told by scores of concepts.

    References
    ----------
    .. [1] Simhi, Markovitch, "Interpreting Embedding Spaces by Conceptualization", EMNLP 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import ConceptualEmbedding
    >>> embedding = ConceptualEmbedding({"sea": [1, 0, 0], "shore": [3, 4, 0]})
    >>> embedding.fit_transform([np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])]).round(6)
    array([[0. , 0.8]])
    >>> embedding.get_feature_names_out()
    array(['sea', 'shore'], dtype=object)
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "vectors": [
            instance("a concept method, as DifferenceInMeans()", BaseConcepts, BaseUnits),
            *(dict, "array-like", None),
        ],
        "pool": [StrOptions({"mean", "max", "last"})],
    }

    vectors_: Array

    def __init__(
        self, vectors: Any = None, *, pool: Literal["mean", "max", "last"] = "mean"
    ) -> None:
        self.vectors = vectors
        self.pool = pool

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the vectors against tokens; nothing is learnt.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Tokens.
        y : None
            Ignored.

        Returns
        -------
        self : ConceptualEmbedding
            Fitted.

        Raises
        ------
        NotFittedError
            If the method is not fitted.
        ValueError
            If vectors are not as wide as X, one is 0 or not finite, names are none, or a method was
            fitted on tokens of another model, layer or scaling.
        """
        self._validate_params()
        tokens = check_tokens(self, X)
        names, rows = _named_vectors(self.vectors, tokens)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not (good := np.isfinite(lengths) & (lengths > 0)).all():
            raise ValueError(
                f"vectors must be finite and not 0, but that of {names[int(np.argmin(good))]!r} "
                "has no direction."
            )
        self.vectors_, self.concept_names_ = rows / lengths, names
        return self

    def transform(self, X: Any) -> Array:
        """Give the cosines of samples.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Tokens with ``n_features_in_`` features; a row of a 2-D array is a sample of one token.

        Returns
        -------
        cosines : ndarray of shape (n_samples, n_concepts), dtype float32 or float64
            In [-1, 1], 0 for a sample whose pooled tokens are 0; a data frame where ``set_output``
            asks for one.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X does not fit what was given to ``fit``.
        """
        check_is_fitted(self)
        tokens = check_tokens(self, X, reset=False)
        pooled = np.asarray(TokenPooling(self.pool).fit_transform(tokens))
        return cosines(pooled, self.vectors_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _named_vectors(vectors: Any, tokens: TokenArray) -> tuple[Array, Array]:
    """Return names and rows (n_concepts, n_features)."""
    if vectors is None:
        names = tokens.feature_names
        known = None if names is None else list(names)
        return concept_names(known, tokens.n_features), np.eye(tokens.n_features)
    if isinstance(vectors, BaseConcepts | BaseUnits):
        check_is_fitted(vectors)
        check_tokens(vectors, tokens, reset=False)
        return vectors.concept_names_, np.asarray(vectors.concept_vectors_, np.float64)
    named = isinstance(vectors, Mapping)
    rows = float_array(list(vectors.values()) if named else vectors, "vectors")
    if rows.ndim != 2 or not len(rows) or rows.shape[1] != tokens.n_features:
        raise ValueError(
            f"vectors must be of shape (n_concepts, {tokens.n_features}), as X is wide, got "
            f"{rows.shape}."
        )
    known = [str(name) for name in check_concepts(vectors, "vectors")] if named else None
    return concept_names(known, len(rows)), rows
