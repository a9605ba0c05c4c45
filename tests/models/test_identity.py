"""Which model a model is."""

from dataclasses import replace

import transformers

from skact.embedding import TransformerEmbedder
from skact.models import _identity


def test_a_commit_names_a_model_of_the_hub(bert_folder):
    loaded = TransformerEmbedder(bert_folder)._load()
    commits = [
        _identity.identify(replace(loaded, revision=r), by_weights=False)
        for r in ("a" * 40, "b" * 40)
    ]
    assert commits[0] != commits[1]
    # A loaded pair may have been changed since.
    by_weights = _identity.identify(replace(loaded, revision="a" * 40), by_weights=True)
    assert "weights" in by_weights.content


def test_slow_tokenizers_are_named_by_their_content():
    slow = transformers.ByT5Tokenizer()
    other = transformers.ByT5Tokenizer(extra_ids=3)
    assert _identity._tokenizer(slow) == _identity._tokenizer(transformers.ByT5Tokenizer())
    assert _identity._tokenizer(slow) != _identity._tokenizer(other)
