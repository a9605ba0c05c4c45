"""A page that stands alone: its own style and script, nothing loaded, nothing else may run."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from skact.inspection import document, escaped

__all__ = ["about_model", "definition_list", "filter_form", "link_of", "page", "table"]


@cache
def _resource(name: str) -> str:
    return (files("skact.reporting") / name).read_text(encoding="utf-8")


def link_of(part: int) -> str:
    """Name the place of a part in the page."""
    return f"part-{part}"


def about_model(embedder: Any, n_samples: int) -> str:
    """Say which model read how many samples; a folder goes by its name, its place is private.

    Parameters
    ----------
    embedder : TransformerEmbedder
        What read them.
    n_samples : int
        How many.

    Returns
    -------
    said : str
        Plain text, without a full stop.
    """
    name = embedder.reader.loaded.name
    name = Path(name).name if os.path.isabs(name) else name
    return f"Model {name}, {n_samples} samples"


def definition_list(pairs: Iterable[tuple[str, Any]]) -> str:
    """Make a list of facts.

    Parameters
    ----------
    pairs : iterable of (str, object)
        What it is and what it says, plain text; those that say None are left out.

    Returns
    -------
    html : str
        A list.
    """
    shown = "".join(
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(str(value))}</dd></div>"
        for name, value in pairs
        if value is not None
    )
    return f"<dl>{shown}</dl>"


def page(
    title: str, about: Sequence[str], body: str, path: str | os.PathLike[str] | None = None
) -> str:
    """Wrap what was made into a page.

    Parameters
    ----------
    title : str
        Plain text, escaped here.
    about : sequence of str
        Lines under the title, plain text.
    body : str
        HTML, escaped where it was made.
    path : str or path-like, default=None
        Also write it there, in one step; the folder has to be there.

    Returns
    -------
    html : str
        A whole document. Its policy allows the one script that is in it.
    """
    script = _resource("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{digest}'"
    )
    lines = "".join(f'<p class="quiet">{escaped(line)}</p>' for line in about)
    head = (
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{_resource('report.css')}</style>\n"
    )
    body = (
        '<body>\n<a class="skip" href="#main">Skip to the content</a>\n'
        f"<header><h1>{escaped(title)}</h1>{lines}</header>\n{body}\n"
        f"<script>{script}</script>\n</body>"
    )
    return document(title, body, policy, head=head, path=path)


def filter_form(one: str, many: str, names: Sequence[str], outcomes: dict[str, str]) -> str:
    """Make the controls by which parts and outcomes are chosen; hidden until the script runs.

    Parameters
    ----------
    one, many : str
        What a part is called, and several.
    names : sequence of str
        Names of the parts, plain text.
    outcomes : dict of str to str
        Key and words of each outcome that there is.

    Returns
    -------
    html : str
        A form.
    """
    options = "".join(
        f'<option value="{k}">{escaped(name)}</option>' for k, name in enumerate(names)
    )
    boxes = "".join(
        f'<label><input type="checkbox" name="outcome" value="{key}" checked> {escaped(words)}'
        "</label>"
        for key, words in outcomes.items()
    )
    chosen = f"<fieldset><legend>Outcome</legend>{boxes}</fieldset>" if boxes else ""
    return (
        f'<form id="filter" aria-label="Filter" data-parts="{escaped(many)}" autocomplete="off" '
        f'hidden><div><label class="label" for="part">{escaped(one)}</label>'
        f'<select id="part"><option value="">All {len(names)} {escaped(many)}</option>{options}'
        f'</select></div>{chosen}<button type="reset">Show everything</button>'
        '<output id="shown"></output></form>'
    )


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a table whose first column names its rows and whose others hold numbers.

    Parameters
    ----------
    caption : str
        What it shows, plain text.
    heads : sequence of str
        Heads of the columns, plain text.
    rows : sequence of sequences of str
        HTML of the cells.

    Returns
    -------
    html : str
        A table that scrolls by itself where the page is narrow.
    """
    first, *others = (escaped(head) for head in heads)
    head = f'<th scope="col">{first}</th>' + "".join(
        f'<th scope="col" class="number">{other}</th>' for other in others
    )
    body = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f'<td class="number">{cell}</td>' for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(caption)}"><table>'
        f"<caption>{escaped(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )
