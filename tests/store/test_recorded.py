"""What others have recorded, under names in a store: the same numbers, told apart, never twice."""

import weakref

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sklearn.pipeline import make_pipeline

from skact import (
    ActivationStore,
    LayerStack,
    MeanPrototype,
    SuperActivator,
    TokenArray,
    TransformerEmbedder,
    read_arrow,
    read_flat,
    read_padded,
    read_stacked,
    read_vllm,
)
from skact.tokens import Source
from tests import tiny_models

MODEL = Source("a model", "its commit")
NAMES = ["first", "second", "third"]
LENGTHS = [2, 5, 3]


@pytest.fixture
def store(tmp_path):
    return ActivationStore(tmp_path / "store")


@pytest.fixture
def samples(rng):
    return [rng.normal(size=(n, 4)).astype(np.float32) for n in LENGTHS]


def tokens_of(samples, block=3, **about):
    return TokenArray.from_list(samples, source=Source("a model", "its commit", block, **about))


def requests(samples, folder):
    """Files as vLLM writes them, of the ids 0 and 4, that is of block 3."""
    for name, sample in zip(NAMES, samples, strict=True):
        states = np.stack([sample + 1, sample], axis=1)
        save_file(
            {"token_ids": np.arange(len(sample)), "hidden_states": states},
            folder / f"{name}.safetensors",
        )
    return [folder / f"{name}.safetensors" for name in NAMES]


def from_vllm(samples, folder):
    return read_vllm(requests(samples, folder), [0, 4], source=MODEL)


def from_stacked(samples, folder):
    return read_stacked([sample[None] for sample in samples], [3], source=MODEL)


def from_flat(samples, folder):
    given = {"values": np.concatenate(samples), "offsets": np.cumsum([0, *LENGTHS])}
    save_file(given, folder / "flat.safetensors")
    return read_flat(folder / "flat.safetensors", source=Source("a model", "its commit", 3))


def from_padded(samples, folder):
    mask = np.arange(5) < np.array(LENGTHS)[:, None]
    padded = np.zeros((3, 5, 4), np.float32)
    padded[mask] = np.concatenate(samples)
    return read_padded(padded, mask, source=Source("a model", "its commit", 3))


def from_arrow(samples, folder):
    arrow = pytest.importorskip("pyarrow")
    column = arrow.array([s.tolist() for s in samples], arrow.list_(arrow.list_(arrow.float32())))
    return read_arrow(column, source=Source("a model", "its commit", 3))


