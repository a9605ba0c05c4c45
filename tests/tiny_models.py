"""Tiny models of real architectures, built from configs, with random weights."""

from __future__ import annotations

import os

# Nothing in the tests may wait for a hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from functools import lru_cache
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

N_BLOCKS, WIDTH = 4, 32
_COMMON = {
    "hidden_size": WIDTH,
    "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.3,
}
_WORDS = ["the", "cat", "sat", "happy", "angry", "##ing", "##ed", "not"]
_MERGES = [("t", "h"), ("th", "e"), ("i", "n"), ("in", "g"), ("Ġ", "the"), ("a", "t")]


def wordpiece_tokenizer(**options: Any) -> Any:
    """Lower-casing WordPiece with [CLS] and [SEP]."""
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters), *_WORDS]
    tokenizer = Tokenizer(models.WordPiece({n: i for i, n in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **options)


def bytes_tokenizer(bos: str | None = None, **options: Any) -> Any:
    """Byte-level BPE without pad token; with or without a token at the start."""
    names = [*([bos] if bos else []), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += ["".join(merge) for merge in _MERGES]
    tokenizer = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, _MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, 0)]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, **options
    )


_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA_WORDS = ["the", " the", " cat", " sat", ".", "今天", " 😀", "\n\n", "é"]


class WrongOffsetsTokenizer(transformers.PreTrainedTokenizerFast):
    """Says of a word that is in the vocabulary that it ends where it starts (tokenizers#1688)."""

    def __call__(self, texts: Any, **options: Any) -> Any:
        got = super().__call__(texts, **options)
        if "offset_mapping" in got:
            rows = zip(texts, got["input_ids"], got["offset_mapping"], strict=True)
            got["offset_mapping"] = [self._spoil(*row) for row in rows]
        return got

    def _spoil(self, text: str, ids: list[int], offsets: list[Any]) -> list[Any]:
        words = set(self.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text))
        tokens = zip(self.convert_ids_to_tokens(ids), offsets, strict=True)
        return [(s, s) if (name, (s, e)) in words else (s, e) for name, (s, e) in tokens]


