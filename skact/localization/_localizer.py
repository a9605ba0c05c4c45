"""The estimator: raw texts or images in, a map per concept out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skact.base import TokensOutMixin
from skact.localization._embedded import Embedded, cosines
from skact.localization._game import Game
from skact.localization._interactions import shapiq, shapley_interactions
from skact.localization._parts import Parts, take_apart
from skact.localization._perturbation import check_budget, kernel_shap, lime, need, rise
from skact.localization._targets import Target, resolve_target
from skact.metrics import token_f1_score
from skact.rows import Array
from skact.samples import as_list
from skact.tail import best_cut
from skact.targets import Targets, check_more_targets, check_targets, check_token_labels
from skact.tokens import TokenArray
from skact.warning import warn

if TYPE_CHECKING:
    from skact.localization._copies import Perturbed
    from skact.localization._explained import ConceptGame

__all__ = ["METHODS", "ConceptLocalizer"]


_ON_GAMES: dict[str, Callable[..., Array]] = {
    "lime": lime,
    "kernel_shap": kernel_shap,
    "rise": rise,
    "shapiq": shapiq,
}
_AT_THE_LAYER = ("direct", "grad_cam", "calm")
_AT_THE_INPUT = ("integrated_gradients", "full_grad", "mfaba")
_LIBRARIES = {
    "lime": "captum.attr",
    "kernel_shap": "captum.attr",
    "integrated_gradients": "captum.attr",
    "shapiq": "shapiq",
}

#: Names of the methods.
METHODS = (*_AT_THE_LAYER, *_ON_GAMES, *_AT_THE_INPUT)


class ConceptLocalizer(MetaEstimatorMixin, TokensOutMixin, BaseEstimator):
    r"""Where in a sample is a concept? One score per token, by one of ten attribution methods.

    What is explained is how much the tokens of a sample point towards a target,

    .. math:: g(x; t) = \frac1n \sum_i \cos(z_i(x), t),

    on the scaled embeddings and at the layer that the concepts were fitted on [1]_. The target of
    a concept is its vector (global) or the mean of the sample's own SuperActivators (local). Only
    the blocks up to that layer are run.

    =========================  =====================================  ================
    method                     cost per sample, in forward passes     needs gradients
    =========================  =====================================  ================
    ``"direct"``               1; :math:`\cos(z_i, t)`                no
    ``"grad_cam"``             1                                      of :math:`g` only
    ``"calm"``                 1, and a fit on the calibration data   of its heads only
    ``"lime"``                 ``n_masks`` for all concepts           no
    ``"kernel_shap"``          ``n_masks`` for all concepts           no
    ``"rise"``                 ``n_masks`` for all concepts           no
    ``"shapiq"``               ``n_masks`` for all concepts           no
    ``"integrated_gradients"`` ``n_steps`` per concept, both ways     yes
    ``"full_grad"``            1, and one backward per concept        yes
    ``"mfaba"``                ``n_steps`` per concept, both ways     yes
    =========================  =====================================  ================

    LIME, KernelSHAP and integrated gradients come from captum, the coalitions of SHAP-IQ from
    shapiq: ``pip install skact[attribution]``.

    Parameters
    ----------
    embedder : TransformerEmbedder
        With the one layer that the concepts were fitted on.
    concepts : estimator
        A fitted concept method, or a fitted Pipeline of TokenScaler and concept method; wrappers
        (FrozenEstimator, CrossFitTransformer, a search) are opened.
    detector : estimator
        A detector fitted on the scores of ``concepts``. It says which concepts there are, which
        column each of them reads, and which tokens are SuperActivators.
    method : str, default="direct"
        See the table.
    target : {"local", "global"} or Target, default="local"
        What the map looks for.
    baseline : {"auto", "mean", "black", "blur", "mask", "pad", "delete"}, default="auto"
        What perturbation puts in the place of a player. Images: the mean colour of the image
        ("auto"), black, or the blurred image. Texts: the mask token ("auto" where there is one),
        padding that is not attended to, or nothing ("auto" elsewhere). The mean of :math:`g` is
        over the tokens that are left, 0 where none is.
    unit : {"token", "word"}, default="token"
        Players of a text: tokens, or runs of characters without white space. The value of a word
        is given to each of its tokens.
    n_masks : int, default=1000
        Perturbed copies per sample; more than it has players.
    n_steps : int, default=50
        Points on the path of integrated gradients, steps of MFABA.
    random_state : int, RandomState instance or None, default=None
        Draws the seed of the masks, once in ``fit``; the map of a sample does not depend on the
        samples beside it.

    Attributes
    ----------
    thresholds_ : ndarray of shape (n_concepts,), dtype float64
        Cut of the map with the best token-level F1 on the data given to ``fit``; infinity for a
        concept of which no token could be mapped there.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    classes_ : ndarray of shape (2,) or None
        The two classes; None where y was an indicator matrix.
    without_target_ : ndarray of shape (n_concepts,), dtype int64
        Samples of ``fit`` that hold the concept, but have no target and hence no map: for the
        local target those without a SuperActivator of it. 0 for the global one.
    seed_ : int
        Seed of the masks.
    calm_position_ : ndarray of shape (n_features + 1,), dtype float64
        Head of the position, for ``method="calm"``.
    calm_evidence_ : ndarray of shape (2, n_concepts), dtype float64
        Head of the evidence, for ``method="calm"``.

    Raises
    ------
    ValueError, TypeError
        Before anything is embedded, if the parts do not belong together (another layer, model,
        scaling or set of concepts), or the method does not suit the model or the samples.
    ImportError
        If the library of a method is not installed.

    Warns
    -----
    UserWarning
        If samples have no local target. Their maps are NaN and their predictions False.

    Notes
    -----
    Embedder, concepts and detector are inputs, as they are: ``fit`` does not refit them, and clones
    share them.

    The baseline of integrated gradients is the mean of the sample's tokens at the input of the
    first block; MFABA walks towards it by taking away the presence of each token.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", section on localization.

    Examples
    --------
    >>> from skact import LinearSeparator, SuperActivator, TransformerEmbedder
    >>> from skact.datasets import make_shapes, shapes_model_path
    >>> from skact.localization import ConceptLocalizer
    >>> shapes = make_shapes(18, random_state=0)
    >>> embedder = TransformerEmbedder(shapes_model_path(), layer=3)
    >>> labels = embedder.align_masks(shapes.data, shapes.masks, shapes.target_names)
    >>> tokens = embedder.transform(shapes.data)
    >>> concepts = LinearSeparator().fit(tokens, shapes.target, token_labels=labels)
    >>> detector = SuperActivator().fit(concepts.transform(tokens), shapes.target, labels)
    >>> localizer = ConceptLocalizer(embedder, concepts, detector, target="global")
    >>> localizer = localizer.fit(shapes.data, shapes.target, token_labels=labels)
    >>> localizer.transform(shapes.data[:2]).shape
    (2, 6)
    """

    # scikit-learn reads these requests under their name-mangled form.
    __metadata_request__fit: ClassVar = {"token_labels": True}
    __metadata_request__score: ClassVar = {"token_labels": True}

    _parameter_constraints: dict[str, list[Any]] = {
        "embedder": "no_validation",  # type: ignore[dict-item]
        "concepts": "no_validation",  # type: ignore[dict-item]
        "detector": "no_validation",  # type: ignore[dict-item]
        "method": [StrOptions(set(METHODS))],
        "target": "no_validation",  # type: ignore[dict-item]
        "baseline": [StrOptions({"auto", "mean", "black", "blur", "mask", "pad", "delete"})],
        "unit": [StrOptions({"token", "word"})],
        "n_masks": [Interval(Integral, 2, None, closed="left")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    thresholds_: Array
    concept_names_: Array
    classes_: Array | None
    without_target_: Array
    seed_: int
    calm_position_: Array
    calm_evidence_: Array

    def __init__(
        self,
        embedder: Any,
        concepts: Any,
        detector: Any,
        *,
        method: str = "direct",
        target: Any = "local",
        baseline: str = "auto",
        unit: str = "token",
        n_masks: int = 1000,
        n_steps: int = 50,
        random_state: Any = None,
    ) -> None:
        self.embedder = embedder
        self.concepts = concepts
        self.detector = detector
        self.method = method
        self.target = target
        self.baseline = baseline
        self.unit = unit
        self.n_masks = n_masks
        self.n_steps = n_steps
        self.random_state = random_state

    def fit(self, X: Any, y: Any, token_labels: Any = None) -> Self:
        """Set the threshold of each concept's map; best on data that nothing else was fitted on.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            Calibration samples.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            Two classes (the larger one is the concept) or an indicator matrix, in the order of the
            detector.
        token_labels : TokenArray or list of arrays of bool, default=None
            For each sample (n_tokens, n_concepts). None counts every token of a positive sample.

        Returns
        -------
        self : ConceptLocalizer
            Fitted.

        Raises
        ------
        ValueError, TypeError
            If the parts do not belong together, or X, y and token_labels do not.
        """
        parts, target, samples = self._start(X)
        targets = check_targets(self, y, len(samples))
        embedded = Embedded.of(parts, target, samples)
        self.concept_names_ = parts.concept_names
        labels, targets = self._check_labels(
            token_labels, embedded.tokens, targets, all_present=True
        )
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.classes_ = targets.classes
        if self.method == "calm":
            self._fit_calm(embedded, targets)
        maps = self._maps(embedded)
        missing = embedded.missing & targets.present
        self.without_target_ = missing.sum(axis=0)
        _warn(missing, "samples that hold the concept")
        self.thresholds_ = _thresholds(maps.flat(), labels.flat())
        return self

    def transform(self, X: Any) -> TokenArray:
        """Map samples.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            The samples.

        Returns
        -------
        attributions : TokenArray of shape (n_samples, n_concepts), dtype float64
            A score per token and concept; NaN where a sample has no target for the concept.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError, TypeError
            If the parts do not belong together, or the method does not suit the samples.
        """
        check_is_fitted(self)
        embedded = Embedded.of(*self._start(X))
        _warn(embedded.missing, "pairs of sample and concept")
        return self._maps(embedded)

    def predict(self, X: Any) -> TokenArray:
        """Mark the tokens whose attribution reaches the threshold of the concept.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            The samples.

        Returns
        -------
        marks : TokenArray of shape (n_samples, n_concepts), dtype bool
            False where there is no map.
        """
        maps = self.transform(X)
        # NaN reaches no threshold.
        return maps.map(
            lambda block: block >= self.thresholds_,
            feature_names=maps.feature_names,
            source=maps.source,
        )

    def score(self, X: Any, y: Any, token_labels: Any = None) -> float:
        """Token-level F1 of the marks, weighted by the tokens that belong to a concept.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            The samples.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            As in ``fit``.
        token_labels : TokenArray or list of arrays of bool, default=None
            Truth. None counts every token of a positive sample.

        Returns
        -------
        score : float
            In [0, 1].
        """
        check_is_fitted(self)
        # A fold need not hold every concept.
        targets = check_more_targets(self, y, len(as_list(X)), classes=self.classes_)
        marks = self.predict(X)
        labels, _ = self._check_labels(token_labels, marks, targets, all_present=False)
        return token_f1_score(labels, marks)

    def games(self, X: Any) -> Iterator[Game]:
        """Give the explained function of each sample, as a game of its tokens.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            The samples.

        Yields
        ------
        game : Game
            One per sample, with one target per concept in the order of the detector; NaN for a
            target that the sample does not have. ``fit`` is not needed for it.
        """
        embedded = Embedded.of(*self._start(X))
        yield from self._games(embedded.samples, embedded.parts, embedded.directions)

    def interactions(self, X: Any) -> Iterator[Array]:
        """Pairwise Shapley interactions of the players of each sample, by SHAP-IQ.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            The samples.

        Yields
        ------
        pairs : ndarray of shape (n_concepts, n_players, n_players), dtype float64
            One per sample; symmetric, 0 on the diagonal, NaN where the sample has no target.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError, TypeError
            As in ``transform``.
        ImportError
            If shapiq is not installed.
        """
        check_is_fitted(self)
        embedded = Embedded.of(*self._start(X))
        self._check_budget(embedded)
        there = ~embedded.missing
        vectors = (one[known] for one, known in zip(embedded.directions, there, strict=True))
        games = self._games(embedded.samples, embedded.parts, vectors)
        for game, known in zip(games, there, strict=True):
            pairs = np.full((len(known), game.n_players, game.n_players), np.nan)
            if known.any():
                found = shapley_interactions(game, n_masks=self.n_masks, random_state=self.seed_)
                pairs[known] = found.pairs
            yield pairs

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Return the names of the concepts.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        names : ndarray of shape (n_concepts,), dtype object
            ``concept_names_``.
        """
        check_is_fitted(self)
        return self.concept_names_

    def _start(self, X: Any) -> tuple[Parts, Target, list[Any]]:
        """Check everything that can be checked on one sample."""
        self._validate_params()
        target = resolve_target(self.target)
        parts = take_apart(self.embedder, self.concepts, self.detector)
        samples = as_list(X)
        parts.check(parts.embed(samples[:1]))
        if self.method in _LIBRARIES:
            need(_LIBRARIES[self.method], self.method)
        if self.method not in _AT_THE_LAYER:
            (game,) = self._games(samples[:1], parts, [parts.vectors[:1]])
            if self.method in _AT_THE_INPUT:
                self._input_map(game, "full_grad")
        return parts, target, samples

    def _check_labels(
        self, token_labels: Any, tokens: TokenArray, targets: Targets, *, all_present: bool
    ) -> tuple[TokenArray, Targets]:
        names = self.concept_names_.tolist()
        if targets.n_concepts != len(names):
            raise ValueError(
                f"y has {targets.n_concepts} concepts, detector detects {len(names)}: {names}."
            )
        labels, targets = check_token_labels(token_labels, tokens, targets, all_present=all_present)
        given = labels.feature_names or targets.names
        if targets.classes is None and given is not None and list(given) != names:
            raise ValueError(
                f"the labels name the concepts {list(given)}, detector detects {names}; they must "
                "be the same, in the same order."
            )
        return labels, targets

    def _fit_calm(self, embedded: Embedded, targets: Targets) -> None:
        from skact.localization._calm import fit_calm

        tokens = embedded.tokens
        pairs = zip(tokens, embedded.directions, strict=True)
        seen = np.concatenate([cosines(one, vectors) for one, vectors in pairs])
        heads = fit_calm(tokens.flat(), tokens.lengths, seen, targets.present)
        self.calm_position_, self.calm_evidence_ = heads

    def _maps(self, embedded: Embedded) -> TokenArray:
        """Attributions of all samples; a column of NaN where a sample has no target."""
        if self.method in _ON_GAMES:
            self._check_budget(embedded)
        if self.method in _AT_THE_LAYER:
            found = self._at_the_layer(embedded)
        else:
            found = self._in_the_model(embedded)
        tokens, names = embedded.tokens, embedded.parts.concept_names
        out = np.full((tokens.n_tokens, len(names)), np.nan)
        starts = np.cumsum(tokens.lengths) - tokens.lengths
        for (i, there), attributions in zip(embedded.known, found, strict=True):
            out[starts[i] : starts[i] + len(attributions), there] = attributions
        return tokens.with_values(out, list(names), tokens.source)

    def _at_the_layer(self, embedded: Embedded) -> Iterator[Array]:
        """Attributions of each sample that has a target, from its tokens alone."""
        for i, there in embedded.known:
            tokens, vectors = embedded.tokens[i], embedded.directions[i][there]
            if self.method == "direct":
                yield cosines(tokens, vectors)
            elif self.method == "calm":
                from skact.localization._calm import Calm, calm

                heads = Calm(self.calm_position_, self.calm_evidence_[:, there])
                yield calm(tokens, cosines(tokens, vectors), heads)
            else:
                from skact.localization._explained import MeanCosine
                from skact.localization._gradients import grad_cam

                yield grad_cam(tokens, MeanCosine(vectors, np.zeros(tokens.shape[1])))

    def _in_the_model(self, embedded: Embedded) -> Iterator[Array]:
        """Attributions of each sample that has a target, from what it does to the model."""
        samples = [embedded.samples[i] for i, _ in embedded.known]
        vectors = (embedded.directions[i][there] for i, there in embedded.known)
        for game in self._games(samples, embedded.parts, vectors):
            if self.method in _ON_GAMES:
                explain = _ON_GAMES[self.method]
                of_players = explain(game, n_masks=self.n_masks, random_state=self.seed_)
                yield of_players[game.players]
            else:
                yield self._input_map(game, self.method)

    def _perturbed(self, samples: list[Any], parts: Parts) -> Iterator[Perturbed]:
        from skact.localization._copies import perturbed_samples

        return perturbed_samples(parts.embedder, samples, baseline=self.baseline, unit=self.unit)

    def _games(
        self, samples: list[Any], parts: Parts, directions: Iterable[Array]
    ) -> Iterator[ConceptGame]:
        from skact.localization._explained import ConceptGame, MeanCosine

        if not samples:
            return
        for sample, vectors in zip(self._perturbed(samples, parts), directions, strict=True):
            yield ConceptGame(sample, MeanCosine(vectors, parts.shift))

    def _input_map(self, game: ConceptGame, method: str) -> Array:
        from skact.localization._gradients import input_map

        try:
            return input_map(method, game, self.n_steps)
        except RuntimeError as error:
            if not re.search("grad|derivative", str(error)):
                raise
            works = [name for name in METHODS if name not in _AT_THE_INPUT]
            raise ValueError(
                f'method="{self.method}" needs gradients with respect to the input of the first '
                f"block, which this model does not give ({error}). Methods that work: {works}."
            ) from error

    def _check_budget(self, embedded: Embedded) -> None:
        counts: Iterable[int] = embedded.tokens.lengths
        if self.unit == "word":
            perturbed = self._perturbed(embedded.samples, embedded.parts)
            counts = [sample.n_players for sample in perturbed]
        for i, n_players in enumerate(counts):
            check_budget(int(n_players), self.n_masks, f"sample {i}")

    def __sklearn_clone__(self) -> Self:
        params = self.get_params(deep=False)
        fitted = {name: params.pop(name) for name in ("embedder", "concepts", "detector")}
        twin = type(self)(**fitted, **{k: clone(v, safe=False) for k, v in params.items()})
        if hasattr(self, "_metadata_request"):
            twin._metadata_request = clone(self._metadata_request, safe=False)
        return twin

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags


def _warn(missing: Array, where: str) -> None:
    if missing.any():
        warn(
            f"{missing.sum()} {where} have no SuperActivator, so there is no local target: their "
            "maps are NaN and their predictions False.",
        )


def _thresholds(maps: Array, labels: Array) -> Array:
    """Cut of each column with the best F1 over the tokens that have a map."""
    cuts = np.full(maps.shape[1], np.inf)
    for c, (scores, positive) in enumerate(zip(maps.T, labels.T, strict=True)):
        mapped = ~np.isnan(scores)
        if positive[mapped].any():
            cuts[c] = best_cut(scores[mapped], positive[mapped])
    return cuts
