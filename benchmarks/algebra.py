"""What each piece of concept algebra says of real data, beside what must not say it.

    python benchmarks/algebra.py --emotions FOLDER --requests FOLDER --photos FOLDER
        --encoder MODEL --speaker MODEL --vision MODEL [--only ITEM ...] [--out RESULT.json]

FOLDERs hold texts with spans of emotions, texts with spans of slots and an intent each
(``samples.jsonl``), and photographs with masks (``index.jsonl``), each split into train, cal and
test. Intervals are 95 % percentile bootstraps over samples of test; what is fitted stays.

- position: energy of positions in new samples; against training tokens in random order; and what
  detection gains (mean AUROC).
- drift: distances between sets of texts, and how often halves of one set are told apart.
- bias: how far emotions lean to joy and not sadness; against emotions with random labels.
- layers: one autoencoder for several blocks; against one for each block.
- bottleneck, embedding, rules: see ``algebra_requests.py``.
- isolated, segmenter, maps: see ``algebra_images.py``.
"""

import argparse
import time

import numpy as np
from algebra_data import mean_of, read_photos, read_texts, resampled, scaled, separators
from algebra_images import isolated, maps, segmenter
from algebra_requests import bottleneck, embedding, rules
from common import SEED, short, write_json
from sklearn.metrics import roc_auc_score

import skact

BLOCK = 3
SPOKEN = [5, 15, 25]
N_UNITS = 384
GLAD = ("admiration", "amusement", "approval", "caring", "gratitude", "love", "optimism")
SAD = ("anger", "annoyance", "disapproval")
ENDS = "joy", "sadness"


def position(emotions, spoken, photos, **_):
    """Tell how much of the energy of new samples the positions of others explain."""
    sets = {"MiniLM": emotions, "SmolLM2": spoken, "DINOv2": photos}
    rows = {}
    for model, parts in sets.items():
        for block in parts["train"].stack.layers:
            X, Y = (parts[split].tokens(block) for split in ("train", "test"))
            step = skact.PositionContext().fit(X)
            dealt = skact.PositionContext().fit(shuffled(X))
            rows[f"{model}, block {block}"] = {
                "positions, new samples": explained_by(step, Y),
                "tokens in random order": explained_by(dealt, Y),
                "positions, training": float(step.shares_[0]),
                "samples, training": float(step.shares_[1]),
            }
    sizes = {model: [len(part.y) for part in parts.values()] for model, parts in sets.items()}
    return {"about": {"samples": sizes}, "rows": rows}


def explained_by(step, tokens):
    """Share of the energy about the mean that goes with the positions."""
    before, after = (
        np.array([((np.asarray(t) - step.mean_) ** 2).sum() for t in one.to_list()])
        for one in (tokens, step.transform(tokens))
    )
    return resampled(lambda r: 1 - after[r].sum() / before[r].sum(), len(tokens), 1000)


def shuffled(tokens):
    """Put the tokens of each sample in random order."""
    rng = np.random.default_rng(SEED)
    rows = [rng.permutation(np.asarray(one)) for one in tokens.to_list()]
    whole = skact.TokenArray.from_list(rows)
    return tokens.compact().with_values(whole.flat(), tokens.feature_names, tokens.source)


def position_detection(emotions, photos, **_):
    """Detect with and without the step: AUROC of the largest score, mean over concepts."""
    sets = {"GoEmotions, MiniLM": emotions, "MSRC, DINOv2": photos}
    rows = {}
    for name, parts in sets.items():
        block, test = parts["train"].stack.layers[1], parts["test"]
        raw = {split: part.tokens(block) for split, part in parts.items()}
        step = skact.PositionContext().fit(raw["train"])
        found = []
        for X in (raw, {split: step.transform(one) for split, one in raw.items()}):
            scaler = skact.TokenScaler().fit(X["train"])
            method = separators(scaler.transform(X["train"]), parts["train"])
            found.append(method.transform(scaler.transform(X["test"])).max())
        plain, without = (lambda r, y=test.y, s=s: mean_auroc(y[r], s[r]) for s in found)
        rows[f"{name}, block {block}"] = {
            "as they are": resampled(plain, len(test.y), 100),
            "without positions": resampled(without, len(test.y), 100),
            "gain": resampled(lambda r, a=without, b=plain: a(r) - b(r), len(test.y), 100),
        }
    return {"about": {}, "rows": rows}


def mean_auroc(y, scores):
    both = [c for c in range(y.shape[1]) if 0 < y[:, c].sum() < len(y)]
    return np.mean([roc_auc_score(y[:, c], scores[:, c]) for c in both])


