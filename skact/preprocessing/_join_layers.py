"""Put several layers of each token side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.utils.validation import check_is_fitted

from skact.arguments import Such
from skact.base import TokenTransformer
from skact.preprocessing._scaler import TokenScaler
from skact.preprocessing._select_layer import held_block
from skact.rows import Array, as_floats
from skact.tokens import LayerStack, Source, TokenArray, rescaled
from skact.validation import check_tokens, like_input

__all__ = ["JoinLayers"]


def _lists_blocks(layers: Any) -> bool:
    listed = isinstance(layers, Sequence | np.ndarray) and not isinstance(layers, str | bytes)
    return (
        listed
        and len(layers) > 0
        and all(isinstance(b, int | np.integer) and not isinstance(b, bool) for b in layers)
    )


class JoinLayers(ClassNamePrefixFeaturesOutMixin, TokenTransformer):
    r"""Put several layers of a LayerStack side by side, each scaled, as one vector per token.

    .. math:: z' = \big((z_1 - \mu_1) / s_1, \dots, (z_L - \mu_L) / s_L\big)

    with the mean and the root mean square norm of each layer, as :class:`TokenScaler` has them, so
    that no layer outweighs the others by its size. A separator then draws on what different depths
    know of a token.

    Parameters
    ----------
    layers : list of int, default=None
        Blocks to join, in this order; negative numbers count from the last block of the stack. None
        joins all.
    scale : bool, default=True
        Centre and divide each layer; False joins them as they are.

    Attributes
    ----------
    layers_ : ndarray of shape (n_layers,), dtype int64
        The blocks joined; empty if the tokens that were given do not say their block.
    mean_ : ndarray of shape (n_layers, n_features), dtype float64
        Mean of the training tokens of each layer; zeros with ``scale=False``.
    scale_ : ndarray of shape (n_layers,), dtype float64
        Root mean square norm of each layer; ones with ``scale=False``.
    n_features_in_ : int
        Features of a token at one layer.
    source_ : Source or None
        Where the layers came from; of several, without a block.

    Notes
    -----
    What comes out is a TokenArray whose source has no block, but names the layers and their scale:
    it is refused by what was fitted on other layers. ``fit`` goes through the tokens block by
    block; ``transform`` holds the joined tokens of all samples given.

    Tokens of a single layer count as a stack of one.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import JoinLayers, LayerStack, TokenArray
    >>> low, high = (TokenArray(np.full((5, 2), v), [0, 2, 5]) for v in (1.0, 2.0))
    >>> JoinLayers(scale=False).fit_transform(LayerStack({0: low, 3: high})).max()
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.]])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "layers": [Such("a list of block numbers", _lists_blocks), None],
        "scale": ["boolean"],
    }

    layers_: Array
    mean_: Array
    scale_: Array
    source_: Source | None

    def __init__(self, layers: Sequence[int] | None = None, *, scale: bool = True) -> None:
        self.layers = layers
        self.scale = scale

    def fit(self, X: Any, y: Any = None) -> Self:
        """Compute mean and scale of each layer.

        Parameters
        ----------
        X : LayerStack, or tokens of one layer
            Training tokens.
        y : None
            Ignored.

        Returns
        -------
        self : JoinLayers
            Fitted.

        Raises
        ------
        ValueError
            If X does not hold the layers, one is named twice, or they come from different models.
        """
        self._validate_params()
        blocks = self._blocks(X)
        parts = _layers(X, blocks)
        tokens = [check_tokens(self, parts[0])]
        self.source_ = _joint_source(parts)
        tokens += [check_tokens(self, part, reset=False) for part in parts[1:]]
        self.layers_ = np.array(blocks, np.int64)
        if self.scale:
            scalers = [TokenScaler().fit(layer) for layer in tokens]
            self.mean_ = np.stack([scaler.mean_ for scaler in scalers])
            self.scale_ = np.array([scaler.scale_ for scaler in scalers])
        else:
            self.mean_ = np.zeros((len(tokens), tokens[0].n_features))
            self.scale_ = np.ones(len(tokens))
        return self

    def transform(self, X: Any) -> TokenArray | Array:
        """Join the layers.

        Parameters
        ----------
        X : LayerStack, or tokens of one layer
            Tokens; of a stack with more layers, the fitted ones are taken.

        Returns
        -------
        tokens : TokenArray of shape (n_samples, n_layers * n_features), or ndarray for a 2-D array
            The layers, one behind the other; at least float32.

        Raises
        ------
        ValueError
            If X does not hold the layers that it was fitted on.
        """
        check_is_fitted(self)
        several = len(self.scale_) > 1
        if several and not isinstance(X, LayerStack):
            raise ValueError(
                f"JoinLayers was fitted on the layers {self.layers_.tolist()}, but X is no "
                "LayerStack; embed with a list of layers."
            )
        if isinstance(X, LayerStack) and not len(self.layers_):
            raise ValueError(
                "JoinLayers was fitted on tokens of one layer, which did not say their block, but "
                f"X is a LayerStack of blocks {X.layers}; pass X.layer(block)."
            )
        parts = _layers(X, self.layers_.tolist())
        tokens = [check_tokens(self, part, reset=False) for part in parts]
        return like_input(parts[0], self._joined(tokens))

    def _transform(self, tokens: TokenArray) -> TokenArray:
        return self._joined([tokens])

    def _joined(self, tokens: list[TokenArray]) -> TokenArray:
        first, width = tokens[0], tokens[0].n_features
        dtype = np.result_type(np.float32, *(layer.dtype for layer in tokens))
        out = np.empty((first.n_tokens, self._n_features_out), dtype)
        for number, layer in enumerate(tokens):
            columns = slice(number * width, (number + 1) * width)
            mean, scale = self.mean_[number].astype(dtype), self.scale_[number]
            for rows, block in layer.row_blocks():
                np.subtract(as_floats(block), mean, out=out[rows, columns])
                out[rows, columns] /= scale
        return first.with_values(out, source=rescaled(self.source_, self._fingerprint()))

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self.mean_.tobytes() + self.scale_.tobytes()).hexdigest()
        return f"JoinLayers {'+'.join(map(str, self.layers_))} {digest[:12]}"

    @property
    def _n_features_out(self) -> int:
        return int(self.mean_.size)

    def _blocks(self, X: Any) -> list[int]:
        """List the blocks to join; of one layer, its block if it is known."""
        if isinstance(X, LayerStack):
            asked = X.layers if self.layers is None else list(map(int, self.layers))
            last = len(X.layers)
            blocks = [X.layers[b] if -last <= b < 0 else b for b in asked]
            for block in blocks:
                X.layer(block)
                if blocks.count(block) > 1:
                    raise ValueError(f"layers={asked} names block {block} twice.")
            return blocks
        asked = [-1] if self.layers is None else list(self.layers)
        held = held_block(X, f"layers={asked}", asked)
        return [] if held is None else [held]


def _layers(X: Any, blocks: list[int]) -> list[Any]:
    return [X.layer(block) for block in blocks] if isinstance(X, LayerStack) else [X]


def _joint_source(parts: list[Any]) -> Source | None:
    """Say what is known of all layers: of several, neither a block nor scalings that differ."""
    sources = [getattr(part, "source", None) for part in parts]
    first = sources[0]
    if len(sources) == 1 or not isinstance(first, Source):
        return first
    same = all(source is not None and source.scaling == first.scaling for source in sources)
    return replace(first, block=None, scaling=first.scaling if same else None)
