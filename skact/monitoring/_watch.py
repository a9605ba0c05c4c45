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

    def add(self, ids: Sequence[int], scores: list[Array], is_prompt: bool) -> None:
        """Take in tokens with their scores; see :meth:`Reader.score`."""
        reading = self._stream.add(scores)
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
    if tokenizer is None:
        if embedder is None:
            raise ValueError(
                "tokenizer must be given: the detector was fitted on activations, and knows no "
                "tokenizer."
            )
        tokenizer = embedder.reader.loaded.processor
    loaded = models.load((model, tokenizer))
    _check_sources(reader, loaded)
    watch = Watch()
    now: list[Generated] = []
    special = np.array(sorted(set(loaded.processor.all_special_ids)), np.int64)

    def decode(ids: list[int]) -> str:
        return str(loaded.processor.decode(ids, clean_up_tokenization_spaces=False))

    def take(read: models.Pass) -> None:
        is_prompt = not now
        if is_prompt:
            _check_sink(reader, loaded, read)
            now.extend(Generated(Stream(reader), decode, reader.names) for _ in read.ids)
            watch.rows.extend(now)
        counts = ~read.is_padding & ~np.isin(read.ids, special)
        for row, generated in enumerate(now):
            if counts[row].any():
                at = {block: state[row][counts[row]] for block, state in read.states.items()}
                ids = read.ids[row][counts[row]].tolist()
                generated.add(ids, reader.score(at), is_prompt)

    def done() -> Array:
        return np.array([g.n_tokens > 0 and bool(g.state.present.any()) for g in now])

    blocks = [block for block in reader.blocks if block is not None]
    with models.generating(model, loaded, blocks, now.clear, take, done if stop else None):
        yield watch


def _check_sources(reader: Reader, loaded: models.Loaded) -> None:
    for line in reader.lines:
        if line.block is None or line.source is None:
            raise ValueError(
                "the detector was fitted on arrays that do not say which layer they are from; fit "
                "it on what a TransformerEmbedder gives, or on TokenArrays with a Source of model "
                "and block."
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


def _check_sink(reader: Reader, loaded: models.Loaded, read: models.Pass) -> None:
    """Refuse a prompt that does not begin as the samples did on which the detector was fitted."""
    for line in reader.lines:
        convention = (line.source.convention if line.source else None) or ""
        for row, ids in enumerate(read.ids):
            first = int(ids[~read.is_padding[row]][0])
            said = f", after {models.sink_token(loaded, first)!r}"
            if ", after " in convention and said not in convention:
                raise ValueError(
                    f"prompt {row} begins with {loaded.processor.decode([first])!r}, and the "
                    f"detector was fitted on the {convention}; put that token before the prompt."
                )
