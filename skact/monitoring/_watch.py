"""What a monitor saw of generations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from skact import models
from skact.embedding import TransformerEmbedder
from skact.inspection import TokenHeatMapDisplay, find_concept
from skact.monitoring._reader import Reader, State, Stream
from skact.rows import Array
from skact.tokens import Source

__all__ = ["Generated", "Watch", "watching"]


class Generated:
    """One prompt and its continuation, as a model read them.

    The last token that a model gives is read by nobody, so it is not here.

    Parameters
    ----------
    stream : Stream
        What is known of it.
    decode : callable
        Turns a list of ids into text.
    concept_names : list of str
        Names of the concepts.

    Attributes
    ----------
    ids : list of int
        Tokens that count; padding and special tokens do not.
    is_prompt : list of bool
        Which of them were in the prompt.
    scores : ndarray of shape (n_tokens, n_concepts)
        Score of each token.
    marks : ndarray of shape (n_tokens, n_concepts), dtype bool
        Whether a token speaks for a concept by itself.
    """

    def __init__(self, stream: Stream, decode: Any, concept_names: list[str]) -> None:
        self._stream, self._decode, self._names = stream, decode, concept_names
        self.ids: list[int] = []
        self.is_prompt: list[bool] = []
        self._scores: list[Array] = []
        self._marks: list[Array] = []
        self._n_left_out = 0  # since the last token that counts

    def __repr__(self) -> str:
        """How much was read, and no word of it, since logs keep what is printed."""
        return f"Generated({self.n_tokens} tokens, {sum(self.is_prompt)} of them of the prompt)"

    def gaps(self, counts: Array, is_padding: Array) -> Array:
        """Numbers of those tokens of a pass that count before which one was read that does not."""
        left_out = self._n_left_out + np.cumsum(~is_padding & ~counts)
        before = np.append(0, left_out[counts])
        self._n_left_out = int(left_out[-1] - before[-1])
        return np.flatnonzero(np.diff(before))

    def add(self, ids: Sequence[int], scores: list[Array], is_prompt: bool, gaps: Array) -> None:
        """Take in tokens with their scores; see :meth:`Reader.score`, and :meth:`gaps`."""
        reading = self._stream.add(scores, gaps)
        self.ids += ids
        self.is_prompt += [is_prompt] * len(ids)
        self._scores.append(reading.scores)
        self._marks.append(reading.marks)

    @property
    def scores(self) -> Array:
        """Score of each token, (n_tokens, n_concepts)."""
        return np.concatenate(self._scores) if self._scores else np.empty((0, len(self._names)))

    @property
    def marks(self) -> Array:
        """Which tokens speak for which concept by themselves, (n_tokens, n_concepts)."""
        empty = np.empty((0, len(self._names)), bool)
        return np.concatenate(self._marks) if self._marks else empty

    @property
    def state(self) -> State:
        """What all of it says together."""
        return self._stream.state

    @property
    def reaches(self) -> Array:
        """Concepts whose threshold all of it together reaches, (n_concepts,)."""
        return self._stream.reaches

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    @property
    def text(self) -> str:
        """The text of the tokens."""
        return str(self._decode(self.ids))

    @property
    def tokens(self) -> list[models.Token]:
        """The tokens, with the characters of ``text`` that they stand for."""
        text, ends = self.text, []
        for n in range(1, len(self.ids) + 1):
            so_far = self._decode(self.ids[:n])
            # A character may take several tokens; the last one of them gets it.
            ends.append(len(so_far.rstrip("\N{REPLACEMENT CHARACTER}")))
        ends = [min(end, len(text)) for end in np.maximum.accumulate(ends).tolist()]
        if ends:
            ends[-1] = len(text)  # the rest of a character that did not come is text too
        starts = [0, *ends[:-1]]
        return [models.Token(text[a:b], a, b) for a, b in zip(starts, ends, strict=True)]

    def _display(self, concept: int | str) -> TokenHeatMapDisplay:
        number, name = find_concept(self._names, concept)
        return TokenHeatMapDisplay(
            self.text,
            self.tokens,
            self.scores[:, number],
            self.marks[:, number],
            concept=name,
        )

    def plot(self, concept: int | str = 0, *, ax: Any = None) -> TokenHeatMapDisplay:
        """Draw the scores of a concept over the text.

        Parameters
        ----------
        concept : int or str, default=0
            Number or name of the concept.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : TokenHeatMapDisplay
            With ``ax_`` and ``figure_``.
        """
        return self._display(concept).plot(ax=ax)

    def to_html(self, path: Any = None, concept: int | str = 0) -> str:
        """Give the map of a concept as a page that needs no other file.

        Parameters
        ----------
        path : str or path-like, default=None
            Also write it there.
        concept : int or str, default=0
            Number or name of the concept.

        Returns
        -------
        html : str
            A whole document, with all text escaped.
        """
        return self._display(concept).to_html(path)


class Watch:
    """What :meth:`Monitor.watch` saw.

    Attributes
    ----------
    rows : list of Generated
        Prompts with their continuations, generation after generation.
    """

    def __init__(self) -> None:
        self.rows: list[Generated] = []

    def __repr__(self) -> str:
        """How many rows there are."""
        return f"Watch({len(self)} rows; log[0] is the first)"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Generated:
        return self.rows[row]

    def __iter__(self) -> Iterator[Generated]:
        return iter(self.rows)


@contextmanager
def watching(
    reader: Reader, embedder: TransformerEmbedder | None, model: Any, tokenizer: Any, stop: bool
) -> Iterator[Watch]:
    """Follow the generations of a model; see :meth:`Monitor.watch`."""
    reads_in = _number_format(embedder, tokenizer is None)
    if tokenizer is None:
        if embedder is None:
            raise ValueError(
                "tokenizer must be given: the detector was fitted on activations, and knows no "
                "tokenizer."
            )
        tokenizer = embedder.reader.loaded.processor
    loaded = models.load((model, tokenizer))
    _check_sources(reader, loaded)
    if reads_in not in (None, runs_in := _name(loaded.dtype)):
        raise ValueError(
            f"the detector's embedder reads activations in {reads_in}, and the model runs in "
            f"{runs_in}, which moves scores across thresholds; load the model in {reads_in}, or "
            f"fit with TransformerEmbedder(dtype={runs_in!r})."
        )
    loaded = models.at_site(loaded, _site(reader))
    watch = Watch()
    now: list[Generated] = []
    special = np.array(sorted(set(loaded.processor.all_special_ids)), np.int64)

    def decode(ids: list[int]) -> str:
        return str(loaded.processor.decode(ids, clean_up_tokenization_spaces=False))

    def start(ids: Array, is_padding: Array) -> None:
        now.clear()
        _check_sink(reader, loaded, ids, is_padding)

    def take(read: models.Pass) -> None:
        is_prompt = not now
        if is_prompt:
            now.extend(Generated(Stream(reader), decode, reader.names) for _ in read.ids)
            watch.rows.extend(now)
        counts = ~read.is_padding & ~np.isin(read.ids, special)
        for row, generated in enumerate(now):
            gaps = generated.gaps(counts[row], read.is_padding[row])
            if counts[row].any():
                at = {block: state[row][counts[row]] for block, state in read.states.items()}
                ids = read.ids[row][counts[row]].tolist()
                generated.add(ids, reader.score(at), is_prompt, gaps)

    def done() -> Array:
        return np.array([g.n_tokens > 0 and bool(g.reaches.any()) for g in now])

    blocks = [block for block in reader.blocks if block is not None]
    with models.generating(model, loaded, blocks, start, take, done if stop else None):
        yield watch


def _number_format(embedder: TransformerEmbedder | None, is_loaded: bool) -> str | None:
    """Tell the number format in which the detector's embedder reads, where it is known."""
    if embedder is None:
        return None
    if is_loaded or isinstance(embedder.model, tuple):
        return _name(embedder.reader.loaded.dtype)
    _, dtype = models.placement(embedder.device, embedder.dtype)
    return None if dtype == "auto" else dtype


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _check_sources(reader: Reader, loaded: models.Loaded) -> None:
    for line in reader.lines:
        known = line.source is not None and (line.source.model or line.source.revision)
        if line.block is None or line.source is None or not known:
            raise ValueError(
                "the detector was fitted on arrays that do not say which model and layer they are "
                "from; fit it on what a TransformerEmbedder gives, or on TokenArrays with a "
                "Source(model, revision, block)."
            )
        if line.block >= len(loaded.places):
            raise ValueError(
                f"the detector reads block {line.block}, and the model has {len(loaded.places)}."
            )
        here = Source(loaded.name, loaded.revision)
        if field := Source(line.source.model, line.source.revision).conflict(here):
            raise ValueError(
                f"the detector was fitted on another {field}: on ({line.source}), this is ({here})."
            )


def _site(reader: Reader) -> str:
    """Return what of a block the detector was fitted on."""
    sites = sorted({(line.source and line.source.site) or "residual" for line in reader.lines})
    if len(sites) > 1:
        raise ValueError(f"the detector reads the sites {sites}; a monitor follows one of them.")
    return sites[0]


def _check_sink(reader: Reader, loaded: models.Loaded, prompts: Array, is_padding: Array) -> None:
    """Refuse a prompt whose first word takes the attention sink, unlike those of the samples."""
    for convention in {line.source.convention for line in reader.lines if line.source}:
        found = models.lacking_sink(loaded, convention, prompts, ~is_padding)
        if found is not None:
            row, first = found
            raise ValueError(
                f"prompt {row} begins with {first!r}, and the detector was fitted on the "
                f"{convention}; put that token before the prompt."
            )
