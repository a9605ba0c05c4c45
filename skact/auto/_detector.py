"""The package in one estimator: raw samples and labels in, a detector of each concept out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skact.arguments import check_groups, check_sample_weight, instance
from skact.auto._choice import Choice, choose, concept_folds, splits_among, warn_of_floor
from skact.auto._encoder import ConceptEncoder
from skact.auto._explanation import explanation
from skact.auto._labels import Labels, read
from skact.base import SharedModelMixin, summing_to_one
from skact.embedding import TransformerEmbedder
from skact.inspection import PatchHeatMapDisplay, TokenHeatMapDisplay
from skact.metrics import weighted_f1_score
from skact.model_selection import ConceptSearchCV, make_folds
from skact.models import DetachedPair
from skact.rows import Array
from skact.samples import as_list
from skact.store import ActivationStore
from skact.tokens import LayerStack

__all__ = ["ConceptDetector", "Part"]

# Depths at which layers are compared.
_DEPTHS = [0.25, 0.5, 0.75, 1.0]


class Part(NamedTuple):
    """Concepts that are known of the same samples, and what was chosen for them."""

    concepts: Array
    choice: Choice


class ConceptDetector(SharedModelMixin, ClassifierMixin, BaseEstimator):
    """Detect concepts in raw texts or images, with everything between chosen by cross-validation.

    The samples go through the model once. Each layer is scaled and read by each concept method, on
    all folds but one, and the samples of that fold are scored; on these scores the pools are
    compared, and each concept gets what has the best F1 in cross-validation. Where only samples
    are labelled, ``MaxSeparator`` wins unless another is better by more than a standard error:

    ======= ===========================================================================
    what    candidates
    ======= ===========================================================================
    layer   those of ``layer``
    method  ``DifferenceInMeans(whiten=True)``, ``LinearSeparator()``, and ``MaxSeparator`` with
            ``weight_decay`` 1e-3 and 1e-4 (and ``tol=1e-4``)
    pool    ``TopWindows``: the largest token, the largest window of 4, the mean of the
            largest 10 % or 50 % of tokens, the mean of all
    cut     that with the best expected F1
    ======= ===========================================================================

    All of it is made of public parts, which the fitted attributes show: nothing is done that a
    :class:`Pipeline` and a :class:`ConceptSearchCV` cannot do.

    Parameters
    ----------
    model : str, Path, tuple or TransformerEmbedder, \
