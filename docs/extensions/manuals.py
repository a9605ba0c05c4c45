"""Links into the manuals of other libraries, without a network.

``docs/manuals`` lists what this manual speaks of, written by hand in the first form of Sphinx's
inventories, which is text: name, kind, page. Nothing is fetched, so a page that another project
moves is found out by its readers, not by the build.
"""

from functools import cache
from pathlib import Path

from numpydoc.xref import DEFAULT_LINKS

FOLDER = Path(__file__).parents[1] / "manuals"
MANUALS = {
    "matplotlib": "https://matplotlib.org/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "scikit-learn": "https://scikit-learn.org/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}


def mapping():
    """Return the mapping of ``sphinx.ext.intersphinx``."""
    return {name: (address, f"manuals/{name}.inv") for name, address in MANUALS.items()}


@cache
def listed(*kinds):
    """Return {last part: full name} of what is listed, of these kinds only."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.inv"))]
    rows = [row.split() for text in texts for row in text.splitlines() if row[0] != "#"]
    return {name.rpartition(".")[2]: name for name, kind, _ in rows if not kinds or kind in kinds}


def types(names):
    """Return {word: full name} of the classes that types in docstrings name, ours and others'.

    numpydoc has words of its own, which lead to manuals that are not listed; they stay words.
    """
    ours = {full.rpartition(".")[2]: full for full in names}
    ours = {name: full for name, full in ours.items() if name[0].isupper() and not name.isupper()}
    return {word: word for word in DEFAULT_LINKS} | listed("class") | ours
