"""The prompt baseline as an estimator."""

import doctest
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skact.prompting import PromptDetector, _detector
from tests.prompting.word_search import CONCEPTS, TEXTS, Model, Y, detector


def test_present_exactly_where_the_answer_is_yes():
    found = detector()
    assert np.array_equal(found.predict(TEXTS), Y)
    assert found.predict(TEXTS).dtype == np.int64
    assert np.array_equal(found.decision_function(TEXTS), np.where(Y, 1.0, -1.0))
    assert found.score(TEXTS, Y) == 1
    assert found.concept_names_.tolist() == CONCEPTS


def test_columns_of_y_may_be_called_otherwise_than_the_words_asked_for():
    y = pd.DataFrame(Y, columns=CONCEPTS)
    named = PromptDetector(Model()).fit(TEXTS, y)
    assert named.score(TEXTS, y[CONCEPTS[::-1]]) == detector().score(TEXTS, y) == 1
    assert detector().score(TEXTS, y[CONCEPTS[::-1]]) == 1
    others = y.set_axis(["a", "b"], axis=1)
    assert detector().score(TEXTS, others) == 1
    with pytest.raises(ValueError, match="y names its columns"):
        named.score(TEXTS, others)


def test_a_binary_target_gives_its_classes():
    found = PromptDetector(Model(), concepts=["joy"]).fit(TEXTS, ["b", "a", "b", "a"])
    assert found.classes_.tolist() == ["a", "b"]
    assert found.predict(["joy", "x"]).tolist() == ["b", "a"]
    assert found.decision_function(["joy", "x"]).tolist() == [1, -1]
    assert found.answers(["joy"]).text.shape == (1, 1)


def test_a_single_column_stays_a_column():
    found = PromptDetector(Model(), concepts=["joy"]).fit(TEXTS, Y[:, :1])
    assert found.predict(TEXTS).shape == found.decision_function(TEXTS).shape == (4, 1)


def test_unclear_answers_are_absent_but_never_silent():
    found = detector(Model(yes="Perhaps", no="no"))
    with pytest.warns(UserWarning, match=r"4 of 8 answers are neither.*'Perhaps'") as heard:
        predicted = found.predict(TEXTS)
    assert len(heard) == 1
    assert not predicted.any()
    answers = found.answers(TEXTS)
    assert answers.n_unparsed == 4
    assert np.array_equal(np.isnan(answers.parsed), Y == 1)
    assert (answers.parsed[Y == 0] == 0).all()
    assert answers.text[0].tolist() == ["Perhaps", "Perhaps"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"prompt": "Is it there?"}, r"must hold \{concept\}"),
        ({"concepts": ["joy"]}, "has 1 names, y has 2 concepts"),
        ({"concepts": "joy"}, "concepts"),
        ({"concepts": ["joy", " "]}, r"concepts\[1\]"),
        ({"concepts": ["joy", 3]}, r"concepts\[1\]"),
        ({"concepts": ["joy", "joy"]}, "differ"),
        ({"concepts": None}, "needs names"),
        ({"scores": "logit"}, "scores"),
        (
            {"scores": "logits"},
            'scores="logits" is for Hugging Face models; a callable gives answers',
        ),
        ({"batch_size": 0}, "batch_size"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"system": "You judge."}, "a callable adds its own"),
        ({"template_options": {"brief": True}}, "template_options is for Hugging Face models"),
        ({"log": "answers.jsonl"}, "needs revision"),
        ({"log": "no/such/folder/a.jsonl", "revision": "m"}, "does not exist"),
        ({"log": ".", "revision": "m"}, "is a folder"),
        ({"trust_remote_code": True, "revision": "main"}, "full commit hash"),
        ({"model": None}, "model must be a Hugging Face name"),
        ({"model": ("a",)}, "a tuple of 1"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        PromptDetector(**{"model": Model(), "concepts": CONCEPTS, **params}).fit(TEXTS, Y)


@pytest.mark.parametrize("options", [{"a": {1}}, {"a": object()}, {1: "a"}, {"a": (1,)}])
def test_options_of_a_template_that_no_log_can_hold(options):
    with pytest.raises(ValueError, match="template_options must be a dict of names to strings"):
        PromptDetector("no-model", concepts=CONCEPTS, template_options=options).fit(TEXTS, Y)


def test_other_mistakes(tmp_path):
    with pytest.raises(ValueError, match="inconsistent"):
        PromptDetector(Model(), concepts=CONCEPTS).fit(TEXTS[:3], Y)
    with pytest.raises(ValueError, match="requires y"):
        PromptDetector(Model(), concepts=CONCEPTS).fit(TEXTS, None)
    with pytest.raises(ValueError, match="needs names"):
        PromptDetector(Model()).fit(TEXTS, ["no", "joy", "no", "joy"])
    with pytest.raises(ValueError, match="other order"):
        PromptDetector(Model(), concepts=CONCEPTS[::-1]).fit(
            TEXTS, pd.DataFrame(Y, columns=CONCEPTS)
        )
    for method in ("predict", "decision_function", "answers"):
        with pytest.raises(NotFittedError):
            getattr(PromptDetector(Model(), concepts=CONCEPTS), method)(TEXTS)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"sample 0: the image .* cannot be read"):
        detector().predict([tmp_path / "broken.png"])


