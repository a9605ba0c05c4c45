"""
Where in the model a concept can be read
========================================

The small vision transformer that is shipped with the package reads images of coloured solids. At
which of its blocks do patches of a concept score higher than patches of images without it?

The guide: :doc:`/user_guide/embedding`.
"""

# %%
# All blocks come from one forward pass. Masks of pixels become labels of patches.
import matplotlib.pyplot as plt
import numpy as np

from skact import (
    LinearSeparator,
    TokenScaler,
    TransformerEmbedder,
    make_shapes,
    shapes_model_path,
)

shapes = make_shapes(200, random_state=0)
embedder = TransformerEmbedder(shapes_model_path(), layer=[0, 1, 2, 3, 4, 5])
stack = embedder.transform(shapes.data)
labels = embedder.align_masks(shapes.data, shapes.masks, shapes.target_names)
train, test = slice(0, 130), slice(130, 200)
print(stack)

# %%
# At each block a linear separator is fitted on 130 images. On the other 70, the scores of
# in-concept patches (labelled with the concept) are compared with out-of-concept scores (all
# patches of images that do not hold it). The dashed line is the 98 % quantile of the latter; the
# title gives the share of in-concept patches above it.
figure, axes = plt.subplots(2, 6, figsize=(14, 5), layout="constrained", sharey="row")
separable = {}
for column, block in enumerate(stack.layers):
    X = stack.layer(block)
    Z = TokenScaler().fit(X[train]).transform(X)
    method = LinearSeparator().fit(Z[train], shapes.target[train], token_labels=labels[train])
    scores = method.transform(Z[test])
    for row, name in enumerate(("red", "cube")):
        c = shapes.target_names.index(name)
        inside = scores.flat()[labels[test].flat()[:, c], c]
        outside = scores[shapes.target[test, c] == 0].flat()[:, c]
        level = np.quantile(outside, 0.98)
        separable[name, block] = np.mean(inside > level)
        bins = np.linspace(*np.quantile(np.concatenate([inside, outside]), [0.001, 0.999]), 40)
        ax = axes[row, column]
        ax.hist(outside, bins, density=True, color="0.7", label="out of concept")
        ax.hist(inside, bins, density=True, color="C3", alpha=0.6, label="in concept")
        ax.axvline(level, color="black", ls="--", lw=1)
        ax.set(title=f"{name}, block {block}: {separable[name, block]:.0%}", yticks=[])
axes[0, 0].legend(loc="upper right", fontsize=8)
figure.supxlabel("score of a patch")
plt.show()

# %%
# The shares once more, as numbers.
for name in ("red", "cube"):
    print(f"{name:<5}", *(f"{separable[name, block]:5.0%}" for block in stack.layers))
