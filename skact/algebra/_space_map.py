"""Linear maps from the activations of one layer or model to those of another."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skact.arguments import Number, checked, float_array
from skact.base import TokenTransformer, steps_of
from skact.embedding import TransformerEmbedder
from skact.rows import Array, as_floats
from skact.tokens import Source, TokenArray
from skact.validation import check_tokens
from skact.warning import warn

__all__ = ["ActivationSpaceMap", "joint_moments", "procrustes", "ridge"]

# A map that explains less of what it should give is hardly one.
_LEAST = 0.02


def joint_moments(
    tokens: TokenArray, targets: TokenArray
) -> tuple[Array, Array, Array, Array, float]:
    """Means and products of tokens that belong together.

    Parameters
    ----------
    tokens : TokenArray of n tokens of n_features
        x.
    targets : TokenArray of n tokens of n_targets
        y, in the same order.

    Returns
    -------
    means : tuple of ndarray of shape (n_features,) and (n_targets,), dtype float64
        Of x and of y.
    scatter : ndarray of shape (n_features, n_features)
        Sum of products of centred x.
    mixed : ndarray of shape (n_features, n_targets)
        Sum of products of centred x and centred y.
    total : float
        Sum of squares of centred y.
    """
    x_mean, y_mean = (
        sum(chunk.sum(axis=0, dtype=np.float64) for chunk in one.float_chunks()) / one.n_tokens
        for one in (tokens, targets)
    )
    scatter = np.zeros((tokens.n_features, tokens.n_features))
    mixed, total = np.zeros((tokens.n_features, targets.n_features)), 0.0
    for samples, block in tokens.blocks():
        x = as_floats(block) - x_mean
        y = as_floats(targets[samples].flat()) - y_mean
        scatter += x.T @ x
        mixed += x.T @ y
        total += float(np.vdot(y, y))
    return x_mean, y_mean, scatter, mixed, total


def ridge(scatter: Array, mixed: Array, alpha: float) -> tuple[Array, float]:
    r"""Least squares with a penalty in units of the mean variance of a feature.

    .. math:: M = \Sigma_{yx} \Big(\Sigma_{xx} + \alpha \tfrac{\operatorname{tr} \Sigma_{xx}}{d}
        I\Big)^{-1}

    Parameters
    ----------
    scatter : ndarray of shape (n_features, n_features)
        :math:`\Sigma_{xx}`, up to a factor.
    mixed : ndarray of shape (n_features, n_targets)
        :math:`\Sigma_{xy}`, with the same factor.
    alpha : float
        The penalty; with 0, directions in which x does not vary get nothing.

    Returns
    -------
    matrix : ndarray of shape (n_targets, n_features)
        M.
    freedom : float
        Degrees of freedom, the trace of what makes fitted values of values.
    """
    values, vectors = np.linalg.eigh(scatter)
    kept = values > max(values[-1], 0) * len(values) * np.finfo(np.float64).eps
    values, vectors = values[kept], vectors[:, kept]
    damped = values + alpha * np.trace(scatter) / len(scatter)
    return ((vectors / damped) @ (vectors.T @ mixed)).T, float((values / damped).sum())


def procrustes(scatter: Array, mixed: Array) -> tuple[Array, float]:
    r"""Best rotation times one scale.

    .. math:: M = s\, V U^\top, \qquad \Sigma_{xy} = U S V^\top, \qquad
        s = \frac{\operatorname{tr} S}{\operatorname{tr} \Sigma_{xx}}

    Parameters
    ----------
    scatter : ndarray of shape (n_features, n_features)
        :math:`\Sigma_{xx}`, up to a factor.
    mixed : ndarray of shape (n_features, n_targets)
        :math:`\Sigma_{xy}`, with the same factor.

    Returns
    -------
    matrix : ndarray of shape (n_targets, n_features)
        M; of spaces of different widths, rows or columns alone are orthogonal to each other. Where
        y is narrower than x, least squares may ask for another one.
    freedom : float
        Directions that are mapped.
    """
    left, sizes, right = np.linalg.svd(mixed, full_matrices=False)
    spread = np.trace(scatter)
    scale = sizes.sum() / spread if spread > 0 else 0.0
    return scale * (left @ right).T, float(len(sizes))


class ActivationSpaceMap(ClassNamePrefixFeaturesOutMixin, TokenTransformer):
    r"""Map activations of one layer or model to those of another, and concepts with them.

    .. math:: \hat y = \mu_y + M (x - \mu_x)

    with the matrix of ridge regression (see :func:`~skact.algebra.ridge`), or of the orthogonal
    Procrustes problem with one scale [1]_, fitted on tokens x and y that belong together: the same
    tokens in two layers, or the same pieces of text in two models, see
    :func:`~skact.algebra.align_tokens`.

    A map from x to y carries concepts in two ways [2]_ [3]_:

    - a **vector** v of the space of x becomes :math:`M v` in that of y (:meth:`carry_vectors`);
    - a **detector** that reads y comes to read x, :math:`x \mapsto f(\hat y)` (:meth:`carry`), with
      its thresholds. So fit the map on tokens of the model to be watched as X, and of the model
      that the detector was fitted on as y.

    Parameters
    ----------
    method : {"ridge", "procrustes"}, default="ridge"
        Any linear map, or one that keeps angles.
    alpha : float, default=0.01
        Penalty of ridge regression, in units of the mean variance of a feature of x. Not read by
        "procrustes".

    Attributes
    ----------
    matrix_ : ndarray of shape (n_targets, n_features), dtype float64
        M.
    intercept_ : ndarray of shape (n_targets,), dtype float64
        :math:`\mu_y - M \mu_x`.
    explained_ : float
        Share of the variance of y that the map explains on the training tokens,
        :math:`1 - \sum \lVert y - \hat y \rVert^2 / \sum \lVert y - \mu_y \rVert^2`; where the n
        tokens are more than 2 f + 2, corrected for the f degrees of freedom of the map: the
        missing share times :math:`(n - 1) / (n - f - 1)`.
    target_names_ : ndarray of shape (n_targets,), dtype object, or None
        Names of the features of y.
    target_source_ : Source or None
        Model, layer and scaling of y, which mapped tokens are said to be of.
    n_features_in_ : int
        Features of x.
    source_ : Source or None
        Model, layer and scaling of x.

    References
    ----------
    .. [1] Schönemann, "A generalized solution of the orthogonal Procrustes problem", 1966.
    .. [2] Merullo, Castricato, Eickhoff, Pavlick, "Linearly Mapping from Image to Text Space",
       ICLR 2023.
    .. [3] Moschella et al., "Relative representations enable zero-shot latent space communication",
       ICLR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import ActivationSpaceMap
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(50, 2))
    >>> turned = 3 * X @ [[0, 1], [-1, 0]] + [5, 5]
    >>> space = ActivationSpaceMap("procrustes").fit(X, turned)
    >>> space.carry_vectors([[1.0, 0.0]]).round(6) + 0
    array([[0., 3.]])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "method": [StrOptions({"ridge", "procrustes"})],
        "alpha": [Number(Real, 0, None, closed="left")],
    }

    matrix_: Array
    intercept_: Array
    explained_: float
    target_names_: Array | None
    target_source_: Source | None

    def __init__(
        self, method: Literal["ridge", "procrustes"] = "ridge", *, alpha: float = 0.01
    ) -> None:
        self.method = method
        self.alpha = alpha

    def fit(self, X: Any, y: Any) -> Self:
        """Learn the map.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Tokens of the one space.
        y : TokenArray, list of 2-D arrays, 3-D array, 2-D array or vector
            Tokens of the other one, as many for each sample. A vector is one feature.

        Returns
        -------
        self : ActivationSpaceMap
            Fitted.

        Raises
        ------
        ValueError
            If X or y are no tokens, are one token in all, or differ in their samples or in the
            tokens of one.
        """
        self._validate_params()
        tokens = check_tokens(self, X)
        targets = self._targets(y)
        _check_aligned(tokens, targets)
        if tokens.n_tokens < 2:
            raise ValueError("X has 1 sample of 1 token; a map between spaces needs at least two.")
        x_mean, y_mean, scatter, mixed, total = joint_moments(tokens, targets)
        if self.method == "ridge":
            self.matrix_, freedom = ridge(scatter, mixed, self.alpha)
        else:
            self.matrix_, freedom = procrustes(scatter, mixed)
        self.intercept_ = y_mean - self.matrix_ @ x_mean
        fitted = float(np.vdot(self.matrix_ @ scatter, self.matrix_))
        missed = total - 2 * float(np.vdot(self.matrix_.T, mixed)) + fitted
        self.explained_ = _explained(missed, total, tokens.n_tokens, freedom)
        names = targets.feature_names
        self.target_names_ = None if names is None else np.array(names, dtype=object)
        self.target_source_ = targets.source
        return self

    def _targets(self, y: Any) -> TokenArray:
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: the "
                "tokens of the space that is mapped to."
            )
        if _is_vector(y):
            y = float_array(y, "y")[:, None]
        try:
            return check_tokens(type(self)(), y)
        except (TypeError, ValueError) as error:
            said = str(error).replace("Input X", "y")
            raise type(error)(f"y must be tokens of the other space: {said}") from error

    def _transform(self, tokens: TokenArray) -> TokenArray:
        names = self.target_names_
        return tokens.map(
            self._function(),
            feature_names=None if names is None else list(names),
            source=self.target_source_,
        )

    def _function(self) -> Callable[[Array], Array]:
        return _Affine(self.matrix_, self.intercept_)

    @property
    def _n_features_out(self) -> int:
        return len(self.intercept_)

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Return the names of the features that are mapped to.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        names : ndarray of shape (n_targets,), dtype object
            Those of y, else the class name with a number.
        """
        check_is_fitted(self)
        if self.target_names_ is not None:
            return self.target_names_
        names: Array = super().get_feature_names_out(input_features)
        return names

    def affine_map(self) -> tuple[Array, Array]:
        """Give mapped tokens as an affine function of a token: ``weights @ token + bias``.

        Returns
        -------
        weights : ndarray of shape (n_targets, n_features), dtype float64
            ``matrix_``.
        bias : ndarray of shape (n_targets,), dtype float64
            ``intercept_``.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        check_is_fitted(self)
        return self.matrix_, self.intercept_

    def carry_vectors(self, vectors: Any) -> Array:
        r"""Carry directions along: :math:`v_y = M v_x`.

        Parameters
        ----------
        vectors : array-like of shape (n_vectors, n_features), or fitted concept method
            Directions in the space of X; a method gives its ``concept_vectors_``.

        Returns
        -------
        carried : ndarray of shape (n_vectors, n_targets), dtype float64
            Directions in the space of y.

        Raises
        ------
        NotFittedError
            Before ``fit``, or if the method is not fitted.
        ValueError
            If they are of another width, or the method was fitted on another model, layer or
            scaling than X.
        """
        check_is_fitted(self)
        if isinstance(vectors, BaseEstimator):
            check_is_fitted(vectors)
            _check_source("vectors", vectors, self.source_, "X")
        rows = float_array(getattr(vectors, "concept_vectors_", vectors), "vectors")
        if rows.ndim != 2 or rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"vectors must be of shape (n_vectors, {self.n_features_in_}), as X was wide, got "
                f"{rows.shape}."
            )
        if not len(rows) or not np.isfinite(rows).all():
            raise ValueError("vectors must be finite, and one or more.")
        return rows @ self.matrix_.T

    @checked(estimator="no_validation")
    def carry(self, estimator: Any) -> Pipeline:
        """Let what was fitted on tokens of y read tokens of X, as it is.

        Parameters
        ----------
        estimator : fitted estimator or Pipeline
            Reads tokens of the space of y, such as a scaler, a concept method and a detector.

        Returns
        -------
        pipeline : Pipeline
            The map and the estimator, both frozen. It is saved, watched and scored as any other.

        Raises
        ------
        NotFittedError
            Before ``fit``, or if the estimator is not fitted.
        TypeError
            If it reads raw samples, or is no estimator.
        ValueError
            If it was fitted on tokens of another width, model, layer or scaling than y.
        """
        check_is_fitted(self)
        steps = steps_of(estimator)
        if not steps or not all(isinstance(step, BaseEstimator) for step in steps):
            raise TypeError(f"estimator must be a fitted estimator, got {estimator!r}.")
        if isinstance(steps[0], TransformerEmbedder):
            raise TypeError(
                "estimator reads raw samples; carry what stands behind its embedder, pipeline[1:], "
                "and put the embedder of the other model before the result."
            )
        check_is_fitted(estimator)
        width = len(self.intercept_)
        if (wide := getattr(steps[0], "n_features_in_", width)) != width:
            raise ValueError(
                f"estimator was fitted on tokens of {wide} features, and this map gives {width}; "
                "the map goes from the model to be read (X) to that of the estimator (y)."
            )
        _check_source("estimator", steps[0], self.target_source_, "y")
        return Pipeline([("map", FrozenEstimator(self)), ("estimator", FrozenEstimator(estimator))])

    def score(self, X: Any, y: Any) -> float:
        """Tell how much of the variance of y the map explains, of other tokens than in ``fit``.

        Parameters
        ----------
        X, y : as in ``fit``
            Tokens that belong together.

        Returns
        -------
        explained : float
            1 for all of it, 0 for no more than its mean does, less where it is worse.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X or y are no tokens of these spaces, or do not belong together.
        """
        check_is_fitted(self)
        tokens, targets = check_tokens(self, X, reset=False), self._targets(y)
        _check_aligned(tokens, targets)
        _check_width(targets, len(self.intercept_))
        mapped = self._transform(tokens)
        total, missed = 0.0, 0.0
        mean = sum(c.sum(axis=0, dtype=np.float64) for c in targets.float_chunks())
        mean = mean / targets.n_tokens
        for samples, block in mapped.blocks():
            there = targets[samples].flat().astype(np.float64)
            missed += float(((there - block) ** 2).sum())
            total += float(((there - mean) ** 2).sum())
        return _explained(missed, total)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags


