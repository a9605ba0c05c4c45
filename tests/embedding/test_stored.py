"""The embedder with a store: the same numbers, and no sample through a model twice."""

import hashlib
import io
import os
import pickle
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skact import MeanPrototype, SuperActivator
from skact.embedding import TransformerEmbedder
from skact.embedding._stored import StoredSamples
from skact.samples import HashedFile
from skact.store import ActivationStore
from tests import tiny_models
from tests.watching import watch


def embedder(kind="bert", **params):
    text = kind in tiny_models.TEXT
    pair = tiny_models.text_pair(kind) if text else tiny_models.image_pair(kind)
    return TransformerEmbedder(pair, **params)


@contextmanager
def counted(model):
    """Number of samples that go through a model, batch by batch."""
    sizes = []
    handle = watch(
        model,
        lambda module, args, kwargs: sizes.append(len(next(iter(kwargs.values())))),
        with_kwargs=True,
    )
    try:
        yield sizes
    finally:
        handle.remove()


@pytest.fixture(autouse=True)
def loaded_once():
    """The trial run at load is no embedding."""
    for kind in ("bert", "vit"):
        assert embedder(kind).n_blocks == 4


def values_of(found):
    if isinstance(found, np.ndarray):
        return found
    if hasattr(found, "layers"):
        return np.concatenate([found.layer(b).flat() for b in found.layers])
    return found.flat()


FORMS = [
    {},
    {"layer": [0, 2]},
    {"pooling": "mean"},
    {"pooling": "cls", "layer": [1, 3]},
    {"special_tokens": True, "layer": 0},
]


@pytest.mark.parametrize("params", FORMS)
@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_the_numbers_are_those_without_a_store(tmp_path, kind, params, texts, images):
    X = texts if kind == "bert" else images
    plain = embedder(kind, **params).transform(X)
    kept = embedder(kind, store=tmp_path, **params)
    for stored in (kept.transform(X), kept.transform(X)):
        assert type(stored) is type(plain)
        np.testing.assert_array_equal(values_of(stored), values_of(plain))  # to the last bit
        if hasattr(plain, "lengths"):
            np.testing.assert_array_equal(stored.lengths, plain.lengths)
        if hasattr(plain, "source"):
            assert stored.source == plain.source
            assert isinstance(stored.values, np.memmap)
    part = embedder(kind, store=ActivationStore(tmp_path, chunk_size=1), **params)
    np.testing.assert_array_equal(values_of(part.transform(X[3:1:-1])), values_of(plain[3:1:-1]))


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_precision_rounds_and_no_more(tmp_path, dtype, error, texts):
    plain = embedder(layer=[0, 3]).transform(texts)
    stored = embedder(layer=[0, 3], store=ActivationStore(tmp_path, dtype)).transform(texts)
    np.testing.assert_allclose(values_of(stored), values_of(plain), rtol=error, atol=1e-6)
    assert np.any(values_of(stored) != values_of(plain))
    pooled = embedder(pooling="mean", store=ActivationStore(tmp_path, dtype)).transform(texts)
    assert pooled.dtype == np.float32


def test_small_chunks_agree_up_to_rounding(tmp_path, texts):
    X = texts * 3 + [text + " happy" for text in texts]
    plain = embedder(batch_size=3).transform(X)
    store = ActivationStore(tmp_path, chunk_size=3)
    stored = embedder(batch_size=3, store=store).transform(X)
    np.testing.assert_allclose(values_of(stored), values_of(plain), rtol=1e-5, atol=5e-6)
    assert store.info()["samples"] == 10


def test_a_duplicate_is_embedded_once(tmp_path, texts, images):
    for kind, X in (("bert", texts), ("vit", images)):
        found = embedder(kind, store=tmp_path)
        with counted(found.model[0]) as sizes:
            tokens = found.transform([X[0], X[1], X[0], X[0]])
        assert sum(sizes) == 2
        np.testing.assert_array_equal(tokens[0], tokens[3])


