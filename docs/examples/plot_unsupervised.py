"""
Units found without labels, and the concepts they match
=======================================================

k-means finds clusters of patches; no label is used. Which cluster stands for which concept, and how
clear is the match?

The guide: :doc:`/user_guide/unsupervised`.
"""

# %%
# The shipped model is read at its middle. Units come from the training split.
import matplotlib.pyplot as plt
import numpy as np

from skact import (
    KMeansSeparator,
    SuperActivator,
    TokenScaler,
    TransformerEmbedder,
    elbow_curve,
    make_shapes,
    shapes_model_path,
    weighted_f1_score,
)

shapes = make_shapes(160, random_state=0)
y, names = shapes.target, shapes.target_names
embedder = TransformerEmbedder(shapes_model_path(), layer=0.5)
X = embedder.transform(shapes.data)
labels = embedder.align_masks(shapes.data, shapes.masks, names)
train, cal, test = slice(0, 80), slice(80, 120), slice(120, 160)
Z = TokenScaler().fit(X[train]).transform(X)
grid = [1, 2, 4, 8, 16, 32, 64]
inertias = elbow_curve(Z[train], grid, random_state=0)
units = KMeansSeparator(16, random_state=0).fit(Z[train])
scores = units.transform(Z)

# %%
# Labels enter here. The table holds the F1 of every unit as a detector of every concept, on the
# calibration split; each concept takes its best unit, and the F1 is read on the test split.
detector = SuperActivator(delta=0.5)
table = detector.match_table(scores[cal], y[cal], labels[cal], deltas=[detector.delta])
detector.fit(scores[cal], y[cal], token_labels=labels[cal])
matched = detector.matched_columns_
print("calibration", round(weighted_f1_score(y[cal], detector.predict(scores[cal])), 2))
print("test       ", round(weighted_f1_score(y[test], detector.predict(scores[test])), 2))

# %%
# Above: the elbow, and the table with a frame around each match. Several concepts may share a unit.
# Below: the score of the matched unit over the patches of one test image per concept.
figure = plt.figure(figsize=(12, 6), layout="constrained")
top, bottom = figure.subfigures(2, 1)
elbow, heat = top.subplots(1, 2, width_ratios=(1, 2.5))
elbow.plot(grid, inertias / inertias[0], "o-")
elbow.set(xscale="log", xlabel="clusters", ylabel="share of inertia left", ylim=(0, 1.05))
elbow.set_xticks(grid, [str(k) for k in grid])
image = heat.imshow(table.f1[0], aspect="auto", vmin=0, vmax=1, cmap="viridis")
for c, k in enumerate(matched):
    heat.add_patch(plt.Rectangle((k - 0.5, c - 0.5), 1, 1, fill=False, ec="red", lw=2))
heat.set_yticks(range(len(names)), names)
heat.set(xlabel="unit", xticks=range(16), title="F1 on the calibration split, delta = 0.5")
top.colorbar(image, ax=heat)
axes = bottom.subplots(2, len(names))
for c, name in enumerate(names):
    row = test.start + np.flatnonzero(y[test, c])[0]
    patches = scores[row][:, matched[c]]
    side = int(np.sqrt(len(patches)))
    axes[0, c].imshow(shapes.data[row])
    axes[0, c].set(title=name)
    axes[1, c].imshow(patches.reshape(side, side), cmap="magma")
    axes[1, c].set(xlabel=f"unit {matched[c]}")
    for ax in axes[:, c]:
        ax.set(xticks=[], yticks=[])
plt.show()
