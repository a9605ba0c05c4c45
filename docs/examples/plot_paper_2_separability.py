"""
Separable share of the in-concept tokens by block
=================================================

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
from skact import SeparabilityDisplay

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
# **Separable share** of the in-concept tokens by block, mean over concepts. Two percent is what
# scores without any meaning would have.
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained", sharey=True)
for ax, (name, result) in zip(axes, results.items(), strict=True):
    SeparabilityDisplay(result["separability"]).plot(ax=ax)
    ax.axhline(0.02, color="0.6", lw=0.8)
    ax.set(title=name, ylabel="separable share" if ax is axes[0] else "")
plt.show()

# %%
# **In numbers**, with 95 % intervals. Separation grows up to the middle in all three. It stays
# there in SmolLM2 alone: DINOv2 goes on to gain, and MiniLM loses again.
for name, result in results.items():
    print(name)
    for what, found in result["claims"]["separability"].items():
        said = "{:.3f} [{:.3f}, {:.3f}]".format(*found) if isinstance(found, list) else found
        print(f"  {what}: {said}")
