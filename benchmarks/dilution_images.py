"""Where detection by the tail can fail on photographs: one crop that holds the concept among k.

    OMP_NUM_THREADS=1 python benchmarks/dilution_images.py --data FOLDER --model FOLDER_OR_NAME
        [--block BLOCK] [--out RESULT.json]

FOLDER holds images with masks (``index.jsonl``), split into train, cal and test. Of each thing in
an image (not the surroundings: grass, sky, ...) the squares around its regions of at least 1,000
pixels are cut out, and of each image up to six squares without any thing; all are made tiles of
56 x 56 pixels, 4 x 4 patches. A tile holds the things that cover 2 % of it. One scaler and linear
separators of one block are fitted on the tokens of the tiles of train.

Dilution: each tile of cal and test stands at a random place among k - 1 tiles of its split that
hold no thing, k = 1, 4, 16, 64, the fewer among the more; its labels are those of the tile. In a
mosaic they are one image, of which the model sees all tiles at once. Apart, each tile is embedded
alone, and the tokens are laid out as in the mosaic: what differs is what the tiles make of one
another. Cuts are set on cal, once at k = 1 and once at the k they are used at. Windows are squares
of 2 x 2 patches. Samples share the tiles that dilute them, and tiles the images that they are
cut from, so that for large k the intervals are too narrow, as ``dilution.py`` says, whose pools and
cuts these are.
"""

import argparse
import copy
import time

import dilution
import numpy as np
from common import short, write_json
from dilution import LENGTHS, RULES, SEED, at_one_length, in_order, rows_of
from PIL import Image
from scipy.ndimage import find_objects, label
from sklearn.utils import Bunch
from transformers import AutoImageProcessor, AutoModel

from skact import (
    LinearSeparator,
    TokenArray,
    TokenScaler,
    TopWindows,
    TransformerEmbedder,
    all_positive_f1_score,
    load_masks,
)

SURROUNDINGS = ("building", "grass", "tree", "sky", "mountain", "water", "road")
SIDE = 56  # pixels of a tile
SMALLEST = 1000  # pixels of a region that is cut out
LEAST = 0.02  # of a tile that a thing covers
N_PLAIN, N_TRIES = 6, 40  # squares without a thing of an image at most, and how many are drawn
SQUARES = {"window": 2, "top": 2}
N_AT_A_TIME = 64  # images that are embedded


def use_squares():
    """Let the top windows be squares of patches."""
    dilution.POOLS["top windows"] = SQUARES
    RULES["Top windows"] = ("top windows", TopWindows(None, **SQUARES, cut="f1"))


def around(region, height, width):
    """Rows and columns of the square around a region, moved into the image: begin and side."""
    high, wide = ((part.start, part.stop) for part in region)
    side = min(max(high[1] - high[0], wide[1] - wide[0]), height, width)
    corner = [
        int(np.clip((a + b - side) // 2, 0, n - side))
        for (a, b), n in ((high, height), (wide, width))
    ]
    return (*corner, side)


def squares(things, labelled, rng):
    """Squares (row, column, side) of an image around its things, and without any."""
    height, width, _ = things.shape
    found = []
    for mask in np.moveaxis(things, 2, 0):
        regions, _ = label(mask)
        sizes = np.bincount(regions.ravel())[1:]
        found += [
            around(region, height, width)
            for region, size in zip(find_objects(regions), sizes, strict=True)
            if size >= SMALLEST
        ]
    n_wanted = len(found) + N_PLAIN
    for _ in range(N_TRIES):
        side = int(rng.integers(SIDE, min(height, width) + 1))
        row, column = (int(rng.integers(n - side + 1)) for n in (height, width))
        inside = np.s_[row : row + side, column : column + side]
        if not things[inside].any() and labelled[inside].mean() > 0.95 and len(found) < n_wanted:
            found.append((row, column, side))
    return found


def tiles(folder):
    """Cut tiles out of all images: pixels, masks, target and split of each."""
    data, rng = load_masks(folder), np.random.default_rng(SEED)
    is_thing = [name not in SURROUNDINGS for name in data.target_names]
    names = [name for name in data.target_names if name not in SURROUNDINGS]
    made = Bunch(data=[], masks=[], split=[], target_names=names)
    for path, mask, split in zip(data.data, data.masks, data.split, strict=True):
        things, labelled = mask[:, :, is_thing], mask.any(axis=2)
        image = Image.open(path).convert("RGB")
        for row, column, side in squares(things, labelled, rng):
            box = column, row, column + side, row + side
            made.data.append(np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box)))
            pick = np.arange(SIDE) * side // SIDE
            small = things[row + pick][:, column + pick]
            made.masks.append(small & (small.mean(axis=(0, 1)) >= LEAST))
            made.split.append(split)
    made.data, made.masks, made.split = map(np.stack, (made.data, made.masks, made.split))
    made.target = made.masks.any(axis=(1, 2)).astype(int)
    return made


