"""
A layer and a delta for each concept
====================================

Colours can be read at every block of the shipped model, shapes only at later ones.
:class:`~skact.model_selection.ConceptSearchCV` searches one grid and gives each concept its own
winner.

The guide: :doc:`/user_guide/search`.
"""

# %%
# All blocks come from one forward pass.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import Pipeline

from skact import (
    ConceptSearchCV,
    LinearSeparator,
    SelectLayer,
    SuperActivator,
    TokenScaler,
    TransformerEmbedder,
    make_shapes,
    shapes_model_path,
    weighted_f1_score,
)

shapes = make_shapes(180, random_state=0)
y, names = shapes.target, shapes.target_names
embedder = TransformerEmbedder(shapes_model_path(), layer=[0, 1, 2, 3, 4, 5])
stack = embedder.transform(shapes.data)
labels = embedder.align_masks(shapes.data, shapes.masks, names)
rest, test = slice(0, 135), slice(135, 180)

# %%
# The bool array marks the calibration split. Scaler and separators are fitted on the other images;
# thresholds and the choice come from the marked ones.
pipe = Pipeline(
    [
        ("layer", SelectLayer()),
        ("scale", TokenScaler()),
        ("concepts", LinearSeparator()),
        ("detect", SuperActivator()),
    ]
)
deltas = [0.1, 0.3, 0.5, 0.7, 0.9]
grid = {"layer__layer": stack.layers, "detect__delta": deltas}
search = ConceptSearchCV(pipe, grid, cv=np.arange(135) >= 90)
search.fit(stack[rest], y[rest], token_labels=labels[rest])
print("each its own:", round(weighted_f1_score(y[test], search.predict(stack[test])), 2))

# %%
# For comparison, the one candidate with the best mean F1 over concepts. On these images it does as
# well: freedom per concept is also freedom to fit the calibration split, and 45 images are few.
mean = np.mean([search.cv_results_[f"mean_test_{name}"] for name in names], axis=0)
common = pipe.set_params(**search.cv_results_["params"][int(np.argmax(mean))])
single = ConceptSearchCV(common, {"detect__delta": [common[-1].delta]}, cv=np.arange(135) >= 90)
single.fit(stack[rest], y[rest], token_labels=labels[rest])
print("one for all: ", round(weighted_f1_score(y[test], single.predict(stack[test])), 2))

# %%
# F1 on the calibration split for each concept; the star is the winner. Ties go to the smaller
# ``delta``, then to the earlier block.
figure, axes = plt.subplots(2, 3, figsize=(10, 5.5), layout="constrained", sharex=True, sharey=True)
layer_of = search.cv_results_["param_layer__layer"].astype(int)
delta_of = search.cv_results_["param_detect__delta"].astype(float)
for ax, name in zip(axes.flat, names, strict=True):
    picture = np.empty((len(stack.layers), len(deltas)))
    for i, value in enumerate(search.cv_results_[f"mean_test_{name}"]):
        picture[stack.layers.index(layer_of[i]), deltas.index(delta_of[i])] = value
    image = ax.imshow(picture, vmin=0, vmax=1, cmap="viridis", aspect="auto", origin="lower")
    best = search.best_params_[name]
    place = deltas.index(best["detect__delta"]), stack.layers.index(best["layer__layer"])
    ax.plot(*place, "*", color="red", mec="white", ms=16)
    ax.set_title(name)
    ax.set_xticks(range(len(deltas)), deltas)
    ax.set_yticks(range(len(stack.layers)), stack.layers)
figure.supxlabel("delta")
figure.supylabel("block")
figure.colorbar(image, ax=axes, label="F1 on the calibration split")
plt.show()
