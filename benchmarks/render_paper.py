"""Put what runs of the paper's protocol on public data have found into the user guide.

The command is ``python benchmarks/render_paper.py``.
"""

import json
from functools import partial
from pathlib import Path

from render_results import RESULTS, interval, markdown

PAGE = Path(__file__).parents[1] / "docs" / "user_guide" / "reproduction.md"
RUNS = {
    "MSRC photographs, DINOv2": "msrcv2_dinov2",
    "iSarcasm, MiniLM": "isarcasm_minilm",
    "iSarcasm, SmolLM2": "isarcasm_smollm2",
    "GoEmotions, MiniLM": "goemotions_minilm",
    "GoEmotions, SmolLM2": "goemotions_smollm2",
    "Snips, MiniLM": "snips_minilm",
    "Snips, SmolLM2": "snips_smollm2",
}
DETECTORS = ("RandomToken", "LastToken", "MeanToken", "CLS", "MaxToken", "SuperActivator")
#: F1 that the paper gives for linear separators on Llama-3.2-11B-Vision, in the order of
#: ``DETECTORS`` without the maximum, which it does not have; then its F1 of prompting.
PUBLISHED = {
    "CLEVR": (0.967, 0.879, 0.920, 0.961, 0.997, 0.987),
    "COCO": (0.606, 0.680, 0.551, 0.566, 0.829, 0.686),
    "OpenSurfaces": (0.438, 0.410, 0.390, 0.456, 0.558, 0.491),
    "Pascal": (0.659, 0.601, 0.594, 0.648, 0.822, 0.680),
    "Sarcasm": (0.659, 0.683, 0.659, 0.737, 0.870, 0.679),
    "iSarcasm": (0.885, 0.717, 0.791, 0.912, 0.924, 0.789),
    "GoEmotions": (0.372, 0.307, 0.193, 0.320, 0.459, 0.252),
}
#: What the paper says, the figure that bears on it, and whether it says so above zero.
CLAIMS = {
    "SuperActivator above a random token": ("gain", "RandomToken"),
    "above the last token": ("gain", "LastToken"),
    "above the mean of the tokens": ("gain", "MeanToken"),
    "above one vector per sample": ("gain", "CLS"),
    "above the maximum (not in the paper)": ("gain", "MaxToken"),
    "separable share grows to the middle": ("separability", "middle - first"),
    "and no more behind it": ("separability", "last - middle"),
    "in-concept samples reach the tail, others do not": ("coverage", "middle, gap"),
    "F1 at `delta` = 0.1 above that at 0.5": ("sparsity", "F1 at 0.1 - at 0.5"),
    "SuperActivators stand where the concept does": ("positions", "relative"),
}
# Claims that something does not grow, and that a difference is nothing.
NO_GROWTH, NOTHING = "and no more behind it", "SuperActivators stand where the concept does"


def read(file):
    return json.loads((RESULTS / f"paper_{file}.json").read_text(encoding="utf-8"))


def cells(found):
    return {e["detector"]: e for e in found["table"] if e["method"] == "LinearSeparator"}


def detected():
    """Render F1 of each detector in each run, and the floor beside it."""
    rows = []
    for name, file in RUNS.items():
        found = read(file)
        own = cells(found)
        f1 = [interval(own[d]["weighted_test_f1"], own[d]["interval"]) for d in DETECTORS]
        rows.append([name, f"{found['floor']:.3f}", *f1])
    return markdown(["Data, model", "Yes to everything", *DETECTORS], rows)


def published():
    """Render the numbers of the paper in the same order."""
    heads = ["Data", *(d for d in DETECTORS if d != "MaxToken"), "Prompting"]
    return markdown(heads, [[name, *(f"{x:.3f}" for x in f1)] for name, f1 in PUBLISHED.items()])


def asked():
    """Render what the chat model says to questions, where a run asks it."""
    rows = []
    for name, file in RUNS.items():
        for scores, one in read(file)["prompting"].items():
            gain = one["gain_of_superactivator"]
            row = [name, scores, interval(one["f1"][0], one["f1"][1:]), f"{one['floor']:.3f}"]
            rows.append([*row, interval(gain[0], gain[1:])])
    heads = ["Data, model", "asked for", "F1", "Yes to everything", "SuperActivator's gain over it"]
    return markdown(heads, rows)


def figure(found, where):
    """Estimate and ends of a figure of a run."""
    kind, key = where
    if kind == "gain":
        own = cells(found)[key]
        return own["gain_of_superactivator"], *own["gain_interval"]
    return tuple(found["claims"][kind][key][:3])


def verdict(claim, ends):
    """Say whether an interval speaks for a claim, against it, or for neither."""
    low, high = ends
    if claim == NO_GROWTH:
        return "fails" if low > 0 else "holds"
    if claim == NOTHING:
        return "holds" if low <= 0 <= high else "fails"
    if low > 0:
        return "holds"
    return "fails" if high < 0 else "not told"


def claimed(data):
    """Render what bears on each claim on a data set, with the verdicts, a column for each model."""
    pairs = {tuple(name.split(", ")): file for name, file in RUNS.items()}
    found = {model: read(file) for (one, model), file in pairs.items() if one == data}
    rows = []
    for claim, where in CLAIMS.items():
        row = [claim]
        for one in found.values():
            estimate, *ends = figure(one, where)
            row.append(f"{interval(estimate, ends)} {verdict(claim, ends)}")
        rows.append(row)
    return markdown(["Claim", *found], rows)


def counted():
    """Render in how many runs each claim holds."""
    found = [read(file) for file in RUNS.values()]
    rows = []
    for claim, where in CLAIMS.items():
        said = [verdict(claim, figure(one, where)[1:]) for one in found]
        rows.append([claim, *(str(said.count(v)) for v in ("holds", "not told", "fails"))])
    return markdown(["Claim", "Holds", "Not told apart", "Fails"], rows)


DATA = tuple(dict.fromkeys(name.split(", ")[0] for name in RUNS))
#: What writes a table, by the mark before it. Claims are told apart by data: seven runs side by
#: side are wider than a page.
TABLES = {
    "detected": detected,
    "published": published,
    "asked": asked,
    "counted": counted,
    **{f"claimed: {data}": partial(claimed, data) for data in DATA},
}


def sections():
    return [table() for table in TABLES.values()]


def main():
    text = PAGE.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        mark = f"<!-- {name} -->\n"
        before, old = text.split(mark)
        _, _, behind = old.partition("\n\n")
        text = f"{before}{mark}{table()}\n\n{behind}"
    PAGE.write_text(f"{text.rstrip()}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
