r"""Max separators: sample labels reach the tokens through the largest score of each sample.

A sample that holds a concept has at least one token that shows it, and which one is not known; a
sample without it has none. This is multiple-instance learning: the loss is that of the sample, and
its gradient falls on the tokens with the largest scores alone. A separator of labelled tokens has
to raise every token of a span, also those that occur everywhere; this one may leave them low.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning

from skact.arguments import Number
from skact.concepts._base import BaseConcepts, check_separable
from skact.concepts._statistics import balanced_weights, products
from skact.pooling import soft_maximum
from skact.rows import Array, as_floats, offsets_of
from skact.tokens import TokenArray
from skact.warning import warn

__all__ = ["MaxSeparator"]


def _unpacked(flat: Array, n_concepts: int) -> tuple[Array, Array]:
    """Vectors (n_concepts, n_features) and intercepts (n_concepts,), as the solver keeps them."""
    return flat[:-n_concepts].reshape(n_concepts, -1), flat[-n_concepts:]


def _loss(
    flat: Array,
    tokens: TokenArray,
    present: Array,
    weights: Array,
    sharpness: float,
    l2: float,
) -> tuple[float, Array]:
    """Loss of all concepts, and its gradient by vectors and intercepts."""
    vectors, intercepts = _unpacked(flat, present.shape[1])
    loss = 0.5 * l2 * float(np.vdot(vectors, vectors))
    by_vectors, by_intercepts = l2 * vectors, np.zeros(len(intercepts))
    for samples, block in tokens.blocks():
        values, lengths = as_floats(block), tokens.lengths[samples]
        scores = products(values, vectors)
        pooled, shares = soft_maximum(scores, offsets_of(lengths), sharpness)
        logits = pooled + intercepts
        marked, weight = present[samples], weights[samples]
        loss += float(np.vdot(weight, np.logaddexp(0, np.where(marked, -logits, logits))))
        slope = weight * (expit(logits) - marked)
        by_intercepts += slope.sum(axis=0)
        shares *= np.repeat(slope.astype(shares.dtype), lengths, axis=0)
        by_vectors += shares.T @ values
    return loss, np.concatenate([by_vectors.ravel(), by_intercepts])


class MaxSeparator(BaseConcepts):
    r"""A concept is the direction whose largest score separates the samples that hold it.

    .. math:: v_c = \arg\min_{v, b} \sum_x w_{c,x} \log\big(1 + e^{-t_{c,x} (A(x; v) + b)}\big)
              + \tfrac{\lambda}{2} \lVert v \rVert^2, \qquad
              A(x; v) = \frac1r \log \frac1n \sum_{i=1}^n e^{r \langle z_i, v \rangle}

    and :math:`s_c(z) = \langle z, v_c \rangle`. Here :math:`t_{c,x}` is 1 for samples that hold c,
    else -1, and classes are balanced by :math:`w = 1 / (2 n_\pm)`; A is a smooth maximum,
    and this is multiple-instance logistic regression [1]_ [2]_: it learns from **sample labels
    alone** which tokens speak for a concept, and scores for a detector that reads the maximum. It
    is not part of the paper. All concepts are trained together by L-BFGS from zero, without
    randomness; the loss is not convex, so the minimum is a local one.

    Parameters
    ----------
    sharpness : float, default=4.0
        r. Small values pool nearly by the mean, large ones by the maximum.
    weight_decay : float, default=1e-3
        :math:`\lambda`; right for tokens of about unit length, as :class:`TokenScaler` gives.
    max_iter : int, default=200
        Iterations after which a ConvergenceWarning is given.
    tol : float, default=1e-5
        Relative decrease of the loss in one iteration below which fitting ends.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_concepts, n_features), dtype float64
        The directions.
    intercepts_ : ndarray of shape (n_concepts,), dtype float64
        b; a detector finds a threshold of its own.
    n_iter_ : int
        Iterations.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Ray, Craven, "Supervised versus Multiple Instance Learning: An Empirical Comparison",
       ICML 2005.
    .. [2] Pinheiro, Collobert, "From Image-level to Pixel-level Labeling with Convolutional
       Networks", CVPR 2015, for the soft maximum.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import MaxSeparator
    >>> common, telling = [1.0, 0.0], [0.0, 1.0]
    >>> X = [np.array([common, telling]), np.array([common, common]), np.array([common])]
    >>> scores = MaxSeparator().fit(X, [1, 0, 0]).transform(X)
    >>> (scores[0] > scores[1].max()).ravel().tolist()
    [False, True]
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "sharpness": [Number(Real, 0, None, closed="neither")],
        "weight_decay": [Number(Real, 0, None, closed="left")],
        "max_iter": [Number(Integral, 1, None, closed="left")],
        "tol": [Number(Real, 0, None, closed="left")],
    }

    intercepts_: Array
    n_iter_: int

    def __init__(
        self,
        sharpness: float = 4.0,
        *,
        weight_decay: float = 1e-3,
        max_iter: int = 200,
        tol: float = 1e-5,
    ) -> None:
        self.sharpness = sharpness
        self.weight_decay = weight_decay
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any, token_labels: Any = None) -> Self:
        """Learn a vector for each concept.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Training tokens.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            Class labels (two classes: one concept, the larger class; more: one concept a class)
            or an indicator matrix.
        token_labels : object, default=None
            Ignored: this method reads sample labels alone.

        Returns
        -------
        self : MaxSeparator
            Fitted.

        Raises
        ------
        ValueError
            If X and y do not fit together, or a concept is in no sample or in every one.
        """
        return super().fit(X, y)

    def _fit_vectors(self, tokens: TokenArray, labels: TokenArray) -> Array:
        # Without labels of tokens, all tokens of a sample are labelled as the sample is.
        present = labels.max()
        n_positive, n_concepts = present.sum(axis=0), present.shape[1]
        check_separable(n_positive, len(tokens), self.concept_names_, "sample", "a separator")
        negative, positive = balanced_weights(n_positive, len(tokens))
        result = minimize(
            _loss,
            np.zeros(n_concepts * (tokens.n_features + 1)),
            (
                tokens,
                present,
                np.where(present, positive, negative),
                self.sharpness,
                self.weight_decay,
            ),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": self.max_iter, "ftol": self.tol, "gtol": 1e-6},
        )
        if result.status != 0:
            why = "" if result.nit >= self.max_iter else f": {result.message}"
            warn(
                f"the separators did not converge in max_iter={self.max_iter} iterations, of which "
                f"they took {result.nit}{why}.",
                ConvergenceWarning,
            )
        self.n_iter_ = max(int(result.nit), 1)
        vectors, self.intercepts_ = _unpacked(result.x, n_concepts)
        return vectors

    def _score(self, values: Array) -> Array:
        return products(values, self.concept_vectors_)
