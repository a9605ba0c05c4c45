"""Activations on disk: embedded once, read by any number of processes.

:class:`ActivationStore` is all that users see. Samples and layers are named by keys that the store
is given. Rows lie in immutable files (``_shards``; ``_pending`` while they are written), of which
an SQLite index says what they hold (``_index``). ``_fill`` embeds what is missing, while
``_claims`` keep several processes from doing the same work; ``_upkeep`` verifies and prunes;
``_exchange`` exports a layer. Knows neither models nor embedders.
"""

from skact.store._fill import Filled, Job
from skact.store._records import Identity
from skact.store._store import ActivationStore

__all__ = ["ActivationStore", "Filled", "Identity", "Job"]
