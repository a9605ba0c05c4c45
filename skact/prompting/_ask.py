"""Put every question about every sample once, and lose no answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from skact.progress import token_bar
from skact.prompting._answer_log import AnswerLog
from skact.prompting._answerer import Answerer
from skact.prompting._prompt import Prompt
from skact.rows import Array
from skact.samples import open_image

__all__ = ["ask"]


def ask(
    model: Answerer,
    samples: Sequence[Any],
    digests: Sequence[str],
    concepts: Sequence[str],
    template: str,
    *,
    log: AnswerLog | None,
    batch_size: int,
    progress: bool,
) -> Array:
    """Ask about every sample and concept; equal questions about equal samples once.

    Parameters
    ----------
    model : Answerer
        What is asked.
    samples : sequence of n_samples texts or images
        The samples.
    digests : sequence of n_samples str
        Hashes of their content.
    concepts : sequence of n_concepts str
        Words for the concepts.
    template : str
        The question.
    log : AnswerLog or None
        Holds answers that need not be asked for, and takes new ones, batch by batch.
    batch_size : int
        Prompts per call of the model.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    answers : ndarray of shape (n_samples, n_concepts), dtype object
        What the model said.
    """
    questions = [template.format(concept=concept, kind=model.kind) for concept in concepts]
    identity = [] if log is None else model.identity
    keys = [[_key(identity, question, digest) for question in questions] for digest in digests]
    places = {key: (i, c) for i, row in enumerate(keys) for c, key in enumerate(row)}

    def prompt(key: str) -> Prompt:
        i, c = places[key]
        if model.kind == "text":
            return Prompt(samples[i], concepts[c], f"{samples[i]}\n\n{questions[c]}")
        return Prompt(open_image(samples[i], i), concepts[c], questions[c])

    answers = {} if log is None else log.read()
    missing = [key for key in places if key not in answers]
    model.check(map(prompt, missing))
    for batch in _answered(model, missing, prompt, batch_size, log is not None, progress):
        if log is not None:
            log.append(batch, {key: concepts[places[key][1]] for key in batch})
        answers.update(batch)
    text = np.empty((len(samples), len(questions)), dtype=object)
    text[:] = [[answers[key] for key in row] for row in keys]
    return text


def _answered(
    model: Answerer,
    keys: list[str],
    prompt: Callable[[str], Prompt],
    batch_size: int,
    logged: bool,
    progress: bool,
) -> Iterator[dict[str, str]]:
    """Answers by key, batch by batch; an error says how many there were before it."""
    with token_bar(progress, len(keys), unit="question") as bar:
        for start in range(0, len(keys), batch_size):
            batch = keys[start : start + batch_size]
            try:
                answers = model([prompt(key) for key in batch])
            except Exception as error:
                what = "kept in the log" if logged else "lost; with log=path they would be kept"
                error.add_note(
                    f"{start} of {len(keys)} questions had been answered; these answers are {what}."
                )
                raise
            yield dict(zip(batch, answers, strict=True))
            bar.update(len(batch))


def _key(identity: list[Any], question: str, digest: str) -> str:
    return hashlib.sha256(json.dumps([identity, question, digest]).encode()).hexdigest()
