"""
F1 against delta, each concept at its best layer (appendix H)
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
from skact import SparsityCurveDisplay

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
# **F1 against** ``delta``, each concept at its best layer (appendix H). The band is the paper's
# range.
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained", sharey=True)
for ax, (name, result) in zip(axes, results.items(), strict=True):
    ax.axvspan(0.05, 0.1, color="0.9")
    SparsityCurveDisplay(result["sparsity_curve"]).plot(ax=ax)
    ax.set(title=name, ylabel="weighted F1" if ax is axes[0] else "", ylim=(0, 1))
plt.show()

# %%
# **In numbers**, with 95 % intervals. The best ``delta`` is 5 to 10 % for emotions, and far from it
# for slots and objects.
for name, result in results.items():
    print(name)
    for what, found in result["claims"]["sparsity"].items():
        said = "{:.3f} [{:.3f}, {:.3f}]".format(*found) if isinstance(found, list) else found
        print(f"  {what}: {said}")
