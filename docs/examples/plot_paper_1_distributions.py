"""
Scores inside and outside of a concept
======================================

Real data: emotions in texts through MiniLM, slots of requests through SmolLM2, and objects in
photos through DINOv2-small. Nothing was fitted on these samples; intervals are 95 % bootstraps over
samples.

The guide: :doc:`/user_guide/analyses`.
"""

# %%
# The files were written by ``benchmarks/analyses.py``.
import json
from pathlib import Path

import matplotlib.pyplot as plt

import skact
from skact import ScoreDistributionsDisplay

folder = Path(skact.__file__).parents[1] / "benchmarks" / "results"
names = {
    "GoEmotions, MiniLM": "goemotions_minilm",
    "Snips, SmolLM2": "snips_smollm2",
    "MSRC photos, DINOv2": "msrcv2_dinov2",
}
results = {
    name: json.loads((folder / f"analyses_{file}.json").read_text()) for name, file in names.items()
}

# %%
# **Scores inside and outside** of one concept at the first, the middle and the last block. The
# dotted line is the 0.98 quantile of the scores outside; what lies above it is the separable tail.
figure, axes = plt.subplots(3, 3, figsize=(11, 8), layout="constrained")
for row, (name, result) in zip(axes, results.items(), strict=True):
    display = ScoreDistributionsDisplay(result["score_distributions"])
    for ax, layer in zip(row, result["score_distributions"]["layers"], strict=True):
        display.plot(layer=layer, ax=ax)
        ax.get_legend().set_visible(ax is axes[0, 0])
        ax.set_ylabel(name if ax is row[0] else "")
plt.show()

# %%
# **In numbers**: the share of the in-concept tokens that lies above the dotted line. Both
# distributions overlap everywhere. Of what is labelled admiration one token in four stands out at
# most, of artists and buildings seven in ten.
for name, result in results.items():
    tail, drawn = result["separability"], result["score_distributions"]
    shares = [tail["share"][tail["layers"].index(layer)][0] for layer in drawn["layers"]]
    said = ", ".join(f"{s:.2f} at block {b}" for b, s in zip(drawn["layers"], shares, strict=True))
    print(f"{name}, {drawn['concept_names'][0]}: {said}")
