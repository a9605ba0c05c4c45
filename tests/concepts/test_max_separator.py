import numpy as np
import pytest
import sklearn
from scipy.optimize import approx_fprime
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from skact import LinearSeparator, MaxSeparator, TokenArray, TokenScaler
from skact.concepts._pooled_choice import deal_folds
from skact.pooling import top_windows


@pytest.fixture
def problem(rng):
    """Two concepts: a sample holds one if a single token of it lies far along its direction."""
    y = rng.random((150, 2)) < 0.4
    y[:2] = [[True, False], [False, True]]
    samples = []
    for row in y:
        tokens = rng.normal(size=(rng.integers(2, 12), 6))
        for c in np.flatnonzero(row):
            tokens[rng.integers(len(tokens)), c] += 4.0
        samples.append(tokens)
    return TokenArray.from_list(samples), y.astype(int)


def slow_loss(method, X, y, flat):
    """The formula of the docstring, sample by sample."""
    n_concepts, n_features = method.concept_vectors_.shape
    vectors = flat[:-n_concepts].reshape(n_concepts, n_features)
    total = 0.5 * method.weight_decay * (vectors**2).sum()
    for c in range(n_concepts):
        for tokens, holds in zip(X, y[:, c], strict=True):
            weight = 0.5 / (y[:, c] == holds).sum()
            powers = [np.exp(method.sharpness * (z @ vectors[c])) for z in tokens]
            pooled = np.log(np.mean(powers)) / method.sharpness
            sign = 1 if holds else -1
            total += weight * np.log1p(np.exp(-sign * (pooled + flat[c - n_concepts])))
    return total


@pytest.mark.parametrize("sharpness", [0.5, 4.0])
def test_gradient_of_the_slow_loss_vanishes_at_the_result(problem, sharpness):
    X, y = problem
    method = MaxSeparator(sharpness, weight_decay=0.02, tol=1e-12).fit(X, y)
    found = np.r_[method.concept_vectors_.ravel(), method.intercepts_]

    def slope(flat):
        return np.abs(approx_fprime(flat, lambda f: slow_loss(method, X, y, f), 1e-6)).max()

    assert slope(found) < 1e-3
    assert slope(0.8 * found) > 1e-2
    assert slow_loss(method, X, y, found) < 0.9 * slow_loss(method, X, y, np.zeros(len(found)))


