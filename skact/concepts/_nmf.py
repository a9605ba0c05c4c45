r"""Matrix factorisations with non-negative activations: a token is a sum of parts.

Both methods write tokens as :math:`X \approx W H` with :math:`W \ge 0`: a row of ``H`` is a part,
a row of ``W`` says how much of each part a token holds. They differ in whether ``H`` may be
negative. Given ``H``, the activations of a token solve a small convex problem of its own,

.. math:: \min_{w \ge 0} \lVert z - w H \rVert^2,

so ``transform`` does not depend on what else is transformed.
"""

from __future__ import annotations

import warnings
from copy import deepcopy
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from sklearn.decomposition import NMF, MiniBatchNMF
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions

from skact.arguments import Number
from skact.concepts._base import BaseUnits, check_enough_tokens
from skact.concepts._factorise import (
    BATCH,
    activations,
    first_parts,
    nmf_in_blocks,
    reconstruction_error,
    semi_nmf,
    some_tokens,
    train_nmf,
    warn_not_converged,
)
from skact.concepts._reconstruction import ReconstructionMixin
from skact.concepts._streaming import StreamingUnitsMixin
from skact.rows import Array, as_floats
from skact.tokens import TokenArray
from skact.validation import first_token
from skact.warning import warn

__all__ = ["NMFConcepts", "SemiNMFConcepts"]


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
        Frobenius norm of X - W H on the training tokens. Absent after ``partial_fit``.
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
        "n_concepts": [Number(Integral, 1, None, closed="left")],
        "init": [StrOptions({"random", "nndsvd", "nndsvda", "nndsvdar"}), None],
        "max_iter": [Number(Integral, 1, None, closed="left")],
        "tol": [Number(Real, 0, None, closed="left")],
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
        if not tokens.may_be_held:
            return self._fit_in_blocks(tokens)
        method = NMF(
            self.n_concepts,
            init=self.init,
            max_iter=self.max_iter,
            tol=self.tol,
            random_state=self.random_state,
        )
        with warnings.catch_warnings():
            # It would name a line of scikit-learn's.
            warnings.simplefilter("ignore", ConvergenceWarning)
            method.fit(as_floats(tokens.flat()))
        if self.tol > 0 and method.n_iter_ == self.max_iter:
            warn_not_converged(self.max_iter, "iterations")
        self.reconstruction_err_ = float(method.reconstruction_err_)
        self.n_iter_ = int(method.n_iter_)
        return method.components_.astype(np.float64)

    def _fit_in_blocks(self, tokens: TokenArray) -> Array:
        random = check_random_state(self.random_state)
        # As in MiniBatchNMF.fit, a whole pass weighs what was there before by 0.7.
        method = self._new(random, 0.7 ** min(BATCH / tokens.n_tokens, 1))
        parts, self.n_iter_ = nmf_in_blocks(
            method, tokens, random, tol=self.tol, max_iter=self.max_iter
        )
        self.reconstruction_err_ = reconstruction_error(tokens, parts)
        return parts

    def _update(self, tokens: TokenArray, first: bool) -> Array:
        self._check(tokens)
        random = check_random_state(self.random_state)
        start = None
        if first:
            method, self.n_iter_ = self._new(random, 1.0), 0
        elif self._remembered() is None:
            method, start = self._new(random, 1.0), self.concept_vectors_
        else:
            # What was fitted before must not change with what is fitted now.
            method = deepcopy(self._minibatch)
        train_nmf(method, tokens, start)
        self._minibatch = method
        self.n_iter_ += 1
        # That of the tokens of ``fit`` says nothing of the parts as they are now.
        self.__dict__.pop("reconstruction_err_", None)
        return np.asarray(method.components_, np.float64)

    def _remembered(self) -> MiniBatchNMF | None:
        """Return what is left of tokens of earlier ``partial_fit``, which no file keeps."""
        if not hasattr(self, "_minibatch"):
            warn(
                f"partial_fit goes on from the {self.n_concepts} parts alone: this NMFConcepts was "
                f"loaded, and what its {self.n_iter_} iterations saw of tokens is not saved."
            )
        return getattr(self, "_minibatch", None)

    def _new(self, random: np.random.RandomState, forget_factor: float) -> MiniBatchNMF:
        return MiniBatchNMF(
            self.n_concepts,
            init=self.init,
            batch_size=BATCH,
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


class SemiNMFConcepts(PartsMixin, BaseUnits):
    r"""A unit is a part of tokens of any sign; its score is how much of it a token holds.

    .. math:: \min_{W \ge 0,\, H} \lVert X - W H \rVert_F^2

    over all training tokens, with the rows of ``H`` as vectors [1]_. Each iteration goes through
    the columns of ``W`` three times, each of which is set to its minimum given the others [2]_,

    .. math:: w_k \leftarrow \max\Big(0, \frac{X h_k - \sum_{j \ne k} w_j \langle h_j, h_k \rangle}
                                        {\lVert h_k \rVert^2}\Big),

    and then sets ``H`` to its minimum given ``W``; no step can raise the loss. It starts from the
    centroids of k-means, and where there are more than 8,192 tokens (or 32 for each part), first
    fits that many, drawn at random.

    Parameters
    ----------
    n_concepts : int, default=8
        Parts.
    max_iter : int, default=200
        Iterations after which a ConvergenceWarning is given, unless ``tol=0``.
    tol : float, default=1e-4
        Decrease of the loss in one iteration, relative to the sum of squares of the tokens, below
        which fitting ends.
    random_state : int, RandomState instance or None, default=None
        Draws the tokens to begin with, and those that k-means starts from.

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
    .. [2] Cichocki, Zdunek, Amari, "Hierarchical ALS Algorithms for Nonnegative Matrix and 3D
       Tensor Factorization", Independent Component Analysis and Signal Separation, 2007.

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
        "n_concepts": [Number(Integral, 1, None, closed="left")],
        "max_iter": [Number(Integral, 1, None, closed="left")],
        "tol": [Number(Real, 0, None, closed="left")],
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
        tol: float = 1e-4,
        random_state: Any = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _fit_vectors(self, tokens: TokenArray) -> Array:
        check_enough_tokens(tokens, self.n_concepts, f"n_concepts={self.n_concepts} parts")
        random = check_random_state(self.random_state)
        some = some_tokens(tokens, self.n_concepts, random)
        parts = first_parts(some, self.n_concepts, random)
        if some is not tokens:
            parts, *_ = semi_nmf(some, parts, self.tol, self.max_iter)
        parts, losses, converged = semi_nmf(tokens, parts, self.tol, self.max_iter)
        if self.tol > 0 and not converged:
            warn_not_converged(self.max_iter, "iterations")
        self.loss_curve_ = np.array(losses)
        self.reconstruction_err_ = float(np.sqrt(losses[-1]))
        self.n_iter_ = len(losses)
        return parts
