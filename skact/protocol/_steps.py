"""The steps of a setup: what each is called in the journal, and how it is done."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sklearn.utils import Bunch

from skact.protocol._analyses import Analyst, enough_samples, mean_vectors
from skact.protocol._config import Configuration, Setup
from skact.protocol._data import label_tokens, load_problem, model_path, read_data, token_embedder
from skact.protocol._detection import Problem, cells, row
from skact.protocol._journal import Journal
from skact.protocol._localization import MapJudge
from skact.protocol._prompting import ask_about
from skact.protocol._setups import Localization

__all__ = [
    "Unit",
    "analyst_of",
    "check_maps",
    "fill",
    "judge_of",
    "problem_of",
    "steps_of",
    "units_of",
]

_ABOUT = "about"

Cells = Iterator[tuple[str, dict[str, Any]]]


class Unit(NamedTuple):
    """Cells that one process fills, as they share what is fitted."""

    setup: Setup
    kind: str
    name: str


def units_of(setup: Setup) -> list[Unit]:
    """All that a setup asks for."""
    units = [Unit(setup, "detection", method) for method in setup.methods]
    if setup.prompting is not None:
        units += [Unit(setup, "prompting", scores) for scores in setup.prompting.scores]
    kinds = ("localization", "analyses")
    return units + [Unit(setup, k, k) for k in kinds if getattr(setup, k) is not None]


def steps_of(unit: Unit) -> dict[str, str]:
    """Name in the journal of each cell."""
    setup, kind, name = unit
    if kind == "detection":
        return {d: f"{setup.name}/{name}/{d}" for d in cells(name, setup.detectors)}
    names = [name]
    if setup.localization is not None and kind == "localization":
        names = [_ABOUT, *setup.localization.methods]
    if setup.analyses is not None and kind == "analyses":
        names = setup.analyses.names
    return {cell: f"{setup.name}/{kind}/{cell}" for cell in names}


def fill(unit: Unit, configuration: Configuration, folder: Path) -> int:
    """Fill the cells that are not there yet; how many there are in all."""
    journal, steps = Journal(folder), steps_of(unit)
    done = journal.done()
    left = {cell: step for cell, step in steps.items() if step not in done}
    if left:
        for cell, result in _FILL[unit.kind](unit, list(left), configuration, folder):
            journal.record(left[cell], result)
    return len(steps)


@lru_cache(maxsize=1)
def problem_of(setup: Setup, seed: int, folder: Path) -> Problem:
    """Read data and activations; kept until another setup is asked for."""
    return load_problem(setup, read_data(setup, seed), folder / "store")


def _detection(unit: Unit, left: list[str], configuration: Configuration, folder: Path) -> Cells:
    problem = problem_of(unit.setup, configuration.seed, folder)
    for result in row(unit.name, left, problem, configuration.methods.get(unit.name)):
        yield result["detector"], result


def _prompting(unit: Unit, left: list[str], configuration: Configuration, folder: Path) -> Cells:
    setup, settings = unit.setup, unit.setup.prompting
    assert settings is not None
    data = read_data(setup, configuration.seed)
    for scores in left:
        yield (
            scores,
            ask_about(
                data,
                settings.model or model_path(setup),
                scores,
                settings,
                configuration.seed,
                configuration.resamples,
                folder / f"{setup.name}.answers.jsonl",
            ),
        )


def _localization(unit: Unit, left: list[str], configuration: Configuration, folder: Path) -> Cells:
    setup = unit.setup
    judge = own_judge(setup, configuration.seed, configuration.resamples, folder)
    with warnings.catch_warnings():
        # Pairs without a local target are counted in the result.
        warnings.filterwarnings("ignore", message=".*local target.*")
        for name in left:
            yield name, judge.about() if name == _ABOUT else judge.judge(name)


def _analyses(unit: Unit, left: list[str], configuration: Configuration, folder: Path) -> Cells:
    assert unit.setup.analyses is not None
    problem = problem_of(unit.setup, configuration.seed, folder)
    analyst = analyst_of(unit.setup.name, problem, unit.setup.analyses.fewest, configuration)
    for name in left:
        yield name, analyst.analyse(name)


@lru_cache(maxsize=1)
def own_judge(setup: Setup, seed: int, n_resamples: int, folder: Path) -> MapJudge:
    """Choose what maps of a setup are judged on; kept until another setup is asked for."""
    settings, data = setup.localization, read_data(setup, seed)
    assert settings is not None
    try:
        return judge_of(setup, settings, data, seed, n_resamples, folder)
    except ValueError as error:
        raise ValueError(f"setup {setup.name}: {error}") from error


def check_maps(configuration: Configuration, folder: Path) -> None:
    """See that there is something to judge maps on, before any cell is filled."""
    done = Journal(folder).done()
    for setup in configuration.setup:
        for unit in units_of(setup):
            if unit.kind == "localization" and not done.issuperset(steps_of(unit).values()):
                own_judge(setup, configuration.seed, configuration.resamples, folder)


def judge_of(
    setup: Setup, settings: Localization, data: Bunch, seed: int, n_resamples: int, folder: Path
) -> MapJudge:
    """Embed data at the layer of localization, and choose what maps are judged on."""
    embedder = token_embedder(setup).set_params(layer=settings.layer, store=folder / "store")
    data.tokens, data.labels = embedder.transform(data.data), label_tokens(embedder, data)
    embedder.set_params(store=None)
    return MapJudge(data, embedder, settings, seed, n_resamples)


def analyst_of(name: str, problem: Problem, fewest: int, configuration: Configuration) -> Analyst:
    """Take what is analysed: the concepts of a setup that have enough samples."""
    kept = enough_samples(problem.labels.max(), problem.split, fewest)
    if not len(kept):
        raise ValueError(
            f"setup {name}: no concept has analyses.fewest={fewest} samples in each of train, cal "
            "and test."
        )
    labels = problem.labels.columns(kept)
    labels = labels.with_values(labels.flat(), [problem.names[c] for c in kept])
    return Analyst(
        problem.tokens,
        mean_vectors(problem.tokens),
        labels,
        problem.split,
        configuration.resamples,
        configuration.seed,
    )


_FILL: dict[str, Callable[[Unit, list[str], Configuration, Path], Cells]] = {
    "detection": _detection,
    "prompting": _prompting,
    "localization": _localization,
    "analyses": _analyses,
}