def test_only_missing_samples_and_layers_go_through_the_model(tmp_path, texts):
    found = embedder(store=tmp_path)
    with counted(found.model[0]) as sizes:
        found.set_params(layer=[0, 1]).transform(texts[:2])
        found.set_params(layer=1).transform(texts[1:4])
        assert sum(sizes) == 2 + 2
        found.set_params(layer=[0, 1, 2]).transform(texts)
        assert sum(sizes) == 4 + 5  # each sample once, whatever it lacks
        found.set_params(layer=[2, 0]).transform(texts[::-1])
        found.set_params(batch_size=1, progress=True, device="cpu").transform(texts)
        assert sum(sizes) == 9
        assert not found.missing(texts).any()
    assert found.missing([*texts, "new"]).tolist() == [False] * 5 + [True]


def test_filling_says_what_it_did(tmp_path, texts):
    found = embedder(layer=[0, 2], store=tmp_path)
    with counted(found.model[0]) as sizes:
        done = found._in_store(texts + texts[:2]).fill()
        assert (done.n_samples, done.n_embedded) == (5, 5)
        done = found._in_store([*texts, "new"]).fill()
        assert (done.n_samples, done.n_embedded) == (6, 1)
    assert sum(sizes) == 6
    with pytest.raises(ValueError, match="store is None"):
        embedder()._in_store(texts)


@pytest.mark.parametrize(("layers", "kept"), [("all", [0, 1, 2, 3]), ([0.5, -1], [0, 1, 3])])
def test_layers_to_keep(tmp_path, layers, kept, texts):
    store = ActivationStore(tmp_path, layers=layers)
    found = embedder(layer=0, store=store)
    with counted(found.model[0]) as sizes:
        found.transform(texts)
        for layer in kept:
            found.set_params(layer=layer).transform(texts)
    assert sum(sizes) == 5
    assert [layer["layer"] for layer in store.info()["layers"]] == kept
    with pytest.raises(ValueError, match="layer 9 does not exist"):
        embedder(store=ActivationStore(tmp_path / "b", layers=[9])).transform(texts)


DELTAS = [0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]


def sweep(store, model, deltas=DELTAS, layers=range(6), cv=5, **params):
    return GridSearchCV(
        Pipeline(
            [
                ("embed", TransformerEmbedder(model, store=store, max_length=32)),
                ("concepts", MeanPrototype()),
                ("detect", SuperActivator()),
            ]
        ),
        {"embed__layer": list(layers), "detect__delta": deltas},
        cv=cv,
        error_score="raise",
        **params,
    )


@pytest.fixture(scope="module")
def six_blocks(tmp_path_factory):
    """A model of six blocks in a folder."""
    torch.manual_seed(0)
    tokenizer = tiny_models.wordpiece_tokenizer()
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    pair = transformers.BertModel(config).eval(), tokenizer
    return tiny_models.save_pair(pair, tmp_path_factory.mktemp("six"))


TEXTS = [f"{word} cat {i}" for i in range(10) for word in ("happy", "angry")]
Y = np.tile([1, 0], 10)

AGAIN = """
import sys, numpy as np
from skact.embedding import TransformerEmbedder
from tests.embedding.test_stored import TEXTS, Y, counted, sweep
store, model = sys.argv[1:]
loaded = TransformerEmbedder(model)._load()
with counted(loaded.base) as sizes:
    search = sweep(store, model, deltas=[0.1]).fit(TEXTS[4:], Y[4:])
print(sum(sizes), search.best_params_["embed__layer"])
"""


