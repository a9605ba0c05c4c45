"""Folds from all that a user may say about them, and groups that stay together in them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    LeaveOneGroupOut,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline

from skact import (
    ConceptSearchCV,
    CrossFitTransformer,
    MeanPrototype,
    SuperActivator,
    TokenArray,
)
from skact.base import TokensOutMixin
from skact.model_selection._folds import make_folds

N = 48
GROUPS = np.repeat(np.arange(12), 4)[np.random.default_rng(5).permutation(N)]
Y = np.arange(N) % 2
GRID = {"superactivator__delta": [0.3, 0.7]}


@pytest.fixture(scope="module")
def tokens():
    """The group of a sample is its first feature."""
    rng = np.random.default_rng(0)
    samples = zip(GROUPS, Y, strict=True)
    rows = [np.c_[np.full(3, g), rng.normal(size=(3, 3)) + v] for g, v in samples]
    return TokenArray.from_list(rows)


class SeenGroups(TokensOutMixin, BaseEstimator):
    """Scores a token by whether its group was among the training tokens."""

    def fit(self, X, y=None):
        self.seen_ = set(X.flat()[:, 0].tolist())
        return self

    def transform(self, X):
        return X.map(lambda rows: np.isin(rows[:, :1], list(self.seen_)).astype(np.float32))


def share_groups(folds):
    return [bool(set(GROUPS[train]) & set(GROUPS[test])) for train, test in folds]


@pytest.mark.parametrize("y", [Y, np.eye(2, dtype=int)[Y], None], ids=["labels", "matrix", "none"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_int_keeps_groups_together_where_there_are_some(y, shuffle):
    options = {"shuffle": shuffle, "random_state": 0}
    grouped = make_folds(4, y, GROUPS, N, **options)
    assert not any(share_groups(grouped))
    assert sorted(np.concatenate([test for _, test in grouped])) == list(range(N))
    plain = make_folds(4, y, None, N, **options)
    assert all(share_groups(plain))  # the control
    splitter = StratifiedKFold if y is Y else KFold
    expected = splitter(4, shuffle=shuffle, random_state=0 if shuffle else None)
    for (_, test), (_, wanted) in zip(plain, expected.split(np.zeros(N), y), strict=True):
        np.testing.assert_array_equal(test, wanted)


@pytest.mark.parametrize("cv", [4, GroupKFold(4), LeaveOneGroupOut()])
@pytest.mark.parametrize("as_given", [list, np.array, pd.Series])
def test_a_cross_fit_scores_no_group_by_a_clone_that_saw_it(tokens, cv, as_given):
    crossed = CrossFitTransformer(SeenGroups(), cv=cv, random_state=0)
    assert not crossed.fit_transform(tokens, Y, groups=as_given(GROUPS)).flat().any()
    assert crossed.transform(tokens).flat().all()
    leaking = CrossFitTransformer(SeenGroups(), cv=KFold(4))
    assert leaking.fit_transform(tokens, Y).flat().any()


class NeedsGroups(SeenGroups):
    """A method with a cross-validation of its own."""

    __metadata_request__fit = {"groups": True}

    def fit(self, X, y=None, groups=None):
        assert len(groups) == len(X)
        assert set(groups) == set(X.flat()[:, 0].tolist())
        return super().fit(X, y)


def test_groups_go_on_to_a_method_that_asks_for_them(tokens):
    crossed = CrossFitTransformer(NeedsGroups(), cv=3, random_state=0)
    assert not crossed.fit_transform(tokens, Y, groups=GROUPS).flat().any()
    crossed.fit(tokens, Y, groups=GROUPS)


def routed(cv):
    return make_pipeline(CrossFitTransformer(MeanPrototype(), cv=cv), SuperActivator())


def test_groups_reach_the_cross_fit_in_a_search_of_scikit_learn(tokens, routing, monkeypatch):
    seen = []
    original = CrossFitTransformer.fit_transform

    def watched(self, X, y=None, token_labels=None, *, groups=None):
        seen.append((len(X), set(groups) == set(X.flat()[:, 0].tolist())))
        return original(self, X, y, token_labels, groups=groups)

    monkeypatch.setattr(CrossFitTransformer, "fit_transform", watched)
    search = GridSearchCV(routed(GroupKFold(3)), GRID, cv=GroupKFold(4), error_score="raise")
    search.fit(tokens, Y, groups=GROUPS)
    assert seen == [(36, True)] * 8 + [(48, True)]
    nested = cross_val_score(
        search, tokens, Y, cv=GroupKFold(3), params={"groups": GROUPS}, error_score="raise"
    )
    assert nested.shape == (3,)


@pytest.mark.parametrize("cv", [GroupKFold(3), GroupShuffleSplit(3, random_state=0), 3])
def test_a_search_scores_groups_that_it_did_not_fit_on(tokens, routing, cv):
    pipe = routed(GroupKFold(3))
    search = ConceptSearchCV(pipe, GRID, cv=cv).fit(tokens, Y, groups=GROUPS)
    folds = make_folds(cv, Y, GROUPS, N)
    assert not any(share_groups(folds))
    for f, (train, test) in enumerate(folds):
        for i, params in enumerate(search.cv_results_["params"]):
            fitted = pipe.set_params(**params).fit(tokens[train], Y[train], groups=GROUPS[train])
            found = fitted.predict(tokens[test])
            hits = (found & Y[test]).sum()
            f1 = 2 * hits / (found.sum() + Y[test].sum())
            assert search.cv_results_[f"split{f}_test_1"][i] == pytest.approx(f1)


def test_a_search_hands_groups_on_without_routing(tokens):
    search = ConceptSearchCV(routed(GroupKFold(3)), GRID, cv=GroupKFold(4))
    assert search.fit(tokens, Y, groups=GROUPS).n_splits_ == 4
    is_cal = np.isin(GROUPS, [0, 5, 7])
    assert search.set_params(cv=is_cal).fit(tokens, Y, groups=GROUPS).n_splits_ == 1


def listed(y=Y):
    return list(StratifiedKFold(4).split(np.zeros(N), y))


def test_folds_by_number_travel_through_an_outer_cross_validation(tokens, routing):
    """The way out of a list of splits, which knows the rows of one data set only."""
    splits = listed()
    folds = np.empty(N, int)
    for k, (_, test) in enumerate(splits):
        folds[test] = k
    one = CrossFitTransformer(MeanPrototype(), cv=splits).fit_transform(tokens, Y)
    other = CrossFitTransformer(MeanPrototype(), cv=LeaveOneGroupOut())
    other = other.fit_transform(tokens, Y, groups=folds)
    np.testing.assert_array_equal(one.flat(), other.flat())

    def search(cv):
        return GridSearchCV(routed(cv), GRID, cv=3, error_score="raise")

    with pytest.raises(ValueError, match=r"speaks of sample 47, but X has 32 .*LeaveOneGroupOut"):
        search(splits).fit(tokens, Y)
    outer = GridSearchCV(routed(LeaveOneGroupOut()), GRID, cv=GroupKFold(3), error_score="raise")
    outer.fit(tokens, Y, groups=folds)


MASK = np.arange(N) < 12


@pytest.mark.parametrize("build", ["cross-fit", "search"])
@pytest.mark.parametrize(
    ("cv", "groups", "match"),
    [
        (GroupKFold(3), None, r"cv=GroupKFold\(.*needs groups.*enable_metadata_routing"),
        (LeaveOneGroupOut(), None, "needs groups"),
        (3, GROUPS[:-1], "groups must have one entry per sample: got 47 for 48"),
        (GroupKFold(3), [*GROUPS, 0], "groups must have one entry per sample: got 49"),
        (True, None, "'cv' parameter.*Got True"),
        (False, None, "'cv' parameter.*Got False"),
        (1, None, "'cv' parameter"),
        (MASK.tolist(), None, r"its item 0 is True.*numpy array of bools"),
        (pd.Series(MASK), None, r"its item 0 is True"),
        ([0, 1, 2], None, "its item 0 is 0"),
        ([(range(24), range(24, 48)), "ab"], None, "its item 1 is ab"),
        ([(range(24),)], None, "its item 0"),
        ([([0.5], [1.5])], None, "its item 0"),
        ([(range(30), range(30, 49))], None, "speaks of sample 48, but X has 48"),
        ([(range(90), range(10))], None, "speaks of sample 89"),
        ([], None, "cv lists no splits"),
    ],
)
def test_folds_that_are_none(tokens, build, cv, groups, match):
    if build == "cross-fit":
        with pytest.raises(ValueError, match=match):
            CrossFitTransformer(MeanPrototype(), cv=cv).fit_transform(tokens, Y, groups=groups)
    else:
        search = ConceptSearchCV(routed(3), GRID, cv=cv)
        with pytest.raises(ValueError, match=match):
            search.fit(tokens, Y, groups=groups)


def test_a_calibration_split_is_no_cross_fit(tokens):
    with pytest.raises(ValueError, match="its item 0 is True"):
        CrossFitTransformer(MeanPrototype(), cv=MASK).fit_transform(tokens, Y)


def test_masks_of_rows_are_splits():
    pairs = [(~MASK, MASK), (MASK, ~MASK)]
    folds = make_folds(pairs, Y, None, N)
    assert [test.tolist() for _, test in folds] == [list(range(12)), list(range(12, N))]


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "string"])
@pytest.mark.parametrize("build", ["cross-fit", "search"])
def test_holes_in_y_are_named_by_sample(tokens, build, dtype):
    y = pd.Series(Y).astype("boolean" if dtype == "boolean" else "Int64").astype(dtype)
    y[5] = pd.NA
    crossed = CrossFitTransformer(MeanPrototype(), cv=3)
    fit = crossed.fit_transform if build == "cross-fit" else ConceptSearchCV(routed(3), GRID).fit
    with pytest.raises(ValueError, match=r"no value at sample 5.*1 of 48 in all"):
        fit(tokens, y)
