"""Time of perturbation methods against the bare forward passes of their very masks, in one run.

    python benchmarks/perturbation.py [--model FOLDER_OR_NAME] [--image FILE] [--layer 0.5]
        [--rounds 3] [--out RESULT.json]

One image of 256 patches and 4 concepts, for LIME, KernelSHAP, RISE and SHAP-IQ, with patches,
squares of patches and superpixels as players. A method finds the players, draws its masks, paints
the copies, runs and reduces them, and fits. The bare side runs the same blocks on the same masked
copies, made beforehand, in the same batches: nothing is painted, reduced or fitted. Both sides take
turns batch by batch, on one core and by the clock of the process, so that a busy machine slows
both; the median of the ratios of the rounds is reported.

Then all ten methods in one call of ``compare`` against each by itself, in seconds and in copies of
the sample that go through the model, of which those that take gradients are counted apart. Weights
are random without ``--model``, which changes no time.
"""

import argparse
import time

import numpy as np
import PIL.Image
import torch
from common import short, write_json
from rise import bare, build

from skact import MeanPrototype, SuperActivator, TransformerEmbedder, make_shapes
from skact.localization import LIME, METHODS, RISE, SHAPIQ, ConceptLocalizer, KernelSHAP
from skact.localization._concept_game import ConceptGame, MeanCosine
from skact.localization._copies import perturbation
from skact.localization._inputs import ModelInputs
from skact.localization._methods import resolve_method
from skact.models import hooked

N_MASKS, N_STEPS, N_CONCEPTS, BATCH = 300, 8, 4, 20
UNITS = {
    "token": {},
    "grid": {"unit": "grid", "cell_size": 2},
    "segments": {"unit": "segments", "n_segments": 50},
}


class Timed:
    """A game that runs every batch of masks a second time, as bare forward passes."""

    def __init__(self, game, clock):
        self.game, self.clock = game, clock
        self.n_players, self.n_targets, self.players = game.n_players, game.n_targets, game.players
        self.masks, self.bare, self.aside = 0, 0.0, 0.0

    def __call__(self, masks):
        """Value of coalitions, in their order; the longest go first, as the game sorts them."""
        order = np.argsort(-masks.sum(axis=1), kind="stable")
        values = np.empty((len(masks), self.n_targets))
        self.masks += len(masks)
        sample = self.game.perturbation
        for number, start in enumerate(range(0, len(masks), BATCH)):
            rows = order[start : start + BATCH]
            if number % 2:
                values[rows] = self.game(masks[rows])
            before = self.clock()
            batch = [sample.copies.batch(masks[rows])[0]["pixel_values"]]
            made = self.clock()
            bare(sample.loaded, sample.block, batch)
            done = self.clock()
            self.bare, self.aside = self.bare + done - made, self.aside + done - before
            if not number % 2:
                values[rows] = self.game(masks[rows])
        return values


def overhead(method, embedder, image, rounds):
    """Median ratio of a method to its bare passes, with the seconds of both."""
    targets = np.random.default_rng(0).normal(size=(N_CONCEPTS, embedder.reader.loaded.width))
    explained = MeanCosine(targets, np.zeros(targets.shape[1]))
    found = []
    clock = time.process_time
    embedder.transform([image] * BATCH)  # warms up
    for _ in range(rounds):
        start = clock()
        inputs = ModelInputs(embedder, [image])
        sample = perturbation(inputs, 0, baseline="auto", unit=method.players)
        game = Timed(ConceptGame(sample, explained), clock)
        method._attribute(game, 0)
        found.append((clock() - start - game.aside, game.bare))
    seconds, bare_seconds = np.transpose(found)
    return {
        "players": game.n_players,
        "masks": game.masks,
        "seconds": round(float(np.median(seconds)), 2),
        "bare_seconds": round(float(np.median(bare_seconds)), 2),
        "ratio": round(float(np.median(seconds / bare_seconds)), 3),
    }


def ten(embedder, image):
    """Seconds and passes of one call for all ten methods, and of each by itself."""
    tokens = embedder.transform([image] * 2)
    marks = np.random.default_rng(0).random((tokens.n_tokens, N_CONCEPTS)) < 0.3
    labels, y = tokens.with_values(marks), np.ones((2, N_CONCEPTS), int)
    concepts = MeanPrototype().fit(tokens, y, labels)
    detector = SuperActivator().fit(concepts.transform(tokens), y, labels)
    methods = [resolve_method(name) for name in METHODS]
    for method in methods:
        known = {**UNITS["segments"], "n_masks": N_MASKS, "n_steps": N_STEPS}
        method.set_params(**{k: v for k, v in known.items() if k in method.get_params()})
    localizer = ConceptLocalizer(embedder, concepts, detector, method="calm", target="global")
    localizer.fit([image], y[:1], labels[:1])
    count = {}

    def look(module, args, kwargs):
        kind = "with_gradients" if torch.is_grad_enabled() else "copies"
        count[kind] = count.get(kind, 0) + len(kwargs["pixel_values"])
        return args, kwargs

    base = embedder.reader.loaded.base

    def cost(chosen):
        count.clear()
        with hooked(base, before=[(base, look)]):
            start = time.process_time()
            localizer.compare([image], chosen)
            return {"seconds": round(time.process_time() - start, 2), **count}

    cost(methods[:3])
    return {
        "one_call": cost(methods),
        "alone": {method.name: cost([method]) for method in methods},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="folder or hub name; default one with random weights")
    parser.add_argument("--width", type=int, default=192, help="of the model with random weights")
    parser.add_argument("--blocks", type=int, default=12, help="of the model with random weights")
    parser.add_argument("--image", help="default a rendered one")
    parser.add_argument("--layer", type=float, default=0.5, help="depth fraction")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = args.model or build(args.width, args.blocks)
    embedder = TransformerEmbedder(model, args.layer, batch_size=BATCH, crop="processor")
    made = PIL.Image.open(args.image) if args.image else make_shapes(1).data[0]
    image = made.convert("RGB").resize((224, 224))
    words = {"model": args.model, "image": args.image}
    given = " ".join(f"--{name} {short(value)}" for name, value in words.items() if value)
    result = {
        "command": f"python benchmarks/perturbation.py {given} --rounds {args.rounds}",
        "model": args.model and short(args.model),
        "image": args.image and short(args.image),
        "layer": args.layer,
        "concepts": N_CONCEPTS,
        "rounds": args.rounds,
        "overhead": {},
    }
    for unit, settings in UNITS.items():
        for method in (LIME, KernelSHAP, RISE, SHAPIQ):
            found = overhead(method(N_MASKS, **settings), embedder, image, args.rounds)
            result["overhead"][f"{method.name}, {unit}"] = found
            print(method.name, unit, found, flush=True)
    result["ten_methods"] = {"masks": N_MASKS, "steps": N_STEPS, **ten(embedder, image)}
    print(result["ten_methods"])
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