def test_clone_shares_the_model_and_copies_the_rest():
    model = Model()
    original = PromptDetector(model, concepts=CONCEPTS)
    twin = clone(original)
    assert twin.model is model
    assert twin.concepts == CONCEPTS
    assert twin.concepts is not CONCEPTS
    assert not hasattr(clone(original.fit(TEXTS, Y)), "classes_")
    assert clone(PromptDetector()).get_params() == PromptDetector().get_params()


def test_predicting_changes_nothing():
    found = detector()
    before = dict(vars(found))
    found.predict(TEXTS)
    assert vars(found) == before


def test_importing_stays_light():
    code = (
        "import sys; from skact.prompting import PromptDetector as P\n"
        "P(lambda p: ['No'] * len(p), concepts=['a']).fit(['x', 'y'], [0, 1]).predict(['x'])\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_weight_counts_as_repeating_a_sample_does_and_0_leaves_it_unasked(monkeypatch):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (40, 2))
    odds, weight = y + rng.normal(size=(40, 2)), np.where(y[:, 0], 1, 5) * (np.arange(40) > 4)
    asked = []

    def look_up(_, X):
        asked.append(X)
        return odds[[int(text) for text in X]]

    monkeypatch.setattr(PromptDetector, "_odds", look_up)
    texts, rows = [str(i) for i in range(40)], np.repeat(np.arange(40), weight)
    detector = PromptDetector("a model", concepts=["a", "b"], scores="logits")
    weighed = clone(detector).fit(texts, y, sample_weight=weight).thresholds_
    assert asked == [[text for text, times in zip(texts, weight, strict=True) if times]]
    repeated = clone(detector).fit([texts[i] for i in rows], y[rows]).thresholds_
    np.testing.assert_array_equal(weighed, repeated)
    assert (weighed != clone(detector).fit(texts, y).thresholds_).any()
    answers = PromptDetector(lambda prompts: ["No"] * len(prompts), concepts=["a", "b"])
    answers.fit(texts, y, sample_weight=weight)
    with pytest.raises(ValueError, match="sample_weight must have one entry per sample"):
        answers.fit(texts, y, sample_weight=weight[1:])


def test_the_example_of_the_docstring_runs():
    result = doctest.testmod(_detector)
    assert result.attempted >= 5
    assert result.failed == 0


def test_of_several_classes_the_one_answered_yes_is_the_answer():
    def ask(prompts):
        return ["Yes" if p.concept in p.sample else "No" for p in prompts]

    texts, y = ["a cat", "a dog", "the fox"], ["cat", "dog", "fox"]
    detector = PromptDetector(ask).fit(texts, y)
    assert detector.classes_.tolist() == detector.concept_names_.tolist() == y
    assert detector.predict(texts[::-1]).tolist() == y[::-1]
    assert detector.score(texts, y) == 1
    with pytest.warns(
        UserWarning, match="of 2 samples 1 got Yes for several classes and 1 for none"
    ):
        assert detector.predict(["fox and dog", "nothing"]).tolist() == ["dog", "cat"]
    with pytest.raises(ValueError, match="a prompt needs names of concepts"):
        PromptDetector(ask).fit(texts, [0, 1, 2])
    numbered = PromptDetector(ask, concepts=y).fit(texts, [0, 1, 2])
    assert numbered.predict(texts).tolist() == [0, 1, 2]
