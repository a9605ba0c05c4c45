"""Ask for drafts until each text has one that passes, and keep what was rejected, and why."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar

import numpy as np
from sklearn.utils._param_validation import StrOptions

from skact.arguments import PATH, Number, checked
from skact.journal import append_record, open_journal
from skact.progress import token_bar
from skact.prompting import CallableAnswerer, Prompt, check_model

__all__ = ["DraftWriter", "Rejected", "draft_until_passed"]

T = TypeVar("T")
_COUNT = [Number(Integral, 1, None, closed="left")]


class Rejected(NamedTuple):
    """Why a draft does not do."""

    reason: str


class DraftWriter:
    """A model that writes drafts, batch by batch, and how it is asked.

    Parameters
    ----------
    model : callable, str, Path or tuple
        A function that takes a list of :class:`~skact.prompting.Prompt` and returns as many
        strings; or a chat model as in :class:`~skact.prompting.PromptDetector`.
    n_drafts : int, default=3
        Most drafts of a text.
    batch_size : int, default=8
        Prompts per call of the model, and drafts that a kill may lose.
    max_new_tokens : int, default=300
        Longest draft of a Hugging Face model.
    temperature : float, default=0.9
        Temperature of a Hugging Face model; 0 writes the most probable text, each time the same.
    template_options : dict or None, default=None
        Variables for the chat template of a Hugging Face model.
    journal : str, path-like or None, default=None
        File of drafts, JSON lines. Each batch is on the disk before the next is asked for; a run
        that was broken off goes on with it, and one with other settings is refused.
    device, dtype : str, default="auto"
        As in :class:`~skact.prompting.PromptDetector`.
    revision : str or None, default=None
        Commit, tag or branch of a named model. With a callable: any text that says which model
        writes, needed for `journal`.
    random_state : int, default=0
        Seed of all that is drawn.
    progress : bool, default=False
        Whether to show a progress bar.

    Raises
    ------
    ValueError, TypeError
        If the model is nothing that can be asked, or a callable with a journal says not which.

    Notes
    -----
    A run that goes on after a kill gives what an unbroken one gives, except that a model which runs
    out of memory writes smaller batches, with other draws.

    Examples
    --------
    >>> from skact.augmentation import DraftWriter
    >>> writer = DraftWriter(lambda prompts: [f"So. {p.sample}" for p in prompts], n_drafts=1)
    """

    @checked(
        model="no_validation",
        n_drafts=_COUNT,
        batch_size=_COUNT,
        max_new_tokens=_COUNT,
        temperature=[Number(Real, 0, None, closed="left")],
        template_options=[dict, None],
        journal=[PATH, None],
        device=[str],
        dtype=[StrOptions({"auto", "float32", "float16", "bfloat16"})],
        revision=[str, None],
        random_state=[Number(Integral, 0, None, closed="left")],
        progress=["boolean"],
    )
    def __init__(
        self,
        model: Any,
        *,
        n_drafts: int = 3,
        batch_size: int = 8,
        max_new_tokens: int = 300,
        temperature: float = 0.9,
        template_options: dict[str, Any] | None = None,
        journal: str | os.PathLike[str] | None = None,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        random_state: int = 0,
        progress: bool = False,
    ) -> None:
        check_model(model)
        if callable(model) and journal is not None and not revision:
            raise ValueError(
                "journal with a callable needs revision: any text that says which model writes, so "
                "that its drafts are not taken for those of another one."
            )
        self.model = model
        self.n_drafts, self.batch_size = n_drafts, batch_size
        self.journal, self.revision = journal, revision
        self.random_state, self.progress = random_state, progress
        self.options: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "template_options": template_options,
            "device": device,
            "dtype": dtype,
        }


def _open(
    writer: DraftWriter,
) -> tuple[Callable[[list[Prompt], int], list[str]], str, Any]:
    """Give what writes with a seed, its identity, and what checks prompts."""
    if callable(writer.model):
        answerer = CallableAnswerer(writer.model, "text", ["callable", writer.revision])
        return (
            lambda prompts, seed: answerer(prompts),
            _digest(answerer.identity),
            answerer.check,
        )
    from skact.models import load_chat

    chat = load_chat(
        writer.model,
        modality="text",
        system=None,
        revision=writer.revision,
        trust_remote_code=False,
        **writer.options,
    )
    return (
        lambda prompts, seed: replace(chat, seed=seed)(prompts),
        _digest(chat.identity),
        chat.check,
    )


def draft_until_passed(
    writer: DraftWriter,
    prompts: Sequence[Prompt],
    verify: Callable[[int, str], T | Rejected],
    settings: Mapping[str, Any],
) -> tuple[dict[int, T], list[tuple[int, int, str, T | Rejected]]]:
    """Ask for every text, and again for those whose draft was rejected.

    Batches follow from the drafts before them, so that those of a journal are read in their
    order in place of asking.

    Parameters
    ----------
    writer : DraftWriter
        Writes.
    prompts : sequence of n_samples Prompt
        What is asked.
    verify : callable
        Takes the number of a text and a draft, returns what is made of it or why it is
        rejected.
    settings : mapping
        What else the run depends on.

    Returns
    -------
    passed : dict of int to object
        What was made of the draft that passed, by text.
    drafts : list of (int, int, str, object)
        Text, round, draft and what came of it, in order.

    Raises
    ------
    ValueError, TypeError, OSError
        If the model does not fit the prompts, or the journal is another run's.
    """
    write, identity, check = _open(writer)
    check(prompts)
    said = [[prompt.sample, prompt.concept, prompt.text] for prompt in prompts]
    whole: dict[str, Any] = {
        "texts or prompts": _digest(said),
        "model or its settings": identity,
    }
    whole |= {"batch_size": writer.batch_size, "random_state": writer.random_state, **settings}
    path = writer.journal
    kept = {} if path is None else open_journal(path, "augmentation", whole)
    passed: dict[int, T] = {}
    drafts: list[tuple[int, int, str, T | Rejected]] = []
    left, number = list(range(len(prompts))), 0
    with token_bar(writer.progress, len(prompts), unit="text") as bar:
        for turn in range(writer.n_drafts):
            rejected: list[int] = []
            for start in range(0, len(left), writer.batch_size):
                batch = left[start : start + writer.batch_size]
                asked = [prompts[i] for i in batch]
                if str(number) in kept:
                    written = _drafts_of(kept, number, len(batch), path)
                else:
                    written = _written(writer, asked, write, number)
                number += 1
                for i, draft in zip(batch, written, strict=True):
                    outcome = verify(i, draft)
                    drafts.append((i, turn, draft, outcome))
                    if isinstance(outcome, Rejected):
                        rejected.append(i)
                    else:
                        passed[i] = outcome
                        bar.update(1)
            left = rejected
    return passed, drafts


def _written(
    writer: DraftWriter,
    prompts: list[Prompt],
    write: Callable[[list[Prompt], int], list[str]],
    number: int,
) -> list[str]:
    """Write the drafts of a batch, and keep them."""
    seed = int(np.random.SeedSequence([writer.random_state, number]).generate_state(1)[0])
    try:
        drafts = [draft.strip() for draft in write(prompts, seed)]
    except Exception as error:
        what = "in the journal" if writer.journal else "lost; with journal=path they would be kept"
        error.add_note(f"{number} batches of drafts had been written; they are {what}.")
        raise
    if writer.journal is not None:
        append_record(writer.journal, str(number), drafts)
    return drafts


def _drafts_of(kept: Mapping[str, Any], number: int, n_drafts: int, path: Any) -> list[str]:
    """Drafts of a batch in the journal; ValueError if they are not so many strings."""
    drafts: list[str] = kept[str(number)]
    fits = isinstance(drafts, list) and len(drafts) == n_drafts
    if not fits or not all(isinstance(draft, str) for draft in drafts):
        raise ValueError(
            f"journal={str(path)!r}: batch {number} does not hold {n_drafts} drafts; the file was "
            "changed. Name another one."
        )
    return drafts


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
