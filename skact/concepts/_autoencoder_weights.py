"""Weights of a sparse autoencoder, and what they do to tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn import get_config
from sklearn.utils import gen_batches

from skact.rows import Array, as_floats

__all__ = ["Activation", "AutoencoderWeights", "InputScaling", "decode", "encode", "scale_input"]

Activation = Literal["relu", "topk", "jumprelu", "afa"]


InputScaling = Literal["none", "constant_norm", "layer_norm"]


@dataclass(frozen=True)
class AutoencoderWeights:
    """All that encoding and decoding need.

    Parameters
    ----------
    encoder : ndarray of shape (n_features, n_units), dtype float32
        Encoder weights.
    encoder_bias : ndarray of shape (n_units,), dtype float32
        Encoder bias.
    decoder : ndarray of shape (n_units, n_features), dtype float32
        One direction per unit.
    decoder_bias : ndarray of shape (n_features,), dtype float32
        What is decoded where no unit fires.
    activation : {"relu", "topk", "jumprelu", "afa"}
        Which pre-activations survive.
    k : int or None
        Units of a token that may fire, for topk.
    threshold : ndarray of shape (n_units,), dtype float32, or None
        Pre-activation above which a unit fires, for jumprelu.
    centred : bool
        Whether the decoder bias is subtracted before encoding.
    input_scaling : {"none", "constant_norm", "layer_norm"}
        How each token is scaled on its own before encoding.
    """

    encoder: Array
    encoder_bias: Array
    decoder: Array
    decoder_bias: Array
    activation: Activation
    k: int | None = None
    threshold: Array | None = None
    centred: bool = True
    input_scaling: InputScaling = "none"


def scale_input(values: Array, how: InputScaling) -> tuple[Array, Array | float, Array | float]:
    r"""Scale each token on its own, as some published autoencoders expect.

    With d features, "constant_norm" gives :math:`z \sqrt d / \lVert z \rVert`; "layer_norm" gives
    :math:`(z - \bar z) / (\sigma + 10^{-5})` with the mean :math:`\bar z` and the unbiased standard
    deviation :math:`\sigma` over the token's features.

    Parameters
    ----------
    values : ndarray of shape (n_tokens, n_features)
        Tokens.
    how : {"none", "constant_norm", "layer_norm"}
        The scaling.

    Returns
    -------
    scaled : ndarray of shape (n_tokens, n_features)
        Scaled tokens; a zero token stays zero.
    shift, scale : ndarray of shape (n_tokens, 1), or float
        ``reconstruction * scale + shift`` leads back.
    """
    if how == "none":
        return values, 0.0, 1.0
    if how == "constant_norm":
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        scale = np.where(norms > 0, norms, 1) / np.sqrt(values.shape[1], dtype=values.dtype)
        return values / scale, 0.0, scale
    shift = values.mean(axis=1, keepdims=True)
    scale = values.std(axis=1, keepdims=True, ddof=min(1, values.shape[1] - 1))
    return (values - shift) / (scale + values.dtype.type(1e-5)), shift, scale


def _activate(pre: Array, weights: AutoencoderWeights, centred: Array) -> Array:
    """Zero what does not survive; works in place where it can."""
    if weights.activation == "afa":
        np.maximum(pre, 0, out=pre)
        _keep_to_norm(pre, np.linalg.norm(weights.decoder, axis=1), centred)
    elif weights.threshold is not None:
        pre[pre <= weights.threshold] = 0
    elif weights.k is not None:
        _keep_largest(pre, weights.k)
    return np.maximum(pre, 0, out=pre)


def _keep_largest(pre: Array, k: int) -> None:
    """Zero all but the k largest of each row, in place; of equals the first ones win."""
    smallest = np.partition(pre, -k, axis=1)[:, [-k]]
    pre[pre < smallest] = 0
    for row in np.flatnonzero(np.count_nonzero(pre > 0, axis=1) > k):
        n_larger = np.count_nonzero(pre[row] > smallest[row])
        pre[row, np.flatnonzero(pre[row] == smallest[row])[k - n_larger :]] = 0


def _keep_to_norm(active: Array, sizes: Array, centred: Array) -> None:
    """Zero all but the largest shares of each row, which together come nearest to its norm."""
    shares = (active * sizes).astype(np.float64)
    order = np.argsort(-shares, axis=1, kind="stable")
    norms = np.sqrt(np.cumsum(np.take_along_axis(shares, order, 1) ** 2, axis=1))
    wanted = np.linalg.norm(centred.astype(np.float64), axis=1, keepdims=True)
    n_kept = np.abs(norms - wanted).argmin(axis=1)[:, None] + 1
    left_out = np.arange(active.shape[1]) >= n_kept
    np.put_along_axis(active, order, np.where(left_out, 0, np.take_along_axis(active, order, 1)), 1)


def row_batches(n_rows: int, width: int) -> Any:
    """Batches of rows whose intermediate results take about scikit-learn's ``working_memory``."""
    budget = get_config()["working_memory"] * 2**20 / (32 * width)
    return gen_batches(n_rows, max(int(budget), 1))


def encode(values: Array, weights: AutoencoderWeights) -> Array:
    r"""Compute the activations of the units.

    .. math:: f(z) = \sigma\big((\mathrm{scale}(z) - b_{dec}) W_{enc} + b_{enc}\big)

    Parameters
    ----------
    values : ndarray of shape (n_tokens, n_features)
        Tokens.
    weights : AutoencoderWeights
        Weights and conventions.

    Returns
    -------
    activations : ndarray of shape (n_tokens, n_units), dtype float32
        At least 0. Computed block by block in the precision of the tokens, float32 or float64.
    """
    values = as_floats(values)
    encoder, bias = (
        a.astype(values.dtype, copy=False) for a in (weights.encoder, weights.encoder_bias)
    )
    centre = weights.decoder_bias.astype(values.dtype, copy=False)
    out = np.empty((len(values), encoder.shape[1]), np.float32)
    for rows in row_batches(len(values), sum(encoder.shape)):
        block = scale_input(values[rows], weights.input_scaling)[0]
        centred = block - centre
        pre = (centred if weights.centred else block) @ encoder
        pre += bias
        out[rows] = _activate(pre, weights, centred)
    return out


def decode(activations: Array, weights: AutoencoderWeights) -> Array:
    r"""Reconstruct tokens from activations, before any scaling of single tokens is undone.

    .. math:: \hat z = f W_{dec} + b_{dec}

    Parameters
    ----------
    activations : ndarray of shape (n_tokens, n_units)
        Activations.
    weights : AutoencoderWeights
        Weights.

    Returns
    -------
    tokens : ndarray of shape (n_tokens, n_features), dtype float32
        Reconstructions.
    """
    return activations.astype(np.float32, copy=False) @ weights.decoder + weights.decoder_bias
