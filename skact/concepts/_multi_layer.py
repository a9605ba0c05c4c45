"""One autoencoder for several layers, and at which of them each of its units acts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted

from skact.arguments import instance
from skact.base import ConceptNamesOutMixin, TokenTransformer
from skact.concepts._autoencoder import SparseAutoencoder
from skact.concepts._statistics import token_mean
from skact.rows import Array, as_floats
from skact.tokens import LayerStack, Source, TokenArray, rescaled
from skact.validation import check_tokens

__all__ = ["MultiLayerAutoencoder", "layer_profiles"]


def layer_profiles(totals: Array) -> Array:
    """Share of the activation of each unit that is at each layer.

    Parameters
    ----------
    totals : ndarray of shape (n_layers, n_units)
        Sums of activations over the tokens of each layer.

    Returns
    -------
    profiles : ndarray of shape (n_units, n_layers), dtype float64
        Rows that sum to 1; NaN for units that never act.
    """
    whole = totals.sum(axis=0)
    out = np.full(totals.T.shape, np.nan)
    return np.divide(totals.T, whole[:, None], out=out, where=whole[:, None] > 0)


class MultiLayerAutoencoder(MetaEstimatorMixin, ConceptNamesOutMixin, TokenTransformer):
    r"""One sparse autoencoder for the tokens of several layers, with the layers of each unit.

    The tokens of all layers train one dictionary [1]_. A layer l is centred and divided by the
    median distance from its mean, so that no layer outweighs the others by its size,

    .. math:: z'_l = (z_l - \mu_l) / s_l, \qquad
              s_l = \operatorname{median}_i \lVert z_{l,i} - \mu_l \rVert,

    and the profile of a unit j is the share of its activation f that is at each layer,

    .. math:: p_j(l) = \frac{\sum_i f_j(z'_{l,i})}{\sum_{l'} \sum_i f_j(z'_{l',i})}.

    A unit whose profile is spread out stands for what the residual stream carries through several
    layers as it is; one with all of it at one layer, for what is there only.

    Parameters
    ----------
    autoencoder : SparseAutoencoder
        What is trained; it is cloned.

    Attributes
    ----------
    autoencoder_ : SparseAutoencoder
        The clone, fitted on the scaled tokens of all layers.
    layer_profiles_ : ndarray of shape (n_units, n_layers), dtype float64
        :math:`p_j(l)` on the training tokens: rows that sum to 1, NaN for units that never act.
    layers_ : ndarray of shape (n_layers,), dtype int64
        The blocks, ascending; empty if the tokens that were given do not say their block.
    mean_ : ndarray of shape (n_layers, n_features), dtype float64
        :math:`\mu_l`.
    scale_ : ndarray of shape (n_layers,), dtype float64
        :math:`s_l`; 1 where that is 0, as for tokens that are all equal.
    scalings_ : ndarray of shape (n_layers,), dtype object
        What scaled the tokens of each layer before, as :class:`NormClip` fitted on it; empty if
        nothing did, or it is not known.
    concept_names_ : ndarray of shape (n_units,), dtype object
        Names of the units.
    n_features_in_ : int
        Features of a token at one layer.
    source_ : Source or None
        Where the layers came from; of several, without a block.

    Notes
    -----
    ``transform`` gives a LayerStack of activations for a LayerStack; :class:`SelectLayer` behind it
    goes on with one layer, which makes the layer a hyperparameter. Tokens of a single layer count
    as a stack of one. ``fit`` holds the scaled tokens of all layers, unless they are on disk.

    References
    ----------
    .. [1] Lawson, Farnik, Houghton, Aitchison, "Residual Stream Analysis with Multi-Layer SAEs",
       ICLR 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import LayerStack, MultiLayerAutoencoder, SparseAutoencoder, TokenArray
    >>> rng = np.random.default_rng(0)
    >>> layers = {b: TokenArray(rng.normal(size=(60, 4)), [0, 20, 60]) for b in (2, 5)}
    >>> method = MultiLayerAutoencoder(SparseAutoencoder(8, random_state=0))
    >>> scores = method.fit_transform(LayerStack(layers))
    >>> scores.layers, method.layer_profiles_.shape
    ([2, 5], (8, 2))
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "autoencoder": [instance("a SparseAutoencoder(...)", SparseAutoencoder)],
    }

    autoencoder_: SparseAutoencoder
    layer_profiles_: Array
    layers_: Array
    mean_: Array
    scale_: Array
    scalings_: Array
    source_: Source | None

    def __init__(self, autoencoder: SparseAutoencoder) -> None:
        self.autoencoder = autoencoder

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the autoencoder on the tokens of all layers.

        Parameters
        ----------
        X : LayerStack, or tokens of one layer
            Training tokens.
        y : None
            Ignored.

        Returns
        -------
        self : MultiLayerAutoencoder
            Fitted.

        Raises
        ------
        ValueError
            If X is not finite, does not fit the parameters, or its layers come from different
            models.
        """
        self._validate_params()
        parts = [X.layer(b) for b in X.layers] if isinstance(X, LayerStack) else [X]
        tokens = [check_tokens(self, parts[0])]
        said = [source and source.scaling for source in (getattr(p, "source", None) for p in parts)]
        self.scalings_ = np.array([one or "" for one in said], dtype=object)
        if len(parts) > 1 and self.source_ is not None:
            same = said[0] if len(set(said)) == 1 else None
            self.source_ = replace(self.source_, block=None, scaling=same)
        tokens += [check_tokens(self, part, reset=False) for part in parts[1:]]
        source = tokens[0].source
        alone = [] if source is None or source.block is None else [source.block]
        self.layers_ = np.array(X.layers if isinstance(X, LayerStack) else alone, np.int64)
        self.mean_ = np.stack([token_mean(layer) for layer in tokens])
        self.scale_ = np.array([_size(*pair) for pair in zip(tokens, self.mean_, strict=True)])
        scaled = [self._scaled(layer, number) for number, layer in enumerate(tokens)]
        self.autoencoder_ = clone(self.autoencoder).fit(TokenArray.concatenate(scaled))
        self.concept_names_ = self.autoencoder_.concept_names_
        self.layer_profiles_ = layer_profiles(np.stack([self._totals(one) for one in scaled]))
        return self

    @property
    def concept_vectors_(self) -> Array:
        """Directions of the units, float32 of shape (n_units, n_features)."""
        return self.autoencoder_.concept_vectors_

    def transform(self, X: Any) -> Any:
        """Give the activations of the units at each layer.

        Parameters
        ----------
        X : LayerStack, or tokens of one layer
            Tokens of some of the fitted layers, or all.

        Returns
        -------
        scores : LayerStack, TokenArray of shape (n_samples, n_units), or ndarray for a 2-D array
            In the form that X has.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X holds another layer than those that it was fitted on, does not say which, or was
            scaled otherwise.
        """
        check_is_fitted(self)
        if not isinstance(X, LayerStack):
            return super().transform(X)
        return LayerStack({block: self._scores(*one) for block, one in self._layers_of(X).items()})

    def profiles(self, X: Any) -> Array:
        """Tell at which layers each unit acts on other tokens than in ``fit``.

        Parameters
        ----------
        X : LayerStack, or tokens of one layer
            Tokens of all fitted layers.

        Returns
        -------
        profiles : ndarray of shape (n_units, n_layers), dtype float64
            As ``layer_profiles_``.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X does not hold the fitted layers.
        """
        check_is_fitted(self)
        stack = X if isinstance(X, LayerStack) else None
        if stack is None:
            tokens = check_tokens(self, X, reset=False)
            found = [(tokens, self._number(tokens))]
        else:
            found = list(self._layers_of(stack).values())
        if len(found) != len(self.scale_):
            raise ValueError(
                f"X must hold all layers that {type(self).__name__} was fitted on, "
                f"{self.layers_.tolist()}; got {len(found)} of {len(self.scale_)}."
            )
        return layer_profiles(np.stack([self._totals(self._scaled(*one)) for one in found]))

    def _layers_of(self, stack: LayerStack) -> dict[int, tuple[TokenArray, int]]:
        """Check each layer, and find its number among those that were fitted."""
        known = self.layers_.tolist()
        for block in stack.layers:
            if block not in known:
                raise ValueError(
                    f"X holds layer {block}, but {type(self).__name__} was fitted on {known}."
                )
        return {
            block: (check_tokens(self, stack.layer(block), reset=False), known.index(block))
            for block in stack.layers
        }

    def _number(self, tokens: TokenArray) -> int:
        known, source = self.layers_.tolist(), tokens.source
        block = None if source is None else source.block
        if len(self.scale_) == 1:
            return 0
        if block not in known:
            said = "does not say its block" if block is None else f"is of block {block}"
            raise ValueError(
                f"X {said}, but {type(self).__name__} was fitted on {known}; pass a LayerStack of "
                "these, or tokens whose source names one."
            )
        return known.index(block)

    def _transform(self, tokens: TokenArray) -> TokenArray:
        return self._scores(tokens, self._number(tokens))

    def _scores(self, tokens: TokenArray, number: int) -> TokenArray:
        scores = self.autoencoder_.transform(self._scaled(tokens, number))
        assert isinstance(scores, TokenArray)
        return scores

    def _scaled(self, tokens: TokenArray, number: int) -> TokenArray:
        said, known = tokens.source and tokens.source.scaling, self.scalings_[number]
        if said and known and said != known:
            where = f"block {self.layers_[number]}" if len(self.layers_) else "its layer"
            raise ValueError(
                f"X comes from another scaling than {type(self).__name__} was fitted on: {where} "
                f"was scaled by {known}, got {said}."
            )
        digest = hashlib.sha256(self.mean_.tobytes() + self.scale_.tobytes()).hexdigest()
        return tokens.map(
            partial(_scaled, mean=self.mean_[number], scale=self.scale_[number]),
            source=rescaled(tokens.source, f"MultiLayerAutoencoder {digest[:12]}"),
        )

    def _totals(self, scaled: TokenArray) -> Array:
        """Sum of the activations of each unit over scaled tokens, block by block."""
        act = self.autoencoder_.token_function()
        return np.sum([act(b).sum(axis=0, dtype=np.float64) for _, b in scaled.blocks()], axis=0)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


def _scaled(block: Array, mean: Array, scale: float) -> Array:
    values = as_floats(block)
    return (values - mean.astype(values.dtype)) / values.dtype.type(scale)


def _size(tokens: TokenArray, mean: Array) -> float:
    """Median distance from the mean."""
    chunks = tokens.float_chunks()
    return (
        float(np.median(np.concatenate([np.linalg.norm(c - mean, axis=1) for c in chunks]))) or 1.0
    )
