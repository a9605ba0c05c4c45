"""Whether what a head says of its classes depends on concepts at a layer, beyond chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from sklearn.base import BaseEstimator, clone
from sklearn.utils import Bunch, _safe_indexing, check_random_state

from skact import models
from skact.arguments import Number, check_entries, checked, float_array, instance
from skact.concepts import BaseConcepts
from skact.embedding import TransformerEmbedder
from skact.rows import Array, offsets_of
from skact.samples import as_list
from skact.targets import check_targets, check_token_labels
from skact.tokens import LayerStack, TokenArray
from skact.validation import check_tokens
from skact.warning import warn

__all__ = ["concept_sensitivity", "layer_consistency", "welch", "wilson"]

_COLUMN = Number(Integral, 0, None, closed="left")
# Draws of a half of the samples before it is said that a concept has too few.
_TRIES = 1000


def welch(first: Array, second: Array) -> Array:
    r"""Two-sided p-values of Welch's test for equal means, along the last axis.

    .. math:: t = \frac{\bar a - \bar b}{\sqrt{s_a^2 / n_a + s_b^2 / n_b}}

    Parameters
    ----------
    first, second : ndarray of shape (..., n_a) and (..., n_b)
        Samples, two values or more each.

    Returns
    -------
    p_value : ndarray of shape (...), dtype float64
        Where neither varies, 1 if their means are equal, else 0.
    """
    still = (np.ptp(first, axis=-1) == 0) & (np.ptp(second, axis=-1) == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = [one.mean(axis=-1) for one in (first, second)]
        parts = [one.var(axis=-1, ddof=1) / one.shape[-1] for one in (first, second)]
        size = (means[0] - means[1]) / np.sqrt(parts[0] + parts[1])
        below = sum(
            part**2 / (one.shape[-1] - 1) for part, one in zip(parts, (first, second), strict=True)
        )
        chance: Array = 2 * stats.t.sf(np.abs(size), (parts[0] + parts[1]) ** 2 / below)
    return np.where(still, np.isclose(first[..., 0], second[..., 0]).astype(float), chance)


def wilson(share: Array, n: int, level: float) -> tuple[Array, Array]:
    r"""Wilson's interval of shares, which holds at 0 and 1 too.

    .. math:: \frac{p + z^2 / 2n \pm z \sqrt{p (1 - p) / n + z^2 / 4 n^2}}{1 + z^2 / n}

    Parameters
    ----------
    share : ndarray
        Shares p of n samples.
    n : int
        Number of samples.
    level : float
        Confidence level, whose normal quantile is z.

    Returns
    -------
    low, high : ndarray
        Ends.
    """
    z = stats.norm.ppf((1 + level) / 2)
    middle = share + z**2 / (2 * n)
    way = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    below = 1 + z**2 / n
    return np.maximum(middle - way, 0) / below, np.minimum((middle + way) / below, 1)


@checked(
    embedder=[instance("a TransformerEmbedder(...)", TransformerEmbedder)],
    method=[instance("a labelled concept method, as DifferenceInMeans()", BaseConcepts)],
    samples="no_validation",
    token_labels="no_validation",
    heads=[dict, None],
    n_splits=[Number(Integral, 2, None, closed="left")],
    confidence_level=[Number(Real, 0, 1, closed="neither")],
    random_state=["random_state"],
)
def concept_sensitivity(
    embedder: TransformerEmbedder,
    samples: Any,
    classes: Any,
    method: BaseConcepts,
    X: Any,
    y: Any,
    *,
    token_labels: Any = None,
    heads: Mapping[Any, Any] | None = None,
    n_splits: int = 20,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> Bunch:
    r"""Test whether a head's evidence for a class depends on concepts at a layer (TCAV).

    With :math:`h_k` the head of class k as a function of the tokens z of a sample at a layer, and
    :math:`v_c` the vector of a concept there, the sensitivity [1]_ is

    .. math:: S_{k,c}(z) = \nabla h_k(z) \cdot v_c
              = \sum_t \frac{\partial h_k}{\partial z_t} \cdot v_c,

    the derivative of the head where all tokens of the sample are moved along :math:`v_c`, and the
    share is that of the samples of class k with S > 0. Any direction has a share, often far from a
    half, since the gradients of a class are alike. So the method is fitted ``n_splits`` times on
    a random half of the concept's samples, with the labels as they are and with the rows of labels
    dealt anew, and the shares of the two are compared by Welch's two-sided test; p-values are
    multiplied by the number of concepts (Bonferroni). The halves overlap, so that shares of fits
    depend on each other and p-values are too small rather than too large: look at the random
    shares themselves too.

    Parameters
    ----------
    embedder : TransformerEmbedder
        Reads samples at one or several layers, without pooling. Its model is a pair of a model
        with its head and what makes its inputs; for words a name will do, for functions of its
        output the model without a head. What are tokens of a sample is moved, with
        ``special_tokens=True`` those too: a head that reads the CLS position alone does not depend
        on other tokens of the last block.
    samples : list of n_samples texts or images
        Samples of the classes.
    classes : array-like of shape (n_samples,)
        Class k of each.
    method : concept method
        One with labels; it is cloned. Any of it is fitted on raw tokens.
    X : TokenArray or LayerStack
        Tokens of other samples at the layers of the embedder, on which vectors are fitted; a matrix
        or tokens of one layer.
    y : array-like of shape (n_concept_samples,) or (n_concept_samples, n_concepts)
        Concepts in them, as of ``method.fit``.
    token_labels : TokenArray or list of arrays of bool, default=None
        For each sample of X (n_tokens, n_concepts), as of ``method.fit``. None counts every token
        of a positive sample. Random labels are then those of the tokens of the samples in another
        order, laid end to end over the tokens: as many tokens hold a concept, in runs as long.
    heads : dict of class to int, str or callable, default=None
        :math:`h_k` by class: a column of the logits of a classifier; a word of one token, as
        " good", for its logit behind the last token of a causal model; or a function of what the
        model puts out that returns a tensor (n_batch,), with gradients. Samples of one length are
        run together, so that it meets no padding. None takes the columns of the classes that a
        classifier knows by these names or numbers.
    n_splits : int, default=20
        Fits with labels, and as many with random ones.
    confidence_level : float, default=0.95
        Of the interval of a share over samples of the class (Wilson).
    random_state : int, RandomState instance or None, default=None
        Draws halves and random labels.

    Returns
    -------
    result : Bunch
        ``layers``, ``classes`` and ``concepts``, lists, which name the axes of arrays of shape
        (n_layers, n_classes, n_concepts): ``share``, with the vectors of a fit on all of X, ``low``
        and ``high``, ``p_value`` and ``p_corrected``; and of (n_layers, n_classes, n_concepts,
        n_splits): ``split_shares`` and ``random_shares``. ``sensitivity``, (n_layers, n_samples,
        n_concepts), is S of each sample for the head of its class.

    Raises
    ------
    ValueError, TypeError
        If samples and classes, or X and its labels, do not fit each other, X is of another model,
        layer or scaling, a class has no head or a head no class, a word is not one token, a head
        gives something else than one number per sample or has no gradient, or a concept has too few
        samples for halves.

    Warns
    -----
    UserWarning
        Once, if gradients of a class at a layer are 0 for all of its samples.

    References
    ----------
    .. [1] Kim et al., "Interpretability Beyond Feature Attribution: Quantitative Testing with
       Concept Activation Vectors (TCAV)", ICML 2018.

    Examples
    --------
    ::

        reader = skact.TransformerEmbedder((model, tokenizer), layer=[3, 6])
        result = skact.concept_sensitivity(
            reader, reviews, ["good"] * len(reviews), skact.DifferenceInMeans(),
            reader.transform(texts), has_joy, heads={"good": " good"},
        )
    """
    rows = as_list(samples)
    by_class = _by_class(classes, len(rows))
    reader = embedder.reader
    if embedder.pooling is not None:
        raise ValueError(f"embedder must not pool, got pooling={embedder.pooling!r}.")
    blocks, _ = models.resolve_layers(embedder.layer, len(reader.loaded.places))
    tokens = _checked_tokens(X, blocks, reader)
    targets = check_targets(clone(method), y, len(tokens[0]))
    present, labels = targets.present, None
    if token_labels is not None:
        labels, _ = check_token_labels(token_labels, tokens[0], targets)
        present = labels.max()
    chosen = _chosen_heads(embedder, heads, list(by_class))
    draw = check_random_state(random_state)
    halves = [_half(present, draw) for _ in range(n_splits)]
    dealt = [draw.permutation(half) for half in halves]
    fits = [_Vectors.of(method, one, y, labels, halves, dealt) for one in tokens]
    gradients = {
        k: chosen[k].gradients([rows[i] for i in at], blocks) for k, at in by_class.items()
    }
    _warn_of_nothing(gradients, blocks)
    return _result(gradients, by_class, blocks, fits, confidence_level)


def _by_class(classes: Any, n_samples: int) -> dict[Any, Array]:
    """Find the samples of each class."""
    check_entries("classes", classes, n_samples)
    labels = np.asarray(classes)
    if labels.ndim != 1 or labels.dtype.kind not in "biuUSO":
        raise ValueError(
            f"classes must be a vector of names or whole numbers, got shape {labels.shape} of "
            f"{labels.dtype}."
        )
    try:
        return {k: np.flatnonzero(labels == k) for k in np.unique(labels).tolist()}
    except TypeError as error:
        raise ValueError(f"classes must be names or whole numbers of one type: {error}") from error


def _checked_tokens(X: Any, blocks: Sequence[int], reader: Any) -> list[TokenArray]:
    """Check tokens of each layer against the model that reads them."""
    if isinstance(X, LayerStack):
        if X.layers != list(blocks):
            raise ValueError(f"X holds the layers {X.layers}, and embedder reads {blocks}.")
        found = [X.layer(block) for block in blocks]
    elif len(blocks) > 1:
        raise TypeError(
            f"X must be a LayerStack of the layers {blocks} that embedder reads, got "
            f"{type(X).__name__}; embedder.transform(samples) gives one."
        )
    else:
        found = [X]
    found = [check_tokens(_Tokens(), one) for one in found]
    for block, one in zip(blocks, found, strict=True):
        if one.n_features != reader.loaded.width:
            raise ValueError(
                f"X must have the {reader.loaded.width} features of the model, got "
                f"{one.n_features}."
            )
        if one.source is None:
            continue
        here = reader.source(block)
        if field := here.conflict(one.source):
            raise ValueError(
                f"X comes from another {field} than embedder reads: from ({one.source}), this is "
                f"({here})."
            )
        if one.source.scaling is not None:
            raise ValueError(
                f"X must be raw tokens, for gradients are of those; got scaled ones ({one.source})."
            )
    return found


class _Tokens(BaseEstimator):
    """What errors about tokens name."""


class _ChosenHead(NamedTuple):
    """A head, and what is run for it."""

    reader: Any
    whole: Any
    loaded: models.Loaded
    says: Callable[[Any, Any], Any]
    batch_size: int

    def gradients(self, samples: list[Any], blocks: Sequence[int]) -> Array:
        """Differentiate it on samples: (n_blocks, n_samples, n_features)."""
        inputs = self.reader.prepare(samples)
        return models.head_gradients(
            self.whole, self.loaded, inputs, blocks, self.says, self.batch_size
        )


def _chosen_heads(
    embedder: TransformerEmbedder, heads: Mapping[Any, Any] | None, classes: list[Any]
) -> dict[Any, _ChosenHead]:
    """Find the head of each class, and refuse what is none."""
    reader = embedder.reader
    whole = models.with_head(embedder.model, reader.loaded)
    if heads is None:
        known = models.label_columns(whole)
        if unknown := [k for k in classes if k not in known]:
            raise ValueError(
                f"heads must say what speaks for the classes {unknown[:5]}: the model "
                f"{reader.loaded.name!r} names {list(known)[:10]}."
            )
        heads = {k: known[k] for k in classes}
    if lone := set(heads) ^ set(classes):
        raise ValueError(
            f"heads must have an entry for each of the classes {classes[:10]} and for no other; "
            f"{sorted(map(str, lone))[:5]} are on one side only."
        )
    found = {}
    for k in classes:
        head = heads[k]
        if isinstance(head, str):
            found[k] = _word_head(embedder, head)
        elif callable(head) and not isinstance(head, type):
            says = _ignoring_places(head)
            found[k] = _ChosenHead(reader, whole, reader.loaded, says, embedder.batch_size)
        elif _COLUMN.is_satisfied_by(head):
            says = _column(int(head), reader.loaded.name)
            found[k] = _ChosenHead(reader, whole, reader.loaded, says, embedder.batch_size)
        else:
            raise TypeError(
                "heads must be columns of logits from 0 on, words, or functions of what the model "
                f"puts out; that of {k!r} is {head!r}."
            )
    return found


def _word_head(embedder: TransformerEmbedder, word: str) -> _ChosenHead:
    options = {n: getattr(embedder, n) for n in ("device", "dtype", "revision")}
    options["trust_remote_code"] = embedder.trust_remote_code
    whole, loaded, says = models.load_word(embedder.model, word, embedder.site, **options)
    return _ChosenHead(embedder.reader, whole, loaded, says, embedder.batch_size)


def _ignoring_places(head: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda output, last: head(output)


def _column(k: int, name: str) -> Callable[[Any, Any], Any]:
    def logit(output: Any, last: Any) -> Any:
        logits = getattr(output, "logits", None)
        if logits is None or logits.ndim != 2 or k >= logits.shape[1]:
            came = "no logits" if logits is None else f"logits of shape {tuple(logits.shape)}"
            raise ValueError(
                f"heads asks for column {k} of the logits of a classifier, and {name!r} gives "
                f"{came}; give embedder the pair of a model with such a head and its tokenizer."
            )
        return logits[:, k]

    return logit


def _half(present: Array, draw: np.random.RandomState) -> Array:
    """Draw a half of the samples in which each concept is there and is not."""
    n_there = present.sum(axis=0)
    fewest = np.minimum(n_there, len(present) - n_there)
    for _ in range(_TRIES if fewest.min() > 1 else 0):
        rows = draw.permutation(len(present))[: (len(present) + 1) // 2]
        counts = present[rows].sum(axis=0)
        if ((counts > 0) & (counts < len(rows))).all():
            return rows
    few = int(fewest.argmin())
    raise ValueError(
        "y must have samples with and without each concept in random halves, two of either at "
        f"least: concept {few} is in {n_there[few]} of {len(present)} samples."
    )


class _Vectors(NamedTuple):
    """Vectors at a layer, (n_concepts, n_features); (n_splits, n_concepts, n_features)."""

    names: list[str]
    whole: Array
    splits: Array
    random: Array

    @classmethod
    def of(
        cls,
        method: BaseConcepts,
        tokens: TokenArray,
        y: Any,
        labels: TokenArray | None,
        halves: Sequence[Array],
        dealt: Sequence[Array],
    ) -> _Vectors:
        """Fit the method on all samples, on halves, and on halves with labels of others."""

        def vectors(rows: Array, of: Array) -> Array:
            return _fitted(method, tokens[rows], *_labels_of(y, labels, rows, of)).concept_vectors_

        fitted = _fitted(method, tokens, y, labels)
        return cls(
            [str(name) for name in fitted.concept_names_],
            np.asarray(fitted.concept_vectors_, np.float64),
            np.stack([vectors(rows, rows) for rows in halves]).astype(np.float64),
            np.stack([vectors(*pair) for pair in zip(halves, dealt, strict=True)]).astype(
                np.float64
            ),
        )


def _fitted(method: BaseConcepts, tokens: TokenArray, y: Any, labels: TokenArray | None) -> Any:
    given = {} if labels is None else {"token_labels": labels}
    return clone(method).fit(tokens, y, **given)


def _labels_of(
    y: Any, labels: TokenArray | None, rows: Array, of: Array
) -> tuple[Any, TokenArray | None]:
    """Labels of some samples, or for them those of the same samples in another order."""
    if labels is None:
        return _safe_indexing(y, of), None
    if of is rows:
        return _safe_indexing(y, rows), labels[rows]
    laid = TokenArray(labels[of].flat(), offsets_of(labels.lengths[rows]))
    return laid.max().astype(int), laid


def _warn_of_nothing(gradients: Mapping[Any, Array], blocks: Sequence[int]) -> None:
    for k, of_layers in gradients.items():
        for block, one in zip(blocks, of_layers, strict=True):
            if not one.any():
                warn(
                    f"the head of class {k!r} does not depend on the tokens of its {len(one)} "
                    f"samples after block {block}, so all shares are 0 there; where it reads "
                    "special tokens, take special_tokens=True in the embedder, or an earlier layer."
                )
                return


def _result(
    gradients: Mapping[Any, Array],
    by_class: Mapping[Any, Array],
    blocks: Sequence[int],
    fits: Sequence[_Vectors],
    level: float,
) -> Bunch:
    """Turn gradients (n_layers, n_samples, n_features) by class, and vectors, into shares."""
    n_samples = sum(map(len, by_class.values()))
    n_concepts = len(fits[0].names)
    sensitivity = np.empty((len(blocks), n_samples, n_concepts))
    shape = (len(blocks), len(by_class), n_concepts)
    share, low, high = np.empty((3, *shape))
    splits, random = np.empty((2, *shape, len(fits[0].splits)))
    for c, (k, at) in enumerate(by_class.items()):
        for one, (slopes, fit) in enumerate(zip(gradients[k], fits, strict=True)):
            sensitivity[one, at] = slopes @ fit.whole.T
            share[one, c] = (sensitivity[one, at] > 0).mean(axis=0)
            for into, vectors in ((splits, fit.splits), (random, fit.random)):
                # (n_splits, n_samples, n_concepts)
                into[one, c] = (slopes @ vectors.swapaxes(1, 2) > 0).mean(axis=1).T
        low[:, c], high[:, c] = wilson(share[:, c], len(at), level)
    p_value = welch(splits, random)
    return Bunch(
        layers=list(blocks),
        classes=list(by_class),
        concepts=fits[0].names,
        share=share,
        low=low,
        high=high,
        p_value=p_value,
        p_corrected=np.minimum(p_value * n_concepts, 1),
        split_shares=splits,
        random_shares=random,
        sensitivity=sensitivity,
    )


@checked(scores="no_validation")
def layer_consistency(scores: Any) -> Array:
    r"""Tell how much what is said of concepts changes from layer to layer.

    .. math:: \operatorname{var}_c = \frac1L \sum_l \Big(s_{l,c} - \frac1L \sum_{l'} s_{l',c}\Big)^2

    over the L layers: 0 for a concept that is the same everywhere. Shares, as those of
    :func:`concept_sensitivity`, and probabilities are on one scale at all layers, so at most 1/4;
    raw sensitivities and scores grow with the tokens of a layer, and are to be brought to one scale
    before.

    Parameters
    ----------
    scores : Bunch, or array-like of shape (n_layers, ...)
        What :func:`concept_sensitivity` has returned for several layers, of which the shares count;
        or scores of concepts by layer, (n_layers, n_concepts) say.

    Returns
    -------
    variance : ndarray, dtype float64
        The axes of the scores without the first one; (n_classes, n_concepts) for a Bunch.

    Raises
    ------
    ValueError
        If there are fewer than two layers, or a number is not finite.

    Examples
    --------
    >>> from skact import layer_consistency
    >>> layer_consistency([[0.9, 0.1], [0.9, 0.5], [0.9, 0.9]]).round(3)
    array([0.   , 0.107])
    """
    values = float_array(scores.get("share") if isinstance(scores, Bunch) else scores, "scores")
    if values.ndim < 1 or len(values) < 2:
        raise ValueError(
            f"scores must be of two layers or more, along the first axis, got shape {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite numbers.")
    variance: Array = np.asarray(values.var(axis=0))
    return variance
