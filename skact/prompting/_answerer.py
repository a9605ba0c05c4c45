"""What answers prompts: a function of the user, or a model of Hugging Face."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from skact.arguments import instance
from skact.prompting._prompt import Prompt

_NAME = instance("a name or a folder", str, Path)

__all__ = ["Answerer", "CallableAnswerer", "DetachedModel", "check_model"]


class Answerer(Protocol):
    """What answers prompts: a callable of the user, or a Hugging Face model."""

    @property
    def kind(self) -> str: ...

    @property
    def identity(self) -> list[Any]: ...

    def check(self, prompts: Iterable[Prompt]) -> None: ...

    def __call__(self, prompts: Sequence[Prompt]) -> list[str]: ...


@dataclass(frozen=True)
class CallableAnswerer:
    """A function of the user, whose answers are checked.

    Parameters
    ----------
    function : callable
        Takes a list of prompts, returns as many strings.
    kind : {"text", "image"}
        What the samples are.
    identity : list
        Says which model answers.
    """

    function: Callable[[list[Prompt]], Any]
    kind: str
    identity: list[Any]

    def check(self, prompts: Iterable[Prompt]) -> None:
        """Accept everything; the function knows its own limits."""

    def __call__(self, prompts: Sequence[Prompt]) -> list[str]:
        said = self.function(list(prompts))
        expected = f"model must return a list of {len(prompts)} strings, one per prompt"
        if not isinstance(said, list | tuple):
            raise TypeError(f"{expected}; got {type(said).__name__}.")
        if len(said) != len(prompts):
            raise ValueError(f"{expected}; got {len(said)}.")
        for i, answer in enumerate(said):
            if not isinstance(answer, str):
                raise TypeError(f"{expected}; answer {i} is {type(answer).__name__}.")
        return list(said)


@dataclass(frozen=True)
class DetachedModel:
    """Stands for a loaded model, or a function that answers, once a detector was saved."""


def check_model(model: Any) -> None:
    """Refuse what can neither be loaded nor called.

    Parameters
    ----------
    model : object
        Parameter of :class:`~skact.prompting.PromptDetector`.

    Raises
    ------
    ValueError, TypeError
        If it is none of the accepted forms.
    """
    expected = (
        "model must be a Hugging Face name, a local folder, a loaded pair (model, tokenizer or "
        "processor), or a callable that takes prompts and returns answers"
    )
    if isinstance(model, DetachedModel):
        raise ValueError(
            "this detector was saved with a loaded model or a function, which are not saved. Give "
            "it the model again: set_params(model=(model, tokenizer or processor))."
        )
    if isinstance(model, tuple):
        if len(model) != 2:
            raise ValueError(f"{expected}; got a tuple of {len(model)}.")
    elif hasattr(model, "generate") or hasattr(model, "named_parameters"):
        raise TypeError(f"{expected}; got a {type(model).__name__} without its tokenizer.")
    elif isinstance(model, type) or not (_NAME.is_satisfied_by(model) or callable(model)):
        got = "a class" if isinstance(model, type) else repr(model)[:60]
        raise (ValueError if model is None else TypeError)(f"{expected}; got {got}.")
