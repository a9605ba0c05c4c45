"""Linear separators: a concept is the direction that separates its tokens from the rest."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal

from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions

from skact.arguments import Number, instance
from skact.concepts._adam import Adam
from skact.concepts._base import BaseConcepts, ProductsMixin, check_separable
from skact.concepts._callbacks import EpochsMixin
from skact.concepts._logistic import LBFGS
from skact.concepts._minibatch import Minibatch
from skact.concepts._solver import Balance, Problem, Solver
from skact.concepts._statistics import label_counts
from skact.concepts._streaming import StreamingConceptsMixin
from skact.rows import Array
from skact.tokens import TokenArray

__all__ = ["LinearSeparator"]

SOLVERS: dict[str, type[Solver]] = {"lbfgs": LBFGS, "minibatch": Minibatch, "adam": Adam}


class LinearSeparator(EpochsMixin, StreamingConceptsMixin, ProductsMixin, BaseConcepts):
    r"""A concept is the direction that separates its tokens from all others.

    .. math:: v_c = \arg\min_v \sum_i w_{c,i} \log\big(1 + e^{-t_{c,i} \langle z_i, v \rangle}\big)
              + \tfrac{\lambda}{2} \lVert v \rVert^2, \qquad s_c(z) = \langle z, v_c \rangle

    with :math:`t_{c,i} = 1` for tokens labelled c and -1 for **every** other token, no bias, and
    balanced classes [1]_. All concepts are trained together, by one of three solvers:

    ============= ===================== ============================================================
    name          object                what it does
    ============= ===================== ============================================================
    "lbfgs"       :class:`LBFGS`        finds the unique minimum, with class weights
                                        :math:`w = 1 / (2 n_\pm)`; reads the tokens some dozen times
    "minibatch"   :class:`Minibatch`    comes near that minimum in few passes, for tokens of any
                                        number, and can go on with :meth:`partial_fit`
    "adam"        :class:`Adam`         follows the paper's recipe, which balances by drawing as
                                        many negatives as there are positives
    ============= ===================== ============================================================

    With ``sample_weight``, which the first of them takes, the loss of a token counts as often as
    its sample, and so do tokens that :math:`n_\pm` counts.

    Parameters
    ----------
    solver : {"lbfgs", "minibatch", "adam"}, LBFGS, Minibatch or Adam, default="lbfgs"
        What finds the vectors. A name stands for the object with its defaults; with an object, a
        search reaches its settings as ``solver__learning_rate``, say.
    weight_decay : float, default=1e-4
        :math:`\lambda`; in Adam the L2 term of the gradient.
    balance : {"auto", "weight", "sample"} or None, default="auto"
        How positives and negatives come to count the same: by weights, by drawing negatives down
        to the positives (Adam only), or not at all, :math:`w = 1 / n` with the number n of tokens.
        "auto" is "sample" for Adam, else "weight".
    random_state : int, RandomState instance or None, default=None
        Draws the order of Minibatch, and negatives, order and initial vectors of Adam. LBFGS draws
        nothing.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_concepts, n_features), dtype float64
        The directions; with Adam those of the last epoch, with Minibatch a mean over steps.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    loss_curves_, f1_curves_ : list of ndarray of shape (n_epochs_c,)
        With Adam: mean loss over minibatches and F1 on the training tokens after each epoch.
    n_iter_ : int
        Iterations of LBFGS, passes of Minibatch, or epochs of the concept that Adam trained
        longest.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    Notes
    -----
    With LBFGS, ``sample_weight`` equals repeated samples up to where the loss is flat: it ends some
    1e-9 above the minimum, or where losses in single precision cannot be told apart. Measured on
    separable tokens with the default ``weight_decay``, vectors of norm 18 differed by up to 0.05 in
    single precision (cosine 0.999996, losses 2e-7 apart) and 1e-3 in double precision; with
    ``weight_decay=0.01`` by 1e-6.

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
        "solver": [
            StrOptions(set(SOLVERS)),
            instance("an object: LBFGS(), Minibatch() or Adam()", Solver),
        ],
        "weight_decay": [Number(Real, 0, None, closed="left")],
        "balance": [StrOptions({"auto", "weight", "sample"}), None],
        "random_state": ["random_state"],
    }

    n_iter_: int
    loss_curves_: list[Array]
    f1_curves_: list[Array]
    _state: Any

    def __init__(
        self,
        solver: Literal["lbfgs", "minibatch", "adam"] | Solver = "lbfgs",
        *,
        weight_decay: float = 1e-4,
        balance: Balance = "auto",
        random_state: Any = None,
    ) -> None:
        self.solver = solver
        self.weight_decay = weight_decay
        self.balance = balance
        self.random_state = random_state

    def _validate_params(self) -> None:
        super()._validate_params()
        _solver(self.solver)._validate_params()

    def _max_epochs(self) -> int:
        return int(_solver(self.solver).limit)

    def _streams(self) -> bool:
        return getattr(_solver(self.solver), "streams", False)

    def _fit_vectors(self, tokens: TokenArray, labels: TokenArray, weight: Array | None) -> Array:
        counts = label_counts(labels)
        check_separable(counts, tokens.n_tokens, self.concept_names_, "token", "a separator")
        return self._solve(tokens, labels, weight, None)

    def _update(
        self, tokens: TokenArray, labels: TokenArray, first: bool, weight: Array | None
    ) -> Array:
        if not first and self._state is None:
            raise ValueError(
                'partial_fit goes on from a fit with solver="minibatch"; this one had another. '
                "Call fit first."
            )
        return self._solve(tokens, labels, weight, None if first else self._state)

    def _solve(
        self, tokens: TokenArray, labels: TokenArray, weight: Array | None, state: Any
    ) -> Array:
        if weight is not None and (weight == weight[0]).all():
            weight = None  # a scale does not count here
        counts = label_counts(labels) if weight is None else weight @ labels.sum()
        solution = _solver(self.solver).solve(
            Problem(tokens, labels, counts, self.weight_decay, self.balance, weight),
            check_random_state(self.random_state),
            self._report if self._is_watched() else None,
            state,
        )
        self.n_iter_, self._state = solution.n_iter, solution.state
        # What another solver has left says nothing of these vectors.
        for name in ("loss_curves_", "f1_curves_"):
            self.__dict__.pop(name, None)
        self.__dict__.update(solution.curves)
        return solution.vectors


def _solver(solver: Any) -> Any:
    """Return the solver that a name stands for; anything else as it is."""
    return SOLVERS[solver]() if isinstance(solver, str) and solver in SOLVERS else solver
