"""Adding the direction of a unit of an autoencoder."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skact.arguments import instance
from skact.concepts import SparseAutoencoder
from skact.rows import Array
from skact.steering._edit import (
    CONCEPT,
    STRENGTH,
    UNITS,
    BaseEdit,
    Labelled,
    Unit,
    median_norm,
    pick_concept,
    size_of,
)
from skact.steering._map import EditMap, Gate
from skact.steering._origin import check_origin
from skact.tokens import TokenArray

__all__ = ["UnitEdit"]


class UnitEdit(BaseEdit):
    r"""Add the direction of a unit of an autoencoder, always or only where the unit fires.

    .. math:: h' = h + a \, m \, W_{dec}[j]

    with rows of :math:`W_{dec}` of norm 1 and the median norm m of the tokens; :math:`h' = h + a
    W_{dec}[j]` with ``unit="raw"`` [1]_. What the autoencoder does not reconstruct stays in the
    token. Not idempotent.

    Parameters
    ----------
    autoencoder : SparseAutoencoder or FrozenEstimator of a fitted one
        One that is not frozen is fitted on the tokens.
    column : int or str, default=0
        Number or name of the unit, j.
    strength : float, default=1.0
        a.
    unit : {"norm", "raw"}, default="norm"
        As in :class:`Addition`.
    where : {"always", "tokens", "samples"}, default="always"
        Every token, tokens on which the unit fires, or all tokens of samples in which it does. In a
        generation a sample is what has been read so far.

    Attributes
    ----------
    direction_ : ndarray of shape (n_features,), dtype float64
        The row of the decoder.
    median_norm_ : float
        m, without zero tokens and those beyond 20 times the median.
    encoder_ : ndarray of shape (n_rows, n_features), dtype float64
        What is read to tell where the unit fires: its own row, or all where the k largest fire.
    encoder_bias_ : ndarray of shape (n_rows,), dtype float64
        What is added to that; the unit fires above 0.
    row_, k_ : int
        Which of the rows it is, and among how many of the largest; 0 for any.
    concept_names_ : ndarray of shape (0,), dtype object
        None: labels are not read.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    Raises
    ------
    ValueError
        In ``fit``, if the autoencoder scales each token by itself, or its activation is "afa",
        and the edit is to act where the unit fires: that is no affine gate.

    References
    ----------
    .. [1] Wu et al., "AxBench: Steering LLMs? Even Simple Baselines Outperform Sparse
       Autoencoders", ICML 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import SparseAutoencoder, UnitEdit
    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> edit = UnitEdit(SparseAutoencoder(6, random_state=0), column=2, unit="raw").fit(X)
    >>> bool(np.allclose(edit.transform(X) - X, edit.direction_))
    True
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "autoencoder": [
            instance("a SparseAutoencoder(...), or a frozen one", SparseAutoencoder),
            instance("a FrozenEstimator(...)", FrozenEstimator),
        ],
        "column": CONCEPT,
        "strength": [STRENGTH],
        "unit": [UNITS],
        "where": [StrOptions({"always", "tokens", "samples"})],
    }

    direction_: Array
    median_norm_: float
    encoder_: Array
    encoder_bias_: Array
    row_: int
    k_: int

    def __init__(
        self,
        autoencoder: Any,
        *,
        column: int | str = 0,
        strength: float = 1.0,
        unit: Unit = "norm",
        where: Literal["always", "tokens", "samples"] = "always",
    ) -> None:
        self.autoencoder = autoencoder
        self.column = column
        self.strength = strength
        self.unit = unit
        self.where = where

    def _needs_labels(self) -> bool:
        return False

    def _learn(self, tokens: TokenArray, labelled: Labelled | None) -> None:
        fitted = _fitted(self.autoencoder, tokens)
        number = pick_concept(fitted.concept_names_, self.column, "column")
        if self.where != "always" and fitted.input_scaling_ != "none":
            raise ValueError(
                f"where={self.where!r} needs a unit that fires beyond a plane, and this "
                "autoencoder scales each token by itself (input_scaling_="
                f'{fitted.input_scaling_!r}); use where="always".'
            )
        if self.where != "always" and fitted.activation_ == "afa":
            raise ValueError(
                f"where={self.where!r} needs a unit that fires beyond a plane, and which units of "
                'this autoencoder fire depends on the norm of the token (activation_="afa"); use '
                'where="always".'
            )
        self.direction_ = np.asarray(fitted.concept_vectors_[number], np.float64)
        if not self.direction_.any():
            raise ValueError(f"column {number} has a direction of zero, so it leads nowhere.")
        self.median_norm_ = median_norm(tokens)
        rows = slice(number, number + 1) if fitted.k_ is None else slice(None)
        self.row_, self.k_ = (0, 0) if fitted.k_ is None else (number, int(fitted.k_))
        self.encoder_ = fitted.encoder_.T[rows].astype(np.float64)
        bias = fitted.encoder_bias_[rows].astype(np.float64)
        if fitted.centred_:
            bias = bias - self.encoder_ @ fitted.decoder_bias_.astype(np.float64)
        if fitted.threshold_ is not None:
            bias = bias - np.maximum(fitted.threshold_[rows], 0)
        self.encoder_bias_ = bias

    def _map(self, strength: float, unit: Unit) -> EditMap:
        shift = strength * size_of(self.direction_, unit, self.median_norm_) * self.direction_
        if self.where == "always":
            return EditMap(shift)
        k = self.k_ or None
        gate = Gate(self.encoder_, self.encoder_bias_, self.row_, closed=False, k=k)
        return EditMap(shift, gates=(gate,), per_sample=self.where == "samples")


def _fitted(autoencoder: Any, tokens: TokenArray) -> SparseAutoencoder:
    if not isinstance(autoencoder, FrozenEstimator):
        return clone(autoencoder).fit(tokens)
    fitted = autoencoder.estimator
    if not isinstance(fitted, SparseAutoencoder):
        raise TypeError(
            f"autoencoder must hold a SparseAutoencoder, got a {type(fitted).__name__}."
        )
    check_is_fitted(fitted)
    check_origin("autoencoder", fitted, tokens.n_features, tokens.source)
    return fitted
