"""All steps of a configuration, in an order in which each finds what it needs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from joblib import delayed, parallel_config
from sklearn.utils._param_validation import StrOptions

from skact.arguments import N_JOBS, PATH, checked, instance
from skact.progress import as_they_come, token_bar
from skact.protocol._backends import BACKENDS, workers
from skact.protocol._config import Configuration
from skact.protocol._data import check_models, embed, read_data
from skact.protocol._journal import Journal
from skact.protocol._report import write_report
from skact.protocol._results import write_results
from skact.protocol._steps import Unit, check_maps, fill, steps_of, units_of
from skact.warning import warn

__all__ = ["run"]

Noticed = tuple[str, type[Warning]]


@checked(
    configuration=[instance("a Configuration(...)", Configuration)],
    folder=[PATH],
    resume=["boolean"],
    n_jobs=[N_JOBS],
    backend=[StrOptions(set(BACKENDS)), None],
    progress=["boolean"],
)
def run(
    configuration: Configuration,
    folder: str | Path,
    *,
    resume: bool = False,
    n_jobs: int = 1,
    backend: str | None = None,
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
        Workers; each works on a concept method, on prompting, localization or analyses.
    backend : {"loky", "threading", "dask", "ray"}, default=None
        Who they are, as joblib knows them; None is what ``joblib.parallel_config`` says, and loky
        outside of it. Those of dask and ray may be on other machines, if these see the folder, data
        and models under the same paths: a client that is there is taken, then what
        ``DASK_SCHEDULER_ADDRESS`` or ``RAY_ADDRESS`` names, and else ``n_jobs`` processes of this
        machine are started. A cluster has as many workers as it has. What is found is the same.
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
        If the folder holds another run, one is at work in it, data and setup do not fit, a model
        that is to be asked cannot be, or all samples have too many players, before anything is
        embedded; if no sample has a SuperActivator to judge maps on, before any cell is filled.
    NotADirectoryError
        If the folder is a file, or in one.
    ImportError
        If the library of the backend is not installed, naming its extra.
    """
    folder = Path(folder).absolute()
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"folder must name a folder, and {path} is a file.")
    for setup in configuration.setup:
        check_models(setup, read_data(setup, configuration.seed), configuration.methods)
    journal = Journal(folder)
    with ExitStack() as held:
        with workers(backend, n_jobs):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(journal.alone())
            journal.start(configuration.plain(), resume=resume)
            _embed(configuration, journal, n_jobs)
            check_maps(configuration, folder)
            _fill(configuration, folder, n_jobs, progress)
        tables = [
            path
            for setup in configuration.setup
            for path in write_results(setup, configuration, journal)
        ]
        write_report(folder)
    return tables


def _embed(configuration: Configuration, journal: Journal, n_jobs: int) -> None:
    """Embed what the store lacks, and see that data and models are those of the journal."""
    for setup in configuration.setup:
        step = f"{setup.name}/embed"
        data = read_data(setup, configuration.seed)
        now = embed(setup, data, journal.folder / "store", n_jobs)
        if step not in journal.done():
            journal.record(step, now)
        elif journal.result(step) != now:
            what = [key for key, value in now.items() if journal.result(step).get(key) != value]
            raise ValueError(
                f"setup {setup.name}: {' and '.join(what)} differ from what the run began with; "
                "give another folder."
            )


def _fill(configuration: Configuration, folder: Path, n_jobs: int, progress: bool) -> None:
    """Hand out all units; each records its own cells. What several warn of is said once."""
    units = [unit for setup in configuration.setup for unit in units_of(setup)]
    n_steps = sum(len(steps_of(unit)) for unit in units)
    with token_bar(progress, n_steps, unit="step") as bar, _each_once() as noticed:
        tasks = (delayed(_fill_alone)(unit, configuration, folder, os.getpid()) for unit in units)
        for n_done, said in as_they_come(tasks, n_jobs):
            noticed += said
            bar.update(n_done)


def _fill_alone(
    unit: Unit, configuration: Configuration, folder: Path, caller: int
) -> tuple[int, list[Noticed]]:
    """Fill cells without handing parts of them to the backend again; and what was warned of."""
    with parallel_config("sequential"):
        if os.getpid() == caller:  # who records already
            return fill(unit, configuration, folder), []
        with warnings.catch_warnings(record=True) as said:
            n_done = fill(unit, configuration, folder)
        return n_done, [(str(one.message), one.category) for one in said]


@contextmanager
def _each_once() -> Iterator[list[Noticed]]:
    """Collect warnings, those of other processes as they are put in, and give each once."""
    noticed: list[Noticed] = []
    here: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as here:
            yield noticed
    finally:
        noticed = [(str(one.message), one.category) for one in here] + noticed
        for text, category in dict.fromkeys(noticed):
            warn(text, category)
