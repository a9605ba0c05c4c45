"""Print the committed detection results as Markdown tables, the form they have in the docs.

The command ``python benchmarks/render_results.py`` prints all of them.
"""

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SETS = {"GoEmotions": "detection_goemotions.json", "iSarcasm": "detection_isarcasm.json"}


def interval(estimate, ends):
    return f"{estimate:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"


def table(method):
    """Render one table of a concept method: a row per detector, a pair of columns per data set."""
    rows = {}
    for file in SETS.values():
        for entry in json.loads((RESULTS / file).read_text())["table"]:
            if entry["method"] == method:
                cells = rows.setdefault(entry["detector"], [])
                cells.append(interval(entry["weighted_test_f1"], entry["interval"]))
                own = entry["detector"] == "SuperActivator"
                gain = interval(entry["gain_of_superactivator"], entry["gain_interval"])
                cells.append("" if own else gain)
    heads = [h for name in SETS for h in (f"{name}: F1", "SuperActivator's gain")]
    lines = [["Detector", *heads], ["---"] * (1 + len(heads))]
    lines += [[name, *cells] for name, cells in rows.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main():
    for method in ("LinearSeparator", "MeanPrototype"):
        print(f"{method}\n\n{table(method)}\n")


if __name__ == "__main__":
    main()