def drift(emotions, requests, encoder, **_):
    train, test = emotions["train"], emotions["test"]
    X, Y = train.tokens(BLOCK), test.tokens(BLOCK)
    neutral, felt = (np.flatnonzero(train.y.any(axis=1) == some) for some in (False, True))
    angry = np.flatnonzero(train.y[:, train.names.index("anger")])
    rng = np.random.default_rng(SEED)
    worn = ["".join(c for c in text if rng.random() > 0.05) for text in test.data[:60]]
    pairs = {
        "train, test": (X[:60], Y[:60]),
        "with an emotion, without": (X[felt[:60]], X[neutral[:60]]),
        "anger, any emotion": (X[angry[:60]], X[felt[-60:]]),
        "train, test with 5 % of letters lost": (X[:60], encoder.transform(worn)),
        "comments, requests": (X[:60], requests["train"].tokens(BLOCK)[:60]),
    }
    rows = {}
    for name, pair in pairs.items():
        rows[name] = {"samples": " + ".join(str(len(one)) for one in pair)}
        for metric, times in {"wasserstein": 199, "frechet": 99}.items():
            found = skact.activation_drift(
                *pair, metric=metric, n_permutations=times, random_state=SEED
            )
            chance = float(np.quantile(found.null, 0.95))
            rows[name] |= {metric: float(found.distance[0]), f"chance, 95 % ({metric})": chance}
            rows[name] |= {f"p ({metric})": float(found.p_value[0])}
    return {"about": {"false alarms": false_alarms(X)}, "rows": rows}


def false_alarms(X, times=40):
    """Share of random halves of one set that are told apart at p <= .05."""
    told = []
    for seed in range(times):
        order = np.random.default_rng(seed).permutation(len(X))[:80]
        halves = X[order[:40]], X[order[40:]]
        found = skact.activation_drift(*halves, n_permutations=39, random_state=seed)
        told.append(found.p_value[0] <= 0.05)
    return mean_of(told)


def bias(emotions, **_):
    part = emotions["train"]
    X = scaled(emotions, BLOCK)["train"]
    felt = np.flatnonzero(part.y.any(axis=1))
    X, y, labels = X[felt], part.y[felt], part.labels[felt]
    at = [c for c, name in enumerate(part.names) if name in (*GLAD, *SAD)]
    leans = np.array([lean_of(X[r], y[r], labels[r], part.names).lean for r in draws(len(y), 50)])
    found = lean_of(X, y, labels, part.names)
    blind = [random_lean(X, y, labels, part.names, seed) for seed in range(50)]
    by_chance = np.abs([one.lean[at] for one in blind])
    rows = {}
    for c in at:
        ends = [float(e) for e in np.percentile(leans[:, c], [2.5, 97.5])]
        rows[part.names[c]] = {
            "lean to joy": [float(found.lean[c]), *ends],
            "p, random directions": float(found.p_value[c]),
            "random labels that lean as far": float((by_chance >= abs(found.lean[c])).mean()),
        }
    alarms = float(np.mean([one.p_value[at] < 0.05 for one in blind]))
    about = {"texts": len(felt), "random labels with p < .05": alarms}
    return {"about": about, "rows": rows}


def draws(n, times):
    rng = np.random.default_rng(SEED)
    return [rng.integers(n, size=n) for _ in range(times)]


def lean_of(X, y, labels, names):
    method = skact.DifferenceInMeans().fit(X, y, token_labels=labels)
    return skact.concept_bias(
        method.concept_vectors_, *(method.concept_vectors_[names.index(end)] for end in ENDS)
    )


def random_lean(X, y, labels, names, seed):
    """Deal the emotions of the texts anew; what is marked of a text stays marked."""
    other = y[np.random.default_rng(seed).permutation(len(y))]
    marked = [np.asarray(one).any(axis=1)[:, None] for one in labels.to_list()]
    dealt = [marks & row.astype(bool) for marks, row in zip(marked, other, strict=True)]
    return lean_of(X, other, dealt, names)


def layers(spoken, **_):
    """Units of one autoencoder for all blocks, beside one as large for each of them."""
    train, test = clipped(spoken)
    training = skact.AutoencoderTraining(max_epochs=10, resample_dead=4)
    plain = skact.SparseAutoencoder(N_UNITS, "topk", k=24, training=training, random_state=SEED)
    shared = skact.MultiLayerAutoencoder(plain).fit(train)
    rows = {}
    for number, block in enumerate(train.layers):
        one = skact.LayerStack({block: train.layer(block)})
        alone = skact.MultiLayerAutoencoder(plain).fit(one)
        rows[f"block {block}"] = {
            "explained by the shared one": explained(shared, test, block),
            "by one of its own": explained(alone, test, block),
            "units with half of them here": float(
                np.nanmean(shared.layer_profiles_[:, number] > 0.5)
            ),
        }
    found = shared.transform(test)
    acts = {block: found.layer(block).to_list() for block in found.layers}
    profiles = shared.profiles(test)
    kept = ~np.isnan(shared.layer_profiles_ + profiles).any(axis=1)
    pair = shared.layer_profiles_[kept].ravel(), profiles[kept].ravel()
    about = {"blocks": train.layers, "units": plain.n_concepts, "units that act": int(kept.sum())}
    about["blocks that a unit acts at"] = spread_of(acts, kept)
    about["the same, blocks of each token mixed"] = spread_of(mixed_blocks(acts), kept)[0]
    about["correlation of profiles with training"] = float(np.corrcoef(*pair)[0, 1])
    return {"about": about, "rows": rows}