@pytest.mark.nightly
def test_a_sweep_costs_one_pass_per_sample_and_the_next_script_none(tmp_path, six_blocks):
    store = ActivationStore(tmp_path, layers="all")
    with counted(TransformerEmbedder(six_blocks)._load().base) as sizes:
        search = sweep(store, six_blocks).fit(TEXTS, Y)
        assert sum(sizes) == len(TEXTS)
        search.predict(TEXTS)
        assert sum(sizes) == len(TEXTS)
    assert len(search.cv_results_["params"]) == 72
    assert store.info()["samples"] == len(TEXTS)
    run = subprocess.run(
        [sys.executable, "-c", AGAIN, str(tmp_path), six_blocks],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[0] == "0"


# That nothing is embedded twice is seen by day where a grid of layers is searched.
@pytest.mark.nightly
def test_a_sweep_in_several_processes(tmp_path, six_blocks):
    store = ActivationStore(tmp_path, layers="all")
    search = sweep(store, six_blocks, [0.1, 0.5], cv=3, n_jobs=2).fit(TEXTS, Y)
    info = store.info()
    assert [layer["samples"] for layer in info["layers"]] == [len(TEXTS)] * 6
    # Had a sample been embedded twice, its rows would lie in two shards.
    tokens = TransformerEmbedder(six_blocks).transform(TEXTS).n_tokens
    assert [layer["tokens"] for layer in info["layers"]] == [tokens] * 6
    assert store.verify() == []
    layer, delta = search.best_params_["embed__layer"], search.best_params_["detect__delta"]
    plain = sweep(None, six_blocks, [delta], [layer], cv=3).fit(TEXTS, Y)
    np.testing.assert_array_equal(search.predict(TEXTS), plain.predict(TEXTS))


def test_clones_and_pickles_keep_the_store(tmp_path, bert_folder, texts):
    store = ActivationStore(tmp_path)
    found = TransformerEmbedder(bert_folder, store=store)
    assert clone(found).store is store
    tokens = found.transform(texts)
    back = pickle.loads(pickle.dumps(found))
    with counted(back._load().base) as sizes:
        np.testing.assert_array_equal(back.transform(texts).flat(), tokens.flat())
    assert sizes == []
    sent = pickle.dumps(tokens)
    np.testing.assert_array_equal(pickle.loads(sent).flat(), tokens.flat())
    with pytest.raises(ValueError, match="store"):
        TransformerEmbedder(bert_folder, store=5).transform(texts)


BAD_SAMPLES = [
    ("bert", ["a", "b", 5], TypeError, "sample 2 must be a string, got int"),
    ("bert", ["cat", " ", "b"], ValueError, "sample 1, .* has no token left"),
    ("vit", [np.zeros((9, 9, 3), np.uint8), 5], ValueError, "sample 1 must be an image"),
    ("vit", [np.zeros((9, 9, 3), np.uint8), "no.png"], ValueError, "sample 1: .*'no.png' cannot"),
]


@pytest.mark.parametrize(("kind", "X", "error", "message"), BAD_SAMPLES)
def test_a_bad_sample_is_named_before_anything_is_embedded(tmp_path, kind, X, error, message):
    found = embedder(kind, store=tmp_path)
    found.transform(X[:1])
    with counted(found.model[0]) as sizes, pytest.raises(error, match=message):
        found.transform(X)
    assert sizes == []


def test_a_text_without_tokens_is_named_by_its_number_among_all(tmp_path):
    found = embedder(store=ActivationStore(tmp_path, chunk_size=1))
    with pytest.raises(ValueError, match="sample 7, ' ', has no token left"):
        found.transform([*"abcdefg", " ", *"hij"])
    assert not found.missing(["a"]).any()


def test_a_broken_file_is_named_by_its_number_among_all(tmp_path, images):
    found = embedder("vit", store=ActivationStore(tmp_path / "store", chunk_size=1))
    found.transform(images[:2])
    Image.fromarray(images[0]).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"sample 3: the image .*a.jpg' cannot be read"):
        found.transform([*images[:3], tmp_path / "a.jpg"])
    assert not found.missing(images[:3]).any()  # those before it are kept


def test_out_of_memory_halves_the_batch_and_goes_on(tmp_path, texts):
    found = embedder(store=tmp_path, batch_size=4)
    plain = embedder().transform(texts * 2)
    failed = []

    def fail(module, args, kwargs):
        if len(next(iter(kwargs.values()))) > 1:
            failed.append(1)
            raise torch.OutOfMemoryError("out of memory")

    handle = watch(found.model[0], fail, with_kwargs=True)
    try:
        stored = found.transform(texts * 2)
    finally:
        handle.remove()
    assert failed
    np.testing.assert_allclose(values_of(stored), values_of(plain), rtol=1e-5, atol=1e-5)
    assert found.store == tmp_path
    assert ActivationStore(tmp_path).verify() == []


