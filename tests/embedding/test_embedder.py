"""The estimator: what scikit-learn asks of it, and what it says to bad input."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from skact.embedding import TransformerEmbedder
from skact.store import ActivationStore
from skact.tokens import LayerStack, TokenArray
from tests import tiny_models
from tests.fresh import printed_by


def embedder(kind="bert", **params):
    text = kind in tiny_models.TEXT
    pair = tiny_models.text_pair(kind) if text else tiny_models.image_pair(kind)
    return TransformerEmbedder(pair, **params)


CHECKS = [
    "check_estimator_cloneable",
    "check_parameters_default_constructible",
    "check_no_attributes_set_in_init",
    "check_mixin_order",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_get_params_invariance",
    "check_set_params",
    "check_do_not_raise_errors_in_init_or_set_params",
]


@pytest.mark.parametrize("check", CHECKS)
def test_scikit_learns_checks_that_need_no_data(check):
    getattr(estimator_checks, check)("TransformerEmbedder", TransformerEmbedder())


def test_fit_checks_and_learns_nothing(texts):
    found = TransformerEmbedder("no/such-model")  # not loaded by fit
    assert found.fit(texts) is found
    assert vars(found).keys() == found.get_params().keys()
    assert found.__sklearn_is_fitted__()
    assert not found.__sklearn_tags__().requires_fit
    assert found.__sklearn_tags__().input_tags.string
    assert found.set_output(transform="pandas") is found
    with pytest.raises(ValueError, match="batch_size"):
        TransformerEmbedder(batch_size=0).fit(texts)


def test_output_for_each_form_of_layer(texts):
    one = embedder().fit_transform(texts)
    assert isinstance(one, TokenArray)
    assert (one.source.block, one.dtype) == (3, np.float32)
    assert one.source.convention == "residual stream after the block"
    stack = embedder(layer=[0.5, -1]).transform(texts)
    assert isinstance(stack, LayerStack)
    assert stack.layers == [1, 3]
    assert [stack.layer(b).source.block for b in (1, 3)] == [1, 3]
    np.testing.assert_array_equal(stack.layer(3).values, one.values)
    np.testing.assert_array_equal(
        stack.layer(1).values, embedder(layer=0.5).transform(texts).values
    )


def test_a_matrix_follows_set_output_and_tokens_do_not(texts):
    pooled = embedder(pooling="mean").set_output(transform="pandas").transform(texts)
    np.testing.assert_array_equal(pooled, embedder(pooling="mean").transform(texts))
    assert pooled.columns.tolist() == embedder().get_feature_names_out().tolist()
    assert isinstance(embedder().set_output(transform="pandas").transform(texts), TokenArray)


def test_feature_names():
    names = embedder().get_feature_names_out()
    assert names.dtype == object
    assert names.tolist() == [f"transformerembedder{i}" for i in range(tiny_models.WIDTH)]


@pytest.mark.parametrize(
    "container", [tuple, np.array, lambda t: np.array(t, dtype=object), pd.Series]
)
def test_containers_of_texts(container, texts):
    np.testing.assert_array_equal(
        embedder().transform(container(texts)).values, embedder().transform(texts).values
    )


def test_a_series_is_taken_in_its_own_order(texts):
    series = pd.Series(texts, index=[4, 3, 2, 1, 0])
    np.testing.assert_array_equal(
        embedder().transform(series).values, embedder().transform(texts).values
    )


BAD_INPUTS = [
    ({}, "one text", ValueError, "single str: 'one text'"),
    ({}, b"one text", ValueError, "single bytes"),
    ({}, Path("image.png"), ValueError, "single .*Path: 'image.png'"),
    ({}, [], ValueError, "no samples"),
    ({}, None, ValueError, "got NoneType"),
    ({}, {"a": 1}, ValueError, "got dict"),
    ({}, np.zeros((3, 4)), ValueError, r"got ndarray of shape \(3, 4\)"),
    ({}, np.zeros((3, 4, 3)), ValueError, r"4-D array of images; got ndarray of shape \(3, 4, 3\)"),
    ({}, np.zeros(3), ValueError, r"got ndarray of shape \(3,\)"),
    ({}, pd.DataFrame({"a": ["b"], "c": ["d"]}), ValueError, "a table of 2 columns"),
    ({}, ["a", 5], TypeError, "sample 1 must be a string, got int"),
    ({}, ["a", None], TypeError, "sample 1 must be a string, got NoneType"),
    ({}, pd.Series(["a", np.nan], dtype=object), TypeError, "sample 1 must be a string, got float"),
    ({}, ["a", "b", ""], ValueError, "sample 2 is an empty text"),
    ({}, ["a", " \n\t"], ValueError, "sample 1, .* has no token left"),
    ({"max_length": 2}, ["a"], ValueError, "max_length=2 leaves no token"),
    ({"max_length": 65}, ["a"], ValueError, "max_length=65.* 64 positions"),
    ({"max_length": 0}, ["a"], ValueError, "max_length"),
    ({"layer": 4}, ["a"], ValueError, "layer 4 .* 4 blocks"),
    ({"layer": 0.0}, ["a"], ValueError, r"\(0, 1\]"),
    ({"layer": True}, ["a"], ValueError, "bool"),
    ({"batch_size": 0}, ["a"], ValueError, "batch_size"),
    ({"pooling": "max"}, ["a"], ValueError, "pooling"),
    ({"modality": "audio"}, ["a"], ValueError, "modality"),
    ({"modality": "image"}, ["a"], ValueError, "modality='image'"),
    ({"dtype": "float64"}, ["a"], ValueError, "dtype"),
    ({"dtype": "float16"}, ["a"], ValueError, "dtype='float16', but .* torch.float32"),
    ({"device": "meta"}, ["a"], ValueError, "device='meta', but .* cpu"),
    ({"special_tokens": "yes"}, ["a"], ValueError, "special_tokens"),
    ({"store": 5}, ["a"], ValueError, "store"),
    ({"store": __file__}, ["a"], ValueError, "path must be a folder, .* is a file"),
    ({"trust_remote_code": True}, ["a"], ValueError, "full commit hash.*None"),
    ({"trust_remote_code": True, "revision": "main"}, ["a"], ValueError, "commit hash.*'main'"),
    ({"model": 5}, ["a"], ValueError, "model"),
    ({"model": (1,)}, ["a"], ValueError, "a pair .* a tuple of 1"),
    ({"model": (1, 2)}, ["a"], TypeError, "first of the pair .* got int"),
    ({"model": (torch.nn.ReLU(), 2)}, ["a"], TypeError, "first of the pair .* got ReLU"),
    ({"model": "./no/such/folder"}, ["a"], ValueError, "'./no/such/folder', which does not exist"),
    ({"model": Path("folder")}, ["a"], ValueError, "'folder', which does not exist"),
]


@pytest.mark.parametrize(("params", "X", "error", "message"), BAD_INPUTS)
def test_bad_input_is_named_before_anything_is_embedded(params, X, error, message):
    found = embedder()
    found.transform(["a"])
    handle = found.model[0].register_forward_pre_hook(lambda *_: pytest.fail("a model ran"))
    try:
        with pytest.raises(error, match=message):
            found.set_params(**params).transform(X)
    finally:
        handle.remove()


def test_a_pair_that_does_not_fit():
    model, _ = tiny_models.text_pair("bert")
    _, processor = tiny_models.image_pair("vit")
    with pytest.raises(TypeError, match=r"second of the pair .* got str"):
        TransformerEmbedder((model, "tokenizer")).transform(["a"])
    with pytest.raises(
        ValueError, match=r"does not fit together: the model reads text, the processor makes image"
    ):
        TransformerEmbedder((model, processor)).transform(["a"])


def test_texts_for_an_image_model_are_taken_for_paths():
    with pytest.raises(ValueError, match="sample 0: the image 'some text' cannot be read"):
        embedder("vit").transform(["some text"])


def test_clones_share_a_loaded_pair(texts):
    found = embedder(layer=[0, 1], batch_size=2)
    twin = clone(found)
    assert twin is not found
    assert twin.model[0] is found.model[0]
    assert twin.model[1] is found.model[1]
    assert twin.layer is not found.layer
    assert twin.get_params() == found.get_params()
    inside = clone(make_pipeline(found))
    assert inside.steps[0][1].model[0] is found.model[0]


def test_repr_of_changed_parameters():
    assert repr(TransformerEmbedder("a/b", layer=2)) == "TransformerEmbedder(layer=2, model='a/b')"


@pytest.fixture
def elsewhere(monkeypatch):
    """Another process, as far as loaded models are concerned."""
    from skact.models import _towers

    return lambda: monkeypatch.setattr(_towers, "_LIVE", {})


def test_a_pickle_holds_no_weights_and_goes_back_to_the_folder(bert_folder, texts, elsewhere):
    model = transformers.AutoModel.from_pretrained(bert_folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert_folder)
    found = TransformerEmbedder((model, tokenizer), layer=1)
    data = pickle.dumps(found)
    row = model.embeddings.word_embeddings.weight[0].detach().numpy().tobytes()
    assert row not in data
    elsewhere()
    back = pickle.loads(data)
    assert back.get_params()["layer"] == 1
    assert str(bert_folder) in repr(back)
    np.testing.assert_array_equal(back.transform(texts).values, found.transform(texts).values)
    assert back.transform(texts).source == found.transform(texts).source
    twice = pickle.loads(pickle.dumps(back))
    np.testing.assert_array_equal(twice.transform(texts).values, found.transform(texts).values)
    assert isinstance(found.model, tuple)  # pickling changed nothing


def test_a_pickled_pair_arrives_as_it_was_or_not_at_all(bert_folder, texts, elsewhere):
    model = transformers.AutoModel.from_pretrained(bert_folder, dtype=torch.bfloat16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert_folder)
    tokenizer.model_max_length, tokenizer.truncation_side = 5, "left"
    found = TransformerEmbedder((model, tokenizer), layer=2)
    expected = found.transform(texts)
    elsewhere()
    data = pickle.dumps(found)
    for process in (lambda: None, elsewhere):
        process()
        back = pickle.loads(data).transform(texts)
        np.testing.assert_array_equal(back.flat(), expected.flat())
        assert back.source == expected.source
    with pytest.raises(ValueError, match="dtype='float32', but the model was loaded in bfloat16"):
        pickle.loads(data).set_params(dtype="float32").transform(texts)


def test_a_copied_or_pickled_edit_is_never_the_model_it_came_from(bert_folder, texts, elsewhere):
    model = transformers.AutoModel.from_pretrained(bert_folder)
    pair = model, transformers.AutoTokenizer.from_pretrained(bert_folder)
    with torch.no_grad():
        model.encoder.layer[1].output.dense.bias[7] += 5
    found = TransformerEmbedder(pair, layer=2)
    edited = found.transform(texts)
    plain = TransformerEmbedder(bert_folder, layer=2).transform(texts)
    assert edited.source.conflict(plain.source) == "revision"
    data = pickle.dumps(found)
    for twin in (copy.deepcopy(found), pickle.loads(data)):
        np.testing.assert_array_equal(twin.transform(texts).flat(), edited.flat())
    elsewhere()
    with pytest.raises(
        ValueError, match=r"set_params\(model=.* there is another one: by its weights"
    ):
        pickle.loads(data).transform(texts)


def test_a_pickle_without_its_model_says_what_to_do(bert_folder, texts, elsewhere):
    found = embedder()
    back = pickle.loads(pickle.dumps(found))
    elsewhere()
    with pytest.raises(ValueError, match=r"set_params\(model="):
        back.transform(texts)
    back.set_params(model=found.model)
    assert back.transform(texts).source == found.transform(texts).source


def test_a_named_model_survives_a_deep_copy(bert_folder, texts):
    found = copy.deepcopy(TransformerEmbedder(bert_folder))
    np.testing.assert_array_equal(
        found.transform(texts).values, TransformerEmbedder(bert_folder).transform(texts).values
    )


LABELLED = ["happy cat", "the happy", "I am happy!", "angry cat", "the angry", "I am angry!"] * 3


def pipeline(model, **params):
    return make_pipeline(
        TransformerEmbedder(model, pooling="mean", **params), LogisticRegression(max_iter=1000)
    )


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_grid_search_over_layers_on_raw_texts(n_jobs, bert_folder, tmp_path):
    y = [1, 1, 1, 0, 0, 0] * 3
    store = None if n_jobs is None else ActivationStore(tmp_path, layers="all")
    search = GridSearchCV(
        pipeline(bert_folder, store=store),
        {"transformerembedder__layer": [0, 0.5, -1]},
        cv=3,
        n_jobs=n_jobs,
        error_score="raise",
    ).fit(LABELLED, y)
    assert search.cv_results_["mean_test_score"].shape == (3,)
    assert search.score(LABELLED, y) == 1
    plain = pipeline(bert_folder, layer=search.best_params_["transformerembedder__layer"])
    np.testing.assert_array_equal(
        search.predict(LABELLED), plain.fit(LABELLED, y).predict(LABELLED)
    )
    if store is not None:
        info = store.info()
        # Had a sample been embedded twice, its rows would lie in two shards.
        assert [(layer["samples"], layer["tokens"]) for layer in info["layers"]] == [(6, 6)] * 4
        assert store.verify() == []


def test_threads_that_share_a_model_do_not_mix_their_layers(texts):
    from joblib import Parallel, delayed

    samples = texts * 10
    jobs = [embedder(layer=layer, batch_size=2) for layer in (0, 1, 2, 3) * 2]
    found = Parallel(n_jobs=4, prefer="threads")(delayed(job.transform)(samples) for job in jobs)
    for job, tokens in zip(jobs, found, strict=True):
        assert tokens.source.block == job.layer
        np.testing.assert_array_equal(tokens.values, job.transform(samples).values)


def test_progress_is_shown_only_when_asked_for(capsys, texts):
    embedder(progress=False).transform(texts)
    assert capsys.readouterr().err == ""
    n_tokens = float(embedder(progress=True, batch_size=2).transform(texts).n_tokens)
    assert f"{n_tokens}/{n_tokens}" in capsys.readouterr().err


def test_importing_and_displaying_load_nothing():
    code = """
