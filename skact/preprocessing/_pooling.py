"""From tokens to a matrix: one row per sample, for whatever takes no tokens."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skact.arguments import Number
from skact.base import NestedParamsMixin, TokensOutMixin
from skact.pooling import check_top_and_share, check_window, pool_windows
from skact.rows import Array, as_floats
from skact.tokens import Source, TokenArray
from skact.validation import check_tokens

__all__ = ["TokenPooling"]


class TokenPooling(NestedParamsMixin, OneToOneFeatureMixin, TokensOutMixin, BaseEstimator):
    r"""Pool the tokens of each sample to one row: the way from tokens to any other estimator.

    Column by column,

    ========= =======================================================================
    pool      row of a sample with the tokens :math:`z_1, \dots, z_n`
    ========= =======================================================================
    "max"     :math:`\max_i z_i`
    "mean"    :math:`\frac1n \sum_i z_i`
    "last"    :math:`z_n`
    "windows" the mean of the K largest means of M tokens, as in :class:`TopWindows`
    ========= =======================================================================

    What comes out is a matrix with a row per sample: of activations features of a sample, of the
    scores of a concept method features with the names of the concepts, of SuperActivators their
    presence ("max") or their share ("mean"). It goes into classifiers, ``FeatureUnion`` and
    ``ColumnTransformer``, and ``set_output`` makes a data frame of it, whose rows keep the index of
    the column of texts that the tokens were read from.

    Parameters
    ----------
    pool : {"max", "mean", "last", "windows"}, default="max"
        What becomes of the tokens of a sample.
    window : int, default=1
        M, with "windows": tokens of a run, or patches along one side of a square. In smaller
        samples the largest window that fits.
    top : int, default=1
        K, with "windows": how many windows count; all in samples that have fewer.
    share : float, default=None
        Share in (0, 1] of the windows that count, rounded, at least one, in place of ``top``.

    Attributes
    ----------
    column_names_ : ndarray of shape (n_features,), dtype object, or None
        Names that the tokens gave their columns.
    n_features_in_ : int
        Features of a token.
    feature_names_in_ : ndarray of shape (n_features,), dtype object
        Names of the columns of a data frame. Only for one.
    source_ : Source or None
        Model, layer and scaling of the tokens.

    See Also
    --------
    TransformerEmbedder : Its ``pooling`` gives one vector per sample without keeping tokens.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_union
    >>> from skact import TokenPooling
    >>> X = [np.array([[1.0, 5.0], [3.0, 4.0]]), np.array([[0.0, 2.0]])]
    >>> TokenPooling().fit_transform(X)
    array([[3., 5.],
           [0., 2.]])
    >>> make_union(TokenPooling("max"), TokenPooling("mean")).fit_transform(X)
    array([[3. , 5. , 2. , 4.5],
           [0. , 2. , 0. , 2. ]])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "pool": [StrOptions({"max", "mean", "last", "windows"})],
        "window": [Number(Integral, 1, None, closed="left")],
        "top": [Number(Integral, 1, None, closed="left")],
        "share": [Number(Real, 0, 1, closed="right"), None],
    }

    column_names_: Array | None
    n_features_in_: int
    source_: Source | None

    def __init__(
        self,
        pool: Literal["max", "mean", "last", "windows"] = "max",
        *,
        window: int = 1,
        top: int = 1,
        share: float | None = None,
    ) -> None:
        self.pool = pool
        self.window = window
        self.top = top
        self.share = share

    def _validate_params(self) -> None:
        super()._validate_params()
        check_top_and_share(self.top, self.share)
        if self.pool != "windows" and (self.window, self.top, self.share) != (1, 1, None):
            raise ValueError(
                f'window, top and share belong to pool="windows"; with pool="{self.pool}" leave '
                f"them out, got window={self.window}, top={self.top} and share={self.share}."
            )

    def fit(self, X: Any, y: Any = None) -> Self:
        """Take down what the tokens look like; nothing is learnt.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Tokens. A row of a 2-D array is a sample of one token, which pools to itself.
        y : None
            Ignored.

        Returns
        -------
        self : TokenPooling
            Fitted.

        Raises
        ------
        ValueError
            If X is not finite, or a window is longer than every sample.
        """
        self._validate_params()
        tokens = check_tokens(self, X)
        check_window(self.window, tokens)
        names = tokens.feature_names
        self.column_names_ = None if names is None else np.array(names, dtype=object)
        return self

    def transform(self, X: Any) -> Array:
        """Pool each sample.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Tokens with ``n_features_in_`` features.

        Returns
        -------
        pooled : ndarray of shape (n_samples, n_features), dtype float32 or float64
            A row per sample; a data frame where ``set_output`` asks for one, with the index of the
            pandas object that the samples came in.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X does not fit what was given to ``fit``.
        """
        check_is_fitted(self)
        tokens = check_tokens(self, X, reset=False)
        return as_floats(self._pool(tokens))

    def _pool(self, tokens: TokenArray) -> Array:
        if self.pool == "windows":
            return pool_windows(tokens, self.window, self.top, self.share)
        pooled: Array = getattr(tokens, self.pool)()
        return pooled

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Name the columns as the tokens do.

        Parameters
        ----------
        input_features : array-like of str of shape (n_features,), default=None
            Names; None takes those seen in ``fit``, or ``x0``, ``x1``, ...

        Returns
        -------
        names : ndarray of shape (n_features,), dtype object
            Names.
        """
        check_is_fitted(self)
        if input_features is None and self.column_names_ is not None:
            return self.column_names_
        names: Array = super().get_feature_names_out(input_features)
        return names

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags
