"""
Blocks that concepts choose (appendix L)
========================================

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
from skact import BestLayersDisplay

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
# **Best blocks** (appendix L): how many concepts choose each.
figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
for ax, (name, result) in zip(axes, results.items(), strict=True):
    BestLayersDisplay(result["best_layers"]).plot(ax=ax)
    ax.legend(fontsize="small").set_visible(ax is axes[0])
    ax.set_title(name)
plt.show()

# %%
# **In numbers**: concepts that choose each block with SuperActivator, with 95 % intervals. Most
# emotions choose an early block of MiniLM, most slots and objects one behind the middle of SmolLM2
# and DINOv2; no block is best for all concepts.
for name, result in results.items():
    chosen = result["best_layers"]
    row = chosen["detectors"].index("SuperActivator")
    counts, low, high = (chosen[end][row] for end in ("counts", "low", "high"))
    print(name)
    for block, *said in zip(chosen["layers"], counts, low, high, strict=True):
        print("  block {}: {} [{:.0f}, {:.0f}]".format(block, *said))
