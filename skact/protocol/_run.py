"""All steps of a configuration, in an order in which each finds what it needs."""

from __future__ import annotations

from pathlib import Path

from joblib import Parallel, delayed

from skact.arguments import N_JOBS, PATH, checked, instance
from skact.progress import token_bar
from skact.protocol._config import Configuration
from skact.protocol._data import embed, identity, read_data
from skact.protocol._journal import Journal
from skact.protocol._report import write_report
from skact.protocol._results import write_results
from skact.protocol._steps import fill, steps_of, units_of

__all__ = ["run"]


@checked(
    configuration=[instance("a Configuration(...)", Configuration)],
    folder=[PATH],
    resume=["boolean"],
    n_jobs=[N_JOBS],
    progress=["boolean"],
)
def run(
    configuration: Configuration,
    folder: str | Path,
    *,
    resume: bool = False,
    n_jobs: int = 1,
    progress: bool = False,
) -> list[Path]:
    """Do all that a configuration asks for, or what is left of it.

    Parameters
    ----------
    configuration : Configuration
        As :func:`read_configuration` reads it.
    folder : str or Path
        Where the journal, the store and the tables go.
    resume : bool, default=False
        Whether to go on with a run of the same configuration, which was stopped at any moment.
    n_jobs : int, default=1
        Processes; each works on a concept method, on prompting, localization or analyses.
    progress : bool, default=False
        Whether to show a bar of steps, with the time left.

    Returns
    -------
    tables : list of Path
        Markdown files of each setup: detection, and what else it asks for; JSON lies beside each,
        and CSV beside those of detection. Figures and page are those of :func:`write_report`.

    Raises
    ------
    ValueError
        If the folder holds another run, or data and setup do not fit, before anything is embedded.
    """
    folder = Path(folder).absolute()
    for setup in configuration.setup:
        read_data(setup, configuration.seed)
        identity(setup)
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder)
    journal.start(configuration.plain(), resume=resume)
    store = folder / "store"
    for setup in configuration.setup:
        step = f"{setup.name}/embed"
        now = embed(setup, read_data(setup, configuration.seed), store, n_jobs)
        if step not in journal.done():
            journal.record(step, now)
        elif journal.result(step) != now:
            what = [key for key, value in now.items() if journal.result(step).get(key) != value]
            raise ValueError(
                f"setup {setup.name}: {' and '.join(what)} differ from what the run began with; "
                "give another folder."
            )
    units = [unit for setup in configuration.setup for unit in units_of(setup)]
    n_steps = sum(len(steps_of(unit)) for unit in units)
    with token_bar(progress, n_steps, unit="step") as bar:
        tasks = (delayed(fill)(unit, configuration, folder) for unit in units)
        for n_done in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(tasks):
            bar.update(n_done)
    tables = [
        path
        for setup in configuration.setup
        for path in write_results(setup, configuration, journal)
    ]
    write_report(folder)
    return tables