def llama3_tokenizer(wrong: bool = False, **options: Any) -> Any:
    """Byte-level BPE as in Llama 3: words in the vocabulary are not put together by merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = ["".join(w for w, _ in spell.pre_tokenize_str(word)) for word in _LLAMA_WORDS]
    # Two bytes of an emoji and its last two with a letter: tokens that cut through characters.
    merges = [("ð", "Ł"), ("ĺ", "Ģ"), ("ĺĢ", "x")]
    pieces = ["".join(merge) for merge in merges]
    names = dict.fromkeys(["<|begin_of_text|>", *alphabet, *words, *pieces])
    bpe = models.BPE({n: i for i, n in enumerate(names)}, merges, ignore_merges=True)
    tokenizer = Tokenizer(bpe)
    split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, spell])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    build = WrongOffsetsTokenizer if wrong else transformers.PreTrainedTokenizerFast
    return build(tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", **options)


def _text_parts(kind: str) -> tuple[Any, Any]:
    if kind == "bert":
        tokenizer = wordpiece_tokenizer()
        config = transformers.BertConfig(**_COMMON, max_position_embeddings=64)
        return config, tokenizer
    tokenizer = bytes_tokenizer({"llama": "<s>", "gemma2": "<bos>"}.get(kind))
    grouped = {**_COMMON, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    config = {
        "gpt2": lambda: transformers.GPT2Config(
            n_embd=WIDTH, n_layer=N_BLOCKS, n_head=4, n_positions=128, initializer_range=0.3, **ids
        ),
        "llama": lambda: transformers.LlamaConfig(**grouped, **ids),
        "gemma2": lambda: transformers.Gemma2Config(**grouped, **ids, sliding_window=16),
        "qwen3": lambda: transformers.Qwen3Config(**grouped, **ids),
    }[kind]()
    return config, tokenizer


TEXT = ("bert", "gpt2", "llama", "gemma2", "qwen3")


@lru_cache
def text_pair(kind: str, head: bool = False) -> tuple[Any, Any]:
    """Model and tokenizer of one of the kinds in ``TEXT``; one object per kind, do not change."""
    config, tokenizer = _text_parts(kind)
    config.vocab_size = len(tokenizer)
    torch.manual_seed(sum(map(ord, kind)))
    build = transformers.AutoModelForCausalLM if head else transformers.AutoModel
    return build.from_config(config).float().eval(), tokenizer


IMAGE = ("vit", "dinov2", "clip")


def projections(attention: Any) -> list[Any]:
    """Find the linear maps of a vision transformer to queries, keys, values and out of the heads.

    Those of DINOv2 have other names before transformers 5.18.
    """
    names = "q_proj", "k_proj", "v_proj", "o_proj"
    if not hasattr(attention, "q_proj"):
        names = "attention.query", "attention.key", "attention.value", "output.dense"
    return [attention.get_submodule(name) for name in names]


IMAGE_SIZE, PATCH = 28, 7


@lru_cache
def image_pair(kind: str, head: bool = False) -> tuple[Any, Any]:
    """Model and image processor of one of the kinds in ``IMAGE``; do not change."""
    torch.manual_seed(sum(map(ord, kind)))
    geometry = {"image_size": IMAGE_SIZE, "patch_size": PATCH}
    if kind == "clip":
        config = transformers.CLIPVisionConfig(**_COMMON, **geometry)
        processor = transformers.CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE},
            crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        )
        model: Any = transformers.CLIPVisionModel(config)
    elif kind == "dinov2":
        # Keeps the aspect ratio and does not crop: the grid follows the image.
        config = transformers.Dinov2Config(**_COMMON, **geometry)
        processor = transformers.BitImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE}, do_center_crop=False
        )
        model = transformers.Dinov2Model(config)
    else:
        config = transformers.ViTConfig(**_COMMON, **geometry, num_labels=3)
        processor = transformers.ViTImageProcessorPil(
            size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        )
        build = transformers.ViTForImageClassification if head else transformers.ViTModel
        model = build(config)
    return model.eval(), processor


@lru_cache
def clip_model() -> Any:
    """CLIP with both towers; do not change."""
    torch.manual_seed(7)
    vocabulary = len(wordpiece_tokenizer())
    config = transformers.CLIPConfig(
        text_config={
            **_COMMON,
            "vocab_size": vocabulary,
            "max_position_embeddings": 64,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "pad_token_id": 0,
        },
        vision_config={**_COMMON, "image_size": IMAGE_SIZE, "patch_size": PATCH},
    )
    return transformers.CLIPModel(config).eval()


# The models of the paper, whole in depth and narrow in width.

_NARROW = {"hidden_size": WIDTH, "num_attention_heads": 4, "intermediate_size": 48}
_GROUPED = {**_NARROW, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512}
PAPER_TEXT = ("gemma2-9b", "qwen3-embedding-4b", "llama-3.2-vision text")
PAPER_IMAGE = ("clip-vit-l/14", "llama-3.2-vision image")
TILE = 28


def llama_processor(size: int) -> Any:
    """Image processor of Llama-3.2-Vision, with tiles of that size."""
    return transformers.MllamaImageProcessorPil(size={"height": size, "width": size})


def llama_vision_config(tile: int, patch: int, **options: Any) -> Any:
    """Image side of Llama-3.2-Vision: 32 local and 8 global blocks unless said otherwise."""
    options = {"intermediate_layers_indices": [3, 7, 15, 23, 30], **options}
    n_outputs = 1 + len(options["intermediate_layers_indices"])
    return transformers.MllamaVisionConfig(
        hidden_size=WIDTH,
        attention_heads=4,
        intermediate_size=48,
        image_size=tile,
        patch_size=patch,
        vision_output_dim=n_outputs * WIDTH,
        **options,
    )


def llama_vision_text_config(vocab_size: int) -> Any:
    """Text side of Llama-3.2-Vision: 40 blocks, 8 of them for images."""
    return transformers.MllamaTextConfig(
        **_NARROW,
        vocab_size=vocab_size,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )


def qwen_tokenizer() -> Any:
    """Byte-level BPE that pads on the left and ends each text with a token, as Qwen3-Embedding."""
    tokenizer = bytes_tokenizer(padding_side="left")
    end = "<|endoftext|>"
    tokenizer.add_special_tokens({"eos_token": end, "pad_token": end})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    return tokenizer


def _awake(model: Any, seed: int) -> Any:
    """Give every weight a value, gates too, so that nothing is multiplied by zero or one."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            middle = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(middle + 0.2 * torch.randn_like(parameter))
            if "gate" in name and parameter.numel() == 1:
                parameter.fill_(0.5)
    return model.eval()


