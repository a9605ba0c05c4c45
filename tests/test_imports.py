"""Imports run downwards only, and heavy libraries stay out until they are needed."""

import ast
from pathlib import Path

import pytest

import skact
from tests.fresh import printed_by

PACKAGE = Path(skact.__file__).parent
FLOORS = [
    {"_floats_compiled", "compiling"},
    {"files", "floats", "source"},
    {"shards"},
    {"reading"},
    {"tokens"},
    {"samples", "validation"},
    {"base", "hub"},
    {"embedding", "preprocessing", "concepts", "detection", "datasets"},
    {"model_selection", "metrics", "inspection"},
    {"localization"},
]
HEAVY = {
    "torch": {
        "embedding",
        "localization",
        "concepts/_autoencoder_training.py",
        "detection/_prompt_model.py",
        "hub.py",
    },
    "transformers": {"embedding", "detection/_prompt_model.py", "hub.py"},
    "matplotlib": {"inspection"},
    "faiss": {"concepts/_kmeans.py"},
    "captum": {"localization"},
    "shapiq": {"localization"},
    "numba": {"_floats_compiled.py", "concepts/_adam_compiled.py"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor(name):
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


MODULES = [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    for name in imported(path):
        if name.startswith("skact."):
            other = name.split(".")[1]
            if other != room(path):
                assert floor(other) < floor(room(path)), f"{path} imports {name}"


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_libraries_have_their_rooms(library):
    users = {
        str(p.relative_to(PACKAGE))
        for p in MODULES
        if any(n.split(".")[0] == library for n in imported(p))
    }
    allowed = HEAVY[library]
    assert all(u in allowed or u.split("/")[0] in allowed for u in users), users


def test_the_rule_can_be_broken(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("import torch\nfrom skact.metrics import Interval\n")
    assert list(imported(bad)) == ["torch", "skact.metrics"]
    assert floor("metrics") > floor("tokens")


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import skact", ["torch", "transformers", "faiss", "sklearn", "matplotlib", "numba"]),
        (
            "import skact\nfor n in skact.__all__: getattr(skact, n)\nskact.TransformerEmbedder()",
            ["torch", "transformers", "faiss", "matplotlib", "numba"],
        ),
    ],
)
def test_importing_stays_light(code, absent):
    check = f"{code}\nimport sys\nprint([m for m in {absent!r} if m in sys.modules])"
    assert printed_by(check) == "[]"
