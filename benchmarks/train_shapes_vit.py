"""Train the small vision transformer that is shipped as ``skact/datasets/shapes_vit``.

The model is a ViT of 6 blocks on the 64 patches (8 x 8 pixels) of a 64 x 64 image, trained from
random weights on images of `make_shapes`. Two losses are added, each a binary cross entropy over
the six concepts (red, green, blue, cube, cylinder, sphere):

- image loss: a linear head on the pooled CLS token says which two concepts the image carries;
- patch loss: a linear head on every patch token of the last block says which concepts that patch
  carries; a patch is positive for the image's two concepts if at least a quarter of its pixels show
  the object, negative for all six if none does, and left out in between.

The patch loss makes the model suited to the study of *where* a concept is: with the image loss
alone a patch token need not say anything about its own place. Both heads are thrown away; only the
backbone is saved. Held-out numbers come from freshly drawn images.

Run it with one thread, about five minutes::

    python benchmarks/train_shapes_vit.py --out skact/datasets/shapes_vit
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

from skact.datasets import make_shapes

IMAGE_SIZE, PATCH_SIZE = 64, 8
N_CONCEPTS, N_COLOURS = 6, 3
PATCH_COVER = 0.25


def build_model():
    """Return a randomly initialised backbone."""
    config = ViTConfig(
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        hidden_size=64,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return ViTModel(config)


def build_processor():
    """Return the image processor: resize to 64 x 64, scale the pixels to [-1, 1]."""
    return ViTImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def draw(n_samples, processor, random_state):
    """Return pixels (n, 3, 64, 64), targets (n, 6) and patch targets (n, 64, 6), NaN if unclear."""
    shapes = make_shapes(n_samples, image_size=IMAGE_SIZE, random_state=random_state)
    pixels = processor(shapes.data, return_tensors="pt")["pixel_values"]
    masks = np.stack(shapes.masks).astype(np.float32)
    side = IMAGE_SIZE // PATCH_SIZE
    cover = masks.reshape(n_samples, side, PATCH_SIZE, side, PATCH_SIZE, N_CONCEPTS)
    cover = cover.mean(axis=(2, 4)).reshape(n_samples, side * side, N_CONCEPTS)
    patches = np.where(cover >= PATCH_COVER, 1.0, np.where(cover == 0, 0.0, np.nan))
    return (
        pixels.float(),
        torch.from_numpy(shapes.target).float(),
        torch.from_numpy(patches).float(),
    )


def losses(output, heads, target, patches):
    """Return the image loss and the patch loss."""
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    image_loss = bce(heads["image"](output.pooler_output), target)
    clear = ~patches.isnan()
    logits = heads["patch"](output.last_hidden_state[:, 1:])
    return image_loss, bce(logits[clear], patches[clear])


def train(model, heads, data, *, n_epochs, batch_size, learning_rate, seed):
    """Train with AdamW, a short warm-up and a cosine schedule."""
    pixels, target, patches = data
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.05)
    n_steps = n_epochs * (len(pixels) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=n_steps, pct_start=0.1
    )
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for epoch in range(n_epochs):
        start, sums = time.perf_counter(), np.zeros(2)
        rows = torch.randperm(len(pixels), generator=generator)
        batches = rows[: len(rows) // batch_size * batch_size].split(batch_size)
        for batch in batches:
            image_loss, patch_loss = losses(
                model(pixels[batch]), heads, target[batch], patches[batch]
            )
            optimizer.zero_grad()
            (image_loss + patch_loss).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            sums += image_loss.item(), patch_loss.item()
        image_mean, patch_mean = sums / len(batches)
        print(
            f"epoch {epoch + 1:2d}/{n_epochs}  image loss {image_mean:.4f}  "
            f"patch loss {patch_mean:.4f}  {time.perf_counter() - start:.0f} s",
            flush=True,
        )


@torch.no_grad()
def evaluate(model, heads, data, batch_size=100):
    """Print accuracy of colour and shape, and how well each concept is found in the patches."""
    pixels, target, patches = data
    model.eval()
    image_logits, patch_logits = [], []
    for batch in pixels.split(batch_size):
        output = model(batch)
        image_logits.append(heads["image"](output.pooler_output))
        patch_logits.append(heads["patch"](output.last_hidden_state[:, 1:]))
    logits, patch_scores = torch.cat(image_logits), torch.cat(patch_logits)
    for name, part in (
        ("colour", slice(0, N_COLOURS)),
        ("shape", slice(N_COLOURS, N_CONCEPTS)),
    ):
        right = logits[:, part].argmax(1) == target[:, part].argmax(1)
        print(f"held-out accuracy of {name}: {right.float().mean():.4f} ({len(right)} images)")
    clear = ~patches.isnan().any(dim=2)
    areas = [
        roc_auc_score(patches[clear][:, c].numpy(), patch_scores[clear][:, c].numpy())
        for c in range(N_CONCEPTS)
    ]
    print("held-out patch AUC per concept:", " ".join(f"{area:.4f}" for area in areas))


def write(folder, model, processor):
    """Write the three files, each to a neighbour first, so that no half-written file is left."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_diff_dict() | {"architectures": ["ViTModel"], "dtype": "float32"}
    settings = {
        key: value
        for key, value in processor.to_dict().items()
        if key.startswith(("do_", "image_", "size", "resample", "rescale"))
    }
    settings["image_processor_type"] = "ViTImageProcessor"
    for name, content in (("config.json", config), ("preprocessor_config.json", settings)):
        part = folder / f".{name}.part"
        text = json.dumps(content, indent=2, sort_keys=True, default=str)
        part.write_text(text + "\n", encoding="utf-8")
        os.replace(part, folder / name)
    weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    part = folder / ".model.safetensors.part"
    save_file(weights, part, metadata={"format": "pt"})
    part.chmod(0o644)
    os.replace(part, folder / "model.safetensors")
    size = (folder / "model.safetensors").stat().st_size
    print(f"wrote {folder} ({size / 1e6:.2f} MB of weights)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--n-train", type=int, default=9000)
    parser.add_argument("--n-test", type=int, default=900)
    parser.add_argument("--n-epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-threads", type=int, default=1)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.n_threads)
    torch.manual_seed(arguments.seed)
    start = time.perf_counter()
    processor, model = build_processor(), build_model()
    heads = torch.nn.ModuleDict(
        {
            "image": torch.nn.Linear(model.config.hidden_size, N_CONCEPTS),
            "patch": torch.nn.Linear(model.config.hidden_size, N_CONCEPTS),
        }
    )
    # Seeds of their own: held-out images are never training images.
    train_data = draw(arguments.n_train, processor, 1000 + arguments.seed)
    test_data = draw(arguments.n_test, processor, 2000 + arguments.seed)
    print(f"drew {arguments.n_train + arguments.n_test} images", flush=True)
    train(
        model,
        heads,
        train_data,
        n_epochs=arguments.n_epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
    )
    evaluate(model, heads, test_data)
    write(arguments.out, model, processor)
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
