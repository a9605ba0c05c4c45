"""Imports run downwards only, rooms keep their walls, and heavy libraries stay out until needed."""

import ast
from functools import cache

import pytest

from tests.fresh import printed_by
from tests.parsed import PACKAGE, PATHS, tree

FLOORS = [
    {"cached"},
    {"arguments", "extras", "files", "progress", "rows", "theory", "warning"},
    {"array_files", "journal", "tokens"},
    {"pooling", "samples", "store", "tail", "validation"},
    {"targets"},
    {"base"},
    {"models"},
    {"concepts", "datasets", "detection", "embedding", "preprocessing", "prompting"},
    {"metrics"},
    {"algebra", "augmentation", "heads", "model_selection", "steering"},
    {"inspection", "localization"},
    {"persistence"},
    {"auto", "monitoring", "reporting"},
    {"protocol"},
    {"cli"},
    {"__main__"},
]
HEAVY = {
    "torch": {
        "models",
        "heads",
        "localization",
        "steering",
        "concepts/_autoencoder_model.py",
        "concepts/_autoencoder_training.py",
    },
    "transformers": {"models"},
    "matplotlib": {"inspection"},
    "faiss": {"concepts/_lloyd.py"},
    "captum": {"localization"},
    "shapiq": {"localization"},
}


def name_of(path, root=PACKAGE):
    """Name of a module, that of a package for its ``__init__``."""
    parts = ("skact", *path.relative_to(root).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in PATHS}
ROOMED = {name: path for name, path in MODULES.items() if name != "skact"}


@cache
def imported(path):
    """Everything that a module imports, wherever in its text; names of packages with the name."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [(node.module, alias.name) for alias in node.names]
    return found


def edges(name, modules=MODULES):
    """Modules of the package that a module imports."""
    found = set()
    for module, thing in imported(modules[name]):
        whole = f"{module}.{thing}"
        found |= {whole if whole in modules else module} & set(modules)
    return found - {name}


def room(name):
    return name.split(".")[1]


def floor(name):
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


def circle(graph):
    """Modules that import each other in a circle, or None."""
    left = {name: set(others) for name, others in graph.items()}
    while left:
        free = {name for name, others in left.items() if not others & set(left)}
        if not free:
            return sorted(left)
        left = {name: others for name, others in left.items() if name not in free}
    return None


@pytest.mark.parametrize("name", ROOMED)
def test_imports_run_downwards(name):
    for other in edges(name) - {"skact"}:
        if room(other) != room(name):
            assert floor(room(other)) < floor(room(name)), f"{name} imports {other}"


@pytest.mark.parametrize("name", ROOMED)
def test_rooms_are_entered_by_their_doors(name):
    for module, thing in imported(MODULES[name]):
        if module.startswith("skact.") and room(module) != room(name):
            assert "._" not in module, f"{name} reaches into {module}"
            assert thing is None or not thing.startswith("_"), f"{name} takes {module}.{thing}"


def test_saving_is_reached_from_inside_the_method_that_saves():
    rooms = {name: {room(other) for other in edges(name) - {"skact"}} for name in ROOMED}
    reach = [name for name, others in rooms.items() if "persistence" in others - {room(name)}]
    assert reach == ["skact.auto._detector", "skact.cli"]
    for name in reach:
        at_import = [n.module for n in tree(MODULES[name]).body if isinstance(n, ast.ImportFrom)]
        assert "skact.persistence" not in at_import


def test_the_protocol_is_reached_from_the_command_alone():
    rooms = {name: {room(other) for other in edges(name) - {"skact"}} for name in ROOMED}
    reach = [name for name, others in rooms.items() if "protocol" in others - {room(name)}]
    assert reach == ["skact.cli"]


def test_theory_imports_nothing_of_the_package():
    theory = [name for name in ROOMED if room(name) == "theory"]
    assert len(theory) > 1
    assert {other for name in theory for other in edges(name) if room(other) != "theory"} == set()
    libraries = {m.split(".")[0] for n in theory for m, _ in imported(MODULES[n])}
    assert libraries <= {"__future__", "numpy", "sklearn", "skact", "typing"}


def test_there_is_no_circle():
    assert circle({name: edges(name) for name in MODULES}) is None


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_libraries_have_their_rooms(library):
    users = {
        str(path.relative_to(PACKAGE))
        for path in MODULES.values()
        if any(module.split(".")[0] == library for module, _ in imported(path))
    }
    allowed = HEAVY[library]
    assert all(user in allowed or user.split("/")[0] in allowed for user in users), users


def test_the_rules_can_be_broken(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("import torch\nfrom skact.metrics import Interval\n")
    assert imported(bad) == [("torch", None), ("skact.metrics", "Interval")]
    assert floor("metrics") > floor("tokens")
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) is None


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import skact", ["torch", "transformers", "faiss", "sklearn", "matplotlib"]),
        (
            "import skact\nfor n in skact.__all__: getattr(skact, n)\nskact.TransformerEmbedder()",
            ["torch", "transformers", "faiss", "matplotlib"],
        ),
    ],
)
def test_importing_stays_light(code, absent):
    check = f"{code}\nimport sys\nprint([m for m in {absent!r} if m in sys.modules])"
    assert printed_by(check) == "[]"
