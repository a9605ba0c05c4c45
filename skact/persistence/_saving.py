"""Saving and loading of whole estimators."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator

import skact
from skact.arguments import PATH, checked, instance
from skact.persistence._card import ModelCard
from skact.persistence._container import read_file, write_file
from skact.persistence._decoding import decode
from skact.persistence._encoding import Encoder

__all__ = ["describe", "load", "save"]

_ESTIMATOR = instance("an estimator of skact, or a Pipeline of some", BaseEstimator)
_LONGEST = 300  # characters that a file can make an error say
_PAIR = instance("a loaded pair (model, tokenizer or image processor)", tuple)


@checked(estimator=[_ESTIMATOR], path=[PATH])
def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Save an estimator as one safetensors file, without pickle.

    Arrays are tensors; parameters, fitted state, names and sources are JSON in the header, with
    the versions and a checksum of the whole file. What belongs to a machine or a session does not
    travel: ``store``, ``log``, ``memory``, progress, callbacks, ``trust_remote_code``, functions,
    and loaded models, of which the file says where they came from and what they are. A model that
    was given by name travels as that name.

    Parameters
    ----------
    estimator : estimator
        One of this package, fitted or not; also in ``Pipeline``, ``FeatureUnion`` and
        ``FrozenEstimator``.
    path : str or Path
        The file; one that is there is replaced, in one step.

    Raises
    ------
    TypeError
        If it holds what no file keeps, such as an estimator of another package or a function.
    ValueError
        If it holds itself.
    FileNotFoundError, IsADirectoryError
        If there is no such folder, or the path is one.

    See Also
    --------
    load : Makes the estimator again.
    describe : Says what a file holds.

    Examples
    --------
    >>> import tempfile, numpy as np, skact
    >>> X, y = np.array([[[0.0, 1.0]], [[1.0, 0.0]]]), [0, 1]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skact.save(skact.MeanPrototype().fit(X, y), f"{folder}/cat.safetensors")
    ...     skact.load(f"{folder}/cat.safetensors").concept_vectors_
    array([[1., 0.]])
    """
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(f"path: {str(file)!r} is a folder.")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"path: there is no folder {str(file.parent)!r} to save into.")
    encoder = Encoder()
    encoder.value(estimator, type(estimator).__name__)
    about = {
        "version": skact.__version__,
        "estimator": type(estimator).__name__,
        "left_out": encoder.left_out,
        "nodes": encoder.nodes,
    }
    write_file(file, about, encoder.tensors)


@checked(path=[PATH], model=[_PAIR, None])
def load(path: str | os.PathLike[str], *, model: Any = None) -> Any:
    """Load an estimator that :func:`save` wrote.

    Nothing in a file is run: it is data, of which objects of a fixed list of classes are made. The
    whole file is compared with its checksum first.

    Parameters
    ----------
    path : str or Path
        The file.
    model : tuple, default=None
        The loaded pair ``(model, tokenizer or image processor)`` that an estimator was saved with,
        where neither this process nor the name in the file has it. It takes the place of a folder
        too, which may have moved. Another model is refused: weights, settings and tokenizer of a
        loaded pair are compared, of a name the weights or the commit.

    Returns
    -------
    estimator : estimator
        It answers as the one that was saved.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such file, damaged, of a newer format, or names what is not on the list; if
        the model is no pair, another one than it was saved with, or nothing reads a model.

    Examples
    --------
    >>> import tempfile, skact
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skact.save(skact.TokenScaler(with_mean=False), f"{folder}/scaler.safetensors")
    ...     skact.load(f"{folder}/scaler.safetensors")
    TokenScaler(with_mean=False)
    """
    if model is not None and not (len(model) == 2 and hasattr(model[0], "named_parameters")):
        raise ValueError(
            "model must be a loaded pair (model, tokenizer or image processor), got a tuple of "
            f"{[type(part).__name__ for part in model]}."
        )
    file = _existing(path)
    with _reading(file):
        content = read_file(file, with_tensors=True)
        return decode(content.about.get("nodes"), content.tensors, model)


@checked(path=[PATH])
def describe(path: str | os.PathLike[str]) -> ModelCard:
    """Say what a file of :func:`save` holds, for a person.

    Only the header is read, and nothing is made of it; the rest goes through the checksum.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    card : ModelCard
        What was saved: steps with their parameters, models and layers, thresholds with what they
        promise, figures and sizes of the calibration, what did not travel, version. ``str`` gives
        Markdown, and notebooks show it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such file, damaged, or of a newer format.

    Examples
    --------
    >>> import tempfile, skact
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skact.save(skact.SuperActivator(0.2), f"{folder}/detector.safetensors")
    ...     card = skact.describe(f"{folder}/detector.safetensors")
    >>> card.estimator
    'SuperActivator'
    """
    file = _existing(path)
    with _reading(file):
        content = read_file(file, with_tensors=False)
        return ModelCard.of(content.about, content.n_bytes)


def _existing(path: str | os.PathLike[str]) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: there is no file {str(path)!r}.")
    return Path(path)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    # Damage is told by whatever error it leads to.
    try:
        yield
    except ValueError as error:
        said = str(error).rstrip(".")[:_LONGEST]
        raise ValueError(f"{str(file)!r} cannot be read: {said}.") from error
    except (TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{str(file)!r} cannot be read: it is damaged ({error!r:.80}).") from error
