"""Ragged containers for the tokens of many samples.

A sample is a matrix of tokens, and samples differ in length. :class:`TokenArray` keeps all of
them in **one** flat array without padding: row ``offsets[i] + j`` of ``values`` is token ``j`` of
stored sample ``i``. A third array, ``index``, says which stored samples the container shows, so
slicing samples copies a few integers and never a token, and joblib memory-maps one array instead
of pickling thousands. :class:`LayerStack` holds several layers of the same samples.

``values`` may also be a mapped file, rows in several files, or rows that are computed when they are
read (:mod:`skact.rows`). Whatever goes through :meth:`TokenArray.blocks` then never holds more
than a small piece of them.

Both have ``shape == (n_samples, n_features)`` and index like an array along samples, which is all
that scikit-learn's splitters and meta-estimators ask for.
"""

from skact.tokens._array import TokenArray
from skact.tokens._shapes import check_segments, join_segments, join_shapes, same_shapes
from skact.tokens._source import Columns, Labels, Site, Source, rescaled
from skact.tokens._stack import LayerStack
from skact.tokens._view import SampleView, with_row_labels

__all__ = [
    "Columns",
    "Labels",
    "LayerStack",
    "SampleView",
    "Site",
    "Source",
    "TokenArray",
    "check_segments",
    "join_segments",
    "join_shapes",
    "rescaled",
    "same_shapes",
    "with_row_labels",
]
