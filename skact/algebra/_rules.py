"""Concepts derived from detections by rules."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, Self

import numpy as np

from skact.arguments import check_concepts, is_name
from skact.base import ConceptNamesOutMixin, TokenTransformer, concept_names
from skact.rows import Array
from skact.tokens import TokenArray
from skact.validation import check_tokens

__all__ = ["ConceptRules"]


class ConceptRules(ConceptNamesOutMixin, TokenTransformer):
    r"""Derive concepts from detections by Horn clauses.

    A clause :math:`h \leftarrow b_1 \wedge \dots \wedge b_k` says that h holds where all of its
    body does. Clauses are applied by forward chaining [1]_, those that others need first, and a
    derived concept is scored by the weakest part of its best proof [2]_,

    .. math:: s_h(z) = \max_{(h \leftarrow b_1 \dots b_k)} \min_i s_{b_i}(z),

    where a concept that is a column of X too may also be there by itself, so that its own score is
    one of those of which the largest counts. On 0 and 1, that is what follows from the facts, and
    it commutes with cuts: cutting all scores at one level and then deriving gives the same as
    deriving and then cutting. So scores of the concepts must be on one scale, as decisions and
    probabilities are.

    Parameters
    ----------
    rules : dict of str to list of lists of str, default=None
        By derived concept its clauses, each the list of what must hold together:
        ``{"seaside": [["sand", "water"], ["boat", "water"]]}``. Bodies may name derived concepts.
        None derives nothing.
    concepts : list of str, default=None
        Names of the columns of X. None takes those that a data frame or TokenArray has, or
        ``concept0``, ``concept1``, ...

    Attributes
    ----------
    concept_names_ : ndarray of shape (n_features + n_derived,), dtype object
        Names of the columns that come out: those of X, then the others in the order of ``rules``.
    heads_ : ndarray of shape (n_clauses,), dtype int64
        Column that each clause derives, in the order in which clauses are applied.
    bodies_ : ndarray of shape (n_clauses, n_features + n_derived), dtype bool
        Columns that must hold for it.
    n_features_in_ : int
        Columns of X.
    source_ : Source or None
        Model, layer and scaling behind the scores.

    References
    ----------
    .. [1] Russell, Norvig, "Artificial Intelligence: A Modern Approach", section on forward
       chaining of definite clauses.
    .. [2] Zadeh, "Fuzzy Sets", Information and Control, 1965: conjunction as minimum.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import ConceptRules
    >>> rules = ConceptRules({"seaside": [["sand", "water"]]}, concepts=["sand", "water"])
    >>> rules.fit_transform(np.array([[0.9, 0.8], [0.9, 0.1]]))
    array([[0.9, 0.8, 0.8],
           [0.9, 0.1, 0.1]])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "rules": [dict, None],
        "concepts": ["array-like", None],
    }

    heads_: Array
    bodies_: Array

    def __init__(
        self,
        rules: Mapping[str, list[list[str]]] | None = None,
        *,
        concepts: list[str] | None = None,
    ) -> None:
        self.rules = rules
        self.concepts = concepts

    def fit(self, X: Any, y: Any = None) -> Self:
        """Order the rules; of X only the names of its columns are read.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Scores, probabilities or decisions (n_tokens, n_features), of tokens or of samples.
        y : None
            Ignored.

        Returns
        -------
        self : ConceptRules
            Fitted.

        Raises
        ------
        ValueError
            If a rule names an unknown concept or has an empty body, rules go in a circle, or
            ``concepts`` does not name the columns of X.
        """
        self._validate_params()
        names = self._names_of(check_tokens(self, X))
        clauses = _clauses(self.rules or {})
        known = [*names, *(head for head in clauses if head not in names)]
        for head, bodies in clauses.items():
            for name in (name for body in bodies for name in body if name not in known):
                raise ValueError(
                    f"the rule for {head!r} asks for {name!r}, which is neither a column of X, "
                    f"{names[:10]}, nor derived by a rule."
                )
        ordered = [(head, body) for head in _in_order(clauses) for body in clauses[head]]
        self.concept_names_ = concept_names(known, len(known))
        self.heads_ = np.array([known.index(head) for head, _ in ordered], np.int64)
        self.bodies_ = np.zeros((len(ordered), len(known)), bool)
        for k, (_, body) in enumerate(ordered):
            self.bodies_[k, [known.index(name) for name in body]] = True
        return self

    def _names_of(self, tokens: TokenArray) -> list[str]:
        if self.concepts is not None:
            names = [str(name) for name in check_concepts(self.concepts)]
            if len(names) != tokens.n_features:
                raise ValueError(
                    f"concepts must name the {tokens.n_features} columns of X, got {len(names)} "
                    "names."
                )
            return names
        seen = tokens.feature_names or getattr(self, "feature_names_in_", None)
        return list(concept_names(None if seen is None else list(seen), tokens.n_features))

    def _transform(self, tokens: TokenArray) -> TokenArray:
        names = list(self.concept_names_)
        if self.concepts is None and tokens.feature_names is not None:
            expected = tuple(names[: self.n_features_in_])
            if tokens.feature_names != expected:
                raise ValueError(
                    f"X names its columns {tokens.feature_names[:10]}, in fit they were "
                    f"{expected[:10]}."
                )
        return tokens.map(self._chain, feature_names=names, source=tokens.source)

    def _chain(self, values: Array) -> Array:
        """Apply the clauses: (n_tokens, n_features) to (n_tokens, n_features + n_derived)."""
        n_known = values.shape[1]
        never = False if values.dtype == bool else -np.inf
        out = np.full((len(values), len(self.concept_names_)), never, values.dtype)
        out[:, :n_known] = values
        for head, body in zip(self.heads_, self.bodies_, strict=True):
            np.maximum(out[:, head], out[:, body].min(axis=1), out=out[:, head])
        return out


def _clauses(rules: Mapping[Any, Any]) -> dict[str, list[list[str]]]:
    """Check the form of rules."""
    for head, bodies in rules.items():
        good = isinstance(bodies, list | tuple) and all(
            isinstance(body, list | tuple) and body and all(isinstance(n, str) for n in body)
            for body in bodies
        )
        if not (isinstance(head, str) and is_name(head) and good and len(bodies)):
            raise ValueError(
                'rules must have for each derived concept a list of bodies, as {"seaside": '
                f'[["sand", "water"]]}}, each with a name or more; got {head!r}: {bodies!r}.'
            )
    return {head: [list(body) for body in bodies] for head, bodies in rules.items()}


def _in_order(clauses: Mapping[str, list[list[str]]]) -> list[str]:
    """List derived concepts, those that others need first."""
    needs = {h: {n for body in b for n in body if n in clauses} for h, b in clauses.items()}
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = " needs ".join(map(repr, reversed(error.args[1])))
        raise ValueError(f"rules must not go in a circle: {circle}.") from None
