"""Tiny models of real architectures, built from configs, with random weights."""

from __future__ import annotations

import os

# Nothing in the tests may wait for a hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from functools import lru_cache
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

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


def save_pair(pair: tuple[Any, Any], folder: Any) -> str:
    """Write a pair to a folder that can be named as a model."""
    for part in pair:
        part.save_pretrained(folder)
    return str(folder)
