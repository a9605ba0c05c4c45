"""A monitor as an npz and a JSON file, which a dozen lines of numpy can run."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import skact
from skact.detection import BaseDetector
from skact.files import in_one_step
from skact.monitoring._lines import Line
from skact.monitoring._reader import Reader
from skact.pooling import RunningLast, RunningMax, RunningMean, RunningWindows
from skact.rows import Array
from skact.tokens import Source

__all__ = ["FORMAT", "export"]

#: Raised when what reads older files would misread newer ones.
FORMAT = "skact monitor 2"


def export(reader: Reader, path: str | os.PathLike[str], source: Source | None) -> None:
    """Write ``path.npz`` and ``path.json``; see :meth:`Monitor.export`."""
    names, lines = reader.names, reader.lines
    stem = _stem(path)
    known = [_known_source(line, source) for line in lines]
    maps = [_affine(line) for line in lines]
    pools = [_pool(line.detector) for line in lines]
    order = np.argsort(np.concatenate([line.concepts for line in lines]))
    arrays = {
        "weights": np.concatenate([weights for weights, _ in maps])[order],
        "bias": np.concatenate([bias for _, bias in maps])[order],
        "thresholds": np.concatenate([line.thresholds for line in lines])[order],
        "lower_thresholds": np.concatenate([_lower(line) for line in lines])[order],
        "sigmoids": np.concatenate([line.detector.sigmoids_[line.concepts] for line in lines])[
            order
        ],
    }
    said = [
        {"name": names[c], **pool, **_calibration(line.detector, c), "source": told}
        for line, pool, told in zip(lines, pools, known, strict=True)
        for c in line.concepts
    ]
    about = {
        "format": FORMAT,
        "version": skact.__version__,
        "n_features": lines[0].width,
        "of_one": reader.of_one,
        "concepts": [said[i] for i in order],
    }
    text = json.dumps(about, indent=1, allow_nan=False)
    with in_one_step(Path(f"{stem}.npz")) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    with in_one_step(Path(f"{stem}.json")) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _stem(path: str | os.PathLike[str]) -> str:
    """Path of both files without their endings."""
    text = os.fspath(path)
    stem = text.removesuffix(".npz").removesuffix(".json")
    is_folder = any(map(os.path.isdir, (text, f"{stem}.npz", f"{stem}.json")))
    if is_folder or os.path.basename(stem) in ("", ".", ".."):
        raise IsADirectoryError(
            f"path must name the files, as 'folder/probe' for probe.npz and probe.json; {text!r} "
            "is a folder or names none."
        )
    if not Path(stem).parent.is_dir():
        raise FileNotFoundError(f"path: there is no folder {str(Path(stem).parent)!r}.")
    return stem


def _known_source(line: Line, source: Source | None) -> dict[str, Any]:
    """Say where tokens come from, with the layer in the conventions of others too."""
    mine = replace(line.source or Source(), block=line.block, columns="features")
    told = replace(source or Source(), columns="features")
    if field := mine.conflict(told):
        raise ValueError(
            f"source is another {field} than the detector was fitted on: fitted on ({mine}), got "
            f"({told})."
        )
    fields = ("model", "revision", "block", "site", "convention", "scaling")
    known = {f: a if (a := getattr(mine, f)) is not None else getattr(told, f) for f in fields}
    if known["model"] is None or known["block"] is None:
        raise ValueError(
            "the detector was fitted on arrays that do not say which model and layer they are "
            f"from (known: {mine}), without which weights are silently wrong elsewhere; give "
            "source=Source(model, block=...)."
        )
    block = int(known["block"])
    others = block + 1 if known["site"] in (None, "residual") else None
    return {**known, "block": block, "hidden_states": others, "vllm_layer_id": others}


def _affine(line: Line) -> tuple[Array, Array]:
    """Compose the steps: weights (n_concepts, n_features) and bias (n_concepts,)."""
    weights: Any = 1.0
    bias = np.zeros(line.width)
    for step in line.steps:
        if not hasattr(step, "affine_map"):
            raise TypeError(
                f"estimator has the step {type(step).__name__}, whose scores are no affine "
                "function of a token, so it cannot be exported; skact.save keeps any estimator."
            )
        matrix, shift = step.affine_map()
        weights, bias = np.dot(matrix, weights), np.dot(matrix, bias) + shift
    if np.ndim(weights) == 0:
        weights = weights * np.eye(line.width)
    return weights[line.columns], bias[line.columns]


def _pool(detector: BaseDetector) -> dict[str, Any]:
    """Say which windows count; all but the last token are pooled where ``last`` is false."""
    pool = detector.running_pool()
    said: dict[str, Any] = {"last": isinstance(pool, RunningLast)}
    if isinstance(pool, RunningWindows):
        share = None if pool.share is None else float(pool.share)
        top = None if pool.share is not None else int(pool.top)
        return {**said, "window": int(pool.window), "top": top, "share": share}
    if isinstance(pool, RunningMean):
        return {**said, "window": 1, "top": None, "share": 1.0}
    if isinstance(pool, RunningMax | RunningLast):
        return {**said, "window": 1, "top": 1, "share": None}
    raise TypeError(
        f"estimator ends in {type(detector).__name__}, which pools in a way of its own, so it "
        "cannot be exported; skact.save keeps any estimator of this package."
    )


def _lower(line: Line) -> Array:
    """Lower one of two cuts, from which on a concept may be there; else the only one."""
    cuts = getattr(line.detector, "unsure_thresholds_", None)
    return line.thresholds if cuts is None else cuts[line.concepts, 0]


def _calibration(detector: BaseDetector, concept: int) -> dict[str, Any]:
    names = ("delta", "cut", "level", "confidence")
    settings = {name: getattr(detector, name) for name in names if hasattr(detector, name)}
    return {
        "detector": type(detector).__name__,
        "settings": {k: np.asarray(v).tolist() for k, v in settings.items()},
        "n_samples": int(detector.n_samples_),
        "n_positive": int(detector.n_positive_[concept]),
    }
