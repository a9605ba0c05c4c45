"""What the scripts share: the seed, data as a model reads them, and files of results."""

import json
import sys
from pathlib import Path

from skact import TransformerEmbedder, load_masks, load_spans
from skact.files import in_one_step
from skact.protocol import Problem, mean_vectors

SEED = 0


def short(path):
    """Return the last two parts of a path: enough to know a folder by, the same everywhere."""
    return "/".join(Path(path).parts[-2:])


def write_json(path, data):
    """Write a file in one step, so that a stopped run leaves no half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with in_one_step(path) as new:
        new.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def load_data(folder, model):
    """Read texts with spans or images with masks, and label their tokens."""
    has_spans = (Path(folder) / "samples.jsonl").exists()
    data = load_spans(folder) if has_spans else load_masks(folder)
    return data, label_tokens(data, model)


def label_tokens(data, model):
    """Label the tokens of data; of an image those that the image processor leaves."""
    reader = TransformerEmbedder(model, crop="processor")
    if "spans" in data:
        return reader.align_spans(data.data, data.spans, data.target_names)
    return reader.align_masks(data.data, data.masks, data.target_names)


def embed(model, samples, layers):
    """Return activations of tokens and of samples, all layers from one forward pass.

    Those of samples are read at the class token; the mean of tokens, where a model has none.
    """
    settings = {"layer": layers, "crop": "processor", "progress": sys.stderr.isatty()}
    reader = TransformerEmbedder(model, **settings)
    tokens = reader.transform(samples)
    if not reader.reader.loaded.has_cls:
        return tokens, mean_vectors(tokens)
    return tokens, TransformerEmbedder(model, pooling="cls", **settings).transform(samples)


def load(folder, model, layers):
    """Read a data set and embed it."""
    data, labels = load_data(folder, model)
    tokens, cls = embed(model, data.data, layers)
    # A concept that is cut off by truncation is not in what the model sees.
    return Problem(tokens, cls, labels, data.target, data.split, list(data.target_names))
