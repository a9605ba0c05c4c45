"""Embed into a store with several processes, here or on other machines.

The processes share nothing but the store: each loads the model once and writes shards of its own.
What a process has committed stays when it dies, so calling again goes on where the last call ended.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joblib import delayed, effective_n_jobs
from sklearn.base import clone

from skact import models
from skact.arguments import N_JOBS, PATH, Number, checked, instance
from skact.embedding._embedder import TransformerEmbedder
from skact.embedding._stored import saying_what_is_left
from skact.progress import as_they_come
from skact.samples import as_list
from skact.store import ActivationStore

if TYPE_CHECKING:
    from skact.rows import Array

__all__ = ["EmbeddingReport", "embed_to_store"]

_CHUNKS_PER_WORKER = 4  # at least, so that no worker waits long for the last one


@dataclass(frozen=True)
class EmbeddingReport:
    """What a call of :func:`embed_to_store` did.

    Parameters
    ----------
    n_samples : int
        Distinct samples that were asked for; the store holds them all.
    n_embedded : int
        Those that went through the model in this call.
    n_found : int
        Those that were there, or that somebody else put there meanwhile.
    seconds : float
        Time it took.
    """

    n_samples: int
    n_embedded: int
    n_found: int
    seconds: float


def _embed_chunk(
    embedder: TransformerEmbedder, samples: list[Any], numbers: list[int]
) -> tuple[int, int, models.Seen]:
    """Embed samples in a worker; how many there were, and it embedded, and what it noticed."""
    try:
        stored = embedder._in_store(samples)
        return len(samples), stored.fill().n_embedded, stored.seen
    except Exception as error:
        error.add_note(
            "It happened in a worker. A sample number in the message counts within its chunk, "
            f"which held the samples {numbers[:5]}{'...' if len(numbers) > 5 else ''}."
        )
        raise


@checked(
    embedder=[instance("a TransformerEmbedder(...)", TransformerEmbedder)],
    store=[instance("an ActivationStore(...)", ActivationStore), PATH],
    n_jobs=[N_JOBS, None],
    chunk_size=[Number(Integral, 1, None, closed="left")],
    progress=["boolean"],
)
def embed_to_store(
    samples: Any,
    embedder: TransformerEmbedder,
    store: ActivationStore | str | Path,
    *,
    n_jobs: int | None = None,
    chunk_size: int = 2048,
    progress: bool = False,
) -> EmbeddingReport:
    """Embed samples into a store, with as many processes as joblib is told to use.

    Only what the store lacks is handed out, duplicates once. Workers are those of joblib: processes
    of this machine, or of a cluster inside ``joblib.parallel_config("dask")`` or ``("ray")``; on
    other machines they must see the folder of the store under the same path. Nothing is returned
    but counts: ask the embedder with ``store=store`` for the activations.

    Parameters
    ----------
    samples : sequence of n_samples texts or images
        As for the embedder.
    embedder : TransformerEmbedder
        Says model and layers; its own ``store`` and ``progress`` are not used. Workers load the
        model by its name or folder, once each; this process loads it as well, to know what the
        store lacks.
    store : ActivationStore, str or Path
        Where activations go; a path means ``ActivationStore(path)``.
    n_jobs : int or None, default=None
        Number of workers, -1 for one per core. None is what ``joblib.parallel_config`` says, and
        one outside of it. If there is one only, it is this process.
    chunk_size : int, default=2048
        Most samples that a worker is handed at a time, and loses if it dies.
    progress : bool, default=False
        Whether to show one bar for all workers.

    Returns
    -------
    report : EmbeddingReport
        ``n_samples``, ``n_embedded``, ``n_found`` and ``seconds``.

    Raises
    ------
    RuntimeError
        If a worker died. What was committed is in the store, and calling again goes on.
    ValueError
        If workers cannot load the model: a loaded pair must have come from a name or folder.

    See Also
    --------
    TransformerEmbedder : With ``store=``, embeds in this process and returns activations.

    Notes
    -----
    joblib and dask give each worker its share of the cores (``OMP_NUM_THREADS``), which the model
    keeps to. Several calls may fill one store at once, from any number of machines: each takes
    what no other has begun.
    """
    start = time.monotonic()
    store = store if isinstance(store, ActivationStore) else ActivationStore(store)
    embedder = clone(embedder).set_params(store=store, progress=False)
    stored = embedder._in_store(samples)
    samples = as_list(samples)
    distinct = stored.distinct()

    def lacking() -> Array:
        return distinct[stored.missing()[distinct]]

    todo, n_embedded, seen = lacking(), 0, models.Seen()
    with saying_what_is_left(len(distinct), lambda: len(lacking())):
        if len(todo) and effective_n_jobs(n_jobs) == 1:
            embedder.set_params(progress=progress)
            new = embedder._in_store([samples[i] for i in todo])
            n_embedded, seen = new.fill().n_embedded, new.seen
        elif len(todo):
            _check_can_be_sent(embedder)
            n_embedded, seen = _share_out(samples, todo, embedder, n_jobs, chunk_size, progress)
        if len(left := lacking()):
            raise RuntimeError(
                f"the workers have embedded all samples, but the store lacks {len(left)}: their "
                "model, its dtype or their libraries differ from those of this process."
            )
    stored.reader.warn_of(seen)
    n_samples = len(distinct)
    seconds = time.monotonic() - start
    return EmbeddingReport(n_samples, n_embedded, n_samples - n_embedded, seconds)


def _check_can_be_sent(embedder: TransformerEmbedder) -> None:
    model = embedder.model
    if isinstance(model, tuple) and not models.detach(model, embedder.modality).name:
        raise ValueError(
            "model is a loaded pair without a name, which cannot be sent to other processes; "
            "give the embedder a name or a folder (save_pretrained makes one), or use n_jobs=1."
        )


def _share_out(
    samples: list[Any],
    todo: Array,
    embedder: TransformerEmbedder,
    n_jobs: int | None,
    chunk_size: int,
    progress: bool,
) -> tuple[int, models.Seen]:
    """Hand chunks to workers; how many samples they embedded, and what they noticed."""
    from tqdm.auto import tqdm

    share = -(-len(todo) // (_CHUNKS_PER_WORKER * effective_n_jobs(n_jobs)))
    size = min(chunk_size, max(share, embedder.batch_size))
    chunks = [todo[i : i + size].tolist() for i in range(0, len(todo), size)]
    tasks = (delayed(_embed_chunk)(embedder, [samples[i] for i in c], c) for c in chunks)
    n_embedded, seen = 0, models.Seen()
    with tqdm(total=len(todo), desc="Embedding", unit="sample", disable=not progress) as bar:
        for n_samples, n_new, noticed in as_they_come(tasks, n_jobs):
            n_embedded += n_new
            seen.add(noticed)
            bar.update(n_samples)
    return n_embedded, seen
