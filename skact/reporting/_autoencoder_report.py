"""What an autoencoder leaves out of tokens, and what the model loses by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import Bunch, check_random_state

from skact import models
from skact.arguments import checked
from skact.concepts import scale_input
from skact.reporting._unit_scores import autoencoder_steps, block_of
from skact.reporting._units import FITTED, loading, score_parts
from skact.rows import Array, as_floats
from skact.samples import as_list
from skact.warning import warn

__all__ = ["autoencoder_report"]


@checked(estimator=[FITTED], loss=["boolean", None], random_state=["random_state"])
def autoencoder_report(
    estimator: Any, samples: Any, *, loss: bool | None = None, random_state: Any = None
) -> Bunch:
    r"""Report what an autoencoder leaves out of tokens, and what the model loses by it.

    With tokens :math:`z`, reconstructions :math:`\hat z` and errors :math:`e = z - \hat z`, the
    variance of the tokens is shared out among what is explained, the part of the errors that a
    linear map of the tokens predicts, and the rest [1]_:

    .. math:: 1 = \Big(1 - \frac{\sum \lVert e \rVert^2}{\sum \lVert z - \bar z \rVert^2}\Big)
              + \frac{\sum \lVert e \rVert^2 - \sum \lVert e - \hat e(z) \rVert^2}
                     {\sum \lVert z - \bar z \rVert^2}
              + \frac{\sum \lVert e - \hat e(z) \rVert^2}{\sum \lVert z - \bar z \rVert^2}

    The samples are dealt to two halves at random, and the errors of each are predicted by the map
    that least squares finds on the other one; a linear share below 0 means that it does not carry
    over. With a language model, reconstructions also take the place of the tokens in the model
    itself, where the embedder reads them; what is no token stays as it is. With the loss L of the
    next token, the share recovered is :math:`(L_0 - L(\hat z)) / (L_0 - L(z))`, where :math:`L_0`
    is the loss with zeros, or the mean token, in place of all tokens: the mean is the harder one.

    Parameters
    ----------
    estimator : Pipeline
        Fitted, of a TransformerEmbedder and a SparseAutoencoder.
    samples : sequence of n_samples texts, chats or images
        At least two, that the autoencoder was not trained on; as in :class:`TransformerEmbedder`.
    loss : bool, default=None
        Whether to run the model with reconstructions, four passes over the samples. None does it
        where the model has an unembedding; for that a named model is loaded with it.
    random_state : int, RandomState instance or None, default=None
        Draws the halves.

    Returns
    -------
    report : Bunch
        ``n_tokens``; ``explained``, ``linear`` and ``nonlinear``, which sum to 1;
        ``error_r2``, the share of the variance of the errors, and ``norm_r2``, of their norms, that
        the map of the other half predicts; ``n_fires``, the mean number of units that fire on a
        token; ``dead``, an ndarray of the numbers of units that fire on none. ``n_pairs``, the
        tokens that are foreseen from those before them, and the mean losses in nats, ``loss``,
        ``loss_reconstructed``, ``loss_zero`` and ``loss_mean``; ``recovered_zero`` and
        ``recovered_mean``, NaN where the control does not hurt. The last seven are None where the
        model was not run.

    Raises
    ------
    TypeError, ValueError
        If the estimator is something else, there are fewer than two samples, all tokens are equal,
        or ``loss=True`` and the model has no unembedding or sees the tokens to come.

    Warns
    -----
    UserWarning
        If a half has no more tokens than there are features, so that the map is not determined.

    References
    ----------
    .. [1] Engels, Riggs, Tegmark, "Decomposing the Dark Matter of Sparse Autoencoders", 2024.

    Examples
    --------
    >>> import skact
    >>> from sklearn.pipeline import make_pipeline
    >>> shapes = skact.make_shapes(20, random_state=0)
    >>> embedder = skact.TransformerEmbedder(skact.shapes_model_path(), layer=0.5)
    >>> method = skact.SparseAutoencoder(64, "topk", k=6, random_state=0)
    >>> pipe = make_pipeline(embedder, method).fit(shapes.data)
    >>> report = skact.autoencoder_report(pipe, shapes.data, random_state=0)
    >>> round(report.explained + report.linear + report.nonlinear, 6)
    1.0
    """
    steps = autoencoder_steps(estimator)
    raw = as_list(samples)
    if len(raw) < 2:
        raise ValueError(f"samples must be at least two, one in each half; got {len(raw)}.")
    language = _language(steps[0], loss)
    tokens = steps[0].transform(raw)
    # Nearly equal numbers in each, so that none is empty.
    is_second = check_random_state(random_state).permutation(len(raw)) % 2
    return Bunch(
        n_tokens=int(tokens.lengths.sum()),
        **_errors(steps[1], tokens, is_second),
        **_losses(steps, raw, tokens, language),
    )


def _language(embedder: Any, loss: bool | None) -> models.Language | None:
    if loss is False:
        return None
    try:
        if embedder.reader.loaded.modality != "text":
            raise ValueError("the model reads images, and foresees no words.")
        language = models.load_language(embedder.model, **loading(embedder))
        models.check_foresees(language)
    except ValueError as error:
        if loss:
            raise ValueError(f"loss=True, but {error}") from error
        return None
    return language


def _rebuilt(autoencoder: Any, values: Array, scores: Array | None = None) -> Array:
    """Reconstruct tokens, with the scale that each had."""
    scores = autoencoder.transform(values) if scores is None else scores
    _, shift, scale = scale_input(values, autoencoder.input_scaling_)
    rebuilt: Array = autoencoder.inverse_transform(scores) * scale + shift
    return rebuilt


class _Half:
    """Sums of the products of tokens, with a 1 behind each, and of errors, with their norm."""

    def __init__(self, n_features: int) -> None:
        size = n_features + 1
        self.tokens, self.cross = np.zeros((size, size)), np.zeros((size, size))
        self.squares, self.sums = np.zeros(size), np.zeros(size)

    def add(self, values: Array, errors: Array) -> None:
        """Count tokens in, as float64."""
        left = np.column_stack([values, np.ones(len(values))])
        right = np.column_stack([errors, np.linalg.norm(errors, axis=1)])
        self.tokens += left.T @ left
        self.cross += left.T @ right
        self.squares += (right**2).sum(axis=0)
        self.sums += right.sum(axis=0)

    def left_over(self, other: _Half) -> Array:
        """Squared residuals of errors and norm, by the least squares of the other half."""
        by = np.linalg.lstsq(other.tokens, other.cross, rcond=None)[0]
        fitted = 2 * self.cross - self.tokens @ by
        residuals: Array = self.squares - np.einsum("ij,ij->j", by, fitted)
        return residuals


def _errors(autoencoder: Any, tokens: Any, is_second: Array) -> dict[str, Any]:
    n_units, n_features = autoencoder.concept_vectors_.shape
    halves, fires = (_Half(n_features), _Half(n_features)), np.zeros(n_units, np.int64)
    # Nothing changes with the origin, near which products lose no digits.
    origin = tokens.flat()[: 2**12].mean(axis=0, dtype=np.float64)
    for first, scores in score_parts([autoencoder], tokens, n_units):
        part = tokens[first : first + len(scores)]
        values, found = as_floats(part.flat()), scores.flat()
        errors = (values - _rebuilt(autoencoder, values, found)).astype(np.float64)
        fires += (found != 0).sum(axis=0)
        second = np.repeat(is_second[first : first + len(scores)], part.lengths)
        for number, half in enumerate(halves):
            half.add(values[second == number] - origin, errors[second == number])
    least = int(min(half.tokens[-1, -1] for half in halves))
    if least <= n_features:
        warn(
            f"samples have {least} tokens in one half, for a linear map of {n_features} features "
            "that it does not determine: linear, error_r2 and norm_r2 mean little."
        )
    return {
        **_shares(*halves),
        "n_fires": float(fires.sum() / sum(half.tokens[-1, -1] for half in halves)),
        "dead": np.flatnonzero(fires == 0),
    }


def _shares(one: _Half, other: _Half) -> dict[str, float]:
    products = one.tokens + other.tokens
    n = products[-1, -1]
    variance = np.trace(products[:-1, :-1]) - (products[-1, :-1] ** 2).sum() / n
    if variance <= 0:
        raise ValueError("samples must have tokens that differ; all are equal.")
    squares, sums = one.squares + other.squares, one.sums + other.sums
    left = one.left_over(other) + other.left_over(one)
    around = squares - sums**2 / n
    error, left_error = squares[:-1].sum(), left[:-1].sum()
    return {
        "explained": float(1 - error / variance),
        "linear": float((error - left_error) / variance),
        "nonlinear": float(left_error / variance),
        "error_r2": _r2(left_error, around[:-1].sum()),
        "norm_r2": _r2(left[-1], around[-1]),
    }


def _r2(left: float, around: float) -> float:
    return float(1 - left / around) if around > 0 else np.nan


def _losses(
    steps: Sequence[Any], raw: list[Any], tokens: Any, language: models.Language | None
) -> dict[str, Any]:
    names = ("loss", "loss_reconstructed", "loss_zero", "loss_mean")
    if language is None:
        return dict.fromkeys(("n_pairs", *names, "recovered_zero", "recovered_mean"))
    embedder, autoencoder = steps
    mean = tokens.flat().mean(axis=0, dtype=np.float64)
    losses, n_pairs = models.next_token_losses(
        language,
        embedder.prepare(raw),
        block_of(embedder),
        embedder.site,
        [
            None,
            lambda values: _rebuilt(autoencoder, values),
            np.zeros_like,
            lambda values: np.broadcast_to(mean, values.shape).astype(values.dtype),
        ],
        embedder.batch_size,
    )
    clean, rebuilt, *controls = losses.tolist()
    recovered = [
        (control - rebuilt) / (control - clean) if control > clean else np.nan
        for control in controls
    ]
    return {
        "n_pairs": n_pairs,
        **dict(zip(names, losses.tolist(), strict=True)),
        **dict(zip(("recovered_zero", "recovered_mean"), recovered, strict=True)),
    }
