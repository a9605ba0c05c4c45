"""Data to learn and test with: generated scenes and paragraphs, readers for labelled data sets."""

from skact.datasets._broden import load_broden
from skact.datasets._clevr import load_clevr
from skact.datasets._coco import load_coco
from skact.datasets._conll import load_conll
from skact.datasets._exports import load_brat, load_label_studio, load_tagged
from skact.datasets._gather import draw_splits
from skact.datasets._labelme import load_labelme
from skact.datasets._mask_folder import load_mask_folder
from skact.datasets._masks import MaskFiles, load_masks
from skact.datasets._paper import PAPER_CONCEPTS
from skact.datasets._paragraphs import make_paragraphs
from skact.datasets._shapes import make_shapes, shapes_model_path
from skact.datasets._span import Span
from skact.datasets._spans import load_spans, parse_tags
from skact.datasets._tables import load_goemotions, load_isarcasm, load_table
from skact.datasets._voc import load_voc

__all__ = [
    "PAPER_CONCEPTS",
    "MaskFiles",
    "Span",
    "draw_splits",
    "load_brat",
    "load_broden",
    "load_clevr",
    "load_coco",
    "load_conll",
    "load_goemotions",
    "load_isarcasm",
    "load_label_studio",
    "load_labelme",
    "load_mask_folder",
    "load_masks",
    "load_spans",
    "load_table",
    "load_tagged",
    "load_voc",
    "make_paragraphs",
    "make_shapes",
    "parse_tags",
    "shapes_model_path",
]
