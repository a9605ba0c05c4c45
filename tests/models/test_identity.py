"""Which model a model is."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from skact.embedding import TransformerEmbedder
from skact.models import _content, identify
from tests import tiny_models


def loaded(model):
    return TransformerEmbedder(model).reader.loaded


def test_a_commit_names_a_model_of_the_hub(bert_folder):
    model = loaded(bert_folder)
    one, other = (identify(replace(model, revision=r * 40)) for r in "ab")
    assert one.content != other.content
    assert json.loads(one.content)["model"]["commit"] == "a" * 40
    assert "weights" in json.loads(identify(model).content)["model"]


def test_no_weight_of_a_model_with_a_commit_is_read(bert_folder, monkeypatch):
    model = replace(loaded(bert_folder), revision="a" * 40)
    monkeypatch.setattr(_content, "fingerprint", lambda *args, **options: pytest.fail("it was"))
    identify(model)
    with pytest.raises(pytest.fail.Exception):
        identify(loaded(bert_folder))  # the control


def test_number_format_and_tokenizer_are_told_apart_by_content_alone(bert_folder):
    named = identify(loaded(bert_folder))
    half = identify(TransformerEmbedder(bert_folder, dtype="float16").reader.loaded)
    assert half.revision == named.revision
    assert half.content != named.content
    model, tokenizer = copy.deepcopy(tiny_models.text_pair("bert"))
    pair = identify(loaded((model, tokenizer)))
    tokenizer.truncation_side = "left"
    cut = identify(loaded((model, tokenizer)))
    assert (cut.revision, cut.name) == (pair.revision, pair.name)
    assert cut.content != pair.content


def test_what_works_from_outside_is_told():
    model, tokenizer = tiny_models.text_pair("bert")
    assert identify(loaded((model, tokenizer))).outside == ()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert identify(loaded((model, tokenizer))).outside == ("autocast to bfloat16",)


@pytest.mark.parametrize("thorough", [True, False])
def test_changes_behind_the_back_of_a_weight_show_if_looked_for(thorough):
    model, tokenizer = copy.deepcopy(tiny_models.text_pair("bert"))
    before = identify(loaded((model, tokenizer)), thorough=thorough)
    model.embeddings.word_embeddings.weight.data[0, 1] += 1  # not among the values looked at first
    after = identify(loaded((model, tokenizer)), thorough=thorough)
    assert (after.content != before.content) == thorough
