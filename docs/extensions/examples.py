"""The examples: their reading order, that of the guide, and which page each belongs to."""

import re
from pathlib import Path

from extensions import menus

FOLDER = Path(__file__).parents[1] / "examples"


def page(script):
    """Return the page of the guide that a script names, as ``:doc:`/user_guide/search```."""
    named = re.search(r":doc:`/([\w/]+)`", script.read_text(encoding="utf-8"))
    return named and named[1]


def place(script):
    """Sort by the place of the page in the guide; those without one come last."""
    pages = menus.guide()[1]
    named = page(script)
    return (pages.index(named) if named in pages else len(pages), script.name)


class ReadingOrder:
    """Sorts scripts as they should be read."""

    def __init__(self, src_dir):
        self.src_dir = Path(src_dir)

    def __call__(self, filename):
        """Return what a file is sorted by."""
        return place(self.src_dir / filename)

    def __repr__(self):
        """Stay the same from run to run, as Sphinx compares configurations."""
        return "<ReadingOrder>"


def scripts():
    """Return the scripts in reading order."""
    return sorted(FOLDER.glob("plot_*.py"), key=place)


def about(name):
    """Return the scripts that use a name."""
    return [p for p in scripts() if re.search(rf"\b{name}\b", p.read_text(encoding="utf-8"))]
