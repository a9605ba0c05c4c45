"""Whatever a file says: one sentence or an object of a class on the list, and nothing is run."""

import json
import re
from functools import wraps

import pytest

import skact
from skact import SelectLayer, TokenScaler
from skact.persistence._container import write_file
from skact.persistence._decoding import decode
from skact.persistence._encoding import Encoder
from tests.fresh import printed_by
from tests.persistence import kept

MAX_TOKEN = {"class": "skact.detection.MaxToken", "state": {}}
GRID = {"dict": []}
SCALER = {"class": "skact.preprocessing.TokenScaler", "state": {}}


def cls(name, **state):
    return {"class": name, "state": state}


def scaler(**state):
    return cls("skact.preprocessing.TokenScaler", **state)


def search_with(**state):
    whole = {"estimator": node(0), **state}
    return cls("skact.model_selection.ConceptSearchCV", **whole)


def node(number):
    return {"node": number}


HOSTILE = {
    "nothing": ([], "it holds no estimator"),
    "no list": ({"a": 1}, "it holds no estimator"),
    "a value": ([5], "5 where a node is expected"),
    "no estimator": ([{"list": []}], "it holds a list, and no estimator"),
    "os.system": ([cls("os.system")], "'os.system', which is not on the list of classes"),
    "builtins": ([cls("builtins.eval")], "not on the list"),
    "long": ([cls("x" * 10**5)], "'x+$|cannot be read: it names 'x+"),
    "private": ([cls("skact.auto._detector.Part")], "not on the list"),
    "of skact": ([cls("skact.tokens.TokenArray")], "not on the list"),
    "of scikit-learn": ([cls("sklearn.preprocessing.FunctionTransformer")], "not on the list"),
    "class as list": ([cls(["a"])], "a list where a str is expected"),
    "unknown kind": ([{"pickle": "gASV"}], "a node 'pickle', which is of no known kind"),
    "reduce": ([{"__reduce__": ["os.system", "x"]}], "of no known kind"),
    "circle": ([{"list": [node(0)]}], r"{'node': 0}, which is no node before this one"),
    "later": ([{"list": [node(1)]}, SCALER], "no node before this one"),
    "negative": ([SCALER, {"list": [node(-1)]}], "no node before this one"),
    "true": ([SCALER, SCALER, {"list": [node(True)]}], "no node before this one"),
    "value": ([{"list": [{"a": 1, "b": 2}]}], "where a value is expected"),
    "nested value": ([{"list": [[1]]}], "where a value is expected"),
    "float": ([{"list": [{"float": "1e5"}]}], "its node 0 cannot be read"),
    "attribute": ([scaler(transform=1)], "no parameter or fitted attribute 'transform'"),
    "method_": ([scaler(fit_=1, __class__=2)], "no parameter or fitted attribute '__class__'"),
    "dunder": ([scaler(__dict__=1)], "no parameter or fitted attribute '__dict__'"),
    "property": ([cls("skact.auto.ConceptDetector", search_=1)], "fitted attribute 'search_'"),
    "store": ([cls("skact.embedding.TransformerEmbedder", store="/etc")], "attribute 'store'"),
    "trust": (
        [cls("skact.embedding.TransformerEmbedder", trust_remote_code=True)],
        "no parameter or fitted attribute 'trust_remote_code' in a file",
    ),
    "callbacks": ([scaler(_skl_callbacks=[])], "where a value is expected"),
    "callbacks 2": ([scaler(_skl_callbacks=1)], "'_skl_callbacks' in the file, which never is"),
    "lacks": ([cls("sklearn.pipeline.Pipeline")], "lacks its parameter 'steps'"),
    "fields": ([cls("skact.tokens.Source", model=None)], "do not have the same fields"),
    "more fields": ([cls("skact.auto.Part", concepts=1, choice=2, x=3)], "the same fields"),
    "splitter": ([cls("sklearn.model_selection.KFold", split=1)], "has no attribute 'split'"),
    "splitter 2": ([cls("sklearn.model_selection.KFold", **{"a b": 1})], "no attribute 'a b'"),
    "state": ([{"class": "skact.tokens.Source", "state": [1]}], "a list where a dict is expected"),
    "no state": ([{"class": "skact.tokens.Source"}], "node 0 cannot be read"),
    "tensor": ([{"tensor": "0"}], r"its node 0 cannot be read \(KeyError\('0'\)"),
    "shape": ([{"numbers": [1], "dtype": "int64", "shape": [2]}], r"of 1 and of shape \[2\]"),
    "huge": ([{"numbers": [], "dtype": "int64", "shape": [0, 2**70]}], "cannot be read"),
    "numbers": ([{"numbers": ["1"], "dtype": "int64", "shape": [1]}], "something else in it"),
    "bools": ([{"numbers": [1], "dtype": "bool", "shape": [1]}], "something else in it"),
    "too large": ([{"numbers": [300], "dtype": "int8", "shape": [1]}], "node 0 cannot be read"),
    "dtype": ([{"numbers": [1], "dtype": "O", "shape": [1]}], "'O', which is no known number"),
    "void": ([{"dtype": "V999999999"}], "'V999999999', which is no known number"),
    "texts": ([{"texts": [1], "shape": [1]}], "array of texts with something else"),
    "padding": ([{"texts": ["x" * 10**6] + [""] * 1000, "shape": [1001]}], "claim a size"),
    "key": ([{"list": []}, {"dict": [[node(0), 1]]}], "a key of a dict must be a text or number"),
    "pairs": ([{"dict": [[1]]}], "node 1 cannot|not enough|cannot be read"),
    "scalar": ([{"scalar": 5}], "a int where a ndarray is expected"),
    "random": ([{"list": ["PCG64", 1, 2, 3, 4]}, {"random": node(0)}], "of an unknown kind"),
    "requests": (
        [{"dict": [["__init__", 1]]}, scaler(_metadata_request=node(0))],
        "asks for metadata that '__init__' cannot have",
    ),
}


