"""The estimator: raw texts or images in, a map per concept out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions, validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from skact.arguments import Number, check_sample_weight, checked, instance
from skact.base import ConceptNamesOutMixin, NestedParamsMixin, TokensOutMixin
from skact.localization._game import Game
from skact.localization._game_methods import SHAPIQ
from skact.localization._method import AttributionMethod, side_by_side
from skact.localization._methods import METHODS, resolve_method
from skact.localization._parts import take_apart
from skact.localization._targets import resolve_target
from skact.localization._unit import Unit
from skact.metrics import token_f1_score
from skact.rows import Array
from skact.samples import as_list
from skact.tail import best_cut
from skact.targets import Targets, check_more_targets, check_targets, check_token_labels
from skact.tokens import TokenArray
from skact.validation import weighted_samples
from skact.warning import warn

if TYPE_CHECKING:
    from skact.localization._samples import Samples

__all__ = ["ConceptLocalizer"]


class ConceptLocalizer(
    ConceptNamesOutMixin, NestedParamsMixin, MetaEstimatorMixin, TokensOutMixin, BaseEstimator
):
    r"""Where in a sample is a concept? One score per token, by one of ten attribution methods.

    What is explained is how much the tokens of a sample point towards a target,

    .. math:: g(x; t) = \frac1n \sum_i \cos(z_i(x), t),

    on the scaled embeddings and at the layer that the concepts were fitted on [1]_. The target of
    a concept is its vector (global) or the mean of the sample's own SuperActivators (local). Only
    the blocks up to that layer are run.

    ========================== ============================ ============================ =========
    name                       object                       forward passes per sample    gradients
    ========================== ============================ ============================ =========
    ``"direct"``               :class:`DirectAlignment`     1; :math:`\cos(z_i, t)`      no
    ``"grad_cam"``             :class:`GradCAM`             1                            of *g*
    ``"calm"``                 :class:`CALM`                1, after a fit in ``fit``    of heads
    ``"lime"``                 :class:`LIME`                ``n_masks`` for all concepts no
    ``"kernel_shap"``          :class:`KernelSHAP`          ``n_masks`` for all concepts no
    ``"rise"``                 :class:`RISE`                ``n_masks`` for all concepts no
    ``"shapiq"``               :class:`SHAPIQ`              ``n_masks`` for all concepts no
    ``"integrated_gradients"`` :class:`IntegratedGradients` ``n_steps`` per concept      yes
    ``"full_grad"``            :class:`FullGrad`            1                            yes
    ``"mfaba"``                :class:`MFABA`               ``n_steps`` per concept      yes
    ========================== ============================ ============================ =========

    LIME, KernelSHAP and integrated gradients come from captum, the coalitions of SHAP-IQ from
    shapiq, superpixels from scikit-image: ``pip install 'skact[attribution]'``.

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
    method : str or AttributionMethod, default="direct"
        See the table. A name stands for the object with its defaults; settings of a method, such as
        ``n_masks``, ``baseline``, ``unit`` or ``n_steps``, are those of the object, and are
        searched as ``method__n_masks``.
    target : {"local", "global"} or Target, default="local"
        What the map looks for.
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
    classes_ : ndarray of shape (n_classes,) or None
        The classes; None where y was an indicator matrix.
    without_target_ : ndarray of shape (n_concepts,), dtype int64
        Samples of ``fit`` that hold the concept, but have no target and hence no map: for the
        local target those without a SuperActivator of it. 0 for the global one.
    seed_ : int
        Seed of the masks.
    method_ : AttributionMethod
        A copy of the method, with what it learnt (``position_`` and ``evidence_`` of CALM).

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
        If samples have no target. Their maps are NaN and their predictions False.

    Notes
    -----
    Embedder, concepts and detector are inputs, as they are: ``fit`` does not refit them, and clones
    share them. Files of images are opened once in a call, as long as their pixels take up to 1 GiB.

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
        "method": [
            StrOptions(set(METHODS)),
            instance("an object such as GradCAM() or RISE()", AttributionMethod),
        ],
        "target": "no_validation",  # type: ignore[dict-item]
        "random_state": ["random_state"],
    }

    thresholds_: Array
    concept_names_: Array
    classes_: Array | None
    without_target_: Array
    seed_: int
    method_: AttributionMethod

    def __init__(
        self,
        embedder: Any,
        concepts: Any,
        detector: Any,
        *,
        method: str | AttributionMethod = "direct",
        target: Any = "local",
        random_state: Any = None,
    ) -> None:
        self.embedder = embedder
        self.concepts = concepts
        self.detector = detector
        self.method = method
        self.target = target
        self.random_state = random_state

    def fit(self, X: Any, y: Any, token_labels: Any = None, sample_weight: Any = None) -> Self:
        """Set the threshold of each concept's map; best on data that nothing else was fitted on.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            Calibration samples.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            Class labels (of two the larger one is the concept, of more each one) or an indicator
            matrix, in the order of the detector.
        token_labels : TokenArray or list of arrays of bool, default=None
            For each sample (n_tokens, n_concepts). None counts every token of a positive sample.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each sample counts, with all of its tokens: a weight of 2 is that of a sample
            that is there twice, one of 0 leaves it out. The parts are fitted already, and stay so.

        Returns
        -------
        self : ConceptLocalizer
            Fitted.

        Raises
        ------
        ValueError, TypeError
            If the parts do not belong together, X, y, token_labels and sample_weight do not, or a
            method that learns takes no weights.
        """
        method = self._method(self.method)
        weighs = not method.needs_fit or has_fit_parameter(method, "sample_weight")
        if sample_weight is not None and not weighs:
            raise TypeError(
                f"sample_weight: {type(method).__name__} learns from samples and its fit takes no "
                "weights; leave sample_weight out, or take another method."
            )
        X, (y, token_labels), weight = weighted_samples(
            sample_weight, as_list(X), y=y, token_labels=token_labels
        )
        samples = self._start(X, method)
        targets = check_targets(self, y, len(samples))
        self.concept_names_ = samples.parts.concept_names
        labels, targets = self._check_labels(
            token_labels, samples.tokens, targets, all_present=True
        )
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.classes_ = targets.classes
        told = {} if weight is None or not method.needs_fit else {"sample_weight": weight}
        self.method_ = clone(method).fit(samples, targets.present, **told)
        maps = samples.columns(self.method_.maps(samples, self.seed_))
        missing = samples.missing & targets.present
        self.without_target_ = missing.sum(axis=0)
        _warn(missing, "samples that hold the concept", samples)
        times = None if weight is None else np.repeat(weight, labels.lengths)
        self.thresholds_ = _thresholds(maps, labels.flat(), times)
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
        (maps,) = self.compare(X, [self.method]).values()
        return maps

    @checked(methods=["array-like"])
    def compare(self, X: Any, methods: Sequence[str | AttributionMethod]) -> dict[str, TokenArray]:
        """Map samples by several methods, in fewer passes than by one after the other.

        Samples are embedded once for all methods. Methods that perturb share the values of equal
        masks: LIME and RISE draw the same ones, so that both cost the passes of one if they have
        one budget, baseline and unit; KernelSHAP and SHAP-IQ have laws of their own.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            The samples.
        methods : sequence of str or AttributionMethod
            Values of ``method``.

        Returns
        -------
        maps : dict of str to TokenArray
            As :meth:`transform` gives them with that method, by its name, or by the whole object if
            two have one name.

        Raises
        ------
        NotFittedError
            Before ``fit``, or for CALM if it was not ``fit`` with CALM.
        ValueError, TypeError
            As in :meth:`transform`, or if there is no method or one twice.
        """
        check_is_fitted(self)
        chosen = [self._fitted_method(method) for method in methods]
        names = [method.name for method in chosen]
        names = names if len(set(names)) == len(names) else [str(method) for method in methods]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"methods must hold one or more methods, each once, got {names}.")
        samples = self._start(X, *chosen)
        _warn(samples.missing, "pairs of sample and concept", samples)
        found = list(side_by_side(chosen, samples, self.seed_))
        tokens, concepts = samples.tokens, list(samples.parts.concept_names)
        return {
            name: tokens.with_values(
                samples.columns(one[k] for one in found), concepts, tokens.source
            )
            for k, name in enumerate(names)
        }

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

        Raises
        ------
        NotFittedError, ValueError, TypeError
            As in ``transform``.
        """
        maps = self.transform(X)
        return maps.map(self._reached, feature_names=maps.feature_names, source=maps.source)

    def score(self, X: Any, y: Any, token_labels: Any = None, sample_weight: Any = None) -> float:
        """Token-level F1 of the marks, weighted by the tokens that belong to a concept.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            The samples.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            As in ``fit``.
        token_labels : TokenArray or list of arrays of bool, default=None
            Truth. None counts every token of a positive sample.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each sample counts, with all of its tokens.

        Returns
        -------
        score : float
            In [0, 1].

        Raises
        ------
        NotFittedError, ValueError, TypeError
            As in ``transform``, or if y, labels and weights do not fit the samples.
        """
        check_is_fitted(self)
        samples = as_list(X)
        # A fold need not hold every concept.
        targets = check_more_targets(self, y, len(samples), classes=self.classes_)
        if sample_weight is not None:
            check_sample_weight(sample_weight, len(samples))
        marks = self.predict(samples)
        labels, _ = self._check_labels(token_labels, marks, targets, all_present=False)
        return token_f1_score(labels, marks, sample_weight=sample_weight)

    @checked(
        baseline=[str, None],
        unit=[str, None],
        cell_size=[Number(Integral, 1, None, closed="left"), None],
        n_segments=[Number(Integral, 1, None, closed="left"), None],
    )
    def games(
        self,
        X: Any,
        *,
        baseline: str | None = None,
        unit: str | None = None,
        cell_size: int | None = None,
        n_segments: int | None = None,
    ) -> Iterator[Game]:
        """Give the explained function of each sample, as a game of its tokens.

        Parameters
        ----------
        X : sequence of n_samples texts or images
            The samples.
        baseline, unit : str, default=None
            As in :class:`RISE`. None takes those of the method, and "auto" and "token" for a method
            that has none.
        cell_size, n_segments : int, default=None
            As in :class:`RISE`. None takes those of the method, or else of :class:`RISE`.

        Yields
        ------
        game : Game
            One per sample, with one target per concept in the order of the detector; NaN for a
            target that the sample does not have. ``fit`` is not needed for it.

        Raises
        ------
        ValueError, TypeError
            If the parts do not belong together, or the baseline or the unit does not suit the
            samples.
        """
        method = self._method(self.method)
        baseline = getattr(method, "baseline", "auto") if baseline is None else baseline
        given = {"name": unit, "cell_size": cell_size, "n_segments": n_segments}
        given = {name: value for name, value in given.items() if value is not None}
        players = replace(getattr(method, "players", Unit()), **given)
        yield from self._start(X, method).games(baseline, players)

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
            If the method is not SHAP-IQ, and as in ``transform``.
        ImportError
            If shapiq is not installed.
        """
        check_is_fitted(self)
        method = self._fitted_method(self.method)
        if not isinstance(method, SHAPIQ):
            raise ValueError(
                'interactions are those of SHAP-IQ: set method="shapiq" or SHAPIQ(...), got '
                f"method={self.method!r}."
            )
        yield from method.interactions(self._start(X, method), self.seed_)

    def _method(self, method: Any) -> AttributionMethod:
        """Check the parameters with this ``method``, and turn it into an object."""
        validate_parameter_constraints(
            self._parameter_constraints,
            {**self.get_params(deep=False), "method": method},
            caller_name=type(self).__name__,
        )
        return resolve_method(method)

    def _fitted_method(self, method: Any) -> AttributionMethod:
        """Return a method as it is set now, with what ``fit`` has learnt for it."""
        method = self._method(method)
        if not method.needs_fit:
            return method
        if type(self.method_) is not type(method):
            raise NotFittedError(
                f'method="{method.name}" learns from data: its maps need a localizer fitted with '
                f'method="{method.name}".'
            )
        return self.method_

    def _start(self, X: Any, *methods: AttributionMethod) -> Samples:
        """Check everything that can be checked before samples are embedded."""
        from skact.localization._samples import Samples

        target = resolve_target(self.target)
        parts = take_apart(self.embedder, self.concepts, self.detector)
        samples = Samples(parts, target, as_list(X))
        first = samples.first()
        for method in methods:
            method.check(first)
        return samples

    def _reached(self, maps: Array) -> Array:
        """Mark attributions; NaN reaches no threshold."""
        return maps >= self.thresholds_

    def _check_labels(
        self, token_labels: Any, tokens: TokenArray, targets: Targets, *, all_present: bool
    ) -> tuple[TokenArray, Targets]:
        names = self.concept_names_.tolist()
        if targets.n_concepts != len(names):
            raise ValueError(
                f"y has {targets.n_concepts} concepts, detector detects {len(names)}: {names}."
            )
        labels, targets = check_token_labels(token_labels, tokens, targets, all_present=all_present)
        columns = labels.feature_names or targets.names
        if targets.classes is None and columns is not None and list(columns) != names:
            raise ValueError(
                f"the labels name the concepts {list(columns)}, detector detects {names}; they "
                "must be the same, in the same order."
            )
        return labels, targets

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


def _warn(missing: Array, where: str, samples: Samples) -> None:
    if missing.any():
        warn(
            f"{missing.sum()} {where} {samples.target.missing}: their maps are NaN and their "
            "predictions False."
        )


def _thresholds(maps: Array, labels: Array, weight: Array | None) -> Array:
    """Cut of each column with the best F1 over the tokens that have a map."""
    cuts = np.full(maps.shape[1], np.inf)
    for c, (scores, positive) in enumerate(zip(maps.T, labels.T, strict=True)):
        mapped = ~np.isnan(scores)
        if positive[mapped].any():
            times = None if weight is None else weight[mapped]
            cuts[c] = best_cut(scores[mapped], positive[mapped], times)
    return cuts
