"""What is said about samples, in each form; bad inputs end before the model runs."""

import numpy as np
import pandas as pd
import pytest

from skact import TransformerEmbedder
from skact.auto._labels import read

TEXTS = ["the cat sat", "happy cat", "angry", "the happy one"]
SPANS = [[(4, 7, "animal")], [(0, 5, "mood"), (6, 9, "animal")], [(0, 5, "mood")], []]
PRESENT = [[1, 0], [1, 1], [0, 1], [0, 0]]


@pytest.fixture(scope="module")
def embedder(bert_folder):
    return TransformerEmbedder(bert_folder)


def test_spans_say_what_samples_hold(embedder):
    labels = read(embedder, TEXTS, None, None, SPANS, None)
    assert labels.encoder.names == ["animal", "mood"]
    assert labels.present.tolist() == PRESENT
    assert labels.tokens[1].tolist() == [[False, True], [True, False]]


def test_spans_go_by_the_names_of_y(embedder):
    y = pd.DataFrame(PRESENT, columns=["animal", "mood"])[["mood", "animal"]]
    labels = read(embedder, TEXTS, y, None, SPANS, None)
    assert labels.encoder.names == ["mood", "animal"]
    assert labels.tokens[1].tolist() == [[True, False], [False, True]]
    one = read(embedder, TEXTS, ["a", "b", "a", "a"], None, [[], [(0, 5, "x")], [], []], None)
    assert one.encoder.names == ["b"]
    assert one.tokens.sum().ravel().tolist() == [0, 1, 0, 0]


def test_what_is_unknown_may_be_labelled(embedder):
    y = pd.DataFrame(PRESENT, columns=["animal", "mood"], dtype=float)
    y.loc[1, "mood"] = None
    labels = read(embedder, TEXTS, y, None, SPANS, None)
    assert np.isnan(labels.present[1, 1])


def test_without_labels_of_tokens_each_counts_as_its_sample(embedder):
    labels = read(embedder, TEXTS, PRESENT, None, None, None)
    tokens = embedder.transform(TEXTS)
    weak = labels.of_tokens(tokens)
    assert weak.feature_names == ("concept0", "concept1")
    np.testing.assert_array_equal(weak.max(), PRESENT)
    np.testing.assert_array_equal(weak.mean(), PRESENT)


def test_token_labels_say_what_samples_hold(embedder):
    own = embedder.align_spans(TEXTS, SPANS)
    for given in (own, own.to_list()):
        labels = read(embedder, TEXTS, None, given, None, None)
        assert labels.present.tolist() == PRESENT


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs y, token_labels, spans or masks"),
        (
            {"spans": SPANS, "masks": [0]},
            "give one of token_labels, spans and masks, got spans",
        ),
        ({"y": PRESENT[:2]}, "y has 2 samples, raw has 4"),
        ({"y": PRESENT, "spans": SPANS}, "pass y as a data frame with a column per label"),
        ({"spans": SPANS[:2]}, "2 .*4|4 .*2"),
        ({"masks": [np.ones((4, 4, 1))] * 4}, "text"),
        ({"token_labels": [np.ones((1, 1), bool)] * 3}, "token_labels has 3 samples, raw has 4"),
        (
            {"token_labels": [np.ones((2, 1), bool)] * 4},
            "sample 0 has 2 labelled tokens and 3 tokens",
        ),
        (
            {"y": pd.DataFrame([[0, 0], [1, 1], [0, 1], [0, 0]], columns=["animal", "mood"])}
            | {"spans": SPANS},
            "marks tokens of concept 0 .'animal'. in sample 0, but y says",
        ),
    ],
)
def test_bad_input(embedder, given, message):
    nothing = dict.fromkeys(("y", "token_labels", "spans", "masks"))
    with pytest.raises((ValueError, TypeError), match=message):
        read(embedder, TEXTS, **(nothing | given))
