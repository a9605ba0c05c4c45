"""All public functions, classes and methods, with nonsense for each argument in turn.

What is legal is listed in ``legal``; anything else is refused within a second, by an error that
names the argument. Of the cases a sample is taken, the same wherever it runs;
``SKACT_WALK=50000`` takes so many.
"""

import inspect
import os
import random
import time
import warnings

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import skact
from tests.hostile.legal import legal_of
from tests.hostile.right_calls import public_methods, right_calls

N_CASES = int(os.environ.get("SKACT_WALK", 6000))

NONSENSE = {
    "None": None,
    "True": True,
    "text": "nonsense",
    "no text": "",
    "bytes": b"abc",
    "object": object(),
    "class": int,
    "-1": -1,
    "0": 0,
    "1": 1,
    "2.5": 2.5,
    "nan": np.nan,
    "inf": np.inf,
    "-inf": -np.inf,
    "1j": 1j,
    "[]": [],
    "{}": {},
    "[None]": [None],
    "[nan]": [np.nan],
    "['a', 'a']": ["a", "a"],
    "empty array": np.empty((0, 5)),
    "nan array": np.full((8, 5), np.nan),
    "inf array": np.full((8, 5), np.inf),
    "object array": np.full((8, 5), None),
    "complex array": np.full((8, 5), 1j),
    "text array": np.full((8, 5), "a"),
    "3-D array": np.ones((2, 2, 2, 2)),
}


# Records, which hold what they are given, and a table of numbers.
RECORDS = {"ChatToken", "FaithfulnessResult", "Interval", "Patch", "Prompt", "Span", "Token"}
RECORDS.add("Quote")
LEFT_OUT = {*RECORDS, "DELTA_GRID", "PAPER_CONCEPTS", "GlobalTarget", "LocalTarget"}
# What the package calls with its own objects, and what does nothing on purpose.
INNER = ("check", "fit", "interactions", "maps")
METHODS = ("CALM", "DirectAlignment", "FullGrad", "GradCAM", "IntegratedGradients", "KernelSHAP")
METHODS += ("LIME", "MFABA", "RISE", "SHAPIQ")
INNER_METHODS = {*(f"{n}.{m}" for n in METHODS for m in INNER), "GlobalTarget.vectors"}
INNER_METHODS |= {
    "RandomToken.running_pool",
    "LocalTarget.vectors",
    "Adam.solve",
    "LBFGS.solve",
    "Minibatch.solve",
}


def is_left_out(where):
    """Tell whether the walk does not come to a class, function or method."""
    own = where in LEFT_OUT or where in INNER_METHODS
    return own or where.endswith((".set_params", ".set_output"))


# Other words for what an argument holds.
WORDS = {
    "X": ("X ", "'X'", "sample", "array", "token", "feature", "input"),
    "y": ("y", "label", "class", "concept", "numbers of samples"),
    "sample_weight": ("sample_weight", "sample weight", "numbers of samples"),
    "n_concepts_grid": ("n_concepts",),
    "labels_true": ("labels",),
    "attributions": ("attribution",),
    "values": ("values", "token", "feature"),
    "texts": ("X ", "sample", "text"),
    "images": ("X ", "sample", "image", "folder"),
    "samples": ("X ", "sample"),
    "raw": ("X ", "sample", "text"),
    "scores": ("scores", "marks"),
    "block": ("layer", "block"),
    "blocks": ("block",),
    **{name: (name, "nonsense") for name in ("file", "folder", "path")},
    "files": ("file", "nonsense"),
    "masks": ("masks", "folder"),
    "deltas": ("delta",),
    "levels": ("level",),
    "maps": ("maps", "scores"),
    "methods": ("methods", "'method'"),
    "targets": ("target",),
    "token_labels": ("labels",),
}


# What numpy and Python themselves raise for indices and for paths.
OTHER = {
    **dict.fromkeys(("columns", "index", "indices", "numbers", "positions"), (IndexError,)),
    **dict.fromkeys(
        ("file", "files", "folder", "images", "masks", "model", "path", "paths"), (OSError,)
    ),
}


def verdict(call, parameter):
    """None if a call is refused as it should be, else what happened."""
    start = time.process_time()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            call()
    except (ValueError, TypeError, NotFittedError, *OTHER.get(parameter, ())) as error:
        words = WORDS.get(parameter, (parameter,))
        if not any(word.lower() in str(error).lower() for word in words):
            return f"{type(error).__name__} does not name it: {str(error)[:90]}"
    except Exception as error:
        return f"raises {type(error).__name__}: {str(error)[:90]}"
    else:
        return "is taken"
    seconds = time.process_time() - start
    return None if seconds < 1 else f"is refused after {seconds:.1f} s"


def walk(calls, n_cases, seed=0):
    """Go through so many of the cases, in random order."""
    todo = [(call, name, kind) for call in calls for name in call.parameters() for kind in NONSENSE]
    random.Random(seed).shuffle(todo)
    for call, name, kind in todo[:n_cases]:
        result = verdict(lambda c=call, n=name, k=kind: c(**{n: NONSENSE[k]}), name)
        yield f"{call.where}({name})", kind, result


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # some nonsense is a path that can be written to
        patch.setattr("tempfile.tempdir", str(folder))
        yield list(right_calls())


def test_nonsense_is_refused_by_name(calls):
    n, wrong = 0, []
    for where, kind, result in walk(calls, N_CASES):
        n += 1
        if result is not None and kind not in legal_of(where):
            wrong.append((where, kind, result))
    assert n > 100
    print(f"{n} pieces of nonsense, {len(wrong)} not refused as they should be")
    assert not wrong, "\n".join(map(str, wrong))


def test_the_walk_leaves_nothing_out(calls):
    called = {call.where for call in calls}
    public = {
        f"{name}.{method}"
        for name in skact.__all__
        if inspect.isclass(getattr(skact, name))
        for method in public_methods(getattr(skact, name))
    }
    public |= set(skact.__all__)
    # And "score" comes from scikit-learn.
    assert {where for where in public if not is_left_out(where)} <= called
    assert not any(map(is_left_out, called))


def test_what_is_right_goes_through(calls):
    for call in calls:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that little is learnt in few iterations
            call()


def careless(number):
    return 3 * number


def test_the_verdict_sees_carelessness():
    assert verdict(lambda: careless("a"), "number") == "is taken"
    assert "does not name it" in verdict(lambda: int("a"), "number")
    assert "raises KeyError" in verdict(lambda: {}["a"], "number")
    assert verdict(lambda: skact.depth_to_block("a", 3), "fraction") is None
