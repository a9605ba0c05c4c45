"""Sphinx configuration: ``sphinx-build -b html docs docs/_build/html``."""

import os
import re
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import skact

HERE = Path(__file__).parent

project = "skact"
author = "The skact developers"
copyright = author
version = release = skact.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
root_doc = "index"
# Generated pages live in _build as well, so that the sources stay clean.
exclude_patterns = ["_build/html", "examples"]
html_theme = "alabaster"
html_extra_path = ["references.bib"]

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

autosummary_generate = True
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "_build/gallery",
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
}


def write_reference():
    """List all public names for autosummary."""
    names = "\n".join(f"   {name}" for name in skact.__all__)
    title = "Reference"
    text = (
        f"{title}\n{'=' * len(title)}\n\n.. currentmodule:: skact\n\n"
        f".. autosummary::\n   :toctree: generated\n\n{names}\n"
    )
    path = HERE / "_build" / "reference.rst"
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


write_reference()


def add_toctree(app, docname, source):
    """Give the first page its menu, which a reader of the Markdown file does not need."""
    if docname == root_doc:
        pages = [
            *(f"user_guide/{p}" for p in GUIDE),
            "adding_a_method",
            "api",
            "_build/reference",
            "_build/gallery/index",
        ]
        source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"


GUIDE = ["containers", "embedding", "concepts", "detection", "search"]


def drop_labels(app, what, name, obj, options, lines):
    """Inherited docstrings refer to labels of scikit-learn's own manual; keep the words alone."""
    lines[:] = [re.sub(r":ref:`([^<`]*?) ?<[^>]*>`", r"\1", line) for line in lines]


def setup(app):
    """Register the hooks."""
    app.connect("source-read", add_toctree)
    app.connect("autodoc-process-docstring", drop_labels)
