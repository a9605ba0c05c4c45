"""What goes into a file, what does not, and what is refused by name."""

from pathlib import Path

import numpy as np
import pytest
from sklearn import model_selection
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, LeaveOneOut, PredefinedSplit
from sklearn.pipeline import make_pipeline

import skact
from skact import ConceptSearchCV, MaxToken, MeanPrototype, SuperActivator, TokenScaler
from skact.persistence import _classes
from skact.persistence._decoding import decode
from skact.persistence._encoding import Encoder


def there_and_back(thing):
    """Anything, as a fitted attribute of which nothing is known."""
    encoder, made = Encoder(), TokenScaler()
    made.anything_ = thing
    encoder.value(made, "scaler")
    return decode(encoder.nodes, encoder.tensors).anything_


LONG = np.arange(600, dtype=np.int32).reshape(2, 300)


@pytest.mark.parametrize(
    "thing",
    [
        *(None, True, False, 0, -(10**30), "ä\ud800\0", 0.1, -0.0, 5e-324, 1e308),
        *([1, [2.5, None]], (), ((1,), "a"), {"a": {1: 2, None: 0.5, False: [3]}}, range(3, 9, 2)),
        *(Path("a/b"), np.float32(0.1), np.int64(3), np.bool_(True), np.str_("b"), np.dtype("f4")),
        *(np.array([]), np.zeros((0, 3), np.float16), np.array(5), np.array([1, 2], ">i4")),
        *(np.array(["a", "bcd", ""]), np.array([["x", None], [3, ("y",)]], object), LONG, LONG.T),
        np.ma.MaskedArray(np.array([1, None], object), mask=[False, True]),
    ],
    ids=lambda thing: f"{type(thing).__name__} {str(thing)[:20]}",
)
def test_plain_values_come_back(thing):
    back = there_and_back(thing)
    assert type(back) is type(thing)
    assert repr(back) == repr(thing).replace("'>i4'", "int32")
    if isinstance(thing, np.ndarray):
        assert (back.shape, back.dtype.kind) == (thing.shape, thing.dtype.kind)
        assert np.array_equal(back, thing)
        # In another order products may be summed otherwise.
        assert back.flags.f_contiguous == thing.flags.f_contiguous


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_json_has_not_come_back(value):
    assert repr(there_and_back(value)) == repr(value)
    assert repr(there_and_back(np.array([value, 1.0]))) == repr(np.array([value, 1.0]))


@pytest.mark.parametrize("name", _classes._CLASSES["sklearn.model_selection"])
def test_splitters_come_back_and_split_the_same(name):
    made = {
        "PredefinedSplit": PredefinedSplit([0, 1, 0, 1, -1] * 4),
        "LeaveOneOut": LeaveOneOut(),
        "LeaveOneGroupOut": LeaveOneGroupOut(),
    }.get(name) or getattr(model_selection, name)(2)
    if hasattr(made, "random_state"):
        made.random_state = 5
    X, y, groups = np.zeros((20, 1)), np.arange(20) % 2, np.arange(20) // 4
    one, other = (list(m.split(X, y, groups)) for m in (made, there_and_back(made)))
    assert str(one) == str(other)


def test_what_is_one_stays_one():
    one = [1, 2]
    back = there_and_back([one, one, [1, 2]])
    assert back[0] is back[1]
    assert back[0] is not back[2]


def deep(n):
    thing = []
    for _ in range(n):
        thing = [thing]
    return thing


def circle():
    thing = [1]
    thing.append({"again": thing})
    return thing


class Mine(MeanPrototype):
    pass


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (len, r"scaler\.anything_ is builtins\.builtin_function_or_method.*functions never are"),
        (lambda: 1, r"functions never are. Set another value by set_params\(...\) before"),
        ([{"a": open}], r"scaler\.anything_\[0\]\['a'\] is .*cannot be saved"),
        (
            Mine(),
            r"scaler\.anything_ is tests.*Mine, which cannot be saved: files hold estimators of",
        ),
        (LogisticRegression(), "LogisticRegression, which cannot be saved.*or use skops"),
        (skact.TokenArray(np.ones((2, 1)), [0, 2]), "TokenArray, which cannot be saved"),
        (object(), r"builtins\.object, which cannot be saved; files hold"),
        ({(1, 2): 3}, r"scaler\.anything_ has the key \(1, 2\); only texts and numbers"),
        (np.array(["2020-01-01"], "M8[D]"), r"is an array of datetime64\[D\], which cannot"),
        (np.array([1 + 2j]), "is an array of complex128, which cannot"),
        (np.array([b"a"]), r"is an array of \|S1, which cannot"),
        (np.array([object()]), r"builtins\.object, which cannot"),
    ],
)
def test_what_cannot_be_saved_is_named(thing, message):
    with pytest.raises(TypeError, match=message):
        there_and_back(thing)


@pytest.mark.parametrize(("thing", "message"), [(circle(), "holds itself"), (deep(10**4), "deep")])
def test_circles_and_depth_are_refused(thing, message):
    with pytest.raises(ValueError, match=message):
        there_and_back(thing)


def test_texts_of_very_different_lengths_are_no_array():
    texts = np.array(["x" * 10**6] + [""] * 10**2)
    with pytest.raises(ValueError, match="claim a size of"):
        there_and_back(texts)


def test_a_search_of_scikit_learn_says_what_to_save(tmp_path):
    search = GridSearchCV(MaxToken(), {"delta": [0.1]})
    with pytest.raises(TypeError, match="Save what was fitted inside, such as best_estimator_"):
        skact.save(search, tmp_path / "a")


def test_a_score_of_ones_own_is_named(tmp_path):
    search = ConceptSearchCV(SuperActivator(), {"delta": [0.1]}, scoring=max)
    with pytest.raises(TypeError, match=r"ConceptSearchCV\.scoring is .*set_params"):
        skact.save(search, tmp_path / "a")
    skact.save(search.set_params(scoring="f1"), tmp_path / "a")


def test_an_attribute_that_is_none_of_ours_is_named(tmp_path):
    scaler = TokenScaler()
    scaler.note = 1
    with pytest.raises(TypeError, match=r"TokenScaler\.note is no parameter or fitted attribute"):
        skact.save(scaler, tmp_path / "a")


def test_what_belongs_to_a_machine_is_left_out(tmp_path):
    embedder = skact.TransformerEmbedder("a", store=tmp_path / "store", progress=True)
    encoder = Encoder()
    line = make_pipeline(embedder, memory=str(tmp_path), verbose=True)
    encoder.value(line, "Pipeline")
    assert sorted(encoder.left_out) == [
        *("Pipeline.memory", "Pipeline.verbose", "TransformerEmbedder.progress"),
        "TransformerEmbedder.store",
    ]
    back = decode(encoder.nodes, encoder.tensors)
    assert (back.memory, back.verbose) == (None, False)
    assert (back[0].store, back[0].progress) == (None, False)
    assert str(tmp_path) not in str(encoder.nodes)


def test_nothing_of_what_is_saved_changes():
    scaler = TokenScaler()
    scaler.anything_ = LONG
    encoder = Encoder()
    encoder.value(scaler, "scaler")
    back = decode(encoder.nodes, {k: v.copy() for k, v in encoder.tensors.items()})
    back.anything_[:] = 0
    assert LONG.any()
