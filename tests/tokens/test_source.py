"""Sources conflict only where both sides know, and say what they know."""

import pytest

from skact import Source
from skact.tokens import rescaled
from skact.tokens._source import common


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        (Source(), Source(model="a", revision="r", block=1, convention="c", scaling="s"), None),
        (Source(model="a"), Source(block=1), None),
        (Source(model="a"), Source(model="a"), None),
        (Source(model="a"), Source(model="b"), "model"),
        (Source(revision="r"), Source(revision="s"), "revision"),
        (Source(block=0), Source(block=1), "block"),
        (Source(block=0), Source(block=0), None),
        (Source(convention="residual"), Source(convention="mlp"), "convention"),
        (Source(scaling="x"), Source(scaling="y"), "scaling"),
        # A folder may have moved: the weights decide.
        (Source(model="a", revision="r"), Source(model="b", revision="r"), None),
        (Source(model="a", revision="r"), Source(model="b", revision="s"), "model"),
        (Source(model="a", revision="r"), Source(model="b"), "model"),
        (
            Source(model="a", revision="r", block=1),
            Source(model="b", revision="r", block=2),
            "block",
        ),
        (Source(columns="concepts"), Source(columns="units"), None),
    ],
)
def test_sources_conflict_only_where_both_know(first, second, field):
    assert first.conflict(second) == field
    assert second.conflict(first) == field


@pytest.mark.parametrize("field", ["model", "revision", "convention", "scaling"])
def test_half_of_a_surrogate_pair_is_in_no_source(field):
    assert getattr(Source(**{field: "a\U0001f600"}), field) == "a\U0001f600"
    with pytest.raises(ValueError, match=f"^{field} holds '.ud83d' at character 1, half of"):
        Source(**{field: "a\ud83d"})


def test_source_says_what_it_knows():
    assert str(Source()) == "unknown"
    assert str(Source(columns="units")) == "unknown"
    assert str(Source(model="m", block=0, columns="units")) == "model m, block 0"
    assert rescaled(None, "one") == Source(scaling="one")
    twice = rescaled(rescaled(Source(model="m"), "one"), "two")
    assert twice == Source(model="m", scaling="one, two")


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([Source("m", "r", 3), Source("m", "r", 4)], Source("m", "r")),
        # The same weights in a folder that moved.
        ([Source("m", "r", 3), Source("n", "r", 3)], Source(revision="r", block=3)),
        # What one does not know, nobody knows.
        ([Source("m", block=3, scaling="s"), Source("m", block=3)], Source("m", block=3)),
        ([Source("m"), None], None),
        ([None, None], None),
        ([Source("m"), Source("n")], None),
        ([Source("m", columns="units"), Source("n", columns="units")], Source(columns="units")),
        ([Source("m", columns="units"), Source("m")], None),
        ([Source("m", block=3)] * 3, Source("m", block=3)),
        ([Source()] * 2, Source()),
    ],
)
def test_joined_tokens_keep_what_their_sources_agree_on(sources, expected):
    assert common(sources) == common(reversed(sources)) == expected
    assert expected is None or all(expected.conflict(s) is None for s in sources)


@pytest.mark.parametrize("field", ["model", "revision", "convention", "scaling"])
def test_what_no_file_can_hold_is_refused(field):
    with pytest.raises(ValueError, match=f"{field} holds .* half of a surrogate"):
        Source(**{field: "a\ud800"})
    assert getattr(Source(**{field: "\N{GRINNING FACE}"}), field) == "\N{GRINNING FACE}"
