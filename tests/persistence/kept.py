"""Fitted estimators that are kept, and what they say."""

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline

import skact
from skact import (
    ConceptSearchCV,
    CrossFitTransformer,
    DifferenceInMeans,
    LayerStack,
    LinearSeparator,
    MaxToken,
    MeanPrototype,
    SelectLayer,
    Source,
    SuperActivator,
    TokenArray,
    TokenScaler,
    TopWindows,
)
from tests.hostile import right_calls

RNG = np.random.default_rng(5)
Y = np.c_[np.arange(40) % 2, np.arange(40) // 2 % 2]
SOURCE = Source("a model", "a commit", 3, "residual stream after the block")


def tokens(block, width=6):
    """Tokens that hold two concepts."""
    values = RNG.normal(size=(160, width)).astype(np.float32) + np.repeat(
        Y @ RNG.normal(size=(2, width)), 4, axis=0
    ).astype(np.float32)
    source = Source(SOURCE.model, SOURCE.revision, block, SOURCE.convention)
    return TokenArray(values, np.arange(0, 161, 4), source=source)


X = tokens(3)
LAYERS = LayerStack({3: X, 5: tokens(5)})


def says(estimator, data):
    """All answers of an estimator, as arrays."""
    found = {}
    for method in ("transform", "predict", "predict_proba", "decision_function", "predict_unsure"):
        if hasattr(estimator, method):
            said = getattr(estimator, method)(data)
            found[method] = said.flat() if isinstance(said, TokenArray) else np.asarray(said)
    return found


def assert_says_the_same(one, other, data):
    mine, its = says(one, data), says(other, data)
    assert list(mine) == list(its)
    assert mine
    for method, said in mine.items():
        assert said.dtype == its[method].dtype
        assert said.tobytes() == its[method].tobytes() or (said == its[method]).all(), method


def lines():
    """Pipelines and searches, fitted, with what they read."""
    yield "pipeline", make_pipeline(TokenScaler(), MeanPrototype(), MaxToken(0.3)).fit(X, Y), X
    frozen = FrozenEstimator(LinearSeparator().fit(X, Y))
    yield "frozen", make_pipeline(frozen, SuperActivator(0.3)).fit(X, Y), X
    flat, y = X.max(), Y[:, 0]
    union = FeatureUnion([("a", MeanPrototype()), ("b", DifferenceInMeans(whiten=True))])
    yield "union", union.fit(flat, y), flat
    words = np.where(y, "with", "without")
    scores = MeanPrototype().fit_transform(X, Y)
    yield "texts as classes", MaxToken(0.3).fit(scores, words), scores
    crossed = CrossFitTransformer(MeanPrototype(), cv=KFold(2))
    line = Pipeline([("layer", SelectLayer(3)), ("concepts", crossed), ("detect", MaxToken())])
    grid = {"layer__layer": [3, 5], "detect": [MaxToken(), TopWindows(None, cut="f1", window=2)]}
    yield "search", ConceptSearchCV(line, grid, cv=2).fit(LAYERS, Y), LAYERS
    sure = TopWindows(None, cut=("recall", "false_alarms"), level=(0.7, 0.3), confidence=0.6)
    yield "two cuts", sure.fit(scores, Y), scores


def single():
    """Every estimator of the package that is fitted on tokens, unfitted, with what it reads."""
    data = X.with_values(np.abs(X.values))
    for name, made in right_calls.token_estimators():
        solver = getattr(made, "solver", None)
        label = name if isinstance(solver, str | None) else f"{name}-{type(solver).__name__}"
        yield label, made, LAYERS if isinstance(made, SelectLayer) else data


def again(estimator, folder):
    """The estimator after it was saved and loaded."""
    skact.save(estimator, folder / "kept.safetensors")
    return skact.load(folder / "kept.safetensors")
