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


def ranks(name):
    """Render what needs no cut: a row per concept method and detector; files may lack it."""
    heads = {"auroc": "AUROC", "average_precision": "AP", "tpr_at_1_fpr": "TPR at 1 % FPR"}
    lines = [
        [entry["method"], entry["detector"], *(f"{entry[h]:.3f}" for h in heads)]
        for entry in read("detection", name)["table"]
        if "auroc" in entry
    ]
    return markdown(["Concepts", "Detector", *heads.values()], lines) if lines else ""


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


def diluted(metric, part="pools"):
    """Render a metric of pools, or of rules with one of two cuts, by the number of texts."""
    found = read("dilution", "GoEmotions")["dilution"]
    texts = {k: "1 text" if k == "1" else f"{k} texts" for k in found}
    return _curves({texts[k]: {n: m[metric] for n, m in found[k][part].items()} for k in found})


def with_decoys(metric):
    """Render a metric of pools or rules by the share of decoys, or on decoys and others."""
    found = read("dilution", "GoEmotions")["decoys"][metric]
    heads = next(iter(found.values()))
    names = {h: h if h.isalpha() else f"{float(h):.0%} decoys" for h in heads}
    return _curves({names[h]: {n: one[h] for n, one in found.items()} for h in heads})


def _curves(columns):
    """Render columns of {name: (estimate, low, high)}."""
    names = next(iter(columns.values()))
    rows = [[n, *(interval(c[n][0], c[n][1:]) for c in columns.values())] for n in names]
    return markdown(["", *columns], rows)


def main():
    print(f"LinearSeparator\n\n{table('LinearSeparator')}\n")
    for name in SETS:
        print(f"{name}\n\n{matrix(name)}\n\n{ranks(name)}\n\n{gains(name)}\n")
        compared = (RESULTS / f"beyond_{SETS[name]}.json").exists()
        for part in ("cross-validation", "test") if compared else ():
            print(f"{name}, {part}\n\n{beyond(name, part)}\n")
    print(f"Dilution\n\n{diluted('tpr_at_1_fpr')}\n")
    for metric in ("f1", "false_alarms"):
        for part in ("cut at 1", "cut at k"):
            print(f"{metric}, {part}\n\n{diluted(metric, part)}\n")
    for metric in ("tpr_at_1_fpr", "f1", "false_alarms"):
        print(f"Decoys, {metric}\n\n{with_decoys(metric)}\n")


if __name__ == "__main__":
    main()
