"""Labels of all forms as concepts, and back."""

import numpy as np
import pandas as pd
import pytest

from skact.auto._encoder import encoder_of_names, read_labels

NAN = float("nan")
NUMBERED = ["concept0", "concept1"]
TABLE = {"joy": [0, 1, 0], "colour": ["red", "blue", "green"], "wet": ["n", "y", "n"]}


@pytest.mark.parametrize(
    ("y", "kind", "names", "present"),
    [
        ([0, 1, 1], "binary", ["1"], [[0], [1], [1]]),
        (["no", "yes", "no"], "binary", ["yes"], [[0], [1], [0]]),
        (["a", "c", "b"], "multiclass", ["a", "b", "c"], [[1, 0, 0], [0, 0, 1], [0, 1, 0]]),
        (pd.Series(["a", None, "b"], dtype="category"), "binary", ["b"], [[0], [NAN], [1]]),
        (
            [[0, 1], [1, 1], [1, 0]],
            "multilabel",
            ["concept0", "concept1"],
            [[0, 1], [1, 1], [1, 0]],
        ),
        ([[0.0, NAN], [1.0, 1.0], [NAN, 0.0]], "multilabel", ["concept0", "concept1"], None),
        (
            pd.DataFrame(
                {"joy": [0, 1, 0], "colour": ["red", "blue", "green"], "wet": ["n", "y", "n"]}
            ),
            "multilabel",
            ["joy", "colour=blue", "colour=green", "colour=red", "wet=y"],
            [[0, 0, 0, 1, 0], [1, 1, 0, 0, 1], [0, 0, 1, 0, 0]],
        ),
    ],
)
def test_labels_become_concepts(y, kind, names, present):
    encoder = read_labels(y, 3)
    assert (encoder.kind, encoder.names) == (kind, names)
    expected = np.asarray(y if present is None else present, float)
    np.testing.assert_array_equal(encoder.encode(y), expected)


@pytest.mark.parametrize("y", [[0, 1, 1], ["no", "yes", "no"], ["a", "c", "b"], [[0, 1], [1, 0]]])
def test_decisions_take_the_form_of_the_labels(y):
    encoder = read_labels(y, len(y))
    # What is certain decodes to what was encoded; classes are chosen by the largest number.
    np.testing.assert_array_equal(encoder.decode(encoder.encode(y) - 0.5), y)
    assert not np.array_equal(encoder.decode(0.5 - encoder.encode(y)), y)


def test_names_alone_make_a_table():
    encoder = encoder_of_names(["sky", "sea"], 2)
    assert encoder.encode([[1, 0]]).tolist() == [[1, 0]]
    assert encoder.classes.tolist() == [0, 1]
    assert encoder_of_names(None, 2).names == ["concept0", "concept1"]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1], "y has 2 samples, raw has 3"),
        ([1, 1, 1], "y holds one value only"),
        ([[0, 1], [0, 0], [0, 1]], "column 0 of y holds one value only"),
        (
            pd.DataFrame({"a": [0, 1, 0], "b": [NAN, NAN, 1]}),
            "column 'b' of y holds one value only",
        ),
        (np.array(["a", 1, 2], object), "y mixes types"),
        (pd.DataFrame([[0, 1], [1, 0], [0, 0]], columns=["a", " "]), "column 1 of y must have a"),
        (["a", "", "b"], "class 0 of y must have a name"),
        ([0.25, 0.75, 2.0], r"y is continuous, as 0\.25 shows"),
        (np.float32([0.25, 1, 1]), r"y is continuous, as 0\.25 shows"),
        (
            pd.DataFrame({"a": [0, 1, 0], "b": pd.array([0.5, None, 1.5], "Float64")}),
            r"column 'b' of y is continuous, as 0\.5 shows",
        ),
        (pd.DataFrame([[0, 1], [1, 0], [0, 0]], columns=["a", "a"]), "two concepts 'a'"),
        ([["a"], ["a", "b"], []], "lists of labels"),
        ("yes", "y must be an array"),
        (np.zeros((3, 2, 2)), "got 3-D"),
    ],
)
def test_bad_labels(y, message):
    with pytest.raises(ValueError, match=message):
        read_labels(y, 3)


def test_labels_that_fit_had_not_are_refused():
    encoder = read_labels(["a", "b", "c"], 3)
    with pytest.raises(ValueError, match="y holds 'd', fit had only"):
        encoder.encode(["a", "d"])
    with pytest.raises(ValueError, match="y has 2 columns, fit had 1"):
        encoder.encode(np.array([["a", "b"]]))


def test_columns_are_found_by_their_names():
    table = pd.DataFrame(TABLE)
    encoder = read_labels(table, 3)
    for given in (table[["wet", "joy", "colour"]], table.to_numpy()):
        np.testing.assert_array_equal(encoder.encode(given), encoder.encode(table))
    with pytest.raises(ValueError, match=r"y names its columns .*'dry'.*, in fit they were"):
        encoder.encode(table.rename(columns={"wet": "dry"}))
    unnamed = read_labels(table.to_numpy(), 3)
    np.testing.assert_array_equal(unnamed.encode(table), unnamed.encode(table.to_numpy()))
