"""What keeps the code readable: small modules and functions, shallow inheritance, one of each."""

import ast
from functools import cache

import pytest

from tests.parsed import PACKAGE, PATHS, tree

NAMES = {str(path.relative_to(PACKAGE)): path for path in PATHS}


@cache
def bases():
    """Names of the classes that each class stands on."""
    return {
        node.name: {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases}
        - {node.name}
        for path in PATHS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
    }


def functions(of):
    return (n for n in ast.walk(of) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def n_lines(function):
    """Lines of a function without its docstring."""
    first = function.body[0]
    doc = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0
    return function.end_lineno - function.lineno + 1 - doc


def depth(name):
    """Classes above one, those of other libraries counted once."""
    return 1 + max(map(depth, bases()[name]), default=0) if name in bases() else 0


@pytest.mark.parametrize("name", NAMES)
def test_modules_and_functions_can_be_read(name):
    assert len(NAMES[name].read_text(encoding="utf-8").splitlines()) <= 600
    assert [f.name for f in functions(tree(NAMES[name])) if n_lines(f) > 50] == []


def test_inheritance_is_shallow():
    deep = {name: depth(name) for name in bases()}
    assert {name: d for name, d in deep.items() if d > 4} == {}
    assert max(deep.values()) > 1


@pytest.mark.parametrize("name", ["Array", "cosines"])
def test_there_is_one(name):
    assigned = [
        path
        for path in PATHS
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.FunctionDef) and node.name == name)
        or (isinstance(node, ast.Assign) and name in [getattr(t, "id", "") for t in node.targets])
    ]
    assert len(assigned) == 1, assigned


def test_lengths_are_counted(tmp_path):
    long = ast.parse("def f():\n    '''Doc.'''\n" + "    x = 1\n" * 51)
    assert [n_lines(f) for f in functions(long)] == [52]
