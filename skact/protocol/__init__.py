"""The paper's protocol from one declarative file, resumable after every cell.

A configuration (``_config``) names data, models, layers, concept methods and detectors; each cell
of a table is a step in a journal (``_journal``). Scalers and concept vectors are fitted on train;
ConceptSearchCV sets thresholds on cal, matches units there, and takes for each concept the layer
and delta with the best F1 (``_detection``); test is decided by these winners (``_tables``).
Prompting, localization and analyses, where a setup asks for them (``_setups``), are cells of the
same journal (``_steps``). Figures and one page are made of the tables alone (``_report``). What a
run will take is arithmetic (``_plan``) on figures of a short one (``_dry_run``).
"""

from skact.protocol._analyses import VECTOR, Analyst, chosen_marks, enough_samples, mean_vectors
from skact.protocol._config import Configuration, Setup, read_configuration
from skact.protocol._detection import (
    CLS,
    DETECTORS,
    METHODS,
    Problem,
    cells,
    held_out_scores,
    make_method,
    ranking,
    search,
    used,
)
from skact.protocol._dry_run import Forecast, dry_run, forecast_table
from skact.protocol._localization import MapJudge
from skact.protocol._plan import Plan, plan
from skact.protocol._prompting import ask_about, asked_rows, prompt_gain
from skact.protocol._report import write_report
from skact.protocol._run import run
from skact.protocol._setups import ANALYSES, LOCALIZERS, Analyses, Localization, Prompting
from skact.protocol._tables import REPORT

__all__ = [
    "ANALYSES",
    "Analyses",
    "Analyst",
    "CLS",
    "Configuration",
    "DETECTORS",
    "Forecast",
    "LOCALIZERS",
    "Localization",
    "METHODS",
    "MapJudge",
    "Plan",
    "Problem",
    "Prompting",
    "REPORT",
    "Setup",
    "VECTOR",
    "ask_about",
    "asked_rows",
    "cells",
    "chosen_marks",
    "dry_run",
    "enough_samples",
    "forecast_table",
    "held_out_scores",
    "make_method",
    "mean_vectors",
    "plan",
    "prompt_gain",
    "ranking",
    "read_configuration",
    "run",
    "search",
    "used",
    "write_report",
]
