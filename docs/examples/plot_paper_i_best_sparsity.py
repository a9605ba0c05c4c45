"""
Best delta at each block (appendix I)
=====================================

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
from skact import BestSparsityDisplay

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
# **Best** ``delta`` **at each block** (appendix I): how many concepts choose it.
figure, axes = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
for ax, (name, result) in zip(axes, results.items(), strict=True):
    BestSparsityDisplay(result["best_sparsity"]).plot(ax=ax)
    ax.tick_params(axis="x", rotation=90)
    ax.set_title(name)
plt.show()

# %%
# **In numbers**: shares of the choices of single concepts at single blocks, with 95 % intervals.
for name, result in results.items():
    print(name)
    for what in ("choices of 0.05 or 0.1", "choices of at most 0.1"):
        said = "{:.3f} [{:.3f}, {:.3f}]".format(*result["claims"]["sparsity"][what])
        print(f"  {what}: {said}")
