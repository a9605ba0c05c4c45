"""The public surface: names and docstrings; `make lint` checks the types."""

import inspect
import re

import pytest
from numpydoc.validate import validate

import skact


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
