"""A second detector decides what a first is unsure of, and nothing else."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline

import skact
from skact import (
    Cascade,
    ConceptSearchCV,
    DifferenceInMeans,
    LayerStack,
    LinearSeparator,
    MaxToken,
    Monitor,
    PromptDetector,
    SelectLayer,
    SuperActivator,
    TokenArray,
    TokenScaler,
    TopWindows,
)

N = 80
SURE = TopWindows(None, cut=("recall", "false_alarms"), level=(0.8, 0.2))
ONE = np.arange(N) % 2
TWO = np.c_[np.arange(N) % 2, np.arange(N) // 2 % 2]


@pytest.fixture
def X(rng):
    lengths = rng.integers(1, 9, size=N)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.normal(size=(offsets[-1], 6)) + np.repeat(TWO, lengths, axis=0) @ np.eye(6)[:2]
    return TokenArray(values.astype(np.float32), offsets)


def line(detector=SURE):
    return make_pipeline(TokenScaler(), LinearSeparator(), clone(detector))


class Log:
    """A second detector that says what it is told, and remembers what it was asked."""

    def __init__(self, answers):
        self.answers, self.seen = np.asarray(answers), []

    def __call__(self, samples):
        self.seen.append(samples)
        return self.answers[: len(samples)]


def said_by(fitted, X):
    """What the first says, rewritten from its cuts."""
    pooled = fitted[-1].pool(fitted[:-1].transform(X)).astype(float)
    lower, upper = fitted[-1].unsure_thresholds_.T
    return np.where(pooled >= upper, 1, np.where(pooled >= lower, 0, -1))


@pytest.mark.parametrize("answer", [0, 1])
def test_only_unsure_concepts_of_unsure_samples_are_replaced(X, answer):
    second = Log(np.full((N, 2), answer))
    cascade = Cascade(line(), second).fit(X, TWO)
    y, said, share = cascade.decide(X)
    expected = said_by(cascade.first_, X)
    np.testing.assert_array_equal(said, expected)
    assert (set(np.unique(said)), y.dtype) == ({-1, 0, 1}, np.int64)
    np.testing.assert_array_equal(y, np.where(expected == 0, answer, expected == 1))
    goes = (expected == 0).any(axis=1)
    assert 0.1 < share == goes.mean() < 0.9
    # Some samples go on for one of their concepts, and are sure in the other.
    assert ((expected == 0).sum(axis=1) == 1).any()
    (asked,) = second.seen
    assert isinstance(asked, TokenArray)
    np.testing.assert_array_equal(asked.flat(), X[goes].flat())
    assert cascade.share_ == share
    np.testing.assert_array_equal(cascade.shares_, (expected == 0).mean(axis=0))
    np.testing.assert_array_equal(cascade.predict(X), y)


def test_the_second_may_read_something_else(X):
    texts = [f"text {i}" for i in range(N)]
    second = Log(np.ones(N, bool))
    cascade = Cascade(line(), second).fit(X, ONE, samples=texts)
    assert not second.seen  # a function learns nothing
    said = cascade.decide(X[::-1], samples=texts[::-1])
    assert second.seen == [[text for text, s in zip(texts[::-1], said.first, strict=True) if not s]]
    with pytest.raises(ValueError, match="samples must have one entry per sample: got 3 for 80"):
        cascade.predict(X, samples=texts[:3])
    with pytest.raises(ValueError, match="samples must have one entry per sample"):
        cascade.fit(X, ONE, samples=texts[:3])
    frame = pd.Series(texts)
    cascade.predict(X, samples=frame)
    assert second.seen[-1].tolist() == second.seen[0][::-1]


def test_nobody_is_asked_where_all_is_sure(X):
    second = Log(np.ones(N, bool))
    cascade = Cascade(line(), second).fit(X, ONE)
    sure = X[cascade.decide(X).first != 0]
    second.seen.clear()
    y, said, share = cascade.decide(sure)
    assert (second.seen, share) == ([], 0.0)
    np.testing.assert_array_equal(y, said == 1)


def test_what_is_asked_does_not_depend_on_the_cut(X):
    cascade = Cascade(line(), line(MaxToken(0.5))).fit(X, TWO)
    whole = cascade.predict(X)
    parts = [cascade.predict(X[i : i + 7]) for i in range(0, N, 7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("wrap", [lambda e: e, FrozenEstimator])
def test_an_estimator_is_fitted_and_asked(X, wrap):
    second = make_pipeline(DifferenceInMeans(), MaxToken(0.5))
    fitted = clone(second).fit(X, TWO)
    cascade = Cascade(line(), wrap(fitted)).fit(X, TWO)
    said = cascade.decide(X)
    expected = np.where(said.first == 0, fitted.predict(X), said.first == 1)
    np.testing.assert_array_equal(said.y, expected)
    assert not hasattr(clone(second), "classes_")


def test_classes_are_those_of_the_labels(X):
    words = np.where(ONE, "yes", "no")
    cascade = Cascade(line(), line(MaxToken(0.5))).fit(X, words)
    assert set(cascade.predict(X)) == {"yes", "no"}
    assert cascade.classes_.tolist() == ["no", "yes"]
    assert cascade.score(X, words) > 0.6
    for answers in (np.full(N, "yes"), np.ones(N, bool), np.ones((N, 1), bool)):
        said = Cascade(line(), Log(answers)).fit(X, words).decide(X)
        assert set(said.y[said.first == 0]) == {"yes"}


def test_a_prompt_may_be_the_second(X):
    texts = ["joy" if label else "nothing" for label in ONE]
    asked = []

    def ask(prompts):
        asked.extend(p.sample for p in prompts)
        return ["Yes" if p.concept in p.sample else "No" for p in prompts]

    cascade = Cascade(line(), PromptDetector(ask, concepts=["joy"])).fit(X, ONE, samples=texts)
    asked.clear()
    said = cascade.decide(X, samples=texts)
    assert (said.y == ONE)[said.first == 0].all()
    assert set(asked) == {text for text, s in zip(texts, said.first, strict=True) if not s}


def test_concepts_are_found_by_their_names(X):
    first = pd.DataFrame(TWO, columns=["a", "b"])

    class Turned(MaxToken):
        def fit(self, X, y):
            return super().fit(X, y[["b", "a"]])

    scores = X.with_values(X.values[:, :2], ["a", "b"])
    cascade = Cascade(clone(SURE), Turned(0.5)).fit(scores, first)
    said = cascade.decide(scores)
    straight = MaxToken(0.5).fit(scores, first).predict(scores)
    np.testing.assert_array_equal(said.y[said.first == 0], straight[said.first == 0])
    other = make_pipeline(LinearSeparator(), MaxToken(0.5)).fit(X, first.rename(columns={"a": "c"}))
    with pytest.raises(ValueError, match=r"second must speak of the concepts .*'c', 'b'.*'a', 'b'"):
        Cascade(line(), FrozenEstimator(other)).fit(X, first)


def test_columns_of_a_frame_are_found_by_their_names(X):
    y = pd.DataFrame(TWO, columns=["a", "b"])

    def says(columns):
        return lambda samples: pd.DataFrame([[1, 0]] * len(samples), columns=columns)

    straight, turned = (
        Cascade(line(), says(list(names))).fit(X, y).decide(X) for names in ("ab", "ba")
    )
    for said, of_a in ((straight, 1), (turned, 0)):
        for c, answer in enumerate((of_a, 1 - of_a)):
            assert set(said.y[said.first[:, c] == 0, c]) == {answer}
    with pytest.raises(ValueError, match=r"second must speak of the concepts .*'a', 'c'.*'a', 'b'"):
        Cascade(line(), says(["a", "c"])).fit(X, y).predict(X)


@pytest.mark.filterwarnings("ignore")
def test_searches_may_be_the_first(X):
    layers = LayerStack({1: X, 4: X.with_values(X.values[:, ::-1].copy())})
    pipe = make_pipeline(SelectLayer(), LinearSeparator(), clone(SURE))
    grid = {"topwindows__level": [(0.95, 0.05)], "selectlayer__layer": [1, 4]}
    search = ConceptSearchCV(pipe, grid, cv=2)
    second = Log(np.ones((N, 2)))
    cascade = Cascade(search, second).fit(layers, TWO)
    said = cascade.decide(layers)
    np.testing.assert_array_equal(said.first, cascade.first_.predict_unsure(layers))
    assert isinstance(second.seen[0], LayerStack)
    whole = GridSearchCV(line(), {"topwindows__level": [(0.8, 0.2)]}, cv=2)
    assert Cascade(whole, second).fit(X, TWO).share_ > 0


def test_it_goes_through_what_takes_estimators(X):
    cascade = Cascade(line(), line(MaxToken(0.5)))
    assert cross_val_predict(cascade, X, ONE, cv=3).shape == (N,)
    levels = [(0.9, 0.1), (0.6, 0.4)]
    grid = {"first__topwindows__level": levels, "second__maxtoken__delta": [0.3, 0.5]}
    assert GridSearchCV(cascade, grid, cv=2, error_score="raise").fit(X, ONE).best_score_ > 0.5


def test_it_is_kept_with_its_second(X, tmp_path):
    cascade = Cascade(line(), line(MaxToken(0.5))).fit(X, TWO)
    skact.save(cascade, tmp_path / "a.safetensors")
    again = skact.load(tmp_path / "a.safetensors")
    for mine, its in zip(cascade.decide(X), again.decide(X), strict=True):
        np.testing.assert_array_equal(mine, its)
    assert again.share_ == cascade.share_
    assert "Cascade" in str(skact.describe(tmp_path / "a.safetensors"))
    with pytest.raises(TypeError, match=r"Cascade\.second .* functions never are"):
        skact.save(Cascade(line(), len).fit(X, TWO), tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (line(MaxToken(0.5)), len, r"first must end in a detector that leaves samples unsure.*Max"),
        (line(TopWindows(None, cut="f1")), len, "first must end in a detector that leaves samples"),
        (MaxToken(0.5), len, "first must end in a detector"),
        (None, len, "'first' parameter of Cascade must be .* Got None"),
        (line(), MaxToken, "'second' parameter of Cascade must be an estimator with predict, or a"),
        (line(), 3, "'second' parameter of Cascade must be .* Got 3"),
    ],
)
def test_bad_parts(X, first, second, message):
    with pytest.raises(ValueError, match=message):
        Cascade(first, second).fit(X, ONE)


def test_several_classes_are_said_by_an_indicator(X):
    y = np.array(["cat", "dog", "fox", "owl"])[TWO @ [1, 2]]
    with pytest.raises(ValueError, match=r"y has 4 classes.*give an indicator matrix"):
        Cascade(line(), Log(y)).fit(X, y)
    indicator = (y[:, None] == np.unique(y)).astype(int)
    assert Cascade(line(), Log(indicator)).fit(X, indicator).predict(X).shape == (N, 4)


def test_a_search_without_two_cuts_is_refused_when_it_is_known(X):
    search = GridSearchCV(line(MaxToken()), {"maxtoken__delta": [0.5]}, cv=2)
    with pytest.raises(TypeError, match=r"does not end in a detector with predict_unsure\(X\)"):
        Cascade(search, len).fit(X, ONE)


@pytest.mark.parametrize(
    ("y", "answers"),
    [
        (ONE, np.full(N, 2)),
        (ONE, np.full(N, np.nan)),
        (ONE, np.full(N, 0.7)),
        (ONE, np.ones((N, 2))),
        (ONE, np.ones(3)),
        (ONE, np.full(N, "yes")),
        (TWO, np.ones(N)),
        (TWO, np.full((N, 2), -1)),
        (TWO, np.full((N, 3), 1)),
        (TWO, np.full((N, 2), None)),
    ],
)
def test_answers_that_are_no_labels_are_refused(X, y, answers):
    cascade = Cascade(line(), Log(answers)).fit(X, y)
    with pytest.raises(ValueError, match=r"second must give labels of shape \(\d+,.*; got "):
        cascade.predict(X)


def test_refitting_leaves_nothing_of_the_fit_before(X):
    cascade = Cascade(line(), line(MaxToken(0.5)))
    with pytest.raises(NotFittedError):
        cascade.predict(X)
    cascade.fit(X, ONE).set_params(second=Log(np.ones(N, bool))).fit(X, ONE)
    assert cascade.second_ is None
    said = cascade.decide(X)
    assert said.y[said.first == 0].all()


def test_a_monitor_says_who_is_unsure(X):
    fitted = line().fit(X, TWO)
    made = Monitor(fitted)({"activations": X})
    np.testing.assert_array_equal(made["unsure"], said_by(fitted, X) == 0)
    frame = Monitor(fitted)(pd.DataFrame({"activations": X.to_list()}))
    np.testing.assert_array_equal(frame["unsure_concept1"], made["unsure"][:, 1])
    assert "unsure" not in Monitor(line(SuperActivator(0.5)).fit(X, TWO))({"activations": X})


@pytest.mark.parametrize(
    "second",
    [
        lambda samples: np.ma.MaskedArray(np.ones(len(samples), int), np.arange(len(samples)) == 0),
        lambda samples: csr_array(np.ones((len(samples), 1))),
        lambda _: [[0], [1, 1]],
    ],
    ids=["masked", "sparse", "ragged"],
)
def test_answers_that_are_no_array_of_labels_are_refused(X, second):
    assert Cascade(line(), lambda samples: np.ones(len(samples))).fit(X, ONE).decide(X).share > 0
    with pytest.raises(ValueError, match=r"second must give an? (array|label) .*; got "):
        Cascade(line(), second).fit(X, ONE).decide(X)