import inspect
import sys
import skact.embedding
skact.embedding.TransformerEmbedder(layer=[0.5]).get_params()
print([m for m in ("torch", "transformers", "PIL", "tqdm") if m in sys.modules])
import skact
from sklearn.pipeline import make_pipeline
one = skact.TransformerEmbedder("no/such-model", store="nowhere")
two = skact.PromptDetector("no/such-model", concepts=["a"])
for shown in (one, two, make_pipeline(one, skact.TokenScaler())):
    dir(shown), repr(shown), str(shown), shown._repr_html_(), shown._repr_mimebundle_()
    inspect.getmembers(shown)
print("transform" in dir(one), [m for m in ("torch", "transformers") if m in sys.modules])
"""
    assert printed_by(code).splitlines() == ["[]", "True []"]


def test_what_is_displayed_is_escaped():
    shown = TransformerEmbedder("<b>")._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown


@pytest.mark.parametrize(
    ("concepts", "message"),
    [
        ("cat", "concepts must be a list of names, got 'cat'"),
        (["cat", "cat"], "'cat' comes twice"),
        ([], "at least one name"),
    ],
)
def test_names_of_labels(texts, images, concepts, message):
    with pytest.raises(ValueError, match=message):
        embedder().align_spans(texts, [[]] * len(texts), concepts)
    with pytest.raises(ValueError, match=message):
        embedder("vit").align_masks(images, [np.zeros((*i.shape[:2], 3)) for i in images], concepts)


def test_texts_for_a_model_of_images_are_not_sent_to_what_it_refuses():
    with pytest.raises(ValueError, match="take a model of texts"):
        embedder("vit").transform(["a text"])


def test_spans_and_masks_of_a_shuffled_frame_stay_with_their_samples():
    frame = pd.DataFrame(
        {
            "text": ["the cat sat", "happy dog there"],
            "spans": [[(4, 7, "animal")], [(6, 9, "animal")]],
            "image": [np.zeros((32, 32, 3), np.uint8)] * 2,
            "mask": [np.zeros((32, 32), bool), np.ones((32, 32), bool)],
        }
    )
    shuffled = frame.iloc[::-1]
    pairs = (
        (embedder().align_spans, "text", "spans"),
        (embedder("vit").align_masks, "image", "mask"),
    )
    for align, samples, said in pairs:
        found = align(shuffled[samples], shuffled[said])
        here = align(frame[samples].tolist(), frame[said].tolist())
        for i in range(2):
            assert np.array_equal(found[i], here[1 - i])
        assert not np.array_equal(here[0], here[1])
