"""Folds that spread rare concepts, and a choice that equals a search by hand."""

import numpy as np
import pytest
from sklearn import clone
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.pipeline import make_pipeline

from skact import (
    CrossFitTransformer,
    LayerStack,
    SelectLayer,
    TokenArray,
    TokenScaler,
    TopWindows,
)
from skact.auto import _choice
from skact.auto._choice import DETECTORS, METHODS, choose, concept_folds


def test_each_fold_holds_its_share_of_a_rare_concept(rng):
    y = np.zeros((200, 2), np.int64)
    y[:, 0] = rng.random(200) < 0.5
    y[rng.permutation(200)[:5], 1] = 1
    folds = concept_folds(y, ["often", "rare"], None, cv=5, random_state=0)
    assert [y[test, 1].sum() for _, test in folds] == [1] * 5
    assert all(abs(y[test, 0].mean() - 0.5) < 0.15 for _, test in folds)
    # A plain shuffle leaves folds without any.
    order = rng.permutation(200).reshape(5, 40)
    assert min(y[rows, 1].sum() for rows in order) == 0


def test_groups_stay_together(rng):
    y = (rng.random((60, 1)) < 0.4).astype(np.int64)
    groups = np.arange(60) // 3
    for train, test in concept_folds(y, ["c"], groups, cv=3, random_state=0):
        assert not set(groups[train]) & set(groups[test])


@pytest.mark.parametrize(
    ("y", "groups", "message"),
    [
        ([1, 0, 0, 0, 0, 0], None, "at least 2 samples with concept 'c', got 1 of 6"),
        ([1, 1, 1, 1, 1, 0], None, "at least 2 samples without concept 'c', got 1 of 6"),
        ([1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 2, 2], "all samples with concept 'c' are in .* groups"),
    ],
)
def test_what_no_fold_can_judge_is_refused(y, groups, message):
    with pytest.raises(ValueError, match=message):
        concept_folds(np.array(y)[:, None], ["c"], groups, cv=2, random_state=0)


def test_a_concept_without_labelled_tokens_in_a_fold_is_refused(rng):
    y = (rng.random((40, 1)) < 0.5).astype(np.int64)
    located = np.zeros((40, 1), bool)
    located[np.flatnonzero(y)[:1]] = True
    with pytest.raises(ValueError, match=r"no token is labelled with concept 'c'.* does not look"):
        concept_folds(y, ["c"], None, cv=2, random_state=0, located=located)


@pytest.fixture
def problem(rng, monkeypatch):
    """Layer 1 tells the concepts, layer 0 does not."""
    monkeypatch.setattr(_choice, "METHODS", METHODS[:2])
    monkeypatch.setattr(_choice, "DETECTORS", DETECTORS[:1] + DETECTORS[-1:])
    y = (rng.random((80, 2)) < [0.5, 0.3]).astype(np.int64)
    lengths = rng.integers(2, 6, 80)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    noise = TokenArray(rng.normal(size=(offsets[-1], 4)), offsets)
    at = rng.random(offsets[-1]) < 0.5
    at[offsets[:-1]] = True
    labels = (np.repeat(y, lengths, axis=0) * at[:, None]).astype(bool)
    told = noise.with_values(noise.flat() + labels @ (3 * np.eye(4)[:2]))
    return LayerStack({0: noise, 1: told}), noise.with_values(labels, ["a", "b"]), y


