"""Put the committed localization results into the user guide.

The command is ``python benchmarks/render_localization.py``.
"""

import json
from pathlib import Path
from textwrap import wrap

from render_results import interval, markdown

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "user_guide" / "localization.md"
START, END = "<!-- results -->", "<!-- end of results -->"
KEEP_WORDS = {"break_long_words": False, "break_on_hyphens": False}
SETS = {
    "GoEmotions": "localization_goemotions.json",
    "Shapes": "localization_shapes.json",
    "MSRC": "localization_msrcv2.json",
    "MSRC, DINOv2": "localization_msrcv2_dinov2.json",
}
SCORES = {
    "f1": "F1",
    "iou": "IoU",
    "average_precision": "AP",
    "pointing_game": "Pointing",
    "insertion": "Insertion",
    "deletion": "Deletion",
    "gap": "Gap",
}
GAINS = {
    "f1": "F1",
    "average_precision": "AP",
    "pointing_game": "Pointing",
    "gap_of_global_function": "Gap, global g",
    "gap_of_local_function": "Gap, local g",
}


def read(name):
    return json.loads((RESULTS / SETS[name]).read_text())


def scores(name):
    """Render every method and target of a data set, and the random order."""
    result = read(name)
    heads, rows = ["Method", "Target", *SCORES.values(), "s per sample"], []
    for row in result["table"]:
        cells = [interval(row[score][0], row[score][1:], 2) for score in SCORES]
        rows.append(
            [f"`{row['method']}`", row["target"], *cells, f"{row['seconds_per_sample']:.2f}"]
        )
    for target, row in result["random_order"].items():
        cells = [interval(row[s][0], row[s][1:], 2) if s in row else "" for s in SCORES]
        rows.append(["random order", target, *cells, ""])
    return markdown(heads, rows)


def gains(name):
    """Render the gain of the local target over the global one, method by method."""
    found = read(name)["gain_of_local"].items()
    rows = [[f"`{m}`", *(interval(row[s][0], row[s][1:]) for s in GAINS)] for m, row in found]
    return markdown(["Method", *GAINS.values()], rows)


def about(name):
    """Say on what the numbers of a data set rest."""
    result = read(name)
    used, samples = result["settings"], result["samples"]
    without = result["positive_test_pairs_without_superactivator"]
    return (
        f"{name}: {len(result['concepts'])} concepts at depth {used['layer']}; "
        f"{samples['cal']} calibration and {samples['test']} test samples with {result['pairs']} "
        f"pairs; {used['masks']} masks{players(used)}, {used['steps']} gradient steps. Of "
        f"{result['positive_test_pairs']} positive pairs of the test split, {without} hold no "
        "SuperActivator and have no local map."
    )


def players(settings):
    """Say what masks take away, if not tokens."""
    if settings.get("unit", "token") == "token":
        return ""
    side = settings["cell_size"]
    return f" of squares of {side} x {side} patches"


def verdict(name):
    """Say for how many methods the local target wins, loses or neither."""
    gain = read(name)["gain_of_local"]
    parts = []
    for score, title in GAINS.items():
        better = [m for m, row in gain.items() if row[score][1] > 0]
        worse = [m for m, row in gain.items() if row[score][2] < 0]
        parts.append(
            f"{title}: better for {listed(better)}, worse for {listed(worse)}, undecided for the "
            f"other {len(gain) - len(better) - len(worse)}"
        )
    return f"{name}, local against global. " + ". ".join(parts) + "."


def listed(methods):
    names = ", ".join(f"`{m}`" for m in methods)
    return f"{len(methods)} ({names})" if methods else "none"


def sections():
    """Give everything that the docs quote, in its order."""
    for name in SETS:
        yield f"### {name}"
        yield about(name)
        yield scores(name)
        yield "Gain of the local target over the global one, paired:"
        yield gains(name)
        yield verdict(name)


def write(page):
    """Put the results between the two marks of a page."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    wrapped = [s if s[0] in "|#" else "\n".join(wrap(s, 100, **KEEP_WORDS)) for s in sections()]
    text = "\n\n".join([before + START, *wrapped, END + after])
    page.write_text(text, encoding="utf-8")


def main():
    write(PAGE)
    print(f"{PAGE.name} holds the results of {', '.join(SETS)}.")


if __name__ == "__main__":
    main()
