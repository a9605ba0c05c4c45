"""Names, folders and placement of models."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from skact.embedding import TransformerEmbedder
from skact.models import _hub as hub
from skact.models._hub import (
    Checkpoint,
    PairKind,
    check_placement,
    first_weight,
    load_pair,
)
from tests import tiny_models

PARTS = "config and weights"
OPTIONS = {"revision": None, "trust_remote_code": False}


def checkpoint(model, **options):
    return Checkpoint.named(model, PARTS, **{**OPTIONS, **options})


@pytest.fixture
def folder(tmp_path):
    return tiny_models.save_pair(tiny_models.text_pair("bert"), tmp_path / "bert")


def test_a_folder_is_told_from_a_name(folder, monkeypatch):
    monkeypatch.chdir(os.path.dirname(folder))
    monkeypatch.setenv("HOME", os.path.dirname(folder))
    for form in (folder, Path(folder), "bert", "./bert", "~/bert"):
        assert checkpoint(form).name == folder
    assert checkpoint("no-such").name == "no-such"
    assert checkpoint("nobody/nothing").name == "nobody/nothing"


@pytest.mark.parametrize(
    "model", [Path("nobody/nothing"), "./nothing", "/no/such", "~/no", "a/b/c"]
)
def test_a_folder_that_is_not_there(model):
    with pytest.raises(ValueError, match=r"model names the folder '.*', which does not exist"):
        checkpoint(model)


def test_each_part_is_loaded_once_until_its_folder_changes(folder):
    one = checkpoint(folder)
    load = [
        lambda: one.fetch("config", transformers.AutoConfig),
        lambda: one.fetch("tokenizer", transformers.AutoTokenizer),
        lambda: one.model(transformers.AutoModel, "auto", "auto"),
        lambda: one.model(transformers.AutoModel, "cpu", "bfloat16"),
    ]
    first = [again() for again in load]
    assert all(again() is was for again, was in zip(load, first, strict=True))
    assert first[2] is not first[3]
    assert not first[2].training
    dtypes = [first_weight(model).dtype for model in first[2:]]
    assert dtypes == [torch.float32 if not torch.cuda.is_available() else dtypes[0], torch.bfloat16]
    other = checkpoint(folder, revision="main")
    assert other.model(transformers.AutoModel, "auto", "auto") is not first[2]
    (Path(folder) / "note.txt").write_text("new")
    assert all(again() is not was for again, was in zip(load, first, strict=True))


def test_precision_of_a_checkpoint(tmp_path):
    model = copy.deepcopy(tiny_models.text_pair("bert")[0]).half()
    model.save_pretrained(tmp_path)
    one = checkpoint(tmp_path)
    assert first_weight(one.model(transformers.AutoModel, "cpu", "auto")).dtype == torch.float32
    assert first_weight(one.model(transformers.AutoModel, "meta", "auto")).dtype == torch.float16


def test_errors_say_what_to_do(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    needs = 'holds its config and weights: model="/path/to/folder"'
    with pytest.raises(OSError, match=f"'nobody/nothing': no usable config was .*locally.*{needs}"):
        checkpoint("nobody/nothing").fetch("config", transformers.AutoConfig)
    with pytest.raises(OSError, match=f"{tmp_path}': no usable model was found in the .*{needs}"):
        checkpoint(tmp_path).model(transformers.AutoModel, "cpu", "auto")


@pytest.mark.parametrize("shown", [True, False])
def test_no_progress_bar_is_shown_and_the_setting_survives(folder, shown, monkeypatch, capfd):
    monkeypatch.setattr(hub, "_LOADED", {})
    logging = transformers.utils.logging
    before = logging.is_progress_bar_enabled()
    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
    try:
        checkpoint(folder).model(transformers.AutoModel, "cpu", "auto")
        with pytest.raises(OSError, match="no usable model"):
            checkpoint(Path(folder).parent).model(transformers.AutoModel, "cpu", "auto")
        assert logging.is_progress_bar_enabled() is shown
        assert "%|" not in capfd.readouterr().err
        transformers.AutoModel.from_pretrained(folder)
        assert ("%|" in capfd.readouterr().err) is shown
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("meta", "auto", "device='meta', but the loaded model lies on cpu"),
        ("auto", "float16", "dtype='float16', but the loaded model has torch.float32"),
    ],
)
def test_a_loaded_model_stays_as_it_is(device, dtype, message):
    model, _ = tiny_models.text_pair("bert")
    check_placement(model, "auto", "auto")
    check_placement(model, "cpu:0", "float32")
    with pytest.raises(ValueError, match=message):
        check_placement(model, device, dtype)


def bert_kind(**changes):
    def fetch(one, device, dtype):
        model = one.model(transformers.AutoModel, device, dtype)
        return model, one.fetch("tokenizer", transformers.AutoTokenizer)

    says = {"parts": PARTS, "model": "a BERT", "processor": "its tokenizer", "has": "pooler"}
    return PairKind(**{**says, "is_processor": callable, "fetch": fetch, **changes})


def test_a_name_and_a_pair_end_in_the_same(folder):
    model, tokenizer, name = load_pair(folder, bert_kind(), "auto", "auto", **OPTIONS)
    assert (name, model.dtype) == (folder, torch.float32)
    pair = load_pair((model, tokenizer), bert_kind(), "cpu", "float32", **OPTIONS)
    assert pair == (model, tokenizer, folder)  # a loaded model knows where it came from
    nameless = tiny_models.text_pair("bert")
    assert load_pair(nameless, bert_kind(), "auto", "auto", **OPTIONS) == (*nameless, "BertModel")


@pytest.mark.parametrize(
    ("changes", "dtype", "error", "message"),
    [
        ({"has": "generate"}, "auto", TypeError, "first of the pair .* a BERT, got BertModel"),
        ({"is_processor": str.isdigit}, "auto", TypeError, "second .* its tokenizer, got str"),
        ({"is_processor": bool}, "float16", ValueError, "dtype='float16', but the loaded model"),
    ],
)
def test_a_pair_of_another_kind_is_refused(changes, dtype, error, message):
    pair = tiny_models.text_pair("bert")[0], "tokenizer"
    with pytest.raises(error, match=message):
        load_pair(pair, bert_kind(**changes), "auto", dtype, **OPTIONS)


def test_what_is_loaded_in_passing_is_not_kept(folder):
    kept = checkpoint(folder).fetch("config", transformers.AutoConfig)
    with hub.passing():
        passed = checkpoint(folder).fetch("tokenizer", transformers.AutoTokenizer)
    assert checkpoint(folder).fetch("config", transformers.AutoConfig) is kept
    assert checkpoint(folder).fetch("tokenizer", transformers.AutoTokenizer) is not passed


def test_random_weights_are_warned_about(folder):
    from safetensors.torch import load_file, save_file

    file = Path(folder, "model.safetensors")
    weights = load_file(file)
    checkpoint(folder).model(transformers.AutoModel, "cpu", "float32")  # warns of nothing
    name = next(name for name in weights if "layer.2.output.dense.weight" in name)
    pooled = {k: v for k, v in weights.items() if "pooler" not in k}
    save_file(pooled, file, metadata={"format": "pt"})
    checkpoint(folder).model(transformers.AutoModel, "cpu", "float32")
    del pooled[name]
    save_file(pooled, file, metadata={"format": "pt"})
    with pytest.warns(UserWarning, match=r"1 weights, such as .*layer.2.output.dense.weight"):
        checkpoint(folder).model(transformers.AutoModel, "cpu", "float32")


def test_the_length_of_trained_sentences_is_read_where_it_is_stated(folder):
    assert hub.sentence_length(folder, None) is None
    hub.sentence_length.cache_clear()
    Path(folder, "sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    assert hub.sentence_length(folder, None) == 7
    found = TransformerEmbedder(folder, layer=0)
    with pytest.warns(UserWarning, match="1 of 1 texts was too long"):
        assert found.transform(["the cat sat on the thing the cat"]).lengths.tolist() == [5]
    assert TransformerEmbedder(folder, max_length=9).prepare(["cat " * 20]).n_tokens == 7


def write_gguf(path):
    """A tiny language model in the format of llama.cpp."""
    gguf = pytest.importorskip("gguf", reason="GGUF files need the extra 'gguf'")
    pytest.importorskip("accelerate", reason="GGUF files need the extra 'gguf'")
    rng, wide, n_blocks = np.random.default_rng(0), 32, 2
    words = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁the", "▁cat", "a"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(wide)
    writer.add_block_count(n_blocks)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([-float(i) for i in range(len(words))])
    writer.add_token_types([2, 3, 3, *[6] * 256, 1, 1, 1])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    shapes = {"token_embd": (len(words), wide), "output_norm": (wide,)}
    for b in range(n_blocks):
        square = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (wide, wide))
        fed = {"ffn_gate": (48, wide), "ffn_up": (48, wide), "ffn_down": (wide, 48)}
        norms = dict.fromkeys(("attn_norm", "ffn_norm"), (wide,))
        shapes |= {f"blk.{b}.{name}": shape for name, shape in (square | fed | norms).items()}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_a_model_like_a_folder(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    found = TransformerEmbedder(str(path), layer=[0, 1], store=tmp_path / "store")
    tokens = found.transform(["the cat", "a"])
    assert tokens.layers == [0, 1]
    assert tokens.layer(1).source.model == str(path)
    again = TransformerEmbedder(path, layer=1).transform(["the cat", "a"])
    np.testing.assert_array_equal(again.flat(), tokens.layer(1).flat())


def test_a_gguf_file_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"model names the file '.*no.gguf', which does not exist"):
        checkpoint("folder/no.gguf")
