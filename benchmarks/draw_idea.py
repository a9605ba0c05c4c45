"""Draw the idea of the package: only the tail of the in-concept scores stands out.

    python benchmarks/draw_idea.py --texts FOLDER --photos FOLDER --models FOLDER [--out FILE]

TEXTS holds texts with labelled spans, PHOTOS photographs with masks, MODELS what `make models`
brings. Vectors are fitted on the split train and thresholds set on cal. The histograms show tokens
of the split test: those labelled with the concept, and those of samples that do not hold it. Beside
them stand a text written for the figure, and NASA's portrait of Eileen Collins, in the
public domain, which scikit-image ships.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import skimage
from PIL import Image
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from skact import (
    LinearSeparator,
    PatchHeatMapDisplay,
    SuperActivator,
    TokenHeatMapDisplay,
    TokenScaler,
    TransformerEmbedder,
    load_masks,
    load_spans,
)

TEXT = (
    "I was stuck at the station all night. Thank you so much for driving out to get me. "
    "It rained, the trains were late, and nobody knew why."
)
PHOTO = Path(skimage.__file__).parent / "data" / "astronaut.png"
DELTA = 0.1


def fit(embedder, data, labels):
    """Fit on train and cal; return the pipeline from raw samples, and the scores of test."""
    train, cal, test = (np.flatnonzero(data.split == s) for s in ("train", "cal", "test"))
    tokens, y = embedder.transform(data.data), data.target
    scaler = TokenScaler().fit(tokens[train])
    Z = scaler.transform(tokens)
    concepts = LinearSeparator().fit(Z[train], y[train], token_labels=labels[train])
    scores = concepts.transform(Z)
    detector = SuperActivator(DELTA).fit(scores[cal], y[cal], token_labels=labels[cal])
    parts = (FrozenEstimator(part) for part in (scaler, concepts))
    return make_pipeline(embedder, *parts, detector), scores[test], labels[test], y[test]


def histogram(ax, found, names, concept):
    """Draw the scores of tokens with and without the concept, and the threshold."""
    pipe, scores, labels, y = found
    c = list(names).index(concept)
    inside = scores.flat()[labels.flat()[:, c], c]
    outside = scores[y[:, c] == 0].flat()[:, c]
    threshold = float(np.ravel(pipe[-1].thresholds_)[c])
    bins = np.linspace(*np.quantile(np.concatenate([inside, outside]), [0.0005, 1]), 70)
    ax.hist(outside, bins, density=True, color="0.7", label=f"tokens of samples without {concept}")
    ax.hist(inside, bins, density=True, color="C3", alpha=0.6, label=f"tokens labelled {concept}")
    ax.axvline(threshold, color="black", lw=1)
    end = bins[-1] + 0.15 * (bins[-1] - bins[0])
    ax.axvspan(threshold, end, color="C1", alpha=0.25, lw=0)
    top = 0.97 * ax.get_ylim()[1]
    ax.text(threshold, top, " the tail:\n SuperActivators", va="top", fontsize=9)
    ax.set(xlabel="score of a token", yticks=[], xlim=(bins[0], end))
    ax.spines[["top", "left", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    print(concept, len(inside), len(outside), f"threshold {threshold:.2f}")
    print(f"of labelled tokens {np.mean(inside >= threshold):.3f} are above it, ", end="")
    print(f"of the others {np.mean(outside >= threshold):.5f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", required=True, help="folder with samples.jsonl")
    parser.add_argument("--photos", required=True, help="folder with index.jsonl")
    parser.add_argument("--models", default="models", help="folder of the models")
    parser.add_argument("--out", default="docs/images/idea.png", help="the picture")
    args = parser.parse_args()
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    reader = TransformerEmbedder(f"{args.models}/minilm", layer=3)
    texts = load_spans(args.texts)
    labels = reader.align_spans(texts.data, texts.spans, texts.target_names)
    of_texts = fit(reader, texts, labels)
    viewer = TransformerEmbedder(f"{args.models}/dinov2-small", layer=8)
    photos = load_masks(args.photos)
    labels = viewer.align_masks(photos.data, photos.masks, photos.target_names)
    of_photos = fit(viewer, photos, labels)

    figure, axes = plt.subplots(
        2, 2, figsize=(10, 5.2), layout="constrained", width_ratios=[1, 1.05]
    )
    histogram(axes[0, 0], of_texts, texts.target_names, "gratitude")
    TokenHeatMapDisplay.from_estimator(of_texts[0], TEXT, "gratitude", ax=axes[0, 1])
    histogram(axes[1, 0], of_photos, photos.target_names, "face")
    photo = np.asarray(Image.open(PHOTO))
    PatchHeatMapDisplay.from_estimator(of_photos[0], photo, "face", ax=axes[1, 1])
    for ax, title in zip(axes[:, 1], ("a text", "a photograph"), strict=True):
        ax.set_title(f"{title}: SuperActivators are outlined", fontsize=9)
    figure.savefig(args.out, dpi=130)


if __name__ == "__main__":
    main()
