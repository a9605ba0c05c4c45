r"""An edit as one frozen map, the same for numpy tokens and for the tensors of a live model.

.. math:: h' = h + g(h)\, m(h) \odot \big(s + W^\top (R h + c) + D \odot h\big)

with a shift s, a part of low rank (rows R that read, rows W that write, c), a scale per coordinate
D, a gate g that is 0 or 1 for a token, and m that is so for each of its coordinates: 0 for one
outside of the bounds, where there are some. What is learnt on scaled tokens is folded into raw
ones by :meth:`EditMap.fold`. The arithmetic is written once, in operations that arrays and tensors
have in common.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

from skact.rows import Array, as_floats

__all__ = ["EditMap", "Gate", "digest"]


class _Arrays:
    """A frozen record of which the arrays may become others."""

    def converted(self, convert: Callable[[Any], Any]) -> Self:
        """Return the same with another form of each array, in gates too.

        Parameters
        ----------
        convert : callable
            Takes an array, returns what takes its place.

        Returns
        -------
        record : same class
            A copy.
        """
        changed: dict[str, Any] = {}
        for one in fields(self):  # type: ignore[arg-type]
            value = getattr(self, one.name)
            if hasattr(value, "dtype"):
                changed[one.name] = convert(value)
            elif isinstance(value, tuple):
                changed[one.name] = tuple(gate.converted(convert) for gate in value)
        return replace(self, **changed)  # type: ignore[type-var]


def digest(*things: Any) -> str:
    """Name maps, arrays and plain values by their content, in 12 digits."""

    def plain(thing: Any) -> Any:
        if isinstance(thing, _Arrays):
            return {one.name: plain(getattr(thing, one.name)) for one in fields(thing)}  # type: ignore[arg-type]
        if isinstance(thing, tuple):
            return [plain(one) for one in thing]
        if not hasattr(thing, "dtype"):
            return thing
        array = np.ascontiguousarray(thing, np.float64) + 0.0  # no -0
        return [array.shape, hashlib.sha256(array.tobytes()).hexdigest()]

    return hashlib.sha256(json.dumps(plain(things)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Gate(_Arrays):
    r"""Which tokens an edit acts on: those whose score is beyond 0.

    .. math:: \langle r_j, h - \mu \rangle + o_j - q \lVert h - \mu \rVert

    Parameters
    ----------
    reads : ndarray of shape (n_units, n_features)
        Rows r.
    offset : ndarray of shape (n_units,)
        o.
    column : int, default=0
        The row j that decides.
    closed : bool, default=True
        Whether a score of exactly 0 counts.
    k : int or None, default=None
        Only where the row is among the k largest of the token, of equals the first ones.
    centre : ndarray of shape (n_features,) or None, default=None
        :math:`\mu`, where a cosine is asked for.
    cosine : float, default=0
        q, the cosine that must be reached where rows r have norm 1.
    """

    reads: Any
    offset: Any
    column: int = 0
    closed: bool = True
    k: int | None = None
    centre: Any = None
    cosine: float = 0.0

    def fires(self, values: Any) -> Any:
        """Tell which tokens are acted on.

        Parameters
        ----------
        values : ndarray or Tensor of shape (..., n_features)
            Tokens.

        Returns
        -------
        fires : ndarray or Tensor of shape (...), dtype bool
            True where the edit acts.
        """
        moved = values if self.centre is None else values - self.centre
        scores = moved @ self.reads.T + self.offset
        score = scores[..., self.column]
        if self.centre is not None:
            score = score - self.cosine * (moved * moved).sum(-1) ** 0.5
        fires = score >= 0 if self.closed else score > 0
        if self.k is None:
            return fires
        own = scores[..., self.column : self.column + 1]
        before = (scores > own).sum(-1) + (scores[..., : self.column] == own).sum(-1)
        return fires & (before < self.k)

    def fold(self, mean: Array, scale: float) -> Gate:
        """Make the gate of raw tokens h of that of scaled ones, (h - mean) / scale."""
        if self.centre is not None:
            return replace(self, centre=self.centre * scale + mean)
        reads = self.reads / scale
        return replace(self, reads=reads, offset=self.offset - reads @ mean)


@dataclass(frozen=True)
class EditMap(_Arrays):
    """What an edit does to a token; see the formula of the module.

    Parameters
    ----------
    shift : ndarray of shape (n_features,)
        s; with tensors also (n_rows, 1, n_features), one per sample.
    reads, writes : ndarray of shape (rank, n_features), or None
        R and W.
    offset : ndarray of shape (rank,), or None
        c.
    slope : ndarray of shape (n_features,), or None
        D.
    low, high : ndarray of shape (n_features,), or None
        Coordinates outside of these bounds stay, shift included; with ``slope`` only.
    gates : tuple of Gate, default=()
        The edit acts where all of them fire.
    per_sample : bool, default=False
        Whether it acts on all tokens of a sample of which one fires.
    """

    shift: Any
    reads: Any = None
    offset: Any = None
    writes: Any = None
    slope: Any = None
    low: Any = None
    high: Any = None
    gates: tuple[Gate, ...] = ()
    per_sample: bool = False

    @property
    def n_features(self) -> int:
        """Features of a token."""
        return int(self.shift.shape[-1])

    @property
    def is_constant(self) -> bool:
        """Whether the same is added to whatever token it acts on."""
        return self.reads is None and self.slope is None

    def fires(self, values: Any) -> Any:
        """Tell on which tokens all gates fire; None if there is no gate."""
        found = None
        for gate in self.gates:
            fires = gate.fires(values)
            found = fires if found is None else found & fires
        return found

    def change(self, values: Any) -> Any:
        """Say what is added to tokens where the edit acts, (..., n_features) or (n_features,)."""
        change = self.shift
        if self.reads is not None:
            change = change + (values @ self.reads.T + self.offset) @ self.writes
        if self.slope is not None:
            change = change + values * self.slope
            if self.low is not None:
                change = change * ((values >= self.low) & (values <= self.high))
        return change

    def __call__(self, values: Array) -> Array:
        """Edit tokens of no particular sample.

        Parameters
        ----------
        values : ndarray of shape (n_tokens, n_features)
            Tokens.

        Returns
        -------
        edited : ndarray of the same shape, dtype float32 or float64
            In the precision of the tokens, at least float32.

        Raises
        ------
        ValueError
            If the gate asks for whole samples.
        """
        if self.per_sample:
            raise ValueError(
                "this edit acts on whole samples, and single tokens do not say whose they are; use "
                "transform."
            )
        values = as_floats(np.asarray(values))
        same = self.converted(lambda array: array.astype(values.dtype, copy=False))
        edited: Array = values + same.change(values)
        fires = same.fires(values)
        return edited if fires is None else np.where(fires[:, None], edited, values)

    def fold(self, mean: Array, scale: float) -> EditMap:
        """Make the map of raw tokens of one that was learnt on scaled tokens.

        Parameters
        ----------
        mean : ndarray of shape (n_features,)
            What the scaler subtracts.
        scale : float
            What it divides by then.

        Returns
        -------
        edit : EditMap
            Scaling, this map and scaling back, in one.
        """
        changed: dict[str, Any] = {"shift": self.shift * scale}
        if self.reads is not None:
            changed["offset"] = self.offset * scale - self.reads @ mean
        if self.slope is not None:
            changed["shift"] = changed["shift"] - self.slope * mean
        if self.low is not None:
            changed |= {"low": self.low * scale + mean, "high": self.high * scale + mean}
        gates = tuple(gate.fold(mean, scale) for gate in self.gates)
        return replace(self, gates=gates, **changed)

    def to(self, like: Any) -> EditMap:
        """Return the twin that acts on tensors.

        Parameters
        ----------
        like : Tensor
            Its device is taken, and float64 if it is of that; else the twin computes in float32.

        Returns
        -------
        edit : EditMap
            With tensors in place of arrays.
        """
        import torch

        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        return self.converted(lambda array: torch.tensor(array, dtype=dtype, device=like.device))
