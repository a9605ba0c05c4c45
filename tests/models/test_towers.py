"""Which part of a model reads samples, and with which processor."""

import json

import numpy as np
import pytest
import torch
import transformers

from skact.embedding import TransformerEmbedder
from skact.models import load
from tests import tiny_models
from tests.tiny_models import N_BLOCKS, WIDTH

N_REGISTERS = 4


@pytest.fixture(scope="module")
def dinov3():
    torch.manual_seed(0)
    config = transformers.DINOv3ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=N_BLOCKS,
        num_attention_heads=4,
        intermediate_size=48,
        initializer_range=0.3,
        image_size=32,
        patch_size=8,
        num_register_tokens=N_REGISTERS,
    )
    return transformers.AutoModel.from_config(config).eval()


def save(model, folder, **settings):
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def test_dinov3_is_not_taken_for_its_encoder(dinov3, images):
    processor = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})
    loaded = load((dinov3, processor))
    assert loaded.base is dinov3
    assert (loaded.prefix, loaded.suffix) == (1 + N_REGISTERS, 0)
    found = TransformerEmbedder(
        (dinov3, processor), layer=[0, 1, 2, 3], special_tokens=True, crop="processor"
    )
    X = found.transform(images)
    with torch.no_grad():
        pixels = processor(images, return_tensors="pt")
        output = dinov3(**pixels, output_hidden_states=True)
    for block in range(N_BLOCKS):
        expected = output.hidden_states[block + 1]
        np.testing.assert_allclose(X.layer(block).values, expected.flatten(0, 1), atol=1e-4)
    last = dinov3.norm(torch.from_numpy(X.layer(3).values)).detach()
    np.testing.assert_allclose(last, output.last_hidden_state.flatten(0, 1), atol=1e-4)


@pytest.mark.parametrize("kind", ["DINOv3ViTImageProcessorFast", "DINOv3ViTImageProcessor"])
def test_dinov3_from_a_folder_needs_no_torchvision(kind, dinov3, tmp_path, images):
    size = {"height": 32, "width": 48}
    settings = {"do_resize": True, "size": size, "do_rescale": True, "do_normalize": True}
    folder = save(dinov3, tmp_path, image_processor_type=kind, **settings)
    found = TransformerEmbedder(folder, crop="processor")
    assert found.transform(images).lengths.tolist() == [4 * 6] * 5
    plain = transformers.ViTImageProcessorPil(
        size=size, resample=2, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )
    expected = TransformerEmbedder((dinov3, plain), crop="processor").transform(images)
    np.testing.assert_allclose(found.transform(images).values, expected.values, atol=1e-5)
    settings |= {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    save(dinov3, tmp_path, image_processor_type=kind, **settings)
    other = load(TransformerEmbedder(folder).model).processor
    assert (*other.image_mean, *other.image_std) == (0.5, 0.5, 0.5, 0.25, 0.25, 0.25)


class Wrapped(transformers.BertForSequenceClassification):
    """A head that keeps the model where its class does not say."""

    base_model_prefix = "nowhere"

    def __init__(self, config):
        super().__init__(config)
        self.model = self.bert
        del self.bert


@pytest.mark.parametrize("kind", [transformers.BertForSequenceClassification, Wrapped])
def test_a_head_is_left_out(kind, texts):
    model, tokenizer = tiny_models.text_pair("bert")
    head = kind(model.config).eval()
    below = head.model if kind is Wrapped else head.bert
    below.load_state_dict(model.state_dict(), strict=False)
    loaded = load((head, tokenizer))
    assert loaded.base is below
    found = TransformerEmbedder((head, tokenizer)).transform(texts)
    expected = TransformerEmbedder((model, tokenizer)).transform(texts)
    np.testing.assert_array_equal(found.values, expected.values)
