"""
Gaps in an aligned head, without noise (theory, appendices A to C)
==================================================================

A head that is aligned with a concept makes all gaps between activations grow, draws attention to
the ends, and makes tokens of the tail alike. Here the theory starts from real scores: of a text
through MiniLM, a request through SmolLM2 and a photograph through DINOv2-small. Then its prediction
stands beside the growth of gaps that was measured in the blocks of these models.

The guide: :doc:`/user_guide/theory`.
"""

# %%
# The files were written by ``benchmarks/layer_maps.py`` and ``benchmarks/head_alignment.py``, which
# read the models for minutes. Scores of the first block are scaled to a variance of 1; of the
# photograph every eighth patch is taken.
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import skact
from skact import DynamicsDisplay, theory

folder = Path(skact.__file__).parents[1] / "benchmarks" / "results"
names = {
    "MiniLM": ("goemotions_minilm", "minilm"),
    "SmolLM2": ("snips_smollm2", "smollm2"),
    "DINOv2": ("msrcv2_dinov2", "dinov2-small"),
}


def scores_of(name):
    """Read the scores of a sample at the first block, with variance 1."""
    found = json.loads((folder / f"layer_maps_{name}.json").read_text())
    scores = np.array(found["scores"]["0"])[:: 8 if "dinov2" in name else 1]
    return (scores - scores.mean()) / scores.std()


# %%
# **The ideal.** Six layers of one aligned head. Every gap grows by the factor that theory gives,
# and the order of tokens stays. The attention of the largest token goes more and more to itself.
# The distance to it of the two behind it, relative to its size, shrinks in the end by the factor
# 1 / (1 + beta).
beta = 0.2
figure, axes = plt.subplots(3, 2, figsize=(9, 9), layout="constrained")
for row, (name, (file, _)) in zip(axes, names.items(), strict=True):
    found = theory.simulate(scores_of(file), 6, kappa=1.0, beta=beta)
    display = DynamicsDisplay(found).plot(axes=row)
    row[0].set_title(f"{name}: {row[0].get_title()}")
    off = np.abs(display.measured / display.predicted - 1).max()
    states = found.activations
    kept = (np.argsort(states[0]) == np.argsort(states[-1])).all()
    mass = theory.off_pole_mass(found.attention, states[:-1])
    assert (mass <= found.concentration).all()
    ratio = theory.equalization_ratio(states[-2], 1.0, beta)[np.argsort(states[0])[-3:-1]]
    others = mass[[0, -1], states[0].argmax()]
    low, high = display.predicted.min(), display.predicted.max()
    print(f"{name}: growth {low:.2f} to {high:.2f}, off by {off:.0e}, order kept: {kept}")
    print("  the largest attends to others by {:.2f} at first, {:.2f} at last".format(*others))
    print(f"  relative distances shrink by {ratio.round(3)} at the end, 1 / 1.2 = {1 / 1.2:.3f}")

# %%
# **Real blocks.** Mean growth of gaps along the vectors of concepts behind the attention of each
# block, predicted from the weights of all heads, and measured. In the models of texts it is within
# ten percent of 1 at every block. DINOv2 closes gaps at seven of eleven blocks, which no ideal head
# does, and opens them at the last; there prediction and measurement agree best.
aligned = json.loads((folder / "head_alignment.json").read_text())
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
for ax, (name, (_, model)) in zip(axes, names.items(), strict=True):
    found = aligned[f"models/{model}"]["growth"]["concepts"]["attention"]
    for kind, line in (("predicted", "o--"), ("measured", "s-")):
        growth = found[kind]
        ax.plot([int(b) for b in growth], list(growth.values()), line, ms=3, label=kind)
    ax.axhline(1, color="0.6", lw=0.8)
    ax.set(title=name, xlabel="block", ylabel="growth of gaps" if ax is axes[0] else "")
    means = [found[f"mean {kind}"] for kind in ("predicted", "measured")]
    print("{}: mean growth predicted {:.3f}, measured {:.3f}; ".format(name, *means), end="")
    print("correlation {:.2f} [{:.2f}, {:.2f}]".format(*found["correlation"]))
axes[0].legend()
plt.show()
