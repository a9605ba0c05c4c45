"""[source] links: pages of the package's code, and the lines of what the reference describes.

``sphinx.ext.linkcode`` asks for the address. The pages are written here, so that they are of the
version that the site is of, and need no network.
"""

import importlib
import inspect
import operator
from functools import cache
from pathlib import Path

import skact
from extensions import reference

ROOT = Path(skact.__file__).parents[1]
FOLDER = "_modules"


@cache
def place(module, name):
    """Return the file of the package that something is written in, and its first line, or None.

    What is inherited is found where it is written; what another library wrote has no page here.
    """
    try:
        thing = operator.attrgetter(name)(importlib.import_module(module))
        thing = inspect.unwrap(getattr(thing, "fget", None) or getattr(thing, "func", thing))
        file = Path(inspect.getsourcefile(thing)).relative_to(ROOT)
        return (file, inspect.getsourcelines(thing)[1]) if file.parts[0] == "skact" else None
    except (AttributeError, OSError, TypeError, ValueError):
        return None  # a number or a table has no lines of its own


def docname(file):
    """Return the name of the page of a file."""
    return f"{FOLDER}/{file.with_suffix('').as_posix()}"


def resolve(domain, info):
    """Return the address of the code of an entry, from its page of the reference."""
    found = domain == "py" and place(info["module"], info["fullname"])
    return f"../{docname(found[0])}.html#L-{found[1]}" if found else None


def files():
    """Return the files that hold what the reference describes."""
    for full in reference.names():
        module, _, name = full.rpartition(".")
        for entry in [name, *(f"{name}.{member}" for member in reference.members(full))]:
            if found := place(module, entry):
                yield found[0]


def pages(app):
    """Give the page of each file."""
    for file in sorted(set(files())):
        code = (ROOT / file).read_text(encoding="utf-8")
        code = app.builder.highlighter.highlight_block(code, "python", lineanchors="L")
        title = file.as_posix()
        yield docname(file), {"title": title, "body": f"<h1>{title}</h1>{code}"}, "page.html"


def setup(app):
    """Register the pages."""
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
