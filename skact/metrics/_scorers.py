"""Token-level scores as scikit-learn scorers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils.metadata_routing import MetadataRequest

from skact.detection import superactivators
from skact.metrics._overlap import token_f1_score, token_iou_score
from skact.metrics._ranking import pointing_game_score, token_average_precision_score
from skact.rows import Array
from skact.tokens import TokenArray

__all__ = [
    "TokenScorer",
    "pointing_game_scorer",
    "token_average_precision_scorer",
    "token_f1_scorer",
    "token_iou_scorer",
]


class TokenScorer:
    """Scorer for GridSearchCV: a token-level score of marks or of maps.

    It asks for ``token_labels`` itself, so with metadata routing enabled
    ``GridSearchCV(pipe, grid, scoring=token_f1_scorer).fit(X, y, token_labels=labels)`` is all.

    Parameters
    ----------
    score : callable
        ``score(token_labels, marks)``, or of maps.
    read : callable
        ``read(estimator, X)`` gives the marks or maps.
    """

    def __init__(
        self, score: Callable[[Any, Any], float], read: Callable[[Any, Any], TokenArray]
    ) -> None:
        self._score = score
        self._read = read

    def __call__(self, estimator: Any, X: Any, y: Any = None, *, token_labels: Any) -> float:
        """Score a fitted estimator.

        Parameters
        ----------
        estimator : detector, Pipeline, search or ConceptLocalizer
            Fitted. Marks come from whatever ends in a detector, or from a localizer; maps from
            whatever has ``transform``.
        X : object
            What the estimator takes.
        y : object
            Ignored.
        token_labels : TokenArray of shape (n_samples, n_concepts), dtype bool
            Truth.

        Returns
        -------
        score : float
            In [0, 1].
        """
        return self._score(token_labels, self._read(estimator, X))

    def get_metadata_routing(self) -> MetadataRequest:
        """Ask scikit-learn for ``token_labels``.

        Returns
        -------
        request : MetadataRequest
            The request.
        """
        request = MetadataRequest(owner=self)
        request.score.add_request(param="token_labels", alias=True)
        return request

    def __repr__(self) -> str:
        return f"{self._score.__name__}r"


def _marks(estimator: Any, X: Any) -> TokenArray:
    """Decisions of a localizer, SuperActivators of all else."""
    if hasattr(estimator, "games"):
        return estimator.predict(X)
    return superactivators(estimator, X)


def _maps(estimator: Any, X: Any) -> TokenArray:
    """Read maps, with the lowest score where there is none: a missing map finds nothing."""
    if isinstance(estimator, type) or not hasattr(estimator, "transform"):
        raise TypeError(f"estimator must give maps by transform(X), got {estimator!r}.")
    maps = estimator.transform(X)
    return maps.map(_lowest_where_missing)


def _lowest_where_missing(attributions: Array) -> Array:
    return np.where(np.isnan(attributions), -np.inf, attributions)


#: F1 of SuperActivators, or of the marks of a localizer.
token_f1_scorer = TokenScorer(token_f1_score, _marks)
#: IoU of SuperActivators, or of the marks of a localizer.
token_iou_scorer = TokenScorer(token_iou_score, _marks)
#: Average precision of maps.
token_average_precision_scorer = TokenScorer(token_average_precision_score, _maps)
#: Pointing game of maps.
pointing_game_scorer = TokenScorer(pointing_game_score, _maps)
