"""One page of tables and figures, each part with its facts: what a run has found."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from skact.inspection import escaped
from skact.metrics import Interval
from skact.reporting._charts import interval_bar
from skact.reporting._page import definition_list, filter_form, link_of, page, table

__all__ = ["ResultFigure", "ResultPart", "ResultTable", "results_page"]


@dataclass(frozen=True)
class ResultTable:
    """A table of plain text.

    Parameters
    ----------
    caption : str
        What it shows.
    rows : sequence of sequences of object
        The first are the heads; the first column names the rows.
    intervals : sequence of Interval, default=()
        Of each row, drawn from 0 to 1 in a column of its own; none draws none.
    floor : float, default=0.0
        Drawn beside them.
    """

    caption: str
    rows: Sequence[Sequence[Any]]
    intervals: Sequence[Interval] = ()
    floor: float = 0.0


@dataclass(frozen=True)
class ResultFigure:
    """A picture.

    Parameters
    ----------
    caption : str
        What it shows, also for those who do not see it.
    png : bytes
        The file.
    """

    caption: str
    png: bytes


@dataclass(frozen=True)
class ResultPart:
    """A part of a page.

    Parameters
    ----------
    name : str
        Its heading.
    facts : dict of str to object, default={}
        Shown above all; those that are None are left out.
    content : sequence of ResultTable and ResultFigure, default=()
        In the order in which it is shown.
    """

    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    content: Sequence[ResultTable | ResultFigure] = ()


def results_page(
    title: str,
    about: Sequence[str],
    parts: Sequence[ResultPart],
    path: str | os.PathLike[str] | None = None,
) -> str:
    """Lay parts out on one page that loads nothing.

    Parameters
    ----------
    title : str
        Plain text, as all that is given here.
    about : sequence of str
        Lines under the title.
    parts : sequence of ResultPart
        At least one.
    path : str or path-like, default=None
        Also write it there, in one step; the folder has to be there.

    Returns
    -------
    html : str
        A whole document.
    """
    names = [part.name for part in parts]
    form = filter_form("Setup", "setups", names, {}) if len(parts) > 1 else ""
    shown = "".join(_part(k, part) for k, part in enumerate(parts))
    body = f'{form}<main id="main" tabindex="-1">{shown}</main>'
    return page(title, about, body, path)


def _part(k: int, part: ResultPart) -> str:
    shown = (_table(one) if isinstance(one, ResultTable) else _figure(one) for one in part.content)
    return (
        f'<section class="part results" id="{link_of(k)}" data-part="{k}" '
        f'aria-labelledby="name-{k}"><h2 id="name-{k}">{escaped(part.name)}</h2>'
        f"{definition_list(part.facts.items())}{''.join(shown)}</section>"
    )


def _table(one: ResultTable) -> str:
    heads, *rows = [[str(cell) for cell in row] for row in one.rows]
    cells = [[escaped(cell) for cell in row] for row in rows]
    if one.intervals:
        heads.insert(1, "From 0 to 1")
        for row, interval in zip(cells, one.intervals, strict=True):
            row.insert(1, interval_bar(interval, one.floor))
    return table(one.caption, heads, cells)


def _figure(one: ResultFigure) -> str:
    data = base64.b64encode(one.png).decode("ascii")
    caption = escaped(one.caption)
    return (
        f'<figure><img class="figure" alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
