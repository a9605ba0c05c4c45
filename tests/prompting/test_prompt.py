"""Questions in words, and answers read strictly."""

import doctest

import pytest

from skact.prompting import _prompt
from skact.prompting._prompt import check_template, parse_answer


@pytest.mark.parametrize(
    "text",
    ["Yes", "yes", " YES. ", '"Yes"', "**Yes**", "**Yes,** it is.", "“Yes”", "Yes\n", "`yes`!"],
)
def test_yes(text):
    assert parse_answer(text) is True


@pytest.mark.parametrize("text", ["No", "no.", "'No'", "*no*", "No, it is not.", "NO!", "No: none"])
def test_no(text):
    assert parse_answer(text) is False


@pytest.mark.parametrize(
    "text",
    """
    |Yes and no|No... or yes|Maybe|Nope|Yesterday|Not|It is: yes|Y|Yes-ish|no-one|Yes/No|1|**|yes_
    |Yesé|The answer is No|I say yes|No's|Yes’s|
    """.strip().split("|"),
)
def test_neither(text):
    assert parse_answer(text) is None


@pytest.mark.parametrize(
    ("thought", "answer", "expected"),
    [
        ("<think>\n\n</think>\n\n", "Yes", True),
        ("<think>Yes or no? Not a word of it.</think>", "No.", False),
        ("so it is not there.\n</think>\n\n", "**No**", False),  # the prompt began the thought
        ("<thinking>No.</thinking>", "Yes", True),
        ("[THINK]no[/THINK]", "yes", True),
        ("<think>a</think><think>no</think>", "yes", True),
        ("<think>Yes</think>", "Yes and no", None),
        ("<think>", "Yes", None),  # the answer was cut off before it began
        ("<think>Yes</think>", "", None),
    ],
)
def test_what_is_thought_is_no_answer(thought, answer, expected):
    assert parse_answer(thought + answer) is expected


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("Is it there?", r"must hold \{concept\}"),
        ("{concept} in {text}", r"\{text\} is unknown"),
        ("{concept} in {}", r"\{\} is unknown"),
        ("{concept.__class__} {concept}", "is unknown"),
        ("{concept:{kind}}", "take no format"),
        ("{concept", r"must hold \{concept\}"),
    ],
)
def test_questions_that_cannot_be_asked(prompt, message):
    with pytest.raises(ValueError, match=message):
        check_template(prompt)
    check_template("{{{kind}}}: {concept}?")


def test_the_example_of_the_docstring_runs():
    result = doctest.testmod(_prompt)
    assert result.attempted >= 2
    assert result.failed == 0
