"""
Where in an image is a concept? Attribution methods side by side
================================================================

The images show one coloured solid each, so the place of every concept is known to the pixel. Which
attribution method finds it, and is the local target better than the global one?

The guide: :doc:`/user_guide/localization`.
"""

# %%
# The small vision transformer that is shipped with the package reads the images. Concepts are
# fitted on the training split and the detector on the calibration split.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skact import (
    LIME,
    MFABA,
    RISE,
    SHAPIQ,
    ConceptLocalizer,
    IntegratedGradients,
    KernelSHAP,
    LinearSeparator,
    LocalizationDisplay,
    SuperActivator,
    TokenScaler,
    TransformerEmbedder,
    bootstrap_interval,
    keep_pairs,
    make_shapes,
    shapes_model_path,
    token_f1_score,
)

shapes = make_shapes(186, random_state=0)
y, names = shapes.target, shapes.target_names
embedder = TransformerEmbedder(shapes_model_path(), layer=0.5)
X = embedder.transform(shapes.data)
labels = embedder.align_masks(shapes.data, shapes.masks, names)
train, cal, test = slice(0, 150), slice(150, 168), slice(168, 186)
concepts = make_pipeline(TokenScaler(), LinearSeparator())
concepts.fit(X[train], y[train], linearseparator__token_labels=labels[train])
detector = SuperActivator(delta=0.3)
detector.fit(concepts.transform(X[cal]), y[cal], token_labels=labels[cal])
localizer = ConceptLocalizer(embedder, concepts, detector, random_state=0)
localizer.fit(shapes.data[cal], y[cal], token_labels=labels[cal])

# %%
# Maps of one test image. Red speaks for the concept, blue against it; every map has its own scale.
# SuperActivators are framed. A name stands for a method with its defaults, an object holds its
# settings. 70 masks say little about 64 patches one by one, and more about 16 squares of four. CALM
# is not among them, because it has to be fitted first.
marks = detector.superactivators(concepts.transform(X))
c = names.index("red")
row = test.start + np.flatnonzero(y[test, c] & marks[test].max()[:, c])[0]
squares = {"n_masks": 70, "unit": "grid", "cell_size": 2}
perturbing = [LIME(**squares), KernelSHAP(**squares), RISE(**squares), SHAPIQ(**squares)]
walking = [IntegratedGradients(n_steps=8), MFABA(n_steps=8)]
LocalizationDisplay.from_estimator(
    localizer,
    shapes.data[row],
    "red",
    methods=["direct", "grad_cam", *perturbing, *walking, "full_grad"],
)
plt.show()

# %%
# A map above its threshold is a set of patches, which the masks judge. Both targets are compared on
# the same pairs of image and concept: those that hold the concept and a SuperActivator of it. RISE
# gives expected values, whose offset differs between images, and one threshold serves them all.
pairs = labels[test].max() & marks[test].max()
truth = keep_pairs(labels[test], pairs)
methods = {
    "direct": "direct",
    "grad_cam": "grad_cam",
    "lime, patches": LIME(n_masks=70),
    "lime, squares": LIME(**squares),
    "rise": RISE(**squares),
    "full_grad": "full_grad",
}
scores = {}
for name, method in methods.items():
    for target in ("global", "local"):
        one = clone(localizer).set_params(method=method, target=target)
        one.fit(shapes.data[cal], y[cal], token_labels=labels[cal])
        found = keep_pairs(one.predict(shapes.data[test]), pairs)
        scores[name, target] = bootstrap_interval(
            truth, found, metric=token_f1_score, random_state=0
        )
figure, ax = plt.subplots(figsize=(8, 3.5), layout="constrained")
for shift, (target, colour) in enumerate((("global", "C0"), ("local", "C3"))):
    f1, low, high = np.array([scores[m, target] for m in methods]).T
    ax.bar(
        np.arange(len(methods)) + 0.4 * shift - 0.2,
        f1,
        0.38,
        yerr=[f1 - low, high - f1],
        color=colour,
        capsize=3,
        label=target,
    )
ax.set(xticks=range(len(methods)), xticklabels=methods, ylabel="F1 of patches", ylim=(0, 1))
ax.legend(title="target", loc="upper right")
plt.show()
