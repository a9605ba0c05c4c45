import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import GridSearchCV, KFold, ParameterGrid
from sklearn.pipeline import Pipeline

from skact import (
    ConceptSearchCV,
    CrossFitTransformer,
    LayerStack,
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    MeanToken,
    RandomToken,
    SelectLayer,
    Source,
    SuperActivator,
    TokenArray,
    TokenScaler,
    TopWindows,
    TransformerEmbedder,
    load,
    make_shapes,
    save,
    shapes_model_path,
    superactivators,
)
from skact.base import TokensOutMixin
from skact.model_selection._search_plan import make_plan

BOTH = ("recall", "false_alarms")
FOLDS = KFold(3, shuffle=True, random_state=0)
DELTAS = [0.1, 0.3, 0.5, 0.8]


@pytest.fixture(scope="module")
def problem():
    """Two layers, three concepts; each layer shows some concepts better than the other."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(2, 7, size=90)
    labels = [rng.random((n, 3)) < 0.15 for n in lengths]
    low, high = ([], [])
    for marks in labels:
        noise = rng.normal(size=(2, *marks.shape))
        low.append(np.c_[marks * np.array([2.5, 0.7, 1.2]) + noise[0], noise[1]])
        high.append(np.c_[marks * np.array([0.7, 2.5, 1.2]) + noise[1], noise[0]])
    stack = LayerStack({2: TokenArray.from_list(low), 5: TokenArray.from_list(high)})
    tokens = TokenArray.from_list(labels, feature_names=["cat", "dog", "owl"])
    return stack, tokens.max().astype(int), tokens


def pipeline(concepts=None, detector=None, scale=None):
    return Pipeline(
        [
            ("layer", SelectLayer()),
            ("scale", scale or TokenScaler()),
            ("concepts", concepts or MeanPrototype()),
            ("detect", detector or SuperActivator()),
        ]
    )


def concept_scorer(c):
    def f1(true, found, sample_weight=None):
        return f1_score(true[:, c], found[:, c], sample_weight=sample_weight, zero_division=0)

    return make_scorer(f1)


@pytest.mark.parametrize(
    ("pipe", "grid"),
    [
        (pipeline(), {"layer__layer": [2, 5], "detect__delta": DELTAS}),
        (
            pipeline(CrossFitTransformer(MeanPrototype(), cv=3, random_state=0)),
            {"layer__layer": [2, 5], "detect__delta": DELTAS},
        ),
        (
            pipeline(),
            [
                {"concepts": [MeanPrototype(), LinearSeparator()], "layer__layer": [5, 2]},
                {"detect": [MaxToken(), MeanToken()], "detect__delta": [0.5, 0.9]},
                {"detect": [RandomToken(random_state=0)], "detect__match_columns": [True]},
            ],
        ),
        (
            pipeline(detector=TopWindows(None, cut="recall", level=0.5)),
            [
                {"detect__cut": ["recall"], "detect__level": [0.6, 0.9], "layer__layer": [2, 5]},
                {"detect__cut": ["f1", "expected_f1"], "detect__level": [None]},
                {"detect__cut": ["tail"], "detect__level": [None], "detect__delta": [0.5, 0.9]},
                {"detect__cut": [BOTH], "detect__level": [(0.8, 0.1), (0.6, 0.2)]},
            ],
        ),
    ],
    ids=["layers and deltas", "cross-fit", "methods and detectors", "cuts"],
)
def test_equals_one_grid_search_per_concept(problem, routing, pipe, grid):
    X, y, labels = problem
    search = ConceptSearchCV(pipe, grid, cv=FOLDS).fit(X, y, token_labels=labels)
    assert list(search.best_params_) == ["cat", "dog", "owl"]
    for c, name in enumerate(search.best_params_):
        alone = GridSearchCV(
            pipe, grid, cv=FOLDS, scoring=concept_scorer(c), error_score="raise"
        ).fit(X, y, token_labels=labels)
        for f in range(3):
            np.testing.assert_allclose(
                search.cv_results_[f"split{f}_test_{name}"],
                alone.cv_results_[f"split{f}_test_score"],
            )
        np.testing.assert_allclose(
            search.cv_results_[f"mean_test_{name}"], alone.cv_results_["mean_test_score"]
        )
        assert search.best_score_[c] == pytest.approx(alone.best_score_)
        if isinstance(grid, list):
            continue  # ties may go elsewhere there: our order is delta first
        assert search.best_params_[name] == alone.best_params_
        np.testing.assert_array_equal(search.predict(X)[:, c], alone.predict(X)[:, c])
        np.testing.assert_allclose(
            search.decision_function(X)[:, c], alone.decision_function(X)[:, c]
        )
        np.testing.assert_allclose(search.predict_proba(X)[:, c], alone.predict_proba(X)[:, c])
        np.testing.assert_array_equal(
            search.superactivators(X).flat()[:, c], superactivators(alone, X).flat()[:, c]
        )


def test_concepts_find_their_own_layers(problem):
    X, y, labels = problem
    grid = {"layer__layer": [2, 5], "detect__delta": DELTAS}
    search = ConceptSearchCV(pipeline(), grid, cv=FOLDS).fit(X, y, token_labels=labels)
    assert search.best_params_["cat"]["layer__layer"] == 2
    assert search.best_params_["dog"]["layer__layer"] == 5
    # The control: one winner for all cannot serve both.
    mean = {name: search.cv_results_[f"mean_test_{name}"] for name in search.best_params_}
    shared = np.mean(list(mean.values()), axis=0).max()
    assert search.best_score_.mean() > shared


def test_calibration_split_is_the_papers_protocol(problem):
    X, y, labels = problem
    is_cal = np.arange(90) % 3 == 0
    train, cal = np.flatnonzero(~is_cal), np.flatnonzero(is_cal)
    grid = {"layer__layer": [2, 5], "detect__delta": DELTAS}
    search = ConceptSearchCV(pipeline(), grid, cv=is_cal).fit(X, y, token_labels=labels)
    best = {}
    for delta in DELTAS:
        for layer in (2, 5):
            tokens = X.layer(layer)
            scaler = TokenScaler().fit(tokens[train])
            concepts = MeanPrototype().fit(
                scaler.transform(tokens[train]), y[train], token_labels=labels[train]
            )
            scores = concepts.transform(scaler.transform(tokens))
            for c in range(3):
                in_concept = scores[cal].flat()[labels[cal].flat()[:, c], c]
                tau = np.quantile(in_concept, 1 - delta)
                found = scores.max()[:, c] >= tau
                f1 = f1_score(y[cal, c], found[cal])
                # Strictly better only: the smaller delta, then the earlier layer, keeps a tie.
                if f1 > best.get(c, (-1,))[0]:
                    best[c] = (f1, delta, layer, found)
    assert search.n_splits_ == 1
    for c, name in enumerate(search.best_params_):
        f1, delta, layer, found = best[c]
        assert search.best_params_[name] == {"detect__delta": delta, "layer__layer": layer}
        assert search.best_score_[c] == pytest.approx(f1)
        np.testing.assert_array_equal(search.predict(X)[:, c], found)


def test_ties_go_to_the_smaller_delta_then_the_earlier_layer():
    y = np.arange(40) % 2
    tokens = TokenArray(
        np.repeat(y, 2)[:, None] * 5.0 + np.arange(80)[:, None] % 3, range(0, 81, 2)
    )
    stack = LayerStack({1: tokens, 3: tokens})
    pipe = Pipeline([("layer", SelectLayer()), ("detect", SuperActivator())])
    grid = {"layer__layer": [3, 1], "detect__delta": [0.99, 0.98, 0.97]}
    search = ConceptSearchCV(pipe, grid, cv=2).fit(stack, y)
    scores = search.cv_results_["mean_test_1"]
    assert (scores == scores.max()).sum() > 2
    tied = [
        p for p, s in zip(search.cv_results_["params"], scores, strict=True) if s == scores.max()
    ]
    smallest = min(p["detect__delta"] for p in tied)
    assert search.best_params_["1"] == {"detect__delta": smallest, "layer__layer": 1}


@pytest.mark.parametrize(("layers", "earlier"), [([0, -1], 0), ([-1, 0], 0), ([-2, 4], -2)])
def test_a_layer_counted_from_the_end_is_late(layers, earlier):
    y = np.arange(20) % 2
    tokens = TokenArray(y[:, None] * 5.0, range(21))
    pipe = Pipeline([("layer", SelectLayer()), ("detect", SuperActivator(0.5))])
    stack = LayerStack({0: tokens, 4: tokens})
    search = ConceptSearchCV(pipe, {"layer__layer": layers}, cv=2).fit(stack, y)
    assert search.best_params_["1"] == {"layer__layer": earlier}


def test_the_order_of_an_embedders_layers_is_that_of_its_blocks(shapes):
    pipe = Pipeline([("embed", TransformerEmbedder(shapes_model_path())), ("detect", MaxToken())])
    grid = {"embed__layer": [-1, 1.0, 0.5, 1], "embed__batch_size": [8]}
    candidates = list(ParameterGrid(grid))
    for varied in (candidates, [{"embed__layer": c["embed__layer"]} for c in candidates]):
        _, plan = make_plan(pipe, varied, [])
        assert [block for _, block, _ in plan.ranks] == [5, 5, 2, 1]


def test_a_score_that_is_not_defined_cannot_win(problem):
    X, y, labels = problem[0].layer(2), problem[1], problem[2]
    scores = MeanPrototype().fit(X, y, token_labels=labels).transform(X)

    def search(scoring):
        found = ConceptSearchCV(SuperActivator(), {"delta": DELTAS}, cv=2, scoring=scoring)
        return found.fit(scores, y, token_labels=labels)

    def table(found, column):
        return np.array([found.cv_results_[f"{column}_{name}"] for name in found.best_params_])

    share = search(lambda true, found: found.mean())
    most = np.maximum(table(share, "split0_test"), table(share, "split1_test"))
    limit = np.sort(most, axis=None)[-3]  # two pairs of a candidate and a concept exceed it
    undefined = most > limit
    assert undefined.sum() == 2
    with pytest.warns(UserWarning, match=r"NaN for 2 of 12 pairs .*they cannot win"):
        found = search(lambda t, f: np.nan if f.mean() > limit else f.mean())
    mean = table(found, "mean_test")
    np.testing.assert_array_equal(np.isnan(mean), undefined)
    np.testing.assert_array_equal(found.best_score_, np.nanmax(mean, axis=1))
    ranks = table(found, "rank_test")
    assert (ranks[undefined] >= 5 - undefined.sum(axis=1).max()).all()
    assert (ranks.min(axis=1) == 1).all()
    for c, (name, best) in enumerate(found.best_params_.items()):
        assert not undefined[c, DELTAS.index(best["delta"])], name
    with pytest.raises(ValueError, match="NaN for every candidate of concept 'cat'"):
        search(lambda t, f: np.nan)


def test_binary_classes_and_a_detector_alone(problem):
    X, y, _ = problem
    scores = X.layer(2).columns([0])
    classes = np.array(["no", "yes"])[y[:, 0]]
    search = ConceptSearchCV(SuperActivator(), {"delta": DELTAS}, cv=FOLDS).fit(scores, classes)
    alone = GridSearchCV(
        SuperActivator(),
        {"delta": DELTAS},
        cv=FOLDS,
        scoring=make_scorer(f1_score, pos_label="yes"),
    ).fit(scores, classes)
    assert search.best_params_ == {"yes": alone.best_params_}
    np.testing.assert_array_equal(search.predict(scores), alone.predict(scores))
    assert search.predict(scores).shape == (90,)
    assert search.decision_function(scores).shape == (90,)
    assert search.best_estimators_["yes"].delta == search.best_params_["yes"]["delta"]


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(45, random_state=0)


class Counting(TransformerEmbedder):
    """Counts the samples that went through a model."""

    calls: list = []

    def transform(self, X):
        Counting.calls.append(len(X))
        return super().transform(X)


def test_layers_come_from_one_embedding(shapes):
    labels = TransformerEmbedder(shapes_model_path()).align_masks(
        shapes.data, shapes.masks, shapes.target_names
    )
    pipe = Pipeline([("embed", Counting(shapes_model_path())), *pipeline().steps[1:]])
    grid = {"embed__layer": [0, 0.5, -1], "detect__delta": DELTAS}
    Counting.calls.clear()
    search = ConceptSearchCV(pipe, grid, cv=FOLDS)
    search.fit(shapes.data, shapes.target, token_labels=labels)
    assert Counting.calls == [45]
    predicted = search.predict(shapes.data)
    assert Counting.calls == [45, 45]
    stack = TransformerEmbedder(shapes_model_path(), layer=[0, 2, 5]).transform(shapes.data)
    same = ConceptSearchCV(
        pipeline(), {"layer__layer": [0, 2, 5], "detect__delta": DELTAS}, cv=FOLDS
    ).fit(stack, shapes.target, token_labels=labels)
    np.testing.assert_array_equal(predicted, same.predict(stack))
    of_block = {0: 0, 0.5: 2, -1: 5}
    for c, name in enumerate(search.best_params_):
        ours, theirs = search.best_params_[name], same.best_params_[name]
        assert of_block[ours["embed__layer"]] == theirs["layer__layer"]
        # The winner of a concept works on raw images by itself.
        alone = search.best_estimators_[name].predict(shapes.data)
        np.testing.assert_array_equal(alone[:, c], predicted[:, c])


def test_a_grid_over_the_embedder_itself_embeds_as_asked(shapes):
    pipe = Pipeline([("embed", TransformerEmbedder(shapes_model_path())), *pipeline().steps[1:]])
    grid = {"embed__pooling": ["cls", None], "detect__delta": [0.5]}
    search = ConceptSearchCV(pipe, grid, cv=FOLDS).fit(shapes.data, shapes.target)
    assert search.embedder_ is None
    assert search.predict(shapes.data).shape == (45, 6)


class ByType(TokensOutMixin, BaseEstimator):
    """Adds noise that depends on the type of its setting, as the layers 1 and 1.0 do."""

    def __init__(self, setting=1):
        self.setting = setting

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        seed = ("int", "float", "bool").index(type(self.setting).__name__)
        return X.map(lambda rows: rows + np.random.default_rng(seed).normal(size=rows.shape))


@pytest.mark.parametrize("settings", [[1, 1.0, True], [True, 1.0, 1], [0.0, False, 0]])
def test_equal_settings_of_unlike_types_are_different_candidates(problem, settings):
    X, y = problem[0].layer(2), problem[1][:, 0]
    pipe = Pipeline([("noise", ByType()), ("concepts", MeanPrototype()), ("detect", MaxToken())])
    grid = {"noise__setting": settings, "detect__delta": [0.5]}
    ours = ConceptSearchCV(pipe, grid, cv=FOLDS).fit(X, y).cv_results_["mean_test_1"]
    theirs = GridSearchCV(pipe, grid, cv=FOLDS, scoring="f1").fit(X, y).cv_results_
    np.testing.assert_allclose(ours, theirs["mean_test_score"])
    assert len(set(ours)) == 3


def test_frozen_concepts_and_several_processes(problem):
    X, y, labels = problem
    tokens = X.layer(2)
    frozen = FrozenEstimator(MeanPrototype().fit(tokens, y, token_labels=labels))
    pipe = Pipeline([("concepts", frozen), ("detect", SuperActivator())])
    searches = [
        ConceptSearchCV(pipe, {"detect__delta": DELTAS}, cv=FOLDS, n_jobs=n).fit(
            tokens, y, token_labels=labels
        )
        for n in (None, 2)
    ]
    np.testing.assert_array_equal(searches[0].predict(tokens), searches[1].predict(tokens))
    assert searches[0].best_params_ == searches[1].best_params_


def test_scoring_may_be_any_function_of_truth_and_decision(problem):
    X, y, labels = problem
    grid = {"layer__layer": [2, 5], "detect__delta": DELTAS}
    search = ConceptSearchCV(pipeline(), grid, cv=FOLDS, scoring=lambda t, p: np.mean(t != p))
    search.fit(X, y, token_labels=labels)
    accuracy = ConceptSearchCV(pipeline(), grid, cv=FOLDS, scoring=lambda t, p: np.mean(t == p))
    accuracy.fit(X, y, token_labels=labels)
    for name in search.best_params_:
        np.testing.assert_allclose(
            search.cv_results_[f"mean_test_{name}"],
            1 - accuracy.cv_results_[f"mean_test_{name}"],
        )


def within_a_deviation(mean, std, deltas):
    """Place of the smallest delta whose mean is no more than a deviation below the best."""
    best = np.argmax(mean)
    return int(np.argmin(np.where(mean >= mean[best] - std[best], deltas, 1)))


def test_a_rule_names_the_winners_as_in_one_grid_search_per_concept(problem, routing, tmp_path):
    X, y, labels = problem
    grid, names = {"detect__delta": DELTAS}, ("cat", "dog", "owl")

    def rule(results):
        deltas = results["param_detect__delta"].astype(float)
        return [
            within_a_deviation(results[f"mean_test_{name}"], results[f"std_test_{name}"], deltas)
            for name in names
        ]

    pipe = pipeline().set_params(layer__layer=5)
    search = ConceptSearchCV(pipe, grid, cv=FOLDS, refit=rule).fit(X, y, token_labels=labels)
    best = ConceptSearchCV(pipe, grid, cv=FOLDS).fit(X, y, token_labels=labels)
    assert (search.best_index_ != best.best_index_).any()  # else the rule is not seen to act
    for c, name in enumerate(names):
        alone = GridSearchCV(
            pipe,
            grid,
            cv=FOLDS,
            scoring=concept_scorer(c),
            refit=lambda results: within_a_deviation(
                results["mean_test_score"],
                results["std_test_score"],
                results["param_detect__delta"].astype(float),
            ),
        ).fit(X, y, token_labels=labels)
        assert search.best_params_[name] == alone.best_params_
        np.testing.assert_array_equal(search.predict(X)[:, c], alone.predict(X)[:, c])
        found = alone.cv_results_["mean_test_score"][alone.best_index_]
        assert search.best_score_[c] == pytest.approx(found)
    with pytest.raises(TypeError, match=r"refit is .*function, which cannot be saved"):
        save(search, tmp_path / "kept")
    save(search.set_params(refit=True), tmp_path / "kept")
    again = load(tmp_path / "kept")
    np.testing.assert_array_equal(again.best_index_, search.best_index_)
    np.testing.assert_array_equal(again.decision_function(X), search.decision_function(X))
    highest = ConceptSearchCV(
        pipe,
        grid,
        cv=FOLDS,
        refit=lambda results: [np.argmax(results[f"mean_test_{name}"]) for name in names],
    ).fit(X, y, token_labels=labels)
    np.testing.assert_array_equal(highest.best_score_, best.best_score_)


@pytest.mark.parametrize(
    "said", [0, [0, 1], [0, 1, 4], [-1, 0, 0], [0.0, 1.0, 0.0], [[0], [0, 1], [0]], {}, None]
)
def test_a_rule_without_a_place_for_each_concept_is_refused(problem, said):
    X, y, labels = problem
    search = ConceptSearchCV(
        pipeline(), {"detect__delta": DELTAS}, cv=FOLDS, refit=lambda results: said
    )
    with pytest.raises(ValueError, match=r"refit must give .* each of 3 concepts.*got"):
        search.fit(X, y, token_labels=labels)
    assert not hasattr(search, "best_index_")


def test_a_rule_cannot_name_a_candidate_without_a_score(problem):
    X, y, labels = problem
    search = ConceptSearchCV(
        pipeline(),
        {"detect__delta": DELTAS},
        cv=FOLDS,
        scoring=lambda truth, found: np.nan if found.mean() > 0.6 else found.mean(),
        refit=lambda results: [
            np.argmax(np.isnan(results[f"mean_test_{name}"])) for name in ("cat", "dog", "owl")
        ],
    )
    with (
        pytest.warns(UserWarning, match="gives NaN"),
        pytest.raises(ValueError, match=r"refit names candidate \d for concept '\w+'.* NaN"),
    ):
        search.fit(X, y, token_labels=labels)


def test_results_table_is_complete(problem):
    X, y, labels = problem
    grid = [{"layer__layer": [2]}, {"detect__delta": DELTAS}]
    search = ConceptSearchCV(pipeline(), grid, cv=FOLDS).fit(X, y, token_labels=labels)
    results = search.cv_results_
    assert results["params"] == list(ParameterGrid(grid))
    assert results["param_detect__delta"].mask.tolist() == [True] + [False] * 4
    for name in ("cat", "dog", "owl"):
        splits = np.array([results[f"split{f}_test_{name}"] for f in range(3)])
        np.testing.assert_allclose(results[f"mean_test_{name}"], splits.mean(axis=0))
        np.testing.assert_allclose(results[f"std_test_{name}"], splits.std(axis=0))
        assert results[f"rank_test_{name}"].min() == 1


def test_winners_are_a_table(problem):
    X, y, labels = problem
    grid = [{"layer__layer": [2]}, {"detect__delta": DELTAS}]
    search = ConceptSearchCV(pipeline(), grid, cv=FOLDS).fit(X, y, token_labels=labels)
    table, names = search.winners(), ["cat", "dog", "owl"]
    assert table.index.tolist() == search.get_feature_names_out().tolist() == names
    assert table.candidate.tolist() == search.best_index_.tolist()
    np.testing.assert_array_equal(table.mean_score, search.best_score_)
    for name in names:
        row = table.loc[name]
        assert row.std_score == search.cv_results_[f"std_test_{name}"][row.candidate]
        won = {key: row[key] for key in ("layer__layer", "detect__delta") if not pd.isna(row[key])}
        assert won == search.best_params_[name]
    frame = pd.DataFrame(search.predict(X), columns=search.get_feature_names_out())
    assert frame.columns.tolist() == names
    with pytest.raises(NotFittedError):
        clone(search).winners()


def test_weights_reach_whoever_asks_for_them(problem, routing):
    X, y, labels = problem
    weight = np.arange(90) % 3
    asks = MeanPrototype().set_fit_request(sample_weight=True)
    scale = TokenScaler().set_fit_request(sample_weight=True)
    grid = {"layer__layer": [2, 5], "detect__delta": DELTAS}
    search = ConceptSearchCV(pipeline(asks, scale=scale), grid, cv=FOLDS)
    search.fit(X, y, token_labels=labels, sample_weight=weight)
    detector = SuperActivator().set_fit_request(sample_weight=True)
    for counts in (True, False):
        if not counts:
            search.set_params(scoring=lambda t, p: f1_score(t, p, zero_division=0))
            search.fit(X, y, token_labels=labels, sample_weight=weight)
        for c, name in enumerate(("cat", "dog", "owl")):
            alone = GridSearchCV(
                pipeline(asks, detector, scale),
                grid,
                scoring=concept_scorer(c).set_score_request(sample_weight=counts),
                cv=FOLDS,
            )
            alone.fit(X, y, token_labels=labels, sample_weight=weight)
            np.testing.assert_allclose(
                search.cv_results_[f"mean_test_{name}"], alone.cv_results_["mean_test_score"]
            )
    plain = ConceptSearchCV(pipeline(), grid, cv=FOLDS).fit(X, y, token_labels=labels)
    changed = [f"mean_test_{name}" for name in ("cat", "dog", "owl")]
    assert any((plain.cv_results_[k] != search.cv_results_[k]).any() for k in changed)
    with pytest.raises(ValueError, match="TokenScaler can weigh samples, and does not say"):
        ConceptSearchCV(pipeline(asks), grid, cv=FOLDS).fit(X, y, sample_weight=weight)
    with pytest.raises(ValueError, match="MeanPrototype can weigh samples, and does not say"):
        ConceptSearchCV(pipeline(scale=scale), grid, cv=FOLDS).fit(X, y, sample_weight=weight)
    refuses = MeanPrototype().set_fit_request(sample_weight=False)
    ConceptSearchCV(pipeline(refuses, scale=scale), grid, cv=FOLDS).fit(X, y, sample_weight=weight)
    with pytest.raises(ValueError, match="sample_weight must not be zero for every sample"):
        search.fit(X, y, sample_weight=0 * weight)
    held_out = np.ones(90)
    held_out[next(iter(FOLDS.split(np.zeros(90), y)))[1]] = 0
    search.set_params(scoring="f1")
    with pytest.raises(ValueError, match="in fold 1 of 3 of the search: sample_weight must not"):
        search.fit(X, y, token_labels=labels, sample_weight=held_out)


def rare(problem):
    X, y, _ = problem
    y = y.copy()
    y[:, 0] = 0
    y[3, 0] = 1
    return X, y


@pytest.mark.parametrize(
    ("params", "change", "error", "message"),
    [
        ({"param_grid": {"nowhere__delta": [0.1]}}, {}, ValueError, "Invalid parameter 'nowhere'"),
        ({"param_grid": {"detect__delta": [0.1, 1.5]}}, {}, ValueError, r"'delta' parameter.*1\.5"),
        ({"estimator": MeanPrototype()}, {}, ValueError, "'estimator' parameter.*'predict'"),
        (
            {"estimator": LogisticRegression(), "param_grid": {"C": [1.0]}},
            {},
            TypeError,
            "ends in a detector, got LogisticRegression",
        ),
        (
            {"estimator": Pipeline([("a", MeanPrototype()), ("b", MeanPrototype())])},
            {},
            ValueError,
            "'estimator' parameter.*'predict'",
        ),
        ({"scoring": "accuracy"}, {}, ValueError, "'scoring' parameter"),
        ({"refit": "cat"}, {}, ValueError, "'refit' parameter"),
        ({"cv": np.ones(90, bool)}, {}, ValueError, "calibration split must be bool"),
        ({"cv": np.zeros(5, bool)}, {}, ValueError, r"shape \(90,\)"),
        (
            {"param_grid": {"layer__layer": [4]}},
            {},
            ValueError,
            "in fold 1 of 3.*layer must be one",
        ),
        ({}, {"y": np.zeros((90, 3), int)}, ValueError, "concept 0 has no positive sample"),
        ({}, {"y": np.ones((80, 3), int)}, ValueError, "y has 80 samples, X has 90"),
        ({}, {"y": "rare"}, ValueError, r"in fold \d of 3 of the search: concept 0 .*no positive"),
    ],
)
def test_bad_input(problem, params, change, error, message):
    X, y, _ = problem
    given = {"estimator": pipeline(), "param_grid": {"detect__delta": DELTAS}, "cv": FOLDS}
    target = change.get("y", y)
    if isinstance(target, str):
        target = rare(problem)[1]
    with pytest.raises(error, match=message):
        ConceptSearchCV(**{**given, **params}).fit(X, target)


def test_marks_say_where_they_come_from_if_all_winners_read_one_layer(problem):
    stack, y, labels = problem
    source = Source(model="m", block=5)
    low, high = stack.layer(2), stack.layer(5).with_source(source)
    stack = LayerStack({2: low.with_source(Source(model="m", block=2)), 5: high})
    search = ConceptSearchCV(pipeline(), {"layer__layer": [5], "detect__delta": DELTAS}, cv=FOLDS)
    marks = search.fit(stack, y, token_labels=labels).superactivators(stack)
    assert marks.source == superactivators(search.best_estimators_["cat"], stack).source
    assert (marks.source.block, marks.source.columns) == (5, "concepts")
    grid = {"layer__layer": [2, 5], "detect__delta": DELTAS}
    both = ConceptSearchCV(pipeline(), grid, cv=FOLDS).fit(stack, y, token_labels=labels)
    assert len({p["layer__layer"] for p in both.best_params_.values()}) == 2
    assert both.superactivators(stack).source is None


def test_before_fitting_and_without_refit(problem):
    X, y, _ = problem
    search = ConceptSearchCV(pipeline(), {"detect__delta": [0.5]}, cv=FOLDS, refit=False)
    for read in (search.predict, search.decision_function, search.superactivators):
        with pytest.raises(NotFittedError):
            read(X)
    search.fit(X, y)
    assert search.best_score_.shape == (3,)
    for read in (search.predict, search.decision_function, search.superactivators):
        with pytest.raises(AttributeError, match="refit=False"):
            read(X)


def test_levels_share_a_pass_and_leave_some_unsure(problem, monkeypatch):
    X, y, labels = problem
    passes = []
    pool = TopWindows._pool
    monkeypatch.setattr(TopWindows, "_pool", lambda *a: passes.append(1) or pool(*a))
    grid = {"level": [(0.8, 0.1), (0.6, 0.2), (0.7, 0.1)]}
    two = TopWindows(None, window=2, cut=BOTH, level=(0.5, 0.5), match_columns=True)
    search = ConceptSearchCV(two, grid, cv=FOLDS).fit(X.layer(2), y, token_labels=labels)
    assert len(passes) == 2 * 3 + 1  # fitting and scoring in each fold, and the winners
    said = search.predict_unsure(X.layer(2))
    assert said.shape == y.shape
    assert set(np.unique(said)) == {-1, 0, 1}
    for c, name in enumerate(search.best_params_):
        alone = search.best_estimators_[name].predict_unsure(X.layer(2))
        np.testing.assert_array_equal(said[:, c], alone[:, c])
    np.testing.assert_array_equal(said == 1, search.predict(X.layer(2)) == 1)


def test_one_cut_leaves_nobody_unsure(problem):
    X, y, _ = problem
    search = ConceptSearchCV(MaxToken(match_columns=True), {"delta": [0.5]}, cv=FOLDS)
    with pytest.raises(NotFittedError):
        search.predict_unsure(X.layer(2))
    with pytest.raises(AttributeError, match="no attribute 'predict_unsure'") as raised:
        search.fit(X.layer(2), y).predict_unsure(X.layer(2))
    assert "winner of concept 'concept0' has one cut only" in str(raised.value.__cause__)


def test_a_grid_over_delta_names_the_cut_before_anything_is_fitted(problem):
    X, y, _ = problem
    pipe = pipeline(detector=TopWindows(None, cut="f1"))
    with pytest.raises(ValueError, match=r"^delta belongs to cut='tail'; with cut='f1'"):
        ConceptSearchCV(pipe, {"detect__delta": [0.1, 0.5]}).fit(X, y)
