"""TokenPooling: rows by their definitions, names, and everything that takes a matrix."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline

from skact import (
    CrossFitTransformer,
    DifferenceInMeans,
    JoinLayers,
    MaxToken,
    MeanPrototype,
    SelectLayer,
    Source,
    TokenArray,
    TokenPooling,
    TokenScaler,
    TopWindows,
    TransformerEmbedder,
)
from tests import tiny_models


@pytest.fixture
def tokens(rng):
    samples = [rng.normal(size=(n, 3)).astype(np.float32) for n in rng.integers(1, 9, 40)]
    return TokenArray.from_list(samples, feature_names=["a", "b", "c"])


def slow_windows(sample, window, top, share):
    window = min(window, len(sample))
    means = [sample[i : i + window].mean(axis=0) for i in range(len(sample) - window + 1)]
    count = top if share is None else max(1, round(share * len(means)))
    return np.sort(means, axis=0)[::-1][:count].mean(axis=0)


@pytest.mark.parametrize(
    ("pooling", "row"),
    [
        (TokenPooling(), lambda s: s.max(axis=0)),
        (TokenPooling("mean"), lambda s: s.mean(axis=0)),
        (TokenPooling("last"), lambda s: s[-1]),
        (TokenPooling("windows", window=3, top=2), lambda s: slow_windows(s, 3, 2, None)),
        (TokenPooling("windows", share=0.5), lambda s: slow_windows(s, 1, 1, 0.5)),
    ],
    ids=["max", "mean", "last", "two windows", "half of the tokens"],
)
def test_every_row_is_its_definition(tokens, pooling, row):
    expected = [row(sample.astype(float)) for sample in tokens]
    for X in (tokens, tokens.to_list()):
        out = pooling.fit_transform(X)
        assert type(out) is np.ndarray
        np.testing.assert_allclose(out, expected, rtol=1e-6)
    # A row of a matrix is a sample of one token.
    np.testing.assert_array_equal(pooling.transform(tokens.flat()), tokens.flat())


def test_windows_pool_as_the_detector_does(rng):
    shapes = rng.integers(2, 5, (20, 2))
    scores = TokenArray.from_list(
        [rng.normal(size=(n, 1)) for n in shapes.prod(axis=1)], shapes=shapes
    )
    y = np.arange(20) % 2
    for params in ({"window": 2, "top": 3}, {"window": 2, "share": 0.3}):
        pooled = TokenPooling("windows", **params).fit_transform(scores)
        detector = TopWindows(**params).fit(scores, y)
        np.testing.assert_array_equal(pooled, detector.pool(scores))
        # The shapes count: the same tokens as runs have other windows.
        runs = TokenArray(scores.values, scores.offsets)
        assert np.abs(TokenPooling("windows", **params).fit_transform(runs) - pooled).max() > 0.1


def test_marks_become_presence_and_share(tokens):
    marks = tokens.with_values(tokens.flat() > 0)
    present, share = (TokenPooling(pool).fit_transform(marks) for pool in ("max", "mean"))
    np.testing.assert_array_equal(present, [(s > 0).any(axis=0) for s in tokens])
    np.testing.assert_allclose(share, [(s > 0).mean(axis=0) for s in tokens])
    assert present.dtype == np.float32


def test_names_are_those_of_the_tokens(tokens):
    pooling = TokenPooling().fit(tokens)
    assert pooling.get_feature_names_out().tolist() == ["a", "b", "c"]
    assert pooling.get_feature_names_out(["x", "y", "z"]).tolist() == ["x", "y", "z"]
    unnamed = pooling.fit(tokens.to_list())
    assert unnamed.get_feature_names_out().tolist() == ["x0", "x1", "x2"]
    y = np.c_[np.arange(40) % 2, np.arange(40) // 2 % 2]
    y = pd.DataFrame(y, columns=["cat", "dog"], index=range(100, 140))
    line = make_pipeline(MeanPrototype(), TokenPooling()).set_output(transform="pandas")
    frame = line.fit_transform(tokens, y)
    assert frame.columns.tolist() == ["cat", "dog"]
    plain = make_pipeline(MeanPrototype(), TokenPooling()).fit(tokens, y).transform(tokens)
    np.testing.assert_array_equal(frame, plain)


def test_polars_frames_are_given_where_asked_for(tokens):
    polars = pytest.importorskip("polars")
    frame = TokenPooling().set_output(transform="polars").fit_transform(tokens)
    assert isinstance(frame, polars.DataFrame)
    assert frame.columns == ["a", "b", "c"]


def test_a_union_and_a_classifier_take_scores(tokens):
    y = (tokens.max()[:, 0] > 1.2).astype(int)
    union = FeatureUnion([("max", TokenPooling()), ("mean", TokenPooling("mean"))])
    line = make_pipeline(DifferenceInMeans(), union, LogisticRegression()).fit(tokens, y)
    scores = DifferenceInMeans().fit(tokens, y).transform(tokens)
    expected = LogisticRegression().fit(np.c_[scores.max(), scores.mean()], y)
    np.testing.assert_allclose(
        line.predict_proba(tokens),
        line[-1].predict_proba(np.c_[scores.max(), scores.mean()]),
        rtol=1e-6,
    )
    np.testing.assert_allclose(line[-1].coef_, expected.coef_, rtol=1e-4)
    assert line[:-1].get_feature_names_out().tolist() == ["max__1", "mean__1"]


def test_texts_stand_beside_other_columns():
    table = pd.DataFrame(
        {"text": ["the happy cat", "angry cat", "not happy at all", "x"] * 3, "age": range(12)}
    )
    embedder = TransformerEmbedder(tiny_models.text_pair("bert"), layer=1)
    columns = ColumnTransformer(
        [
            ("text", make_pipeline(embedder, MeanPrototype(), TokenPooling()), "text"),
            ("rest", "passthrough", ["age"]),
        ]
    ).set_output(transform="pandas")
    frame = columns.fit_transform(table, ["yes", "no", "yes", "no"] * 3)
    assert frame.columns.tolist() == ["text__yes", "rest__age"]
    scores = make_pipeline(embedder, MeanPrototype()).fit(table.text, [1, 0, 1, 0] * 3)
    np.testing.assert_allclose(frame["text__yes"], scores.transform(table.text).max()[:, 0])


LABELS = [
    [3, 2, 1, 0],
    [10, 11, 12, 13],
    ["d", "b", "c", "a"],
    pd.MultiIndex.from_tuples([(1, "b"), (0, "a"), (1, "a"), (0, "b")]),
]


@pytest.mark.parametrize("labels", LABELS, ids=["permuted", "others", "texts", "two levels"])
@pytest.mark.parametrize("step", [None, SelectLayer(1), JoinLayers()], ids=repr)
def test_rows_of_frames_stay_beside_each_other_whatever_the_index(labels, step):
    texts = ["the happy cat", "angry cat", "not happy at all", "x"]
    table = pd.DataFrame({"text": texts, "n": [len(text) for text in texts]}, index=labels)
    layer = 1 if step is None else [0, 1]
    embedder = TransformerEmbedder(tiny_models.text_pair("bert"), layer=layer)
    line = make_pipeline(embedder, step or "passthrough", TokenScaler(), TokenPooling("mean"))
    plain = clone(line).fit_transform(texts)
    columns = ColumnTransformer([("t", line, "text"), ("n", "passthrough", ["n"])])
    frame = columns.set_output(transform="pandas").fit_transform(table)
    assert frame.index.equals(table.index)
    assert frame["n__n"].tolist() == table.n.tolist()
    np.testing.assert_allclose(frame.drop(columns="n__n"), plain, rtol=1e-5)

    both = [("t", line), ("mean", clone(embedder).set_params(layer=1, pooling="mean"))]
    union = FeatureUnion(both).set_output(transform="pandas").fit_transform(table.text)
    assert union.index.equals(table.index)
    np.testing.assert_allclose(union.iloc[:, : plain.shape[1]], plain, rtol=1e-5)


def test_scores_out_of_fold_keep_their_rows(rng):
    y = np.arange(20) % 2
    samples = [rng.normal(size=(3, 2)) + label for label in y]
    column = pd.Series(samples, index=rng.permutation(20) + 5)
    crossed = CrossFitTransformer(MeanPrototype(), random_state=0)
    scores = crossed.fit_transform(column, y)
    assert scores.row_labels.equals(column.index)
    frame = TokenPooling().set_output(transform="pandas").fit_transform(scores)
    assert frame.index.equals(column.index)
    np.testing.assert_array_equal(frame, scores.max())
    # Where nothing is known of rows, they are numbered.
    numbered = TokenPooling().set_output(transform="pandas").fit_transform(samples)
    assert numbered.index.tolist() == list(range(20))


def test_a_column_of_token_arrays_is_taken(tokens):
    table = pd.DataFrame({"tokens": pd.Series(tokens.to_list(), dtype=object), "age": range(40)})
    columns = ColumnTransformer([("t", TokenPooling("mean"), "tokens")], remainder="passthrough")
    expected = np.c_[tokens.mean(), np.arange(40)]
    np.testing.assert_allclose(columns.fit_transform(table), expected)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pool": "min"}, "'pool' parameter of TokenPooling must be a str among"),
        ({"window": 2}, 'window, top and share belong to pool="windows"; with pool="max"'),
        ({"pool": "mean", "share": 0.5}, 'with pool="mean" leave them out'),
        ({"pool": "windows", "top": 2, "share": 0.5}, "both say how many windows count"),
        ({"pool": "windows", "window": 9}, "window=9 is longer than every sample; the longest"),
        ({"pool": "windows", "window": True}, "'window' parameter of TokenPooling must be an int"),
    ],
)
def test_bad_settings(tokens, params, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TokenPooling(**params).fit(tokens)


def test_tokens_of_another_layer_or_width_are_refused(tokens):
    with pytest.raises(NotFittedError):
        TokenPooling().transform(tokens)
    pooling = TokenPooling().fit(tokens.with_source(Source("m", block=3)))
    with pytest.raises(ValueError, match="X comes from another block"):
        pooling.transform(tokens.with_source(Source("m", block=4)))
    with pytest.raises(ValueError, match="X has 2 features"):
        clone(pooling).fit(tokens).transform(tokens.columns([0, 1]))


def test_detectors_read_what_a_frame_names(tokens):
    y = np.arange(40) % 2
    line = make_pipeline(MeanPrototype(), TokenPooling(), MaxToken(0.5))
    expected = line.fit(tokens, y).predict(tokens)
    framed = clone(line).set_output(transform="pandas").fit(tokens, y)
    np.testing.assert_array_equal(framed.predict(tokens), expected)
