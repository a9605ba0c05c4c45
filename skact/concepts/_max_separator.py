r"""Max separators: sample labels reach the tokens through the largest scores of each sample.

A sample that holds a concept has at least one token that shows it, and which one is not known; a
sample without it has none. This is multiple-instance learning: the loss is that of the sample, and
its gradient falls on the tokens with the largest scores alone. A separator of labelled tokens has
to raise every token of a span, also those that occur everywhere; this one may leave them low.
"""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._indexing import _safe_indexing
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import _num_samples

from skact.arguments import Number, check_entries, check_groups, check_sample_weight
from skact.base import concept_names
from skact.concepts._base import BaseConcepts, ProductsMixin, check_separable
from skact.concepts._pooled_choice import choose_decays, deal_folds
from skact.concepts._pooled_loss import Pool, PooledLoss, minimum, unpacked
from skact.pooling import check_top_and_share, check_window
from skact.rows import Array
from skact.targets import check_token_labels
from skact.tokens import TokenArray
from skact.warning import warn

__all__ = ["MaxSeparator"]


class MaxSeparator(ProductsMixin, BaseConcepts):
    r"""A concept is the direction whose largest scores separate the samples that hold it.

    .. math:: v_c = \arg\min_{v, b} \sum_x w_{c,x} \log\big(1 + e^{-t_{c,x} A(x; v, b)}\big)
              + \tfrac{\lambda}{2} \lVert v \rVert^2, \qquad
              A(x; v, b) = \frac1r \log \frac1n \sum_{i=1}^n e^{r \langle z_i, v \rangle} + b

    and :math:`s_c(z) = \langle z, v_c \rangle`. Here :math:`t_{c,x}` is 1 for samples that hold c,
    else -1, and classes are balanced by :math:`w = 1 / (2 n_\pm)`; A is a smooth maximum,
    and this is multiple-instance logistic regression [1]_ [2]_: it learns from **sample labels
    alone** which tokens speak for a concept, and scores for a detector that reads the maximum. It
    is not part of the paper. All concepts are trained together by L-BFGS from zero, without
    randomness; the loss is not convex, so the minimum is a local one.

    With ``sharpness=None``, A is that of :class:`TopWindows`: the mean of the K largest window
    means, of which one window of one token is the maximum. It is minimised by the convex-concave
    procedure [3]_ in at most six steps. In each, what the tokens of positive samples count stays
    as it was after the last, which makes the loss convex; the loss itself falls with every step.

    Two terms can be added to the loss. ``token_weight`` :math:`= \alpha > 0` learns from
    ``token_labels`` too:

    .. math:: \alpha \sum_i w_{c,i} \log\big(1 + e^{-t_{c,i} (\langle z_i, v \rangle + b)}\big)

    over all tokens, balanced as the samples are; and in a positive sample A is the maximum (the
    soft one with a ``sharpness``) of its labelled tokens alone. A positive sample without any
    labelled token takes part as if there were no labels. ``benign_variance``
    :math:`= \lambda_s > 0` pulls down the windows that stand out of samples without the concept:

    .. math:: \lambda_s \frac{1}{n_-} \sum_{x_-} \sum_t \pi_t (a_t - \bar a)^2, \qquad
              \pi = \operatorname{softmax}(a_t / T)

    with the mean :math:`\bar a` of all window means :math:`a_t` of a sample. :math:`\pi` is frozen
    in each of at most six steps, so that here the loss may rise.

    Parameters
    ----------
    sharpness : float or None, default=4.0
        r. Small values pool nearly by the mean, large ones by the maximum; None takes the mean of
        the largest windows.
    window : int, default=1
        M: tokens of a run, or patches along one side of a square, over which scores are averaged
        before they are pooled. In smaller samples the largest window that fits.
    top : int, default=1
        K: how many windows count, with ``sharpness=None``; all in samples that have fewer.
    share : float, default=None
        Share in (0, 1] of the windows that count, rounded, at least one, in place of ``top``.
    weight_decay : float or "auto", default=1e-3
        :math:`\lambda`; right for tokens of about unit length, as :class:`TokenScaler` gives.
        "auto" gives each concept the one of 0.1, 0.01, 0.001 and 0.0001 whose out-of-fold pooled
        scores have the best F1 at their best cut (ties: the largest), which takes about ``4 * cv``
        fits.
    cv : int, default=5
        Folds for ``weight_decay="auto"``, dealt without randomness so that each has its part of
        every concept, or of the groups with it.
    token_weight : float, default=0.0
        :math:`\alpha`; with 0, ``token_labels`` are not read.
    benign_variance : float, default=0.0
        :math:`\lambda_s`.
    temperature : float, default=1.0
        T, in units of the scores; small values look at the largest window alone.
    max_iter : int, default=200
        Iterations, of each step, after which a ConvergenceWarning is given.
    tol : float, default=1e-5
        Relative decrease of the loss in one iteration below which fitting ends.

    Attributes
    ----------
    concept_vectors_ : ndarray of shape (n_concepts, n_features), dtype float64
        The directions.
    intercepts_ : ndarray of shape (n_concepts,), dtype float64
        b; a detector finds a threshold of its own.
    weight_decay_ : ndarray of shape (n_concepts,), dtype float64
        :math:`\lambda` of each concept.
    loss_curve_ : ndarray of shape (1 + n_steps,) or (1,), dtype float64
        The loss before the first step and after each, summed over concepts. Of the soft maximum
        without a penalty, which is minimised at once, the last loss alone.
    n_iter_ : int
        Iterations in all steps.
    concept_names_ : ndarray of shape (n_concepts,), dtype object
        Names of the concepts.
    n_features_in_ : int
        Features of a token.
    source_ : Source or None
        Model, layer and scaling of the training tokens.

    Notes
    -----
    ``sample_weight`` equals repeated samples up to where the loss is flat, whatever ``tol``: tokens
    in single precision end where losses cannot be told apart. Measured with the default
    ``weight_decay``, vectors of norm 13 differed by 1e-3, their losses by 2e-9; with
    ``weight_decay=0.1`` by up to 2e-5, and in double precision by 1e-12.

    References
    ----------
    .. [1] Ray, Craven, "Supervised versus Multiple Instance Learning: An Empirical Comparison",
       ICML 2005.
    .. [2] Pinheiro, Collobert, "From Image-level to Pixel-level Labeling with Convolutional
       Networks", CVPR 2015, for the soft maximum.
    .. [3] Yuille, Rangarajan, "The Concave-Convex Procedure", Neural Computation 2003.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import MaxSeparator
    >>> common, telling = [1.0, 0.0], [0.0, 1.0]
    >>> X = [np.array([common, telling]), np.array([common, common]), np.array([common])]
    >>> scores = MaxSeparator().fit(X, [1, 0, 0]).transform(X)
    >>> (scores[0] > scores[1].max()).ravel().tolist()
    [False, True]
    """

    # scikit-learn reads this request under its name-mangled form.
    __metadata_request__fit: ClassVar = {"groups": True}

    _parameter_constraints: dict[str, list[Any]] = {
        "sharpness": [Number(Real, 0, None, closed="neither"), None],
        "window": [Number(Integral, 1, None, closed="left")],
        "top": [Number(Integral, 1, None, closed="left")],
        "share": [Number(Real, 0, 1, closed="right"), None],
        "weight_decay": [Number(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "cv": [Number(Integral, 2, None, closed="left")],
        "token_weight": [Number(Real, 0, None, closed="left")],
        "benign_variance": [Number(Real, 0, None, closed="left")],
        "temperature": [Number(Real, 0, None, closed="neither")],
        "max_iter": [Number(Integral, 1, None, closed="left")],
        "tol": [Number(Real, 0, None, closed="left")],
    }

    intercepts_: Array
    weight_decay_: Array
    loss_curve_: Array
    n_iter_: int
    _beside: tuple[Any, Any]

    def __init__(
        self,
        sharpness: float | None = 4.0,
        *,
        window: int = 1,
        top: int = 1,
        share: float | None = None,
        weight_decay: float | Literal["auto"] = 1e-3,
        cv: int = 5,
        token_weight: float = 0.0,
        benign_variance: float = 0.0,
        temperature: float = 1.0,
        max_iter: int = 200,
        tol: float = 1e-5,
    ) -> None:
        self.sharpness = sharpness
        self.window = window
        self.top = top
        self.share = share
        self.weight_decay = weight_decay
        self.cv = cv
        self.token_weight = token_weight
        self.benign_variance = benign_variance
        self.temperature = temperature
        self.max_iter = max_iter
        self.tol = tol

    def _validate_params(self) -> None:
        super()._validate_params()
        check_top_and_share(self.top, self.share)
        if self.sharpness is not None and (self.top != 1 or self.share is not None):
            raise ValueError(
                "the soft maximum counts all windows; top and share need sharpness=None, got "
                f"sharpness={self.sharpness}, top={self.top} and share={self.share}."
            )

    def fit(
        self,
        X: Any,
        y: Any,
        token_labels: Any = None,
        sample_weight: Any = None,
        groups: Any = None,
    ) -> Self:
        """Learn a vector for each concept.

        Parameters
        ----------
        X : TokenArray, list of 2-D arrays, 3-D array or 2-D array
            Training tokens.
        y : array-like of shape (n_samples,) or (n_samples, n_concepts)
            Class labels (two classes: one concept, the larger class; more: one concept a class)
            or an indicator matrix.
        token_labels : TokenArray or list of arrays of bool, default=None
            For each sample (n_tokens, n_concepts). Read with a ``token_weight`` alone: with 0 this
            method learns from sample labels.
        sample_weight : array-like of shape (n_samples,), default=None
            How often the loss of each sample counts, in which both classes are balanced; one of
            weight 0 is left out.
        groups : array-like of shape (n_samples,), default=None
            Samples that belong together, which the folds of ``weight_decay="auto"`` keep together.

        Returns
        -------
        self : MaxSeparator
            Fitted.

        Raises
        ------
        ValueError
            If X, y, token_labels, groups and sample_weight do not fit together, a concept is in no
            sample or in every one, a window is longer than every sample, or
            ``weight_decay="auto"`` has too few samples or groups to choose by.
        """
        if groups is not None:
            check_groups(groups, _num_samples(X))
        if sample_weight is not None:
            kept = np.flatnonzero(check_sample_weight(sample_weight, _num_samples(X)))
            if token_labels is not None:
                check_entries("token_labels", token_labels, _num_samples(X))
            token_labels, groups = (
                None if part is None else _safe_indexing(part, kept)
                for part in (token_labels, groups)
            )
        self._beside = token_labels, groups
        try:
            super().fit(X, y, sample_weight=sample_weight)
        finally:
            del self._beside
        # Sample labels are what it is made for: labels of tokens beside them are no contradiction.
        self._labels = None if token_labels is None else "tokens"
        return self

    def _fit_vectors(self, tokens: TokenArray, labels: TokenArray, weight: Array | None) -> Array:
        # Without labels of tokens, all tokens of a sample are labelled as the sample is.
        loss = replace(self._loss(tokens, labels.max()), times=weight)
        if self.weight_decay == "auto":
            folds = deal_folds(loss.present, self._beside[1], self.cv, self.concept_names_)
            decays = choose_decays(loss, folds, self.max_iter, self.tol)
        else:
            decays = np.full(loss.n_concepts, self.weight_decay, np.float64)
        found = minimum(replace(loss, weight_decay=decays), None, self.max_iter, self.tol)
        if found.trouble is not None:
            warn(
                f"the separators did not converge in max_iter={self.max_iter} iterations, of which "
                f"they took {found.n_iter}{found.trouble}.",
                ConvergenceWarning,
            )
        self.weight_decay_, self.loss_curve_, self.n_iter_ = decays, found.curve, found.n_iter
        vectors, self.intercepts_ = unpacked(found.flat, loss.n_concepts)
        return vectors

    def _loss(self, tokens: TokenArray, present: Array) -> PooledLoss:
        check_separable(
            present.sum(axis=0), len(tokens), self.concept_names_, "sample", "a separator"
        )
        check_window(self.window, tokens)
        labels, targets = None, replace(self._known, present=present)
        if self.token_weight and self._beside[0] is not None:
            labels, targets = check_token_labels(self._beside[0], tokens, targets)
            self.concept_names_ = concept_names(targets.names, targets.n_concepts)
        return PooledLoss(
            tokens,
            present,
            labels,
            Pool(self.sharpness, self.window, self.top, self.share),
            np.zeros(present.shape[1]),
            self.token_weight,
            self.benign_variance,
            self.temperature,
        )