def test_numbers_that_float16_cannot_hold_are_refused(tmp_path, bert_folder, texts):
    model = transformers.AutoModel.from_pretrained(bert_folder)
    with torch.no_grad():
        model.encoder.layer[3].output.LayerNorm.weight *= 1e6
    pair = model, tiny_models.text_pair("bert")[1]
    half = ActivationStore(tmp_path, "float16")
    with pytest.raises(OverflowError, match=r"block 3 .* 65504"):
        TransformerEmbedder(pair, store=half).transform(texts)
    assert os.listdir(tmp_path / "shards") == []
    brain = ActivationStore(tmp_path, "bfloat16")
    assert np.abs(TransformerEmbedder(pair, store=brain).transform(texts).flat()).max() > 65504


def test_a_store_pruned_while_it_is_read_is_filled_again(tmp_path, texts, monkeypatch):
    store = ActivationStore(tmp_path)
    found = embedder(layer=[0, 1], store=store)
    found.transform(texts)
    read, pruned = ActivationStore.read, []

    def read_and_prune(self, *args):
        if not pruned:
            pruned.append(store.prune(layer=1))
        return read(self, *args)

    monkeypatch.setattr(ActivationStore, "read", read_and_prune)
    with counted(found.model[0]) as sizes:
        assert found.transform(texts).layers == [0, 1]
    assert sum(sizes) == 5
    assert pruned[0] > 0


def test_a_store_serves_a_classifier_on_pooled_vectors(tmp_path, bert_folder):
    pipe = Pipeline(
        [
            ("embed", TransformerEmbedder(bert_folder, pooling="mean", store=tmp_path)),
            ("classify", LogisticRegression(max_iter=1000)),
        ]
    )
    stored = pipe.fit(TEXTS, Y).predict_proba(TEXTS)
    plain = pipe.set_params(embed__store=None).fit(TEXTS, Y).predict_proba(TEXTS)
    np.testing.assert_array_equal(stored, plain)


def test_layers_that_only_their_convention_tells_apart_are_exported(tmp_path, texts):
    store = ActivationStore(tmp_path / "store")
    settings = [{}, {"special_tokens": True}, {"pooling": "mean"}, {"max_length": 5}]
    for params in settings:
        one = TransformerEmbedder(tiny_models.text_pair("bert"), store=store, **params)
        one.transform(texts)
    first, *_ = (layer["convention"] for layer in store.info()["layers"])
    file = tmp_path / "file"
    with pytest.raises(ValueError, match=r"4 layers .* fit .*; name exactly one") as raised:
        store.export(file, 3)
    for told in ("special tokens kept'", "mean of the tokens'", "max_length=5", "max_length=64"):
        assert told in str(raised.value)
    assert "libraries" not in str(raised.value)  # the same in all
    assert store.export(file, 3, convention=f"{first}, special tokens kept") == len(texts)
    with pytest.raises(ValueError, match=r"2 layers .*max_length=5"):
        store.export(file, 3, convention=first)
    assert store.export(file, 3, convention={"convention": first, "max_length": 5}) == len(texts)
    other = ActivationStore(tmp_path / "other")
    assert other.import_(file) == len(texts)
    assert [layer["identity"]["max_length"] for layer in other.info()["layers"]] == [5]
    with pytest.raises(ValueError, match=r"0 layers .* The store holds: .*special tokens kept"):
        store.export(file, 3, convention="special tokens")


def test_a_file_is_known_by_its_bytes_and_not_by_its_times(tmp_path, images):
    path, found = tmp_path / "a.bmp", embedder("vit", store=tmp_path / "store")
    first, second = map(Image.fromarray, images[:2])
    first.save(path)
    before, times = found.transform([path]).flat(), path.stat()
    with open(path, "r+b") as file:
        second.save(file, "BMP")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = found.transform([path]).flat()
    np.testing.assert_array_equal(after, embedder("vit").transform([path]).flat())
    assert np.abs(after - before).max() > 0.01  # the control: they differ


