"""
SuperActivators for each in-concept token (appendix J)
======================================================

Real data: emotions in texts through MiniLM, slots of requests through SmolLM2, and objects in
photos through DINOv2-small. Thresholds and choices come from the calibration split, all else
from the test split.

The guide: :doc:`/user_guide/analyses`.
"""

# %%
# The files were written by ``benchmarks/analyses.py``.
import json
from pathlib import Path

import matplotlib.pyplot as plt

import skact
from skact import SuperActivatorCountsDisplay

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
# **SuperActivators for each in-concept token** (appendix J), over the test samples that hold a
# concept, at the layer and ``delta`` that each concept has chosen. The curve begins at the share of
# samples without any.
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained", sharey=True)
for ax, (name, result) in zip(axes, results.items(), strict=True):
    SuperActivatorCountsDisplay(result["superactivator_counts"]).plot(ax=ax)
    ax.set(title=name, ylabel="share of samples" if ax is axes[0] else "")
plt.show()

# %%
# **In numbers**, with 95 % intervals. Most texts with an emotion have no SuperActivator; of a slot
# nearly all tokens are, with the ``delta`` that slots choose.
median = "SuperActivators for each in-concept token, median"
for name, result in results.items():
    said = "{:.3f} [{:.3f}, {:.3f}]".format(*result["claims"]["samples without a SuperActivator"])
    print(f"{name}: median {result['claims'][median]:.2f}, samples without any {said}")
