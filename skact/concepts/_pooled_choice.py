"""The ridge of each concept, by cross-validation over samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skact.concepts._pooled_loss import PooledLoss, minimum
from skact.rows import Array
from skact.tail import best_cut, concept_f1
from skact.targets import rarest_concepts

__all__ = ["DECAYS", "choose_decays", "deal_folds"]

#: What is chosen from; the largest first, from whose minimum the next one starts.
DECAYS = (1e-1, 1e-2, 1e-3, 1e-4)
# How much sooner a fit ends that only ranks samples.
_ROUGH = 10


def deal_folds(present: Array, groups: Array | None, n_folds: int, names: Array) -> Array:
    """Deal samples into folds, so that each has its part of every concept.

    Samples, or groups, are sorted by the rarest concept that they hold and dealt like cards.

    Parameters
    ----------
    present : ndarray of shape (n_samples, n_concepts), dtype bool
        Which sample holds which concept.
    groups : ndarray of shape (n_samples,) or None
        Samples that belong together.
    n_folds : int
        Number of folds.
    names : ndarray of shape (n_concepts,)
        Names of the concepts.

    Returns
    -------
    folds : ndarray of shape (n_samples,), dtype int64
        The fold that each sample is tested in.

    Raises
    ------
    ValueError
        If there are fewer samples (or groups) than folds, or less than two with a concept or
        without it.
    """
    what = "samples" if groups is None else "groups"
    units = np.arange(len(present)) if groups is None else np.unique(groups, return_inverse=True)[1]
    with_it, without = np.zeros((2, units.max() + 1, present.shape[1]), bool)
    np.logical_or.at(with_it, units, present)
    np.logical_or.at(without, units, ~present)
    if len(with_it) < n_folds:
        raise ValueError(f'weight_decay="auto" with cv={n_folds} got only {len(with_it)} {what}.')
    for word, held in (("with", with_it), ("without", without)):
        few = np.flatnonzero(held.sum(axis=0) < 2)
        if len(few):
            raise ValueError(
                f'weight_decay="auto" needs two {what} {word} each concept, and there is one '
                f"{word} {names[few[0]]!r}; give a number."
            )
    folds = np.empty(len(with_it), np.int64)
    folds[np.argsort(rarest_concepts(with_it), kind="stable")] = np.arange(len(with_it)) % n_folds
    return folds[units]


def choose_decays(loss: PooledLoss, folds: Array, max_iter: int, tol: float) -> Array:
    """Choose for each concept the ridge with the best F1 of out-of-fold scores.

    Parameters
    ----------
    loss : PooledLoss
        That of all samples; its ridge is not read.
    folds : ndarray of shape (n_samples,), dtype int64
        The fold that each sample is tested in.
    max_iter, tol : int, float
        As in :func:`minimum`; here ten times ``tol`` is enough.

    Returns
    -------
    weight_decay : ndarray of shape (n_concepts,), dtype float64
        Of equally good ones the largest.
    """
    scores = np.empty((len(DECAYS), *loss.present.shape))
    for fold in range(folds.max() + 1):
        test, part = np.flatnonzero(folds == fold), loss.rows(np.flatnonzero(folds != fold))
        flat = None
        for number, decay in enumerate(DECAYS):
            same = replace(part, weight_decay=np.full(loss.n_concepts, decay))
            flat = minimum(same, flat, max_iter, _ROUGH * tol).flat
            scores[number, test] = loss.pool.scores(loss.tokens[test], flat, loss.n_concepts)
    cuts = [best_cut(one, loss.present, loss.times) for one in scores]
    f1 = [
        concept_f1(loss.present, one >= cut, sample_weight=loss.times)
        for one, cut in zip(scores, cuts, strict=True)
    ]
    return np.array(DECAYS)[np.argmax(f1, axis=0)]
