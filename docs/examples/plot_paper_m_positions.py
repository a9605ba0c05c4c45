"""
Positions of SuperActivators (appendix M)
=========================================

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
from skact import SuperActivatorPositionsDisplay

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
# **Positions** of SuperActivators (appendix M), against those of all in-concept tokens: as a share
# of the sample, and counted from its begin. Patches of photos are counted row by row.
figure, axes = plt.subplots(2, 3, figsize=(11, 6), layout="constrained")
for column, (name, result) in zip(axes.T, results.items(), strict=True):
    display = SuperActivatorPositionsDisplay(result["superactivator_positions"])
    for ax, kind in zip(column, ("relative", "absolute"), strict=True):
        display.plot(kind=kind, ax=ax)
        ax.set_title(f"{name}\n{ax.get_title()}")
plt.show()

# %%
# **In numbers**: how much later SuperActivators stand than in-concept tokens, with 95 % intervals
# and a test that flips the signs of samples. Three of the six tests are below 0.05, none below
# 0.05 / 6: no artefact of size, but for texts none can be excluded.
for name, result in results.items():
    for kind in ("relative", "absolute"):
        found = result["claims"]["positions"][kind]
        print("{}, {}: {:.3f} [{:.3f}, {:.3f}], p = {:.3f}".format(name, kind, *found))
