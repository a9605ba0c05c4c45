"""Run a model over many samples and write what its blocks put out into flat arrays.

Samples are taken from the longest to the shortest and cut into batches of at most B positions,
padding included: many short samples or few long ones at a time. A batch pads n_b samples to its
longest, of length M_b, where the shortest has m_b, so over all batches the padding is at most

    sum_b n_b (M_b - m_b) <= B sum_b (1 - m_b / M_b) <= B log(longest / shortest),

since n_b M_b <= B, 1 - x <= -log(x), and no batch begins above the length at which the one before
ended. However many samples there are, the padding does not grow.

Imports torch: import this module only where a model is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from skact.models._hooks import capture
from skact.models._memory import run_batches
from skact.models._prepare import ImageInputs, TextInputs
from skact.models._seen import Seen
from skact.models._writer import Writer, send
from skact.progress import Bar, token_bar
from skact.rows import Array, Arrays, Sink

__all__ = ["Batches", "ForwardPass"]


class Batches:
    """Samples from the longest to the shortest, cut into batches that stack.

    Long ones come first: if memory does not suffice, that shows at once.

    Parameters
    ----------
    inputs : TextInputs or ImageInputs
        The samples.
    rows : ndarray of shape (n_samples,), int
        Which of them.
    """

    def __init__(self, inputs: TextInputs | ImageInputs, rows: Array) -> None:
        self.inputs = inputs
        self.rows = rows
        self.lengths = inputs.lengths[rows]
        self.groups = inputs.groups[rows]
        self.order = np.lexsort((self.groups, -self.lengths))

    def cut(self, n_done: int, budget: int) -> Array:
        """Take samples of one group while, padded to the first of them, they fill no more.

        Parameters
        ----------
        n_done : int
            Samples of earlier batches.
        budget : int
            Positions; a longer sample is a batch by itself.

        Returns
        -------
        samples : ndarray of shape (n_batch,), int
            Places in ``rows``; none at the end.
        """
        samples = self.order[n_done:]
        if len(samples):
            samples = samples[: max(1, budget // int(self.lengths[samples[0]]))]
            groups = self.groups[samples]
            samples = samples[: int(np.argmin(np.append(groups == groups[0], False)))]
        return samples

    def n_positions(self, samples: Array) -> int:
        """Positions of a batch, padding included."""
        return len(samples) * int(self.lengths[samples[0]])

    def batch(self, samples: Array) -> tuple[dict[str, Tensor], Array]:
        """Return what the model reads of a batch, and which positions are tokens."""
        return self.inputs.batch(self.rows[samples])


class _Ahead:
    """Batches, of which the next is made ready in another thread while one is run.

    Parameters
    ----------
    batches : Batches
        The samples.
    thread : ThreadPoolExecutor
        With one worker.

    Attributes
    ----------
    ready : Future
        What the model reads of the batch that was cut last, and which positions are tokens.
    """

    def __init__(self, batches: Batches, thread: ThreadPoolExecutor) -> None:
        self.batches = batches
        self.thread = thread
        self._place: tuple[int, int] | None = None

    def cut(self, n_done: int, budget: int) -> Array:
        """Cut a batch, and begin with the one after it."""
        if self._place != (n_done, budget):  # the first one, or memory did not suffice
            self._begin(n_done, budget)
        samples, self.ready = self._following
        self._begin(n_done + len(samples), budget)
        return samples

    def _begin(self, n_done: int, budget: int) -> None:
        samples = self.batches.cut(n_done, budget)
        ready = self.thread.submit(self.batches.batch, samples) if len(samples) else Future()
        self._place, self._following = (n_done, budget), (samples, ready)


class ForwardPass:
    """Samples that are ready for a model, sent through it whole or in parts.

    Parameters
    ----------
    inputs : TextInputs or ImageInputs
        The samples.
    pooling : {"cls", "mean", "last"} or None
        Whether to keep one vector per sample only.
    batch_size : int
        Samples of mean length in a batch.
    seen : Seen or None, default=None
        Takes what is noticed about the samples.

    Attributes
    ----------
    n_tokens, n_rows : ndarray of shape (n_samples,)
        Tokens that the model gives for a sample, and rows that are kept: one if they are pooled.
    shapes : ndarray of shape (n_samples, 2), dtype int64, or None
        Rows and columns of each sample; None where rows are a run.
    segments : ndarray of shape (n_all_rows,), dtype int32, or None
        Runs of adjacent rows of the samples; None where no sample has a gap.
    n_features : int
        Numbers in a row.
    seen : Seen
        What was noticed about the samples.
    budget : int
        Positions of a batch, padding included; a longer sample is a batch by itself. Halved for
        the rest of a call when memory does not suffice.
    """

    def __init__(
        self,
        inputs: TextInputs | ImageInputs,
        *,
        pooling: str | None,
        batch_size: int,
        seen: Seen | None = None,
    ) -> None:
        self.inputs = inputs
        self.pooling = pooling
        self.n_features = inputs.loaded.width
        self.seen = seen or Seen()
        self.seen.n_samples += len(inputs.lengths)
        self.seen.n_cut += int(inputs.is_cut.sum())
        self.seen.hidden += inputs.hidden.tolist()
        self.n_tokens = inputs.n_tokens
        self.n_rows = self.n_tokens if pooling is None else np.ones_like(self.n_tokens)
        self.shapes = inputs.shapes if pooling is None else None
        self.segments = inputs.segments if pooling is None else None
        # As many positions as so many samples of mean length have, in whatever parts they come.
        self.budget = batch_size * int(inputs.lengths.sum()) // len(inputs.lengths)

    def embed(
        self,
        rows: Array,
        blocks: Sequence[int],
        sink: Sink | None = None,
        progress: bool | Bar = False,
    ) -> dict[int, Array]:
        """Read blocks of the model over some samples, in one forward pass per batch.

        Parameters
        ----------
        rows : ndarray of shape (n_taken,), int
            Which samples.
        blocks : sequence of int
            Blocks to read.
        sink : Sink or None, default=None
            Where the rows go, straight from the model, batch by batch. None takes memory for all.
        progress : bool or bar, default=False
            Whether to show a bar, in tokens; or a bar whose ``update`` takes the tokens of a batch.

        Returns
        -------
        values : dict of int to ndarray of shape (n_rows, n_features)
            The arrays by block, one sample after another; float32, or float16 for the tokens of a
            model in float16. Empty where a sink has taken the rows.

        Raises
        ------
        RuntimeError
            If memory does not suffice for a single sample.
        OverflowError
            If a sink of float16 cannot hold a value.
        """
        loaded, n_tokens = self.inputs.loaded, self.n_tokens[rows]
        memory = None
        if sink is None:
            half = self.pooling is None and loaded.dtype == torch.float16
            dtype = np.dtype(np.float16 if half else np.float32)
            sink = memory = Arrays(blocks, self.n_rows[rows], self.n_features, dtype)
        writer = Writer(sink, n_tokens, self.pooling, loaded.device)
        batches = Batches(self.inputs, rows)
        with (
            capture(loaded.base, loaded.places, blocks) as run,
            ThreadPoolExecutor(1) as thread,
            token_bar(progress, int(n_tokens.sum())) as bar,
        ):
            ahead = _Ahead(batches, thread)

            def run_batch(samples: Array) -> None:
                inputs, is_token = ahead.ready.result()
                writer.start(samples, is_token)
                sent = {name: send(value, loaded.device) for name, value in inputs.items()}
                tokens = send(torch.from_numpy(is_token), loaded.device)

                left = set(blocks)

                def take(block: int, state: Tensor) -> None:
                    writer.take(block, state)
                    self.seen.look(block, state, tokens)
                    left.discard(block)

                run(sent | loaded.extra, take)
                if left:
                    raise RuntimeError(
                        f"block {min(left)} of the model {loaded.name!r} did not run; its blocks "
                        "were replaced after they were found."
                    )
                writer.end()

            for samples, _ in run_batches(ahead.cut, run_batch, self.budget, batches.n_positions):
                bar.update(int(n_tokens[samples].sum()))
            writer.flush()
        return {} if memory is None else memory.values
