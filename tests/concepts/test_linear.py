import tracemalloc
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skact import LBFGS, Adam, LinearSeparator, Minibatch, SuperActivator, TokenArray, TokenScaler


@pytest.fixture
def problem(rng):
    """Ragged tokens of 6 features; two concepts along noisy directions."""
    lengths = rng.integers(2, 9, size=80)
    X = TokenArray.from_list([rng.normal(size=(n, 6)) for n in lengths])
    noise = rng.normal(size=(X.n_tokens, 2))
    directions = rng.normal(size=(6, 2))
    labels = X.with_values(X.flat() @ directions + noise > np.array([0.5, 2.5]))
    return X, labels.max().astype(int), labels


@pytest.mark.parametrize("weight_decay", [1e-3, 1e-1])
@pytest.mark.parametrize("balance", ["auto", None])
def test_minimum_is_the_one_of_logistic_regression(problem, balance, weight_decay):
    X, y, labels = problem
    method = LinearSeparator(weight_decay=weight_decay, balance=balance)
    method.fit(X, y, token_labels=labels)
    for c in range(2):
        marked = labels.flat()[:, c]
        # scikit-learn minimises C * sum of weighted losses + |w|^2 / 2, with weights of mean 1.
        expected = LogisticRegression(
            C=1 / (weight_decay * X.n_tokens),
            fit_intercept=False,
            class_weight="balanced" if balance else None,
            tol=1e-10,
            max_iter=10_000,
        ).fit(X.flat(), marked)
        np.testing.assert_allclose(method.concept_vectors_[c], expected.coef_[0], rtol=2e-3)
    np.testing.assert_allclose(
        method.transform(X).flat(), X.flat() @ method.concept_vectors_.T, rtol=1e-6
    )


def test_gradient_vanishes_at_the_minimum(problem):
    X, y, labels = problem
    method = LinearSeparator(weight_decay=0.01).fit(X, y, token_labels=labels)

    def gradient(v, c):
        total = 0.01 * v
        marked = labels.flat()[:, c]
        for z, positive in zip(X.flat(), marked, strict=True):
            weight = 0.5 / (marked.sum() if positive else (~marked).sum())
            total = total + weight * (1 / (1 + np.exp(-z @ v)) - positive) * z
        return total

    for c in range(2):
        v = method.concept_vectors_[c]
        assert np.abs(gradient(v, c)).max() < 1e-4
        assert np.abs(gradient(0.8 * v, c)).max() > 1e-2


def test_streaming_in_blocks_changes_nothing(problem):
    X, y, labels = problem
    whole = LinearSeparator().fit(X, y, token_labels=labels)
    with sklearn.config_context(working_memory=0):
        pieces = LinearSeparator().fit(X, y, token_labels=labels)
    np.testing.assert_allclose(whole.concept_vectors_, pieces.concept_vectors_, rtol=1e-5)


def test_concepts_do_not_influence_each_other(problem):
    X, y, labels = problem
    together = LinearSeparator().fit(X, y, token_labels=labels)
    for c in range(2):
        alone = LinearSeparator().fit(X, y[:, [c]], token_labels=labels.columns([c]))
        np.testing.assert_allclose(
            together.concept_vectors_[c], alone.concept_vectors_[0], rtol=1e-3, atol=1e-4
        )


