"""Data to learn and test with: generated scenes and paragraphs, readers for labelled folders."""

from skact.datasets._masks import MaskFiles, load_masks
from skact.datasets._paragraphs import make_paragraphs
from skact.datasets._shapes import make_shapes, shapes_model_path
from skact.datasets._spans import Span, load_spans, parse_tags

__all__ = [
    "MaskFiles",
    "Span",
    "load_masks",
    "load_spans",
    "make_paragraphs",
    "make_shapes",
    "parse_tags",
    "shapes_model_path",
]
