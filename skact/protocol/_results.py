"""What a setup has found, from its steps to its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from skact.protocol._config import Configuration, Setup
from skact.protocol._data import read_data
from skact.protocol._detection import Problem, make_method
from skact.protocol._journal import Journal
from skact.protocol._prompting import asked_rows, prompt_gain
from skact.protocol._source import name_of
from skact.protocol._steps import problem_of, steps_of, units_of
from skact.protocol._tables import (
    analyses_rows,
    localization_rows,
    make_table,
    prompting_rows,
    write_rows,
    write_table,
)

__all__ = ["write_results"]


def write_results(setup: Setup, configuration: Configuration, journal: Journal) -> list[Path]:
    """Write the tables of a setup from the journal; the Markdown files."""
    found: dict[str, dict[str, Any]] = {}
    for unit in units_of(setup):
        results = {cell: journal.result(step) for cell, step in steps_of(unit).items()}
        at = f"{unit.name}/" if unit.kind == "detection" else ""
        found.setdefault(unit.kind, {}).update({at + c: one for c, one in results.items()})
    problem = problem_of(setup, configuration.seed, journal.folder)
    about = {
        "data": name_of(setup.data),
        "model": "/".join(Path(setup.model).parts[-2:]),
        **journal.result(f"{setup.name}/embed"),
    }
    table = make_table(
        list(found["detection"].values()), problem, configuration.seed, configuration.resamples
    )
    methods = {
        name: str(make_method(name, configuration.methods.get(name))) for name in setup.methods
    }
    write_table({**about, **table, "methods": methods}, journal.folder, setup.name)
    paths = [journal.folder / f"{setup.name}.md"]
    for one in found.get("localization", {}).values():
        for line in one.get("table", []):
            line.pop("seconds_per_sample", None)  # a run that is done again gives the same
    if "prompting" in found:
        _add_gains(found, setup, problem, configuration)
    for kind, rows in _ROWS.items():
        if kind in found:
            name = f"{setup.name}.{kind}"
            write_rows(rows(found[kind]), {**about, **found[kind]}, journal.folder, name)
            paths.append(journal.folder / f"{name}.md")
    return paths


_ROWS = {
    "prompting": prompting_rows,
    "localization": localization_rows,
    "analyses": analyses_rows,
}


def _add_gains(
    found: dict[str, Any], setup: Setup, problem: Problem, configuration: Configuration
) -> None:
    """Say what SuperActivator on the first concept method gains over prompting, paired."""
    assert setup.prompting is not None
    data = read_data(setup, configuration.seed)
    _, asked = asked_rows(data.split, setup.prompting.texts, configuration.seed)
    cell = found["detection"][f"{setup.methods[0]}/SuperActivator"]
    ours = np.array(cell["predicted"])[np.searchsorted(problem.rows("test"), asked)]
    for one in found["prompting"].values():
        one["method"] = setup.methods[0]
        one["gain_of_superactivator"] = prompt_gain(
            data,
            ours,
            one["predicted"],
            setup.prompting,
            configuration.seed,
            configuration.resamples,
        )
