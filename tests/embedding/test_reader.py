"""What of a block is read decides source and key, and goes through all that an embedder does."""

import json
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

import skact
from skact import (
    ConceptDetector,
    MeanPrototype,
    Source,
    SuperActivator,
    TokenScaler,
    TransformerEmbedder,
)
from skact.store import ActivationStore
from tests import tiny_models
from tests.watching import watch

SITES = ("residual", "attention", "mlp", "heads")
OTHERS = SITES[1:]
Y = np.array([0, 0, 1, 0, 1])


def embedder(kind="llama", **params):
    is_image = kind in tiny_models.IMAGE
    pair = (tiny_models.image_pair if is_image else tiny_models.text_pair)(kind)
    return TransformerEmbedder(pair, **params)


def flat(found):
    return np.concatenate([found.layer(b).flat() for b in found.layers])


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("kind", ["llama", "bert", "dinov2"])
def test_a_batch_gives_what_samples_give_alone(kind, site, texts, images):
    samples = images if kind in tiny_models.IMAGE else texts
    together = embedder(kind, site=site, layer=[0, 3]).transform(samples)
    for i, sample in enumerate(samples):
        alone = embedder(kind, site=site, layer=[0, 3]).transform([sample])
        np.testing.assert_allclose(flat(together[[i]]), flat(alone), rtol=1e-3, atol=1e-4)
    assert {together.layer(b).source.site for b in (0, 3)} == {site}


def test_all_layers_come_from_one_pass_which_ends_early(texts):
    reader = embedder("llama", site="mlp", layer=[0, 1], batch_size=99, sink=None)
    model = reader.model[0]
    reader.transform(texts[:1])  # tries the model out
    runs = []
    handles = [
        watch(module, lambda *_, name=name: runs.append(name))
        for name, module in (("model", model), ("deep", model.layers[2]))
    ]
    reader.transform(texts)
    for handle in handles:
        handle.remove()
    assert set(runs) == {"model"}
    assert len(runs) == 1


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_pooling_of_a_site_is_that_of_its_tokens(site, pooling, texts):
    tokens = embedder(site=site, layer=2).transform(texts)
    pooled = embedder(site=site, layer=2, pooling=pooling).transform(texts)
    np.testing.assert_allclose(pooled, getattr(tokens, pooling)(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("site", SITES)
def test_a_store_keeps_sites_apart(site, texts, tmp_path):
    store = ActivationStore(tmp_path / "s")
    for one in SITES:
        stored = embedder(site=one, layer=[1, 2], store=store).transform(texts)
    again = embedder(site=site, layer=[1, 2], store=store)
    assert not again.missing(texts).any()
    np.testing.assert_array_equal(
        flat(again.transform(texts)), flat(embedder(site=site, layer=[1, 2]).transform(texts))
    )
    assert stored.layer(1).source.site == "heads"


def test_keys_of_the_residual_stream_are_what_they_were():
    reader = embedder("bert").reader
    said = {
        site: json.loads(embedder("bert", site=site).reader.identities([2], "float32")[2].json)
        for site in SITES
    }
    model = json.loads(reader.identity.content)
    assert said["residual"] == {
        **model,
        "block": 2,
        "convention": "residual stream after the block",
        "max_length": 64,
        "stored_as": "float32",
    }
    assert len({one["convention"] for one in said.values()}) == 4
    assert all(
        {**one, "convention": ""} == {**said["mlp"], "convention": ""} for one in said.values()
    )


@pytest.mark.parametrize("site", OTHERS)
def test_a_detector_of_one_site_refuses_another(site, texts):
    width_as = {"attention": "mlp", "mlp": "residual", "heads": "attention"}[site]
    fitted = make_pipeline(MeanPrototype(), SuperActivator(0.5))
    fitted.fit(embedder(site=site, layer=2).transform(texts), Y)
    with pytest.raises(ValueError, match="another site"):
        fitted.predict(embedder(site=width_as, layer=2).transform(texts))
    assert fitted.predict(embedder(site=site, layer=2).transform(texts)).shape == (5,)
    assert Source(site="mlp").conflict(Source(site="mlp")) is None
    assert Source(site="mlp").conflict(Source()) is None


@pytest.mark.parametrize("site", SITES)
def test_copies_pickles_and_files_keep_the_site(site, texts, tmp_path):
    reader = embedder(site=site, layer=2)
    tokens = reader.transform(texts)
    skact.save(reader, tmp_path / "kept.safetensors")
    copies = (
        clone(reader),
        pickle.loads(pickle.dumps(reader)),
        skact.load(tmp_path / "kept.safetensors", model=reader.model),
    )
    for copy in copies:
        np.testing.assert_array_equal(copy.transform(texts).flat(), tokens.flat())
    line = make_pipeline(reader, TokenScaler(), MeanPrototype(), SuperActivator(0.5))
    line.fit(texts, Y)
    skact.save(line, tmp_path / "line.safetensors")
    back = skact.load(tmp_path / "line.safetensors", model=reader.model)
    np.testing.assert_array_equal(back.decision_function(texts), line.decision_function(texts))
    assert tokens.source.convention in str(skact.describe(tmp_path / "line.safetensors"))


def test_sink_and_chats_are_read_as_in_the_residual_stream(texts):
    for params in ({"sink": 0}, {"special_tokens": True}):
        found = [embedder("gpt2", site=site, **params).transform(texts) for site in SITES]
        assert {tuple(one.lengths) for one in found} == {tuple(found[0].lengths)}
    assert embedder("gpt2", site="mlp").reader.sink == embedder("gpt2").reader.sink


def test_features_are_counted_at_the_site():
    for site in SITES:
        assert len(embedder(site=site).get_feature_names_out()) == 32
    pair = tiny_models.text_pair("qwen3")
    assert TransformerEmbedder(pair, site="heads").reader.loaded.width == 32


def test_a_site_that_is_none_is_refused(texts):
    with pytest.raises(ValueError, match="'site' parameter of TransformerEmbedder must be a str"):
        embedder(site="head").transform(texts)
    with pytest.raises(ValueError, match=r"site must be one of .*, got 'head'"):
        Source(site="head")
    pair = tiny_models.family_pair("mamba")
    with pytest.raises(ValueError, match=r"site='mlp' cannot be read: .* site=\"residual\" reads"):
        TransformerEmbedder(pair, site="mlp").transform(texts)


def test_the_detector_in_one_estimator_takes_a_site(texts):
    samples, y = [*texts, *texts], np.tile(Y, 2)
    model = embedder("bert", site="attention")
    detector = ConceptDetector(model, layer=[1, 2], cv=2, random_state=0).fit(samples, y)
    assert detector.embedder_.site == "attention"
    assert detector.predict(texts).shape == (5,)