def test_default_is_deterministic(problem):
    X, y, labels = problem
    a, b = (LinearSeparator().fit(X, y, token_labels=labels).concept_vectors_ for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_constant_features_are_no_trouble(rng):
    X = np.c_[rng.normal(size=(40, 2)), np.zeros(40), np.ones(40)]
    method = LinearSeparator(LBFGS(max_iter=5), weight_decay=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        method.fit(X, X[:, 0] + rng.normal(size=40) > 0)
    assert np.isfinite(method.concept_vectors_).all()
    assert method.concept_vectors_[0, 2] == 0


def test_few_long_tokens_in_single_precision_are_no_trouble(rng):
    """Their second moment has rounding errors larger than the penalty, so that it has no factor."""
    long = rng.normal(size=300)
    X = rng.normal(size=(48, 300)) + rng.normal(5, 1, size=(48, 1)) * 50 * long
    y = np.arange(48) % 2
    single, double = (LinearSeparator().fit(X.astype(kind), y) for kind in ("f4", "f8"))
    signs, losses = np.where(y, 1, -1), []
    for method in (single, double):
        v = method.concept_vectors_[0]
        each = np.logaddexp(0, -signs * (X @ v))
        losses.append((each[y == 1].mean() + each[y == 0].mean()) / 2 + 0.5e-4 * v @ v)
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    assert losses[0] < 0.1


def test_an_unfinished_run_warns(problem):
    X, y, labels = problem
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        LinearSeparator(LBFGS(max_iter=1), weight_decay=0).fit(X, y, token_labels=labels)


def test_paper_recipe_reproduces_the_released_numbers(reference):
    data = reference("ref_linsep_paperlike")
    recipe = Adam(init=data["in_w0"][None], shuffle=False, batch_size=32)
    method = LinearSeparator(recipe, balance=None).fit(data["in_x_train"], data["in_y_train"])
    assert method.n_iter_ == data["out_epochs"]
    np.testing.assert_allclose(method.concept_vectors_[0], data["out_w"], atol=1e-4)
    np.testing.assert_allclose(method.loss_curves_[0], data["out_train_loss"], atol=1e-4)
    np.testing.assert_allclose(method.f1_curves_[0], data["out_train_f1"], atol=1e-4)


def test_patience_counts_as_the_released_implementation_does(reference):
    data = reference("ref_linsep_patience")
    recipe = Adam(
        0.001, init=data["in_w0"][None], shuffle=False, batch_size=int(data["in_batch"]),
        max_epochs=1000, lr_step=5, lr_decay=0.8, patience=20, tol=0.001,
    )  # fmt: skip
    method = LinearSeparator(recipe, balance=None).fit(data["in_x_train"], data["in_y_train"])
    assert method.n_iter_ == data["out_epochs"] == 45
    np.testing.assert_allclose(method.concept_vectors_[0], data["out_w"], atol=1e-4)
    np.testing.assert_allclose(method.loss_curves_[0], data["out_train_loss"], atol=1e-4)
    np.testing.assert_allclose(method.f1_curves_[0], data["out_train_f1"], atol=1e-4)


def end_of(curve, tol, patience, from_last_progress=False):
    """Epochs after which training stops."""
    best, waited = np.inf, 0
    for n_epochs, loss in enumerate(curve, start=1):
        waited = waited + 1 if loss > best - tol else 0
        if waited == patience:
            return n_epochs
        if loss < best and not (from_last_progress and waited):
            best = loss
    return len(curve)


@pytest.mark.parametrize(("tol", "patience"), [(0.003, 3), (0.003, 12), (0.01, 8)])
def test_many_small_decreases_are_no_progress(problem, tol, patience):
    X, y, labels = problem
    recipe = Adam(0.002, shuffle=False, tol=tol, patience=patience, lr_step=99, max_epochs=60)
    stopped = LinearSeparator(recipe, balance="weight", random_state=0)
    endless = clone(stopped).set_params(solver__patience=1000)
    for method in (stopped, endless):
        method.fit(X, y, token_labels=labels)
    for short, curve in zip(stopped.loss_curves_, endless.loss_curves_, strict=True):
        n_epochs = end_of(curve, tol, patience)
        np.testing.assert_array_equal(short, curve[:n_epochs])
        # Measured from the last progress instead, small decreases would sum to progress.
        assert n_epochs < end_of(curve, tol, patience, from_last_progress=True)


def slow_adam(X, y, w, recipe, weight_decay):
    """One concept with torch's own Adam and learning-rate schedule, batches in token order."""
    import torch

    X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    w = torch.tensor(w, dtype=torch.float32, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=recipe.learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, recipe.lr_step, recipe.lr_decay)
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    best, waited, n_epochs = np.inf, 0, 0
    while n_epochs < recipe.max_epochs and waited < recipe.patience:
        batches = [slice(s, s + recipe.batch_size) for s in range(0, len(X), recipe.batch_size)]
        for batch in batches:
            optimizer.zero_grad()
            loss_of(X[batch] @ w, y[batch]).backward()
            optimizer.step()
        schedule.step()
        n_epochs += 1
        with torch.no_grad():
            loss = np.mean([float(loss_of(X[b] @ w, y[b])) for b in batches])
            f1 = 2 * float(((X @ w >= 0) * y).sum()) / float((X @ w >= 0).sum() + y.sum())
        waited = waited + 1 if loss > best - recipe.tol else 0
        best = min(best, loss)
        if recipe.stop_f1 is not None and f1 >= recipe.stop_f1:
            break
    return w.detach().numpy(), n_epochs


@pytest.mark.parametrize(
    ("settings", "weight_decay"),
    [
        ({}, 1e-4),
        ({"tol": 1e-3, "patience": 2, "max_epochs": 40, "lr_step": 3, "lr_decay": 0.8}, 1e-4),
        ({"tol": 0.0, "max_epochs": 7, "batch_size": 50}, 0.1),
        ({"stop_f1": 0.8, "learning_rate": 0.05}, 1e-4),
        ({"max_epochs": 1, "batch_size": 10_000}, 1e-4),
    ],
)
def test_adam_of_all_concepts_is_that_of_each(problem, rng, settings, weight_decay):
    X, y, labels = problem
    recipe = Adam(init=rng.normal(size=(2, 6)) / 3, shuffle=False, **settings)
    method = LinearSeparator(recipe, balance=None, weight_decay=weight_decay)
    method.fit(X, y, token_labels=labels)
    for c in range(2):
        expected, n_epochs = slow_adam(
            X.flat(), labels.flat()[:, c], recipe.init[c], recipe, weight_decay
        )
        assert len(method.loss_curves_[c]) == n_epochs
        np.testing.assert_allclose(method.concept_vectors_[c], expected, atol=2e-5)
    assert method.n_iter_ == max(map(len, method.loss_curves_))


def test_adam_samples_negatives_down_to_the_positives(problem):
    from skact.concepts._adam import _balanced_rows

    _, _, labels = problem
    for marked in labels.flat().T:
        rows = _balanced_rows(marked, np.random.RandomState(0))
        assert len(set(rows)) == len(rows)
        n_positive = min(marked.sum(), (~marked).sum()) if marked.mean() > 0.5 else marked.sum()
        assert marked[rows].sum() == marked.sum()
        assert (~marked[rows]).sum() == n_positive


@pytest.mark.parametrize(("balance", "cosine"), [("auto", 0.85), ("weight", 0.97)])
def test_adam_comes_near_the_convex_minimum(problem, balance, cosine):
    X, y, labels = problem
    convex = LinearSeparator().fit(X, y, token_labels=labels).concept_vectors_
    adam = LinearSeparator(Adam(tol=0.0), balance=balance, random_state=0)
    adam.fit(X, y, token_labels=labels)
    for v, w in zip(convex, adam.concept_vectors_, strict=True):
        assert v @ w / np.linalg.norm(v) / np.linalg.norm(w) > cosine


def test_adam_holds_halves_where_not_all_tokens_can_be_held(rng):
    values = rng.normal(size=(20_000, 256)).astype(np.float16)
    X, labels = TokenArray(values, np.arange(0, 20_001, 5)), rng.random((20_000, 1)) < 0.5
    method = LinearSeparator(Adam(max_epochs=1, batch_size=500), random_state=0)
    vectors, peaks = [], []
    for working_memory in (0, 1024):
        tracemalloc.start()
        with sklearn.config_context(working_memory=working_memory):
            method.fit(X, X.with_values(labels).max(), token_labels=X.with_values(labels))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        vectors.append(method.concept_vectors_)
    np.testing.assert_array_equal(*vectors)
    # Nearly all tokens are trained on.
    assert peaks[0] < peaks[1] - values.nbytes / 2


def test_adam_repeats_by_its_seed(problem):
    X, y, labels = problem

    def vectors(seed):
        method = LinearSeparator(Adam(max_epochs=2), random_state=seed)
        return method.fit(X, y, token_labels=labels).concept_vectors_

    np.testing.assert_array_equal(vectors(0), vectors(0))
    assert not np.allclose(vectors(0), vectors(1))


@pytest.mark.parametrize(
    ("params", "y", "message"),
    [
        ({"solver": "sgd"}, None, "'solver' parameter of LinearSeparator must be a str among"),
        ({"solver": Adam}, None, "'solver' parameter of LinearSeparator .* an object: LBFGS"),
        ({"weight_decay": -1.0}, None, "'weight_decay' parameter"),
        ({"balance": "sample"}, None, 'balance="sample" needs solver="adam"; LBFGS balances by w'),
        ({"solver": Adam(init=np.zeros((1, 5)))}, None, r"init must have shape \(1, 2\), got"),
        ({"solver": Adam(batch_size=0)}, None, "'batch_size' parameter of Adam"),
        ({"solver": Adam(lr_decay=1.5)}, None, "'lr_decay' parameter of Adam"),
        ({"solver": Adam(stop_f1=2.0)}, None, "'stop_f1' parameter of Adam"),
        ({"solver": LBFGS(max_iter=0)}, None, "'max_iter' parameter of LBFGS"),
        ({"solver": Minibatch(n_passes=0)}, None, "'n_passes' parameter of Minibatch"),
        ({}, [[1], [1], [1], [1]], "every token belongs to concept 'concept0'"),
        ({}, [1, 1, 1, 1], "one class only"),
    ],
)
def test_bad_input(params, y, message):
    X = np.arange(8.0).reshape(4, 2)
    with pytest.raises(ValueError, match=message):
        LinearSeparator(**params).fit(X, [0, 1, 0, 1] if y is None else y)


@pytest.mark.parametrize(
    ("name", "solver"), [("lbfgs", LBFGS()), ("minibatch", Minibatch()), ("adam", Adam())]
)
def test_a_name_stands_for_the_solver_with_its_defaults(problem, name, solver):
    X, y, labels = problem
    named, given = (
        LinearSeparator(which, random_state=0).fit(X, y, token_labels=labels)
        for which in (name, solver)
    )
    np.testing.assert_array_equal(named.concept_vectors_, given.concept_vectors_)
    assert hasattr(named, "partial_fit") == hasattr(given, "partial_fit") == (name == "minibatch")


def test_settings_of_a_solver_are_searched(problem):
    X, y, _ = problem
    pipe = make_pipeline(
        TokenScaler(), LinearSeparator(Adam(tol=0, max_epochs=3), random_state=0), SuperActivator()
    )
    twin = clone(pipe)
    assert twin[1].solver is not pipe[1].solver
    assert twin.get_params()["linearseparator__solver__max_epochs"] == 3
    grid = {"linearseparator__solver__learning_rate": [1e-5, 0.05]}
    search = GridSearchCV(pipe, grid, cv=2, scoring="f1_weighted", error_score="raise").fit(X, y)
    assert np.ptp(search.cv_results_["mean_test_score"]) > 0
    expected = twin.set_params(**search.best_params_).fit(X, y)[1]
    assert expected.solver.learning_rate == search.best_params_[next(iter(grid))]
    np.testing.assert_array_equal(
        search.best_estimator_[1].concept_vectors_, expected.concept_vectors_
    )
    solvers = {"linearseparator__solver": ["lbfgs", Minibatch(n_passes=1), Adam(max_epochs=2)]}
    search = GridSearchCV(pipe, solvers, cv=2, scoring="f1_weighted", error_score="raise")
    assert np.isfinite(search.fit(X, y).cv_results_["mean_test_score"]).all()


def test_solvers_are_checked_before_the_tokens_are_read():
    class Unreadable:
        def __array__(self, dtype=None, copy=None):
            raise AssertionError("read")

    with pytest.raises(ValueError, match="'tol' parameter of Adam must be a float in the range"):
        LinearSeparator(Adam(tol=-1.0)).fit(Unreadable(), [0, 1])


def test_only_a_fit_that_streams_goes_on(problem):
    X, y, labels = problem
    method = LinearSeparator().fit(X, y, token_labels=labels)
    method.set_params(solver="minibatch")
    with pytest.raises(ValueError, match="partial_fit goes on from a fit with solver"):
        method.partial_fit(X, y, token_labels=labels)
    method.fit(X, y, token_labels=labels).partial_fit(X, y, token_labels=labels)
    assert method.n_iter_ == 1


@pytest.mark.parametrize("shuffle", [True, False])
def test_adam_of_a_concept_ignores_the_others(problem, shuffle):
    X, y, labels = problem
    init = np.full((2, 6), 0.1)
    recipe = Adam(init=init, shuffle=shuffle, max_epochs=3, batch_size=20)
    together = LinearSeparator(recipe, balance=None, random_state=0)
    together.fit(X, y, token_labels=labels)
    alone = clone(together).set_params(solver__init=init[:1])
    alone.fit(X, y[:, [0]], token_labels=labels.columns([0]))
    np.testing.assert_allclose(
        together.concept_vectors_[0], alone.concept_vectors_[0], rtol=1e-5, atol=1e-6
    )
    assert not np.allclose(together.concept_vectors_[1], alone.concept_vectors_[0], atol=1e-2)


def test_a_large_mean_in_single_precision_is_no_trouble(rng):
    # Rounding then hides the last decreases of the loss; the search has to notice.
    X = (rng.normal(size=(4000, 16)) + 30 * rng.normal(size=16)).astype(np.float32)
    present = (X - X.mean(axis=0)) @ rng.normal(size=(16, 6)) + rng.normal(size=(4000, 6)) > 6
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        single = LinearSeparator().fit(X, present.astype(int))
        double = LinearSeparator().fit(X.astype(np.float64), present.astype(int))
    for v, w in zip(single.concept_vectors_, double.concept_vectors_, strict=True):
        np.testing.assert_allclose(v, w, atol=5e-3 * np.abs(w).max())


def test_adam_says_that_losses_still_fall(rng):
    X = rng.normal(size=(60, 4))
    y = (X[:, 0] > 0).astype(int)
    for tol, warns in ((0.0, True), (3.0, False)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            LinearSeparator(Adam(max_epochs=20, patience=15, tol=tol), random_state=0).fit(X, y)
        said = [str(w.message) for w in caught if w.category is ConvergenceWarning]
        assert len(said) == warns
        assert not warns or "1 of 1 separators did not converge in max_epochs=20" in said[0]
