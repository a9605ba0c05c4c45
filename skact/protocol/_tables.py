"""Tables of a setup: intervals, gains and the floor, as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from skact.files import in_one_step
from skact.metrics import all_positive_f1_score, bootstrap_interval
from skact.protocol._detection import Problem

__all__ = [
    "REPORT",
    "analyses_rows",
    "detection_rows",
    "localization_rows",
    "make_table",
    "prompting_rows",
    "write_rows",
    "write_table",
]

#: File of the page that shows all setups, beside the tables.
REPORT = "report.html"

Rows = list[list[Any]]


def make_table(
    cells: list[dict[str, Any]], problem: Problem, seed: int, n_resamples: int
) -> dict[str, Any]:
    """Weighted test F1 of each cell, and the paired gain of SuperActivator over it."""
    truth = problem.y[problem.rows("test")]
    ours = {c["method"]: c["predicted"] for c in cells if c["detector"] == "SuperActivator"}
    settings: dict[str, Any] = {"n_resamples": n_resamples, "random_state": seed}
    table = []
    for one in cells:
        predicted = np.array(one["predicted"], bool)
        score = bootstrap_interval(truth, predicted, **settings)
        own = np.array(ours[one["method"]], bool)
        gain = bootstrap_interval(truth, own, baseline=predicted, **settings)
        table.append(_entry(one, score, gain, problem.names))
    return {
        "python": platform.python_version(),
        "versions": {p: version(p) for p in ("scikit-learn", "numpy", "torch", "transformers")},
        "samples": {s: len(problem.rows(s)) for s in ("train", "cal", "test")},
        "floor": round(all_positive_f1_score(truth), 4),
        "table": table,
    }


def _entry(one: dict[str, Any], score: Any, gain: Any, names: list[str]) -> dict[str, Any]:
    return {
        "method": one["method"],
        "detector": one["detector"],
        "weighted_test_f1": round(score.estimate, 4),
        "interval": [round(score.low, 4), round(score.high, 4)],
        "gain_of_superactivator": round(gain.estimate, 4),
        "gain_interval": [round(gain.low, 4), round(gain.high, 4)],
        **one["ranking"],
        "cal_f1_by_layer": one["cal_f1_by_layer"],
        "concepts": {
            name: {
                "layer": one["layers"][c],
                "delta": one["deltas"][c],
                "cal_f1": one["cal_f1"][c],
                "test_f1": one["test_f1"][c],
            }
            for c, name in enumerate(names)
        },
    }


def write_table(made: dict[str, Any], folder: Path, name: str) -> None:
    """Write a table as JSON, CSV and Markdown, each in one step."""
    heads = ["concepts", "detector", "F1", "low", "high", "floor", "gain", "gain low", "gain high"]
    ranks = ["auroc", "average_precision", "tpr_at_1_fpr"]
    figures = ["weighted_test_f1", "interval", "gain_of_superactivator", "gain_interval"]
    rows = []
    for entry in made["table"]:
        f1, ends, gain, gain_ends = (entry[figure] for figure in figures)
        row = [entry["method"], entry["detector"], f1, *ends, made["floor"], gain, *gain_ends]
        rows.append([*row, *(entry[rank] for rank in ranks)])
    lines = [[*heads, *ranks], *rows]
    write_rows(lines, made, folder, name)
    with (
        in_one_step(folder / f"{name}.csv") as path,
        path.open("w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(lines)


def write_rows(rows: Rows, made: dict[str, Any], folder: Path, name: str) -> None:
    """Write what was found as JSON and, by its rows of which the first are heads, as Markdown."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    text = "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)
    text += f"\n[All tables and figures on one page]({REPORT})\n"
    with in_one_step(folder / f"{name}.json") as path:
        path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    with in_one_step(folder / f"{name}.md") as path:
        path.write_text(text, encoding="utf-8")


def _with_ends(figures: Sequence[float]) -> str:
    """Say an estimate with its interval."""
    return "{:.3f} [{:.3f}, {:.3f}]".format(*figures)


def detection_rows(made: dict[str, Any]) -> Rows:
    """Rows of concept methods and detectors, for a person."""
    heads = ["method, detector", "F1", "gain of SuperActivator", "AUROC", "average precision"]
    rows = [
        [
            f"{entry['method']}, {entry['detector']}",
            _with_ends([entry["weighted_test_f1"], *entry["interval"]]),
            _with_ends([entry["gain_of_superactivator"], *entry["gain_interval"]]),
            *(f"{entry[rank]:.3f}" for rank in ("auroc", "average_precision", "tpr_at_1_fpr")),
        ]
        for entry in made["table"]
    ]
    return [[*heads, "TPR at 1 % FPR"], *rows]


def prompting_rows(found: dict[str, Any]) -> Rows:
    """Rows of what a model said, and what SuperActivator gains over it."""
    heads = ["asked for", "F1", "floor", "says yes", "gain of SuperActivator on"]
    rows = [
        [
            scores,
            _with_ends(one["f1"]),
            one["floor"],
            one["yes"],
            f"{one['method']}: {_with_ends(one['gain_of_superactivator'])}",
        ]
        for scores, one in found.items()
    ]
    return [heads, *rows]


def localization_rows(found: dict[str, Any]) -> Rows:
    """Rows of methods and targets."""
    figures = ["f1", "iou", "average_precision", "pointing_game", "insertion", "deletion", "gap"]
    rows = [
        [line["method"], line["target"], *(_with_ends(line[figure]) for figure in figures)]
        for one in found.values()
        for line in one.get("table", [])
    ]
    return [["method", "target", *figures], *rows]


def analyses_rows(found: dict[str, Any]) -> Rows:
    """Rows of what the claims of the paper come to."""
    rows = []
    for one in found.values():
        for claim, said in one["claims"].items():
            parts = said.items() if isinstance(said, dict) else [("", said)]
            for part, value in parts:
                several = isinstance(value, list)
                shown = _with_ends(value[:3]) if several else value
                rows.append([claim, part, shown, value[3] if several and len(value) > 3 else ""])
    return [["claim", "figure", "estimate", "p"], *rows]
