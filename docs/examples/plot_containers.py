"""
Ragged tokens and what pooling does to them
===========================================

Samples differ in length. This example draws a :class:`~skact.tokens.TokenArray` of token scores and
looks at how three reductions depend on the length of a sample when one token carries a signal.

The guide: :doc:`/user_guide/containers`.
"""

# %%
# 600 samples hold 2 to 200 tokens each. The scores are standard normal. In half of the samples one
# token, at a random place, gets 4 on top.
import matplotlib.pyplot as plt
import numpy as np

from skact import TokenArray

rng = np.random.default_rng(0)
n_samples = 600
lengths = rng.integers(2, 201, n_samples)
positive = np.arange(n_samples) % 2 == 1
values = rng.normal(size=(lengths.sum(), 1))
offsets = np.concatenate([[0], np.cumsum(lengths)])
signal = offsets[:-1] + rng.integers(0, lengths)
values[signal[positive]] += 4
X = TokenArray(values, offsets)
print(X)

# %%
# Nothing is padded: memory holds the tokens and one number per sample.
padded = n_samples * lengths.max()
print(f"{X.n_tokens} tokens kept, {padded} with padding")

# %%
# On the left some positive samples, sorted by length; a circle marks the token with the signal. On
# the right the reductions against length. The maximum finds the signal at any length, although the
# maximum of the negative samples grows slowly. The mean loses the signal as samples get longer. The
# last token rarely is the right one.
figure, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained")
shown = np.flatnonzero(positive)[:40]
shown = shown[np.argsort(lengths[shown])]
picture = np.full((len(shown), lengths.max()), np.nan)
for row, sample in enumerate(X[shown]):
    picture[row, : len(sample)] = sample[:, 0]
image = axes[0].imshow(picture, aspect="auto", cmap="coolwarm", vmin=-5, vmax=5)
places = signal - offsets[:-1]
axes[0].plot(places[shown], np.arange(len(shown)), "o", mfc="none", mec="black", ms=5)
axes[0].set(title="40 samples", xlabel="token", ylabel="sample")
figure.colorbar(image, ax=axes[0], label="score")

reductions = {"max": X.max(), "mean": X.mean(), "last": X.last()}
for ax, (name, pooled) in zip(axes[1:], reductions.items(), strict=True):
    for group, colour, label in ((~positive, "0.6", "without"), (positive, "C3", "with signal")):
        ax.plot(lengths[group], pooled[group, 0], ".", color=colour, ms=4, label=label)
    ax.set(title=f"X.{name}()", xlabel="tokens in the sample", ylabel="pooled score")
axes[1].legend(loc="lower right")
plt.show()