@pytest.mark.parametrize("read", [from_vllm, from_stacked, from_flat, from_padded, from_arrow])
def test_what_readers_give_comes_back_bit_by_bit(read, store, samples, tmp_path):
    given = read(samples, tmp_path)
    assert store.put(given, NAMES) == 3
    is_stack = isinstance(given, LayerStack)
    given = given.layer(3) if is_stack else given
    found = store.get(NAMES[::-1], given.source)
    assert isinstance(found.values, np.memmap)
    assert found.source == given.source
    for ours, theirs in zip(found, samples[::-1], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    stack = store.get(["second"], given.source, blocks=[3])
    assert stack.layers == [3]
    np.testing.assert_array_equal(stack.layer(3)[0], samples[1])
    assert store.verify() == []
    (layer,) = store.info()["layers"]
    assert (layer["model"], layer["layer"], layer["samples"]) == ("a model", 3, 3)


def test_a_source_may_leave_open_what_one_layer_alone_fits(store, samples):
    given = tokens_of(samples, site="residual", convention="as they come")
    store.put(given, NAMES)
    found = store.get(NAMES, Source("a model", "its commit", 3))
    assert found.source == given.source
    store.put(tokens_of([2 * s for s in samples], site="mlp"), NAMES)
    assert store.get(NAMES, given.source).source == given.source
    with pytest.raises(ValueError, match=r"2 layers fit source=.*site residual.*site mlp"):
        store.get(NAMES, Source("a model", "its commit", 3))
    twice = store.get(NAMES, Source("a model", "its commit", 3, site="mlp"))
    np.testing.assert_array_equal(twice.flat(), 2 * given.flat())
    with pytest.raises(ValueError, match="3 of 3 samples were not put"):
        store.get(NAMES, Source("a model", "its commit", 3, site="attention"))


def test_all_layers_of_a_stack_are_kept(store, samples):
    stack = read_stacked([np.stack([s, 2 * s]) for s in samples], [3, 7], source=MODEL)
    store.put(stack, NAMES)
    found = store.get(NAMES, MODEL, blocks=[7, 3])
    for block in (3, 7):
        np.testing.assert_array_equal(found.layer(block).flat(), stack.layer(block).flat())
        assert found.layer(block).source == stack.layer(block).source


def test_of_many_files_one_batch_is_held_at_a_time(store, samples, tmp_path):
    paths, held, most = requests(samples, tmp_path), [], []

    def batches():
        for path in paths:
            stack = read_vllm([path], [0, 4], source=MODEL)
            held.append(weakref.ref(stack.layer(3).values))
            most.append(sum(values() is not None for values in held))
            yield stack
            del stack

    assert store.put(batches(), NAMES) == 3
    # The one before is still in the hands of the loop when the next is made.
    assert max(most) <= 2
    whole = from_vllm(samples, tmp_path).layer(3)
    np.testing.assert_array_equal(store.get(NAMES, whole.source).flat(), whole.flat())


def test_a_second_time_adds_nothing_and_other_rows_of_a_name_are_refused(store, samples):
    given = tokens_of(samples)
    store.put(given[:2], NAMES[:2])
    before = store.info()
    assert store.put(given[:2], NAMES[:2]) == 0
    assert store.info() == before
    assert store.put(given, NAMES) == 1
    for other in (tokens_of([s + 1e-6 for s in samples]), tokens_of(samples[::-1])):
        with pytest.raises(ValueError, match="holds other rows under the name 'first', of the"):
            store.put(other, NAMES)
    # Of another layer or model it is another sample.
    assert store.put(tokens_of(samples, 4), NAMES) == 3
    np.testing.assert_array_equal(store.get(NAMES, given.source).flat(), given.flat())
    assert store.forget(["first"]) == 1
    with pytest.raises(ValueError, match=r"1 of 3 samples were not put .*'first'"):
        store.get(NAMES, given.source)
    assert store.put(tokens_of([s + 1 for s in samples[:1]]), NAMES[:1]) == 1
    assert store.verify() == []


def test_recorded_rows_are_never_those_of_an_embedder(store):
    embedder = TransformerEmbedder(tiny_models.text_pair("bert"), layer=1, store=store)
    texts = ["the cat sat", "not happy"]
    made = embedder.transform(texts)
    recorded = made.map(lambda rows: rows + 1, source=made.source)
    assert store.put(recorded, texts) == 2
    np.testing.assert_array_equal(embedder.transform(texts).flat(), made.flat())
    np.testing.assert_array_equal(store.get(texts, made.source).flat(), recorded.flat())


def test_a_detector_reads_them_by_their_source(store, samples):
    given = tokens_of(samples)
    line = make_pipeline(MeanPrototype(), SuperActivator(0.5)).fit(given, [1, 0, 1])
    store.put([given, tokens_of(samples, 4)], [*NAMES, "a", "b", "c"])
    found = line.decision_function(store.get(NAMES, given.source))
    np.testing.assert_array_equal(found, line.decision_function(given))
    with pytest.raises(ValueError, match="another block"):
        line.predict(store.get(["a"], Source("a model", "its commit", 4)))


def test_a_layer_goes_into_another_store(store, samples, tmp_path):
    given = tokens_of(samples)
    store.put(given, NAMES)
    store.export(tmp_path / "layer", 3)
    other = ActivationStore(tmp_path / "other")
    assert other.import_(tmp_path / "layer") == 3
    np.testing.assert_array_equal(other.get(NAMES, given.source).flat(), given.flat())


def test_grids_stay_grids(store, rng):
    grids = TokenArray(
        rng.normal(size=(10, 4)).astype(np.float32),
        [0, 6, 10],
        source=Source("a model", "its commit", 3),
        shapes=[[2, 3], [4, 1]],
    )
    store.put(grids, NAMES[:2])
    assert store.get(NAMES[1::-1], grids.source).shapes.tolist() == [[4, 1], [2, 3]]


GAPS = [0, 1, 0, 0, 0, 1, 1, 0, 0, 0]


def test_gaps_stay_gaps(store, samples):
    tokens = TokenArray.from_list(samples, source=Source("a model", "its commit", 3))
    gapped = TokenArray.from_list(samples, source=tokens.source, segments=GAPS)
    assert store.put(gapped, NAMES) == 3
    back = store.get(NAMES[::-1], tokens.source)
    np.testing.assert_array_equal(back.segments, gapped[::-1].segments)
    assert store.put(gapped, NAMES) == 0
    with pytest.raises(ValueError, match="holds other rows under the name 'first'"):
        store.put(tokens, NAMES)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_are_rounded_as_torch_rounds_them(tmp_path, rng, dtype):
    store = ActivationStore(tmp_path / "store", dtype)
    odd = np.array([[1 + 2**-8, 1 + 3 * 2**-8, -(2**-30), 0.0]], np.float32)
    given = tokens_of([odd, rng.normal(size=(1000, 4)).astype(np.float32), odd])
    store.put(given, NAMES)
    rounded = torch.from_numpy(np.array(given.flat())).to(getattr(torch, dtype)).float().numpy()
    found = store.get(NAMES, given.source).flat()
    np.testing.assert_array_equal(found.astype(np.float32), rounded)
    assert store.put(given, NAMES) == 0
    huge = tokens_of([np.full((1, 4), 3.4e38, np.float32)])
    with pytest.raises(ValueError, match="'huge' holds NaN, infinity, or a number too large"):
        store.put(huge, ["huge"])


def test_nan_is_refused_and_what_was_put_before_stays(store, samples):
    broken = [samples[0], np.full((2, 4), np.nan, np.float32)]
    batches = (tokens_of([sample]) for sample in broken)
    with pytest.raises(ValueError, match=r"'second' holds NaN.* block 3.* before is intact"):
        store.put(batches, NAMES[:2])
    np.testing.assert_array_equal(store.get(["first"], tokens_of(samples).source)[0], samples[0])
    assert store.verify() == []


X = TokenArray(np.zeros((3, 4), np.float32), [0, 1, 3], source=Source("m", "r", 3))


@pytest.mark.parametrize(
    ("samples", "names", "message"),
    [
        (X.with_source(None), ["a", "b"], "does not say model and revision and block"),
        (X.with_source(Source("m", block=3)), ["a", "b"], "source does not say revision, without"),
        (X.with_source(Source("m", "r")), ["a", "b"], "source does not say block"),
        (X.with_source(Source("m", "r", -3)), ["a", "b"], "a block from 0 to 65535, got -3"),
        (X.with_source(Source("m", "r", 2**80)), ["a", "b"], "a block from 0 to 65535, got 120"),
        (X, ["a"], "names has 1 entries, samples hold more"),
        (X, ["a", "b", "c"], "names has 3 entries, samples hold 2"),
        (X, ["a", "a"], "names must differ from each other, but 'a' comes twice"),
        (X, ["a", ""], r"names\[1\] must be a text"),
        (X, ["a", 1], r"names\[1\] must be a text"),
        (X, ["a", "b\udc80"], r"names\[1\] holds '.udc80' at character 1, half of a surrogate"),
        (X.map(lambda v: v > 0, source=X.source), ["a", "b"], "samples must hold floats, got"),
        (LayerStack({4: X}), ["a", "b"], "samples hold a layer 4 whose source says block 3"),
        (2.5, ["a"], "'samples' parameter of .*put must be a TokenArray"),
        ([X, np.zeros((2, 4))], ["a", "b", "c"], "item 1 of samples must be a TokenArray"),
    ],
)
def test_bad_inputs(store, samples, names, message):
    with pytest.raises((TypeError, ValueError), match=message):
        store.put(samples, names)
    # The control: the largest block is kept, and the store is whole.
    source = Source("m", "r", 2**16 - 1)
    store.put(X.with_source(source), ["a", "b"])
    np.testing.assert_array_equal(store.get(["b"], source).flat(), X[[1]].flat())
    assert store.verify() == []


def test_half_of_a_surrogate_pair_is_no_name_to_ask_for(store, samples):
    store.put(tokens_of(samples), NAMES)
    with pytest.raises(ValueError, match=r"names\[0\] holds .* half of a surrogate"):
        store.get(["first\udcff"], MODEL, blocks=[3])
    whole = "\N{GRINNING FACE}\0"
    assert store.put(tokens_of(samples[:1]), [whole]) == 1
    assert np.array_equal(store.get([whole], MODEL, blocks=[3]).layer(3)[0], samples[0])


def test_other_widths_and_unknown_samples(store):
    store.put(X, ["a", "b"])
    wide = TokenArray(np.zeros((1, 5), np.float32), [0, 1], source=X.source)
    with pytest.raises(
        ValueError, match="samples holds 5 features of a token, but the store has 4"
    ):
        store.put(wide, ["c"])
    with pytest.raises(ValueError, match=r"1 of 1 samples were not put into this store as float32"):
        store.get(["c"], X.source)
    with pytest.raises(ValueError, match="source does not say revision"):
        store.get(["a"], Source("m", block=3))
    with pytest.raises(ValueError, match="names must hold at least one name"):
        store.get([], X.source)
