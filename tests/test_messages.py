"""What would be silently wrong is said, in words that lead out of it; and nothing else is."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.pipeline import Pipeline, make_pipeline

import skact
from skact import TokenArray, TransformerEmbedder
from tests.tiny_models import text_pair

TEXTS = [f"the cat sat {word}" for word in ["happy", "angry", "not", "the", "cat", "sat"]]
Y = np.arange(6) % 2
PATHS = [f"photographs/{i} of a cat.JPG" for i in range(6)]


@pytest.fixture(scope="module")
def embedder():
    return TransformerEmbedder(text_pair("bert"), layer=1)


@pytest.fixture(scope="module")
def tokens(embedder):
    return embedder.transform(TEXTS)


@pytest.fixture(scope="module")
def token_labels(tokens):
    return [np.arange(n)[:, None] < y for n, y in zip(tokens.lengths, Y, strict=True)]


def line(detector=None, concepts=None):
    concepts, detector = concepts or skact.LinearSeparator(), detector or skact.SuperActivator()
    return Pipeline([("concepts", concepts), ("detect", detector)])


def crossed():
    return skact.CrossFitTransformer(skact.LinearSeparator(), cv=2)


def layered(layer):
    return TransformerEmbedder(text_pair("bert"), layer=layer).transform(TEXTS)


# What is done with an embedder, tokens and their labels; and what the warning must say, if any.
SAID = {
    "detector behind the embedder": (
        lambda e, X, t: make_pipeline(e, skact.SuperActivator()).fit(TEXTS, Y),
        "given activations .* put a concept method before it",
    ),
    "detector behind a scaler": (
        lambda e, X, t: make_pipeline(skact.TokenScaler(), skact.MaxToken()).fit(X, Y),
        "takes each of the 32 features for a concept",
    ),
    "features on purpose": (
        lambda e, X, t: skact.MaxToken().fit(X.with_source(None), Y),
        None,
    ),
    "detector behind concepts": (lambda e, X, t: line().fit(X, Y), None),
    "detector behind units": (
        lambda e, X, t: make_pipeline(skact.PCAConcepts(2), skact.MaxToken()).fit(X, Y),
        None,
    ),
    "labels to the concepts only": (
        lambda e, X, t: line().fit(X, Y, concepts__token_labels=t),
        "given to the concept method .* not to SuperActivator.*enable_metadata_routing=True",
    ),
    "labels to crossed concepts only": (
        lambda e, X, t: line(None, crossed()).fit(X, Y, concepts__token_labels=t),
        "given to the concept method .* not to SuperActivator",
    ),
    "labels to streamed concepts only": (
        lambda e, X, t: skact.SuperActivator().fit(
            skact.MeanPrototype().partial_fit(X, Y, t).transform(X), Y
        ),
        "given to the concept method .* not to SuperActivator",
    ),
    "labels to the detector only": (
        lambda e, X, t: line().fit(X, Y, detect__token_labels=t),
        "given to SuperActivator and not to the concept method",
    ),
    "labels to both": (
        lambda e, X, t: line().fit(X, Y, concepts__token_labels=t, detect__token_labels=t),
        None,
    ),
    "a detector that reads no labels of tokens": (
        lambda e, X, t: line(skact.MaxToken()).fit(X, Y, concepts__token_labels=t),
        None,
    ),
    "concepts made for sample labels": (
        lambda e, X, t: line(concepts=skact.MaxSeparator()).fit(X, Y, detect__token_labels=t),
        None,
    ),
    "paths of images as texts": (
        lambda e, X, t: e.transform(PATHS),
        "all 6 samples end as names of image files.*'BertModel' is used for texts",
    ),
    "a text that ends so": (lambda e, X, t: e.transform([*TEXTS, PATHS[0]]), None),
    "1.0 beside blocks": (
        lambda e, X, t: layered([1, 1.0]),
        r"1\.0 is the whole depth, which is block 3, and 1 the second",
    ),
    "depths alone": (lambda e, X, t: layered([0.5, 1.0]), None),
    "blocks and depths that none is taken for": (lambda e, X, t: layered([0, 0.5, 1.0]), None),
}


@pytest.mark.parametrize("case", SAID)
def test_what_would_be_silently_wrong_is_said_once(case, embedder, tokens, token_labels):
    do, expected = SAID[case]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        do(embedder, tokens, token_labels)
    said = [str(one.message) for one in caught]
    assert len(said) == (expected is not None), said
    assert expected is None or re.search(expected, said[0]), said
    assert all(one.filename == __file__ for one in caught)


LISTS = [
    [["a"], ["b", "c"]] * 3,
    [["a", "c"], ["b", "c"]] * 3,
    [("a",), ()] * 3,
    [{"a"}, set()] * 3,
    pd.Series([["a"], ["b", "c"]] * 3),
    pd.Series([["a", "c"], ["b", "c"]] * 3),
    [[0, 2], [1, 3]] * 3,
]


@pytest.mark.parametrize("y", LISTS, ids=repr)
@pytest.mark.parametrize("kind", ["concepts", "detector"])
def test_lists_of_labels_are_told_to_become_a_matrix(tokens, y, kind):
    estimator = skact.MeanPrototype() if kind == "concepts" else skact.MaxToken()
    with pytest.raises(ValueError, match="MultiLabelBinarizer"):
        estimator.fit(tokens.with_source(None), y)


@pytest.mark.parametrize("y", LISTS[:-1], ids=repr)
def test_the_one_obvious_way_takes_no_lists_of_labels_for_columns(y):
    detector = skact.ConceptDetector(text_pair("bert"), layer=1, cv=2)
    with pytest.raises(ValueError, match=r"MultiLabelBinarizer.*data frame"):
        detector.fit(TEXTS, y)


@pytest.mark.parametrize("samples", [[np.zeros((28, 28, 3), np.uint8)], [Path("cat.jpg")]], ids=str)
def test_a_text_model_that_is_given_images_says_which_kind_it_reads(embedder, samples):
    with pytest.raises(TypeError, match=r"sample 0 must be a string.*need a model of images"):
        embedder.transform(samples)


def test_labels_for_a_pipeline_that_is_crossed_name_the_setting(tokens, token_labels):
    inner = make_pipeline(skact.TokenScaler(), skact.LinearSeparator())
    crossed = skact.CrossFitTransformer(inner, cv=2)
    with pytest.raises(ValueError, match=r"enable_metadata_routing=True"):
        crossed.fit_transform(tokens, Y, token_labels=token_labels)
    with config_context(enable_metadata_routing=True):
        scores = crossed.fit_transform(tokens, Y, token_labels=token_labels)
    assert isinstance(scores, TokenArray)
