"""
Skew of the in-concept scores by block (section 3.3)
====================================================

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
import numpy as np

import skact

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
# **Skew** of the in-concept scores by block: above zero there is a tail above.
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained", sharey=True)
for ax, (name, result) in zip(axes, results.items(), strict=True):
    skew = result["score_distributions"]["skew_by_layer"]
    ax.plot(skew["layers"], skew["mean"], "o-", ms=3)
    ax.fill_between(skew["layers"], *np.array([skew["low"], skew["high"]]), alpha=0.2, lw=0)
    ax.axhline(0, color="0.6", lw=0.8)
    ax.set(title=name, xlabel="block", ylabel="skew of in-concept scores" if ax is axes[0] else "")
plt.show()

# %%
# **In numbers**, with 95 % intervals. A tail above is there for emotions alone. Scores of slots and
# objects are skewed the other way at nearly every block.
for name, result in results.items():
    print(name)
    for what, found in result["claims"]["skew"].items():
        said = "{:.3f} [{:.3f}, {:.3f}]".format(*found) if isinstance(found, list) else found
        print(f"  {what}: {said}")