@pytest.mark.filterwarnings("ignore:the scores of")
def test_it_is_the_search_by_hand(problem, routing):
    layers, labels, y = problem
    folds = concept_folds(y, ["a", "b"], None, cv=4, random_state=0)
    choice = choose(layers, labels, y, folds, seed=0, n_jobs=None)
    tried, seen = [{}, {}], {}
    for block in (0, 1):
        for m, method in enumerate(_choice.METHODS):
            head = make_pipeline(SelectLayer(block), TokenScaler(), method)
            crossed = CrossFitTransformer(head, cv=folds)
            scores = seen[block, m] = crossed.fit_transform(layers, y, token_labels=labels)
            for d, detector in enumerate(_choice.DETECTORS):
                found = [
                    clone(detector).fit(scores[train], y[train]).predict(scores[test])
                    for train, test in folds
                ]
                for c in (0, 1):
                    tried[c][block, m, d] = np.mean(
                        [f1_score(y[t, c], f[:, c]) for (_, t), f in zip(folds, found, strict=True)]
                    )
    for c, row in enumerate(choice.results):
        block, m, d = max(tried[c], key=tried[c].get)
        assert choice.search.best_score_[c] == pytest.approx(tried[c][block, m, d])
        assert row["layer"] == block == 1
        pool = choice.detectors()[c][1].pool(seen[block, m])[:, c]
        assert row["auroc"] == pytest.approx(roc_auc_score(y[:, c], pool))
        assert row["floor"] == pytest.approx(2 * y[:, c].mean() / (1 + y[:, c].mean()))
        assert row["gain"] == pytest.approx(row["f1"] - row["floor"])
        assert row["gain_low"] < row["gain"] < row["gain_high"]
        assert (row["n_positive"], row["n_known"]) == (y[:, c].sum(), 80)


@pytest.mark.filterwarnings("ignore:the scores of")
def test_with_labels_of_samples_a_separator_through_a_pool_wins_unless_another_is_better(
    problem, monkeypatch
):
    layers, labels, y = problem
    monkeypatch.setattr(_choice, "METHODS", METHODS[:3])
    folds = concept_folds(y, ["a", "b"], None, cv=4, random_state=0)
    weak = labels.with_values(np.repeat(y, labels.lengths, axis=0).astype(bool), ["a", "b"])
    given = layers, weak, y, folds
    best = choose(*given, seed=0, n_jobs=None).search
    chosen = choose(*given, located=False, seed=0, n_jobs=None)
    found, kept = chosen.search.cv_results_, 0
    through_pool = [params["head__layer"] % 3 == 2 for params in found["params"]]
    for c, name in enumerate("ab"):
        folds_of_best = [found[f"split{k}_test_{name}"][best.best_index_[c]] for k in range(4)]
        error = np.std(folds_of_best, ddof=1) / 2
        mean = found[f"mean_test_{name}"]
        first = mean[through_pool].max()
        is_first = first >= best.best_score_[c] - error
        kept += is_first
        assert chosen.search.best_score_[c] == (first if is_first else best.best_score_[c])
        assert through_pool[chosen.search.best_index_[c]] == is_first
        assert chosen.results[c]["method"].startswith("MaxSeparator") == is_first
    assert kept
    assert chosen.search.get_params()["refit"] is True  # or no file could keep it


@pytest.mark.parametrize(
    ("std", "names"), [(0.0, ["far", "far"]), (0.1, ["far", "near"]), (0.3, ["near", "near"])]
)
def test_a_standard_error_decides_between_methods(std, names):
    """Of three candidates the first is the best, and the others are through a pool."""
    results = {
        "params": [{"head__layer": 0}, {"head__layer": 2}, {"head__layer": 3}],
        "mean_test_a": np.array([0.9, 0.75, 0.75]),
        "mean_test_a_test_a": np.array([0.9, 0.8, 0.85]),
        "std_test_a": np.array([std, 9, 9]),
        "std_test_a_test_a": np.array([std, 9, 9]),
    }
    found = _choice._unless_better(results, ["a", "a_test_a"], 3)
    places = zip(names, (1, 2), strict=True)
    assert found == [0 if name == "far" else place for name, place in places]


def test_windows_longer_than_all_samples_are_left_out(problem, monkeypatch):
    layers, labels, y = problem
    monkeypatch.setattr(
        _choice, "DETECTORS", (*DETECTORS[:1], TopWindows(None, window=9, cut="f1"))
    )
    folds = concept_folds(y, ["a", "b"], None, cv=2, random_state=0)
    choice = choose(layers, labels, y, folds, seed=0, n_jobs=None)
    assert {row["pool"] for row in choice.results} == {"max"}


def test_a_choice_has_few_candidates():
    pools = [_choice._pool(detector) for detector in DETECTORS]
    assert pools == ["max", "max of windows of 4", "top 10%", "top 50%", "mean"]
    assert {detector.cut for detector in DETECTORS} == {"expected_f1"}
