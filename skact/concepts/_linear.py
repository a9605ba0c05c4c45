"""Linear separators: a concept is the direction that separates its tokens from the rest."""

from __future__ import annotations

from copy import deepcopy
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from skact.concepts._adam import AdamRecipe, fit_adam
from skact.concepts._base import StreamingConcepts, check_separable
from skact.concepts._callbacks import EpochsMixin
from skact.concepts._logistic import fit_logistic
from skact.concepts._minibatch import Descent, descend
from skact.concepts._statistics import balanced_weights, places_of, products
from skact.rows import Array, as_floats, may_hold
from skact.tokens import TokenArray

__all__ = ["LinearSeparator"]


class LinearSeparator(EpochsMixin, StreamingConcepts):
    r"""A concept is the direction that separates its tokens from all others.

    .. math:: v_c = \arg\min_v \sum_i w_{c,i} \log\big(1 + e^{-t_{c,i} \langle z_i, v \rangle}\big)
              + \tfrac{\lambda}{2} \lVert v \rVert^2, \qquad s_c(z) = \langle z, v_c \rangle

    with :math:`t_{c,i} = 1` for tokens labelled c and -1 for **every** other token, no bias, and
    balanced classes [1]_. All concepts are trained together. ``solver="lbfgs"`` finds the unique
    minimum with class weights, :math:`w = 1 / (2 n_\pm)`; ``solver="minibatch"`` comes near it in
    few passes, for tokens of any number, and can go on with :meth:`partial_fit`;
    ``solver="adam"`` follows the paper's recipe, which balances by drawing as many negatives as
    there are positives.

    Parameters
    ----------
    solver : {"lbfgs", "minibatch", "adam"}, default="lbfgs"
        Convex solver (deterministic, reads the tokens some dozen times), minibatches with the same
        minimum (reads them ``n_passes`` times), or the paper's recipe (reads rows at random).
    weight_decay : float, default=1e-4
        :math:`\lambda`; in Adam the L2 term of the gradient.
    balance : {"auto", "weight", "sample"} or None, default="auto"
        How positives and negatives come to count the same: by weights, by drawing negatives down
        to the positives (``solver="adam"`` only), or not at all. "auto" is "sample" for adam, else
        "weight".
    max_iter : int, default=200
        Iterations of lbfgs.
    n_passes : int, default=2
        Passes of minibatch.
    init : array-like of shape (n_concepts, n_features), default=None
        Initial vectors of adam; None draws them uniformly from
        :math:`\pm 1/\sqrt{n\_features}`.
    shuffle : bool, default=True
        Whether adam goes through the tokens in a new order in each epoch.
    batch_size : int, default=32
        Tokens in a minibatch of adam.
    learning_rate : float, default=0.01
        Initial step size of adam.
    max_epochs : int, default=100
        Passes of adam.
    lr_step : int, default=10
        Epochs after which the step size is multiplied by ``lr_decay``.
    lr_decay : float, default=0.5
        That factor.
    patience : int, default=15
        Epochs without improvement after which adam stops.
    tol : float, default=3.0
        Decrease of the loss that counts as improvement. The paper's value, which a loss below 0.7
        never reaches: with it every run ends after ``patience + 1`` epochs.
    stop_f1 : float, default=None
        Stop adam once the F1 on the training tokens reaches it.
    random_state : int, RandomState instance or None, default=None
        Draws the order of minibatch, and negatives, order and initial vectors of adam. lbfgs
        draws nothing.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_concepts, n_features), dtype float64
        The directions; with adam those of the last epoch, with minibatch a mean over steps.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    loss_curves_, f1_curves_ : list of ndarray of shape (n_epochs_c,)
        With adam: mean loss over minibatches and F1 on the training tokens after each epoch.
    n_iter_ : int
        Iterations of lbfgs, passes of minibatch, or epochs of the concept that adam trained
        longest.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    References
    ----------
    .. [1] Goldberg, Kim, Stein, Wong, "The SuperActivator Mechanism: Transformers Concentrate
       Reliable Concept Signals in the Tail", section on concept vectors and appendix on training.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import LinearSeparator
    >>> X = np.array([[1.0, 0.2], [0.8, -0.1], [-1.0, 0.1], [-0.9, -0.3]])
    >>> method = LinearSeparator().fit(X, ["cat", "cat", "dog", "dog"])
    >>> method.concept_names_, (method.transform(X).ravel() > 0).tolist()
    (array(['dog'], dtype=object), [False, False, True, True])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "solver": [StrOptions({"lbfgs", "minibatch", "adam"})],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "balance": [StrOptions({"auto", "weight", "sample"}), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_passes": [Interval(Integral, 1, None, closed="left")],
        "init": ["array-like", None],
        "shuffle": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "lr_step": [Interval(Integral, 1, None, closed="left")],
        "lr_decay": [Interval(Real, 0, 1, closed="right")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "stop_f1": [Interval(Real, 0, 1, closed="right"), None],
        "random_state": ["random_state"],
    }

    n_iter_: int
    loss_curves_: list[Array]
    f1_curves_: list[Array]

    def __init__(
        self,
        solver: Literal["lbfgs", "minibatch", "adam"] = "lbfgs",
        *,
        weight_decay: float = 1e-4,
        balance: Literal["auto", "weight", "sample"] | None = "auto",
        max_iter: int = 200,
        n_passes: int = 2,
        init: npt.ArrayLike | None = None,
        shuffle: bool = True,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        max_epochs: int = 100,
        lr_step: int = 10,
        lr_decay: float = 0.5,
        patience: int = 15,
        tol: float = 3.0,
        stop_f1: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.solver = solver
        self.weight_decay = weight_decay
        self.balance = balance
        self.max_iter = max_iter
        self.n_passes = n_passes
        self.init = init
        self.shuffle = shuffle
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_epochs = max_epochs
        self.lr_step = lr_step
        self.lr_decay = lr_decay
        self.patience = patience
        self.tol = tol
        self.stop_f1 = stop_f1
        self.random_state = random_state

    _descent: Descent

    def _max_epochs(self) -> int:
        return {
            "lbfgs": self.max_iter,
            "minibatch": self.n_passes,
            "adam": self.max_epochs,
        }[self.solver]

    def _streams(self) -> bool:
        return self.solver == "minibatch"

    def _update(self, tokens: TokenArray, labels: TokenArray, first: bool) -> Array:
        return self._descend(tokens, labels, _label_counts(labels), first)

    def _descend(self, tokens: TokenArray, labels: TokenArray, counts: Array, first: bool) -> Array:
        balanced = self._weighs_classes()
        if first:
            start = np.zeros((labels.n_features, tokens.n_features))
            descent = Descent.start(tokens, start, self.weight_decay)
        else:
            # What was fitted before must not change with what is fitted now.
            descent = deepcopy(self._descent)
        descent.n_positive += counts
        descent.n_tokens += tokens.n_tokens
        random = check_random_state(self.random_state)
        self.n_iter_ = 0
        stopped = False
        while not stopped and self.n_iter_ < (self.n_passes if first else 1):
            descend(
                descent,
                tokens,
                labels,
                l2=self.weight_decay,
                balanced=balanced,
                random=random,
            )
            self.n_iter_ += 1
            stopped = self._report(lambda: descent.mean)
        self._descent = descent
        return descent.mean.copy()

    def _fit_vectors(self, tokens: TokenArray, labels: TokenArray) -> Array:
        counts = _label_counts(labels)
        check_separable(counts, tokens.n_tokens, self.concept_names_, "token", "a separator")
        if self.solver == "adam":
            return self._fit_adam(tokens, labels)
        if self.solver == "minibatch":
            return self._descend(tokens, labels, counts, True)
        vectors, self.n_iter_ = fit_logistic(
            tokens,
            labels,
            self._class_weight(counts, tokens.n_tokens),
            l2=self.weight_decay,
            max_iter=self.max_iter,
            report=self._report,
        )
        return vectors

    def _class_weight(self, n_positive: Array, n_tokens: int) -> tuple[Array, Array]:
        """Weight of a negative and of a positive token, per concept."""
        if self._weighs_classes():
            return balanced_weights(n_positive, n_tokens)
        even = np.full(len(n_positive), 1 / n_tokens)
        return even, even

    def _weighs_classes(self) -> bool:
        """Tell whether classes are balanced, for the solvers that do it by weights."""
        if self.balance == "sample":
            raise ValueError(
                f'balance="sample" needs solver="adam"; {self.solver} balances by weights.'
            )
        return self.balance is not None

    def _fit_adam(self, tokens: TokenArray, labels: TokenArray) -> Array:
        random = check_random_state(self.random_state)
        marked = labels.flat()
        shape = (marked.shape[1], tokens.n_features)
        if self.init is None:
            bound = 1 / np.sqrt(tokens.n_features)
            init = random.uniform(-bound, bound, size=shape)
        else:
            init = np.asarray(self.init, dtype=np.float64)
            if init.shape != shape:
                raise ValueError(f"init must have shape {shape}, got {init.shape}.")
        sampled = self.balance in ("auto", "sample")
        rows = [_balanced_rows(m, random) if sampled else np.arange(len(m)) for m in marked.T]
        targets = [m[r].astype(np.float32) for m, r in zip(marked.T, rows, strict=True)]
        if self.balance == "weight":
            both = balanced_weights(marked.sum(axis=0), len(marked))
            weights = [
                len(marked) * np.where(t > 0, positive, negative)
                for t, negative, positive in zip(targets, *both, strict=True)
            ]
        else:
            weights = [np.ones(len(t)) for t in targets]
        recipe = AdamRecipe(**{name: getattr(self, name) for name in AdamRecipe.__annotations__})
        if may_hold(4 * tokens.n_tokens * tokens.n_features):
            values = tokens.flat()
        else:
            # Of tokens that cannot all be held, only those that are trained on are read.
            needed = np.unique(np.concatenate(rows))
            values = tokens.rows(needed)
            rows = [np.searchsorted(needed, own) for own in rows]
        result = fit_adam(
            as_floats(values),
            rows,
            targets,
            weights,
            init,
            recipe,
            seed=int(random.randint(2**31 - 1)),
            report=self._report if self._is_watched() else None,
        )
        self.loss_curves_, self.f1_curves_ = result.loss_curves, result.f1_curves
        self.n_iter_ = max(map(len, result.loss_curves))
        return result.vectors

    def _score(self, values: Array) -> Array:
        return products(values, self.concept_vectors_)


def _label_counts(labels: TokenArray) -> Array:
    """Tokens that each concept has, (n_concepts,); most have none, so only labels are counted."""
    counts = np.zeros(labels.n_features, np.int64)
    for _, block in labels.blocks():
        counts += np.bincount(places_of(block)[1], minlength=labels.n_features)
    return counts


def _balanced_rows(marked: Array, random: np.random.RandomState) -> Array:
    """All positive rows and as many negative ones, drawn without replacement, in token order."""
    positive, negative = np.flatnonzero(marked), np.flatnonzero(~marked)
    if len(negative) > len(positive):
        negative = random.choice(negative, len(positive), replace=False)
    return np.sort(np.concatenate([positive, negative]))
