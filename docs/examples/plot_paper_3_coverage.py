"""
Coverage: samples with a token in the separable tail
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

import skact
from skact import CoverageDisplay

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
# **Coverage**: the share of samples with the concept that have a token in the separable tail. The
# dashed line is the same share of the samples **without** it, which is high because a long sample
# has one token in fifty above by chance. Only the gap says something.
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained", sharey=True)
for ax, (name, result) in zip(axes, results.items(), strict=True):
    CoverageDisplay(result["coverage"]).plot(ax=ax)
    ax.set(title=name, ylabel="share of samples" if ax is axes[0] else "", ylim=(0, 1))
plt.show()

# %%
# **In numbers**, with 95 % intervals. Most samples with the concept are covered at every block, by
# all three. So are many without it; the gap is what counts.
for name, result in results.items():
    print(name)
    for what, found in result["claims"]["coverage"].items():
        said = "{:.3f} [{:.3f}, {:.3f}]".format(*found) if isinstance(found, list) else found
        print(f"  {what}: {said}")
