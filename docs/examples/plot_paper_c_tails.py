"""
Which tail an aligned head favours (theory, appendices A to C)
==============================================================

Activations that are skewed to one side grow faster on that side: the bend of the map of a layer has
the sign of the third central moment under its attention. Activations of a normal distribution have
none, and both tails grow alike. Here the theory starts from the scores of all tokens for one
concept, in emotions through MiniLM, slots through SmolLM2 and objects through DINOv2-small.

The guide: :doc:`/user_guide/theory`.
"""

# %%
# The scores are those in the files that ``benchmarks/analyses.py`` has written, of four concepts
# each, at the first, the middle and the last block.
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm, skew

import skact
from skact import theory

folder = Path(skact.__file__).parents[1] / "benchmarks" / "results"
names = {
    "GoEmotions, MiniLM": "goemotions_minilm",
    "Snips, SmolLM2": "snips_smollm2",
    "MSRC photos, DINOv2": "msrcv2_dinov2",
}
levels = (np.arange(100) + 0.5) / 100


class Spread:
    """Scores of all tokens for one concept at one block, as bins and their shares."""

    def __init__(self, found, place, concept):
        self.edges = np.array(found["edges"][place][concept])
        counts = np.add(found["inside"][place][concept], found["outside"][place][concept])
        self.share = counts / counts.sum()

    def quantiles(self):
        """Take 100 quantiles, with variance 1."""
        scores = np.interp(levels, np.r_[0, self.share.cumsum()], self.edges)
        return (scores - scores.mean()) / scores.std()

    def skew(self):
        """Third central moment of the bins over the third power of their deviation."""
        middle = (self.edges[1:] + self.edges[:-1]) / 2
        apart = middle - self.share @ middle
        return self.share @ apart**3 / (self.share @ apart**2) ** 1.5


results = {
    name: json.loads((folder / f"analyses_{file}.json").read_text())["score_distributions"]
    for name, file in names.items()
}

# %%
# **The bend of the map.** The slope of the map of one layer for the first concept. The dashed line
# is that of a normal distribution, which bends nowhere but for the ends that 100 quantiles cut off.
# Slots of SmolLM2 are rare, so their tail above is long, and the map is steepest there.
kappa, beta, x = 0.2, 0.2, np.linspace(-2, 2, 41)
gaussian = norm.ppf(levels) / norm.ppf(levels).std()
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained", sharey=True)
for ax, (name, found) in zip(axes, results.items(), strict=True):
    concept, a = found["concept_names"][0], Spread(found, 0, 0).quantiles()
    for scores, line in ((a, "-"), (gaussian, "--")):
        ax.plot(x, 1 + beta * kappa * theory.cumulants(scores, kappa * x).variance, line)
    ax.set(title=f"{name}\n{concept}", xlabel="activation")
    bend = theory.curvature([0.0], a, kappa, beta).item()
    print(f"{name}, {concept}: skew {skew(a):+.2f}, bend at 0 {bend:+.4f}")
print(f"normal: bend at 0 {abs(theory.curvature([0.0], gaussian, kappa, beta).item()):.4f}")
axes[0].set_ylabel("slope of the map")
plt.show()

# %%
# **Skew by depth**, a colour for each concept: what eight ideal layers make of the scores of the
# first block (lines), and what the model makes of them (squares). Ideal layers enlarge what skew
# there is, on either side, until the tokens of a tail become alike and it shrinks. The models do it
# in part. Up to the middle block the skew of all twelve concepts rises, also where it was negative,
# as for emotions, which no ideal layer does. After it MiniLM loses of all four, SmolLM2 of three of
# four, and DINOv2 goes on. (Single concepts, without intervals; in-concept tokens alone have
# a page of their own.)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
for ax, (name, found) in zip(axes, results.items(), strict=True):
    ax.set(title=name, xlabel="depth")
    for c, concept in enumerate(found["concept_names"]):
        a = Spread(found, 0, c).quantiles()
        ideal = [skew(a)]
        for _ in range(8):
            a = theory.update(a, kappa, beta)
            ideal.append(skew(a))
        real = [Spread(found, place, c).skew() for place in range(3)]
        ax.plot(np.arange(9) / 8, ideal, color=f"C{c}", label=concept)
        ax.plot(np.divide(found["layers"], found["layers"][-1]), real, "s:", color=f"C{c}")
        said = ", ".join(f"{value:+.2f}" for value in real)
        print(f"{name}, {concept}: ideal {ideal[0]:+.2f}, at most ", end="")
        print(f"{max(ideal, key=abs):+.2f}, last {ideal[-1]:+.2f}; model {said}")
    ax.legend(fontsize="small")
axes[0].set_ylabel("skew of all scores")
plt.show()
