"""The public surface: names and docstrings; `make lint` checks the types."""

import ast
import inspect
import pydoc
import re

import numpy as np
import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate
from sklearn.base import clone

import skact
from skact.localization import AttributionMethod
from tests.persistence import kept


def test_all_is_sorted_and_complete():
    assert skact.__all__ == sorted(skact.__all__)
    assert all(isinstance(name, str) for name in skact.__all__)
    for name in skact.__all__:
        assert getattr(skact, name) is not None
    assert set(skact.__all__) <= set(dir(skact))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="SuperDeactivator"):
        _ = skact.SuperDeactivator


def documented():
    """Every public class and function, and the public methods written here."""
    for name in skact.__all__:
        thing = getattr(skact, name)
        if not callable(thing) or not hasattr(thing, "__name__"):
            continue
        yield f"{thing.__module__}.{thing.__name__}"
        if inspect.isclass(thing):
            for attribute, member in inspect.getmembers(thing):
                written_here = str(getattr(member, "__module__", "")).startswith("skact")
                if attribute.startswith("_") or not callable(member) or not written_here:
                    continue
                yield f"{thing.__module__}.{thing.__name__}.{attribute}"


# What numpydoc may not ask for: its own layout of the first lines (GL01), a See Also (SA01), an
# extended summary (ES01), examples for each method (EX01), and the Yields/Returns wording RT02-05.
IGNORED = {"GL01", "GL08", "SA01", "ES01", "EX01", "RT02", "RT03", "RT05", "GL07", "PR08", "PR09"}


@pytest.mark.parametrize("name", sorted(set(documented())))
def test_docstrings_are_numpydoc(name):
    errors = [e for e in validate(name)["errors"] if e[0] not in IGNORED]
    assert not errors


@pytest.mark.parametrize("name", sorted(set(documented())))
def test_docstrings_say_shapes_and_results(name):
    doc = validate(name)["docstring"]
    assert doc, name
    assert not re.search(r"\\$", doc, re.M), "a raw docstring keeps it, and Sphinx trips over it"
    if "Parameters" in doc and "ndarray" in doc:
        assert "shape" in doc or "float" in doc, "arrays need shapes"


def test_the_formulas_name_their_source():
    for name in ("SuperActivator", "LinearSeparator", "MeanPrototype", "TokenScaler"):
        doc = getattr(skact, name).__doc__
        assert ".. math::" in doc, name
        assert "The SuperActivator Mechanism" in doc, name


def said_defaults(thing):
    """Defaults of arguments, as the docstring writes them."""
    for entry in NumpyDocString(inspect.getdoc(thing) or "")["Parameters"]:
        names = entry.name.split(", ")
        if found := re.search(r"default=(.+)$", entry.type):
            texts = re.split(r", | and ", found[1]) if len(names) > 1 else [found[1]]
            texts = texts if len(texts) == len(names) else [found[1]] * len(names)
            yield from zip(names, texts, strict=True)


def read(text, thing):
    """Value of a default: a literal, or what has that name."""
    try:
        return ast.literal_eval(text)
    except ValueError:
        return getattr(inspect.getmodule(inspect.unwrap(thing)), text)


@pytest.mark.parametrize("name", sorted(set(documented())))
def test_defaults_are_those_of_the_signature(name):
    thing = pydoc.locate(name)
    given = inspect.signature(thing).parameters
    for argument, text in said_defaults(thing):
        assert given[argument].default == read(text, thing), argument


def test_a_wrong_default_is_noticed():
    def function(a=1):
        """Do nothing.

        Parameters
        ----------
        a, b : int, default=2 and "c"
            A number.
        """

    assert dict(said_defaults(function)) == {"a": "2", "b": '"c"'}
    assert inspect.signature(function).parameters["a"].default != read("2", function)


def fits(said, value):
    """Whether a fitted attribute is of the type that the docstring says."""
    if value is None:
        return "None" in said
    if said.startswith("ndarray"):
        shapes = re.match(r"ndarray of shape (\([^)]*\))(?: or (\([^)]*\)))?", said).groups()
        n_axes = {len(re.findall(r"[^(), ][^,]*", shape)) for shape in shapes if shape}
        dtypes = re.search(r"dtype (\w+)(?: or (\w+))?", said)
        right = dtypes is None or value.dtype in [np.dtype(one) for one in dtypes.groups() if one]
        return isinstance(value, np.ndarray) and value.ndim in n_axes and right
    kinds = {"float": float, "int": (int, np.integer), "bool": (bool, np.bool_), "str": str}
    return " or " in said or isinstance(value, kinds.get(said, object))


@pytest.mark.filterwarnings("ignore")  # that little is learnt in few iterations
@pytest.mark.parametrize(("made", "data"), [e[1:] for e in kept.single()], ids=repr)
def test_attributes_are_of_the_type_that_is_said(made, data):
    fitted = clone(made).fit(data, kept.Y)
    entries = NumpyDocString(inspect.getdoc(type(made)))["Attributes"]
    names = {name for entry in entries for name in entry.name.split(", ")}
    assert {n for n in vars(fitted) if n.endswith("_") and not n.startswith("_")} <= names
    for entry in entries:
        for name in entry.name.split(", "):
            if hasattr(fitted, name):
                assert fits(entry.type, getattr(fitted, name)), name
            else:
                assert re.search(r"\b(Only|With|Absent)\b", " ".join(entry.desc)), name


@pytest.mark.parametrize(
    ("said", "value", "right"),
    [
        ("ndarray of shape (n,), dtype float64", np.zeros(2), True),
        ("ndarray of shape (n,), dtype float64", np.zeros((2, 2)), False),
        ("ndarray of shape (n,), dtype float64", np.zeros(2, np.float32), False),
        ("ndarray of shape (n, 2) or (n,), dtype int64", np.zeros(2, np.int64), True),
        ("ndarray of shape (n,) or None", None, True),
        ("float", 1, False),
        ("int", np.int64(1), True),
    ],
)
def test_types_are_told_apart(said, value, right):
    assert fits(said, value) == right


# What reads samples refuses some; of the ten methods of attribution only the localizer is called.
READING = {"fit", "fit_path", "fit_transform", "partial_fit", "transform", "inverse_transform"}
READING |= {"predict", "predict_proba", "predict_unsure", "decision_function", "score", "merge"}
READING |= {"superactivators", "match_table"}


def reading():
    """Methods of estimators that read samples."""
    for name in sorted(set(documented())):
        owner, _, method = name.rpartition(".")
        inner = isinstance(pydoc.locate(owner), type) and issubclass(
            pydoc.locate(owner), AttributionMethod
        )
        if method in READING and not inner:
            yield name


@pytest.mark.parametrize("name", list(reading()))
def test_what_reads_samples_says_what_it_refuses(name):
    places = name, name.rpartition(".")[0]  # the method, or the class for all of its methods
    assert any(NumpyDocString(inspect.getdoc(pydoc.locate(one)))["Raises"] for one in places)


def test_many_methods_read_samples():
    assert len(list(reading())) > 80
