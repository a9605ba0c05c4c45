"""
F1 by block, of SuperActivator and its baselines (appendix K)
=============================================================

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
from skact import DepthCurveDisplay

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
# **F1 by block** (appendix K), each concept at the ``delta`` that was best on the calibration split
# at that block. The mean vector has separators of its own, on the mean of the tokens.
figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained", sharey=True)
for ax, (name, result) in zip(axes, results.items(), strict=True):
    DepthCurveDisplay(result["depth_curve"]).plot(ax=ax)
    ax.legend(fontsize="small").set_visible(ax is axes[0])
    ax.set(title=name, ylabel="weighted F1" if ax is axes[0] else "", ylim=(0, 1))
plt.show()

# %%
# **In numbers**: what SuperActivator gains in F1 over each, mean over blocks, with 95 % intervals.
# It gains over the mean, the last and a random token everywhere; over ``MaxToken`` next to nothing,
# and over the mean vector nothing for slots and objects.
for name, result in results.items():
    print(name)
    for what, found in result["claims"]["gain of SuperActivator, mean over blocks"].items():
        said = "{:.3f} [{:.3f}, {:.3f}]".format(*found) if isinstance(found, list) else found
        print(f"  {what}: {said}")
