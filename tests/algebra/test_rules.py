"""Rules against forward chaining, written again slowly."""

import numpy as np
import pytest

import skact
from skact import ConceptRules, TokenArray

NAMES = ["sand", "water", "boat", "tree"]
RULES = {
    "holiday": [["seaside", "tree"], ["harbour"]],  # needs what comes later
    "seaside": [["sand", "water"], ["harbour", "sand"]],
    "harbour": [["boat", "water"]],
    "water": [["boat"]],  # a column too
}


def follows(facts):
    """What follows from facts: rules are tried until nothing new comes."""
    known = set(facts)
    while True:
        new = {h for h, bodies in RULES.items() for b in bodies if known.issuperset(b)} - known
        if not new:
            return known
        known |= new


def test_decisions_are_what_forward_chaining_finds():
    facts = np.array(list(np.ndindex(2, 2, 2, 2)), bool)
    X = TokenArray(facts, np.arange(0, 17, 4), feature_names=NAMES)
    rules = ConceptRules(RULES).fit(X)
    out = rules.transform(X)
    assert out.dtype == bool
    names = rules.get_feature_names_out().tolist()
    assert names == [*NAMES, "holiday", "seaside", "harbour"] == list(out.feature_names)
    for row, said in zip(facts, out.flat(), strict=True):
        held = follows({n for n, f in zip(NAMES, row, strict=True) if f})
        assert {n for n, s in zip(names, said, strict=True) if s} == held


def proof(scores, name):
    """Weakest part of the best proof, by trying all of them."""
    found = [scores[name]] if name in scores else []
    return max([*found, *(min(proof(scores, n) for n in body) for body in RULES.get(name, []))])


def test_scores_are_the_weakest_part_of_the_best_proof(rng):
    values = rng.normal(size=(50, 4))
    out = ConceptRules(RULES, concepts=NAMES).fit_transform(values)
    for row, said in zip(values, out, strict=True):
        scores = dict(zip(NAMES, row, strict=True))
        expected = [proof(scores, n) for n in [*NAMES, "holiday", "seaside", "harbour"]]
        np.testing.assert_array_equal(said, expected)


def test_cuts_and_rules_commute(rng):
    values = rng.random((60, 4))
    rules = ConceptRules(RULES, concepts=NAMES).fit(values)
    before = rules.transform((values > 0.4).astype(float)) > 0.5
    np.testing.assert_array_equal(rules.transform(values) > 0.4, before)
    shifted = values + np.array([0, 0, 0.3, 0])  # not on one scale: the control
    assert ((rules.transform(shifted) > 0.4) != before).any()


def test_rules_read_data_frames(rng):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rng.random((5, 2)), columns=["sand", "water"])
    rules = ConceptRules({"seaside": [["sand", "water"]]}).set_output(transform="pandas")
    out = rules.fit_transform(frame)
    np.testing.assert_array_equal(out["seaside"], frame.min(axis=1))


def test_columns_of_other_names_are_refused(rng):
    X = TokenArray(rng.random((4, 2)), range(5), feature_names=["a", "b"])
    rules = ConceptRules({"c": [["a", "b"]]}).fit(X)
    other = X.with_values(X.values, ["b", "a"])
    with pytest.raises(ValueError, match=r"X names its columns \('b', 'a'\)"):
        rules.transform(other)


def test_kept_rules_say_the_same(tmp_path, rng):
    rules = ConceptRules(RULES, concepts=NAMES).fit(rng.random((4, 4)))
    skact.save(rules, tmp_path / "rules")
    X = rng.random((9, 4))
    np.testing.assert_array_equal(skact.load(tmp_path / "rules").transform(X), rules.transform(X))


@pytest.mark.parametrize(
    ("rules", "concepts", "message"),
    [
        ({"c": [["a", "x"]]}, ["a", "b"], "rule for 'c' asks for 'x', which is neither"),
        ({"c": [["d"]], "d": [["c"]]}, ["a", "b"], "in a circle: '[cd]' needs '[cd]' needs"),
        ({"a": [["a", "b"]]}, ["a", "b"], "in a circle: 'a' needs 'a'"),
        ({"c": [["d"]], "d": [["e"]], "e": [["a"], ["c"]]}, ["a", "b"], "must not go in a circle"),
        ({"c": []}, ["a", "b"], "a list of bodies"),
        ({"c": [[]]}, ["a", "b"], "each with a name or more"),
        ({"c": ["a", "b"]}, ["a", "b"], "a list of bodies"),
        ({"c": [["a", 3]]}, ["a", "b"], "each with a name or more"),
        ({"": [["a"]]}, ["a", "b"], "each derived concept"),
        ([["a"]], ["a", "b"], "'rules' parameter"),
        ({}, ["a"], "concepts must name the 2 columns of X, got 1"),
        ({}, ["a", "a"], "'a' comes twice"),
        ({"c": [["a"]]}, None, "asks for 'a', .*'concept0'"),
    ],
)
def test_bad_rules(rules, concepts, message):
    with pytest.raises(ValueError, match=message):
        ConceptRules(rules, concepts=concepts).fit(np.ones((3, 2)))