@lru_cache
def llama_vision_model() -> Any:
    """Llama-3.2-Vision with both sides; do not change."""
    vision = llama_vision_config(TILE, PATCH)
    text = llama_vision_text_config(len(llama3_tokenizer()))
    config = transformers.MllamaConfig(vision_config=vision, text_config=text)
    return _awake(transformers.MllamaModel(config), 1)


@lru_cache
def paper_pair(kind: str) -> tuple[Any, Any]:
    """Model and tokenizer or image processor of a model of the paper; do not change."""
    if kind == "llama-3.2-vision text":
        return llama_vision_model().language_model, llama3_tokenizer(padding_side="left")
    if kind == "llama-3.2-vision image":
        return llama_vision_model().vision_model, llama_processor(TILE)
    if kind == "clip-vit-l/14":
        size = {"height": 224, "width": 224}
        config = transformers.CLIPVisionConfig(
            **_NARROW, num_hidden_layers=24, image_size=224, patch_size=14
        )
        processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size=size)
        return _awake(transformers.CLIPVisionModel(config), 2), processor
    if kind == "gemma2-9b":
        tokenizer = bytes_tokenizer("<bos>")
        config = transformers.Gemma2Config(
            **_GROUPED, num_hidden_layers=42, sliding_window=16, vocab_size=len(tokenizer)
        )
        return _awake(transformers.Gemma2Model(config), 3), tokenizer
    tokenizer = qwen_tokenizer()
    config = transformers.Qwen3Config(**_GROUPED, num_hidden_layers=36, vocab_size=len(tokenizer))
    return _awake(transformers.Qwen3Model(config), 4), tokenizer


def save_pair(pair: tuple[Any, Any], folder: Any) -> str:
    """Write a pair to a folder that can be named as a model."""
    for part in pair:
        part.save_pretrained(folder)
    return str(folder)


# Families whose blocks, or whose hidden states, are not laid out as usual.

_WIDE = {"emb_dim": WIDTH, "n_layers": N_BLOCKS, "n_heads": 4, "max_position_embeddings": 66}
_MAMBA = {"hidden_size": WIDTH, "num_hidden_layers": N_BLOCKS, "state_size": 8}
_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "albert": ("Albert", {**_COMMON, "embedding_size": 16}),
    "opt-350m": (
        "OPT",
        {
            "hidden_size": WIDTH,
            "num_hidden_layers": N_BLOCKS,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "word_embed_proj_dim": 16,
            "do_layer_norm_before": False,
        },
    ),
    "mamba": ("Mamba", _MAMBA),
    "mamba2": ("Mamba2", {**_MAMBA, "num_heads": 8, "head_dim": 8, "n_groups": 1}),
    "rwkv": (
        "Rwkv",
        {
            "hidden_size": WIDTH,
            "num_hidden_layers": N_BLOCKS,
            "context_length": 64,
            "rescale_every": 2,
        },
    ),
    "xlnet": ("XLNet", {"d_model": WIDTH, "n_layer": N_BLOCKS, "n_head": 4, "d_inner": 48}),
    "longformer": ("Longformer", {**_COMMON, "attention_window": [8] * N_BLOCKS}),
    "deberta-v2-xlarge": (
        "DebertaV2",
        {**_COMMON, "relative_attention": True, "conv_kernel_size": 3, "conv_act": "gelu"},
    ),
    "xlm": ("XLM", _WIDE),
    "flaubert": ("Flaubert", _WIDE),
    "squeezebert": ("SqueezeBert", {**_COMMON, "embedding_size": WIDTH}),
}
FAMILIES = tuple(_FAMILIES)


@lru_cache
def family_pair(kind: str) -> tuple[Any, Any]:
    """Model and tokenizer of one of the kinds in ``FAMILIES``; do not change."""
    name, options = _FAMILIES[kind]
    tokenizer = wordpiece_tokenizer()
    config = getattr(transformers, f"{name}Config")(**options, vocab_size=len(tokenizer))
    torch.manual_seed(sum(map(ord, kind)))
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2 and parameter.std() < 0.1:
                parameter.mul_(0.2 / parameter.std())  # far from the identity
    return model.eval(), tokenizer
