"""
Sparse autoencoders: how many units for how much reconstruction
===============================================================

The three activations are trained on the patches of coloured solids at several levels of sparsity.
Which rebuilds most from few units, and how well do single units match concepts?

The guide: :doc:`/user_guide/autoencoders`.
"""

# %%
# The last block of the shipped model is read. No scaler is needed.
import matplotlib.pyplot as plt
import numpy as np

from skact import (
    AutoencoderTraining,
    SparseAutoencoder,
    SuperActivator,
    TransformerEmbedder,
    concept_f1,
    make_shapes,
    shapes_model_path,
    weighted_f1_score,
)

shapes = make_shapes(150, random_state=0)
y, names = shapes.target, shapes.target_names
embedder = TransformerEmbedder(shapes_model_path(), layer=1.0)
X = embedder.transform(shapes.data)
labels = embedder.align_masks(shapes.data, shapes.masks, names)
train, cal, test = slice(0, 60), slice(60, 105), slice(105, 150)
settings = {
    "relu": [{"l1": value} for value in (0.03, 0.1, 0.3)],
    "topk": [{"k": value} for value in (1, 3, 8)],
    "jumprelu": [{"l0": value} for value in (0.005, 0.02, 0.06)],
}

# %%
# For each autoencoder: units that fire on a patch, share of variance that is rebuilt, and the F1 on
# the test split. Each concept takes its unit and its ``delta`` on the calibration split.
deltas = (0.1, 0.3, 0.5, 0.7, 0.9)


def f1_of(scores):
    path = SuperActivator().fit_path(scores[cal], y[cal], labels[cal], deltas=deltas)
    on_cal = [concept_f1(y[cal] == 1, one.predict(scores[cal]) == 1) for one in path]
    best = np.argmax(on_cal, axis=0)
    found = np.stack([path[d].predict(scores[test])[:, c] for c, d in enumerate(best)], axis=1)
    return weighted_f1_score(y[test], found)


found, curves = {}, {}
training = AutoencoderTraining(max_epochs=25)
for activation, levels in settings.items():
    rows = []
    for level in levels:
        method = SparseAutoencoder(64, activation, **level, training=training, random_state=0)
        scores = method.fit(X[train]).transform(X)
        fires = (scores[test].flat() > 0).sum(axis=1).mean()
        rows.append((fires, method.reconstruction_score(X[test]), f1_of(scores)))
        curves.setdefault(activation, []).append(method.loss_curve_)
        print(
            f"{activation:<9} {level}: {fires:.1f} units, {rows[-1][1]:.2f}, F1 {rows[-1][2]:.2f}"
        )
    found[activation] = np.array(sorted(rows)).T

# %%
# Left: training at the middle level of sparsity; the losses differ by their penalties. Middle: the
# trade of sparsity against reconstruction. Right: F1 of the matched units. With 45 test images,
# small differences of F1 mean little.
figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
for activation, (fires, rebuilt, f1) in found.items():
    axes[0].plot(curves[activation][1], label=activation)
    axes[1].plot(fires, rebuilt, "o-", label=activation)
    axes[2].plot(fires, f1, "o-", label=activation)
axes[0].set(xlabel="epoch", ylabel="loss", yscale="log")
axes[1].set(xlabel="units that fire on a patch", ylabel="reconstruction score", xscale="log")
axes[2].set(xlabel="units that fire on a patch", ylabel="weighted F1 on test", xscale="log")
axes[2].set(ylim=(0, 1))
axes[0].legend()
plt.show()
