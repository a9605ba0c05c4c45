"""Time of RISE with 1,000 masks for 20 concepts against the bare forward passes, in one run.

    python benchmarks/rise.py [--width 192] [--blocks 12] [--out RESULT.json]

One image of 256 patches (224 x 224 pixels, patches of 14) and a vision transformer built from a
config with random weights; weights do not change the time. The bare side runs the same blocks, in
batches of the same size, on images that were masked beforehand: no masks are made, nothing is
reduced. RISE paints the patches over, runs the copies, and reads 20 mean cosines from each of them.
The masks are cut into parts that both sides take in turn, so that a busy machine slows both.
"""

import argparse
import time

import numpy as np
import torch
import transformers
from common import write_json

from skact import TransformerEmbedder
from skact.localization._concept_game import ConceptGame, MeanCosine
from skact.localization._copies import perturbation
from skact.localization._inputs import ModelInputs
from skact.localization._perturbation import rise_map
from skact.localization._unit import Unit
from skact.models import capture

N_MASKS, N_CONCEPTS, N_PARTS, BATCH = 1000, 20, 5, 20


def build(width, n_blocks):
    """Vision transformer of 16 x 16 patches, and its image processor."""
    config = transformers.ViTConfig(
        hidden_size=width,
        num_hidden_layers=n_blocks,
        num_attention_heads=max(1, width // 64),
        intermediate_size=4 * width,
        image_size=224,
        patch_size=14,
    )
    torch.manual_seed(0)
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    size = {"height": 224, "width": 224}
    return model, transformers.ViTImageProcessorPil(size=size)


def bare(loaded, block, batches):
    """Forward passes alone, up to the block."""
    with capture(loaded.base, loaded.places, [block]) as run:
        for pixels in batches:
            run({"pixel_values": pixels}, lambda block, state: None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    embedder = TransformerEmbedder(build(args.width, args.blocks), batch_size=BATCH)
    sample = perturbation(ModelInputs(embedder, [image]), 0, baseline="auto", unit=Unit())
    targets = rng.normal(size=(N_CONCEPTS, args.width))
    game = ConceptGame(sample, MeanCosine(targets, np.zeros(args.width)))
    masks = rng.random((N_MASKS, game.n_players)) < 0.5
    seconds = {"rise": 0.0, "bare": 0.0}
    values = []
    for part in range(-1, N_PARTS):
        own = masks[:BATCH] if part < 0 else masks[part::N_PARTS]
        cuts = range(0, len(own), BATCH)
        batches = [sample.copies.batch(own[i : i + BATCH])[0]["pixel_values"] for i in cuts]
        sides = {
            "rise": lambda own=own: rise_map(own, values.append(game(own)) or values[-1]),
            "bare": lambda batches=batches: bare(sample.loaded, sample.block, batches),
        }
        for side in list(sides) if part % 2 else reversed(sides):
            start = time.perf_counter()
            sides[side]()
            # The first round warms both up.
            seconds[side] += (part >= 0) * (time.perf_counter() - start)
    attributions = rise_map(
        np.concatenate([masks[part::N_PARTS] for part in range(N_PARTS)]),
        np.concatenate(values[1:]),
    )
    assert attributions.shape == (game.n_players, N_CONCEPTS)
    ratio = seconds["rise"] / seconds["bare"]
    print(f"RISE {seconds['rise']:.1f} s, bare forward passes {seconds['bare']:.1f} s")
    print(f"ratio {ratio:.3f}")
    if args.out:
        result = {
            "command": f"python benchmarks/rise.py --width {args.width} --blocks {args.blocks}",
            "masks": N_MASKS,
            "concepts": N_CONCEPTS,
            "patches": game.n_players,
            "seconds": {side: round(total, 1) for side, total in seconds.items()},
            "ratio": round(ratio, 3),
        }
        write_json(args.out, result)


if __name__ == "__main__":
    main()