def test_a_file_that_changes_before_it_is_embedded_is_refused(tmp_path, images, monkeypatch):
    path, store = tmp_path / "a.bmp", ActivationStore(tmp_path / "store")
    found, fill = embedder("vit", store=store), StoredSamples.fill
    first, second = map(Image.fromarray, images[:2])
    first.save(path)

    def save_first(self):
        second.save(path)
        return fill(self)

    monkeypatch.setattr(StoredSamples, "fill", save_first)
    with pytest.raises(RuntimeError, match=r"sample 1: the file .*a.bmp' was changed while"):
        found.transform([images[2], path])
    monkeypatch.undo()
    for image in (first, second):
        image.save(path)
        plain = embedder("vit").transform([path])
        np.testing.assert_array_equal(found.transform([path]).flat(), plain.flat())


def test_samples_are_forgotten_at_all_layers(tmp_path, texts):
    store = ActivationStore(tmp_path, layers="all")
    found = embedder(store=store)
    tokens = found.transform(texts)
    gone, key = np.array(tokens[1]).tobytes(), found._in_store(texts[1:2]).keys[0]

    def files_with(content):
        return [p for p in tmp_path.rglob("*") if p.is_file() and content in p.read_bytes()]

    assert files_with(gone)
    assert files_with(key)
    assert found.forget([texts[1], texts[1], "never seen"]) == 1
    assert files_with(gone) == files_with(key) == []
    for layer in range(4):
        missing = found.set_params(layer=layer).missing(texts)
        assert missing.tolist() == [i == 1 for i in range(len(texts))]
    assert store.verify() == []
    again = values_of(found.transform(texts))
    np.testing.assert_allclose(again, values_of(tokens), rtol=1e-3, atol=5e-6)
    with pytest.raises(ValueError, match="store is None"):
        embedder().forget(texts)


def interrupted(X, model, after, **params):
    """The notes of an interruption while the model reads its batch number ``after``."""
    n_batches = 0

    def stop(*args):
        nonlocal n_batches
        n_batches += 1
        if n_batches > after:
            raise KeyboardInterrupt

    handle = watch(model, stop)
    try:
        with pytest.raises(KeyboardInterrupt) as got:
            embedder(batch_size=2, **params).transform(X)
    finally:
        handle.remove()
    return got.value.__notes__


def test_an_interruption_says_what_is_kept(tmp_path):
    X = [f"the cat sat {i}" for i in range(6)]
    store = ActivationStore(tmp_path, chunk_size=2)
    model = tiny_models.text_pair("bert")[0]
    notes = interrupted([*X, X[0]], model, 1, store=store)
    n_kept = 6 - embedder(store=store).missing(X).sum()
    assert 0 < n_kept < 6
    assert notes == [
        f"{n_kept} of 6 distinct samples are in the store; calling again embeds only the others."
    ]
    with counted(model) as sizes:
        embedder(store=store).transform(X)
    assert sum(sizes) == 6 - n_kept
    (said,) = interrupted(X, model, 1)
    assert said.startswith("None of the 6 samples is kept, as there is no store")


def test_an_image_is_decoded_once(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 28, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    forms = {
        "opened": lambda: Image.open(tmp_path / "a.jpg"),
        "open file": lambda: io.BytesIO((tmp_path / "a.jpg").read_bytes()),
        "path": lambda: tmp_path / "a.jpg",
        "loaded": lambda: Image.open(tmp_path / "a.jpg").convert("RGB"),
    }
    decoded = []
    decoder = Image._getdecoder
    monkeypatch.setattr(Image, "_getdecoder", lambda *a: decoded.append(a) or decoder(*a))
    expected = embedder("vit").transform([tmp_path / "a.jpg"]).flat()
    for name, make in forms.items():
        sample = make()
        decoded.clear()
        store = ActivationStore(tmp_path / name)
        found = embedder("vit", store=store).transform([sample])
        assert sum(given[1] == "jpeg" for given in decoded) == (name != "loaded"), name
        assert np.array_equal(found.flat(), expected)


def test_an_open_file_that_changes_meanwhile_is_noticed():
    file = io.BytesIO(b"what was hashed")
    hashed = HashedFile(file, hashlib.sha256(file.getvalue()).digest())
    assert hashed.content(0) == b"what was hashed"
    file.seek(0)
    file.write(b"What")
    with pytest.raises(RuntimeError, match=r"sample 3: the file .* was changed"):
        hashed.content(3)
