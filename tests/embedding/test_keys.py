"""Names of samples and layers: equal where the numbers are, and other where they are not."""

import copy
import io
import pickle
import shutil

import pytest
import torch
import transformers
from PIL import Image
from sklearn.base import clone

from skact.embedding import TransformerEmbedder
from skact.embedding._keys import sample_keys
from skact.models import _identity
from tests import tiny_models


def keys_of(found, block=3, sample="a", **params):
    found = clone(found).set_params(**{"layer": block, **params})
    return found.set_params(store="unused")._in_store([sample]).identities[block].digest


def test_folder_pair_and_pickled_pair_share_what_they_keep(tmp_path, bert_folder, texts):
    model = transformers.AutoModel.from_pretrained(bert_folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert_folder)
    pair = TransformerEmbedder((model, tokenizer))
    named = TransformerEmbedder(bert_folder)
    moved = shutil.copytree(bert_folder, tmp_path / "moved")
    assert keys_of(pair) == keys_of(named) == keys_of(TransformerEmbedder(moved))
    assert keys_of(pickle.loads(pickle.dumps(pair))) == keys_of(pair)


def test_what_does_not_change_the_numbers_does_not_change_the_key(bert_folder, texts):
    found = TransformerEmbedder(bert_folder)
    before = keys_of(found)
    found.transform(texts)  # leaves its truncation in the tokenizer
    assert keys_of(found) == before
    for params in (
        {"batch_size": 1},
        {"device": "cpu"},
        {"dtype": "float32"},
        {"max_length": 64},  # the limit of the model
        {"progress": True},
        {"layer": [0, 3]},
    ):
        assert keys_of(found, **params) == before
    found._load().processor.padding_side = "left"
    assert keys_of(found) == before


def changed_model(change):
    def make(folder):
        model = transformers.AutoModel.from_pretrained(folder)
        change(model)
        return model, transformers.AutoTokenizer.from_pretrained(folder)

    return make


def one_weight(model):
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight[3, 5] += 1e-6


def changed_tokenizer(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["sat"])
    return transformers.AutoModel.from_pretrained(folder), tokenizer


def cut_left(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, truncation_side="left")
    return transformers.AutoModel.from_pretrained(folder), tokenizer


OTHER_MODELS = [
    changed_model(one_weight),
    changed_model(lambda model: model.half()),
    changed_model(lambda model: setattr(model.config, "layer_norm_eps", 1e-6)),
    changed_tokenizer,
    cut_left,
]


@pytest.mark.parametrize("make", OTHER_MODELS)
def test_another_model_has_another_key(bert_folder, make):
    assert keys_of(TransformerEmbedder(make(bert_folder))) != keys_of(
        TransformerEmbedder(bert_folder)
    )


OTHER_PARAMS = [
    {"max_length": 9},
    {"special_tokens": True},
    {"pooling": "mean"},
    {"dtype": "float16"},
]


@pytest.mark.parametrize("params", OTHER_PARAMS)
def test_other_parameters_have_another_key(bert_folder, params):
    found = TransformerEmbedder(bert_folder)
    assert keys_of(found, **params) != keys_of(found)
    assert keys_of(found, block=2) != keys_of(found)


def test_another_library_has_another_key(bert_folder, monkeypatch):
    found = TransformerEmbedder(bert_folder)
    before = keys_of(found)
    major = _identity._major
    assert major("transformers") == transformers.__version__.split(".")[0]
    monkeypatch.setattr(
        _identity, "_major", lambda name: "99" if name == "transformers" else major(name)
    )
    assert keys_of(found) != before


def test_another_image_processor_has_another_key(images):
    model, processor = tiny_models.image_pair("vit")
    other = copy.deepcopy(processor)
    other.image_mean = [0.4, 0.5, 0.5]
    keys = [
        keys_of(TransformerEmbedder((model, one)), sample=images[0]) for one in (processor, other)
    ]
    assert keys[0] != keys[1]


def test_keys_follow_the_weights(bert_folder):
    model = transformers.AutoModel.from_pretrained(bert_folder)
    pair = model, transformers.AutoTokenizer.from_pretrained(bert_folder)
    found = TransformerEmbedder(pair)
    before = keys_of(found)
    weight = model.embeddings.word_embeddings.weight
    weight.data[0, 1] += 1  # behind the back of the count of changes
    changed = keys_of(found)
    assert changed != before
    weight.data[0, 1] -= 1
    one_weight(model)
    assert keys_of(found) not in (before, changed)


def test_keys_of_samples(tmp_path, images):
    keys = sample_keys(["a", "b", "a", "é"], "text")
    assert keys[0] == keys[2] != keys[1]
    assert {len(key) for key in keys} == {32}
    picture = Image.fromarray(images[0])
    picture.save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    forms = [images[0], picture, images[0] / 255, tmp_path / "a.png", str(tmp_path / "b.png")]
    keys = sample_keys(forms, "image")
    assert keys[0] == keys[1] == keys[2]  # equal pixels
    assert keys[3] == keys[4] != keys[0]  # a file is named by its bytes
    opened = io.BytesIO((tmp_path / "a.png").read_bytes())
    opened.seek(3)
    with open(tmp_path / "b.png", "rb") as file:
        assert sample_keys([opened, file], "image") == keys[3:]
    turned = sample_keys([images[0].transpose(1, 0, 2), images[0][:, ::-1]], "image")
    assert len({*turned, keys[0]}) == 3
    Image.fromarray(images[1]).save(tmp_path / "a.png")
    assert sample_keys([tmp_path / "a.png"], "image") != [keys[3]]
