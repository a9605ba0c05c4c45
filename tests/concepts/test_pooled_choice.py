"""Folds hold their part of every concept, and the ridge is the one with the best F1 out of fold."""

import numpy as np
import pytest

from skact import TokenArray
from skact.concepts._pooled_choice import DECAYS, choose_decays, deal_folds
from skact.concepts._pooled_loss import Pool, PooledLoss, minimum

NAMES = np.array(["a", "b", "c"], object)


def test_every_fold_has_its_part_of_every_concept(rng):
    present = np.zeros((300, 3), bool)
    present[:150, 0], present[140:180, 1], present[:10, 2] = True, True, True
    folds = deal_folds(present, None, 5, NAMES)
    assert np.bincount(folds).tolist() == [60] * 5
    for column in present.T:
        parts = np.bincount(folds[column], minlength=5)
        assert parts.max() - parts.min() <= 3
    # Control: cut in the order of the samples, a fold has nearly all of the rare one.
    assert np.bincount(np.repeat(np.arange(5), 60)[present[:, 2]]).max() == 10
    np.testing.assert_array_equal(folds, deal_folds(present, None, 5, NAMES))


def test_groups_stay_together(rng):
    present, groups = rng.random((200, 3)) < 0.4, rng.permutation(np.arange(200) // 4).astype(str)
    folds = deal_folds(present, groups, 4, NAMES)
    assert all(len(set(folds[groups == group])) == 1 for group in groups)
    assert set(folds) == set(range(4))


def test_concepts_whose_positives_share_a_fold_are_left_at_zero(rng):
    """A training part without a positive is no error: nothing is learned of the concept there."""
    X, present = TokenArray.from_list(rng.normal(size=(40, 3, 4))), np.zeros((40, 2), bool)
    present[:2], present[:20, 1] = True, True
    loss = PooledLoss(X, present, None, Pool(4.0, 1, 1, None), np.zeros(2), 0.0, 0.0, 1.0)
    folds = np.repeat(np.arange(2), 20)
    assert set(choose_decays(loss, folds, 100, 1e-5)) <= set(DECAYS)


def test_the_choice_is_the_best_f1_out_of_fold(rng):
    y = np.c_[rng.random(120) < 0.3, rng.random(120) < 0.5]
    samples = [rng.normal(size=(4, 30)) * 0.3 for _ in y]
    for tokens, row in zip(samples, y, strict=True):
        tokens[1, :2] += 0.9 * row
    X = TokenArray.from_list(samples)
    loss = PooledLoss(X, y, None, Pool(4.0, 1, 1, None), np.zeros(2), 0.0, 0.0, 1.0)
    folds = deal_folds(y, None, 3, NAMES)
    chosen = choose_decays(loss, folds, 500, 1e-8)
    best = {0: [], 1: []}
    for decay in DECAYS:
        pooled = np.empty(y.shape)
        for fold in range(3):
            rows = np.flatnonzero(folds != fold)
            same = PooledLoss(X[rows], y[rows], None, loss.pool, np.full(2, decay), 0.0, 0.0, 1.0)
            flat = minimum(same, None, 500, 1e-9).flat
            pooled[folds == fold] = loss.pool.scores(X[folds == fold], flat, 2)
        for c in range(2):
            found = pooled[:, c, None] >= pooled[:, c]  # a column per cut
            right = (found & y[:, c, None]).sum(axis=0)
            best[c].append(max(2 * right / (found.sum(axis=0) + y[:, c].sum())))
    for c in range(2):
        at = DECAYS.index(chosen[c])
        assert best[c][at] >= max(best[c]) - 0.01
    assert max(max(f1) - min(f1) for f1 in best.values()) > 0.02


@pytest.mark.parametrize(
    ("present", "groups", "message"),
    [
        (np.eye(4, 3, dtype=bool), None, "cv=5 got only 4 samples"),
        (np.eye(9, 3, dtype=bool), None, "two samples with each concept, and.* one with 'a'"),
        (np.arange(9)[:, None] % 2 == [0, 0, 1], np.arange(9) % 3, "cv=5 got only 3 groups"),
        (~np.eye(9, 3, dtype=bool), None, "two samples without each concept.* one without 'a'"),
    ],
)
def test_too_little_to_choose_by_is_named(present, groups, message):
    with pytest.raises(ValueError, match=message):
        deal_folds(present, groups, 5, NAMES)