LOADING = """
import json, os, sys
heard = []
sys.addaudithook(lambda event, args: heard.append(event + str(args)[:99]) if LISTEN else None)
LISTEN = False
import skact
from skact.persistence import _classes
for name in _classes._ROOMS:  # what is imported for good runs code too
    _classes.class_of(name)
skact.load
said = {}
for path in sorted(os.listdir()):
    LISTEN = True
    try:
        skact.load(path)
    except ValueError as error:
        LISTEN = False
        said[path] = str(error)
    LISTEN = False
print(json.dumps([said, sorted(set(heard)), "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What a process of its own says of each file, and all that the interpreter did meanwhile."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, (nodes, _) in HOSTILE.items():
        about = {"version": "0", "estimator": "x", "left_out": [], "nodes": nodes}
        write_file(folder / name.replace(".", "-"), about, {})
    said, heard, torch = json.loads(printed_by(f"import os; os.chdir({str(folder)!r})\n{LOADING}"))
    assert sorted(one.name for one in folder.iterdir()) == sorted(said)
    return said, heard, torch


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_nodes_end_in_one_sentence(name, loaded):
    said = loaded[0][name.replace(".", "-")]
    assert re.search(HOSTILE[name][1], said), said
    assert said.startswith(f"'{name.replace('.', '-')}' cannot be read: ")
    assert "\n" not in said
    assert len(said) < 400


def test_nothing_is_run(loaded):
    _, heard, torch = loaded
    assert any(one.startswith("open") for one in heard)
    opened = {"builtins.id", "open", "object.__getattr__", "object.__setattr__"}
    assert [one for one in heard if one.partition("(")[0] not in opened] == []
    assert not torch


@pytest.mark.parametrize("kind", ["list", "tuple", "dict", "objects"])
def test_nodes_that_hold_each_other_many_times_take_no_time(kind):
    def both(i):
        pair = [[0, node(i)], [1, node(i)]] if kind == "dict" else [node(i), node(i)]
        return {kind: pair, "shape": [2]}

    nodes = [MAX_TOKEN, GRID, *map(both, range(1, 2000))]  # 2 ** 1999 in all
    grid = {"dict": [["detect", node(10)]]}
    assert repr(decode([*nodes[:11], grid, search_with(param_grid=node(11))], {}))
    for last in (30, 2000):
        with pytest.raises(ValueError, match="it holds more than 1000000 parts, or some more than"):
            decode([*nodes[: last + 1], search_with(param_grid=node(last))], {})


def test_nodes_deep_in_each_other_are_refused():
    nodes = [MAX_TOKEN, GRID, *({"list": [node(i)]} for i in range(1, 200))]
    assert repr(decode([*nodes[:91], search_with(param_grid=node(90))], {}))
    with pytest.raises(ValueError, match="or some more than 100 deep"):
        decode([*nodes, search_with(param_grid=node(200))], {})


def test_parameters_that_a_file_lacks_have_their_defaults():
    made = decode([scaler(with_mean=False)], {})
    assert made.get_params() == TokenScaler(with_mean=False).get_params()


def test_no_constructor_is_called(monkeypatch):
    encoder = Encoder()
    estimator, data = next((e, d) for name, e, d in kept.lines() if name == "search")
    encoder.value(estimator, "search")

    def instead_of(function):
        @wraps(function)
        def never(*_, **__):
            raise AssertionError

        return never

    for one in (SelectLayer, TokenScaler, skact.ConceptSearchCV):
        monkeypatch.setattr(one, "__init__", instead_of(one.__init__))
        monkeypatch.setattr(one, "__setstate__", instead_of(one.__setstate__))
    with pytest.raises(AssertionError):
        TokenScaler()
    back = decode(encoder.nodes, encoder.tensors)
    monkeypatch.undo()
    kept.assert_says_the_same(estimator, back, data)
