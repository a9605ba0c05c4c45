"""Pages for a person: what a detector finds and where it errs, and what units stand for.

Also a page of tables and figures that somebody else has made (``results_page``).
"""

from skact.reporting._autoencoder_report import autoencoder_report
from skact.reporting._report import report
from skact.reporting._results_page import (
    ResultFigure,
    ResultPart,
    ResultTable,
    results_page,
)
from skact.reporting._unit_pages import unit_pages
from skact.reporting._unit_scores import unit_input_scores, unit_output_scores
from skact.reporting._units import name_units, top_activations

__all__ = [
    "ResultFigure",
    "ResultPart",
    "ResultTable",
    "autoencoder_report",
    "name_units",
    "report",
    "results_page",
    "top_activations",
    "unit_input_scores",
    "unit_output_scores",
    "unit_pages",
]
