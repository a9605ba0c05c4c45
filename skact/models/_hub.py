"""Models of Hugging Face by name, by folder or loaded: found, fetched, placed and named.

Nothing is loaded twice: what :meth:`Checkpoint.fetch` and :meth:`Checkpoint.model` return is kept
for the life of the process, and loaded anew only if the files of its folder have changed.

Imports torch and transformers: import this module only where a model is needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from skact.extras import need
from skact.files import read_json
from skact.models._alone import lock_of
from skact.models._device import check_device, placement
from skact.warning import warn

__all__ = [
    "Checkpoint",
    "PairKind",
    "check_placement",
    "first_weight",
    "load_pair",
    "passing",
    "sentence_length",
    "where_from",
]

_GGUF = ".gguf"
_LOADED: dict[Any, Any] = {}


def _resolve(model: str | Path) -> str:
    name = os.path.expanduser(str(model))
    if os.path.isdir(name) or (name.endswith(_GGUF) and os.path.isfile(name)):
        return os.path.abspath(name)
    if name.endswith(_GGUF):
        raise ValueError(f"model names the file {name!r}, which does not exist.")
    looks_local = isinstance(model, Path) or name.startswith((".", "/")) or name.count("/") > 1
    if looks_local or os.path.splitdrive(name)[0]:
        raise ValueError(f"model names the folder {name!r}, which does not exist.")
    return name


def _folder_state(name: str) -> Any:
    """Change when the files of a local folder do, so that what was loaded is not reused."""
    if name.endswith(_GGUF):
        return os.stat(name).st_mtime_ns, os.stat(name).st_size
    if not os.path.isdir(name):
        return None
    files = [f for f in os.scandir(name) if f.is_file()]
    return tuple(sorted((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in files))


def _fetch(what: Any, name: str, **options: Any) -> Any:
    """Call ``from_pretrained`` without its progress bars."""
    if name.endswith(_GGUF):
        name, options["gguf_file"] = os.path.split(name)
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        return what.from_pretrained(name, **options)
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()


@lru_cache
def sentence_length(name: str, revision: str | None) -> int | None:
    """Positions of the sentences that a model was trained for.

    Parameters
    ----------
    name : str
        Name on the hub, or absolute path.
    revision : str or None
        Commit, tag or branch.

    Returns
    -------
    length : int or None
        ``max_seq_length`` of ``sentence_bert_config.json``; None where a model has no such file.
    """
    if name.endswith(_GGUF):
        return None
    try:
        file = transformers.utils.cached_file(name, "sentence_bert_config.json", revision=revision)
    except OSError:
        return None
    settings = read_json(Path(file))
    length = settings.get("max_seq_length") if isinstance(settings, dict) else None
    return length if isinstance(length, int) and length > 0 else None


def _warn_of_random(name: str, missing: Iterable[str]) -> None:
    """Warn of weights that no file of a model holds; a pooler comes after all that is read."""
    random = sorted(key for key in missing if "pooler." not in key)
    if random:
        warn(
            f"model={name!r}: {len(random)} weights, such as {random[0]!r}, are in none of its "
            "files and have random values: it was saved by another version of transformers, or for "
            "another kind of model. What is read behind them means nothing."
        )


@contextmanager
def passing() -> Iterator[None]:
    """Keep nothing of what is loaded inside."""
    with lock_of(Checkpoint):
        before = set(_LOADED)
        try:
            yield
        finally:
            for key in _LOADED.keys() - before:
                del _LOADED[key]


@dataclass(frozen=True)
class Checkpoint:
    """What lies under a name on the hub or in a local folder.

    Parameters
    ----------
    name : str
        Name on the hub, or absolute path of a folder or a GGUF file.
    parts : str
        What a folder has to hold to be of use; for errors.
    revision : str or None
        Commit, tag or branch.
    trust_remote_code : bool
        Whether to run code that comes with the model.
    """

    name: str
    parts: str
    revision: str | None
    trust_remote_code: bool

    @classmethod
    def named(
        cls, model: str | Path, parts: str, *, revision: str | None, trust_remote_code: bool
    ) -> Checkpoint:
        """Tell a folder or a GGUF file from a name on the hub.

        Raises
        ------
        ValueError
            If the model is meant as a folder or a file and there is none.
        """
        return cls(_resolve(model), parts, revision, trust_remote_code)

    def fetch(self, part: str, what: Any, **options: Any) -> Any:
        """Load one part, or take it from this process.

        Parameters
        ----------
        part : {"config", "tokenizer", "image processor", "processor"}
            What it is called in errors.
        what : class
            With ``from_pretrained``.
        **options
            Passed on.

        Returns
        -------
        loaded : object
            The same one at each call; not to be changed.

        Raises
        ------
        OSError
            If it can neither be found nor fetched.
        """
        return self._once(part, what, None, options)

    def model(self, what: Any, device: str, dtype: str) -> Any:
        """Load the model for inference, or take it from this process.

        Parameters
        ----------
        what : class
            With ``from_pretrained``.
        device : str
            "auto" takes CUDA where there is some.
        dtype : str
            "auto" is that of the checkpoint, and float32 on a CPU.

        Returns
        -------
        model : Module
            The same one at each call with the same arguments.

        Raises
        ------
        OSError
            If it can neither be found nor fetched.
        """
        device, dtype = placement(device, dtype)
        # safetensors are taken where a model has them.
        options = {"dtype": dtype, "output_loading_info": True}
        return self._once("model", what, device, options)

    def _placed(self, model: Any, info: dict[str, Any], device: str) -> Any:
        _warn_of_random(self.name, info["missing_keys"])
        # What comes from a GGUF file is widened, whatever its config says.
        if self.name.endswith(_GGUF) and hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        return model.to(device).eval()

    def _once(self, part: str, what: Any, device: str | None, options: dict[str, Any]) -> Any:
        options |= {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        state = _folder_state(self.name)
        key = (self.name, state, what.__name__, device, *sorted(options.items()))
        # Loading sets what holds for the whole process, such as the default dtype of torch.
        with lock_of(Checkpoint):
            if key not in _LOADED:
                where = "locally, and could not be fetched" if state is None else "in the folder"
                loaded = self._load(part, what, where, options)
                if device is not None:
                    model, info = loaded
                    loaded = self._placed(model, info, device)
                _LOADED[key] = loaded
            return _LOADED[key]

    def _load(self, part: str, what: Any, where: str, options: dict[str, Any]) -> Any:
        for library in ("gguf", "accelerate") if self.name.endswith(_GGUF) else ():
            need(library, f"model={self.name!r}: reading a GGUF file")
        try:
            return _fetch(what, self.name, **options)
        except (OSError, ValueError) as error:
            raise OSError(
                f"model={self.name!r}: no usable {part} was found {where}. To use a model "
                f"without network, point to a folder that holds its {self.parts}: "
                f'model="/path/to/folder". ({error})'
            ) from error


def first_weight(model: nn.Module) -> torch.Tensor:
    """Return a parameter that shows where a model lies and in which precision it runs.

    Raises
    ------
    ValueError
        If there is none.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter
    raise ValueError(
        f"{type(model).__name__} has no weights in floating point. If it is quantised, load it "
        "without quantisation."
    )


