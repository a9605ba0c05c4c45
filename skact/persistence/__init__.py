"""Keeping fitted estimators: one safetensors file each, which is data and never runs.

:func:`save` writes parameters, fitted state, names and sources as nodes (``_encoding``), with the
arrays as tensors (``_container``); :func:`load` makes objects of a fixed list of classes again
(``_classes``, ``_decoding``); :func:`describe` says to a person what a file holds (``_card``).
"""

from skact.persistence._card import ModelCard
from skact.persistence._saving import describe, load, save

__all__ = ["ModelCard", "describe", "load", "save"]