def laid_out(parts, rows):
    """Lay parts (n, height, width, depth) out in squares of those of each row (n_rows, k)."""
    n, k = rows.shape
    side, (height, width, depth) = int(np.sqrt(k)), parts.shape[1:]
    grid = parts[rows].reshape(n, side, side, height, width, depth).swapaxes(2, 3)
    return grid.reshape(n, side * height, side * width, depth)


class Scores:
    """Scores of all things for the patches of images of any size, by what train teaches."""

    def __init__(self, made, model, block):
        self.model = AutoModel.from_pretrained(model).eval()
        self.processor = AutoImageProcessor.from_pretrained(model)
        self.block, self.names = block, made.target_names
        train = made.split == "train"
        images = made.data[train]
        tokens, labels = self.tokens(images), self.labels(images, made.masks[train])
        self.scaler = TokenScaler().fit(tokens)
        self.separators = LinearSeparator().fit(
            self.scaler.transform(tokens), made.target[train], token_labels=labels
        )

    def embedder(self, images):
        """Read images as they are, without resizing or cropping."""
        side, processor = images.shape[1], copy.deepcopy(self.processor)
        processor.size = {"shortest_edge": side}
        processor.crop_size = {"height": side, "width": side}
        return TransformerEmbedder((self.model, processor), self.block)

    def tokens(self, images):
        """Embed images."""
        return self.embedder(images).transform(list(images))

    def labels(self, images, masks):
        """Label the patches of images by masks."""
        return self.embedder(images).align_masks(list(images), list(masks), self.names)

    def __call__(self, images):
        """Score the patches of images, some images at a time."""
        parts = np.split(images, range(N_AT_A_TIME, len(images), N_AT_A_TIME))
        return TokenArray.concatenate(
            [self.separators.transform(self.scaler.transform(self.tokens(p))) for p in parts]
        )


def as_grids(rows, patches):
    """Lay patches (n_tiles, height, width, depth) of tiles out as those of a mosaic."""
    grids = laid_out(patches, rows)
    n, height, width, depth = grids.shape
    offsets = np.arange(n + 1) * height * width
    return TokenArray(grids.reshape(-1, depth), offsets, shapes=[[height, width]] * n)


def diluted(made, scores):
    """Pools and rules for mosaics of each size, and for their tiles apart."""
    rng = np.random.default_rng(SEED)
    rows = {split: rows_of(made, split, rng) for split in ("cal", "test")}
    places = {split: rng.random(len(own)) for split, (own, _) in rows.items()}
    y = {split: made.target[own].astype(bool) for split, (own, _) in rows.items()}
    alone = scores(made.data)
    high, wide = alone.shapes[0]
    patches = alone.flat().reshape(len(made.data), high, wide, -1)
    marked = scores.labels(made.data, made.masks).flat().reshape(patches.shape)
    result, first = {"mosaic": {}, "apart": {}}, dict.fromkeys(("mosaic", "apart"))
    for k in LENGTHS:
        order = {
            split: in_order(own, others[:, : k - 1], places[split])
            for split, (own, others) in rows.items()
        }
        marks = as_grids(order["cal"], marked)
        ways = {
            "mosaic": {s: scores(laid_out(made.data, one)) for s, one in order.items()},
            "apart": {s: as_grids(one, patches) for s, one in order.items()},
        }
        for way, samples in ways.items():
            found, first[way] = at_one_length(samples, y, marks, first[way])
            result[way][k] = found
            print(way, k, {pool: v["auroc"] for pool, v in found["pools"].items()}, flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with index.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--out", help="write the result as JSON to this file")
    args = parser.parse_args()
    start = time.process_time()
    use_squares()
    made = tiles(args.data)
    names = {"data": short(args.data), "model": short(args.model), "block": args.block}
    command = "OMP_NUM_THREADS=1 python benchmarks/dilution_images.py --data {data} --model {model}"
    test = made.target[made.split == "test"]
    result = {
        "command": (command + " --block {block}").format(**names),
        **names,
        "rules": {name: str(rule) for name, (_, rule) in RULES.items()},
        "things": dict(zip(made.target_names, test.sum(axis=0).tolist(), strict=True)),
        "tiles": {s: int((made.split == s).sum()) for s in ("train", "cal", "test")},
        "without_a_thing": {
            s: int((~made.target[made.split == s].any(axis=1)).sum()) for s in ("cal", "test")
        },
        "floor": round(all_positive_f1_score(test), 4),
        **diluted(made, Scores(made, args.model, args.block)),
    }
    result["processor_seconds"] = round(time.process_time() - start)
    print(f"{result['processor_seconds']} s")
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
