"""Saved estimators that were edited, with a right checksum, answer as before or are refused.

A fixed seed draws some of the edits; ``SKACT_FUZZ=14000`` tries more.
"""

import copy
import os
import random
from collections import Counter

import numpy as np
import pytest

from skact.persistence._decoding import decode
from skact.persistence._encoding import Encoder
from tests.persistence import kept

N_EDITS = int(os.environ.get("SKACT_FUZZ", "400"))
NONSENSE = [None, True, -1, 0, 10**6, 1e308, {"float": "nan"}, {"float": "inf"}, "x", "", 0.5]
ARRAYS = ("numbers", "texts", "objects")
# Of so many entries any number is right, or another estimator is described.
FREE = ("Ablation", "FeatureUnion", "Pipeline", "cv_results_")


def resized(nodes, number, rng):
    """An array of the nodes with other entries, or the same in another shape."""
    kind = next(iter(nodes[number]))
    entries, n = nodes[number][kind], len(nodes[number][kind])
    kept_entries, shape = rng.choice(
        [
            *((entries[:-1], [n - 1]), (entries * 2, [2 * n]), (entries, [n, 1])),
            *((entries, [1, n]), (entries[:1], [1]), (entries[:1], []), ([], [0])),
        ]
    )
    nodes[number] |= {kind: kept_entries, "shape": shape}


def edited(nodes, rng):
    """A copy of the nodes with one edit, whether it is of an array, and what was edited."""
    nodes = copy.deepcopy(nodes)
    arrays = [i for i, n in enumerate(nodes) if n.keys() & set(ARRAYS) and n.get("shape", [0])[:1]]
    arrays = [i for i in arrays if nodes[i][next(iter(nodes[i]))]]
    if arrays and rng.random() < 0.6:
        number = rng.choice(arrays)
        before = copy.deepcopy(nodes[number])
        resized(nodes, number, rng)
        return nodes, nodes[number] != before, f"array {number} of {before}"
    number = rng.choice([i for i, node in enumerate(nodes) if node.get("state")])
    key = rng.choice(sorted(nodes[number]["state"]))
    nodes[number]["state"][key] = rng.choice(NONSENSE)
    return nodes, False, f"{nodes[number]['class']}.{key}"


def outcome(nodes, tensors, data, before):
    """What an edit ends in."""
    try:
        made = decode(nodes, tensors)
    except ValueError as error:
        return "refused" if "\n" not in str(error) else "refused in several lines"
    try:
        after = kept.says(made, data)
    except (ValueError, TypeError):  # of the values of a parameter, when they are used
        return "an error when it is asked"
    same = after.keys() == before.keys() and all(
        np.array_equal(after[key], before[key], equal_nan=before[key].dtype.kind == "f")
        for key in before
    )
    return "equal" if same else "other"


def answering():
    for name, estimator, data in kept.lines():
        yield name, estimator, data
    for name, estimator, data in kept.single():
        if name not in FREE:
            yield name, estimator.fit(data, kept.Y), data


@pytest.mark.filterwarnings("ignore")
def test_edited_files_are_refused_or_say_the_same(capsys):
    rng, counts, wrong = random.Random(15), Counter(), []
    cases = []
    for name, estimator, data in answering():
        encoder = Encoder()
        encoder.value(estimator, name)
        cases.append((name, encoder, data, kept.says(estimator, data)))
    for _ in range(N_EDITS):
        name, encoder, data, before = rng.choice(cases)
        nodes, is_resized, what = edited(encoder.nodes, rng)
        found = outcome(nodes, encoder.tensors, data, before)
        counts[found] += 1
        if is_resized and found == "other":
            wrong.append((name, what))
    with capsys.disabled():
        print(f"\n{N_EDITS} edits of saved estimators: {dict(counts)}")
    assert wrong == []
    assert counts["refused in several lines"] == 0
    assert counts["refused"] > N_EDITS / 3
    assert counts["equal"] > 0
