"""What others have recorded comes in as the tokens it is, or is refused by name."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from skact import (
    LayerStack,
    Monitor,
    Source,
    TokenArray,
    TransformerEmbedder,
    read_arrow,
    read_flat,
    read_padded,
    read_stacked,
    read_vllm,
)
from skact.rows import on_disk
from tests import tiny_models

D = 5
LENGTHS = [4, 1, 7]
KNOWN = Source("a model", "abc", convention="residual stream after the block")


@pytest.fixture
def samples(rng):
    """States of each sample, (n_layers, n_tokens, n_features)."""
    return [rng.normal(size=(2, n, D)).astype(np.float32) for n in LENGTHS]


def write_vllm(path, states, ids=None, **changed):
    ids = np.arange(states.shape[1]) if ids is None else ids
    arrays = {"token_ids": ids, "hidden_states": states.swapaxes(0, 1).copy(), **changed}
    save_file({k: v for k, v in arrays.items() if v is not None}, path)
    return path


def written(folder, samples):
    return [write_vllm(folder / f"{i}.safetensors", s) for i, s in enumerate(samples)]


def is_stack_of(stack, samples, blocks):
    assert isinstance(stack, LayerStack)
    assert stack.layers == sorted(blocks)
    for number, block in enumerate(blocks):
        layer = stack.layer(block)
        assert layer.lengths.tolist() == [s.shape[1] for s in samples]
        for i, sample in enumerate(samples):
            np.testing.assert_array_equal(layer[i], sample[number])
        assert layer.source.block == block


def test_files_of_vllm(tmp_path, samples):
    stack = read_vllm(written(tmp_path, samples), [9, 3], source=KNOWN)
    # The input of block i is the output of block i - 1.
    is_stack_of(stack, samples, [8, 2])
    assert stack.layer(2).source == replace(KNOWN, block=2, site="residual")
    embeddings = read_vllm(written(tmp_path, samples), [0, 3])
    assert embeddings.layers == [2]
    np.testing.assert_array_equal(embeddings.layer(2)[0], samples[0][1])


def test_layers_of_vllm_are_those_of_the_embedder(tmp_path):
    """A file as vLLM writes it, made from what a real forward pass puts into each block."""
    model, tokenizer = pair = tiny_models.text_pair("gpt2", head=True)
    embedder = TransformerEmbedder(pair, layer=[0, 1], sink=None)
    expected = embedder.transform(["the cat sat"])
    inputs, ids = [], tokenizer("the cat sat")["input_ids"]
    hooks = [
        block.register_forward_pre_hook(lambda module, args: inputs.append(args[0][0].detach()))
        for block in model.transformer.h
    ]
    with torch.inference_mode():
        model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    states = torch.stack(inputs, dim=1)  # (n_tokens, n_layers, n_features)
    path = tmp_path / "request.safetensors"
    save_tensors({"token_ids": torch.tensor(ids), "hidden_states": states.contiguous()}, path)
    stack = read_vllm([path], list(range(len(inputs))))
    np.testing.assert_allclose(stack.layer(0)[0], expected.layer(0)[0], atol=1e-5)
    assert np.abs(stack.layer(0)[0] - expected.layer(1)[0]).max() > 0.01


def test_tokens_that_are_context_are_left_out(tmp_path, samples):
    ids = np.array([7, 1, 2, 7])
    path = write_vllm(tmp_path / "a.safetensors", samples[0], ids)
    stack = read_vllm([path], [1, 2], leave_out=[7, 99])
    np.testing.assert_array_equal(stack.layer(1)[0], samples[0][1, 1:3])


def test_half_precision(tmp_path, samples):
    values = torch.tensor(samples[0].swapaxes(0, 1).copy())
    for dtype, expected in ((torch.bfloat16, "float32"), (torch.float16, "float16")):
        half, path = values.to(dtype), tmp_path / f"{expected}.safetensors"
        save_tensors({"token_ids": torch.arange(4), "hidden_states": half}, path)
        layer = read_vllm([path], [1, 2]).layer(0)
        assert layer.dtype == expected
        np.testing.assert_array_equal(layer[0], half[:, 0].float().numpy())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"token_ids": None}, r"the key 'token_ids' is missing; it has \['hidden_states'\]"),
        ({"hidden_states": None}, "the key 'hidden_states' is missing"),
        ({"token_ids": np.arange(4.0)}, "'token_ids' must be 1-D ints, got .* float64"),
        ({"token_ids": np.arange(3)}, r"with 3 token ids and 2 ids in layers; expected \(3, 2, n_"),
        ({"hidden_states": np.ones((4, D), np.float32)}, "'hidden_states' must be 3-D floats"),
        ({"hidden_states": np.ones((4, 2, D), int)}, "must be 3-D floats, got .* int64"),
        ({"hidden_states": np.ones((4, 3, D))}, r"expected \(4, 2, n_features\)"),
        ({"hidden_states": np.ones((2, 4, D))}, "layers come first; read_stacked reads such"),
        ({"hidden_states": np.full((4, 2, D), np.nan)}, "NaN or infinity, first at sample 0, tok"),
        ({"hidden_states": np.full((4, 2, D), -np.inf)}, "NaN or infinity, first at sample 0"),
        ({"hidden_states": np.ones((4, 2, 0))}, "nothing is there"),
        ({"hidden_states": np.ones((0, 2, D)), "token_ids": np.arange(0)}, "none of its 0 tokens"),
    ],
)
def test_bad_files_of_vllm(tmp_path, samples, changed, message):
    path = write_vllm(tmp_path / "a.safetensors", samples[0], **changed)
    with pytest.raises(ValueError, match=message):
        read_vllm([path], [1, 2])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layers": [1]}, ValueError, "2, 5.*with 4 token ids and 1 ids in layers"),
        ({"layers": [0]}, ValueError, "id 0 alone, the embeddings"),
        ({"layers": []}, ValueError, "layers must hold each layer once"),
        ({"layers": [1, 1]}, ValueError, "layers must hold each layer once"),
        ({"layers": [1, -2]}, ValueError, "layers must hold numbers of layers, .* got -2"),
        ({"layers": [1, True]}, ValueError, "got True"),
        ({"layers": [1, 2.0]}, ValueError, "got 2.0"),
        ({"paths": []}, ValueError, "paths must hold at least one sample"),
        ({"paths": ["nowhere.safetensors"]}, FileNotFoundError, "there is no file"),
        ({"paths": [3]}, TypeError, r"paths\[0\] must be a path, got 3"),
        ({"source": Source(block=3)}, ValueError, "source must leave the block open"),
        (
            {"source": Source(site="mlp")},
            ValueError,
            "residual stream, got site='mlp'",
        ),
        ({"leave_out": [0, 1, 2, 3]}, ValueError, "leave_out leaves none of its 4 tokens"),
        ({"leave_out": ["a"]}, ValueError, "leave_out must hold ids of tokens"),
    ],
)
def test_bad_arguments_of_vllm(tmp_path, samples, arguments, error, message):
    path = write_vllm(tmp_path / "a.safetensors", samples[0])
    with pytest.raises(error, match=message):
        read_vllm(**{"paths": [path], "layers": [1, 2], **arguments})


def test_files_that_differ_or_are_damaged_are_named(tmp_path, samples):
    paths = written(tmp_path, samples[:2])
    wider = write_vllm(tmp_path / "wider.safetensors", np.ones((2, 3, D + 1), np.float32))
    with pytest.raises(ValueError, match=rf"wider\.safetensors has {D + 1} features, .*0\.safet"):
        read_vllm([*paths, wider], [1, 2])
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"1\.safetensors is no readable safetensors file"):
        read_vllm(paths, [1, 2])


def test_stacked_arrays(samples):
    is_stack_of(read_stacked(samples, [6, 2], source=KNOWN), samples, [6, 2])
    tensors = [torch.tensor(s).bfloat16().float() for s in samples]
    is_stack_of(read_stacked(tensors, [0, 1]), [t.numpy() for t in tensors], [0, 1])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            [np.ones((4, 2, D))],
            "expected .2, n_tokens.*tokens seem to come first",
        ),
        ([np.ones((3, 4, D))], r"arrays\[0\] has shape \(3, 4, 5\), expected \(2, n_tokens, n_fe"),
        ([np.ones((2, D))], r"arrays\[0\] must be 3-D floats, got shape \(2, 5\)"),
        ([np.ones((2, 4, D), int)], "must be 3-D floats, got .* int64"),
        ([np.ones((2, 4, D)), np.ones((2, 4, 3))], r"arrays\[1\] has 3 features, arrays\[0\] has"),
        ([np.ones((2, 0, D))], r"arrays\[0\] has no tokens"),
        ([np.full((2, 1, D), np.nan)], "arrays, block 3: there is NaN"),
        ([[[1.0], [2.0, 3.0]]], r"arrays\[0\] must be an array"),
        ([], "arrays must hold at least one sample"),
    ],
)
def test_bad_stacked_arrays(arrays, message):
    with pytest.raises(ValueError, match=message):
        read_stacked(arrays, [3, 4])


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_flat_values_with_offsets(tmp_path, samples, ending, dtype):
    values = np.concatenate([s[0] for s in samples]).astype(dtype)
    arrays = {"x": values, "cuts": np.array([0, 4, 5, 12], np.int32)}
    path = tmp_path / f"a.{ending}"
    np.savez(path, **arrays) if ending == "npz" else save_file(arrays, path)
    tokens = read_flat(path, values="x", offsets="cuts", source=KNOWN)
    assert (tokens.lengths.tolist(), tokens.dtype, tokens.source) == (LENGTHS, dtype, KNOWN)
    np.testing.assert_array_equal(tokens.flat(), values)
    assert on_disk(tokens.values) == (ending == "safetensors")


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8"])
def test_numbers_of_any_byte_order(tmp_path, dtype):
    values = np.arange(15.0).reshape(5, 3)
    given, path = values.astype(dtype), tmp_path / "a.npz"
    np.savez(path, values=given, offsets=np.array([0, 2, 5], ">i8"))
    read = [
        read_flat(path),
        TokenArray(given, [0, 2, 5]),
        read_padded(given[None], np.ones((1, 5))),
        read_stacked([given[None]], [1]).layer(1),
    ]
    for tokens in read:
        np.testing.assert_array_equal(tokens.flat(), values)
        assert tokens.dtype == np.dtype(dtype).newbyteorder("=")
        assert tokens.dtype.isnative
    np.savez(path, values=given.astype(">i4"), offsets=[0, 5])
    with pytest.raises(ValueError, match=r"must be 2-D floats, got shape .* of dtype int32"):
        read_flat(path)


def test_flat_bfloat16(tmp_path):
    values = torch.randn(5, 3).bfloat16()
    path = tmp_path / "a.safetensors"
    save_tensors({"values": values, "offsets": torch.tensor([0, 2, 5])}, path)
    np.testing.assert_array_equal(read_flat(path).flat(), values.float().numpy())


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"offsets": np.array([0, 2, 4])}, "offsets end at 4, but there are 5 tokens"),
        ({"offsets": np.array([1, 5])}, "start with 0"),
        (
            {"offsets": np.array([0, 2**63], np.uint64)},
            "offsets must hold .*, got 9223372036854775808",
        ),
        ({"offsets": np.array([0, 3, 3, 5])}, "sample 1 has no tokens"),
        ({"offsets": np.array([0, 4, 2, 5])}, "sample 1 has no tokens"),
        ({"offsets": np.array([0.0, 5.0])}, "'offsets' must be 1-D ints, got .* float64"),
        ({"offsets": np.array([[0, 5]])}, "'offsets' must be 1-D ints"),
        ({"offsets": np.arange(0)}, "nothing is there: 0 samples"),
        ({"values": np.ones((5, 2, 3))}, "'values' must be 2-D floats"),
        ({"values": np.ones((5, 3), np.int8)}, "'values' must be 2-D floats, got .* int8"),
        ({"values": np.ones((5, 0))}, "'values' is empty"),
        ({"values": np.r_[np.ones((4, 3)), [[0, np.nan, 0]]]}, "sample 1, token 2, feature 1"),
        ({"values": None}, r"the key 'values' is missing; it has \['offsets'\]"),
    ],
)
def test_bad_flat_files(tmp_path, ending, changed, message):
    arrays = {"values": np.ones((5, 3)), "offsets": np.array([0, 2, 5]), **changed}
    arrays = {k: v for k, v in arrays.items() if v is not None}
    path = tmp_path / f"a.{ending}"
    np.savez(path, **arrays) if ending == "npz" else save_file(arrays, path)
    with pytest.raises(ValueError, match=rf"a\.{ending}.*{message}"):
        read_flat(path)


def test_flat_files_that_claim_more_than_they_hold(tmp_path):
    header = {"values": {"dtype": "F32", "shape": [10**9, 3], "data_offsets": [0, 12 * 10**9]}}
    raw = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + b"\0" * 100)
    with pytest.raises(ValueError, match=r"a\.safetensors is no readable"):
        read_flat(path)
    np.savez(tmp_path / "b.npz", values=np.array([[None]]), offsets=[0, 1])
    with pytest.raises(ValueError, match=r"b\.npz.*which are a pickle"):
        read_flat(tmp_path / "b.npz")


@pytest.mark.parametrize("side", ["left", "right", "middle"])
@pytest.mark.parametrize("kind", [bool, np.int64, np.float32, "tensor"])
def test_padding_is_taken_off(samples, side, kind):
    width = max(LENGTHS) + 1
    values, mask = np.full((3, width, D), np.nan, np.float32), np.zeros((3, width), bool)
    for i, sample in enumerate(samples):
        n = sample.shape[1]
        first = {"left": width - n, "right": 0, "middle": (width - n) // 2}[side]
        values[i, first : first + n], mask[i, first : first + n] = sample[0], True
    given = torch.tensor(mask) if kind == "tensor" else mask.astype(kind)
    values = torch.tensor(values) if kind == "tensor" else values
    tokens = read_padded(values, given, source=KNOWN)
    assert tokens.source == KNOWN
    for made, sample in zip(tokens, samples, strict=True):
        np.testing.assert_array_equal(made, sample[0])


@pytest.mark.parametrize(
    ("values", "mask", "message"),
    [
        (np.ones((2, 4, D)), np.ones((2, 3)), r"mask must have shape \(2, 4\).* got \(2, 3\)\.$"),
        (np.ones((4, 2, D)), np.ones((2, 4)), "positions seem to come first"),
        (np.ones((2, D)), np.ones(2), "values must be 3-D floats"),
        (np.ones((2, 4, D), int), np.ones((2, 4)), "values must be 3-D floats"),
        (np.ones((2, 4, D)), np.full((2, 4), 2), "mask must hold True and False"),
        (np.ones((2, 4, D)), np.full((2, 4), -1e9), "mask must hold True and False"),
        (np.ones((2, 4, D)), np.full((2, 4), "1"), "mask must hold True and False"),
        (np.ones((2, 4, D)), [[1, 1], [1]], "mask must be an array"),
        (np.ones((2, 4, D)), [[1] * 4, [0] * 4], "values: sample 1 has no tokens"),
        (np.full((1, 1, D), np.inf), [[1]], "values: there is NaN or infinity"),
        (np.ones((0, 4, D)), np.ones((0, 4)), "nothing is there: 0 samples"),
    ],
)
def test_bad_padding(values, mask, message):
    with pytest.raises(ValueError, match=message):
        read_padded(values, mask)


def columns(arrow, samples):
    lists = [s[0].tolist() for s in samples]
    token, wide = arrow.list_(arrow.float32()), arrow.list_(arrow.float32(), D)
    plain = arrow.array(lists, arrow.list_(token))
    return {
        "lists": plain,
        "large lists": arrow.array(lists, arrow.large_list(arrow.large_list(arrow.float32()))),
        "fixed width": arrow.array(lists, arrow.list_(wide)),
        "chunks": arrow.chunked_array([plain[:1], plain[1:]]),
        "one chunk": arrow.table({"x": plain})["x"],
        "slice": arrow.array([[[9.0] * D], *lists, [[8.0] * D]], arrow.list_(wide))[1:-1],
        "slice of lists": arrow.array([[[9.0] * D], *lists], arrow.list_(token))[1:],
        "double": plain.cast(arrow.list_(arrow.list_(arrow.float64()))),
    }


@pytest.fixture(scope="module")
def arrow():
    return pytest.importorskip("pyarrow", reason="pyarrow is in the extra 'engines'")


FORMS = ["lists", "large lists", "fixed width", "chunks", "one chunk", "slice", "slice of lists"]


@pytest.mark.parametrize("form", [*FORMS, "double"])
def test_columns_of_arrow(arrow, samples, form):
    tokens = read_arrow(columns(arrow, samples)[form], source=KNOWN)
    assert isinstance(tokens, TokenArray)
    assert (tokens.source, tokens.lengths.tolist()) == (KNOWN, LENGTHS)
    for made, sample in zip(tokens, samples, strict=True):
        np.testing.assert_array_equal(made, sample[0])


def test_samples_of_one_length_in_arrow(arrow, rng):
    values = rng.normal(size=(3, 4, D)).astype(np.float32)
    kind = arrow.list_(arrow.list_(arrow.float32(), D), 4)
    np.testing.assert_array_equal(
        read_arrow(arrow.array(values.tolist(), kind)).flat(), values.reshape(12, D)
    )
    single = read_arrow(arrow.array(values[:, :1].tolist()))
    assert single.lengths.tolist() == [1, 1, 1]


def test_columns_of_datasets(arrow, samples):
    datasets = pytest.importorskip("datasets", reason="datasets is in the extra 'engines'")
    lists = {"x": [s[0].tolist() for s in samples]}
    kind = datasets.Features({"x": datasets.Array2D((None, D), "float32")})
    for features in (None, kind):
        data = datasets.Dataset.from_dict(lists, features=features)
        tokens = read_arrow(data.data.column("x"))
        assert tokens.lengths.tolist() == LENGTHS
        np.testing.assert_array_equal(tokens[2], samples[2][0])


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([1.0, 2.0], TypeError, "a list for each sample, got double"),
        ([[1.0], [2.0]], TypeError, "a list for each token, got double"),
        ([[["a"]]], ValueError, "must hold floats in lists of lists, got string"),
        ([[[1]]], ValueError, "must hold floats in lists of lists, got int64"),
        ([[[1.0, 2.0]], None], ValueError, "null where a sample is expected, at 1"),
        ([[[1.0, 2.0], None]], ValueError, "null where a token is expected, at 1"),
        ([[[1.0, None]]], ValueError, "got nulls inside"),
        ([[[1.0, 2.0]], [[3.0]]], ValueError, "token 1 of all has 1 features, the first has 2"),
        ([[[1.0, 2.0]], []], ValueError, "column: sample 1 has no tokens"),
        ([[[1.0, np.nan]]], ValueError, "column: there is NaN or infinity, first at sample 0, t"),
        ([[[]]], ValueError, "floats in lists of lists, got null"),
    ],
)
def test_bad_columns(arrow, rows, error, message):
    with pytest.raises(error, match=message):
        read_arrow(arrow.array(rows))


def test_what_is_no_column(arrow):
    with pytest.raises(TypeError, match=r"of pyarrow, got Table; table\['name'\] gives one"):
        read_arrow(arrow.table({"x": [[[1.0]]]}))
    empty = arrow.array([], arrow.list_(arrow.list_(arrow.float32())))
    for nothing in (empty, arrow.chunked_array([empty]), arrow.chunked_array([], empty.type)):
        with pytest.raises(ValueError, match="column: nothing is there"):
            read_arrow(nothing)


def test_what_is_read_is_compared_with_the_detector(tmp_path, samples):
    from sklearn.pipeline import make_pipeline

    from skact import MaxToken, MeanPrototype

    stack = read_vllm(written(tmp_path, samples), [3, 9], source=KNOWN)
    pipe = make_pipeline(MeanPrototype(), MaxToken(0.5)).fit(stack.layer(2), [0, 1, 1])
    assert pipe.predict(stack.layer(2)).shape == (3,)
    with pytest.raises(ValueError, match="another block"):
        pipe.predict(stack.layer(8))
    with pytest.raises(ValueError, match="batch comes from another block"):
        Monitor(pipe)({"activations": stack.layer(8)})
