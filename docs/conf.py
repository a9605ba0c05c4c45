"""Sphinx configuration: ``make docs``. What the site does by itself lies in ``extensions``."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))

from extensions import manuals, reference, sources

import skact

project = "skact"
author = "The skact developers"
copyright = author
version = release = skact.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.linkcode",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "extensions.formulas",
    "extensions.menus",
    "extensions.names",
    "extensions.reference",
    "extensions.sources",
]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build", "examples"]
html_extra_path = ["references.bib"]

# Nothing is fetched by who reads the site: formulas are MathML, fonts those of the system.
html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "skact"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
html_sidebars = {"index": []}
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_nav_level": 2,
    "show_toc_level": 2,
    "search_as_you_type": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}

myst_enable_extensions = ["attrs_block", "dollarmath", "amsmath"]
myst_heading_anchors = 3

numpydoc_show_class_members = False
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"
numpydoc_xref_aliases = manuals.types(reference.names())
intersphinx_mapping = manuals.mapping()
linkcode_resolve = sources.resolve
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "within_subsection_order": "extensions.examples.ReadingOrder",
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("skact",),
    "reference_url": {"skact": None},
    "download_all_examples": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}