default="sentence-transformers/all-MiniLM-L6-v2"
        What the embedder takes as model; or an embedder, for settings of its own, of which the
        layer is passed over.
    layer : "auto", int, float, or sequence of int and float, default="auto"
        Layers that are compared, as in :class:`TransformerEmbedder`. "auto" takes the depths 0.25,
        0.5, 0.75 and 1.
    cv : int, splitter or iterable of splits, default=5
        Folds. An int spreads the positives of rare concepts over them, and keeps groups together.
    store : ActivationStore, str, Path or None, default=None
        Where activations are kept; None takes that of the embedder.
    random_state : int, RandomState instance or None, default=None
        Draws the folds, and the resamples of the intervals.
    n_jobs : int or None, default=None
        Fits at a time, as in joblib.

    Attributes
    ----------
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    classes_ : ndarray
        The classes of a y that is a vector, or the numbers of the concepts.
    results_ : dict of str to ndarray of shape (n_concepts,)
        Of each ``concept``: the ``layer``, ``method``, ``pool`` and ``cut`` that won; the
        cross-validated ``f1``, the ``floor`` (F1 of saying yes to everything) and their difference
        ``gain`` with its 95 % interval from ``gain_low`` to ``gain_high``; ``auroc``,
        ``average_precision`` and ``tpr_at_1_fpr`` of out-of-fold scores; ``n_positive`` and
        ``n_known`` samples. Figures are those of the winner, chosen on the same folds, so they are
        a little too good where there are few positives. Ready for a data frame.
    pipelines_ : dict of str to Pipeline
        From raw samples to decisions, by concept. Concepts with the same winner share it, and its
        detector speaks of all of them.
    search_ : ConceptSearchCV
        The comparison, over a :class:`LayerStack` of the scores of each layer and method, numbered
        in the order of ``heads_``. Where not all concepts are known of the same samples there are
        several, in ``searches_``.
    searches_ : dict of str to ConceptSearchCV
        By concept.
    heads_ : list of Pipeline
        From layers to scores, fitted on all samples; as ``search_``.
    embedder_ : TransformerEmbedder
        With the layers that the winners read.

    Notes
    -----
    With 5 folds each layer and method is fitted 6 times, and the model runs once.

    Examples
    --------
    >>> import skact
    >>> shapes = skact.make_shapes(40, random_state=0)
    >>> detector = skact.ConceptDetector(skact.shapes_model_path(), layer=-1, cv=2, random_state=0)
    >>> results = detector.fit(shapes.data, masks=shapes.masks).results_
    >>> bool((results["f1"] > results["floor"] + 0.1).all())
    True
    """

    # scikit-learn reads this request under its name-mangled form.
    __metadata_request__fit: ClassVar = {
        "token_labels": True,
        "spans": True,
        "masks": True,
        "groups": True,
    }

    _parameter_constraints: dict[str, Any] = {
        "model": [
            instance(
                "a name, a folder, a loaded pair (model, tokenizer or image processor), or an "
                "embedder TransformerEmbedder(...)",
                *(str, Path, tuple, DetachedPair, TransformerEmbedder),
            )
        ],
        "layer": "no_validation",
        "cv": ["cv_object"],
        "store": [
            instance("an ActivationStore(...), the path of one", ActivationStore, str, Path),
            None,
        ],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
    }

    concept_names_: Array
    classes_: Array
    results_: dict[str, Array]
    pipelines_: dict[str, Pipeline]
    searches_: dict[str, ConceptSearchCV]
    embedder_: TransformerEmbedder
    _encoder: ConceptEncoder
    _parts: list[Part]

    def __init__(
        self,
        model: Any = "sentence-transformers/all-MiniLM-L6-v2",
        *,
        layer: Any = "auto",
        cv: Any = 5,
        store: ActivationStore | str | Path | None = None,
        random_state: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.model = model
        self.layer = layer
        self.cv = cv
        self.store = store
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(
        self,
        raw: Any,
        y: Any = None,
        token_labels: Any = None,
        *,
        spans: Any = None,
        masks: Any = None,
        groups: Any = None,
        sample_weight: Any = None,
    ) -> Self:
        """Choose and fit a line for each concept.

        Parameters
        ----------
        raw : sequence of n_samples texts, chats or images
            As in :class:`TransformerEmbedder`.
        y : array-like of shape (n_samples,) or (n_samples, n_columns), default=None
            Labels of samples: numbers, strings or categories; a vector, matrix or data frame, of
            which column names become names of concepts. A column of 0 and 1 is a concept; of two
            other values the larger one is, of more each one. A missing value means that it is
            unknown whether the concept is there: the sample is passed over for that concept. None
            takes what the labels of tokens say.
        token_labels : TokenArray or list of arrays of bool, default=None
            For each sample (n_tokens, n_concepts).
        spans : sequence of n_samples sequences of (start, end, label), default=None
            For texts, as in :meth:`TransformerEmbedder.align_spans`. Names of concepts are those of
            y, or all labels.
        masks : sequence of n_samples arrays of shape (height, width, n_concepts), default=None
            For images, as in :meth:`TransformerEmbedder.align_masks`. Names of concepts are those
            of a data frame y, or ``concept0``, ``concept1``, ...
        groups : array-like of shape (n_samples,), default=None
            Samples that belong together, such as sentences of a document.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each sample counts, in all that is fitted and in all figures: a weight of 2 is
            that of a sample that is twice in its fold, one of 0 leaves it out. Intervals draw
            samples, not copies, and ``n_positive`` and ``n_known`` count samples.

        Returns
        -------
        self : ConceptDetector
            Fitted.

        Raises
        ------
        ValueError, TypeError
            Before the model runs: if labels and samples do not fit together, a concept has fewer
            than two samples on one side, or none where a fold is left out.

        Warns
        -----
        UserWarning
            Where a concept is not told from saying yes to everything, with figures.
        """
        self._validate_params()
        samples = as_list(raw)
        embedder = self._embedder()
        labels = read(embedder, samples, y, token_labels, spans, masks)
        if groups is not None:
            check_groups(groups, len(samples))
        weight = None
        if sample_weight is not None:
            weight = check_sample_weight(sample_weight, len(samples))
            labels.present[weight == 0] = np.nan  # unknown is what does not count
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        known = self._plan(labels, groups, seed)
        layers: Any = embedder.transform(samples)
        marks = labels.of_tokens(layers.layer(layers.layers[0]))
        self._parts = []
        for concepts, rows, folds in known:
            names = [labels.encoder.names[c] for c in concepts]
            some = marks[rows].map(partial(np.take, indices=concepts, axis=1), feature_names=names)
            present = labels.present[np.ix_(rows, concepts)].astype(np.int64)
            times = None if weight is None else weight[rows]
            choice = choose(
                *(layers[rows], some, present, folds),
                located=labels.tokens is not None,
                weight=times,
                seed=seed,
                n_jobs=self.n_jobs,
            )
            self._parts.append(Part(concepts, choice))
        self._keep(labels.encoder, embedder)
        return self

    def _embedder(self) -> TransformerEmbedder:
        """Make the embedder that gives all layers to be compared."""
        model = self.model
        embedder = clone(model) if isinstance(model, TransformerEmbedder) else None
        if embedder is None:
            embedder = TransformerEmbedder(model)
        if embedder.pooling is not None:
            raise ValueError(
                f"model pools by pooling={embedder.pooling!r}, which leaves no tokens; pools are "
                "compared here, so it must be None."
            )
        if self.store is not None:
            embedder.set_params(store=self.store)
        layer = _DEPTHS if isinstance(self.layer, str) and self.layer == "auto" else self.layer
        many = isinstance(layer, Sequence | np.ndarray) and not isinstance(layer, str)
        return embedder.set_params(layer=list(layer) if many else [layer])

    def _plan(
        self, labels: Labels, groups: Any, seed: int
    ) -> list[tuple[Array, Array, list[tuple[Array, Array]]]]:
        """Concepts that are known of the same samples, these samples, and their folds."""
        is_known = np.isfinite(labels.present)
        cv = self.cv
        if not isinstance(cv, Integral | None) and not hasattr(cv, "split"):
            cv = make_folds(cv, None, None, len(is_known))
        located = None if labels.tokens is None else labels.tokens.max()
        _, part = np.unique(is_known, axis=1, return_inverse=True)
        plan = []
        for k in range(part.max() + 1):
            concepts = np.flatnonzero(part.ravel() == k)
            rows = np.flatnonzero(is_known[:, concepts[0]])
            names = [labels.encoder.names[c] for c in concepts]
            present = labels.present[np.ix_(rows, concepts)].astype(np.int64)
            own = None if groups is None else np.asarray(groups)[rows]
            folds = concept_folds(
                present,
                names,
                own,
                cv=splits_among(cv, rows, len(is_known)) if isinstance(cv, list) else cv,
                random_state=seed,
                located=None if located is None else located[np.ix_(rows, concepts)],
            )
            plan.append((concepts, rows, folds))
        return plan

    def _keep(self, encoder: ConceptEncoder, embedder: TransformerEmbedder) -> None:
        """Keep what was chosen, in the order of the concepts."""
        blocks = sorted({block for part in self._parts for block in part.choice.blocks})
        self.embedder_ = clone(embedder).set_params(layer=blocks)
        self._encoder, self.classes_ = encoder, encoder.classes
        self.concept_names_ = np.array(encoder.names, dtype=object)
        results: dict[str, dict[str, Any]] = {}
        searches, pipelines = {}, {}
        for _, choice in self._parts:
            for row, head in zip(choice.results, choice.winners, strict=True):
                name, steps = row["concept"], choice.heads[head].steps
                results[name], searches[name] = row, choice.search
                reads = clone(embedder).set_params(layer=row["layer"])
                detect = choice.search.best_estimators_[name][-1]
                pipelines[name] = Pipeline([("embed", reads), *steps[1:], ("detect", detect)])
        self.searches_ = {name: searches[name] for name in encoder.names}
        self.pipelines_ = {name: pipelines[name] for name in encoder.names}
        rows = [results[name] for name in encoder.names]
        self.results_ = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        warn_of_floor(rows)

    @property
    def multilabel_(self) -> bool:
        """Whether y was a table, of whose concepts a sample may hold any number."""
        return self._encoder.kind == "multilabel"

    @property
    def search_(self) -> ConceptSearchCV:
        """The comparison of heads and detectors."""
        return self._only_choice("searches_").search

    @property
    def heads_(self) -> list[Pipeline]:
        """Candidates from layers to scores, as numbered in ``search_``."""
        return self._only_choice("pipelines_").heads

    def _only_choice(self, instead: str) -> Choice:
        if not hasattr(self, "_parts"):
            raise AttributeError("ConceptDetector is not fitted yet.")
        if len(self._parts) > 1:
            raise AttributeError(
                f"the concepts are known of different samples, so there are {len(self._parts)} "
                f"searches; see {instead}."
            )
        return self._parts[0].choice

    def decision_function(self, raw: Any) -> Array:
        """Pooled score minus threshold, each concept by its winner; positive where found.

        Parameters
        ----------
        raw : sequence of n_samples texts, chats or images
            As in ``fit``.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_concepts), dtype float64
            A vector where y was one of two classes. Of more than two there is a column for each of
            ``classes_``, a distance in the units of its own winner: columns are not comparable,
            and the largest need not be the class of ``predict``, which compares the chances of
            ``predict_proba``.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Before ``fit``, or if the samples are none that the model reads.
        """
        decision = self._ask(self._layers(raw), ConceptSearchCV.decision_function)
        return decision[:, 0] if self._encoder.kind == "binary" else decision

    def predict_proba(self, raw: Any) -> Array:
        """Tell how probable concepts are, calibrated on out-of-fold scores.

        Parameters
        ----------
        raw : sequence of n_samples texts, chats or images
            As in ``fit``.

        Returns
        -------
        chances : ndarray of shape (n_samples, n_classes) or (n_samples, n_concepts), dtype float64
            Of each class where y was a vector, summing to 1; else of each concept.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Before ``fit``, or if the samples are none that the model reads.
        """
        chances = self._ask(self._layers(raw), ConceptSearchCV.predict_proba)
        if self._encoder.kind == "binary":
            return np.column_stack([1 - chances, chances])
        if self._encoder.kind == "multiclass":
            return summing_to_one(chances)
        return chances

    def predict(self, raw: Any) -> Array:
        """Tell which samples hold which concept.

        Parameters
        ----------
        raw : sequence of n_samples texts, chats or images
            As in ``fit``.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_concepts)
            Classes where y was a vector (of several the most probable); else 0 and 1 per concept.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            Before ``fit``, or if the samples are none that the model reads.
        """
        return self._predict(self._layers(raw))

    def _predict(self, layers: LayerStack) -> Array:
        many = self._encoder.kind == "multiclass"
        say = ConceptSearchCV.predict_proba if many else ConceptSearchCV.decision_function
        return self._encoder.decode(self._ask(layers, say))

    def score(self, raw: Any, y: Any, sample_weight: Any = None) -> float:
        """F1 of each concept, weighted by the number of samples that hold it.

        Parameters
        ----------
        raw : sequence of n_samples texts, chats or images
            As in ``fit``.
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
            Labels as in ``fit``; what is missing does not count. Columns of a data frame are found
            by the names they had there.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each sample counts.

        Returns
        -------
        f1 : float
            In [0, 1]; to be read beside :func:`all_positive_f1_score`.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            As in ``predict``, or if y or the weights do not fit the samples.
        """
        check_is_fitted(self)
        samples, truth = as_list(raw), self.encode(y)
        if len(truth) != len(samples):
            raise ValueError(f"y has {len(truth)} samples, raw has {len(samples)}.")
        if sample_weight is not None:
            check_sample_weight(sample_weight, len(samples))
        found = self.predict(samples)
        if self._encoder.kind != "multilabel":
            found = self._encoder.encode(found)
        known = np.isfinite(truth)
        pair = (truth == 1) & known, (found == 1) & known
        return weighted_f1_score(*pair, sample_weight=sample_weight)

    def encode(self, y: Any) -> Array:
        """Say of each sample and concept whether labels say that it is there.

        Parameters
        ----------
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
            Labels as in ``fit``.

        Returns
        -------
        present : ndarray of shape (n_samples, n_concepts), dtype float64
            1, 0, or NaN where the label is missing.

        Raises
        ------
        ValueError
            If there is another number of columns than in ``fit``, or a name of a column or a value
            that was not there.
        """
        check_is_fitted(self)
        return self._encoder.encode(y)

    def explain(self, raw: Any) -> Any:
        """Say which tokens speak for which concept.

        Parameters
        ----------
        raw : sequence of n_samples texts, chats or images
            As in ``fit``.

        Returns
        -------
        table : pandas.DataFrame
            A row for each sample, token and concept: ``sample``, ``token`` (its number), ``text``,
            ``start`` and ``end`` of a token (for chats also ``message``) or ``left``, ``top``,
            ``right`` and ``bottom`` of a patch in pixels, ``concept``, ``score`` (of one scale for
            one concept) and ``mark``, whether the score reaches the threshold by itself.

        Raises
        ------
        ImportError
            Without pandas.
        """
        samples = as_list(raw)
        layers = self._layers(samples)
        tokens = layers.layer(layers.layers[0])
        shape = (tokens.n_tokens, len(self.concept_names_))
        scores, marks = np.empty(shape), np.empty(shape, bool)
        for concepts, choice in self._parts:
            stack = choice.scores(layers)
            marks[:, concepts] = choice.search.superactivators(stack).flat()
            for k, (head, detector) in enumerate(choice.detectors()):
                column = detector.matched_columns_[k]
                scores[:, concepts[k]] = stack.layer(head).flat()[:, column]
        return explanation(
            self.embedder_.tokens_of(samples),
            self.concept_names_.tolist(),
            tokens.with_values(scores),
            tokens.with_values(marks),
        )

    def plot(
        self, sample: Any, concept: int | str = 0, *, ax: Any = None, cmap: str | None = None
    ) -> Any:
        """Draw the scores of one sample, or of several on one scale.

        Parameters
        ----------
        sample : str, chat, image or path, or a list of those
            Raw samples.
        concept : int or str, default=0
            Number or name of the concept.
        ax : matplotlib Axes, default=None
            Where to draw one sample; None makes a new figure.
        cmap : str, default=None
            Colour map, as in the heat maps.

        Returns
        -------
        display : TokenHeatMapDisplay, PatchHeatMapDisplay or SamplesDisplay
            With ``figure_`` and ``ax_``, or ``axes_`` of several samples.

        Raises
        ------
        ValueError
            If there is no such concept.
        """
        check_is_fitted(self)
        is_image = self.embedder_.reader.loaded.modality == "image"
        display = PatchHeatMapDisplay if is_image else TokenHeatMapDisplay
        return display.from_estimator(self, sample, concept, ax=ax, cmap=cmap)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the detector as one file, without pickle, as :func:`skact.save` does.

        Parameters
        ----------
        path : str or Path
            The file; :func:`skact.load` makes the detector again, :func:`skact.describe` says what
            it holds.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        FileNotFoundError
            If there is no such folder.
        """
        from skact.persistence import save

        check_is_fitted(self)
        save(self, path)

    def _layers(self, raw: Any) -> LayerStack:
        check_is_fitted(self)
        layers: Any = self.embedder_.transform(raw)
        assert isinstance(layers, LayerStack)
        return layers

    def _ask(
        self, layers: LayerStack, say: Callable[[ConceptSearchCV, LayerStack], Array]
    ) -> Array:
        """Ask the search of each concept: (n_samples, n_concepts)."""
        said: Array = np.empty((len(layers), len(self.concept_names_)))
        for concepts, choice in self._parts:
            said[:, concepts] = say(choice.search, choice.scores(layers))
        return said

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        tags.target_tags.required = False
        tags.target_tags.multi_output = True
        tags.classifier_tags.multi_label = True
        return tags
