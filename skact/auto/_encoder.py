"""Labels as users have them, as concepts that are present, absent or unknown, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from skact.base import concept_names
from skact.rows import Array
from skact.targets import (
    column_names,
    in_order_of_fit,
    label_array,
    missing_labels,
    refuse_empty_names,
)

__all__ = ["ConceptEncoder", "LabelColumn", "encoder_of_names", "read_labels"]


class LabelColumn(NamedTuple):
    """A column of y: its values, and those that are a concept each."""

    classes: Array
    concepts: Array
    names: list[str]


@dataclass(frozen=True)
class ConceptEncoder:
    """Which concepts the columns of y speak of.

    A column of 0 and 1 is one concept. Of two other values the larger one is the concept, of more
    each one.

    Parameters
    ----------
    kind : {"binary", "multiclass", "multilabel"}
        A vector of two classes, a vector of more, or a table.
    columns : list
        Of y, from :func:`read_labels`.
    column_names : list of str or None
        What y calls them.
    """

    kind: Literal["binary", "multiclass", "multilabel"]
    columns: list[LabelColumn]
    column_names: list[str] | None

    @property
    def names(self) -> list[str]:
        """Names of the concepts."""
        return [name for column in self.columns for name in column.names]

    @property
    def classes(self) -> Array:
        """What ``predict`` chooses from, as scikit-learn's scorers expect it."""
        if self.kind == "multilabel":
            return np.arange(max(len(self.names), 2))
        return self.columns[0].classes

    def encode(self, y: Any) -> Array:
        """Say of each sample and concept whether it is there.

        Parameters
        ----------
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
            Labels with the columns that were read, found by their names where both have names.

        Returns
        -------
        present : ndarray of shape (n_samples, n_concepts), dtype float64
            0, 1, or NaN where the label is missing.

        Raises
        ------
        ValueError
            If there is another number of columns, one of another name, or a value that did not
            occur before.
        """
        table = _table(in_order_of_fit(y, self.column_names))[0]
        if table.shape[1] != len(self.columns):
            raise ValueError(f"y has {table.shape[1]} columns, fit had {len(self.columns)}.")
        parts = []
        for values, column in zip(table.T, self.columns, strict=True):
            missing = missing_labels(values)
            strange = [v for v in values[~missing].tolist() if v not in column.classes.tolist()]
            if strange:
                raise ValueError(
                    f"y holds {strange[0]!r}, fit had only {column.classes.tolist()[:10]} there."
                )
            part = (values[:, None] == column.concepts).astype(np.float64)
            part[missing] = np.nan
            parts.append(part)
        return np.concatenate(parts, axis=1)

    def decode(self, said: Array) -> Array:
        """Give what is said of each concept the form of y.

        Parameters
        ----------
        said : ndarray of shape (n_samples, n_concepts)
            Decisions, positive where a concept is found; for a vector of many classes
            probabilities.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_concepts)
            Class labels, or 0 and 1 per concept.
        """
        if self.kind == "multiclass":
            return self.classes[np.argmax(said, axis=1)]
        found = (said > 0).astype(np.int64)
        return found if self.kind == "multilabel" else self.classes[found[:, 0]]


def read_labels(y: Any, n_samples: int) -> ConceptEncoder:
    """Find the concepts that y speaks of.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_columns)
        Labels: strings, categories, numbers; a vector, matrix or data frame. What is missing is
        unknown.
    n_samples : int
        Samples that there are.

    Returns
    -------
    encoder : ConceptEncoder
        The concepts.

    Raises
    ------
    ValueError
        If y has another length, a column holds one value only, continuous values or values of
        several types, has an empty name, or two concepts have one name.
    """
    table, names, is_vector = _table(y)
    if len(table) != n_samples:
        raise ValueError(f"y has {len(table)} samples, raw has {n_samples}.")
    refuse_empty_names(names or [], "column")
    columns = [
        _read_column(values[~missing_labels(values)], names[k] if names else None, k, is_vector)
        for k, values in enumerate(table.T)
    ]
    many = len(columns[0].concepts) > 1
    kind: Any = "multilabel" if not is_vector else "multiclass" if many else "binary"
    encoder = ConceptEncoder(kind, columns, names)
    refuse_empty_names(encoder.names, "class")
    twice = [name for name in encoder.names if encoder.names.count(name) > 1]
    if twice:
        raise ValueError(f"y names two concepts {twice[0]!r}; names tell concepts apart.")
    return encoder


def _table(y: Any) -> tuple[Array, list[str] | None, bool]:
    """Read y as a matrix, the names of its columns, and whether it was a vector."""
    array = label_array(y)
    is_vector = array.ndim == 1
    return array[:, None] if is_vector else array, column_names(y), is_vector


def _read_column(known: Array, name: str | None, number: int, is_vector: bool) -> LabelColumn:
    where = "y" if is_vector else f"column {number if name is None else name!r} of y"
    try:
        classes = np.unique(known)
    except TypeError:
        kinds = sorted({type(value).__name__ for value in known})
        raise ValueError(f"{where} mixes types ({', '.join(kinds)}); use one for all.") from None
    if len(classes) < 2:
        raise ValueError(
            f"{where} holds one value only ({classes.tolist()}); there must be samples with and "
            "without a concept."
        )
    _refuse_continuous(classes, where)
    concepts = classes[1:] if len(classes) == 2 else classes
    if set(classes.tolist()) <= {0, 1} and not is_vector:
        return LabelColumn(classes, concepts, [f"concept{number}" if name is None else name])
    before = "" if name is None or is_vector else f"{name}="
    return LabelColumn(classes, concepts, [f"{before}{value}" for value in concepts])


def _refuse_continuous(classes: Array, where: str) -> None:
    values = classes.tolist()
    broken = [float(v) for v in values if isinstance(v, float | np.floating) and v % 1]
    if broken:
        raise ValueError(
            f"{where} is continuous, as {broken[0]:.4g} shows, and would be a concept for each of "
            f"{len(values)} numbers; cut it into classes, such as y > {np.median(broken):.4g}."
        )


def encoder_of_names(names: Sequence[str] | None, n_concepts: int) -> ConceptEncoder:
    """Make the encoder of a table of 0 and 1 with a column per concept.

    Parameters
    ----------
    names : sequence of str or None
        Names of the concepts; None numbers them.
    n_concepts : int
        Concepts.

    Returns
    -------
    encoder : ConceptEncoder
        Of kind "multilabel".
    """
    values = np.array([0, 1])
    called = [
        str(name) for name in concept_names(None if names is None else list(names), n_concepts)
    ]
    columns = [LabelColumn(values, values[1:], [name]) for name in called]
    return ConceptEncoder("multilabel", columns, None if names is None else called)
