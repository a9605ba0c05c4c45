"""Which heads write about a list of words, and which words a head writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skact import models
from skact.arguments import N_JOBS, SEQUENCE, Number, check_concepts, checked, instance
from skact.base import NestedParamsMixin
from skact.embedding import TransformerEmbedder
from skact.heads._omp import Atoms, Pursuit, check_dictionary, check_energy, matrix, pursue
from skact.heads._words import token_ids, unembedding, vocabulary
from skact.heads._writes import head_writes
from skact.rows import Array
from skact.tokens import LayerStack, TokenArray

__all__ = ["HeadPursuit"]

_INT = Number(Integral, None, None, closed="neither")
_COUNT = Number(Integral, 1, None, closed="left")


class HeadPursuit(NestedParamsMixin, BaseEstimator):
    r"""Find the heads that write about some words, and the words that a head writes.

    What a head writes into the residual stream, one row per sample and its mean over the tokens of
    the sample, is explained by few rows of the unembedding, chosen by simultaneous orthogonal
    matching pursuit [1]_. The score of a head is the share of its energy that they explain,

    .. math:: 1 - \|H - W D_S\|^2 / \|H\|^2 .

    With a list of words the dictionary is their rows, and the heads with the best scores are the
    ones about them. Scores of lists of different lengths cannot be compared, and any words explain
    something: compare with random lists of the same length, ``n_random_lists``.

    Parameters
    ----------
    dictionary : "unembedding" or array-like of shape (n_words, n_features), default="unembedding"
        Rows to choose from; the unembedding is that of the model of ``embedder``.
    words : list of str, default=None
        With the unembedding, whose rows are taken; None takes the whole vocabulary. With an array,
        the names of its rows.
    n_nonzero_coefs : int, default=50
        Steps at most; min(n_nonzero_coefs, words, rank) are done.
    top_k : int, default=16
        Heads that :meth:`get_support` gives.
    normalize : bool, default=True
        Whether rows of the dictionary are scaled to norm 1.
    center : bool, default=True
        Whether the mean over samples is taken out of what a head writes.
    embedder : TransformerEmbedder, default=None
        Reads raw samples; site, pooling and layers are set here, to all blocks. Needed for raw
        samples, for what was read at the site "heads", and for the unembedding.
    multi_token : {"raise", "first", "skip"}, default="raise"
        What to do with words of several tokens.
    n_random_lists : int, default=0
        Lists of as many tokens of the vocabulary, drawn at random, to compare with.
    random_state : int, RandomState or None, default=None
        Draws them.
    n_jobs : int, default=None
        Threads of joblib.

    Attributes
    ----------
    head_scores_ : ndarray of shape (n_layers, n_heads)
        Explained share of each head; 0 for one that writes the same for all samples.
    ranking_ : ndarray of shape (n_layers * n_heads, 2), dtype int64
        (block, head), the best first.
    layers_ : ndarray of shape (n_layers,), dtype int64
        Blocks of the rows of ``head_scores_``.
    words_ : ndarray of shape (n_words,), dtype object
        Words of the rows of the dictionary.
    support_ : ndarray of shape (n_layers, n_heads, n_steps), dtype int64
        Chosen rows of each head in order, -1 behind the last.
    explained_variance_ratio_ : ndarray of shape (n_layers, n_heads, n_steps)
        Explained share after each step, which stays what it is behind the last.
    random_scores_ : ndarray of shape (n_random_lists, n_layers, n_heads)
        ``head_scores_`` of random lists.
    n_steps_ : int
        Steps.

    References
    ----------
    .. [1] L. Basile et al., "Head Pursuit: Probing Attention Specialization in Multimodal
       Transformers", NeurIPS 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import HeadPursuit
    >>> rng = np.random.default_rng(0)
    >>> words, noise = np.eye(4)[:2], rng.normal(size=(2, 20, 4))
    >>> about = noise[0] * [5, 5, 0.1, 0.1]  # the second head writes along two words
    >>> writes = {(0, 0): noise[1], (0, 1): about}
    >>> pursuit = HeadPursuit(words, words=["red", "blue"], top_k=1).fit(writes)
    >>> pursuit.head_scores_.round(2)
    array([[0.43, 1.  ]])
    >>> pursuit.get_support(indices=True), pursuit.describe(0, 1)
    (array([[0, 1]]), ['blue', 'red'])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "dictionary": [StrOptions({"unembedding"}), "array-like"],
        "words": [SEQUENCE, np.ndarray, None],
        "n_nonzero_coefs": [_COUNT],
        "top_k": [_COUNT],
        "normalize": ["boolean"],
        "center": ["boolean"],
        "embedder": [instance("a TransformerEmbedder(...)", TransformerEmbedder), None],
        "multi_token": [StrOptions({"raise", "first", "skip"})],
        "n_random_lists": [Number(Integral, 0, None, closed="left")],
        "random_state": ["random_state"],
        "n_jobs": [N_JOBS, None],
    }

    def __init__(
        self,
        dictionary: Any = "unembedding",
        words: Sequence[str] | None = None,
        n_nonzero_coefs: int = 50,
        top_k: int = 16,
        normalize: bool = True,
        center: bool = True,
        *,
        embedder: TransformerEmbedder | None = None,
        multi_token: str = "raise",
        n_random_lists: int = 0,
        random_state: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.dictionary = dictionary
        self.words = words
        self.n_nonzero_coefs = n_nonzero_coefs
        self.top_k = top_k
        self.normalize = normalize
        self.center = center
        self.embedder = embedder
        self.multi_token = multi_token
        self.n_random_lists = n_random_lists
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any = None) -> Self:
        """Explain what each head writes.

        Parameters
        ----------
        X : sequence of raw samples, LayerStack, TokenArray, or mapping of (block, head) to writes
            Texts or images, which ``embedder`` reads; what it gives with ``site="heads"``; or what
            each head writes, TokenArrays or arrays (n_samples, n_features), as
            :func:`~skact.heads.head_writes` gives it. Tokens are averaged over each sample.
        y : ignored
            Not used.

        Returns
        -------
        self : HeadPursuit
            Fitted.

        Raises
        ------
        ValueError, TypeError
            If parameters, words, model and samples do not fit each other, heads are missing, or
            what they write has nothing to explain.
        """
        self._validate_params()
        rows, words, every = self._rows()
        heads = _means(self._writes(X, rows))
        check_dictionary(rows, heads.rows[0].shape[1])
        self._check_top(len(heads.rows))
        shape = len(heads.layers), heads.n_heads
        centred = self._centred(heads.rows)
        found = self._pursue(centred, rows)
        self.layers_ = np.array(heads.layers, np.int64)
        self.words_ = np.array(words, object)
        self.n_steps_ = max(len(one.support) for one in found)
        supports = [_filled(one.support, self.n_steps_, -1) for one in found]
        self.support_ = np.array(supports, np.int64).reshape(*shape, -1)
        curves = [_filled(one.explained, self.n_steps_, _last(one)) for one in found]
        self.explained_variance_ratio_ = np.array(curves).reshape(*shape, -1)
        self.head_scores_ = self.explained_variance_ratio_[..., -1].copy()
        order = np.argsort(-self.head_scores_, axis=None, kind="stable")
        layer, head = np.unravel_index(order, shape)
        self.ranking_ = np.stack([self.layers_[layer], head], axis=1)
        self.random_scores_ = self._of_random_lists(centred, every, len(rows)).reshape(-1, *shape)
        return self

    @checked(indices=["boolean"])
    def get_support(self, indices: bool = False) -> Array:
        """Give the ``top_k`` heads with the best scores.

        Parameters
        ----------
        indices : bool, default=False
            Whether to name them instead of marking them.

        Returns
        -------
        support : ndarray of shape (n_layers, n_heads), dtype bool, or (top_k, 2), dtype int64
            Marks, or (block, head), the best first.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        check_is_fitted(self)
        top = self.ranking_[: self.top_k]
        if indices:
            return top.copy()
        marks = np.zeros(self.head_scores_.shape, bool)
        marks[np.searchsorted(self.layers_, top[:, 0]), top[:, 1]] = True
        return marks

    @checked(layer=[_INT], head=[_INT], n_words=[_COUNT, None])
    def describe(self, layer: int, head: int, n_words: int | None = None) -> list[str]:
        """Name the words that explain a head.

        Parameters
        ----------
        layer, head : int
            Block and head.
        n_words : int or None, default=None
            How many; None gives all.

        Returns
        -------
        words : list of str
            In the order in which they were chosen; none for a head that writes the same for all
            samples.

        Raises
        ------
        ValueError
            If there is no such head.
        NotFittedError
            Before ``fit``.
        """
        check_is_fitted(self)
        layers, n_heads = self.layers_.tolist(), self.head_scores_.shape[1]
        if layer not in layers:
            raise ValueError(f"layer must be one of the blocks {layers}, got {layer}.")
        if not 0 <= head < n_heads:
            raise ValueError(f"head must lie in 0 to {n_heads - 1}, got {head}.")
        chosen = self.support_[np.searchsorted(self.layers_, layer), head]
        return [str(self.words_[i]) for i in chosen[chosen >= 0][:n_words]]

    def _rows(self) -> tuple[Array, list[str], Array]:
        """Rows of the dictionary, their words, and all rows that random lists are drawn from."""
        words = None if self.words is None else check_concepts(self.words, "words")
        for number, word in enumerate(words or ()):
            if not isinstance(word, str):
                raise ValueError(f"words[{number}] must be a text, got {word!r}.")
        if isinstance(self.dictionary, str):
            loaded = self._loaded('dictionary="unembedding"')
            every = unembedding(self._reader(""), loaded)[: len(loaded.processor)]
            if words is None:
                return every, vocabulary(loaded), every
            ids = token_ids(words, loaded, self.multi_token)
            return every[list(ids.values())], list(ids), every
        if self.n_random_lists:
            raise ValueError('n_random_lists needs dictionary="unembedding", to draw from.')
        rows = matrix(self.dictionary, "dictionary")
        names = [str(number) for number in range(len(rows))] if words is None else words
        if len(names) != len(rows):
            raise ValueError(
                f"words must name the {len(rows)} rows of dictionary, got {len(names)} words."
            )
        return rows, names, rows

    def _reader(self, what: str) -> TransformerEmbedder:
        if self.embedder is None:
            raise ValueError(f"embedder must be a TransformerEmbedder(...) for {what}, got None.")
        return clone(self.embedder)

    def _loaded(self, what: str) -> Any:
        return self._reader(what).set_params(site="residual").reader.loaded

    def _check_top(self, n_heads: int) -> None:
        if self.top_k > n_heads:
            raise ValueError(
                f"top_k must be at most {n_heads}, the number of heads, got {self.top_k}."
            )

    def _writes(self, X: Any, rows: Array) -> Mapping[tuple[int, int], Any]:
        """Turn what was given into what each head writes."""
        if isinstance(X, Mapping) and not isinstance(X, LayerStack):
            return X
        if not isinstance(X, LayerStack | TokenArray):
            loaded = self._loaded("raw samples")
            projections = models.output_projections(loaded)
            check_dictionary(rows, loaded.width)
            self._check_top(len(projections) * projections[0].n_heads)
            blocks = list(range(len(projections)))
            reader = self._reader("").set_params(site="heads", pooling="mean", layer=blocks)
            X = reader.transform(X)
        return head_writes(X, self._reader('what was read with site="heads"'))

    def _centred(self, heads: list[Array]) -> list[Array]:
        """Take the mean over samples out of what each head writes."""
        centred = [one - one.mean(axis=0) for one in heads] if self.center else heads
        most = int(np.argmax([np.abs(one).max() for one in centred]))
        check_energy(centred[most], heads[most], self.center, "X")
        return centred

    def _pursue(self, heads: list[Array], rows: Array) -> list[Pursuit]:
        """Explain every head by rows of a dictionary, which all share."""
        atoms = Atoms(rows.astype(heads[0].dtype, copy=False), self.normalize)
        jobs = (delayed(pursue)(one, atoms, self.n_nonzero_coefs) for one in heads)
        return list(Parallel(self.n_jobs, prefer="threads")(jobs))

    def _of_random_lists(self, heads: list[Array], every: Array, n_words: int) -> Array:
        """Score every head by lists of as many rows."""
        draws = check_random_state(self.random_state)
        scores = []
        for _ in range(self.n_random_lists):
            some = every[draws.choice(len(every), n_words, replace=False)]
            scores.append([_last(one) for one in self._pursue(heads, some)])
        return np.array(scores, np.float64)


class _Heads(NamedTuple):
    """Means over tokens of what heads write, those of a block side by side."""

    layers: list[int]
    n_heads: int
    rows: list[Array]


def _means(writes: Mapping[tuple[int, int], Any]) -> _Heads:
    for key in writes:
        if not (isinstance(key, tuple) and len(key) == 2):
            raise ValueError(f"X must have keys (block, head), got {key!r}.")
    if not writes:
        raise ValueError("X must hold what one or more heads write, got none.")
    layers = sorted({block for block, _ in writes})
    n_heads = 1 + max(head for _, head in writes)
    rows: list[Array] = []
    for key in ((block, head) for block in layers for head in range(n_heads)):
        if key not in writes:
            raise ValueError(f"X must hold the same heads of every block, but lacks {key}.")
        one = writes[key]
        rows.append(matrix(one.mean() if isinstance(one, TokenArray) else one, f"X[{key}]"))
        if rows[-1].shape != rows[0].shape:
            raise ValueError(
                f"X must hold the same samples and features of every head, got {rows[0].shape} and "
                f"{rows[-1].shape} for {key}."
            )
    return _Heads(layers, n_heads, rows)


def _filled(values: Array, n: int, rest: float) -> Array:
    """Go on with a number where fewer steps were done."""
    return np.append(values, np.full(n - len(values), rest, values.dtype))


def _last(found: Pursuit) -> float:
    return float(found.explained[-1]) if len(found.explained) else 0.0
