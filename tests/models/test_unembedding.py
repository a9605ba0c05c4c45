"""The unembedding of a model is found, and none is made up."""

import copy

import pytest

from skact.models import output_head, tied_head
from tests import tiny_models


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_it_is_the_head_of_the_model(kind):
    model, _ = tiny_models.text_pair(kind, head=True)
    assert output_head(model) is model.lm_head
    base = model.transformer if kind == "gpt2" else model.model
    assert output_head(base) is None


def test_a_tied_one_is_the_embedding_where_the_files_hold_one():
    base = copy.deepcopy(tiny_models.text_pair("gpt2")[0])
    assert base.config.tie_word_embeddings
    base.config.architectures = ["GPT2LMHeadModel"]
    assert tied_head(base) is base.wte
    base.config.tie_word_embeddings = False
    assert tied_head(base) is None
    base.config.tie_word_embeddings = True
    for architectures in (["GPT2Model"], None):
        base.config.architectures = architectures
        assert tied_head(base) is None


def test_what_is_no_language_model_has_none():
    from torch import nn

    assert output_head(nn.Linear(2, 2)) is tied_head(nn.Linear(2, 2)) is None
