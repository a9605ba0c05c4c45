"""Sample labels and token labels: every form means the same, and every bad one is refused."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone

from skact import LinearSeparator, MaxToken, MeanPrototype, SuperActivator, TokenArray
from skact.rows import Mapped
from skact.targets import Targets, check_targets, check_token_labels, in_order_of_fit

LABELLED = [MeanPrototype(), LinearSeparator(), SuperActivator(), MaxToken()]
DETECTORS = [SuperActivator(), MaxToken()]


def names(estimators):
    return pytest.mark.parametrize("estimator", estimators, ids=lambda e: type(e).__name__)


@pytest.fixture
def samples(rng):
    return [rng.normal(size=(n, 3)) for n in (2, 1, 4, 3, 2, 5)]


@pytest.fixture
def y():
    return np.array([0, 1, 0, 1, 1, 0])


@names(LABELLED)
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        ([0, 1], "y has 2 samples, X has 6"),
        (np.ones((4, 2), int), "y has 4 samples, X has 6"),
        (np.ones((6, 0), int), r"y has no columns, shape \(6, 0\)"),
        ([1, 1, 1, 1, 1, 1], "y has one class only"),
        (["a"] * 6, "y has one class only"),
        ([0.5, 1.2, 0, 1, 3.7, 0], "continuous"),
        ([0, 1, np.nan, 1, 0, 1], "y contains NaN"),
        ([[0, 1], [1, np.nan], [0, 0], [1, 1], [0, 0], [1, 1]], "y contains NaN"),
        (np.array([[0, 1]] * 6), "concept 0 has no positive sample in y"),
        (
            pd.DataFrame([[1, 0]] * 6, columns=["cat", "dog"]),
            r"concept 1 \('dog'\) has no positive sample",
        ),
        (np.array([[0, 2]] * 6), "y should be a 1d array"),
        # A 3-D X is fine, so the message must say that y is meant.
        (np.zeros((6, 2, 2)), r"\by\b"),
        (3, "y should be a 1d array|scalar|singleton"),
    ],
)
def test_bad_targets(estimator, y, message, samples):
    with pytest.raises((ValueError, TypeError), match=message):
        clone(estimator).fit(samples, y)


NULLABLE = [0, 1, None, 1, 0, None]
PAIRS = [[0, 1], [1, 0], [0, 0], [1, 1], [0, 1], [1, 1]]


def pairs(**changes):
    frame = pd.DataFrame(PAIRS, columns=["cat", "dog"]).astype(object)
    for column, value in changes.items():
        frame.loc[3, column] = value
    return frame


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (pd.Series(NULLABLE, dtype="Int64"), r"no value at sample 2 .*2 of 6 in all; leave these"),
        (pd.Series(NULLABLE, dtype="boolean"), r"no value at sample 2 \(<NA>\), 2 of 6"),
        (pd.Series(NULLABLE, dtype="Float64"), "no value at sample 2"),
        (pd.Series(["a", "b", None, "b", "a", "a"], dtype="string"), r"sample 2 \(<NA>\), 1 of 6"),
        (pd.Series(["a", "b", None, "b", "a", "a"], dtype="category"), "no value at sample 2"),
        (np.array(["a", "b", np.nan, "b", "a", "a"], object), r"sample 2 \(nan\)"),
        (NULLABLE, r"sample 2 \(None\), 2 of 6"),
        ([0, 1, np.inf, 1, 0, 1], r"sample 2 \(inf\)"),
        (np.ma.array([0, 1, 1, 1, 0, 0], mask=[0, 0, 1, 0, 0, 0]), r"sample 2 \(None\)"),
        (pairs(dog=None).astype("Int64"), r"sample 3, column 'dog' \(<NA>\), 1 of 12"),
        (pairs(dog=None).astype("boolean"), r"sample 3, column 'dog' \(<NA>\)"),
        (pairs(cat=np.nan).astype(float), r"sample 3, column 'cat' \(nan\)"),
        (pairs(cat=np.nan).astype(float).to_numpy(), r"sample 3, column 0 \(nan\)"),
        (pairs(cat="x"), "mixes types, as 0 at sample 0, column 'cat' and 'x' at sample 3"),
        (pairs(cat=2), r"matrix of 0 and 1 with a column per concept; sample 3, column 'cat' is 2"),
        ([["a", "b"]] * 6, "holds lists of labels"),
        (np.array([["a", "b"]] * 6), "sample 0, column 0 is 'a'"),
        ([0, "1", 1, 0, 1, 0], "mixes types, as 0 at sample 0 and '1' at sample 1; use one type"),
        (["a", "b", 0, "b", True, "a"], "mixes types, as 'a' at sample 0 and 0 at sample 2"),
        (np.array([True, "no", False, "a", 1, 0], object), "as True at sample 0 and 'no'"),
        ([["cat"], ["cat", "dog"], [], [], [], []], "holds lists of labels.*MultiLabelBinarizer"),
        (pd.Series([["cat"], ["dog"], [], [], [], []]), "holds lists of labels"),
        (np.array(1), "should be a 1d array.*0-D"),
        ("abcdef", "with an entry per sample, got a str"),
        (dict.fromkeys(range(6), 1), "got a dict"),
        ({0, 1, 2, 3, 4, 5}, "got a set"),
        ((one for one in range(6)), "got a generator"),
    ],
)
def test_targets_with_holes_or_of_several_types(y, message):
    with pytest.raises(ValueError, match=message):
        check_targets(SuperActivator(), y, 6)


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (pd.Series([0, 1, 0, 1, 1, 0], dtype="Int64"), [0, 1]),
        (pd.Series([0, 1, 0, 1, 1, 0], dtype="boolean"), [False, True]),
        (np.array([0, 1, 0, 1, 1, 0], object), [0, 1]),
        ([False, 1, 0, True, 1, 0], [0, 1]),
        (pd.Series(list("ababba"), dtype="string"), ["a", "b"]),
        (pd.Series(list("ababba"), dtype="category"), ["a", "b"]),
        (np.array(list("ababba"), np.dtypes.StringDType()), ["a", "b"]),
        (np.ma.array([0, 1, 0, 1, 1, 0]), [0, 1]),
    ],
)
def test_classes_of_every_type_are_taken(y, classes):
    targets = check_targets(SuperActivator(), y, 6)
    assert targets.present[:, 0].tolist() == [False, True, False, True, True, False]
    assert targets.classes.tolist() == classes


def test_two_concepts_of_one_name_are_refused(samples):
    y = pd.DataFrame(PAIRS, columns=["joy", "joy"])
    with pytest.raises(ValueError, match="y names two concepts 'joy'; names tell concepts apart"):
        MeanPrototype().fit(samples, y)
    labels = TokenArray.from_list(
        [np.repeat([row], len(sample), axis=0) for row, sample in zip(PAIRS, samples, strict=True)],
        feature_names=["joy", "joy"],
    )
    with pytest.raises(ValueError, match="token_labels names two concepts 'joy'"):
        MeanPrototype().fit(samples, np.array(PAIRS), token_labels=labels)


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "Float64", object, "int8"])
def test_an_indicator_table_may_be_nullable(dtype):
    frame = pairs().astype(dtype)
    mixed = frame.assign(dog=frame["dog"].astype("boolean"))
    for y in (frame, mixed):
        targets = check_targets(SuperActivator(), y, 6)
        assert targets.present.tolist() == np.array(PAIRS, bool).tolist()
        assert targets.names == ["cat", "dog"]


@names(DETECTORS)
@pytest.mark.parametrize("y", [[0, 1, 2, 0, 1, 2], list("abcabc")])
def test_of_three_classes_each_is_a_concept(estimator, y, samples):
    for one in (clone(estimator), MeanPrototype()):
        assert one.fit(samples, y).concept_names_.tolist() == [str(c) for c in y[:3]]


def mark(samples, present):
    """Label the first token of each positive sample."""
    labels = []
    for sample, row in zip(samples, np.atleast_2d(present.T).T, strict=True):
        label = np.zeros((len(sample), len(row)), bool)
        label[0] = row
        labels.append(label)
    return labels


@pytest.mark.parametrize("form", ["tokens", "list", "vectors", "integers", "floats"])
def test_all_forms_of_token_labels_mean_the_same(samples, y, form):
    labels = mark(samples, y)
    given = {
        "tokens": TokenArray.from_list(labels),
        "list": labels,
        "vectors": [label[:, 0] for label in labels],
        "integers": [label.astype(int) for label in labels],
        "floats": TokenArray.from_list([label.astype(np.float32) for label in labels]),
    }[form]
    expected = np.mean([s[0] for s, present in zip(samples, y, strict=True) if present], axis=0)
    method = MeanPrototype().fit(samples, y, given)
    np.testing.assert_allclose(method.concept_vectors_, expected[None], rtol=1e-6)
    # Without labels, every token of a positive sample counts.
    weak = np.concatenate([s for s, present in zip(samples, y, strict=True) if present])
    method = MeanPrototype().fit(samples, y)
    np.testing.assert_allclose(method.concept_vectors_, weak.mean(axis=0)[None])


def test_token_labels_of_a_matrix_are_a_matrix(rng, y):
    X = rng.normal(size=(6, 3))
    for labels in (y[:, None], y[:, None].astype(bool)):
        method = MeanPrototype().fit(X, y, labels)
        np.testing.assert_allclose(method.concept_vectors_, X[y == 1].mean(axis=0)[None])


def change(labels, **steps):
    """Break one thing about good labels."""
    labels = [label.copy() for label in labels]
    if "shorten" in steps:
        labels[steps["shorten"]] = labels[steps["shorten"]][:-1]
    if "mark" in steps:
        labels[steps["mark"]][-1] = True
    if "double" in steps:
        labels = [np.hstack([label, label]) for label in labels]
    if "empty" in steps:
        labels = [np.zeros_like(label) for label in labels]
    if "value" in steps:
        labels = [label * steps["value"] for label in labels]
    return labels


@names(LABELLED)
@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda labels: labels[:5], "token_labels has 5 samples, X has 6"),
        (
            lambda labels: change(labels, shorten=3),
            "does not match the tokens: sample 3 has 2 labelled tokens and 3 tokens",
        ),
        (lambda labels: change(labels, double=1), "token_labels has 2 concepts, y has 1"),
        (
            lambda labels: change(labels, mark=2),
            r"marks tokens of concept 0.* in sample 2, but y says that the sample does not",
        ),
        (lambda labels: change(labels, empty=1), r"concept 0.* has no positive token"),
        (lambda labels: change(labels, value=2.0), "must be bool or 0 and 1, got dtype float"),
    ],
    ids=["samples", "lengths", "concepts", "negative", "nothing", "values"],
)
def test_bad_token_labels(estimator, make, message, tokens, samples, y):
    labels = make(mark(samples, y))
    labels = TokenArray.from_list(labels) if tokens else labels
    with pytest.raises((ValueError, TypeError), match=message):
        clone(estimator).fit(samples, y, token_labels=labels)
    clone(estimator).fit(samples, y, token_labels=mark(samples, y))


@names(LABELLED)
@pytest.mark.parametrize("labels", ["text", 3, {0: [True]}])
def test_token_labels_of_another_kind_are_refused(estimator, labels, samples, y):
    with pytest.raises((TypeError, ValueError), match="token_labels"):
        clone(estimator).fit(samples, y, token_labels=labels)


@names(LABELLED)
def test_names_of_concepts_must_agree(estimator, samples, y):
    present = np.column_stack([y, 1 - y])
    frame = pd.DataFrame(present, columns=["cat", "dog"])
    labels = TokenArray.from_list(mark(samples, present), feature_names=["cat", "dog"])
    swapped = TokenArray.from_list(mark(samples, present), feature_names=["dog", "cat"])
    for given in (frame, present):
        fitted = clone(estimator).fit(samples, given, labels)
        assert fitted.concept_names_.tolist() == ["cat", "dog"]
    assert clone(estimator).fit(samples, frame).concept_names_.tolist() == ["cat", "dog"]
    assert clone(estimator).fit(samples, present).concept_names_.tolist() == [
        "concept0",
        "concept1",
    ]
    message = r"names the concepts \['dog', 'cat'\], y names \['cat', 'dog'\]"
    with pytest.raises(ValueError, match=message):
        clone(estimator).fit(samples, frame, swapped)


@names(DETECTORS)
def test_score_columns_in_another_order_than_y_are_not_mixed_up(estimator, samples, y):
    """Columns named (cat, dog) and y named (dog, cat) must not be paired by position."""
    frame = pd.DataFrame(np.column_stack([y, 1 - y]), columns=["cat", "dog"])
    scores = MeanPrototype().fit(samples, frame).transform(samples)
    assert scores.feature_names == ("cat", "dog")
    right = clone(estimator).fit(scores, frame)
    try:
        swapped = clone(estimator).fit(scores, frame[["dog", "cat"]])
    except ValueError as error:
        assert "cat" in str(error)  # noqa: PT017
        return
    np.testing.assert_array_equal(swapped.thresholds_, right.thresholds_[::-1])


def test_a_concept_without_name_or_token_is_called_by_what_is_known(samples, y):
    present = np.column_stack([y, 1 - y])
    labels = mark(samples, present)
    for label in labels:
        label[:, 1] = False
    named = TokenArray.from_list(labels, feature_names=["cat", "dog"])
    with pytest.raises(ValueError, match="concept 1 has no positive token"):
        MeanPrototype().fit(samples, present, labels)
    with pytest.raises(ValueError, match=r"concept 1 \('dog'\) has no positive token"):
        MeanPrototype().fit(samples, present, named)


@pytest.mark.parametrize(
    ("y", "present", "classes"),
    [
        ([0, 1, 1], [[0], [1], [1]], [0, 1]),
        ([True, False, True], [[1], [0], [1]], [False, True]),
        (["no", "yes", "no"], [[0], [1], [0]], ["no", "yes"]),
        ([[0], [2], [0]], [[0], [1], [0]], [0, 2]),
        ([[1, 0], [1, 1], [0, 0]], [[1, 0], [1, 1], [0, 0]], None),
        ([[1], [1], [1]], [[1], [1], [1]], None),
        ([1, 2, 5], [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [1, 2, 5]),
    ],
)
@pytest.mark.filterwarnings("ignore:A column-vector y")
def test_targets_say_who_holds_what(y, present, classes):
    targets = check_targets(MeanPrototype(), np.array(y), 3)
    np.testing.assert_array_equal(targets.present, np.array(present, bool), strict=True)
    assert (targets.classes is None) == (classes is None)
    if classes is not None:
        assert targets.classes.tolist() == classes
    labels, same = check_token_labels(None, TokenArray(np.ones((6, 1)), [0, 1, 3, 6]), targets)
    assert same == targets or same is targets
    np.testing.assert_array_equal(labels.flat(), np.repeat(present, [1, 2, 3], axis=0))


def test_token_labels_of_zeros_and_ones_on_disk_can_be_sent(tmp_path):
    np.array([[0], [1], [1], [0]], np.float32).tofile(tmp_path / "labels")
    stored = TokenArray(np.memmap(tmp_path / "labels", np.float32, "r", shape=(4, 1)), [0, 2, 4])
    targets = Targets(np.ones((2, 1), bool), None, None)
    tokens = TokenArray(np.zeros((4, 3)), [0, 2, 4])
    with config_context(working_memory=0):
        labels, _ = check_token_labels(stored, tokens, targets)
        assert isinstance(labels.values, Mapped)
        for same in (labels, pickle.loads(pickle.dumps(labels))):
            assert same.dtype == bool
            assert same.flat().ravel().tolist() == [False, True, True, False]


def test_columns_come_in_the_order_of_fit():
    frame = pd.DataFrame([[1, 2], [3, 4]], columns=["dog", "cat"])
    assert in_order_of_fit(frame, ["cat", "dog"]).tolist() == [[2, 1], [4, 3]]
    for names in (["dog", "cat"], None, ["concept0", "concept1"]):
        assert in_order_of_fit(frame, names) is frame
    assert in_order_of_fit([[1, 2]], ["cat", "dog"]) == [[1, 2]]
    assert in_order_of_fit(frame, ["a", "b"], others_may_do=True) is frame
    message = r"y names its columns \['dog', 'cat'\], in fit they were \['a', 'b'\]"
    with pytest.raises(ValueError, match=message):
        in_order_of_fit(frame, ["a", "b"])


@names(LABELLED)
@pytest.mark.parametrize("name", ["", "  "])
def test_empty_names_of_concepts_are_refused_by_their_place_in_y(estimator, samples, y, name):
    frame = pd.DataFrame(np.column_stack([y, 1 - y]), columns=["cat", name])
    with pytest.raises(ValueError, match="column 1 of y must have a name"):
        clone(estimator).fit(samples, frame)
    with pytest.raises(ValueError, match="class 0 of y must have a name"):
        clone(estimator).fit(samples, [name, "a", "b"] * 2)
    half = "c\ud800"
    with pytest.raises(ValueError, match=r"column 1 of y holds .* half of a surrogate"):
        clone(estimator).fit(samples, frame.set_axis(pd.Index(["cat", half], dtype=object), axis=1))
    with pytest.raises(ValueError, match=r"class 1 of y holds .* half of a surrogate"):
        clone(estimator).fit(samples, ["b", half, "d"] * 2)
    # What is no concept needs no name.
    clone(estimator).fit(samples, [name, "a"] * 3)
