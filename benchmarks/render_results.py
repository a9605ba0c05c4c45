"""Print the committed detection results as Markdown tables, the form they have in the docs.

The command ``python benchmarks/render_results.py`` prints all of them.
"""

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SETS = {"GoEmotions": "goemotions", "iSarcasm": "isarcasm"}
RIVALS = ("MaxToken", "Exact cut", "MeanToken", "CLS")
REFERENCES = ("LinearSeparator / SuperActivator", "LinearSeparator / MaxToken")


def interval(estimate, ends):
    return f"{estimate:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"


def read(kind, name):
    return json.loads((RESULTS / f"{kind}_{SETS[name]}.json").read_text())


def markdown(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def table(method):
    """Render one concept method: a row per detector, a pair of columns per data set."""
    rows = {}
    for name in SETS:
        for entry in read("detection", name)["table"]:
            if entry["method"] == method:
                cells = rows.setdefault(entry["detector"], [])
                cells.append(interval(entry["weighted_test_f1"], entry["interval"]))
                own = entry["detector"] == "SuperActivator"
                gain = interval(entry["gain_of_superactivator"], entry["gain_interval"])
                cells.append("" if own else gain)
    heads = ["Detector"]
    heads += [h for name in SETS for h in (f"{name}: F1", "SuperActivator's gain")]
    return markdown(heads, [[name, *cells] for name, cells in rows.items()])


def matrix(name):
    """Render one data set: a row per concept method, a column per detector."""
    return _by_method(name, None, "weighted_test_f1", "interval")


def gains(name):
    """Render the gain of SuperActivator on one data set over other detectors."""
    return _by_method(name, RIVALS, "gain_of_superactivator", "gain_interval")


def _by_method(name, detectors, value, ends):
    rows = {}
    for entry in read("detection", name)["table"]:
        cell = interval(entry[value], entry[ends])
        rows.setdefault(entry["method"], {})[entry["detector"]] = cell
    detectors = detectors or list(max(rows.values(), key=len))
    lines = [[m, *(cells.get(d, "–") for d in detectors)] for m, cells in rows.items()]
    return markdown(["Concepts", *detectors], lines)


def beyond(name, part, over=REFERENCES):
    """Render the candidates on one data set: F1, and the gain over other pairs."""
    lines = []
    for entry in read("beyond", name)[part]:
        cells = [interval(entry["f1"], entry["interval"])]
        for other in over:
            gain = entry.get(f"gain over {other}")
            cells.append(interval(gain["f1"], gain["interval"]) if gain else "")
        lines.append([*entry["candidate"].split(" / "), *cells])
    return markdown(["Concepts", "Detector", "F1", *(f"Gain over {o}" for o in over)], lines)


def main():
    print(f"LinearSeparator\n\n{table('LinearSeparator')}\n")
    for name in SETS:
        print(f"{name}\n\n{matrix(name)}\n\n{gains(name)}\n")
        compared = (RESULTS / f"beyond_{SETS[name]}.json").exists()
        for part in ("cross-validation", "test") if compared else ():
            print(f"{name}, {part}\n\n{beyond(name, part)}\n")


if __name__ == "__main__":
    main()
