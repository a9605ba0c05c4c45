"""Where the samples of a setup come from: made here, or read by any reader of the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch, _safe_indexing

from skact import datasets
from skact.protocol._analyses import enough_samples

__all__ = [
    "DRAWN",
    "READERS",
    "SPLITS",
    "check_reading",
    "holds_texts",
    "name_of",
    "parameters_of",
    "read_source",
    "rows_of",
]

SPLITS = ("train", "cal", "test")
#: Keys of a table of data beside those of its reader.
DRAWN = ("draw_splits", "n_samples", "fewest")
_OF_TEXTS = (
    "load_spans",
    "load_table",
    "load_conll",
    "load_brat",
    "load_label_studio",
    "load_tagged",
    "load_isarcasm",
    "load_goemotions",
)
_OF_IMAGES = (
    "load_masks",
    "load_coco",
    "load_voc",
    "load_broden",
    "load_clevr",
    "load_labelme",
    "load_mask_folder",
)
#: Readers that a table of data may name.
READERS: dict[str, Callable[..., Bunch]] = {
    name: getattr(datasets, name) for name in _OF_TEXTS + _OF_IMAGES
}


def parameters_of(reader: str) -> dict[str, Parameter]:
    """Parameters of a reader that a table may hold, by name."""
    known = dict(signature(READERS[reader]).parameters)
    del known["split"]  # a run needs all of them
    return known


def check_reading(table: Mapping[str, Any], where: str) -> None:
    """Refuse a table whose reader lacks something, or whose numbers are none.

    Parameters
    ----------
    table : mapping
        With ``reader``, which is known, as are its other keys.
    where : str
        For errors.

    Raises
    ------
    ValueError
        If it is so.
    """
    reader = table["reader"]
    for name, parameter in parameters_of(reader).items():
        if parameter.default is Parameter.empty and name not in table:
            raise ValueError(f"{where}: {reader} needs {name!r}.")
    for key in ("n_samples", "fewest"):
        if key in table and (type(table[key]) is not int or table[key] < 1):
            raise ValueError(f"{where}: {key} must be an int above 0, got {table[key]!r}.")


def holds_texts(data: str | dict[str, Any]) -> bool:
    """Whether samples are texts, and not images."""
    if isinstance(data, dict):
        return data["reader"] in _OF_TEXTS
    return data == "paragraphs" or (Path(data) / "samples.jsonl").exists()


def name_of(data: str | dict[str, Any]) -> str:
    """Name data in a table: the last two parts of a folder, behind the reader if there is one."""
    if not isinstance(data, dict):
        return "/".join(Path(data).parts[-2:])
    first = data[next(iter(parameters_of(data["reader"])))]
    path = next(iter(first.values())) if isinstance(first, dict) else first
    return f"{data['reader']}: {name_of(str(path))}"


def read_source(
    data: str | dict[str, Any], seed: int, concepts: Sequence[str] | None = None
) -> Bunch:
    """Read samples with their splits.

    Parameters
    ----------
    data : str or dict
        A folder as :func:`load_spans` or :func:`load_masks` read it, or a table.
    seed : int
        Of splits and samples that are drawn.
    concepts : sequence of str, default=None
        Of a folder, which ones; none means all.

    Returns
    -------
    data : Bunch
        As the reader gives it.

    Raises
    ------
    FileNotFoundError, ValueError
        As the reader raises them, or if the folder is no data set, or no concept has ``fewest``
        samples in each split.
    """
    if isinstance(data, str):
        table = {"reader": _reader_of(Path(data)), "folder": data, "concepts": concepts or None}
        return read_source(table, seed)
    options = {k: v for k, v in data.items() if k not in ("reader", *DRAWN)}
    if isinstance(options.get("classes"), dict):  # keys of TOML are texts
        options["classes"] = {int(k) if k.isdecimal() else k: v for k, v in data["classes"].items()}
    read = READERS[data["reader"]](**options)
    if "draw_splits" in data:
        read.split = datasets.draw_splits(read.groups, data["draw_splits"], seed=seed)
    if data.get("n_samples", len(read.data)) < len(read.data):
        rows = np.random.default_rng(seed).permutation(len(read.data))[: data["n_samples"]]
        read = rows_of(read, np.sort(rows))
    if "fewest" not in data:
        return read
    kept = enough_samples(np.asarray(read.target, bool), read.split, data["fewest"])
    if not len(kept):
        raise ValueError(
            f"{name_of(data)} has no concept with fewest={data['fewest']} samples in each of "
            "train, cal and test."
        )
    again = {k: v for k, v in data.items() if k not in ("fewest", "min_samples")}
    return read_source({**again, "concepts": [read.target_names[c] for c in kept]}, seed)


def _reader_of(folder: Path) -> str:
    for name, file in (("load_spans", "samples.jsonl"), ("load_masks", "index.jsonl")):
        if (folder / file).exists():
            return name
    if folder.is_dir():
        raise FileNotFoundError(
            f"The folder {folder} has neither samples.jsonl, as load_spans reads it, nor "
            "index.jsonl, as load_masks does; a table [setup.data] can name another reader."
        )
    raise FileNotFoundError(f"There is no folder {folder.absolute()}.")


def rows_of(data: Bunch, rows: Any) -> Bunch:
    """Choose samples of all that has one entry for each."""
    each = {"data", "spans", "masks", "target", "split", "groups", "ids", "rephrase"}
    return Bunch(**{k: _safe_indexing(v, rows) if k in each else v for k, v in data.items()})
