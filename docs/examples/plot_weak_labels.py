"""
Sample labels alone
===================

No patch is labelled, only images. Every patch of a positive image then counts as in-concept, and
background enters the reference scores. How much does each detector depend on ``delta``?

The guide: :doc:`/user_guide/detection`.
"""

# %%
# The separators are fitted on sample labels alone, too.
import matplotlib.pyplot as plt
import numpy as np

from skact import (
    LinearSeparator,
    MaxToken,
    SuperActivator,
    TokenScaler,
    TransformerEmbedder,
    WeakSuperActivator,
    make_shapes,
    shapes_model_path,
    weighted_f1_score,
)

shapes = make_shapes(240, random_state=0)
y, names = shapes.target, shapes.target_names
embedder = TransformerEmbedder(shapes_model_path(), layer=0.5)
X = embedder.transform(shapes.data)
train, cal, test = slice(0, 120), slice(120, 180), slice(180, 240)
Z = TokenScaler().fit(X[train]).transform(X)
scores = LinearSeparator().fit(Z[train], y[train]).transform(Z)

# %%
# ``WeakSuperActivator`` takes the highest scores of each image, a share ``delta`` of its patches,
# and puts the threshold where those of positive images separate best from those of negative ones.
# With ``objective="sample"`` it separates the maxima of images and does not use ``delta``.
deltas = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
detectors = {
    "SuperActivator": SuperActivator(),
    "MaxToken": MaxToken(),
    "WeakSuperActivator": WeakSuperActivator(),
    'WeakSuperActivator, "sample"': WeakSuperActivator(objective="sample"),
}
curves, paths = {}, {}
for name, detector in detectors.items():
    paths[name] = detector.fit_path(scores[cal], y[cal], deltas=deltas)
    curves[name] = [weighted_f1_score(y[test], one.predict(scores[test])) for one in paths[name]]
    print(f"{name:<29} best {max(curves[name]):.2f}, worst {min(curves[name]):.2f}")

# %%
# Left: F1 on the test split. Right: the maximum score of each test image for one concept, with the
# thresholds at ``delta=0.1``. ``delta`` means a share of positive images for ``MaxToken``, and a
# share of patches for the other two that use it.
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
colours = dict(zip(detectors, ("C0", "C1", "C3", "C2"), strict=True))
for name, curve in curves.items():
    left.plot(deltas, curve, "o-", ms=4, color=colours[name], label=name)
left.set(xlabel="delta", ylabel="weighted F1 on test", ylim=(0, 1.02))
left.legend(loc="lower right")
c = names.index("green")
pooled = scores[test].max()[:, c]
bins = np.linspace(pooled.min(), pooled.max(), 25)
right.hist(pooled[y[test, c] == 0], bins, color="0.7", label="images without")
right.hist(pooled[y[test, c] == 1], bins, color="C4", alpha=0.6, label="images with green")
for name, path in paths.items():
    right.axvline(path[deltas.index(0.1)].thresholds_[c], color=colours[name], lw=2)
right.set(xlabel="highest score of an image", ylabel="images")
right.legend()
plt.show()
