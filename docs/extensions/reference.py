"""The reference: a page for each public name, with every method, grouped by room.

The groups are the sections of ``api.md``: the names of their tables, and those that a paragraph
names beside their room, as ``skact.concepts.BaseConcepts``, or ``lime`` in one that speaks of
``skact.localization``.
"""

import importlib
import inspect
import re
from functools import cache
from pathlib import Path

from sphinx.pycode import ModuleAnalyzer

import skact
from extensions import examples, menus

DOCS = Path(__file__).parents[1]
FOLDER = DOCS / "reference"


@cache
def sections():
    """Return {heading: full names}."""
    found = {}
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    for section in text.split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        names = [f"skact.{name}" for name in re.findall(r"^\| `(\w+)` \|", body, re.M)]
        for paragraph in body.split("\n\n"):
            names += beyond_the_top(paragraph)
        found[heading.partition(" (")[0]] = list(dict.fromkeys(names))
    return found


def beyond_the_top(paragraph):
    """Return the full names of what a paragraph names beside its room."""
    words = re.findall(r"`(?:skact\.\w+\.)?(\w+)`", paragraph)
    rooms = dict.fromkeys(re.findall(r"`skact\.(\w+)", paragraph))
    held = {room: importlib.import_module(f"skact.{room}").__all__ for room in rooms}
    pairs = ((room, word) for word in words for room in rooms if word in held[room])
    return [f"skact.{room}.{word}" for room, word in pairs if word not in skact.__all__]


@cache
def names():
    """Return all full names."""
    return {full for group in sections().values() for full in group}


def look_up(full):
    """Return what a full name names."""
    module, _, name = full.rpartition(".")
    return getattr(importlib.import_module(module), name)


def members(full):
    """Return {name: whether it is called} of what the page of a class describes."""
    thing = look_up(full)
    if not inspect.isclass(thing):
        return {}
    names = {m for m in dir(thing) if not m.startswith("_")}
    if issubclass(thing, tuple):
        names -= set(dir(tuple))
    plain = (str, int, float, tuple, dict)
    values = {name: inspect.getattr_static(thing, name) for name in sorted(names)}
    values = {n: v for n, v in values.items() if v.__doc__ and not isinstance(v, plain)}
    found = {name: callable(getattr(thing, name)) for name in values}
    return found | dict.fromkeys(commented(thing), False)


def commented(thing):
    """Return the attributes of instances that a comment ``#:`` describes."""
    for base in thing.__mro__:
        if base.__module__.startswith("skact."):
            described = ModuleAnalyzer.for_module(base.__module__).find_attr_docs()
            yield from (m for owner, m in described if owner == base.__name__ and m[0] != "_")


def summary(full):
    """List methods and properties, each with its first sentence."""
    found, name, lines = members(full), full.rpartition(".")[2], []
    for title, called in (("Methods", True), ("Properties", False)):
        if rows := [f"   ~{name}.{member}" for member in found if found[member] == called]:
            lines += [f".. rubric:: {title}", "", ".. autosummary::", "   :nosignatures:", ""]
            lines += [*rows, ""]
    return lines


def page(full):
    """Write the page of a name."""
    module, _, name = full.rpartition(".")
    thing = look_up(full)
    lines = [name, "=" * len(name), "", f".. currentmodule:: {module}", ""]
    if inspect.isclass(thing):
        lines += summary(full)
        lines += [f".. autoclass:: {name}", "   :members:", "   :inherited-members: tuple", ""]
    else:
        lines += [f".. auto{'function' if callable(thing) else 'data'}:: {name}", ""]
    if pages := menus.guide_pages_about(name):
        lines += [".. rubric:: In the guide", "", *(f"- :doc:`/{p}`" for p in pages), ""]
    if scripts := examples.about(name):
        lines += [".. rubric:: Examples", "", ".. minigallery::", ""]
        lines += [f"   examples/{script.name}" for script in scripts]
    return "\n".join(lines) + "\n"


def write(app):
    """Write all pages; one that stays as it was is not touched, so that it is not read again."""
    FOLDER.mkdir(exist_ok=True)
    pages = {FOLDER / f"{full}.rst": page(full) for full in names()}
    for path, text in pages.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in set(FOLDER.glob("*.rst")) - set(pages):
        path.unlink()


def menu():
    """Return the menu of the reference: a caption for each section."""
    return "".join(
        menus.toctree([f"reference/{full}" for full in group], caption=heading)
        for heading, group in sections().items()
    )


def drop_labels(app, what, name, obj, options, lines):
    """Inherited docstrings refer to labels of scikit-learn's own manual; keep the words alone."""
    text = "\n".join(lines)
    text = re.sub(r":(?:ref|term):`([^`<]*?)\s*<[^`>]*>`", r"\1", text)
    text = re.sub(r":(?:ref|term):`([^`]*)`", r"\1", text)
    lines[:] = text.split("\n")


def setup(app):
    """Register the hooks."""
    app.connect("builder-inited", write)
    app.connect("autodoc-process-docstring", drop_labels)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