def test_single_tokens_make_it_logistic_regression(rng):
    X = rng.normal(size=(120, 4))
    y = X[:, 0] + 0.5 * rng.normal(size=120) > 0.6
    method = MaxSeparator(weight_decay=0.01, tol=1e-12).fit(X, y)
    # scikit-learn minimises C * sum of weighted losses + |w|^2 / 2, with weights of mean 1.
    expected = LogisticRegression(C=1 / (0.01 * 120), class_weight="balanced", tol=1e-10).fit(X, y)
    np.testing.assert_allclose(method.concept_vectors_, expected.coef_, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(method.intercepts_, expected.intercept_, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(method.transform(X), X @ method.concept_vectors_.T, rtol=1e-6)


def test_it_finds_the_telling_token_that_labels_of_all_tokens_drown(problem):
    X, y = problem
    train, test = slice(0, 100), slice(100, 150)

    def areas(method):
        scores = method.fit(X[train], y[train]).transform(X[test]).max()
        return roc_auc_score(y[test], scores, average=None)

    ours, drowned = areas(MaxSeparator()), areas(LinearSeparator(weight_decay=0.01))
    assert (ours > 0.9).all()
    assert ours.mean() > drowned.mean() + 0.02


def test_neither_order_nor_repetition_of_tokens_matters(problem):
    X, y = problem
    plain = MaxSeparator().fit(X, y).concept_vectors_
    for change in (lambda tokens: tokens[::-1], lambda tokens: np.repeat(tokens, 3, axis=0)):
        other = MaxSeparator().fit([change(tokens) for tokens in X], y).concept_vectors_
        np.testing.assert_allclose(other, plain, atol=1e-2)
    doubled = [np.r_[tokens, tokens[:1]] for tokens in X]
    assert np.abs(MaxSeparator().fit(doubled, y).concept_vectors_ - plain).max() > 0.02


def test_the_defaults_stay_what_they_were(problem):
    method = MaxSeparator().fit(*problem)
    expected = [
        [4.217852, 0.056257, -0.64683, -0.472432, -0.12403, -0.484729],
        [-0.349593, 5.534924, 1.035691, -0.922813, 0.218222, 0.55877],
    ]
    np.testing.assert_allclose(method.concept_vectors_, expected, atol=1e-4)
    np.testing.assert_allclose(method.intercepts_, [-9.550263, -14.179515], atol=1e-4)
    assert method.loss_curve_.shape == (1,)
    assert method.weight_decay_.tolist() == [1e-3, 1e-3]


def marked(X, y, margin=2.5):
    """Labels of the tokens that lie far along the direction of a concept that is there."""
    present = np.repeat(y.astype(bool), X.lengths, axis=0)
    labels = (X.flat()[:, :2] > margin) & present
    return X.with_values(labels)


def test_labels_of_tokens_are_read_with_a_weight_alone(problem):
    X, y = problem
    plain, labels = MaxSeparator().fit(X, y).concept_vectors_, marked(X, y)
    unread = MaxSeparator().fit(X, y, token_labels=labels).concept_vectors_
    np.testing.assert_array_equal(unread, plain)
    none = MaxSeparator(token_weight=1.0).fit(X, y).concept_vectors_
    np.testing.assert_array_equal(none, plain)
    read = MaxSeparator(token_weight=1.0).fit(X, y, token_labels=labels).concept_vectors_
    assert np.abs(read - plain).max() > 0.1
    named = TokenArray(labels.values, labels.offsets, feature_names=["cat", "dog"])
    method = MaxSeparator(token_weight=1.0).fit(X, y, token_labels=named)
    assert method.concept_names_.tolist() == ["cat", "dog"]


@pytest.mark.parametrize("sharpness", [4.0, None])
def test_labels_of_tokens_that_outweigh_all_make_it_logistic_regression_of_tokens(
    problem, sharpness
):
    X, y = problem
    labels = marked(X, y)
    both = (y == 0) | labels.max()  # of the tokens of other samples nothing is known
    params = {"sharpness": sharpness, "token_weight": 1e5, "weight_decay": 1e3, "tol": 1e-13}
    vectors = MaxSeparator(**params).fit(X, y, token_labels=labels).concept_vectors_
    for c in range(2):
        rows = np.repeat(both[:, c], X.lengths)
        tokens, truth = X.flat()[rows], labels.flat()[rows, c]
        # scikit-learn minimises C * sum of weighted losses + |w|^2 / 2, with weights of mean 1.
        expected = LogisticRegression(
            C=1e5 / (1e3 * len(tokens)), class_weight="balanced", tol=1e-10, max_iter=1000
        )
        expected.fit(tokens, truth)
        np.testing.assert_allclose(vectors[c], expected.coef_[0], rtol=2e-2, atol=2e-2)


def test_a_few_labels_of_tokens_show_where_to_look(rng):
    """A token that goes with the concept, but is none of it, is not learned where some say so."""
    y = np.arange(200) % 2
    samples, labels = [], []
    for holds in y:
        tokens = rng.normal(size=(6, 8))
        tokens[0, 0] += 3.0 * holds
        tokens[1, 1] += 5.0 * (rng.random() < (0.95 if holds else 0.1))
        samples.append(tokens)
        labels.append(np.arange(6)[:, None] == np.where(holds, 0, -1))
    X = TokenArray.from_list(samples)
    without = MaxSeparator().fit(X, y).concept_vectors_[0]
    told = MaxSeparator(token_weight=0.3).fit(X, y, token_labels=labels).concept_vectors_[0]
    assert without[1] > 0.5 * without[0]
    assert told[1] < 0.2 * told[0]


def test_it_reads_the_maximum_that_detectors_read(problem):
    X, y = problem
    method = MaxSeparator(None, weight_decay=0.01).fit(X, y)
    assert 2 <= len(method.loss_curve_) <= 7
    logits = method.transform(X).max() + method.intercepts_
    weight = np.where(y, 0.5 / y.sum(axis=0), 0.5 / (1 - y).sum(axis=0))
    loss = (weight * np.logaddexp(0, np.where(y, -logits, logits))).sum()
    loss += 0.005 * (method.concept_vectors_**2).sum()
    assert loss == pytest.approx(method.loss_curve_[-1], rel=1e-5)
    # A sharp soft maximum comes near it; the mean is far.
    sharp = MaxSeparator(100.0, weight_decay=0.01).fit(X, y).concept_vectors_
    mean = MaxSeparator(None, share=1.0, weight_decay=0.01).fit(X, y).concept_vectors_
    away = [np.abs(other - method.concept_vectors_).max() for other in (sharp, mean)]
    assert away[0] < 0.5 * away[1]


def test_the_curve_begins_with_the_loss_before_the_first_step(problem):
    """Top windows begin at the minimum of a soft maximum, sharpness 4."""
    X, y = problem
    curve = MaxSeparator(None, weight_decay=0.01).fit(X, y).loss_curve_
    start = MaxSeparator(4.0, weight_decay=0.01).fit(X, y)
    logits = start.transform(X).max() + start.intercepts_
    weight = np.where(y, 0.5 / y.sum(axis=0), 0.5 / (1 - y).sum(axis=0))
    loss = (weight * np.logaddexp(0, np.where(y, -logits, logits))).sum()
    loss += 0.005 * (start.concept_vectors_**2).sum()
    assert curve[0] == pytest.approx(loss, rel=1e-5)
    assert curve[1] < curve[0] * (1 - 1e-3)


@pytest.mark.parametrize("params", [{"window": 3}, {"sharpness": None, "window": 3, "top": 2}])
def test_windows_find_what_is_spread_over_neighbours(rng, params):
    """Weak evidence in four tokens side by side, against strong noise of single tokens."""
    y = np.arange(240) % 2
    samples = []
    for holds in y:
        tokens = rng.normal(size=(20, 4))
        tokens[rng.integers(20), 0] += 3.0
        start = rng.integers(17)
        tokens[start : start + 4, 0] += 1.6 * holds
        samples.append(tokens)
    X, train, test = TokenArray.from_list(samples), slice(0, 160), slice(160, 240)

    def area(method, window):
        scores = method.fit(X[train], y[train]).transform(X[test])
        pooled = top_windows(scores.flat(), np.arange(0, 1601, 20), window, params.get("top", 1))
        return roc_auc_score(y[test], pooled)

    assert area(MaxSeparator(**params), 3) > area(MaxSeparator(), 1) + 0.05


def test_squares_of_patches_are_windows_of_grids(rng):
    y, patches = np.arange(40) % 2, rng.normal(size=(40, 12, 3))
    grids = TokenArray.from_list(patches, shapes=np.tile([3, 4], (40, 1)))
    runs = TokenArray.from_list(patches)
    params = {"window": 2, "weight_decay": 0.01}
    one, other = (MaxSeparator(**params).fit(X, y).concept_vectors_ for X in (grids, runs))
    assert np.abs(one - other).max() > 1e-3
    corners = [(r, c) for r in (0, 1) for c in (0, 1, 2)]
    squares = patches.reshape(40, 3, 4, 3)
    means = np.stack([squares[:, r : r + 2, c : c + 2].mean(axis=(1, 2)) for r, c in corners], 1)
    slow = MaxSeparator(weight_decay=0.01).fit(means, y).concept_vectors_
    np.testing.assert_allclose(one, slow, atol=1e-3)


def test_a_penalty_on_benign_windows_evens_them_out(problem):
    X, y = problem

    def spread(method):
        scores = method.fit(X, y).transform(X)
        above = scores.max() - scores.mean()
        return [(above[y[:, c] == 0, c] ** 2).mean() for c in range(2)]

    assert np.all(
        np.array(spread(MaxSeparator(benign_variance=0.1))) < 0.7 * np.array(spread(MaxSeparator()))
    )


def test_auto_gives_each_concept_a_ridge_of_its_own(problem):
    X, y = problem
    method = MaxSeparator(weight_decay="auto", cv=3).fit(X, y)
    again = MaxSeparator(weight_decay="auto", cv=3).fit(X, y)
    np.testing.assert_array_equal(method.concept_vectors_, again.concept_vectors_)
    assert set(method.weight_decay_) <= {0.1, 0.01, 0.001, 0.0001}
    for c in range(2):
        fixed = MaxSeparator(weight_decay=method.weight_decay_[c]).fit(X, y[:, [c]])
        np.testing.assert_allclose(
            fixed.concept_vectors_[0], method.concept_vectors_[c], rtol=0.1, atol=0.1
        )


def test_groups_reach_the_folds_through_a_pipeline(problem, routing, monkeypatch):
    X, y = problem
    seen = []

    def deal(present, groups, *rest):
        seen.append(groups)
        return deal_folds(present, groups, *rest)

    monkeypatch.setattr("skact.concepts._max_separator.deal_folds", deal)
    groups = np.arange(len(X)) // 3
    pipe = make_pipeline(TokenScaler(), MaxSeparator(weight_decay="auto", cv=2))
    pipe.fit(X, y, groups=groups)
    np.testing.assert_array_equal(seen[0], groups)
    make_pipeline(MaxSeparator(weight_decay="auto", cv=2)).fit(X, y)
    assert seen[1] is None


def test_nothing_of_the_fit_is_kept(problem):
    X, y = problem
    method = MaxSeparator(token_weight=1.0).fit(X, y, token_labels=marked(X, y), groups=y[:, 0])
    held = {name for name, value in vars(method).items() if not name.endswith("_")}
    assert held == {*method.get_params(), "_known", "_labels"}


def test_blocks_change_nothing(problem):
    X, y = problem
    whole = MaxSeparator(weight_decay=0.02).fit(X, y).concept_vectors_
    with sklearn.config_context(working_memory=0):
        pieces = MaxSeparator(weight_decay=0.02).fit(X, y).concept_vectors_
    np.testing.assert_allclose(whole, pieces, atol=5e-3)


def test_more_than_two_classes_are_a_concept_each(problem):
    X, y = problem
    kinds = np.array(["a", "b", "c"])[(y[:, 0] + 2 * y[:, 1]).clip(max=2)]
    assert MaxSeparator().fit(X, kinds).concept_names_.tolist() == ["a", "b", "c"]


def test_an_unfinished_run_warns(problem):
    with pytest.warns(ConvergenceWarning, match="max_iter=1 "):
        MaxSeparator(max_iter=1).fit(*problem)


@pytest.mark.parametrize(
    ("params", "y", "message"),
    [
        ({}, np.ones((150, 1), int), "every sample holds concept 'concept0'"),
        ({}, np.zeros((150, 1), int), "has no positive sample"),
        ({}, np.ones(149, int), "149"),
        ({"sharpness": 0.0}, None, "'sharpness' parameter of MaxSeparator"),
        ({"weight_decay": -1.0}, None, "'weight_decay' parameter of MaxSeparator"),
        ({"max_iter": 0}, None, "'max_iter' parameter of MaxSeparator"),
        ({"tol": -1.0}, None, "'tol' parameter of MaxSeparator"),
        ({"weight_decay": "best"}, None, "'weight_decay' parameter of MaxSeparator"),
        ({"window": 0}, None, "'window' parameter of MaxSeparator"),
        ({"share": 1.5}, None, "'share' parameter of MaxSeparator"),
        ({"cv": 1}, None, "'cv' parameter of MaxSeparator"),
        ({"token_weight": -1.0}, None, "'token_weight' parameter of MaxSeparator"),
        ({"benign_variance": -1.0}, None, "'benign_variance' parameter of MaxSeparator"),
        ({"temperature": 0.0}, None, "'temperature' parameter of MaxSeparator"),
        ({"sharpness": None, "top": 2, "share": 0.5}, None, "top=2 and share=0.5 both say"),
        ({"top": 2}, None, "need sharpness=None, got sharpness=4.0, top=2"),
        ({"share": 0.5}, None, "need sharpness=None"),
        ({"window": 12}, None, "window=12 is longer than every sample; the longest has 11"),
        ({"weight_decay": "auto", "cv": 151}, None, "cv=151 got only 150 samples"),
        ({"weight_decay": "auto"}, np.arange(150) == 3, "two samples with.*one with 'True'"),
        ({"weight_decay": "auto"}, np.arange(150) != 3, "two samples without.*one without 'True'"),
    ],
)
def test_bad_input(problem, params, y, message):
    X, good = problem
    with pytest.raises(ValueError, match=message):
        MaxSeparator(**params).fit(X, good if y is None else y)


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"groups": [1, 2]}, "groups must have one entry per sample: got 2 for 150"),
        ({"groups": np.zeros((150, 2))}, "groups must be 1-D"),
        ({"groups": np.arange(150) % 2}, "cv=5 got only 2 groups"),
        ({"token_labels": []}, "token_labels has no samples"),
        ({"token_labels": np.ones((150, 3, 2), bool)}, "token_labels does not match the tokens"),
    ],
)
def test_bad_input_beside_the_tokens(problem, beside, message):
    X, y = problem
    with pytest.raises(ValueError, match=message):
        MaxSeparator(weight_decay="auto", token_weight=1.0).fit(X, y, **beside)
