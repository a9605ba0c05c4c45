"""Activations on disk: embedded once, read by any number of processes.

:class:`ActivationStore` is all that users see. A sample and a layer are named by hashes of their
content (``_identity``). Rows lie in immutable files (``_shards``; ``_pending`` while they are
written), of which an SQLite index says what they hold (``_index``). ``_fill`` embeds what is
missing, while ``_claims`` keep several processes from doing the same work; ``_upkeep`` verifies and
prunes; ``_exchange`` exports a layer. Only ``_identity`` needs torch, and only where a model is at
hand.
"""

from skact.embedding.store._store import ActivationStore

__all__ = ["ActivationStore"]