def _is_vector(y: Any) -> bool:
    """Tell a number for each sample from tokens."""
    if isinstance(y, TokenArray):
        return False
    values = y if isinstance(y, list | tuple) else np.asarray(y)
    if isinstance(values, np.ndarray) and values.ndim != 1:
        return False
    return len(values) > 0 and np.ndim(values[0]) == 0


class _Affine:
    """An affine function of tokens, in their precision; it can be pickled."""

    def __init__(self, matrix: Array, intercept: Array) -> None:
        self._matrix, self._intercept = matrix.T, intercept

    def __call__(self, block: Array) -> Array:
        values = as_floats(block)
        matrix, intercept = (one.astype(values.dtype) for one in (self._matrix, self._intercept))
        return values @ matrix + intercept


def _explained(missed: float, total: float, n_tokens: int = 0, freedom: float = 0.0) -> float:
    """Share of the variance, where there are tokens to tell it from chance; warn of a low one."""
    share = 1 - missed / total if total > 0 else float(missed <= 0)
    if n_tokens <= 2 * freedom + 2:
        return float(share)
    corrected = float(1 - (1 - share) * (n_tokens - 1) / (n_tokens - freedom - 1))
    if corrected < _LEAST:
        warn(
            f"the map explains {corrected:.1%} of the variance of y beyond chance ({n_tokens} "
            "tokens): samples or tokens of X and y may not be in the same order."
        )
    return corrected


def _check_aligned(tokens: TokenArray, targets: TokenArray) -> None:
    if len(tokens) != len(targets):
        raise ValueError(
            f"X and y must hold the same samples, got {len(tokens)} and {len(targets)}."
        )
    apart = np.flatnonzero(tokens.lengths != targets.lengths)
    if len(apart):
        i = apart[0]
        raise ValueError(
            f"X and y must hold the same tokens, but of sample {i} there are {tokens.lengths[i]} "
            f"and {targets.lengths[i]} ({len(apart)} of {len(tokens)} samples differ). Models that "
            "cut texts in other ways are brought together by align_tokens(...), or by one vector "
            "for each sample, X.mean() and y.mean()."
        )


def _check_width(targets: TokenArray, width: int) -> None:
    if targets.n_features != width:
        raise ValueError(f"y has {targets.n_features} features, in fit it had {width}.")


def _check_source(what: str, fitted: Any, source: Source | None, side: str) -> None:
    theirs = getattr(fitted, "source_", None)
    if source is not None and theirs is not None and (field := theirs.conflict(source)):
        raise ValueError(
            f"{what} comes from another {field} than {side} of this map: from ({theirs}), the map "
            f"from ({source})."
        )
