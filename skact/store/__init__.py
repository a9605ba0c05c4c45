"""Activations on disk: embedded once, read by any number of processes.

:class:`ActivationStore` is all that users see. Samples and layers are named by keys that the store
is given. Rows lie in safetensors files that are never changed (``_format``, ``_layer_writer``,
``_shards``), and an SQLite index says which sample is where (``_index``, ``_entries``). ``_fill``
embeds what is missing, ``_windows`` and chunks at a time (``_chunk``), while ``_claims`` keep
several processes from doing the same work; ``_verify`` compares all of it and makes the index anew,
``_upkeep`` prunes, ``_forget`` removes samples for good; ``_exchange`` copies a layer into a file
and back, and ``_recorded`` takes in what somebody else has recorded; ``_planned`` tells the size of
files to come. Knows neither models nor embedders.

The shards say of themselves what they hold, and are believed more than the index: rows are given
out only from a file of this folder that names layer and sample as they were asked for. A file is
removed only under the lock of the index, when no row names it.
"""

from skact.store._fill import Filled, Job
from skact.store._planned import shard_bytes
from skact.store._records import Identity
from skact.store._store import ActivationStore

__all__ = ["ActivationStore", "Filled", "Identity", "Job", "shard_bytes"]
