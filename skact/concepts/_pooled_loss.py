r"""The loss of separators that are trained through a pool, and how it is minimised.

With the scores :math:`s_i = \langle z_i, v \rangle + b`, and :math:`A(x)` their pool, a positive
sample loses :math:`\log(1 + e^{-A})`, which is not convex where A is. Its linear approximation at
the last v, :math:`\langle q_x, s \rangle` with the gradient :math:`q_x`, lies below A and touches
it there: with it the loss is convex, lies above the true one, and its minimum lowers both. That is
the convex-concave procedure [1]_; the pools of top windows take it, whose maximum has no gradient
to follow. The soft maximum has one, and is minimised directly.

References
----------
.. [1] Yuille, Rangarajan, "The Concave-Convex Procedure", Neural Computation 2003.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from skact.cached import cached_property
from skact.concepts._statistics import balanced_weights, products
from skact.pooling import block_layout, soft_maximum, weighted_top_windows, window_means
from skact.rows import Array, as_floats, offsets_of, segment_sum
from skact.tokens import TokenArray

__all__ = ["Minimum", "Pool", "PooledLoss", "minimum", "unpacked"]

# Convex steps at most, and the relative decrease by one below which no other is taken.
_STEPS, _SMALL = 6, 1e-4
# Of the soft maximum that top windows begin at.
_SHARPNESS = 4.0


def unpacked(flat: Array, n_concepts: int) -> tuple[Array, Array]:
    """Vectors (n_concepts, n_features) and intercepts (n_concepts,), as the solver keeps them."""
    return flat[:-n_concepts].reshape(n_concepts, -1), flat[-n_concepts:]


@dataclass(frozen=True)
class Pool:
    """The soft maximum of window means, or the mean of the largest where there is no sharpness."""

    sharpness: float | None
    window: int
    top: int
    share: float | None

    def largest(self, means: Array, offsets: Array) -> tuple[Array, Array]:
        """Pool the means of windows, and tell how much each counts."""
        if self.sharpness is not None:
            return soft_maximum(means, offsets, self.sharpness)
        return weighted_top_windows(means, offsets, 1, self.top, self.share)

    def inside(self, scores: Array, offsets: Array, labels: Array) -> tuple[Array, Array]:
        """Pool the scores of labelled tokens alone, and tell how much each counts."""
        if self.sharpness is None:
            lowest = np.finfo(scores.dtype).min
            return weighted_top_windows(np.where(labels, scores, lowest), offsets)
        none = scores.dtype.type(-np.inf)
        values, weights = soft_maximum(np.where(labels, scores, none), offsets, self.sharpness)
        shares = segment_sum(labels, offsets) / np.diff(offsets)[:, None]
        return values - np.log(shares) / self.sharpness, weights

    def scores(self, tokens: TokenArray, flat: Array, n_concepts: int) -> Array:
        """Pool samples, (n_samples, n_concepts)."""
        vectors, intercepts = unpacked(flat, n_concepts)
        pooled = np.empty((len(tokens), n_concepts))
        for samples, block in tokens.blocks():
            offsets, *layout = block_layout(tokens, samples)
            scores = products(block, vectors)
            means, cuts, _ = window_means(scores, offsets, self.window, *layout)
            pooled[samples] = self.largest(means, cuts)[0] + intercepts
        return pooled


class Frozen(NamedTuple):
    """What stays as it is in a convex step, for the tokens or windows of a block."""

    counts: Array | None
    tail: Array | None


@dataclass(frozen=True)
class PooledLoss:
    """Loss of all concepts by their vectors and intercepts.

    Parameters
    ----------
    tokens : TokenArray of shape (n_samples, n_features)
        Training tokens.
    present : ndarray of shape (n_samples, n_concepts), dtype bool
        Which sample holds which concept.
    labels : TokenArray of shape (n_samples, n_concepts), dtype bool, or None
        Labels of the tokens, where they are to be learned from.
    pool : Pool
        From scores of tokens to those of samples.
    weight_decay : ndarray of shape (n_concepts,)
        The ridge.
    token_weight, benign_variance, temperature : float
        Of the labelled tokens, of the windows of negative samples, and which of them count.
    times : ndarray of shape (n_samples,), dtype float64, or None
        How often each sample counts; None once.
    """

    tokens: TokenArray
    present: Array
    labels: TokenArray | None
    pool: Pool
    weight_decay: Array
    token_weight: float
    benign_variance: float
    temperature: float
    times: Array | None = None

    @property
    def in_steps(self) -> bool:
        """Whether parts of the loss are frozen, and it is minimised in steps."""
        return self.pool.sharpness is None or self.benign_variance > 0

    @property
    def n_concepts(self) -> int:
        """Number of concepts."""
        return int(self.present.shape[1])

    def rows(self, samples: Array) -> PooledLoss:
        """Loss of some samples alone."""
        tokens, labels = self.tokens[samples], self.labels and self.labels[samples]
        # Read many times, they are gathered once.
        if tokens.may_be_held:
            tokens, labels = tokens.compact(), labels and labels.compact()
        times = None if self.times is None else self.times[samples]
        present = self.present[samples]
        return replace(self, tokens=tokens, present=present, labels=labels, times=times)

    @cached_property
    def _times(self) -> Array:
        """How often each sample counts, a column."""
        times = np.ones(len(self.present), np.int64) if self.times is None else self.times
        return times[:, None]

    @cached_property
    def _weights(self) -> Array:
        n_positive, n_samples = (self._times * self.present).sum(axis=0), self._times.sum()
        negative, positive = balanced_weights(n_positive, n_samples)
        return np.where(self.present, positive, negative) * self._times

    @cached_property
    def _marked(self) -> Array:
        """Which samples have labelled tokens of which concept, (n_samples, n_concepts)."""
        assert self.labels is not None
        return self.labels.max()

    @cached_property
    def _token_weights(self) -> tuple[Array, Array]:
        """Weight of each negative and each positive token; of others nothing is known."""
        assert self.labels is not None
        lengths = self.tokens.lengths * self._times[:, 0]
        unknown = lengths @ (self.present & ~self._marked)
        n_positive = (self._times * self.labels.sum()).sum(axis=0)
        n_known = lengths.sum() - unknown
        negative, positive = balanced_weights(n_positive, n_known)
        return self.token_weight * negative, self.token_weight * positive

    def __call__(self, flat: Array, frozen: list[Frozen] | None = None) -> tuple[float, Array]:
        """Loss and gradient; with some of it frozen, or as it is."""
        vectors, intercepts = unpacked(flat, self.n_concepts)
        decay = self.weight_decay[:, None]
        loss, by_vectors = 0.5 * float(np.vdot(vectors, decay * vectors)), decay * vectors
        by_intercepts = np.zeros(len(intercepts))
        for number, (samples, block) in enumerate(self.tokens.blocks()):
            values = as_floats(block)
            here = None if frozen is None else frozen[number]
            part = self._block(products(values, vectors), intercepts, samples, here)
            loss += part[0]
            by_intercepts += part[1]
            by_vectors += part[2].astype(values.dtype, copy=False).T @ values
        return loss, np.concatenate([by_vectors.ravel(), by_intercepts])

    def freeze(self, flat: Array) -> list[Frozen]:
        """Take what tokens and windows count at these vectors."""
        vectors, _ = unpacked(flat, self.n_concepts)
        frozen = []
        for samples, block in self.tokens.blocks():
            scores = products(block, vectors)
            _, counts, tail, _, _ = self._pooled(scores, samples)
            hard = self.pool.sharpness is None
            frozen.append(Frozen(counts.astype(scores.dtype) if hard else None, tail))
        return frozen

    def _pooled(
        self, scores: Array, samples: slice
    ) -> tuple[Array, Array, Array | None, Array, Any]:
        """Pool a block: values, what each token counts, the tail of windows, and the windows."""
        offsets, *layout = block_layout(self.tokens, samples)
        means, cuts, to_tokens = window_means(scores, offsets, self.pool.window, *layout)
        values, counts = self.pool.largest(means, cuts)
        counts = to_tokens(counts)
        if self.labels is not None:
            marked, labels = self._marked[samples], self.labels[samples].flat()
            rows = np.repeat(marked, np.diff(offsets), axis=0)
            inside, shares = self.pool.inside(scores, offsets, labels | ~rows)
            values = np.where(marked, inside, values)
            counts = np.where(rows, shares, counts)
        tail = None
        if self.benign_variance:
            tail = soft_maximum(means, cuts, 1 / self.temperature)[1]
        return values, counts, tail, means, (cuts, to_tokens)

    def _block(
        self, scores: Array, intercepts: Array, samples: slice, frozen: Frozen | None
    ) -> tuple[float, Array, Array]:
        """Loss of a block, and its derivatives by the intercepts and the scores of tokens."""
        lengths, present = self.tokens.lengths[samples], self.present[samples]
        pooled, counts, tail, means, windows = self._pooled(scores, samples)
        if frozen is not None and frozen.counts is not None:
            linear = segment_sum(frozen.counts * scores, offsets_of(lengths))
            pooled = np.where(present, linear, pooled)
            counts = np.where(np.repeat(present, lengths, axis=0), frozen.counts, counts)
        logits, weight = pooled + intercepts, self._weights[samples]
        loss = float(np.vdot(weight, np.logaddexp(0, np.where(present, -logits, logits))))
        slope = weight * (expit(logits) - present)
        by_intercepts = slope.sum(axis=0)
        counts *= np.repeat(slope.astype(counts.dtype), lengths, axis=0)
        if self.labels is not None:
            part, by_scores = self._of_tokens(scores + intercepts, samples)
            loss += part
            by_intercepts += by_scores.sum(axis=0)
            counts = counts + by_scores
        if tail is not None:
            tail = tail if frozen is None else frozen.tail
            part, by_means = self._of_windows(
                means, windows[0], tail, ~present * self._times[samples]
            )
            loss += part
            counts = counts + windows[1](by_means)
        return loss, by_intercepts, counts

    def _of_tokens(self, logits: Array, samples: slice) -> tuple[float, Array]:
        """Loss of the labelled tokens of a block, and its derivative."""
        assert self.labels is not None
        labels, (negative, positive) = self.labels[samples].flat(), self._token_weights
        unknown = self.present[samples] & ~self._marked[samples]
        weight = np.where(labels, positive, negative)
        lengths = self.tokens.lengths[samples]
        weight[np.repeat(unknown, lengths, axis=0)] = 0
        if self.times is not None:
            weight = weight * np.repeat(self.times[samples], lengths)[:, None]
        loss = float(np.vdot(weight, np.logaddexp(0, np.where(labels, -logits, logits))))
        return loss, weight * (expit(logits) - labels)

    def _of_windows(
        self, means: Array, offsets: Array, tail: Any, negative: Array
    ) -> tuple[float, Array]:
        """Penalty on windows of negative samples that stand out, and its derivative."""
        lengths, n_negative = np.diff(offsets), (~self.present * self._times).sum(axis=0)
        share = self.benign_variance / np.where(n_negative > 0, n_negative, 1)
        above = means - np.repeat(segment_sum(means, offsets) / lengths[:, None], lengths, axis=0)
        weight = tail * np.repeat(negative * share, lengths, axis=0)
        slope = 2 * weight * above
        # The mean of a sample moves with each of its windows.
        back = segment_sum(slope, offsets) / lengths[:, None]
        return float(np.vdot(weight, above**2)), slope - np.repeat(back, lengths, axis=0)


class Minimum(NamedTuple):
    """What was found, in how many iterations, the loss after each step, and what went wrong."""

    flat: Array
    n_iter: int
    curve: Array
    trouble: str | None


def minimum(loss: PooledLoss, start: Array | None, max_iter: int, tol: float) -> Minimum:
    """Minimise by L-BFGS: directly, or in convex steps, each from where the last one ended.

    At zero all tokens tie, and which of them are the largest means nothing: top windows begin at
    the minimum of a soft maximum.

    Parameters
    ----------
    loss : PooledLoss
        The loss.
    start : ndarray of shape (n_concepts * (n_features + 1),) or None
        Vectors and intercepts to begin with; None begins anew.
    max_iter : int
        Most iterations of a step.
    tol : float
        Relative decrease of the loss in one iteration below which a step ends.

    Returns
    -------
    minimum : Minimum
        A local one.
    """
    flat, n_iter = start, 0
    if flat is None:
        flat = np.zeros(loss.n_concepts * (loss.tokens.n_features + 1))
        if loss.pool.sharpness is None:
            soft = replace(loss.pool, sharpness=_SHARPNESS)
            first = _descend(replace(loss, pool=soft, benign_variance=0.0), flat, max_iter, tol)
            flat, n_iter = first.x, int(first.nit)
    curve = [loss(flat)[0]] if loss.in_steps else []
    for _ in range(_STEPS if loss.in_steps else 1):
        result = _descend(loss, flat, max_iter, tol)
        flat, n_iter = result.x, n_iter + int(result.nit)
        curve.append(loss(flat)[0] if loss.in_steps else float(result.fun))
        if len(curve) > 1 and abs(curve[-2] - curve[-1]) <= _SMALL * curve[-2]:
            break
    # A maximum has kinks, at which no step along the gradient leads down.
    failed = result.status != 0 and loss.pool.sharpness is not None
    trouble = "" if result.nit >= max_iter else f": {result.message}" if failed else None
    return Minimum(flat, max(n_iter, 1), np.array(curve), trouble)


def _descend(loss: PooledLoss, start: Array, max_iter: int, tol: float) -> Any:
    """Minimise by L-BFGS, with what is not convex or has no gradient as it is at the start."""
    frozen = loss.freeze(start) if loss.in_steps else None
    return minimize(
        loss,
        start,
        (frozen,),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iter, "ftol": tol, "gtol": 1e-6},
    )
