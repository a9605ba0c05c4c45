"""Figures and one page of a run, from the tables that it has written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from skact.arguments import PATH, checked
from skact.files import check_link, in_one_step, read_json
from skact.inspection import (
    BestLayersDisplay,
    BestSparsityDisplay,
    CoverageDisplay,
    DepthCurveDisplay,
    IntervalsDisplay,
    ScoreDistributionsDisplay,
    SeparabilityDisplay,
    SparsityCurveDisplay,
    SuperActivatorCountsDisplay,
    SuperActivatorPositionsDisplay,
    picture,
)
from skact.metrics import Interval
from skact.protocol._config import names_of
from skact.protocol._journal import Journal
from skact.protocol._setups import ANALYSES
from skact.protocol._tables import (
    REPORT,
    analyses_rows,
    detection_rows,
    localization_rows,
    prompting_rows,
)
from skact.reporting import ResultFigure, ResultPart, ResultTable, results_page
from skact.warning import warn

__all__ = ["write_report"]

_FOLDER = "figures"
_ENDS = "with 95 % intervals"
_ANALYSES: dict[str, tuple[Any, str]] = {
    "score_distributions": (
        ScoreDistributionsDisplay,
        "Scores inside and outside of one concept, at the last block that was kept",
    ),
    "separability": (
        SeparabilityDisplay,
        f"Share of in-concept tokens in the separable tail by block, {_ENDS}",
    ),
    "coverage": (
        CoverageDisplay,
        f"Share of samples that reach the separable tail by block, {_ENDS}",
    ),
    "sparsity_curve": (SparsityCurveDisplay, f"Test F1 of SuperActivator by delta, {_ENDS}"),
    "best_sparsity": (BestSparsityDisplay, "Concepts that choose each delta, by block"),
    "depth_curve": (DepthCurveDisplay, f"Test F1 of each detector by block, {_ENDS}"),
    "best_layers": (BestLayersDisplay, "Concepts that choose each block, by detector"),
    "superactivator_counts": (
        SuperActivatorCountsDisplay,
        f"Samples with at most so many SuperActivators for each in-concept token, {_ENDS}",
    ),
    "superactivator_positions": (
        SuperActivatorPositionsDisplay,
        f"Positions of SuperActivators and of in-concept tokens in samples, {_ENDS}",
    ),
}
_MAPS = {
    "f1": ("token F1", "Token F1 of maps, cut on cal"),
    "gap": ("insertion - deletion", "Area between insertion and deletion curves of maps"),
}


class Drawing(NamedTuple):
    """A figure that is still to be drawn."""

    name: str
    caption: str
    display: Any
    size: tuple[float, float] = (6.5, 4.0)


@checked(folder=[PATH])
def write_report(folder: str | Path) -> Path:
    """Write the figures and the page of a finished run; of its tables alone, nothing is computed.

    Parameters
    ----------
    folder : str or Path
        Of the run. Figures go to ``figures`` in it, where matplotlib is installed; without it the
        page says how to get it.

    Returns
    -------
    page : Path
        ``report.html`` in the folder.

    Raises
    ------
    FileNotFoundError
        If there is no run, or it is not finished.
    ValueError
        If one of its tables is not as it was written.

    Warns
    -----
    UserWarning
        If matplotlib is not installed.
    """
    folder = Path(folder)
    journal = Journal(folder)
    if not journal.path.is_file():
        raise FileNotFoundError(f"{folder} holds no run of skact paper: there is no journal.jsonl.")
    configuration = journal.configuration()
    lacks, parts = "", []
    title = str(configuration.get("title") or "skact paper")
    for name in names_of(configuration, journal.path):
        tables = _tables(folder, name)
        try:
            facts = _facts(tables["detection"])
            float(tables["detection"]["floor"])
            content: list[Any] = list(_content(name, tables))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"a table of setup {name} in {folder} is not as a run writes it: {error!r:.200}."
            ) from error
        try:
            content = [_drawn(one, folder / _FOLDER) for one in content]
        except ImportError as error:
            lacks = str(error)
            content = [one for one in content if not isinstance(one, Drawing)]
        parts.append(ResultPart(name, facts, content))
    about = [
        "The floor is the F1 of saying yes to everything: an F1 near it means nothing. In brackets "
        "are 95 % intervals over samples. In the pictures of tables the dot is F1, the line its "
        "interval, the tick the floor."
    ]
    if lacks:
        warn(f"the report has no figures: {lacks}")
        about.append(f"There are no figures: {lacks}")
    results_page(title, about, parts, folder / REPORT)
    return folder / REPORT


def _tables(folder: Path, name: str) -> dict[str, Any]:
    """Read what a setup has found, by kind."""
    path = check_link(folder, folder / f"{name}.json")
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no table of setup {name}: finish the run with skact paper --resume."
        )
    kinds = ("prompting", "localization", "analyses")
    files = {kind: check_link(folder, folder / f"{name}.{kind}.json") for kind in kinds}
    found = {kind: read_json(file) for kind, file in files.items() if file.is_file()}
    return {"detection": read_json(path), **found}


def _drawn(one: Any, folder: Path) -> Any:
    """Draw what is still to be drawn, also into a file."""
    if not isinstance(one, Drawing):
        return one
    png = picture(one.display, size=one.size)
    check_link(folder.parent, folder).mkdir(exist_ok=True)
    with in_one_step(folder / f"{one.name}.png") as path:
        path.write_bytes(png)
    return ResultFigure(one.caption, png)


def _facts(made: dict[str, Any]) -> dict[str, Any]:
    facts = {key: made.get(key) for key in ("data", "model", "revision")}
    samples = ", ".join(f"{n} {split}" for split, n in made["samples"].items())
    facts |= {"samples": samples, "floor": made["floor"], "Python": made["python"]}
    return facts | made["versions"]


def _cells(kind: str, table: dict[str, Any]) -> dict[str, Any]:
    """Cells of a table, without what else its file says."""
    key = {"prompting": "predicted", "localization": "table", "analyses": "claims"}[kind]
    return {name: one for name, one in table.items() if isinstance(one, dict) and key in one}


def _claims(found: dict[str, Any]) -> list[list[Any]]:
    heads, *rows = analyses_rows(found)
    lines = [[": ".join(filter(None, row[:2])), *row[2:]] for row in rows]
    return [["claim", *heads[2:]], *lines]


def _maps(found: dict[str, Any]) -> list[list[Any]]:
    heads, *rows = localization_rows(found)
    return [["method, target", *heads[2:]], *([f"{row[0]}, {row[1]}", *row[2:]] for row in rows)]


_ROWS = {
    "prompting": ("what a model says when it is asked", prompting_rows),
    "localization": ("maps of attribution methods", _maps),
    "analyses": ("what the claims of the paper come to", _claims),
}


def _content(setup: str, tables: dict[str, Any]) -> Iterator[ResultTable | Drawing]:
    """Tables of a setup, the figures of each below it."""
    made = tables["detection"]
    scores = [Interval(one["weighted_test_f1"], *one["interval"]) for one in made["table"]]
    caption = f"{setup}: detection, weighted F1 on test"
    yield ResultTable(caption, detection_rows(made), scores, made["floor"])
    yield from _of_detection(setup, made)
    if any(_names_concepts(one) for one in made["table"]):
        yield ResultTable(
            f"{setup}: F1 on test of each concept by SuperActivator, at the block chosen on cal",
            _concepts(made),
        )
    for kind, (words, rows) in _ROWS.items():
        found = _cells(kind, tables.get(kind, {}))
        if found:
            yield ResultTable(f"{setup}: {words}", rows(found))
            yield from _DRAWINGS[kind](setup, found)


def _names_concepts(entry: dict[str, Any]) -> bool:
    return entry["detector"] == "SuperActivator" and "concepts" in entry


def _concepts(made: dict[str, Any]) -> list[list[Any]]:
    """F1 of each concept, a column for each concept method."""
    entries = [one for one in made["table"] if _names_concepts(one)]
    rows = [["concept", *(one["method"] for one in entries)]]
    for name in entries[0]["concepts"]:
        found = [one["concepts"][name] for one in entries]
        rows.append([name, *(f"{own['test_f1']:.3f}, block {own['layer']}" for own in found)])
    return rows


def _of_detection(setup: str, made: dict[str, Any]) -> Iterator[Drawing]:
    table = made["table"]
    yield _intervals(
        f"{setup}.detection",
        f"F1 of detection on test by concept method and detector, {_ENDS}, and the floor",
        [(e["method"], e["detector"], [e["weighted_test_f1"], *e["interval"]]) for e in table],
        made["floor"],
    )
    for method in dict.fromkeys(entry["method"] for entry in table):
        yield from _by_depth(setup, method, [e for e in table if e["method"] == method])


def _of_prompting(setup: str, found: dict[str, Any]) -> Iterator[Drawing]:
    yield _intervals(
        f"{setup}.prompting",
        f"F1 of a model that is asked, on test, {_ENDS}, and the floor",
        [("prompting", scores, one["f1"]) for scores, one in found.items()],
        next(iter(found.values()))["floor"],
    )


def _of_localization(setup: str, found: dict[str, Any]) -> Iterator[Drawing]:
    lines = [line for one in found.values() for line in one["table"]]
    for key, (label, caption) in _MAPS.items():
        yield _intervals(
            f"{setup}.localization-{key}",
            f"{caption}, by method and target, {_ENDS}",
            [(line["method"], line["target"], line[key]) for line in lines],
            label=label,
        )


def _of_analyses(setup: str, found: dict[str, Any]) -> Iterator[Drawing]:
    for name in filter(found.__contains__, ANALYSES):
        display, caption = _ANALYSES[name]
        yield Drawing(f"{setup}.{name}", caption, display(found[name]["result"]))


_DRAWINGS = {
    "prompting": _of_prompting,
    "localization": _of_localization,
    "analyses": _of_analyses,
}


def _intervals(
    name: str,
    caption: str,
    found: list[Any],
    floor: float | None = None,
    label: str = "weighted F1",
) -> Drawing:
    names, series, figures = zip(*found, strict=True)
    mean, low, high = np.array(figures, float).T
    result = {"names": names, "series": series, "mean": mean, "low": low, "high": high}
    display = IntervalsDisplay(result, floor, label=label)
    return Drawing(name, caption, display, display.size)


def _by_depth(setup: str, method: str, entries: list[Any]) -> Iterator[Drawing]:
    """F1 on cal at each layer, where there are several."""
    curves = [entry["cal_f1_by_layer"] for entry in entries if "cal_f1_by_layer" in entry]
    if not curves or len(curves[0]["layers"]) < 2:
        return
    mean = np.array([curve["mean"] for curve in curves], float)
    nothing = np.full_like(mean, np.nan)
    result = {"layers": curves[0]["layers"], "mean": mean, "low": nothing, "high": nothing}
    result["detectors"] = [entry["detector"] for entry in entries]
    yield Drawing(
        f"{setup}.depth.{method}",
        f"F1 of {method} on cal by block, each concept at its best delta",
        DepthCurveDisplay(result),
    )
