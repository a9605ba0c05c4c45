"""What a run will take on this machine, from a short run on a part of its samples."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch, _safe_indexing

from skact.arguments import N_JOBS, checked, instance
from skact.embedding import TransformerEmbedder, embed_to_store
from skact.models import resolve_layers
from skact.protocol._beside import (
    count_map_passes,
    count_questions,
    judged_rows,
    time_analyses,
    time_localization,
    time_question,
)
from skact.protocol._config import Configuration, Setup
from skact.protocol._data import check_models, embedders, load_problem, read_data
from skact.protocol._detection import N_UNITS_CLS, Problem, cells, row
from skact.protocol._plan import plan
from skact.protocol._tables import make_table
from skact.rows import Array
from skact.store import ActivationStore, shard_bytes

__all__ = ["Forecast", "dry_run", "forecast_table"]

_SPLITS = ("train", "cal", "test")
# Samples of the calibration run: a share of all, within bounds; a third of them for the slope.
_SHARE, _FEWEST, _MOST = 0.25, 120, 400
# Samples with and without each concept in a split: cross-validation needs some of either kind.
_EACH = {"train": 5, "cal": 2, "test": 2}
_WARM = 16

Clock = Callable[[], float]


@dataclass(frozen=True)
class Forecast:
    """What a setup takes.

    Parameters
    ----------
    setup : str
        Its name.
    samples, tokens : int
        Distinct samples, and their tokens.
    passes, n_bytes : int
        Forward passes of embedding, and bytes of the store; exact for one process.
    embedding_hours, cells_hours : float
        Of this machine, with as many processes for the cells as were asked for.
    calibration : int
        Samples that the hours come from.
    prompting_passes : int, default=0
        Questions to the generative model, of which each is read once; exact.
    localization_passes : int, default=0
        Of samples and changed copies of them; as if every sample with a concept had a
        SuperActivator of it.
    prompting_hours, localization_hours, analyses_hours : float, default=0.0
        Of one process; NaN where the calibration run has no SuperActivator to judge maps by.
    """

    setup: str
    samples: int
    tokens: int
    passes: int
    n_bytes: int
    embedding_hours: float
    cells_hours: float
    calibration: int
    prompting_passes: int = 0
    localization_passes: int = 0
    prompting_hours: float = 0.0
    localization_hours: float = 0.0
    analyses_hours: float = 0.0


@checked(
    configuration=[instance("a Configuration(...)", Configuration)],
    n_jobs=[N_JOBS],
    clock=[callable],
)
def dry_run(
    configuration: Configuration, *, n_jobs: int = 1, clock: Clock = time.perf_counter
) -> list[Forecast]:
    """Say what a configuration takes from an empty folder on; nothing of it is kept.

    Tokens are counted by the tokenizer or processor, passes and bytes follow. For the hours, a
    quarter of the samples, 120 at least and 400 at most, go through the model and through all
    cells, and once more a third of them: seconds that do not grow with the samples are told from
    those that do. Prompting is timed on two samples, localization on one sample of each concept by
    the simplest of its methods, with the passes of the others on top.

    Parameters
    ----------
    configuration : Configuration
        As :func:`read_configuration` reads it.
    n_jobs : int, default=1
        Processes that the run will have.
    clock : callable, default=time.perf_counter
        Gives seconds.

    Returns
    -------
    forecasts : list of Forecast
        One for each setup.

    Raises
    ------
    ValueError, OSError
        As :func:`run` raises before it embeds.
    """
    return [_forecast(setup, configuration, n_jobs, clock) for setup in configuration.setup]


def _forecast(setup: Setup, configuration: Configuration, n_jobs: int, clock: Clock) -> Forecast:
    start = clock()
    data = read_data(setup, configuration.seed)
    reading = clock() - start
    check_models(setup, data, configuration.methods)
    n_samples = len(data.data)
    rows = calibration_rows(data, configuration.seed)
    few = rows[: max(len(rows) // 3, _n_needed(data))]
    part = _part(data, np.sort(rows))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        embedded = _embedded(setup, data, part, store, clock)
        start = clock()
        problem = load_problem(setup, part, store)
        # A run reads them to check them, to embed them, and to label their tokens.
        preparing = 3 * reading + (clock() - start) * n_samples / len(part.data)
        small = problem.part(np.flatnonzero(np.isin(np.sort(rows), few)))
        brief = replace(setup, detectors=["SuperActivator"])
        _seconds(brief, small, configuration, clock)  # libraries load with their first use
        sizes = {len(one.split): one for one in (small, problem)}
        seconds = [_seconds(setup, one, configuration, clock) for one in sizes.values()]
        beside = _beside(setup, data, part, sizes, configuration, Path(folder), clock)
    each = [extrapolate(list(sizes), [s[m] for s in seconds], n_samples) for m in setup.methods]
    cells_seconds = max(sum(each) / n_jobs, *each) + preparing
    for name in beside.keys() & {"prompting_hours", "localization_hours"}:
        beside[name] += reading / 3600  # once more each
    return replace(embedded, cells_hours=cells_seconds / 3600, **beside)


def _beside(
    setup: Setup,
    data: Bunch,
    part: Bunch,
    sizes: dict[int, Problem],
    configuration: Configuration,
    folder: Path,
    clock: Clock,
) -> dict[str, Any]:
    """Count and time what a setup asks for beside detection."""
    of_tokens = embedders(setup, folder / "store")[0]
    seed, n_samples = configuration.seed, len(data.data)
    found: dict[str, Any] = {}
    if setup.prompting is not None:
        asked = count_questions(setup, data, of_tokens.distinct, seed)
        found["prompting_passes"] = sum(asked.values())
        seconds = sum(n * time_question(setup, part, s, clock) for s, n in asked.items())
        found["prompting_hours"] = seconds / 3600
    if setup.localization is not None:
        prepared = of_tokens.prepare(data.data)
        lengths = np.asarray(prepared.n_tokens)
        shapes = getattr(prepared, "shapes", None)
        cal, test = judged_rows(setup.localization, data, lengths, shapes, seed)
        pairs = np.asarray(data.target, bool)[test]
        counts = count_map_passes(setup.localization, len(cal), lengths[test], pairs)
        found["localization_passes"] = sum(counts.values())
        rows = len(cal), len(test)
        seconds = time_localization(setup, part, n_samples, rows, configuration, folder, clock)
        found["localization_hours"] = seconds / 3600
    if setup.analyses is not None:
        spent = [time_analyses(setup, one, configuration, clock) for one in sizes.values()]
        found["analyses_hours"] = extrapolate(list(sizes), spent, n_samples) / 3600
    return found


def forecast_table(forecasts: list[Forecast]) -> str:
    """Say forecasts as Markdown, with their sum."""
    heads = ["setup", "samples", "tokens", *_COUNTS, "GB on disk"]
    heads += [f"hours {kind}" for kind in _HOURS] + ["from a run on"]
    rows = [
        [
            one.setup,
            *(f"{count:,}" for count in (one.samples, one.tokens)),
            *_figures([one]),
            f"{one.calibration} samples",
        ]
        for one in forecasts
    ]
    lines = [heads, ["---"] * len(heads), *rows, ["all", "", "", *_figures(forecasts), ""]]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


_COUNTS = {
    "forward passes": "passes",
    "prompting": "prompting_passes",
    "localization, about": "localization_passes",
}
_HOURS = ("embedding", "cells", "prompting", "localization", "analyses")


def _figures(forecasts: list[Forecast]) -> list[str]:
    """Add up passes, bytes and hours, and say them for a person."""
    counts = [f"{sum(getattr(one, name) for one in forecasts):,}" for name in _COUNTS.values()]
    sums = [sum(one.n_bytes for one in forecasts) / 1e9]
    sums += [sum(getattr(one, f"{kind}_hours") for one in forecasts) for kind in _HOURS]
    return counts + [f"{x:.3g}" if np.isfinite(x) else "-" for x in sums]


def extrapolate(sizes: list[int], seconds: list[float], n_samples: int) -> float:
    """Go on along the line through two sizes; through one, in proportion."""
    n, spent = sizes[-1], seconds[-1]
    slope = spent / n
    if len(sizes) > 1:
        # Noise must not make more samples take less time.
        slope = min(max((spent - seconds[0]) / (n - sizes[0]), 0.0), slope)
    return spent + slope * (n_samples - n)


def _n_needed(data: Bunch) -> int:
    return len(_needed(data, np.arange(len(data.data))))


def _needed(data: Bunch, order: Array) -> Array:
    """Find the first samples, in an order, that each concept needs with and without it.

    Units of vectors of samples need as many samples to learn from as there are units.
    """
    kept = [order[np.asarray(data.split)[order] == "train"][:N_UNITS_CLS]]
    for split in _SPLITS:
        own = order[np.asarray(data.split)[order] == split]
        for present in np.asarray(data.target, bool)[own].T:
            kept += [own[present][: _EACH[split]], own[~present][: _EACH[split]]]
    return np.unique(np.concatenate(kept))


def calibration_rows(data: Bunch, seed: int) -> Array:
    """Choose the samples of the calibration run: first those that every concept needs."""
    n_samples = len(data.data)
    order = np.random.default_rng(seed).permutation(n_samples)
    needed = _needed(data, np.arange(n_samples))
    others = order[~np.isin(order, needed)]
    n_rows = int(np.clip(_SHARE * n_samples, _FEWEST, _MOST))
    return np.r_[needed, others][: max(n_rows, 2 * len(needed))]


def _part(data: Bunch, rows: Array) -> Bunch:
    kind = "spans" if "spans" in data else "masks"
    parts = {name: _safe_indexing(data[name], rows) for name in ("data", "target", "split", kind)}
    return Bunch(**parts, target_names=data.target_names)


def _embedded(setup: Setup, data: Bunch, part: Bunch, store: Path, clock: Clock) -> Forecast:
    """Embed a part; what embedding all of it takes."""
    readers = embedders(setup, store)
    of_tokens, has_cls = readers[0], len(readers) > 1
    lengths = np.asarray(of_tokens.prepare(data.data).n_tokens)[of_tokens.distinct(data.data)]
    n_warm = min(_WARM, len(part.data) // 2)
    seconds = sum(_timed(one, part.data, n_warm, store, clock) for one in readers)
    timed = np.asarray(of_tokens.prepare(part.data[n_warm:]).n_tokens)
    # Longer samples take longer.
    per_second = float(len(readers) * len(timed) / seconds * timed.mean() / lengths.mean())
    layers = ActivationStore(store).info()["layers"]
    keeps_grids = of_tokens.reader.loaded.modality == "image"
    made = plan(
        len(lengths),
        lengths,
        len(layers) // len(readers),
        layers[0]["features"],
        layers[0]["dtype"],
        per_second,
        grids=keeps_grids,
        class_token=has_cls,
        n_header=_header(layers[0], keeps_grids),
    )
    passes, n_bytes, hours = made.passes, made.n_bytes, made.hours
    if _needs_layer(setup, of_tokens):
        about = layers[0]["features"], layers[0]["dtype"]
        n_header = _header(layers[0], keeps_grids)
        n_bytes += shard_bytes(lengths, *about, grids=keeps_grids, n_header=n_header)
        passes, hours = passes + len(lengths), hours * (1 + 1 / len(readers))
    counts = len(lengths), int(lengths.sum()), passes, n_bytes
    return Forecast(setup.name, *counts, hours, 0.0, len(part.data))


def _needs_layer(setup: Setup, embedder: TransformerEmbedder) -> bool:
    """Tell whether localization reads a layer that detection does not."""
    if setup.localization is None:
        return False
    n_blocks = len(embedder.reader.loaded.blocks)
    blocks, _ = resolve_layers(embedder.layer, n_blocks)
    own, _ = resolve_layers(setup.localization.layer, n_blocks)
    return not set(own) <= set(blocks)


def _timed(
    embedder: TransformerEmbedder, samples: Any, n_warm: int, store: Path, clock: Clock
) -> float:
    """Seconds for all but the first samples, which load the model."""
    embed_to_store(samples[:n_warm], embedder, store)
    start = clock()
    embed_to_store(samples[n_warm:], embedder, store)
    return clock() - start


def _header(layer: dict[str, Any], keeps_grids: bool) -> int:
    """Bytes of the head of each shard of a layer that is there."""
    size = {"float32": 4}.get(layer["dtype"], 2)
    of_sample = 44 + 16 * (keeps_grids and layer["tokens"] > layer["samples"])
    data = layer["tokens"] * layer["features"] * size + layer["samples"] * of_sample
    return int((layer["bytes"] - data) // layer["shards"])


def _seconds(
    setup: Setup, problem: Problem, configuration: Configuration, clock: Clock
) -> dict[str, float]:
    """Time that the cells of each concept method take, with their intervals."""
    spent = {}
    for method in setup.methods:
        start = clock()
        detectors = cells(method, setup.detectors)
        found = list(row(method, detectors, problem, configuration.methods.get(method)))
        make_table(found, problem, configuration.seed, configuration.resamples)
        spent[method] = clock() - start
    return spent
