"""
One sample at every layer (appendix O)
======================================

A concept comes and goes with depth. Here are the scores of gratitude in a text through MiniLM, of
times in a request through SmolLM2, and of buildings in a photograph through DINOv2-small, at every
block. Each map has its own scale, and SuperActivators are framed (``delta`` is 0.1).

The guide: :doc:`/user_guide/analyses`.
"""

# %%
# A scaler and a separator for each block were fitted on GoEmotions, Snips and MSRC, which takes
# minutes; ``benchmarks/layer_maps.py`` has written what they give. The samples are of none of these
# sets: two texts that stand here, and a photograph that scikit-learn ships.
import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_sample_image

import skact
from skact import LayerHeatMapDisplay, Patch, Token

folder = Path(skact.__file__).parents[1] / "benchmarks" / "results"


def read(name):
    """Read tokens, scores and SuperActivators by block."""
    found = json.loads((folder / f"layer_maps_{name}.json").read_text())
    is_image = found["sample"].endswith(".jpg")
    sample = load_sample_image(found["sample"]) if is_image else found["sample"]
    tokens = [(Patch if is_image else Token)(*token) for token in found["tokens"]]
    scores, marks = (
        {int(block): np.array(values) for block, values in found[part].items()}
        for part in ("scores", "superactivators")
    )
    return sample, tokens, scores, marks, found["concept"]


def say(tokens, scores, marks):
    """Print how many SuperActivators there are at each block, and where the score is highest."""
    counts = [int(marks[block].sum()) for block in scores]
    print("SuperActivators by block:", *counts)
    best = [tokens[scores[block].argmax()] for block in scores]
    print("highest token:", *(t.text if isinstance(t, Token) else t[:2] for t in best))


# %%
# **MiniLM.** The words of thanks have the highest scores from the first block on. Their neighbours
# join them with depth, as attention spreads what the sentence is about.
sample, tokens, scores, marks, concept = read("goemotions_minilm")
say(tokens, scores, marks)
LayerHeatMapDisplay(sample, tokens, scores, marks, concept=concept)

# %%
# **SmolLM2.** *noon* leads from the middle on. *next* and *this* score high too, although the model
# reads from left to right and has not seen what stands behind them.
sample, tokens, scores, marks, concept = read("snips_smollm2")
say(tokens, scores, marks)
LayerHeatMapDisplay(sample, tokens, scores, marks, concept=concept)

# %%
# **DINOv2.** The building stands out at most blocks, and less at the last two, where patches beside
# it score high as well. SuperActivators are there at the first four blocks only: later no patch
# reaches the highest tenth of the buildings that the threshold was set on. The model sees the
# square that its image processor cuts out.
sample, tokens, scores, marks, concept = read("msrcv2_dinov2")
say(tokens, scores, marks)
display = LayerHeatMapDisplay(sample, tokens, scores, marks, concept=concept).plot()
