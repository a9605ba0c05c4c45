"""
The paper's protocol on seven pairs of data and model
=====================================================

Test F1 of the detectors on linear separators, each concept with the layer and ``delta`` that were
best on the calibration split; beside it the F1 of saying yes to everything.

The guide: :doc:`/user_guide/reproduction`.
"""

# %%
# The files were written by ``benchmarks/paper.py``.
import json
from pathlib import Path

import matplotlib.pyplot as plt

import skact
from skact.inspection import IntervalsDisplay

folder = Path(skact.__file__).parents[1] / "benchmarks" / "results"
names = {
    "MSRC, DINOv2": "msrcv2_dinov2",
    "iSarcasm, MiniLM": "isarcasm_minilm",
    "iSarcasm, SmolLM2": "isarcasm_smollm2",
    "GoEmotions, MiniLM": "goemotions_minilm",
    "GoEmotions, SmolLM2": "goemotions_smollm2",
    "Snips, MiniLM": "snips_minilm",
    "Snips, SmolLM2": "snips_smollm2",
}
runs = {
    name: json.loads((folder / f"paper_{file}.json").read_text()) for name, file in names.items()
}
detectors = ["RandomToken", "LastToken", "MeanToken", "CLS", "MaxToken", "SuperActivator"]

# %%
# **F1 with its 95 % interval over samples.** The dotted line is the floor: on iSarcasm, where half
# of the texts are sarcastic, every detector stands close to it.
figure, axes = plt.subplots(2, 4, figsize=(13, 6), layout="constrained", sharey=True)
for ax, (name, run) in zip(axes.flat, runs.items(), strict=False):
    rows = {e["detector"]: e for e in run["table"] if e["method"] == "LinearSeparator"}
    low, high = zip(*(rows[d]["interval"] for d in detectors), strict=True)
    result = {"names": detectors, "series": ["F1"] * len(detectors), "low": low, "high": high}
    result["mean"] = [rows[d]["weighted_test_f1"] for d in detectors]
    IntervalsDisplay(result, floor=run["floor"]).plot(ax=ax)
    ax.legend().set_visible(False)
    ax.set(title=name, xlim=(0, 1))
axes.flat[-1].set_visible(False)
plt.show()

# %%
# **In numbers**: what SuperActivator gains over the maximum, paired over samples.
for name, run in runs.items():
    rows = {e["detector"]: e for e in run["table"] if e["method"] == "LinearSeparator"}
    gain = rows["MaxToken"]["gain_of_superactivator"], *rows["MaxToken"]["gain_interval"]
    print(name, "{:.3f} [{:.3f}, {:.3f}]".format(*gain))
