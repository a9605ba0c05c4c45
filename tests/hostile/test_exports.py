"""What is written for others says nothing about the machine that wrote it."""

import json
import re
from pathlib import Path

import pytest
from safetensors import safe_open

from skact import ActivationStore, TransformerEmbedder

ROOT = Path(__file__).parents[2]
ABSOLUTE = re.compile(r"(?:^|[\s'\"=(:])(?:/(?!/)\w|~/|[A-Za-z]:\\|file:)")


def texts_in(value):
    """All texts in what JSON holds, keys too."""
    if isinstance(value, dict):
        yield from (text for pair in value.items() for one in pair for text in texts_in(one))
    elif isinstance(value, list):
        yield from (text for one in value for text in texts_in(one))
    elif isinstance(value, str):
        yield value


def test_an_export_has_no_path(tmp_path, bert_folder):
    bert_folder = Path(bert_folder)
    store = ActivationStore(tmp_path / "store")
    embedder = TransformerEmbedder(str(bert_folder), layer=1, store=store)
    tokens = embedder.transform(["hello", "world"])
    store.export(tmp_path / "file", model=str(bert_folder))
    content = (tmp_path / "file").read_bytes()
    assert str(bert_folder.parent).encode() not in content
    with safe_open(tmp_path / "file", "numpy") as opened:
        about = opened.metadata()
    assert about["model"] == bert_folder.name
    assert not any(ABSOLUTE.search(text) for text in texts_in(about))
    # The control: the store itself, which stays here, knows the folder.
    assert [layer["model"] for layer in store.info()["layers"]] == [str(bert_folder)]
    # And nothing is lost: elsewhere the numbers are those of the same model.
    other = ActivationStore(tmp_path / "other")
    assert other.import_(tmp_path / "file") == 2
    again = embedder.set_params(store=other).transform(["hello", "world"])
    assert (again.flat() == tokens.flat()).all()
    assert other.info()["samples"] == 2


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")))
def test_results_have_no_path(path):
    texts = list(texts_in(json.loads(path.read_text(encoding="utf-8"))))
    assert [text for text in texts if ABSOLUTE.search(text)] == []


@pytest.mark.parametrize("text", ["/home/a", "--data /tmp/x", "model='/a'", "C:\\a", "~/a"])
def test_a_path_is_seen(text):
    assert ABSOLUTE.search(text)
    assert not ABSOLUTE.search("data/goemotions and/or 3 / 4 https://x.org models/a")
