"""
A sweep over layers that embeds once
====================================

A grid search over layers on raw images asks for the same images again and again: for every layer,
every ``delta`` and every fold. With an :class:`~skact.ActivationStore` each image goes
through the model once.

The guide: :doc:`/user_guide/large_data`.
"""

# %%
# ``layers="all"`` keeps all layers whenever an image goes through the model.
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skact import (
    ActivationStore,
    MeanPrototype,
    SuperActivator,
    TransformerEmbedder,
    make_shapes,
    shapes_model_path,
)

shapes = make_shapes(90, random_state=0)
store = ActivationStore(tempfile.mkdtemp(), layers="all")
embedder = TransformerEmbedder(shapes_model_path(), store=store)
n_blocks = embedder.n_blocks

# %%
# Six layers, four values of ``delta`` and three folds, for two concepts.
pipe = Pipeline([("embed", embedder), ("concepts", MeanPrototype()), ("detect", SuperActivator())])
deltas = [0.1, 0.3, 0.5, 0.7]
grid = {"embed__layer": list(range(n_blocks)), "detect__delta": deltas}
pictures = {}
for name in ("red", "sphere"):
    present = shapes.target[:, shapes.target_names.index(name)]
    print(name, "- images that the store lacks:", embedder.missing(shapes.data).sum())
    search = GridSearchCV(pipe, grid, cv=3, scoring="f1").fit(shapes.data, present)
    score = {
        (p["embed__layer"], p["detect__delta"]): s
        for p, s in zip(
            search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
        )
    }
    pictures[name] = np.array([[score[b, d] for d in deltas] for b in range(n_blocks)])
    print(name, search.best_params_)

# %%
# The first search has embedded each image once, at all layers; the second ran no model at all.
print(store.info()["samples"], "samples at", len(store.info()["layers"]), "layers in the store")

# %%
# F1 of each candidate, mean over the folds.
figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained", sharey=True)
for ax, (name, picture) in zip(axes, pictures.items(), strict=True):
    image = ax.imshow(picture, vmin=0, vmax=1, origin="lower", aspect="auto")
    ax.set_title(name)
    ax.set_xticks(range(len(deltas)), deltas)
    ax.set_xlabel("delta")
axes[0].set_ylabel("block")
figure.colorbar(image, ax=axes, label="F1, mean over folds")
plt.show()
