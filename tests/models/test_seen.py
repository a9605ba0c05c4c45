"""What is noticed about samples while the model reads them."""

import warnings

import numpy as np
import pytest
import torch

from skact.embedding import TransformerEmbedder
from skact.models import Seen
from tests import tiny_models


def test_norms_of_tokens_are_compared_with_their_median():
    seen = Seen()
    assert seen.outliers() == "" == seen.cut()
    state = torch.ones(2, 3, 4)
    state[1, 2] = 1000  # no token
    is_token = torch.tensor([[True, True, True], [True, True, False]])
    seen.look(3, state, is_token)
    assert seen.outliers() == ""
    state[0, 0] = 50
    seen.look(5, state, is_token)
    assert seen.outliers() == (
        "1 of 5 tokens at block 5 have a norm above 20 times the median, up to 100 against 2"
    )
    state[0, 0] = 60
    seen.look(7, state, is_token)
    assert "at block 7 (and in 1 other blocks)" in seen.outliers()


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1, 1e30])
def test_norms_of_any_size_are_compared(scale):
    seen = Seen()
    state = torch.ones(1, 30, 4) * scale
    state[0, 4] *= 30
    seen.look(0, state, torch.ones(1, 30, dtype=torch.bool))
    assert "1 of 30 tokens at block 0 have a norm above 20 times" in seen.outliers()
    assert f"up to {60 * scale:.4g} against {2 * scale:.4g}" in seen.outliers()


def test_zeros_are_no_measure():
    seen = Seen()
    state = torch.zeros(1, 5, 4)
    state[0, 0] = 1
    seen.look(0, state, torch.ones(1, 5, dtype=torch.bool))
    assert seen.outliers() == ""


def test_texts_that_were_cut_are_counted():
    seen = Seen()
    seen.n_samples, seen.n_cut = 3, 1
    assert seen.cut() == "1 of 3 texts was too long and was cut"
    seen.n_cut = 2
    assert seen.cut() == "2 of 3 texts were too long and were cut"


@pytest.mark.parametrize("with_store", [False, True])
def test_an_embedder_warns_once_of_texts_that_are_cut(tmp_path, with_store):
    texts = ["the cat sat on the thing", "cat", "happy angry cat sat on", "the cat"]
    store = tmp_path if with_store else None
    pair = tiny_models.text_pair("bert")
    found = TransformerEmbedder(pair, layer=0, max_length=5, store=store)
    with pytest.warns(UserWarning, match=r"2 of 4 texts were .* cut; truncated\(X\)") as caught:
        found.transform(texts)
    assert len(caught) == 1
    assert found.truncated(texts).tolist() == [True, False, True, False]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TransformerEmbedder(pair, layer=0, store=store).transform(texts)


def test_truncated_is_what_whole_texts_exceed():
    texts = ["cat " * n for n in range(1, 12)]
    for kind in ("bert", "gpt2"):
        pair = tiny_models.text_pair(kind)
        whole = TransformerEmbedder(pair).prepare(texts).lengths
        cut = TransformerEmbedder(pair, max_length=6).truncated(texts)
        np.testing.assert_array_equal(cut, whole > 6)


def test_joined_is_as_if_seen_by_one():
    one, other, both = Seen(), Seen(), Seen()
    for seen, size in ((one, 1), (other, 90)):
        state = torch.full((1, 3, 4), float(size))
        for who in (seen, both):
            who.n_samples, who.n_cut = who.n_samples + 1, who.n_cut + (size > 1)
            who.hidden.append(size / 100)
            who.look(2, state[:, : 3 if size == 1 else 1], torch.ones(1, 3 if size == 1 else 1) > 0)
    one.add(other)
    assert (one.cut(), one.outliers(), one.hidden) == (both.cut(), both.outliers(), both.hidden)
    assert "1 of 4 tokens" in one.outliers()
