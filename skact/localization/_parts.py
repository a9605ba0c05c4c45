"""Take the fitted parts of a localizer apart, and check that they belong together."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skact.base import steps_of, unwrapped
from skact.cached import cached_property
from skact.detection import BaseDetector
from skact.embedding import TransformerEmbedder
from skact.preprocessing import TokenScaler
from skact.rows import Array
from skact.tokens import Source, TokenArray

__all__ = ["Parts", "take_apart"]


@dataclass(frozen=True)
class Parts:
    """Fitted parts that belong together.

    Parameters
    ----------
    embedder : TransformerEmbedder
        Reads the layer that the concepts were fitted on.
    scalers : list of TokenScaler
        Between the embedder and the concept method.
    method : estimator
        The concept method, with ``concept_vectors_``.
    detector : BaseDetector
        Fitted on its scores.
    """

    embedder: TransformerEmbedder
    scalers: list[TokenScaler]
    method: Any
    detector: BaseDetector

    @property
    def concept_names(self) -> Array:
        """Names of the concepts, in the order of the detector."""
        return self.detector.concept_names_

    @cached_property
    def vectors(self) -> Array:
        """Vector of the column that the detector reads for each concept, in float64."""
        vectors = np.asarray(self.method.concept_vectors_)[self.detector.matched_columns_]
        # Once here, so that global targets are this array in all samples, and not a copy in each.
        return vectors.astype(np.float64, copy=False)

    @cached_property
    def shift(self) -> Array:
        """What the scalers subtract in all, in units of the model; the factor is positive."""
        shift, scale = np.zeros(self.vectors.shape[1]), 1.0
        for scaler in self.scalers:
            shift = shift + scale * (scaler.mean_ if scaler.with_mean else 0.0)
            scale *= scaler.scale_ if scaler.with_scale else 1.0
        return shift

    def scale(self, tokens: TokenArray) -> TokenArray:
        """Bring tokens of the model into the space of the concepts."""
        scaled: Any = tokens
        for scaler in self.scalers:
            scaled = scaler.transform(scaled)
        return scaled

    def marks(self, scaled: TokenArray) -> TokenArray:
        """SuperActivators of each concept among scaled tokens."""
        marks = self.detector.superactivators(self.method.transform(scaled))
        assert isinstance(marks, TokenArray)
        return marks

    def check(self, tokens: TokenArray) -> None:
        """Compare all parts on tokens of the embedder.

        Parameters
        ----------
        tokens : TokenArray
            As few as one; only their width and source are compared.

        Raises
        ------
        ValueError
            If embedder, concepts and detector do not belong together; the field that differs is
            named with both values.
        """
        first = [*self.scalers, self.method][0]
        fitted, source = getattr(first, "source_", None), tokens.source
        field = _conflict(fitted, source)
        if field is not None:
            raise ValueError(
                f"embedder reads another {field} than concepts were fitted on: concepts were "
                f"fitted on ({fitted}), embedder gives ({source})."
            )
        if tokens.n_features != first.n_features_in_:
            raise ValueError(
                f"embedder gives {tokens.n_features} features, concepts were fitted on "
                f"{first.n_features_in_}."
            )
        scores = self.method.transform(self.scale(tokens))
        detector = self.detector
        if scores.n_features != detector.n_features_in_:
            raise ValueError(
                f"detector was fitted on {detector.n_features_in_} score columns, concepts give "
                f"{scores.n_features}: it was fitted on other concepts."
            )
        fitted, source = detector.source_, scores.source
        field = _conflict(fitted, source)
        if field is not None:
            raise ValueError(
                f"detector was fitted on scores of another {field} than concepts give: fitted on "
                f"({fitted}), concepts give ({source})."
            )
        self._check_names(scores)

    def _check_names(self, scores: TokenArray) -> None:
        """Refuse a detector of concepts of other names; columns that were matched may differ."""
        read = np.asarray(self.method.concept_names_)[self.detector.matched_columns_].tolist()
        names = self.concept_names.tolist()
        matched = self.detector.match_columns is True or len(names) != scores.n_features
        units = scores.source is not None and scores.source.columns == "units"
        made_up = [f"concept{c}" for c in range(scores.n_features)]
        unnamed = set(read) <= set(made_up) or names == made_up[: len(names)]
        if not (matched or units or unnamed) and read != names:
            raise ValueError(
                f"detector was fitted on other concepts: it detects {names}, concepts score {read}."
            )


def _conflict(fitted: Source | None, source: Source | None) -> str | None:
    """Name the field in which two sources differ, if both are known."""
    return None if fitted is None or source is None else fitted.conflict(source)


def take_apart(embedder: Any, concepts: Any, detector: Any) -> Parts:
    """Find the parts, and check that each is of its kind and fitted.

    Parameters
    ----------
    embedder, concepts, detector
        Parameters of :class:`~skact.localization.ConceptLocalizer`.

    Returns
    -------
    parts : Parts
        Not yet compared with each other: see :meth:`Parts.check`.

    Raises
    ------
    TypeError, ValueError
        If one is of another kind.
    NotFittedError
        If one is not fitted.
    """
    embedder = unwrapped(embedder)
    _check_embedder(embedder)
    *scalers, method = steps_of(concepts) or [None]
    for scaler in scalers:
        _check_scaler(scaler)
    _check_method(method)
    detector = unwrapped(detector)
    if not isinstance(detector, BaseDetector):
        raise TypeError(
            f"detector must be a detector such as SuperActivator, got {type(detector).__name__}."
        )
    check_is_fitted(detector)
    return Parts(embedder, scalers, method, detector)


def _check_embedder(embedder: Any) -> None:
    if not isinstance(embedder, TransformerEmbedder):
        raise TypeError(f"embedder must be a TransformerEmbedder, got {type(embedder).__name__}.")
    if not isinstance(embedder.layer, Real):
        raise ValueError(
            f"embedder must read one layer, got layer={embedder.layer!r}; take the one that the "
            "concepts were fitted on."
        )
    if embedder.site != "residual":
        raise ValueError(
            f"embedder must read the residual stream, got site={embedder.site!r}; maps follow what "
            "goes on to later blocks."
        )
    if embedder.pooling is not None:
        raise ValueError(
            f"embedder must keep the tokens, got pooling={embedder.pooling!r}; a map needs them."
        )
    if embedder.special_tokens:
        raise ValueError(
            "embedder must leave special tokens out, got special_tokens=True; they have no place "
            "in the sample."
        )


def _check_scaler(scaler: Any) -> None:
    if not isinstance(scaler, TokenScaler):
        raise TypeError(
            "concepts must be a concept method, or a Pipeline of TokenScaler and a concept "
            f"method, got the step {type(scaler).__name__}."
        )
    check_is_fitted(scaler)


def _check_method(method: Any) -> None:
    if not hasattr(method, "transform"):
        raise TypeError(f"concepts must end in a concept method, got {type(method).__name__}.")
    check_is_fitted(method)
    if not hasattr(method, "concept_vectors_"):
        raise TypeError(
            f"concepts must end in a concept method with concept_vectors_, which "
            f"{type(method).__name__} does not have."
        )
