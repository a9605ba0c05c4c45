"""What answers: functions whose answers are checked, and models that are refused."""

import pytest

from skact.prompting import PromptDetector
from skact.prompting._answer_log import AnswerLog
from tests.prompting.word_search import CONCEPTS, TEXTS, Model, Y, detector


@pytest.mark.parametrize("model", [3, Model, ["a"]])
def test_bad_models(model):
    with pytest.raises(TypeError, match="model must be"):
        PromptDetector(model, concepts=CONCEPTS).fit(TEXTS, Y)


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (["Yes"], ValueError, "list of 8 strings.*got 1"),
        ("Yes, yes", TypeError, "got str"),
        (None, TypeError, "got NoneType"),
        (["Yes"] * 7 + [True], TypeError, "answer 7 is bool"),
    ],
)
def test_answers_of_a_callable_are_checked(returned, error, message, tmp_path):
    log = tmp_path / "a.jsonl"
    found = detector(lambda prompts: returned, log=log, revision="m")
    with pytest.raises(error, match=message):
        found.predict(TEXTS)
    assert not AnswerLog(log).read()
