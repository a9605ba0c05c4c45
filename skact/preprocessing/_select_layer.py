"""Take one layer out of a stack."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils.validation import check_is_fitted

from skact.arguments import Number
from skact.base import TokenTransformer
from skact.rows import Array, as_floats
from skact.tokens import LayerStack, TokenArray
from skact.validation import check_tokens

__all__ = ["SelectLayer", "held_block"]


class SelectLayer(OneToOneFeatureMixin, TokenTransformer):
    """Take one layer out of a LayerStack, which makes the layer a hyperparameter.

    Parameters
    ----------
    layer : int, default=-1
        Block to take, one of ``stack.layers``. A negative number counts from the last block of the
        stack.

    Attributes
    ----------
    layer_ : int or None
        The block taken; None if the tokens that were given do not say their block.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Where the layer came from.

    Notes
    -----
    Tokens of a single layer count as a stack of one, so a pipeline with this step also takes what
    was embedded at one layer; a ``layer`` that names another block is refused.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import LayerStack, SelectLayer, TokenArray
    >>> low, high = (TokenArray(np.full((5, 2), v), [0, 2, 5]) for v in (1.0, 2.0))
    >>> SelectLayer(layer=3).fit_transform(LayerStack({0: low, 3: high})).max()
    array([[2., 2.],
           [2., 2.]])
    """

    _parameter_constraints = {"layer": [Number(Integral, None, None, closed="neither")]}

    layer_: int | None

    def __init__(self, layer: int = -1) -> None:
        self.layer = layer

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check that the layer is there.

        Parameters
        ----------
        X : LayerStack, or tokens of one layer
            Training tokens.
        y : None
            Ignored.

        Returns
        -------
        self : SelectLayer
            Fitted.

        Raises
        ------
        ValueError
            If X does not hold the layer.
        """
        self._validate_params()
        tokens = check_tokens(self, self._select(X), reset=True)
        if isinstance(X, LayerStack):
            self.layer_ = X.layers[self.layer] if self.layer < 0 else self.layer
        else:
            self.layer_ = None if tokens.source is None else tokens.source.block
        return self

    def transform(self, X: Any) -> TokenArray | npt.NDArray[Any]:
        """Take the layer.

        Parameters
        ----------
        X : LayerStack, or tokens of one layer
            Tokens.

        Returns
        -------
        tokens : TokenArray of shape (n_samples, n_features), or ndarray for a 2-D array
            The layer's tokens, not copied.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Before ``fit``, if X does not hold the layer, or does not fit what was given to ``fit``.
        """
        check_is_fitted(self)
        return super().transform(self._select(X))

    def _select(self, X: Any) -> Any:
        if isinstance(X, LayerStack):
            return X.layer(self.layer)
        held_block(X, f"layer={self.layer}", [self.layer])
        return X

    def _transform(self, tokens: TokenArray) -> TokenArray:
        return tokens

    def _function(self) -> Callable[[Array], Array]:
        return as_floats

    def affine_map(self) -> tuple[float, Array]:
        """Give tokens as an affine function of themselves: ``weight * token + bias``.

        Returns
        -------
        weight : float
            1.
        bias : ndarray of shape (n_features,), dtype float64
            Zeros.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        check_is_fitted(self)
        return 1.0, np.zeros(self.n_features_in_)


def held_block(X: Any, said: str, asked: list[int]) -> int | None:
    """Block of tokens of one layer, None if it is not known; refuses to give another one."""
    block = X.source.block if isinstance(X, TokenArray) and X.source else None
    if asked not in ([-1], [block]):
        held = "does not say its block" if block is None else f"holds block {block}"
        raise ValueError(f"{said} asked for, but X is one layer and {held}.")
    return block
