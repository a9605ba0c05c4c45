"""Menus: what a reader of the Markdown files finds as lists of links is the sidebar of the site.

A page is in the sidebar where a list links to it; a page of the guide without a link comes last.
"""

import re
from functools import cache
from pathlib import Path

from extensions import examples, reference

DOCS = Path(__file__).parents[1]
TOP = [
    "Get started <start/index>",
    "User guide <user_guide/index>",
    "Examples <gallery/index>",
    "Reference <api>",
    "Develop <develop>",
]
# Files beside the package that are pages of the site, too.
ROOT = {
    "changelog": "CHANGELOG.md",
    "conduct": "CODE_OF_CONDUCT.md",
    "contributing": "CONTRIBUTING.md",
    "security": "SECURITY.md",
}
FIGURES = re.compile(r"^(?=\|.*\n\| ---.*\n(?:\|.*\n)*?\|.*\d \[-?\d\.)", re.MULTILINE)
ITEM = re.compile(r"^- \[[^\]]*\]\(([\w/]+)\.md\)", re.MULTILINE)


def toctree(pages, caption=None):
    """Write a menu that the page does not show."""
    caption = [f":caption: {caption}"] if caption else []
    return "\n".join(["", "```{toctree}", ":hidden:", *caption, "", *pages, "```", ""])


@cache
def guide():
    """Return the list of the guide, and its pages in reading order."""
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = re.search(r"^## User guide\n(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)[1]
    pages = [page for page in ITEM.findall(listed) if page.startswith("user_guide/")]
    others = sorted(f"user_guide/{p.stem}" for p in (DOCS / "user_guide").glob("*.md"))
    return listed, [*pages, *(p for p in others if p not in {*pages, "user_guide/index"})]


@cache
def guide_pages_about(name):
    """Return the pages of the guide, and those of the first hour, that use a name."""
    first = sorted(f"start/{p.stem}" for p in (DOCS / "start").glob("*.md"))
    return [
        page
        for page in [*first, *guide()[1]]
        if re.search(rf"\b{name}\b", (DOCS / f"{page}.md").read_text(encoding="utf-8"))
    ]


def beside(docname, text):
    """Return the pages that a page lists, in that order."""
    folder = docname.rpartition("/")[0]
    return [f"/{folder}/{page}" if folder else f"/{page}" for page in ITEM.findall(text)]


def from_root(docname):
    """Return the text of a file beside the package, with links that fit the site."""
    text = (DOCS.parent / ROOT[docname]).read_text(encoding="utf-8").replace("](docs/", "](")
    for page, file in ROOT.items():
        text = text.replace(f"]({file})", f"]({page}.md)")
    return re.sub(r"\[([^\]]*)\]\(constraints\.txt\)", r"`\1`", text)


def examples_of(docname):
    """Show the examples that belong to a page: those that link to it."""
    scripts = [script for script in examples.scripts() if examples.page(script) == docname]
    if not scripts:
        return ""
    paths = "\n".join(f"   examples/{script.name}" for script in scripts)
    return f"\n## Examples\n\n```{{eval-rst}}\n.. minigallery::\n\n{paths}\n```\n"


def read(app, docname, source):
    """Give a page what its Markdown file has no need of."""
    text = re.sub(r"\((?:\.\./)*examples/(plot_\w+)\.py\)", r"(/gallery/\1.rst)", source[0])
    text = from_root(docname) if docname in ROOT else text
    text = FIGURES.sub("{.figures}\n", text)
    listed, pages = guide()
    if docname == app.config.root_doc:
        doors = re.search(r"^\|", text, re.MULTILINE).start()
        text = text[:doors] + "{.doors}\n" + text[doors:]
        text = text.replace(f"## User guide\n{listed}", "") + toctree(TOP)
    elif docname == "user_guide/index":
        here = listed.replace("](user_guide/", "](")
        text = text.replace("[The pages](../index.md#user-guide)", here)
        text += toctree([f"/{page}" for page in pages])
    elif docname == "api":
        text += reference.menu()
    elif docname in ("start/index", "develop"):
        text += toctree(beside(docname, text))
    source[0] = text + examples_of(docname)


def setup(app):
    """Register the hook."""
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
