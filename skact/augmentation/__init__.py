"""Texts by a language model: originals embedded in paragraphs, or paragraphs written new."""

from skact.augmentation._augment import embed_in_paragraphs, write_paragraphs
from skact.augmentation._drafts import DraftWriter
from skact.augmentation._match import Quote, find_original
from skact.augmentation._prompts import EMBEDDING_PROMPTS, TOPICS, WRITING_PROMPTS

__all__ = [
    "EMBEDDING_PROMPTS",
    "TOPICS",
    "WRITING_PROMPTS",
    "DraftWriter",
    "Quote",
    "embed_in_paragraphs",
    "find_original",
    "write_paragraphs",
]
