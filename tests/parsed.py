"""The modules of the package as trees, each parsed once for all tests."""

import ast
from functools import cache
from pathlib import Path

import skact

PACKAGE = Path(skact.__file__).parent
PATHS = sorted(PACKAGE.rglob("*.py"))


@cache
def tree(path):
    """Syntax of a module."""
    return ast.parse(path.read_text(encoding="utf-8"))
