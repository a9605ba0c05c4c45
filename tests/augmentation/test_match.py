"""An original is found again in a draft, by the strictest step that finds it."""

import pytest

from skact.augmentation import find_original

ORIGINAL = "Oh great,  it's raining AGAIN."


@pytest.mark.parametrize(
    ("quoted", "step"),
    [
        (ORIGINAL, "exact"),
        ("oh GREAT,  it's raining again.", "case"),
        ("oh great,\nit's raining again.", "white space"),
        ("Oh, great - its raining, again!", "punctuation"),
        ("oh...great:its-raining AGAIN", "punctuation"),
        ("Oh great, it's pouring again", "word overlap"),
    ],
)
def test_each_step_finds_what_the_one_before_does_not(quoted, step):
    draft = f"I looked out. {quoted} Then I left."
    match = find_original(ORIGINAL, draft, min_overlap=0.8)
    assert (match.step, match.n_found) == (step, 1)
    found = draft[match.start : match.end]
    assert found.strip(".!") == quoted.strip(".!")


def test_what_is_not_quoted_is_not_found():
    draft = "I looked out. Rain fell, and it was great. Then I left."
    assert find_original(ORIGINAL, draft) is None
    assert find_original(ORIGINAL, draft, min_overlap=0.2).step == "word overlap"
    assert find_original(ORIGINAL, "") is None


def test_words_are_whole():
    assert find_original("no", "I know nothing") is None
    assert find_original("no", "I said no to it").start == 7


def test_offsets_are_of_the_draft_where_characters_change_their_number():
    draft = "Die  STRASSE war leer, İ und ß. Good   DAY to you."
    match = find_original("good day", draft)
    assert (draft[match.start : match.end], match.step) == ("Good   DAY", "white space")
    match = find_original("straße", draft)
    assert (draft[match.start : match.end], match.step) == ("STRASSE", "case")


def test_repetitions_are_counted():
    assert find_original("so nice", "so nice, so nice").n_found == 2


def test_shared_words_are_counted_as_often_as_they_come():
    # 'very very good' shares two of three words with 'very good', not three.
    assert find_original("very very good", "a very good day", min_overlap=0.9) is None
    assert find_original("very very good", "a very good day", min_overlap=0.6) is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("...", "draft"), "letter or a digit"),
        ((1, "draft"), "'original'"),
        (("a", None), "'draft'"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        find_original(*arguments)


def test_bad_overlap():
    with pytest.raises(ValueError, match="'min_overlap'"):
        find_original("a", "b", min_overlap=0)
