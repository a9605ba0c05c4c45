"""Several layers of the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from skact.arguments import SEQUENCE, checked
from skact.rows import Array
from skact.tokens._array import TokenArray
from skact.tokens._shapes import same_shapes
from skact.tokens._view import SampleView, with_row_labels

__all__ = ["LayerStack"]


class LayerStack(SampleView):
    """Several layers of the same samples, indexed as one.

    Parameters
    ----------
    layers : mapping of int to TokenArray
        Tokens by block. All show the same samples with the same lengths, shapes and segments.

    Attributes
    ----------
    layers : list of int
        The blocks, ascending; ready for a parameter grid.
    shape : tuple
        ``(n_samples, n_features)``.

    Raises
    ------
    ValueError
        If there is no layer, or two layers differ in samples, lengths, shapes, segments or width.

    Examples
    --------
    >>> import numpy as np
    >>> from skact import LayerStack, TokenArray
    >>> X = TokenArray(np.zeros((5, 2)), [0, 2, 5])
    >>> stack = LayerStack({0: X, 3: X})
    >>> stack.layers, stack[:1].layer(3).shape
    ([0, 3], (1, 2))
    """

    def __init__(self, layers: Mapping[int, TokenArray]) -> None:
        if not isinstance(layers, Mapping):
            raise TypeError(
                "layers must be a mapping of block numbers to TokenArrays, got "
                f"{type(layers).__name__}."
            )
        if not layers:
            raise ValueError("layers must hold at least one TokenArray.")
        for block, tokens in layers.items():
            if not isinstance(block, int | np.integer) or isinstance(block, bool):
                raise TypeError(f"layers must be named by their block numbers, got {block!r}.")
            if not isinstance(tokens, TokenArray):
                raise TypeError(
                    f"layer {block!r} must be a TokenArray, got {type(tokens).__name__}."
                )
        first_block, first = next(iter(layers.items()))
        for block, tokens in layers.items():
            if tokens.shape != first.shape or not np.array_equal(tokens.lengths, first.lengths):
                raise ValueError(
                    f"layers must hold the same samples: layer {block} has {tokens!r}, "
                    f"layer {first_block} has {first!r}."
                )
            for name in ("shapes", "segments"):
                if not same_shapes(getattr(tokens, name), getattr(first, name)):
                    raise ValueError(
                        f"layers must hold the same samples: the {name} of layer {block} are not "
                        f"those of layer {first_block}."
                    )
        self._layers = {block: layers[block] for block in sorted(layers)}
        self.index = np.arange(len(first))
        self.row_labels = first.row_labels

    @property
    def layers(self) -> list[int]:
        """The blocks, ascending."""
        return list(self._layers)

    @property
    def n_features(self) -> int:
        """Number of features of a token."""
        return next(iter(self._layers.values())).n_features

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the first layer."""
        return next(iter(self._layers.values())).dtype

    @property
    def lengths(self) -> Array:
        """Tokens of each sample, int64 of shape (n_samples,)."""
        return self.layer(self.layers[0]).lengths

    @property
    def shapes(self) -> Array | None:
        """Rows and columns of each sample, int64 of shape (n_samples, 2); None for runs."""
        return self.layer(self.layers[0]).shapes

    @property
    def segments(self) -> Array | None:
        """Run of adjacent tokens that each token lies in, int32 of shape (n_tokens,), or None."""
        return self.layer(self.layers[0]).segments

    def layer(self, block: int) -> TokenArray:
        """Take one layer out; the tokens are not copied.

        Parameters
        ----------
        block : int
            One of ``layers``; a negative number counts from the last of them.

        Returns
        -------
        tokens : TokenArray
            The layer's tokens of the samples shown.

        Raises
        ------
        ValueError
            If the stack does not hold this block.
        """
        blocks = self.layers
        if isinstance(block, int | np.integer) and -len(blocks) <= block < 0:
            block = blocks[block]
        if not isinstance(block, int | np.integer) or block is True or block not in blocks:
            raise ValueError(f"layer must be one of {blocks} (or negative), got {block!r}.")
        return with_row_labels(self._layers[block][self.index], self.row_labels)

    def __getstate__(self) -> dict[str, Any]:
        # Each layer leaves behind what is not shown.
        layers = {block: self.layer(block) for block in self._layers}
        index = np.arange(len(self))
        return {"_layers": layers, "index": index, "row_labels": self.row_labels}

    def _sample(self, i: int) -> dict[int, Array]:
        return {block: tokens[self.index[i]] for block, tokens in self._layers.items()}

    @classmethod
    @checked(parts=[SEQUENCE])
    def concatenate(cls, parts: Sequence[LayerStack]) -> Self:
        """Put the samples of several stacks behind one another; copies the tokens.

        Parameters
        ----------
        parts : sequence of LayerStack
            Stacks of the same blocks.

        Returns
        -------
        stack : LayerStack
            All samples.

        Raises
        ------
        ValueError
            If there is nothing to concatenate or the blocks differ.
        """
        if not parts:
            raise ValueError("parts is empty: there is nothing to concatenate.")
        for part in parts:
            if not isinstance(part, LayerStack):
                raise TypeError(f"parts must hold LayerStacks, got {type(part).__name__}.")
            if part.layers != parts[0].layers:
                raise ValueError(f"the parts hold layers {parts[0].layers} and {part.layers}.")
        return cls(
            {b: TokenArray.concatenate([p.layer(b) for p in parts]) for b in parts[0].layers}
        )

    def _facts(self) -> dict[str, Any]:
        first = self._layers[self.layers[0]]
        source = first.source and replace(first.source, block=None)
        facts = {"layers": ", ".join(map(str, self.layers)), **first._facts()}
        return facts if source is None else {**facts, "source": str(source)}

    def __repr__(self) -> str:
        return f"LayerStack(layers {self.layers}, {len(self)} samples, {self.n_features} features)"