def check_placement(model: nn.Module, device: str, dtype: str) -> None:
    """Refuse a loaded model that is not where, or in the precision, it was asked for.

    Parameters
    ----------
    model : Module
        The model.
    device, dtype : str
        What was asked for; "auto" takes the model as it is.

    Raises
    ------
    ValueError
        If they differ.
    """
    weight = first_weight(model)
    if device != "auto" and torch.device(device).type != weight.device.type:
        raise ValueError(f"device={device!r}, but the loaded model lies on {weight.device}.")
    if dtype != "auto" and f"torch.{dtype}" != str(weight.dtype):
        raise ValueError(f"dtype={dtype!r}, but the loaded model has {weight.dtype}.")


@dataclass(frozen=True)
class PairKind:
    """Which models, each with its processor, somebody can use.

    Parameters
    ----------
    parts : str
        What a folder has to hold to be of use; for errors.
    model, processor : str
        What the two of a loaded pair have to be; for errors.
    has : str
        Attribute that such a model has.
    is_processor : callable
        Takes anything, tells whether it is such a processor.
    fetch : callable
        Takes a :class:`Checkpoint`, a device and a dtype, returns model and processor.
    """

    parts: str
    model: str
    processor: str
    has: str
    is_processor: Callable[[Any], object]
    fetch: Callable[[Checkpoint, str, str], tuple[nn.Module, Any]]


def load_pair(
    model: str | Path | tuple[Any, Any],
    kind: PairKind,
    device: str,
    dtype: str,
    *,
    revision: str | None,
    trust_remote_code: bool,
) -> tuple[nn.Module, Any, str]:
    """Get from a name, a folder or a loaded pair to a model and its processor.

    Parameters
    ----------
    model : str, Path or tuple
        What the user said.
    kind : PairKind
        What is needed.
    device, dtype : str
        Where, and in which precision, the model is to run.
    revision, trust_remote_code
        As for :class:`Checkpoint`; not for a loaded pair.

    Returns
    -------
    model : Module
        The model; a loaded one as it is.
    processor : tokenizer, image processor or processor
        Not to be changed.
    name : str
        Name on the hub or absolute path; the class of a model that does not say where it is from.

    Raises
    ------
    OSError
        If a name can neither be found nor fetched.
    TypeError
        If a loaded pair is of another kind.
    ValueError
        If a folder or the device does not exist, or a loaded model is not as it was asked for.
    """
    if device != "auto":
        check_device(device)
    if not isinstance(model, tuple):
        checkpoint = Checkpoint.named(
            model, kind.parts, revision=revision, trust_remote_code=trust_remote_code
        )
        return *kind.fetch(checkpoint, device, dtype), checkpoint.name
    network, processor = model
    if not isinstance(network, nn.Module) or not hasattr(network, kind.has):
        raise TypeError(
            f"the first of the pair passed as model must be {kind.model}, got "
            f"{type(network).__name__}."
        )
    if not kind.is_processor(processor):
        raise TypeError(
            f"the second of the pair passed as model must be {kind.processor}, got "
            f"{type(processor).__name__}."
        )
    check_placement(network, device, dtype)
    return network, processor, where_from(network) or type(network).__name__


def where_from(model: Any) -> str:
    """Name or absolute folder that a model says it was loaded from; empty if it does not say."""
    name = str(getattr(model.config, "name_or_path", None) or "")
    return os.path.abspath(name) if os.path.isdir(name) else name