def clipped(spoken):
    """Bound the norms of outliers, which would be most of the variance, by those of training."""
    stacks = {split: {} for split in ("train", "test")}
    for block in spoken["train"].stack.layers:
        clip = skact.NormClip(ratio=20).fit(spoken["train"].tokens(block))
        for split, stack in stacks.items():
            stack[block] = clip.transform(spoken[split].tokens(block))
    return [skact.LayerStack(stack) for stack in stacks.values()]


def explained(method, stack, block):
    """Share of the variance of the tokens of a block that the reconstructions explain."""
    number, values = method.layers_.tolist().index(block), stack.layer(block).flat()
    acts = method.transform(skact.LayerStack({block: stack.layer(block)})).layer(block).flat()
    rebuilt = method.autoencoder_.inverse_transform(acts) * method.scale_[number]
    rebuilt += method.mean_[number]
    left = ((values - rebuilt) ** 2).sum()
    return float(1 - left / ((values - values.mean(axis=0)) ** 2).sum())


def mixed_blocks(acts):
    """Deal the activations of each token to the blocks anew."""
    rng = np.random.default_rng(SEED)
    dealt = []
    for own in zip(*acts.values(), strict=True):
        values = np.stack(own)
        order = rng.permuted(np.indices(values.shape[:2])[0], axis=0)
        dealt.append(np.take_along_axis(values, order[:, :, None], axis=0))
    return dict(zip(acts, zip(*dealt, strict=True), strict=True))


def spread_of(acts, kept):
    """Mean over units of the number of blocks they act at: exp of the entropy of the profile."""
    sums = np.array([[one.sum(axis=0)[kept] for one in own] for own in acts.values()])

    def mean_spread(rows):
        totals = sums[:, rows].sum(axis=1)
        shares = totals / np.maximum(totals.sum(axis=0), 1e-12)
        logs = np.log(np.where(shares > 0, shares, 1))
        return np.exp(-(shares * logs).sum(axis=0)).mean()

    return resampled(mean_spread, sums.shape[1])


ITEMS = {
    "bottleneck": bottleneck,
    "embedding": embedding,
    "rules": rules,
    "position": position,
    "position_detection": position_detection,
    "drift": drift,
    "bias": bias,
    "layers": layers,
    "isolated": isolated,
    "segmenter": segmenter,
    "maps": maps,
}
NEEDS = {
    "emotions": ("position_detection", "position", "drift", "bias"),
    "requests": ("bottleneck", "embedding", "rules", "drift"),
    "spoken": ("layers", "position"),
    "photos": ("isolated", "segmenter", "maps", "position", "position_detection"),
}


def read(args):
    """Read and embed what the items need."""
    needed = {name for name, items in NEEDS.items() if set(items) & set(args.only)}
    texts = {"train": 800, "cal": 300, "test": 400}
    found = {"encoder": skact.TransformerEmbedder(args.encoder, BLOCK)}
    if "emotions" in needed:
        found["emotions"] = read_texts(args.emotions, args.encoder, [0, BLOCK, 5], texts)
    if "requests" in needed:
        found["requests"] = read_texts(args.requests, args.encoder, [BLOCK], texts)
    if "spoken" in needed:
        few = {"train": 200, "test": 150}
        found["spoken"] = read_texts(args.emotions, args.speaker, SPOKEN, few, fewest=3)
    if "photos" in needed:
        few = {"train": 150, "test": 124}
        found["photos"] = read_photos(args.photos, args.vision, [2, 8, 11], few)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("--emotions", "--requests", "--photos"):
        parser.add_argument(name, help="folder of the data set")
    for name in ("--encoder", "--speaker", "--vision"):
        parser.add_argument(name, help="folder or hub name of the model")
    parser.add_argument("--only", nargs="+", choices=list(ITEMS), default=list(ITEMS))
    parser.add_argument("--out")
    args = parser.parse_args()
    start = time.process_time()
    given = read(args)
    models = {kind: getattr(args, kind) for kind in ("encoder", "speaker", "vision")}
    result = {"models": {kind: short(model) for kind, model in models.items() if model}}
    result |= {"seconds": {"reading": round(time.process_time() - start)}, "items": {}}
    for name in args.only:
        start = time.process_time()
        result["items"][name] = ITEMS[name](**given)
        result["seconds"][name] = round(time.process_time() - start)
        print(name, result["seconds"][name], result["items"][name]["about"])
        for row, cells in result["items"][name]["rows"].items():
            print("   ", row, cells, flush=True)
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
