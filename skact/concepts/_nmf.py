r"""Matrix factorisations with non-negative activations: a token is a sum of parts.

Both methods write tokens as :math:`X \approx W H` with :math:`W \ge 0`: a row of ``H`` is a part,
a row of ``W`` says how much of each part a token holds. They differ in whether ``H`` may be
negative. Given ``H``, the activations of a token solve a small convex problem of its own,

.. math:: \min_{w \ge 0} \lVert z - w H \rVert^2,

so ``transform`` does not depend on what else is transformed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import deepcopy
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from sklearn.decomposition import NMF, MiniBatchNMF
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from skact.concepts._base import BaseUnits, check_enough_tokens
from skact.concepts._lloyd import kmeans
from skact.concepts._reconstruction import ReconstructionMixin
from skact.concepts._statistics import shuffled_runs
from skact.concepts._streaming import StreamingUnitsMixin
from skact.rows import Array, as_floats, may_hold
from skact.tokens import TokenArray
from skact.validation import first_token
from skact.warning import warn

__all__ = ["NMFConcepts", "SemiNMFConcepts", "activations"]


# Rows whose activations fit the cache while they are updated.
_ROWS = 2048
# Rows of a minibatch of NMF.
_BATCH = 1024


def activations(values: Array, parts: Array, *, tol: float = 1e-9, max_iter: int = 10_000) -> Array:
    r"""Solve :math:`\min_{w \ge 0} \lVert z - w H \rVert^2` for each token.

    Coordinate descent on all tokens at once; a token that no step moves any more is done.

    Parameters
    ----------
    values : ndarray of shape (n_tokens, n_features)
        Tokens z.
    parts : ndarray of shape (n_concepts, n_features)
        H; a row of zeros gets no activation.
    tol : float, default=1e-9
        Largest step, relative to the first, at which a token is done.
    max_iter : int, default=10000
        Rounds through the parts at most.

    Returns
    -------
    activations : ndarray of shape (n_tokens, n_concepts), dtype float64
        The minimisers; unique if the parts are linearly independent.
    """
    parts = parts.astype(np.float64)
    gram = parts @ parts.T
    lengths = np.sqrt(np.diag(gram))
    # With parts of length 1 the steps of all parts are in the same unit, that of the tokens.
    used = np.flatnonzero(lengths)
    units = parts[used] / lengths[used, None]
    gram = units @ units.T
    out = np.zeros((len(values), len(parts)))
    for start in range(0, len(values), _ROWS):
        rows = slice(start, start + _ROWS)
        solved = _descend(units @ values[rows].T.astype(np.float64), gram, tol, max_iter)
        out[rows, used] = (solved / lengths[used, None]).T
    return out


def _descend(target: Array, gram: Array, tol: float, max_iter: int) -> Array:
    """Coordinate descent; target and result are (n_units, n_tokens)."""
    result = np.zeros_like(target)
    largest = tol * np.maximum(target, 0).max(axis=0, initial=0)
    open_tokens = np.flatnonzero(largest > 0)
    for _ in range(max_iter):
        if len(open_tokens) == 0:
            break
        current, wanted = result[:, open_tokens], target[:, open_tokens]
        moved = np.zeros(len(open_tokens))
        for k in range(len(gram)):
            step = np.maximum(wanted[k] - gram[k] @ current, -current[k])
            current[k] += step
            np.maximum(moved, np.abs(step), out=moved)
        result[:, open_tokens] = current
        open_tokens = open_tokens[moved > largest[open_tokens]]
    return result


class PartsMixin(ReconstructionMixin):
    """Units whose scores are non-negative activations of parts."""

    def _score(self, values: Array) -> Array:
        values = as_floats(values)
        return activations(values, self.concept_vectors_).astype(values.dtype)

    def _reconstruct(self, scores: Array) -> Array:
        scores = as_floats(scores)
        return scores @ self.concept_vectors_.astype(scores.dtype)


class NMFConcepts(StreamingUnitsMixin, PartsMixin, BaseUnits):
    r"""A unit is a non-negative part of non-negative tokens; its score is how much a token holds.

    .. math:: \min_{W \ge 0,\, H \ge 0} \lVert X - W H \rVert_F^2

    over all training tokens, with the rows of ``H`` as vectors [1]_. Features must not be negative,
    as after a ReLU; :class:`SemiNMFConcepts` takes any.

    Parameters
    ----------
    n_concepts : int, default=8
        Parts.
    init : {"random", "nndsvd", "nndsvda", "nndsvdar"}, default=None
        Start, as in :class:`sklearn.decomposition.NMF`; None takes "nndsvda" where there are
        enough tokens and features for it, else "random".
    max_iter : int, default=200
        Iterations after which a ConvergenceWarning is given, unless ``tol=0``.
    tol : float, default=1e-4
        Tolerance of the stopping criterion.
    random_state : int, RandomState instance or None, default=None
        Draws the start.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_concepts, n_features), dtype float64
        The parts, H.
    reconstruction_err_ : float
        Frobenius norm of X - W H on the training tokens.
    n_iter_ : int
        Iterations.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        The class name with a number.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Lee, Seung, "Learning the parts of objects by non-negative matrix factorization",
       Nature, 1999.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import NMFConcepts
    >>> X = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0], [1.0, 1.0, 2.0]])
    >>> method = NMFConcepts(n_concepts=2, random_state=0).fit(X)
    >>> method.inverse_transform(method.transform(X)).round(2) + 0.0
    array([[1., 1., 0.],
           [0., 0., 2.],
           [1., 1., 2.]])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "n_concepts": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"random", "nndsvd", "nndsvda", "nndsvdar"}), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    reconstruction_err_: float
    n_iter_: int
    _minibatch: MiniBatchNMF | None

    def __init__(
        self,
        n_concepts: int = 8,
        *,
        init: Literal["random", "nndsvd", "nndsvda", "nndsvdar"] | None = None,
        max_iter: int = 200,
        tol: float = 1e-4,
        random_state: Any = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _fit_vectors(self, tokens: TokenArray) -> Array:
        self._check(tokens)
        self._minibatch = None
        if not may_hold(4 * tokens.n_tokens * tokens.n_features):
            return self._fit_in_blocks(tokens)
        method = NMF(
            self.n_concepts,
            init=self.init,
            max_iter=self.max_iter,
            tol=self.tol,
            random_state=self.random_state,
        ).fit(as_floats(tokens.flat()))
        self.reconstruction_err_ = float(method.reconstruction_err_)
        self.n_iter_ = int(method.n_iter_)
        return method.components_.astype(np.float64)

    def _fit_in_blocks(self, tokens: TokenArray) -> Array:
        random = check_random_state(self.random_state)
        # As in MiniBatchNMF.fit, a whole pass weighs what was there before by 0.7.
        method = self._new(random, 0.7 ** min(_BATCH / tokens.n_tokens, 1))
        self.n_iter_, change = 0, np.inf
        while change > self.tol and self.n_iter_ < self.max_iter:
            before = getattr(method, "components_", np.zeros(1)).copy()
            for rows in _many_rows(tokens[shuffled_runs(tokens, random)]):
                _go_on(method, rows)
            self.n_iter_ += 1
            moved = float(np.linalg.norm(method.components_ - before))
            change = moved / max(float(np.linalg.norm(method.components_)), np.finfo(float).tiny)
        if change > self.tol > 0:
            warn(
                f"the factorisation did not converge in max_iter={self.max_iter} passes.",
                ConvergenceWarning,
            )
        parts: Array = method.components_.astype(np.float64)
        square = 0.0
        for values in tokens.float_chunks():
            square += float(np.sum((values - activations(values, parts) @ parts) ** 2))
        self.reconstruction_err_ = float(np.sqrt(square))
        return parts

    def _update(self, tokens: TokenArray, first: bool) -> Array:
        self._check(tokens)
        random = check_random_state(self.random_state)
        if first:
            method, start, self.n_iter_ = self._new(random, 1.0), None, 0
        elif self._minibatch is None:
            method, start = self._new(random, 1.0), self.concept_vectors_
        else:
            method, start = deepcopy(self._minibatch), None
        for rows in _many_rows(tokens):
            _go_on(method, rows, start)
            start = None
        self._minibatch = method
        self.n_iter_ += 1
        return np.asarray(method.components_, np.float64)

    def _new(self, random: np.random.RandomState, forget_factor: float) -> MiniBatchNMF:
        return MiniBatchNMF(
            self.n_concepts,
            init=self.init,
            batch_size=_BATCH,
            forget_factor=forget_factor,
            random_state=random,
        )

    def _check(self, tokens: TokenArray) -> None:
        _check_not_negative(tokens, type(self).__name__)
        possible = min(tokens.n_tokens, tokens.n_features)
        if self.init not in (None, "random") and self.n_concepts > possible:
            raise ValueError(
                f"init={self.init!r} needs n_concepts of at most the number of tokens "
                f"({tokens.n_tokens}) and features ({tokens.n_features}), got "
                f"n_concepts={self.n_concepts}."
            )

    def _transform(self, tokens: TokenArray) -> TokenArray:
        _check_not_negative(tokens, type(self).__name__)
        return super()._transform(tokens)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags


def _check_not_negative(tokens: TokenArray, name: str) -> None:
    where = first_token(tokens, lambda block: block < 0)
    if where is not None:
        raise ValueError(
            f"Negative values in data passed to {name}: {where.value} at {where}. SemiNMFConcepts "
            "takes features of any sign."
        )


def _many_rows(tokens: TokenArray) -> Iterator[Array]:
    """Blocks of a minibatch at least: the parts that fit a few tokens fit nothing else."""
    rows: list[Array] = []
    for _, block in tokens.blocks():
        rows.append(as_floats(block))
        if sum(map(len, rows)) >= _BATCH:
            yield np.concatenate(rows)
            rows = []
    if rows:
        yield np.concatenate(rows)


def _go_on(method: MiniBatchNMF, values: Array, start: Array | None = None) -> None:
    """Train on some rows, a minibatch at a time, perhaps beginning at given parts."""
    n_batches = -(-len(values) // _BATCH)
    for first in range(n_batches):
        batch = np.ascontiguousarray(values[first::n_batches])
        given = {}
        if start is not None and first == 0:
            method.set_params(init="custom")
            # The activations are asked for, and not used.
            given = {
                "W": np.ones((len(batch), len(start)), batch.dtype),
                "H": start.astype(batch.dtype),
            }
        method.partial_fit(batch, **given)


class SemiNMFConcepts(PartsMixin, BaseUnits):
    r"""A unit is a part of tokens of any sign; its score is how much of it a token holds.

    .. math:: \min_{W \ge 0,\, H} \lVert X - W H \rVert_F^2

    over all training tokens, with the rows of ``H`` as vectors [1]_. Each iteration sets
    :math:`H = (W^\top W)^+ W^\top X` and then

    .. math:: W \leftarrow W \sqrt{\frac{(X H^\top)^+ + W (H H^\top)^-}
                                         {(X H^\top)^- + W (H H^\top)^+}}

    with the positive and negative part :math:`A = A^+ - A^-` of each entry; neither step can raise
    the loss. It starts from the memberships of k-means clusters, plus 0.2.

    Parameters
    ----------
    n_concepts : int, default=8
        Parts.
    max_iter : int, default=200
        Iterations after which a ConvergenceWarning is given, unless ``tol=0``.
    tol : float, default=1e-5
        Decrease of the loss in one iteration, relative to the sum of squares of the tokens, below
        which fitting ends.
    random_state : int, RandomState instance or None, default=None
        Draws the tokens that k-means starts from.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_concepts, n_features), dtype float64
        The parts, H.
    loss_curve_ : ndarray of shape (n_iter,), dtype float64
        Sum of squares of X - W H after each iteration.
    reconstruction_err_ : float
        Frobenius norm of X - W H on the training tokens.
    n_iter_ : int
        Iterations.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        The class name with a number.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Ding, Li, Jordan, "Convex and Semi-Nonnegative Matrix Factorizations", IEEE Transactions
       on Pattern Analysis and Machine Intelligence, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import SemiNMFConcepts
    >>> X = np.array([[1.0, -1.0], [2.0, -2.0], [0.0, 3.0], [0.0, 1.0]])
    >>> method = SemiNMFConcepts(n_concepts=2, random_state=0).fit(X)
    >>> scores = method.transform(X)
    >>> bool(scores.min() >= 0), bool(np.abs(method.inverse_transform(scores) - X).max() < 0.1)
    (True, True)
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "n_concepts": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    loss_curve_: Array
    reconstruction_err_: float
    n_iter_: int

    def __init__(
        self,
        n_concepts: int = 8,
        *,
        max_iter: int = 200,
        tol: float = 1e-5,
        random_state: Any = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _fit_vectors(self, tokens: TokenArray) -> Array:
        check_enough_tokens(tokens, self.n_concepts, f"n_concepts={self.n_concepts} parts")
        parts, losses = _semi_nmf(
            tokens,
            _memberships(tokens, self.n_concepts, check_random_state(self.random_state)) + 0.2,
            self.tol,
            self.max_iter,
        )
        self.loss_curve_ = np.array(losses)
        self.reconstruction_err_ = float(np.sqrt(losses[-1]))
        self.n_iter_ = len(losses)
        return parts


def _memberships(tokens: TokenArray, n_clusters: int, random: np.random.RandomState) -> Array:
    with warnings.catch_warnings():
        # A part that starts without tokens is no fault: it gets some in the first iteration.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = kmeans(tokens, n_clusters, max_iter=20, n_init=1, random_state=random)
    return np.eye(n_clusters)[clusters.labels]


def _semi_nmf(
    tokens: TokenArray, weights: Array, tol: float, max_iter: int
) -> tuple[Array, list[float]]:
    """Return H and the loss after each iteration; ``weights`` is W at the start, changed here."""
    sum_of_squares = sum(
        float(np.einsum("nd,nd->", block, block, dtype=np.float64)) for _, block in tokens.blocks()
    )
    parts = _best_parts(tokens, weights)
    losses: list[float] = []
    for _ in range(max_iter):
        gram = parts @ parts.T
        for rows, block in tokens.row_blocks():
            _update(weights[rows], as_floats(block) @ parts.T, gram)
        parts = _best_parts(tokens, weights)
        losses.append(_loss(tokens, weights, parts))
        if len(losses) > 1 and losses[-2] - losses[-1] <= tol * sum_of_squares:
            return parts, losses
    if tol > 0:
        warn(
            f"the factorisation did not converge in max_iter={max_iter} iterations.",
            ConvergenceWarning,
        )
    return parts, losses


def _update(weights: Array, match: Array, gram: Array) -> None:
    """Multiply the rows of W, in place; ``match`` is X H^T."""
    up = np.maximum(match, 0) + weights @ np.maximum(-gram, 0)
    down = np.maximum(-match, 0) + weights @ np.maximum(gram, 0)
    weights *= np.sqrt(up / np.where(down > 0, down, 1))


def _best_parts(tokens: TokenArray, weights: Array) -> Array:
    """Least squares for H, given W."""
    matched = np.zeros((weights.shape[1], tokens.n_features))
    for rows, block in tokens.row_blocks():
        matched += weights[rows].T @ block
    return np.linalg.pinv(weights.T @ weights, hermitian=True) @ matched


def _loss(tokens: TokenArray, weights: Array, parts: Array) -> float:
    loss = 0.0
    for rows, block in tokens.row_blocks():
        rest = block - weights[rows] @ parts
        loss += float(np.einsum("nd,nd->", rest, rest))
    return loss
