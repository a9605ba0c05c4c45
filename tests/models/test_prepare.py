"""Samples made ready for a model: once, and in any parts afterwards."""

import numpy as np
import pytest
from PIL import Image

from skact.embedding import TransformerEmbedder
from skact.models._forward import ForwardPass
from skact.models._loaded import load
from skact.models._prepare import ImageInputs, TextInputs, prepare
from tests import tiny_models


def loaded(kind):
    text = kind in tiny_models.TEXT
    pair = tiny_models.text_pair(kind) if text else tiny_models.image_pair(kind)
    return load(pair, crop="processor")


@pytest.mark.parametrize("special_tokens", [False, True])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_texts_are_padded_on_the_right(kind, special_tokens, texts):
    model = loaded(kind)
    inputs = prepare(model, texts, special_tokens=special_tokens)
    assert isinstance(inputs, TextInputs)
    samples = np.array([3, 0, 4])
    batch, kept = inputs.batch(samples)
    for row, i in enumerate(samples):
        said = model.processor(texts[i], return_special_tokens_mask=True)
        n = len(said["input_ids"])
        assert inputs.lengths[i] == n
        assert batch["input_ids"][row, :n].tolist() == said["input_ids"]
        assert batch["attention_mask"][row].tolist() == [1] * n + [0] * (kept.shape[1] - n)
        real = [special_tokens or not special for special in said["special_tokens_mask"]]
        assert kept[row].tolist() == real + [False] * (kept.shape[1] - n)
        assert inputs.n_tokens[i] == sum(real)
    assert kept.shape[1] == inputs.lengths[samples].max()


@pytest.mark.parametrize("special_tokens", [False, True])
def test_images_of_one_size_share_a_batch(special_tokens, images):
    model = loaded("dinov2")
    inputs = prepare(model, images, special_tokens=special_tokens)
    assert isinstance(inputs, ImageInputs)
    assert inputs.groups[0] == inputs.groups[3]  # of one original size
    assert len(set(inputs.groups.tolist())) > 2
    batch, kept = inputs.batch(np.array([3, 0]))
    for row, i in enumerate([3, 0]):
        pixels = model.processor(images=[images[i]], return_tensors="pt")["pixel_values"]
        np.testing.assert_array_equal(batch["pixel_values"][row], pixels[0])
        assert kept[row].sum() == inputs.n_tokens[i] == len(inputs.tokens()[i])
        assert kept[row].size == inputs.lengths[i]
        assert kept[row, 0] == special_tokens
    with pytest.raises(ValueError, match="pixel_values"):
        inputs.batch(np.array([0, 4]))  # of two groups


def test_parts_are_what_the_whole_is(texts, images):
    for kind, samples in [("gpt2", texts), ("dinov2", images)]:
        job = ForwardPass(prepare(loaded(kind), samples), pooling=None, batch_size=2)
        (whole,) = job.embed(np.arange(5), [2]).values()
        rows = np.split(whole, np.cumsum(job.n_rows)[:-1])
        for part in ([4, 1], [2], [0, 1, 3]):
            (found,) = job.embed(np.array(part), [2]).values()
            expected = np.concatenate([rows[i] for i in part])
            np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)


def test_samples_are_prepared_once(texts, monkeypatch):
    model = loaded("bert")
    calls, kind = [], type(model.processor)
    call = kind.__call__

    def counted(self, *args, **options):
        calls.append(args)
        return call(self, *args, **options)

    monkeypatch.setattr(kind, "__call__", counted)
    job = ForwardPass(prepare(model, texts), pooling=None, batch_size=1)
    for part in ([0, 1], [2], [3, 4]):
        job.embed(np.array(part), [0])
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("kind", "bad", "error", "message"),
    [
        ("bert", 5, TypeError, "sample 7 must be a string, got int"),
        ("bert", "", ValueError, "sample 7 is an empty text"),
        ("bert", " ", ValueError, "sample 7, ' ', has no token left"),
        ("vit", 5, ValueError, "sample 7 must be an image"),
        ("vit", "no.png", ValueError, "sample 7: the image 'no.png' cannot be read"),
    ],
)
def test_errors_say_the_number_that_the_user_knows(kind, bad, error, message):
    good = "a" if kind == "bert" else np.zeros((9, 9, 3), np.uint8)
    for numbers in ([3, 7], np.array([3, 7])):
        with pytest.raises(error, match=message):
            prepare(loaded(kind), [good, bad], numbers=numbers)
    with pytest.raises(error, match=message.replace("7", "1")):
        prepare(loaded(kind), [good, bad])


def test_a_file_that_breaks_later_is_named_by_that_number(tmp_path, images):
    path = tmp_path / "a.png"
    Image.fromarray(images[0]).save(path)
    inputs = prepare(loaded("vit"), [images[1], path], numbers=[3, 7])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"sample 7: the image .*a.png' cannot be read"):
        inputs.batch(np.array([0, 1]))


def test_an_embedder_prepares_as_it_embeds(texts):
    embedder = TransformerEmbedder(tiny_models.text_pair("bert"), special_tokens=True, max_length=5)
    inputs = embedder.prepare(texts, with_spans=True)
    assert inputs.n_tokens.tolist() == embedder.transform(texts).lengths.tolist()
    assert inputs.lengths.max() == 5
    assert inputs.tokens() == embedder.tokens_of(texts)
    assert inputs.loaded.modality == "text"
