"""Which heads write about which words, against what hooks see and pursuits head by head."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import skact
from skact import HeadPursuit, LayerStack, SimultaneousOMP, TransformerEmbedder, head_writes
from tests import tiny_models
from tests.watching import watch

TEXTS = ["the cat sat", "hello there", "in the thing", "not happy at all", "x y z", "cats"]
RNG = np.random.default_rng(0)
WRITES = {(b, h): RNG.normal(size=(20, 8)) for b in (1, 4) for h in range(3)}
ATOMS = RNG.normal(size=(12, 8))


def embedder(kind="gpt2", head=True):
    return TransformerEmbedder(tiny_models.text_pair(kind, head=head), sink=None)


def watched(pair, texts):
    """Mean writes of each head of GPT-2, straight from its weights."""
    model, tokenizer = pair
    blocks, n_heads = model.transformer.h, model.config.n_head
    writes = {(b, h): [] for b in range(len(blocks)) for h in range(n_heads)}
    for text in texts:
        entered = []

        def look(module, args, kwargs, seen=entered):
            seen.append(args[0])

        handles = [watch(block.attn.c_proj, look, with_kwargs=True) for block in blocks]
        with torch.no_grad():
            model(torch.tensor([tokenizer(text)["input_ids"]]))
        for handle in handles:
            handle.remove()
        for b, block in enumerate(blocks):
            for h in range(n_heads):
                part = slice(8 * h, 8 * h + 8)
                one = entered[b][0][:, part] @ block.attn.c_proj.weight[part].detach()
                writes[b, h].append(one.mean(dim=0).numpy())
    return {key: np.array(rows) for key, rows in writes.items()}


def token(word):
    """As it stands behind a blank, if that is one token."""
    tokenizer = tiny_models.text_pair("gpt2", head=True)[1]
    spelt = (tokenizer(text)["input_ids"] for text in (f" {word}", word))
    return next(ids for ids in spelt if len(ids) == 1)[0]


@pytest.mark.parametrize("words", [None, ["the", "th", "in", "z", "x"]])
def test_raw_samples_are_the_writes_and_pursuits_head_by_head(words):
    pair = tiny_models.text_pair("gpt2", head=True)
    found = HeadPursuit(embedder=embedder(), words=words, n_nonzero_coefs=3, top_k=2).fit(TEXTS)
    ids = list(range(len(pair[1])) if words is None else map(token, words))
    rows = pair[0].lm_head.weight.detach().numpy()[ids]
    for (b, h), one in watched(pair, TEXTS).items():
        omp = SimultaneousOMP(3).fit(one, rows)
        np.testing.assert_array_equal(found.support_[b, h], omp.support_)
        np.testing.assert_allclose(
            found.explained_variance_ratio_[b, h], omp.explained_variance_ratio_, atol=1e-4
        )
        assert found.describe(b, h) == [found.words_[i] for i in omp.support_]
        assert found.describe(b, h, 2) == found.describe(b, h)[:2]
    np.testing.assert_array_equal(found.head_scores_, found.explained_variance_ratio_[..., -1])
    if words:
        assert found.words_.tolist() == words
        assert [pair[1].decode([i]).strip() for i in ids] == words


def test_all_ways_to_the_writes_are_one():
    reader = embedder()
    pursuit = HeadPursuit(embedder=reader, n_nonzero_coefs=4, top_k=3)
    of_texts = clone(pursuit).fit(TEXTS)
    stack = clone(reader).set_params(site="heads", layer=[0, 1, 2, 3]).transform(TEXTS)
    assert isinstance(stack, LayerStack)
    for given in (
        stack,
        head_writes(stack, reader),
        {key: tokens.mean() for key, tokens in head_writes(stack, reader).items()},
    ):
        found = clone(pursuit).fit(given)
        np.testing.assert_array_equal(found.support_, of_texts.support_)
        np.testing.assert_allclose(found.head_scores_, of_texts.head_scores_, atol=1e-5)
    one = clone(pursuit).fit(stack.layer(2))
    assert one.layers_.tolist() == [2]
    np.testing.assert_allclose(one.head_scores_, of_texts.head_scores_[2:3], atol=1e-5)
    assert (one.ranking_[:, 0] == 2).all()


def test_a_head_that_writes_about_words_is_found():
    words, others = np.eye(8)[:3], np.eye(8)[3:]
    writes = {(b, h): RNG.normal(size=(30, 5)) @ others for b in (3, 7) for h in range(4)}
    writes[7, 2] = RNG.normal(size=(30, 3)) @ words + 0.1 * writes[7, 2]
    writes[3, 1] = RNG.normal(size=(30, 3)) @ words + 1.0 * writes[3, 1]
    found = HeadPursuit(words, words=["red", "blue", "green"], top_k=2).fit(writes)
    assert found.get_support(indices=True).tolist() == [[7, 2], [3, 1]]
    assert np.argwhere(found.get_support()).tolist() == [[0, 1], [1, 2]]
    assert found.head_scores_[1, 2] > 0.9 > found.head_scores_[0, 1] > 0.2
    assert sorted(found.describe(7, 2)) == ["blue", "green", "red"]
    scores = [found.head_scores_[[3, 7].index(b), h] for b, h in found.ranking_]
    assert scores == sorted(scores, reverse=True)
    assert len({tuple(pair) for pair in found.ranking_.tolist()}) == 8


def test_the_first_step_is_the_logit_lens():
    one = {(0, 0): RNG.normal(size=(1, 8)), (0, 1): RNG.normal(size=(1, 8))}
    found = HeadPursuit(ATOMS, normalize=False, center=False, n_nonzero_coefs=1, top_k=1).fit(one)
    for h in range(2):
        assert found.support_[0, h, 0] == np.abs(ATOMS @ one[0, h][0]).argmax()


def test_steps_are_no_more_than_words_and_rank():
    assert HeadPursuit(ATOMS, top_k=1).fit(WRITES).n_steps_ == 8
    assert HeadPursuit(ATOMS[:5], top_k=1).fit(WRITES).n_steps_ == 5
    assert HeadPursuit(ATOMS, n_nonzero_coefs=3, top_k=1).fit(WRITES).n_steps_ == 3
    short = dict(WRITES)
    short[1, 0] = np.outer(RNG.normal(size=20), ATOMS[3])
    short[4, 1] = np.ones((20, 8))
    found = HeadPursuit(ATOMS, n_nonzero_coefs=4, top_k=1).fit(short)
    assert found.support_[0, 0].tolist() == [3, -1, -1, -1]
    np.testing.assert_allclose(found.explained_variance_ratio_[0, 0], 1)
    assert found.describe(1, 0) == ["3"]
    assert found.head_scores_[1, 1] == 0, "it writes the same for all samples"
    assert found.describe(4, 1) == []


def test_random_lists_are_of_the_same_length():
    params = {"embedder": embedder(), "n_nonzero_coefs": 3, "top_k": 1, "words": ["the", "z", "x"]}
    found = HeadPursuit(**params, n_random_lists=4, random_state=0).fit(TEXTS)
    assert found.random_scores_.shape == (4, 4, 4)
    again = HeadPursuit(**params, n_random_lists=4, random_state=0).fit(TEXTS)
    np.testing.assert_array_equal(again.random_scores_, found.random_scores_)
    assert HeadPursuit(**params).fit(TEXTS).random_scores_.shape == (0, 4, 4)
    rows = tiny_models.text_pair("gpt2", head=True)[0].lm_head.weight.detach().numpy()
    drawn = np.random.RandomState(0).choice(len(rows), 3, replace=False)
    by_hand = HeadPursuit(rows[drawn], n_nonzero_coefs=3, top_k=1, embedder=embedder()).fit(TEXTS)
    np.testing.assert_allclose(found.random_scores_[0], by_hand.head_scores_, atol=1e-6)


def test_threads_change_nothing():
    one, two = (HeadPursuit(ATOMS, top_k=1, n_jobs=n).fit(WRITES) for n in (None, 2))
    np.testing.assert_array_equal(one.support_, two.support_)
    np.testing.assert_array_equal(one.head_scores_, two.head_scores_)


def test_words_of_several_tokens():
    params = {"embedder": embedder(), "top_k": 1, "words": ["the", "cat", "x"]}
    with pytest.raises(ValueError, match=r"1 of several tokens: 'cat' \(.*'c' \+ 'at'\)"):
        HeadPursuit(**params).fit(TEXTS)
    assert HeadPursuit(**params, multi_token="skip").fit(TEXTS).words_.tolist() == ["the", "x"]
    first = HeadPursuit(**params, multi_token="first").fit(TEXTS)
    assert first.words_.tolist() == ["the", "cat", "x"]
    params["words"] = ["the", "cat", "cats"]
    with pytest.warns(UserWarning, match=r"1 words have the token of an earlier word .*\['cats'\]"):
        found = HeadPursuit(**params, multi_token="first").fit(TEXTS)
    assert found.words_.tolist() == ["the", "cat"]


def test_a_pursuit_is_kept(tmp_path):
    skact.save(HeadPursuit(ATOMS, top_k=2).fit(WRITES), tmp_path / "kept.safetensors")
    back, found = skact.load(tmp_path / "kept.safetensors"), HeadPursuit(ATOMS, top_k=2).fit(WRITES)
    np.testing.assert_array_equal(back.get_support(), found.get_support())
    np.testing.assert_array_equal(back.head_scores_, found.head_scores_)
    assert back.describe(4, 2) == found.describe(4, 2)


def without(key):
    return {k: v for k, v in WRITES.items() if k != key}


BAD = [
    ({"dictionary": "embedding"}, WRITES, "'dictionary' parameter of HeadPursuit must be"),
    ({"dictionary": ATOMS[:, :5]}, WRITES, r"rows of 8 features, .* got shape \(12, 5\)"),
    ({"dictionary": 0 * ATOMS}, WRITES, "a row that is not zero"),
    ({"words": ["a"]}, WRITES, "words must name the 12 rows of dictionary, got 1 words"),
    ({"words": "a"}, WRITES, "'words'"),
    ({"words": [1] * 12}, WRITES, "words must differ"),
    ({"words": range(12)}, WRITES, r"words\[0\] must be a text, got 0"),
    ({"dictionary": "unembedding"}, WRITES, "embedder must be a TransformerEmbedder.* got None"),
    ({"n_random_lists": 1}, WRITES, 'n_random_lists needs dictionary="unembedding"'),
    ({"top_k": 7}, WRITES, "top_k must be at most 6, the number of heads, got 7"),
    ({"n_nonzero_coefs": 0}, WRITES, "'n_nonzero_coefs'"),
    ({"multi_token": "all"}, WRITES, "'multi_token'"),
    ({"embedder": "models/smollm2"}, WRITES, "'embedder' .* a TransformerEmbedder"),
    ({}, TEXTS, "embedder must be a TransformerEmbedder.* for raw samples"),
    ({}, {}, "X must hold what one or more heads write, got none"),
    ({}, {"a": ATOMS}, r"X must have keys \(block, head\), got 'a'"),
    ({}, without((4, 1)), r"X must hold the same heads of every block, but lacks \(4, 1\)"),
    ({}, {**WRITES, (1, 1): ATOMS}, r"got \(20, 8\) and \(12, 8\) for \(1, 1\)"),
    ({}, {**WRITES, (1, 1): "a"}, r"X\[\(1, 1\)\] must be a matrix of numbers"),
    ({}, {(0, 0): ATOMS[:1]}, r"X has 1 equal sample\(s\)"),
    ({"center": False}, {(0, 0): 0 * ATOMS}, "X is all zero"),
]


@pytest.mark.parametrize(("params", "given", "message"), BAD)
def test_bad_input_is_refused(params, given, message):
    with pytest.raises(ValueError, match=message):
        HeadPursuit(**{"dictionary": ATOMS, "top_k": 1, **params}).fit(given)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"embedder": embedder("bert", head=False)},
            "BertModel has no unembedding. Give dictionary",
        ),
        ({"embedder": embedder("gpt2", head=False)}, "GPT2Model has no unembedding"),
        ({"embedder": embedder(), "words": ["the", "\u2603" * 3]}, "1 of several tokens: '\u2603"),
        ({"embedder": embedder(), "top_k": 17}, "top_k must be at most 16"),
        (
            {"embedder": embedder(), "words": ["cat"], "multi_token": "skip"},
            "words has no word of one token",
        ),
        ({"embedder": embedder(), "dictionary": ATOMS}, "rows of 32 features"),
    ],
)
def test_bad_models_and_words_are_refused_before_a_sample_is_read(params, message):
    with pytest.raises(ValueError, match=message):
        HeadPursuit(**{"top_k": 1, **params}).fit([3])


def test_an_image_model_has_no_words():
    reader = TransformerEmbedder(tiny_models.image_pair("vit"))
    with pytest.raises(ValueError, match="ViTModel has no unembedding"):
        HeadPursuit(embedder=reader).fit([np.zeros((28, 28, 3), np.uint8)])


def test_what_was_read_elsewhere_is_refused():
    reader = embedder()
    with pytest.raises(ValueError, match='site="heads"'):
        HeadPursuit(ATOMS, embedder=reader, top_k=1).fit(reader.transform(TEXTS))


@pytest.mark.parametrize("head", [(2, 0), (1, 3), (1, -1), ("a", 0)])
def test_heads_that_do_not_exist_are_refused(head):
    found = HeadPursuit(ATOMS, top_k=1).fit(WRITES)
    with pytest.raises(ValueError, match=r"(layer|head)(' parameter)? .*must (be|lie)"):
        found.describe(*head)


def test_before_the_fit_there_is_nothing():
    for method, args in (("describe", (0, 0)), ("get_support", ())):
        with pytest.raises(NotFittedError):
            getattr(HeadPursuit(), method)(*args)
