"""Private copies of tokenizers and image processors, and what they hold."""

import copy
import threading

import joblib
import numpy as np
import pytest
import tokenizers
import transformers

from skact.embedding import TransformerEmbedder
from skact.models._processors import private_copy, processor_content
from tests import tiny_models


@pytest.fixture
def tokenizer():
    return copy.deepcopy(tiny_models.text_pair("bert")[1])


CHANGES = {
    "length": lambda t: setattr(t, "model_max_length", 3),
    "side": lambda t: setattr(t, "truncation_side", "left"),
    "token": lambda t: t.add_tokens(["dog"]),
    "special": lambda t: t.add_special_tokens({"sep_token": "[X]"}),
    "template": lambda t: setattr(t, "chat_template", "x"),
    "normalizer": lambda t: setattr(
        t.backend_tokenizer, "normalizer", tokenizers.normalizers.Replace("a", "b")
    ),
    "pieces": lambda t: setattr(
        t.backend_tokenizer, "pre_tokenizer", tokenizers.pre_tokenizers.CharDelimiterSplit("a")
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_after_the_first_use_is_noticed(tokenizer, change):
    before = private_copy(tokenizer)
    tokenizer(["the cat sat on"], truncation=True, max_length=3, padding="max_length")
    assert private_copy(tokenizer) is before is not tokenizer
    assert before.backend_tokenizer.truncation is before.backend_tokenizer.padding is None
    change(tokenizer)
    after = private_copy(tokenizer)
    assert after is not before
    assert private_copy(tokenizer) is after


def test_an_embedder_reads_the_tokenizer_as_it_is_now(tokenizer):
    model, _ = tiny_models.text_pair("bert")
    embedder = TransformerEmbedder((model, tokenizer), layer=0)
    text = ["the cat sat on the thing"]
    whole = embedder.transform(text)
    tokenizer.model_max_length = 4
    assert embedder.transform(text).n_tokens == 2 < whole.n_tokens


def test_image_processors_too():
    processor = copy.deepcopy(tiny_models.image_pair("vit")[1])
    before = private_copy(processor)
    assert private_copy(processor) is before
    processor.image_mean = [0.1, 0.2, 0.3]
    assert private_copy(processor).image_mean == [0.1, 0.2, 0.3]
    assert processor_content(private_copy(processor)) != processor_content(before)


def test_content_is_what_a_tokenizer_does(tokenizer):
    other = copy.deepcopy(tokenizer)
    same = processor_content(private_copy(tokenizer))
    other(["a"], truncation=True, max_length=2)
    assert processor_content(private_copy(other)) == same
    other.add_tokens(["dog"])
    assert processor_content(private_copy(other)) != same


def test_slow_tokenizers_are_named_by_their_content():
    slow, same, other = (transformers.ByT5Tokenizer(extra_ids=n) for n in (2, 2, 3))
    contents = [processor_content(private_copy(one)) for one in (slow, same, other)]
    assert contents[0] == contents[1] != contents[2]


def test_joblib_tells_embedders_apart_by_their_tokenizers():
    model, one = tiny_models.text_pair("bert")
    same = copy.deepcopy(one)
    same(["a"], truncation=True, max_length=2)
    hashes = [joblib.hash(TransformerEmbedder((model, t))) for t in (one, one, same)]
    assert len(set(hashes)) == 1
    same.truncation_side = "left"
    assert joblib.hash(TransformerEmbedder((model, same))) != hashes[0]


def test_threads_with_different_settings_do_not_disturb_each_other(tokenizer):
    model, _ = tiny_models.text_pair("bert")
    texts = ["the cat sat on the thing"] * 40
    limits = [3, 4, 5, None] * 4
    expected = {
        n: TransformerEmbedder((model, tokenizer), layer=0, max_length=n).prepare(texts).n_tokens
        for n in limits
    }
    wrong = []

    def work(limit):
        embedder = TransformerEmbedder((model, tokenizer), layer=0, max_length=limit)
        for _ in range(8):
            if not np.array_equal(embedder.prepare(texts).n_tokens, expected[limit]):
                wrong.append(limit)

    threads = [threading.Thread(target=work, args=(n,)) for n in limits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len({int(n[0]) for n in expected.values()}) == 4
