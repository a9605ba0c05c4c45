"""Pieces of a text are those that both models cut it into."""

import numpy as np
import pytest

from skact import Token, TokenArray, align_tokens
from skact.algebra._alignment import shared_pieces


def slowly(first, second):
    """Pieces by characters: tokens that share one are joined until nothing changes."""
    parts = [{("a", i)} for i in range(len(first))] + [{("b", i)} for i in range(len(second))]
    spans = {("a", i): set(range(*s)) for i, s in enumerate(first)}
    spans |= {("b", i): set(range(*s)) for i, s in enumerate(second)}
    changed = True
    while changed:
        changed = False
        for one in parts:
            for other in parts:
                if one is not other and any(spans[p] & spans[q] for p in one for q in other):
                    parts = [p for p in parts if p not in (one, other)] + [one | other]
                    changed = True
                    break
            if changed:
                break
    whole = [p for p in parts if {side for side, _ in p} == {"a", "b"}]
    whole.sort(key=lambda p: min(min(spans[t]) for t in p))
    numbers = {token: n for n, part in enumerate(whole) for token in part}
    return (
        [numbers.get(("a", i), -1) for i in range(len(first))],
        [numbers.get(("b", i), -1) for i in range(len(second))],
        len(whole),
    )


def cut(rng, length):
    """Cut a text anywhere; some characters belong to no token, and some tokens cover nothing."""
    ends = np.sort(rng.choice(np.arange(1, length), size=rng.integers(1, 6), replace=False))
    spans = [
        (a + (rng.random() < 0.2), b) for a, b in zip([0, *ends], [*ends, length], strict=True)
    ]
    spans = [(a, b) for a, b in spans if a < b and rng.random() > 0.1]
    return np.array([(0, 0), *spans, (0, 0)])


def test_pieces_are_found_as_slowly(rng):
    for _ in range(100):
        first, second = cut(rng, 14), cut(rng, 14)
        fast = shared_pieces(first, second)
        slow = slowly(first, second)
        assert fast[0].tolist() == slow[0]
        assert fast[1].tolist() == slow[1]
        assert fast[2] == slow[2]


def tokens(*spans):
    return [Token("x" * (b - a), a, b) for a, b in spans]


def test_tokens_of_a_piece_are_averaged():
    X = TokenArray(np.arange(5.0)[:, None], [0, 3, 5])
    y = TokenArray(10.0 * np.arange(4)[:, None], [0, 2, 4])
    X_tokens = [tokens((0, 3), (3, 5), (6, 9)), tokens((0, 4), (4, 8))]
    y_tokens = [tokens((0, 5), (5, 9)), tokens((0, 0), (1, 4))]
    a, b = align_tokens(X, y, X_tokens, y_tokens)
    assert a.lengths.tolist() == b.lengths.tolist() == [2, 1]
    assert a.flat().ravel().tolist() == [0.5, 2.0, 3.0]
    assert b.flat().ravel().tolist() == [0.0, 10.0, 30.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"X_tokens": [tokens((0, 3))] * 2}, "X_tokens must have one entry per sample"),
        ({"y_tokens": [tokens((0, 3), (3, 4))]}, r"y_tokens\[0\] has 2 tokens, and the sample 1"),
        ({"X_tokens": [["a"]]}, r"X_tokens\[0\] must be a list of tokens"),
        ({"X_tokens": [3]}, r"X_tokens\[0\] must be a list of tokens"),
        ({"y_tokens": [tokens((4, 6))]}, "sample 0 has no characters"),
        ({"X": TokenArray(np.ones((2, 1)), [0, 1, 2])}, "same samples, got 2 and 1"),
        ({"X": 3}, "'X' parameter"),
        ({"y_tokens": "a"}, "'y_tokens' parameter"),
    ],
)
def test_what_cannot_be_aligned(given, message):
    one = TokenArray(np.ones((1, 1)), [0, 1])
    right = {"X": one, "y": one, "X_tokens": [tokens((0, 3))], "y_tokens": [tokens((0, 3))]}
    align_tokens(**right)
    with pytest.raises(ValueError, match=message):
        align_tokens(**{**right, **given})
